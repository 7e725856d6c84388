//! `bench --op restart`: a registry with many records: filling it, backing it up, starting a host
//! again after SIGKILL, letting an empty one catch up, and what each takes in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};
use maitred_client::Client;
use maitred_protocol::{ProcessKey, TypeName, TypeSpec};
use serde_json::json;
use tokio::task::JoinSet;

use super::children::{Group, Memory};
use super::measure::{PROCESSES_MAX, TYPE};
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::out::fields;
use crate::sample::{SampleNode, Spec};

/// Sets under way while it is filled.
const IN_FLIGHT: u64 = 1_024;
/// Tries of one set, with a second between them.
const TRIES: u32 = 30;

/// What came out; all times in seconds.
pub(super) struct Restart {
    hosts: u16,
    records: u64,
    fill: f64,
    filled: Memory,
    snapshot: f64,
    snapshot_bytes: u64,
    restart: f64,
    restarted: Memory,
    /// Of a host that began with nothing, until it voted; none with one host.
    catch_up: Option<(f64, Memory)>,
}

pub(super) async fn run(shell: &Shell, hosts: u16, records: u64) -> Result<Restart, Failure> {
    let say = |text: &str| {
        if !shell.out.is_json() {
            eprintln!("{text}");
        }
    };
    let mut group = Group::start(hosts, &[]).await?;
    let client = shell.connect(&group.target).await?;
    group.settled(&client).await?;
    let nodes = nodes(&client, records).await?;
    say("filling");
    let begun = Instant::now();
    fill(shell, &nodes, records).await?;
    let fill = begun.elapsed().as_secs_f64();
    group.settled(&client).await?;
    let last = group.hosts.len() - 1;
    let filled = group.memory(last);

    say("saving a snapshot");
    let begun = Instant::now();
    let mut file = tempfile::tempfile()
        .map_err(|error| Failure::file("write in", &std::env::temp_dir(), &error))?;
    let saved = client.save_snapshot(false, &mut file, |_, _| {}).await?;
    let snapshot = begun.elapsed().as_secs_f64();

    say("starting a host again after SIGKILL");
    let at = follower(&group, &client, last).await;
    group.kill(at);
    group.buried(at).await;
    let begun = Instant::now();
    group.run(at).await?;
    group.settled(&client).await?;
    let restart = begun.elapsed().as_secs_f64();
    let restarted = group.memory(at);

    let catch_up = if hosts > 1 {
        say("letting a host with an empty disk catch up");
        Some(catch_up(&mut group, &client, last).await?)
    } else {
        None
    };
    for node in &nodes {
        node.crash();
    }
    client.close().await;
    Ok(Restart {
        hosts,
        records,
        fill,
        filled,
        snapshot,
        snapshot_bytes: saved.bytes,
        restart,
        restarted,
        catch_up,
    })
}

/// A host that does not lead, if there is one.
async fn follower(group: &Group, client: &Client, preferred: usize) -> usize {
    let members = client.members().await.ok();
    let leader = members.and_then(|members| group.place(&members, members.leader?));
    match leader {
        Some(leader) if leader == preferred => (preferred + 1) % group.hosts.len(),
        _ => preferred,
    }
}

async fn catch_up(
    group: &mut Group,
    client: &Client,
    preferred: usize,
) -> Result<(f64, Memory), Failure> {
    let at = follower(group, client, preferred).await;
    group.kill(at);
    group.buried(at).await;
    group.lose_disk(at)?;
    let members = client.members().await?;
    let mut items = members.items.iter();
    let name = &group.hosts[at].name;
    let lost = items.find(|member| member.name.as_str() == name);
    let Some(lost) = lost else {
        let message = format!("{name} is no member any more");
        return Err(Failure::new(Exit::Other, "bench", message, "run it again"));
    };
    let begun = Instant::now();
    client.replace_member(lost.host, None).await?;
    group.run(at).await?;
    group.settled(client).await?;
    Ok((begun.elapsed().as_secs_f64(), group.memory(at)))
}

async fn nodes(client: &Client, records: u64) -> Result<Vec<SampleNode>, Failure> {
    client.put_type(TypeSpec::new(TypeName::new(TYPE)?)).await?;
    let mut nodes = Vec::new();
    for number in 0..records.div_ceil(PROCESSES_MAX) {
        let spec = Spec {
            name: format!("bench-{number}"),
            zone: "bench".to_owned(),
            capacity: 1_000_000,
            types: vec![TYPE],
            ttl: Duration::from_secs(60),
            life: None,
        };
        nodes.push(SampleNode::start(client, &spec).await?);
    }
    Ok(nodes)
}

/// Each record as its node registers one that it runs, so that it has it still after a restart.
async fn fill(shell: &Shell, nodes: &[SampleNode], records: u64) -> Result<(), Failure> {
    let target = if shell.out.is_json() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(records), target);
    let handles: Arc<[_]> = nodes.iter().map(|node| node.handle.clone()).collect();
    let next = Arc::new(AtomicU64::new(0));
    let mut slots = JoinSet::new();
    for _ in 0..IN_FLIGHT.min(records) {
        let (handles, next, bar) = (Arc::clone(&handles), Arc::clone(&next), bar.clone());
        slots.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= records {
                    return Ok::<(), Failure>(());
                }
                // One node after the other: what is under way goes out in few packets then.
                let handle = &handles[(number / PROCESSES_MAX) as usize];
                let key = ProcessKey::new(TYPE, &format!("{number:08}"))?;
                let mut tries = 0;
                while let Err(error) = handle.set(key.clone(), "1", Vec::new()).await {
                    tries += 1;
                    if tries == TRIES {
                        return Err(error.into());
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                bar.inc(1);
            }
        });
    }
    let filled = slots.join_all().await;
    bar.finish_and_clear();
    filled.into_iter().collect()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn in_memory(memory: Memory) -> String {
    format!(
        "{:.0} MiB resident, {:.0} MiB at most",
        mib(memory.now),
        mib(memory.peak)
    )
}

impl Restart {
    pub(super) fn report(&self, shell: &Shell) -> Result<(), Failure> {
        let memory = |memory: Memory| {
            json!({
                "resident_bytes": memory.now.to_string(),
                "peak_bytes": memory.peak.to_string(),
            })
        };
        let body = json!({
            "op": "restart",
            "hosts": self.hosts,
            "records": self.records.to_string(),
            "fill_s": self.fill,
            "fill_per_s": self.records as f64 / self.fill.max(0.001),
            "filled_memory": memory(self.filled),
            "snapshot_s": self.snapshot,
            "snapshot_bytes": self.snapshot_bytes.to_string(),
            "restart_s": self.restart,
            "restarted_memory": memory(self.restarted),
            "catch_up_s": self.catch_up.map(|(seconds, _)| seconds),
            "caught_up_memory": self.catch_up.map(|(_, caught)| memory(caught)),
        });
        shell.out.show("RestartReport", body, || self.text())
    }

    fn text(&self) -> String {
        let rate = self.records as f64 / self.fill.max(0.001);
        let mut rows = vec![
            (
                "records",
                format!("{}; hosts: {}", self.records, self.hosts),
            ),
            (
                "filled",
                format!(
                    "in {:.1} s ({rate:.0} a second); {}",
                    self.fill,
                    in_memory(self.filled)
                ),
            ),
            (
                "snapshot",
                format!(
                    "taken and saved in {:.2} s, {:.1} MiB",
                    self.snapshot,
                    mib(self.snapshot_bytes)
                ),
            ),
            (
                "restart",
                format!(
                    "level again {:.2} s after its start; {}",
                    self.restart,
                    in_memory(self.restarted)
                ),
            ),
        ];
        if let Some((seconds, memory)) = self.catch_up {
            let text = format!(
                "an empty host voted after {seconds:.2} s; {}",
                in_memory(memory)
            );
            rows.push(("catch-up", text));
        }
        fields(&rows)
    }
}

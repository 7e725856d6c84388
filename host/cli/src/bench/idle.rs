//! `bench --op keep-alive` and `--op expire`: what many nodes cost that do nothing but say that they are
//! there, and how fast they are given up when they no longer do.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use maitred_client::Client;
use maitred_protocol::{NodeEpoch, ProcessKey, TypeName, TypeSpec};
use serde_json::json;

use super::children::Group;
use super::measure::{TYPE, time};
use super::nodes::{NodeProcess, many};
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::out::{fields, short};

/// Nodes of one process: each has a thread and a socket.
const NODES_MAX: u32 = 250;
/// Units of each node's capacity.
const CAPACITY: u32 = 1_000;
/// Tries of one create.
const TRIES: u32 = 10;
/// How often the counts are looked at.
const LOOK: Duration = Duration::from_millis(1);
/// How long beyond the TTL the last expiry may take before the measurement counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What idle nodes cost.
pub(super) struct KeepAlive {
    nodes: u32,
    ttl: Duration,
    seconds: f64,
    /// Of one CPU, 1.0 for all of it.
    cpu: f64,
    /// Bytes of resident memory, before the nodes came and at the end.
    memory: (u64, u64),
    keep_alives: u64,
    ignored: u64,
    /// Nodes whose sessions did not last.
    lost: u32,
}

pub(super) async fn keep_alive(
    shell: &Shell,
    nodes: u32,
    ttl: Duration,
    span: Duration,
) -> Result<KeepAlive, Failure> {
    let serve = ["--http".to_owned(), "127.0.0.1:0".to_owned()];
    let group = Group::start(1, &serve).await?;
    let client = shell.connect(&group.target).await?;
    group.settled(&client).await?;
    let empty = group.memory(0).now;
    let children = many_nodes(&group, nodes, ttl).await?;
    // Registering is not what is measured.
    tokio::time::sleep(ttl * 2).await;
    let sessions = sessions(&client).await?;
    let (begun, cpu) = (Instant::now(), group.cpu(0));
    let sent = group.counter(0, "keep_alives").await?;
    let ignored = group.counter(0, "keep_alives_ignored").await?;
    tokio::time::sleep(span).await;
    let seconds = begun.elapsed().as_secs_f64();
    let used = group.cpu(0).saturating_sub(cpu).as_secs_f64();
    let kept = sessions
        .intersection(&self::sessions(&client).await?)
        .count();
    let result = KeepAlive {
        nodes,
        ttl,
        seconds,
        cpu: used / seconds,
        memory: (empty, group.memory(0).now),
        keep_alives: group.counter(0, "keep_alives").await? - sent,
        ignored: group.counter(0, "keep_alives_ignored").await? - ignored,
        lost: nodes.saturating_sub(u32::try_from(kept).unwrap_or(u32::MAX)),
    };
    client.close().await;
    drop(children);
    Ok(result)
}

/// The sessions that there are.
async fn sessions(client: &Client) -> Result<BTreeSet<NodeEpoch>, Failure> {
    let nodes = client.nodes().await?;
    Ok(nodes.into_iter().map(|node| node.epoch).collect())
}

async fn many_nodes(group: &Group, nodes: u32, ttl: Duration) -> Result<Vec<NodeProcess>, Failure> {
    let mut children = Vec::new();
    for number in 0..nodes.div_ceil(NODES_MAX) {
        let count = NODES_MAX.min(nodes - number * NODES_MAX);
        let name = format!("idle-{number}");
        children.push(NodeProcess::start(group, &name, count, CAPACITY, ttl).await?);
    }
    Ok(children)
}

impl KeepAlive {
    fn per_node(&self) -> u64 {
        self.memory.1.saturating_sub(self.memory.0) / u64::from(self.nodes.max(1))
    }

    pub(super) fn report(&self, shell: &Shell) -> Result<(), Failure> {
        let per_second = self.keep_alives as f64 / self.seconds;
        let body = json!({
            "op": "keep-alive",
            "nodes": self.nodes,
            "ttl_ms": self.ttl.as_millis() as u64,
            "seconds": self.seconds,
            "cpu": self.cpu,
            "resident_before_bytes": self.memory.0.to_string(),
            "resident_bytes": self.memory.1.to_string(),
            "resident_per_node_bytes": self.per_node().to_string(),
            "keep_alives": self.keep_alives.to_string(),
            "keep_alives_per_s": per_second,
            "keep_alives_ignored": self.ignored.to_string(),
            "lost": self.lost,
        });
        shell.out.show("KeepAliveReport", body, || {
            let nodes = format!("{} idle, TTL {}", self.nodes, short(self.ttl));
            fields(&[
                ("nodes", nodes),
                ("cpu", format!("{:.1} % of one", self.cpu * 100.0)),
                (
                    "memory",
                    format!(
                        "{} KiB a node ({:.0} MiB resident)",
                        self.per_node() / 1_024,
                        self.memory.1 as f64 / 1_048_576.0
                    ),
                ),
                (
                    "keep-alives",
                    format!("{per_second:.0} a second, {} ignored", self.ignored),
                ),
                ("lost", self.lost.to_string()),
            ])
        })?;
        if self.lost == 0 {
            return Ok(());
        }
        let message = format!("{} nodes were lost, though all of them run", self.lost);
        let help = "the machine was too slow for so many; use fewer --nodes, or a longer --ttl";
        Err(Failure::new(Exit::Other, "bench", message, help))
    }
}

/// How fast nodes that are gone are given up.
pub(super) struct Expire {
    nodes: u32,
    processes: u64,
    ttl: Duration,
    /// Since the kill.
    first: Duration,
    last: Duration,
}

pub(super) async fn expire(
    shell: &Shell,
    hosts: u16,
    nodes: u32,
    processes: u64,
    ttl: Duration,
) -> Result<Expire, Failure> {
    let group = Group::start(hosts, &[]).await?;
    let client = shell.connect(&group.target).await?;
    group.settled(&client).await?;
    client.put_type(TypeSpec::new(TypeName::new(TYPE)?)).await?;
    let mut children = many_nodes(&group, nodes, ttl).await?;
    let creator = client.clone();
    many(processes, move |number| {
        let client = creator.clone();
        async move {
            let key = ProcessKey::new(TYPE, &number.to_string())?;
            let mut tries = 1;
            // A machine that runs all of them may be too busy for a lease now and then.
            while let Err(error) = client.create(key.clone()).send().await {
                if tries == TRIES {
                    return Err(error.into());
                }
                tries += 1;
            }
            Ok(())
        }
    })
    .await?;
    let before = client.status().await?;
    if before.nodes < nodes {
        let message = format!("only {} of {nodes} nodes are there", before.nodes);
        let help = "use fewer --nodes, or a longer --ttl";
        return Err(Failure::new(Exit::Other, "bench", message, help));
    }
    let begun = Instant::now();
    children.iter_mut().for_each(NodeProcess::kill);
    let (first, last) = all_gone(&client, nodes, begun, ttl).await?;
    for child in children {
        child.buried().await;
    }
    client.close().await;
    Ok(Expire {
        nodes,
        processes,
        ttl,
        first,
        last,
    })
}

/// When the first was given up, and when the last, with all that they had.
async fn all_gone(
    client: &Client,
    nodes: u32,
    begun: Instant,
    ttl: Duration,
) -> Result<(Duration, Duration), Failure> {
    let mut first = None;
    loop {
        let status = client.status().await?;
        let now = begun.elapsed();
        if status.nodes < nodes {
            let first = *first.get_or_insert(now);
            if status.nodes == 0 && status.running == 0 {
                return Ok((first, now));
            }
        }
        if now > ttl + PATIENCE {
            let message = format!("{} nodes are still there", status.nodes);
            let help = "look at how loaded the machine and its disk are";
            return Err(Failure::new(Exit::Other, "bench", message, help));
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Expire {
    pub(super) fn report(&self, shell: &Shell) -> Result<(), Failure> {
        let span = self.last.saturating_sub(self.first).as_secs_f64();
        let rate = f64::from(self.nodes) / span.max(0.001);
        let body = json!({
            "op": "expire",
            "nodes": self.nodes,
            "processes": self.processes.to_string(),
            "ttl_ms": self.ttl.as_millis() as u64,
            "first_us": self.first.as_micros().to_string(),
            "last_us": self.last.as_micros().to_string(),
            "expirations_per_s": rate,
        });
        shell.out.show("ExpireReport", body, || {
            let at = |span: Duration| time(span.as_secs_f64() * 1e6);
            fields(&[
                (
                    "nodes",
                    format!(
                        "{} killed at once, {} processes, TTL {}",
                        self.nodes,
                        self.processes,
                        short(self.ttl)
                    ),
                ),
                ("first", format!("given up {} after the kill", at(self.first))),
                ("last", format!("given up {} after the kill", at(self.last))),
                (
                    "expirations",
                    format!(
                        "{rate:.0} a second; their leases end spread over a pause between keep-alives"
                    ),
                ),
            ])
        })
    }
}

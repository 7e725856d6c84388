//! `bench --op node-loss`: how long it takes until the processes of a killed game node run elsewhere.
//!
//! One trial: a fresh node, in a process of its own, is given all processes while the others are
//! cordoned; they are uncordoned; SIGKILL to the node; the leader's counts are polled until everything
//! runs again; what was made is removed.

use std::time::{Duration, Instant};

use maitred_client::Client;
use maitred_protocol::{NodeName, OnNodeLost, ProcessKey, Restart, Status, TypeName, TypeSpec};
use serde_json::{Value, json};

use super::children::Group;
use super::measure::{TYPE, time};
use super::nodes::{NodeProcess, many};
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::json as shape;
use crate::out::{short, table};
use crate::sample::random;

/// How often the counts are looked at.
const LOOK: Duration = Duration::from_millis(1);
/// How long beyond the TTL it may take before the measurement counts as failed.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is measured.
pub(super) struct Ask {
    pub(super) hosts: u16,
    pub(super) nodes: u32,
    pub(super) processes: u64,
    pub(super) ttls: Vec<Duration>,
    pub(super) restarts: Vec<Restart>,
    pub(super) trials: u32,
    /// Further flags of the hosts.
    pub(super) serve: Vec<String>,
}

/// What came out, for one restart level and TTL.
struct Row {
    restart: Restart,
    ttl: Duration,
    trials: Vec<Trial>,
}

/// Times since the kill.
#[derive(Debug, Clone, Copy)]
struct Trial {
    /// The lease ended: the node is out, and none of its processes is registered as running.
    expired: Duration,
    /// All run elsewhere.
    running: Duration,
}

/// What came out.
pub(super) struct NodeLoss {
    ask: Ask,
    rows: Vec<Row>,
}

pub(super) async fn run(shell: &Shell, ask: Ask) -> Result<NodeLoss, Failure> {
    let group = Group::start(ask.hosts, &ask.serve).await?;
    let client = shell.connect(&group.target).await?;
    group.settled(&client).await?;
    let mut rows = Vec::new();
    for &ttl in &ask.ttls {
        let mut spares = Vec::new();
        for number in 1..ask.nodes {
            let name = format!("spare-{}-{number}", ttl.as_millis());
            let capacity = u32::try_from(ask.processes).unwrap_or(u32::MAX);
            spares.push(NodeProcess::start(&group, &name, 1, capacity, ttl).await?);
        }
        let names: Result<Vec<NodeName>, _> = spares
            .iter()
            .map(|spare| NodeName::new(format!("{}-0", spare.name)))
            .collect();
        let ground = Ground {
            group: &group,
            client: &client,
            spares: names?,
            processes: ask.processes,
            ttl,
        };
        for &restart in &ask.restarts {
            let mut trials = Vec::new();
            for number in 1..=ask.trials {
                let trial = ground.trial(restart).await?;
                if !shell.out.is_json() {
                    eprintln!(
                        "{} ttl {}, trial {number} of {}: expired {}, running elsewhere {}",
                        shape::restart(restart),
                        short(ttl),
                        ask.trials,
                        beyond(trial.expired, ttl),
                        beyond(trial.running, ttl),
                    );
                }
                trials.push(trial);
            }
            rows.push(Row {
                restart,
                ttl,
                trials,
            });
        }
        for mut spare in spares {
            let name = NodeName::new(format!("{}-0", spare.name))?;
            let epoch = client.get_node(&name).await?.epoch;
            spare.kill();
            client.deregister_node(&name, epoch).await?;
            spare.buried().await;
        }
    }
    client.close().await;
    Ok(NodeLoss { ask, rows })
}

/// What a trial needs to be there.
struct Ground<'a> {
    group: &'a Group,
    client: &'a Client,
    /// The nodes that are not killed.
    spares: Vec<NodeName>,
    processes: u64,
    ttl: Duration,
}

impl Ground<'_> {
    async fn trial(&self, restart: Restart) -> Result<Trial, Failure> {
        let mut spec = TypeSpec::new(TypeName::new(TYPE)?);
        spec.on_node_lost = OnNodeLost::Recreate;
        spec.restart = restart;
        self.client.put_type(spec).await?;
        self.cordon(true).await?;
        let run = format!("{:08x}", random() as u32);
        let capacity = u32::try_from(self.processes).unwrap_or(u32::MAX);
        let name = format!("victim-{run}");
        let mut victim = NodeProcess::start(self.group, &name, 1, capacity, self.ttl).await?;
        let (client, of) = (self.client.clone(), run.clone());
        many(self.processes, move |number| {
            let (client, key) = (client.clone(), key(&of, number));
            async move {
                client.create(key?).send().await?;
                Ok(())
            }
        })
        .await?;
        self.cordon(false).await?;
        // At any phase of its keep-alives.
        let phase = random() % (self.ttl.as_millis() as u64 / 2).max(1);
        tokio::time::sleep(Duration::from_millis(phase)).await;
        let before = self.client.status().await?;
        let begun = Instant::now();
        victim.kill();
        let trial = self.watch(&before, begun).await?;
        victim.buried().await;
        let client = self.client.clone();
        many(self.processes, move |number| {
            let (client, key) = (client.clone(), key(&run, number));
            async move {
                client.del(&key?, None).await?;
                Ok(())
            }
        })
        .await?;
        Ok(trial)
    }

    async fn cordon(&self, cordoned: bool) -> Result<(), Failure> {
        for spare in &self.spares {
            self.client.cordon(spare, cordoned).await?;
        }
        Ok(())
    }

    async fn watch(&self, before: &Status, begun: Instant) -> Result<Trial, Failure> {
        let mut expired = None;
        loop {
            let status = self.client.status().await?;
            let now = begun.elapsed();
            // One entry of the log ends the lease and all that was registered under it.
            if status.nodes < before.nodes {
                let expired = *expired.get_or_insert(now);
                if status.running == before.running && status.starting + status.pending == 0 {
                    let running = now;
                    return Ok(Trial { expired, running });
                }
            }
            if now > self.ttl + PATIENCE {
                return Err(late(&status));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn key(run: &str, number: u64) -> Result<ProcessKey, Failure> {
    Ok(ProcessKey::new(TYPE, &format!("{run}-{number}"))?)
}

fn late(status: &Status) -> Failure {
    let message = format!(
        "not all processes run again: {} running, {} starting, {} pending, {} held",
        status.running, status.starting, status.pending, status.held
    );
    let help = "give the nodes more room (--nodes), or fewer --processes";
    Failure::new(Exit::Other, "bench", message, help)
}

/// What is beyond the TTL, as people read it; a lease may end a little before that, since it counts
/// from the last keep-alive and not from the kill.
fn beyond(took: Duration, ttl: Duration) -> String {
    match took.checked_sub(ttl) {
        Some(over) => format!("+{}", time(over.as_secs_f64() * 1e6)),
        None => format!("-{}", time((ttl - took).as_secs_f64() * 1e6)),
    }
}

/// The middle one and the last, of at least one.
fn p50_max(times: impl Iterator<Item = Duration>) -> (Duration, Duration) {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    let last = times.last().copied().unwrap_or_default();
    let middle = times.get(times.len().saturating_sub(1) / 2);
    (middle.copied().unwrap_or_default(), last)
}

impl Row {
    fn expired(&self) -> (Duration, Duration) {
        p50_max(self.trials.iter().map(|trial| trial.expired))
    }

    fn running(&self) -> (Duration, Duration) {
        p50_max(self.trials.iter().map(|trial| trial.running))
    }

    fn to_json(&self) -> Value {
        let micros = |span: Duration| span.as_micros().to_string();
        let each = |trial: &Trial| {
            json!({
                "expired_us": micros(trial.expired),
                "running_us": micros(trial.running),
            })
        };
        json!({
            "restart": shape::restart(self.restart),
            "ttl_ms": self.ttl.as_millis() as u64,
            "expired_p50_us": micros(self.expired().0),
            "expired_max_us": micros(self.expired().1),
            "running_p50_us": micros(self.running().0),
            "running_max_us": micros(self.running().1),
            "trials": self.trials.iter().map(each).collect::<Vec<_>>(),
        })
    }
}

impl NodeLoss {
    pub(super) fn report(&self, shell: &Shell) -> Result<(), Failure> {
        let body = json!({
            "op": "node-loss",
            "hosts": self.ask.hosts,
            "nodes": self.ask.nodes,
            "processes": self.ask.processes.to_string(),
            "serve": self.ask.serve,
            "results": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        });
        shell.out.show("NodeLossReport", body, || self.text())
    }

    fn text(&self) -> String {
        let header = [
            "RESTART",
            "TTL",
            "TRIALS",
            "UNREGISTERED P50",
            "MAX",
            "RUNNING ELSEWHERE P50",
            "MAX",
        ];
        let row = |row: &Row| {
            let (expired, running) = (row.expired(), row.running());
            let over = |span| beyond(span, row.ttl);
            vec![
                shape::restart(row.restart).to_owned(),
                short(row.ttl),
                row.trials.len().to_string(),
                over(expired.0),
                over(expired.1),
                over(running.0),
                over(running.1),
            ]
        };
        format!(
            "{}\n\nbeyond the TTL, from SIGKILL of a node with {} processes; {} others, hosts: {}\n\
             a lease counts from the last keep-alive before the kill, so it may end before the TTL is over",
            table(&header, self.rows.iter().map(row)),
            self.ask.processes,
            self.ask.nodes - 1,
            self.ask.hosts,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_beyond_the_ttl() {
        let millis = Duration::from_millis;
        assert_eq!(beyond(millis(3_040), millis(3_000)), "+40.0 ms");
        assert_eq!(beyond(millis(2_960), millis(3_000)), "-40.0 ms");
        let of = [3, 1, 2].map(millis);
        assert_eq!(p50_max(of.into_iter()), (millis(2), millis(3)));
        assert_eq!(p50_max([millis(7)].into_iter()), (millis(7), millis(7)));
    }
}

//! `bench --op failover`: how long nobody can write after the host that leads was killed.
//!
//! One trial: all hosts are level; SIGKILL to the one that leads; one change is asked for at that
//! moment, of the client that every program has, and the time until it is acknowledged is taken; the
//! host starts again on what it has, and is waited for.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use maitred_client::Client;
use maitred_protocol::{NodeEpoch, NodeName, ProcessKey, SetProcess, TypeName, TypeSpec};
use serde_json::{Value, json};

use super::children::Group;
use super::measure::{TYPE, time, times};
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::out::fields;
use crate::sample::{SampleNode, Spec, random};

/// How long no write may be acknowledged before the measurement counts as failed.
const OUTAGE: Duration = Duration::from_secs(60);
/// The trials begin at any phase of the heartbeats and elections, within this.
const PHASE_MS: u64 = 500;

/// What came out.
pub(super) struct Failover {
    hosts: u16,
    /// Nanoseconds.
    times: Histogram<u64>,
    /// Microseconds, in order of the trials.
    each: Vec<u64>,
    /// Answers that were no, within the outages: tries of the same change.
    refused: u64,
}

/// Where the changes go.
struct Writer {
    client: Client,
    node: NodeName,
    epoch: NodeEpoch,
    key: ProcessKey,
}

pub(super) async fn run(shell: &Shell, hosts: u16, trials: u32) -> Result<Failover, Failure> {
    let mut group = Group::start(hosts, &[]).await?;
    let client = shell.connect(&group.target).await?;
    group.settled(&client).await?;
    client.put_type(TypeSpec::new(TypeName::new(TYPE)?)).await?;
    let spec = Spec {
        name: "bench-failover".to_owned(),
        zone: "bench".to_owned(),
        capacity: 1_000,
        types: vec![TYPE],
        ttl: Duration::from_secs(60),
        life: None,
    };
    let node = SampleNode::start(&client, &spec).await?;
    let name = node.handle.name().clone();
    let writer = Writer {
        epoch: client.get_node(&name).await?.epoch,
        node: name,
        key: ProcessKey::new(TYPE, "failover")?,
        client,
    };
    let mut result = Failover {
        hosts,
        times: times(),
        each: Vec::new(),
        refused: 0,
    };
    for trial in 1..=trials {
        let took = one(&mut group, &writer, trial, &mut result.refused).await?;
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        result.times.saturating_record(nanos);
        result.each.push(nanos / 1_000);
        if !shell.out.is_json() {
            let micros = nanos as f64 / 1_000.0;
            eprintln!("trial {trial:3} of {trials}: {}", time(micros));
        }
    }
    node.crash();
    writer.client.close().await;
    Ok(result)
}

async fn one(
    group: &mut Group,
    writer: &Writer,
    trial: u32,
    refused: &mut u64,
) -> Result<Duration, Failure> {
    let members = group.settled(&writer.client).await?;
    tokio::time::sleep(Duration::from_millis(random() % PHASE_MS)).await;
    // The connections and the node are warm: what is measured is the group.
    writer.write(trial * 2).await?;
    let members = writer.client.members().await.unwrap_or(members);
    let leader = members
        .leader
        .and_then(|leader| group.place(&members, leader));
    let Some(leader) = leader else {
        let help = "run it on a machine that does less meanwhile";
        let message = "nobody led before the kill";
        return Err(Failure::new(Exit::Unavailable, "no_leader", message, help));
    };
    let begun = Instant::now();
    group.kill(leader);
    while let Err(failure) = writer.write(trial * 2 + 1).await {
        *refused += 1;
        if begun.elapsed() > OUTAGE {
            return Err(failure);
        }
    }
    let took = begun.elapsed();
    group.buried(leader).await;
    group.run(leader).await?;
    Ok(took)
}

impl Writer {
    async fn write(&self, number: u32) -> Result<(), Failure> {
        let set = SetProcess {
            key: self.key.clone(),
            node: self.node.clone(),
            epoch: self.epoch,
            pid: number.to_string(),
            share: Vec::new(),
            incarnation: None,
        };
        self.client.set(set).await?;
        Ok(())
    }
}

impl Failover {
    fn millis(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64 / 1e6
    }

    pub(super) fn report(&self, shell: &Shell) -> Result<(), Failure> {
        let trials: Vec<Value> = self.each.iter().map(|micros| json!(micros)).collect();
        let body = json!({
            "op": "failover",
            "hosts": self.hosts,
            "trials": self.each.len(),
            "refused": self.refused.to_string(),
            "p50_ms": self.millis(0.5),
            "p99_ms": self.millis(0.99),
            "max_ms": self.millis(1.0),
            "each_us": trials,
        });
        shell.out.show("FailoverReport", body, || {
            let at = |quantile| time(self.millis(quantile) * 1_000.0);
            fields(&[
                (
                    "failover",
                    format!("{} hosts, {} trials", self.hosts, self.each.len()),
                ),
                ("p50", at(0.5)),
                ("p99", at(0.99)),
                ("max", at(1.0)),
                (
                    "measured",
                    "from SIGKILL of the leader to the next acknowledged set".to_owned(),
                ),
            ])
        })
    }
}

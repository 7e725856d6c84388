//! `bench`: how fast a host or a group answers, measured in a closed loop; how long nobody can write
//! when its leader is killed; how it starts again with many records; how long the processes of a
//! killed node are away, and what idle nodes cost.
//!
//! Each of the requests in flight is followed by the next one when it is answered. So throughput is
//! what that many callers get, and waiting in front of a saturated host is not in the times.

mod children;
mod failover;
mod idle;
mod measure;
mod node_loss;
mod nodes;
mod restart;

use std::time::Duration;

use clap::{Args, ValueEnum};
use maitred_client::Client;
use maitred_protocol::limits::{IN_FLIGHT_MAX, TTL_MS_MAX, TTL_MS_MIN};
use maitred_protocol::{ModuleName, Restart};
use serde_json::{Value, json};

use crate::args::duration;
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::host::{Embedded, Signals};
use crate::out::{short, table};

use measure::{Ground, Measured};
pub(crate) use nodes::Nodes;

const LOOP: &str = "closed loop: each slot sends its next request when the last one is answered, so \
                    time spent waiting for a slot is not counted\ncreates end early \
                    when their nodes are full, at 18,000 processes each";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Op {
    /// A whole create: decide, record, have a node start it, record that
    Create,
    /// Register a process that its node runs already, or update it: one change
    Set,
    /// Look a process up, linearizably
    Get,
    /// All three
    All,
    /// The time from SIGKILL of the leader to the next acknowledged set, with hosts as processes
    Failover,
    /// Fill, back up, start again, catch up: with many records, and hosts as processes
    Restart,
    /// The time from SIGKILL of a game node until its processes run elsewhere
    NodeLoss,
    /// What idle nodes cost a host: CPU, memory, keep-alives a second
    KeepAlive,
    /// How many nodes a second are given up, when many die at once
    Expire,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Set => "set",
            Self::Get => "get",
            Self::All => "all",
            Self::Failover => "failover",
            Self::Restart => "restart",
            Self::NodeLoss => "node-loss",
            Self::KeepAlive => "keep-alive",
            Self::Expire => "expire",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RestartArg {
    /// Elsewhere at once
    Fast,
    /// Elsewhere after the kill bound
    Safe,
}

/// Measure a host or a group: creates, registrations, reads, failover, restart, lost nodes
///
/// A closed loop: each of the requests in flight is followed by the next when it is answered. Sample
/// nodes run in this program; what they were given is removed afterwards. The program takes part of
/// the machine that it measures, unless the host is on another one.
///
/// Example: maitred bench --op create --in-flight 1,64,1024 --duration 5s
///
/// Example: maitred bench --hosts 3 --op set -o json
///
/// The other operations start hosts of their own, as processes on temporary folders, and need none
/// that runs; those about nodes start these as processes too.
///
/// Example: maitred bench --op failover --trials 30
///
/// Example: maitred bench --op restart --hosts 3 --records 1000000
///
/// Example: maitred bench --op node-loss --processes 10000 --ttl 1s,3s --restart fast,safe
///
/// Example: maitred bench --op keep-alive --nodes 2000 --ttl 3s --duration 30s
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What is measured
    #[arg(long, value_enum, default_value = "all")]
    op: Op,
    /// Requests under way at a time, up to 4096 a connection; several are measured one after another
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,64,1024",
          value_parser = clap::value_parser!(u32).range(1..=16_384))]
    in_flight: Vec<u32>,
    /// How long each is measured
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// How long each runs before it is measured
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    warm_up: Duration,
    /// Game nodes: those that take the creates, 1 to 64 [default: 3]; those of node-loss [default: 11],
    /// of which one is killed; those of keep-alive [default: 2000] and expire [default: 1000], up to 20000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    nodes: Option<u32>,
    /// Connections that share the requests, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: u16,
    /// The selector of creates; one that no module has is the type's native fallback
    #[arg(long, value_name = "MODULE", default_value = "least-loaded")]
    selector: ModuleName,
    /// Start a host in this program, on a temporary folder
    #[arg(long)]
    embedded: bool,
    /// Start so many hosts, 1 to 5: in this program, or as processes for the operations that need that
    /// [default: 3 for failover, 1 for what else starts hosts, otherwise those that the connection leads to]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=5))]
    hosts: Option<u16>,
    /// How often the leader [default: 30] or a node [default: 5, at each TTL and level] is killed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: Option<u32>,
    /// For restart: how many processes are registered first
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    records: u64,
    /// For node-loss: processes on the node that is killed; for expire: on all [default: 10000]
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=18_000))]
    processes: u64,
    /// The nodes' leases, 1s to 60s; several for node-loss [default: 1s,3s for node-loss, 3s for keep-alive, 1s
    /// for expire]
    #[arg(long, value_name = "TIME,…", value_delimiter = ',', value_parser = ttl)]
    ttl: Vec<Duration>,
    /// For node-loss: the levels that are measured
    #[arg(
        long,
        value_enum,
        value_name = "LEVEL,…",
        value_delimiter = ',',
        default_value = "fast,safe"
    )]
    restart: Vec<RestartArg>,
    /// For node-loss: further flags of the hosts, such as --recreate-per-second=10000
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    serve: Vec<String>,
}

/// Reads a lease.
fn ttl(text: &str) -> Result<Duration, String> {
    let span = duration(text)?;
    let range = TTL_MS_MIN.into()..=TTL_MS_MAX.into();
    if range.contains(&span.as_millis()) {
        Ok(span)
    } else {
        Err("must be 1s to 60s".to_owned())
    }
}

impl Bench {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        tokio::select! {
            done = self.of_op(shell) => done,
            // What was started ends with what is dropped here.
            () = signals.next() => {
                let help = "what was started for it has ended too";
                Err(Failure::new(Exit::Other, "interrupted", "ended by a signal", help))
            }
        }
    }

    async fn of_op(&self, shell: &Shell) -> Result<(), Failure> {
        match self.op {
            Op::Failover => {
                let hosts = self.hosts.unwrap_or(3);
                if hosts < 3 {
                    let help =
                        "use --hosts 3 or 5: a group goes on while most of its hosts are there";
                    return Err(Failure::usage("failover needs three hosts", help));
                }
                let result = failover::run(shell, hosts, self.trials.unwrap_or(30)).await?;
                result.report(shell)
            }
            Op::Restart => {
                let hosts = self.hosts.unwrap_or(1);
                let result = restart::run(shell, hosts, self.records).await?;
                result.report(shell)
            }
            Op::NodeLoss => {
                let result = node_loss::run(shell, self.node_loss()?).await?;
                result.report(shell)
            }
            Op::KeepAlive => {
                let (nodes, ttl) = (self.nodes.unwrap_or(2_000), self.one_ttl(3)?);
                let result = idle::keep_alive(shell, nodes, ttl, self.duration).await?;
                result.report(shell)
            }
            Op::Expire => {
                let (nodes, ttl) = (self.nodes.unwrap_or(1_000), self.one_ttl(1)?);
                let hosts = self.hosts.unwrap_or(1);
                let result = idle::expire(shell, hosts, nodes, self.processes, ttl).await?;
                result.report(shell)
            }
            Op::Create | Op::Set | Op::Get | Op::All => self.in_a_loop(shell).await,
        }
    }

    fn node_loss(&self) -> Result<node_loss::Ask, Failure> {
        let nodes = self.nodes.unwrap_or(11);
        if !(2..=64).contains(&nodes) {
            let help = "use --nodes 2 to 64: one is killed, the others take its processes";
            return Err(Failure::usage("node-loss needs two nodes", help));
        }
        let ttls = if self.ttl.is_empty() {
            vec![Duration::from_secs(1), Duration::from_secs(3)]
        } else {
            self.ttl.clone()
        };
        let level = |level: &RestartArg| match level {
            RestartArg::Fast => Restart::Fast,
            RestartArg::Safe => Restart::Safe,
        };
        // One trial after another looks like the loss of many nodes.
        let mut serve = vec!["--mass-loss-percent=100".to_owned()];
        serve.extend(self.serve.iter().cloned());
        Ok(node_loss::Ask {
            hosts: self.hosts.unwrap_or(1),
            nodes,
            processes: self.processes,
            ttls,
            restarts: self.restart.iter().map(level).collect(),
            trials: self.trials.unwrap_or(5),
            serve,
        })
    }

    fn one_ttl(&self, default_s: u64) -> Result<Duration, Failure> {
        match self.ttl[..] {
            [] => Ok(Duration::from_secs(default_s)),
            [one] => Ok(one),
            [_, ..] => {
                let help = "give one --ttl; only node-loss takes several";
                Err(Failure::usage("there are several TTLs", help))
            }
        }
    }

    /// Those that take the creates.
    fn takers(&self) -> Result<u16, Failure> {
        let nodes = self.nodes.unwrap_or(3);
        let few = u16::try_from(nodes).ok().filter(|nodes| *nodes <= 64);
        few.ok_or_else(|| {
            let help = "use --nodes 1 to 64; keep-alive and expire take more";
            Failure::usage(format!("{nodes} nodes are too many"), help)
        })
    }

    async fn in_a_loop(&self, shell: &Shell) -> Result<(), Failure> {
        self.takers()?;
        let most = self.in_flight.iter().copied().max().unwrap_or(0);
        if most as usize > IN_FLIGHT_MAX * usize::from(self.connections) {
            let help = "use fewer in flight, or more --connections";
            return Err(Failure::usage(
                format!("{most} in flight are more than {IN_FLIGHT_MAX} a connection"),
                help,
            ));
        }
        let embedded = if self.embedded || self.hosts.is_some() {
            let embedded = Embedded::start(None, Some(0), self.hosts.unwrap_or(1)).await?;
            embedded.ready().await?;
            Some(embedded)
        } else {
            None
        };
        let done = self.measure(shell, embedded.as_ref()).await;
        if let Some(embedded) = embedded {
            embedded.stop().await?;
        }
        let (results, hosts) = done?;
        self.report(shell, &results, hosts)
    }

    async fn measure(
        &self,
        shell: &Shell,
        embedded: Option<&Embedded>,
    ) -> Result<(Vec<Measured>, usize), Failure> {
        let target = match embedded {
            Some(embedded) => embedded.target.clone(),
            None => shell.target()?,
        };
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..self.connections {
            clients.push(shell.connect(&target).await?);
        }
        if let Some(embedded) = embedded {
            embedded.settled(&clients[0]).await?;
        }
        let hosts = clients[0].members().await?.items.len();
        let ops = match self.op {
            Op::All => vec![Op::Create, Op::Set, Op::Get],
            one => vec![one],
        };
        let mut results = Vec::new();
        for op in ops {
            for &in_flight in &self.in_flight {
                // Fresh nodes each time, so that no run pays for what the one before left behind.
                let ground =
                    Ground::prepare(&clients[0], self.takers()?, &self.selector, op).await?;
                let measured = measure::run(
                    &ground,
                    &clients,
                    op,
                    in_flight,
                    self.warm_up,
                    self.duration,
                )
                .await;
                ground.clear(&clients[0]).await?;
                if !shell.out.is_json() {
                    eprintln!("{}", measured.line());
                }
                results.push(measured);
            }
        }
        for client in clients {
            client.close().await;
        }
        Ok((results, hosts))
    }

    fn report(&self, shell: &Shell, results: &[Measured], hosts: usize) -> Result<(), Failure> {
        let nodes = self.takers()?;
        let body = json!({
            "loop": "closed",
            "duration_ms": self.duration.as_millis().to_string(),
            "warm_up_ms": self.warm_up.as_millis().to_string(),
            "nodes": nodes,
            "connections": self.connections,
            "embedded": self.embedded || self.hosts.is_some(),
            "hosts": hosts,
            "selector": self.selector.as_str(),
            "results": results.iter().map(Measured::to_json).collect::<Vec<Value>>(),
        });
        shell.out.show("BenchReport", body, || {
            let header = [
                "OP",
                "IN FLIGHT",
                "OPS/S",
                "P50",
                "P99",
                "P99.9",
                "MAX",
                "OPS",
                "FAILED",
            ];
            format!(
                "{}\n\n{} each after {} of warm-up, hosts: {hosts}, connections: {}, nodes: {}, selector: {}\n{LOOP}",
                table(&header, results.iter().map(Measured::row)),
                short(self.duration),
                short(self.warm_up),
                self.connections,
                nodes,
                self.selector
            )
        })?;
        match results.iter().find_map(|one| one.last_error.as_ref()) {
            None => Ok(()),
            Some(error) => Err(Failure::new(
                Exit::Other,
                "bench",
                format!("some requests failed; the last one: {error}"),
                "look at the FAILED column; use fewer in flight, or look at the host's log",
            )),
        }
    }
}

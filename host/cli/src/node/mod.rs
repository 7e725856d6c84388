//! `node`: see the nodes, take one out of service and back, empty one, end a session, and say that a
//! lost one is dead.

mod drain;
mod lost;

use std::time::Duration;

use clap::{Args, Subcommand};
use maitred_protocol::{NodeEpoch, NodeName, NodeRecord};
use serde_json::json;

use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::{ago, ahead, bar, fields, short, table};

/// See the nodes, take one out of service and back, empty one, end a session
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    Ls(Ls),
    /// Show one node
    ///
    /// Example: maitred node get eu-1 -o json
    Get(Name),
    /// Let a node take no new processes; those that it has stay
    ///
    /// `maitred node drain` also moves those that it has.
    ///
    /// Example: maitred node cordon eu-1
    Cordon(Name),
    /// Let a node take new processes again; a drain of it ends
    ///
    /// What a drain has moved stays where it is.
    ///
    /// Example: maitred node uncordon eu-1
    Uncordon(Name),
    Drain(drain::Drain),
    Deregister(Deregister),
    ConfirmDead(lost::ConfirmDead),
}

/// List the nodes that have a live lease, or those that were lost
///
/// STATE is ready; suspect: keep-alives are missing; damped: they come and go, so it gets nothing new
/// for a while; cordoned; draining, with the processes left, or drained. Processes are taken from a
/// node only when its LEASE has run out.
///
/// Example: maitred node ls
///
/// With --lost the sessions whose lease ran out while something of them may still go on: which keys
/// wait, and what would let them go on elsewhere.
///
/// Example: maitred node ls --lost
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Lost sessions of which something may still go on
    #[arg(long)]
    lost: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Which node
    node: NodeName,
}

/// End a node's session at once; its processes are forgotten or created again, as their types say
///
/// For a node that is known to be dead. A live one notices, and stops what it runs.
///
/// Example: maitred node deregister eu-1
#[derive(Debug, Args)]
pub(crate) struct Deregister {
    /// Which node
    node: NodeName,
    /// Only this session of it [default: its current one]
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
}

impl Node {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        match self {
            Self::Ls(Ls { lost: true }) => lost::ls(shell).await,
            Self::Ls(Ls { lost: false }) => ls(shell).await,
            Self::Get(name) => get(shell, &name.node).await,
            Self::Cordon(name) => cordon(shell, &name.node, true).await,
            Self::Uncordon(name) => cordon(shell, &name.node, false).await,
            Self::Drain(verb) => verb.run(shell).await,
            Self::Deregister(verb) => verb.run(shell).await,
            Self::ConfirmDead(verb) => verb.run(shell).await,
        }
    }
}

async fn ls(shell: &Shell) -> Result<(), Failure> {
    let client = shell.client().await?;
    let nodes = client.nodes().await?;
    let items = nodes.iter().map(shape::node).collect();
    shell.out.list("NodeList", items, || rows(&nodes))?;
    client.close().await;
    Ok(())
}

fn rows(nodes: &[NodeRecord]) -> String {
    let header = [
        "NODE", "STATE", "USED", "CAPACITY", "PROCS", "CPU", "LEASE", "LABELS", "ADDRESS",
    ];
    let row = |node: &NodeRecord| {
        let used = f64::from(node.used) / f64::from(node.capacity.max(1));
        vec![
            node.name.to_string(),
            state(node),
            format!("{} {:3.0}%", bar(used, 10), used * 100.0),
            node.capacity.to_string(),
            node.processes.to_string(),
            cpu(node),
            lease(node),
            labels(node),
            node.address.clone(),
        ]
    };
    table(&header, nodes.iter().map(row))
}

/// Its state in a cell.
fn state(node: &NodeRecord) -> String {
    match shape::node_state(node) {
        "draining" => format!("draining ({} left)", node.processes + node.stopping),
        "damped" => format!("damped ({})", millis(node.damped_ms)),
        word => word.to_owned(),
    }
}

fn millis(millis: u32) -> String {
    short(Duration::from_millis(millis.into()))
}

/// Everything that keeps new processes off it, and for how long.
fn condition(node: &NodeRecord) -> String {
    let mut parts = Vec::new();
    if node.suspect {
        parts.push("suspect: keep-alives are missing".to_owned());
    }
    if node.damped_ms > 0 {
        parts.push(format!(
            "damped: keep-alives came and went; back after {} of steady ones",
            millis(node.damped_ms)
        ));
    }
    match node.drain {
        Some(drain) if node.processes + node.stopping > 0 => parts.push(format!(
            "draining: {} of {} left, {} a second, deadline {}",
            node.processes + node.stopping,
            drain.processes,
            drain.per_second,
            ahead(drain.deadline_at_ms),
        )),
        Some(drain) => parts.push(format!("drained; begun {} ago", ago(drain.began_ms))),
        None if node.cordoned => parts.push("cordoned".to_owned()),
        None => {}
    }
    if parts.is_empty() {
        "ready".to_owned()
    } else {
        parts.join("; ")
    }
}

/// What is left of its lease; a host that does not lead, or has only begun to, does not know.
fn lease(node: &NodeRecord) -> String {
    match node.lease_left_ms {
        0 => "?".to_owned(),
        left => format!("{:.1}s", f64::from(left) / 1_000.0),
    }
}

fn labels(node: &NodeRecord) -> String {
    let pairs: Vec<String> = node
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

fn cpu(node: &NodeRecord) -> String {
    match &node.load {
        Some((load, _)) if (0.0..=1.0).contains(&load.cpu) => format!("{:.0}%", load.cpu * 100.0),
        _ => "?".to_owned(),
    }
}

async fn get(shell: &Shell, name: &NodeName) -> Result<(), Failure> {
    let client = shell.client().await?;
    let node = client.get_node(name).await?;
    let body = json!({ "node": shape::node(&node) });
    shell.out.show("Node", body, || {
        let types: Vec<&str> = node.types.iter().map(|name| name.as_str()).collect();
        let types = if types.is_empty() {
            "all".to_owned()
        } else {
            types.join(", ")
        };
        fields(&[
            ("node", node.name.to_string()),
            ("state", condition(&node)),
            ("epoch", node.epoch.to_string()),
            ("address", node.address.clone()),
            ("labels", labels(&node)),
            ("types", types),
            (
                "capacity",
                format!("{} of {} units used", node.used, node.capacity),
            ),
            ("processes", node.processes.to_string()),
            ("cpu", cpu(&node)),
            (
                "lease",
                format!("{} of {} ms left", node.lease_left_ms, node.ttl_ms),
            ),
            (
                "kill bound",
                format!("{} ms to stop what it runs", node.kill_bound_ms),
            ),
            ("revision", node.revision.to_string()),
        ])
    })?;
    client.close().await;
    Ok(())
}

async fn cordon(shell: &Shell, name: &NodeName, cordoned: bool) -> Result<(), Failure> {
    let client = shell.client().await?;
    let revision = client.cordon(name, cordoned).await?;
    let body = json!({ "revision": revision.to_string() });
    shell.out.show("Done", body, || {
        if cordoned {
            format!("{name} takes no new processes; those that it has stay")
        } else {
            format!("{name} takes new processes; if it was being drained, that has ended")
        }
    })?;
    client.close().await;
    Ok(())
}

impl Deregister {
    async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let epoch = match self.epoch {
            Some(epoch) => NodeEpoch(epoch),
            None => client.get_node(&self.node).await?.epoch,
        };
        let revision = client.deregister_node(&self.node, epoch).await?;
        let body = json!({ "revision": revision.to_string() });
        let text = || format!("the session of {} has ended", self.node);
        shell.out.show("Done", body, text)?;
        client.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::{DrainState, Revision};

    pub(super) fn node() -> NodeRecord {
        NodeRecord {
            name: NodeName::new("eu-1").unwrap(),
            epoch: NodeEpoch(7),
            types: Vec::new(),
            address: "eu-1:7777".to_owned(),
            labels: Vec::new(),
            capacity: 100,
            share: Vec::new(),
            ttl_ms: 3_000,
            cordoned: false,
            processes: 12,
            used: 12,
            suspect: false,
            lease_left_ms: 2_500,
            load: None,
            revision: Revision(9),
            kill_bound_ms: 1_000,
            damped_ms: 0,
            drain: None,
            stopping: 0,
        }
    }

    #[test]
    fn the_most_pressing_state_is_the_one_that_is_shown() {
        let mut one = node();
        assert_eq!(state(&one), "ready");
        one.damped_ms = 42_000;
        assert_eq!(state(&one), "damped (42s)");
        one.cordoned = true;
        assert_eq!(state(&one), "cordoned");
        one.drain = Some(DrainState {
            began_ms: 1,
            deadline_at_ms: u64::MAX,
            per_second: 50,
            processes: 30,
        });
        assert_eq!(state(&one), "draining (12 left)");
        assert!(condition(&one).contains("12 of 30 left, 50 a second"));
        assert!(condition(&one).contains("damped"), "{}", condition(&one));
        one.processes = 0;
        assert_eq!(state(&one), "drained");
        one.suspect = true;
        assert_eq!(state(&one), "suspect");
        let shown = shape::node(&one);
        assert_eq!(shown["drain"]["processes"], 30);
        assert_eq!(shown["drain"]["left"], 0);
    }
}

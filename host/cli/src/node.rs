//! `node`: see the nodes, take one out of service and back, end a session.

use clap::{Args, Subcommand};
use maitred_protocol::{NodeEpoch, NodeName, NodeRecord};
use serde_json::json;

use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::{bar, fields, table};

/// See the nodes, take one out of service and back, end a session
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// List the nodes that have a live lease
    ///
    /// Example: maitred node ls
    Ls,
    /// Show one node
    ///
    /// Example: maitred node get eu-1 -o json
    Get(Name),
    /// Let a node take no new processes; those that it has stay
    ///
    /// Example: maitred node cordon eu-1
    Cordon(Name),
    /// Let a node take new processes again
    ///
    /// Example: maitred node uncordon eu-1
    Uncordon(Name),
    Deregister(Deregister),
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
            Self::Ls => ls(shell).await,
            Self::Get(name) => get(shell, &name.node).await,
            Self::Cordon(name) => cordon(shell, &name.node, true).await,
            Self::Uncordon(name) => cordon(shell, &name.node, false).await,
            Self::Deregister(verb) => verb.run(shell).await,
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
            shape::node_state(node).to_owned(),
            format!("{} {:3.0}%", bar(used, 10), used * 100.0),
            node.capacity.to_string(),
            node.processes.to_string(),
            cpu(node),
            format!("{:.1}s", f64::from(node.lease_left_ms) / 1_000.0),
            labels(node),
            node.address.clone(),
        ]
    };
    table(&header, nodes.iter().map(row))
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
            ("state", shape::node_state(&node).to_owned()),
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
            format!("{name} takes new processes")
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

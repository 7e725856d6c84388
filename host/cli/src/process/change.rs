//! `process set` and `process del`: change records by hand.

use clap::Args;
use maitred_protocol::{Incarnation, NodeEpoch, NodeName, ProcessKey, SetProcess};
use serde_json::json;

use super::text;
use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;

/// Register a process that a node runs by itself, or change its pid and share
///
/// Usually a node does this through the client library. Exit code 4 when the key belongs to another
/// node or incarnation.
///
/// Example: maitred process set chat/lobby --node eu-1 --pid 4711 --share 'port 7003'
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Which
    #[arg(value_name = "TYPE/ID")]
    process: ProcessKey,
    /// The node that runs it
    #[arg(long)]
    node: NodeName,
    /// The node's session [default: its current one]
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
    /// What the node calls it, at most 256 bytes
    #[arg(long)]
    pid: String,
    /// What callers are to know, at most 4 KiB
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    share: String,
    /// Change only this life of it [default: register a new one, or change the node's own]
    #[arg(long, value_name = "N")]
    incarnation: Option<u64>,
}

impl Set {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let epoch = match self.epoch {
            Some(epoch) => NodeEpoch(epoch),
            None => client.get_node(&self.node).await?.epoch,
        };
        let found = client
            .set(SetProcess {
                key: self.process.clone(),
                node: self.node.clone(),
                epoch,
                pid: self.pid.clone(),
                share: self.share.clone().into_bytes(),
                incarnation: self.incarnation.map(Incarnation),
            })
            .await?;
        let body = json!({
            "process": shape::process(&found.record),
            "read_revision": found.revision.to_string(),
        });
        shell.out.show("Process", body, || text(&found.record))?;
        client.close().await;
        Ok(())
    }
}

/// Remove a process, and stop it if it still runs
///
/// Example: maitred process del player/1001
#[derive(Debug, Args)]
pub(crate) struct Del {
    /// Which
    #[arg(value_name = "TYPE/ID")]
    process: ProcessKey,
    /// Only this life of it; exit code 4 when another one is current
    #[arg(long, value_name = "N")]
    incarnation: Option<u64>,
}

impl Del {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let revision = client
            .del(&self.process, self.incarnation.map(Incarnation))
            .await?;
        let body = json!({ "revision": revision.to_string() });
        shell
            .out
            .show("Done", body, || format!("{} removed", self.process))?;
        client.close().await;
        Ok(())
    }
}

//! `status`: how a host is.

use std::time::Duration;

use clap::Args;
use maitred_protocol::Status;

use crate::connect::Shell;
use crate::failure::Failure;
use crate::json;
use crate::out::{fields, short};

/// Show how a host is: role, log, nodes, processes, what it refuses and why
///
/// Example: maitred status -o json
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {}

impl StatusArgs {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let status = client.status().await?;
        let shown = shell
            .out
            .show("Status", json::status(&status), || text(&status));
        client.close().await;
        shown
    }
}

fn text(status: &Status) -> String {
    let voters: Vec<String> = status.voters.iter().map(ToString::to_string).collect();
    let leader = match status.leader {
        Some(id) if id == status.host => String::new(),
        Some(id) => format!(", led by host {id}"),
        None => ", no leader known".to_owned(),
    };
    let mut rows = vec![
        ("host", format!("{} ({})", status.host, status.build)),
        (
            "role",
            format!("{} in term {}{leader}", status.role, status.term),
        ),
        ("voters", voters.join(", ")),
        (
            "log",
            format!(
                "committed {}, applied {}, {} entries kept, snapshot at {}",
                status.commit, status.applied, status.log_entries, status.snapshot
            ),
        ),
        ("up", short(Duration::from_millis(status.uptime_ms))),
        ("nodes", status.nodes.to_string()),
        (
            "processes",
            format!(
                "{} running, {} starting, {} pending",
                status.running, status.starting, status.pending
            ),
        ),
        ("sessions", status.clients.to_string()),
        ("fallbacks", status.fallbacks.to_string()),
    ];
    if let Some(reason) = &status.shedding {
        rows.push(("refusing", format!("creates: {reason}")));
    }
    for (name, reason) in &status.unavailable_modules {
        rows.push(("module", format!("{name} cannot run here: {reason}")));
    }
    fields(&rows)
}

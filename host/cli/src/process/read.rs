//! `process get` and `process ls`: look things up.

use clap::{Args, ValueEnum};
use maitred_protocol::limits::PAGE_ITEMS_MAX;
use maitred_protocol::{
    ListProcesses, NodeName, ProcessKey, ProcessRecord, ProcessState, TypeName,
};
use serde_json::json;

use super::{chooser, pending, text};
use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::{ago, table};

/// Look a process up
///
/// The answer is linearizable: it contains every change that was acknowledged before. Exit code 3
/// when there is no such process.
///
/// Example: maitred process get player/1001 -o json
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Which
    #[arg(value_name = "TYPE/ID")]
    process: ProcessKey,
    /// Take the host's own view, which may be old; the answer says its revision
    #[arg(long)]
    stale: bool,
}

impl Get {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let found = if self.stale {
            client.get_stale(&self.process).await?
        } else {
            client.get(&self.process).await?
        };
        let body = json!({
            "process": shape::process(&found.record),
            "read_revision": found.revision.to_string(),
        });
        shell.out.show("Process", body, || text(&found.record))?;
        client.close().await;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// Reserved on a node, being started
    Starting,
    /// Started, or registered by its node
    Running,
    /// It has no node: that was lost, or it is being moved
    Pending,
}

/// List processes, in the order of type and id
///
/// With --state pending it says why each has no node: an earlier life that may still go on, a pause
/// after a failure, no node that will do, others before it; since when, and its last failure. --node
/// is then the node that it was on.
///
/// Example: maitred process ls --type room --node eu-1
///
/// Example: maitred process ls --state pending
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only of this type
    #[arg(long = "type", value_name = "TYPE")]
    type_name: Option<TypeName>,
    /// Only ids that begin so; needs --type
    #[arg(long, value_name = "TEXT", requires = "type_name")]
    prefix: Option<String>,
    /// Only on this node
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
    /// Only in this state
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Only after this one: where the page before ended
    #[arg(long, value_name = "TYPE/ID")]
    pub(super) after: Option<ProcessKey>,
    /// Processes to show, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(PAGE_ITEMS_MAX)))]
    pub(super) limit: u32,
    /// Show all, page by page
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    pub(super) all: bool,
}

impl Ls {
    /// Whether it is of the type, the ids and the node that are asked for.
    pub(super) fn wants(&self, record: &ProcessRecord) -> bool {
        let of_type = self.type_name.as_ref();
        let prefix = self.prefix.as_deref().unwrap_or_default();
        of_type.is_none_or(|name| *name == record.key.type_name)
            && record.key.id.as_str().starts_with(prefix)
            && self.node.as_ref().is_none_or(|node| *node == record.node)
    }

    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        if self.state == Some(State::Pending) {
            return pending::ls(shell, self).await;
        }
        let list = ListProcesses {
            type_name: self.type_name.clone(),
            id_prefix: self.prefix.clone(),
            node: self.node.clone(),
            state: self.state.map(|state| match state {
                State::Starting => ProcessState::Starting,
                State::Running => ProcessState::Running,
                State::Pending => ProcessState::Pending,
            }),
            after: self.after.clone(),
            limit: if self.all { 0 } else { self.limit },
        };
        let client = shell.client().await?;
        let (items, next, revision) = if self.all {
            (client.list_all(list).await?, None, None)
        } else {
            let page = client.list(list).await?;
            (page.items, page.next, Some(page.revision))
        };
        let body = json!({
            "items": items.iter().map(shape::process).collect::<Vec<_>>(),
            "next": next.as_ref().map(ToString::to_string),
            "read_revision": revision.map(|at| at.to_string()),
        });
        shell.out.show("ProcessList", body, || {
            let mut text = rows(&items);
            if let Some(next) = &next {
                text += &format!("\nmore: --after '{next}', or --all");
            }
            text
        })?;
        client.close().await;
        Ok(())
    }
}

fn rows(items: &[ProcessRecord]) -> String {
    let row = |record: &ProcessRecord| {
        vec![
            record.key.to_string(),
            shape::state(record.state).to_owned(),
            record.node.to_string(),
            record.pid.clone(),
            record.incarnation.to_string(),
            chooser(&record.why.chooser),
            ago(record.created_ms),
        ]
    };
    let header = [
        "PROCESS",
        "STATE",
        "NODE",
        "PID",
        "INCARNATION",
        "PLACED BY",
        "AGE",
    ];
    table(&header, items.iter().map(row))
}

//! `process create` and `process plan`: have a process started on a node that a selector chooses,
//! or see what would be done.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use maitred_protocol::limits::ARGS_BYTES_MAX;
use maitred_protocol::{
    CreateOptions, CreateProcess, ModuleName, NodeName, OnConflict, ProcessKey,
};
use serde_json::json;

use super::read::decision;
use super::{placed, text};
use crate::args::{back_off, deadline, millis, pair, whole};
use crate::connect::Shell;
use crate::failure::Failure;
use crate::files;
use crate::json as shape;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Conflict {
    /// Answer with the process that is there
    Return,
    /// Fail with exit code 4
    Fail,
    /// Wait until it has gone, then create
    Wait,
}

/// What is to be created; the same for `create` and `plan`.
#[derive(Debug, Args)]
struct Spec {
    /// What to create, such as player/1001
    #[arg(value_name = "TYPE/ID")]
    process: ProcessKey,
    /// Arguments for the process, at most 64 KiB
    #[arg(long, value_name = "TEXT", conflicts_with = "args_file")]
    args: Option<String>,
    /// The same, from a file
    #[arg(long, value_name = "FILE")]
    args_file: Option<PathBuf>,
    /// Instead of the type's selector
    #[arg(long, value_name = "MODULE")]
    selector: Option<ModuleName>,
    /// Instead of the type's callback
    #[arg(long, value_name = "MODULE")]
    callback: Option<ModuleName>,
    /// When the process is there already
    #[arg(long, value_enum, default_value = "return")]
    on_conflict: Conflict,
    /// Time that it may take, at most 10m [default: the type's, 10s]
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    deadline: Option<Duration>,
    /// Nodes to try, at most 16 [default: the type's, 3]
    #[arg(long, value_name = "N")]
    attempts: Option<u8>,
    /// Pause before the second attempt, doubled for each further one, at most 60s [default: the type's, 50ms]
    #[arg(long, value_name = "TIME", value_parser = back_off)]
    back_off: Option<Duration>,
    /// Its party: selectors may keep one together
    #[arg(long, value_name = "TEXT")]
    group: Option<String>,
    /// A label that the node must have; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    require: Vec<(String, String)>,
    /// Units of capacity that it takes
    #[arg(long, value_name = "UNITS", default_value_t = 1, value_parser = whole)]
    demand: u32,
    /// -1000 to 1000; larger is more important
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    priority: i32,
    /// The node that asks, if one does
    #[arg(long, value_name = "NODE")]
    requester: Option<NodeName>,
}

impl Spec {
    fn request(&self) -> Result<CreateProcess, Failure> {
        let args = match (&self.args, &self.args_file) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(path)) => files::read("read", path, ARGS_BYTES_MAX as u64)?,
            (None, None) => Vec::new(),
        };
        Ok(CreateProcess {
            key: self.process.clone(),
            args,
            selector: self.selector.clone(),
            callback: self.callback.clone(),
            options: CreateOptions {
                on_conflict: match self.on_conflict {
                    Conflict::Return => OnConflict::Return,
                    Conflict::Fail => OnConflict::Fail,
                    Conflict::Wait => OnConflict::Wait,
                },
                deadline_ms: millis(self.deadline),
                attempts: self.attempts.unwrap_or(0),
                back_off_ms: millis(self.back_off),
                group: self.group.clone(),
                require: self.require.clone(),
                demand: self.demand,
                priority: self.priority,
                requester: self.requester.clone(),
            },
        })
    }
}

/// Have a process started on a node that a selector chooses
///
/// Answers once it runs. Creating one that is there already answers with that one, unless
/// --on-conflict says otherwise.
///
/// Example: maitred process create player/1001 --require zone=eu
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    spec: Spec,
}

impl Create {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let request = self.spec.request()?;
        let client = shell.client().await?;
        let made = client.create_process(request).await?;
        let body = json!({ "created": made.created, "process": shape::process(&made.record) });
        shell.out.show("Created", body, || {
            let verb = if made.created { "created" } else { "was there" };
            format!("{} {verb}\n\n{}", made.record.key, text(&made.record))
        })?;
        client.close().await;
        Ok(())
    }
}

/// Show what a create would do, and why; nothing is changed
///
/// Exit code 5 when no node would take it.
///
/// Example: maitred process plan match/17 --demand 20
#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    spec: Spec,
}

impl Plan {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let request = self.spec.request()?;
        let client = shell.client().await?;
        let plan = client.plan(request).await?;
        shell.out.show("Plan", shape::plan(&plan), || {
            let key = &self.spec.process;
            let verdict = plan.node.as_ref().map_or_else(
                || format!("{key} could not be placed"),
                |node| format!("{key} would be placed on {node}"),
            );
            let (why, at) = (placed(&plan.evidence.why), plan.revision);
            format!(
                "{verdict}\nby {why}, at revision {at}\n\n{}",
                decision(&plan.evidence)
            )
        })?;
        client.close().await;
        match plan.node {
            Some(_) => Ok(()),
            None => Err(maitred_client::Error::Rejected(
                maitred_protocol::Rejection::NoPlacement {
                    refusals: plan.evidence.refusals,
                    more: plan.evidence.refusals_more,
                    selector: self.spec.selector.clone(),
                },
            )
            .into()),
        }
    }
}

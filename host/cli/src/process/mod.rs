//! `process`: create, look up, list, remove and explain processes; `party`: several at once.

mod change;
mod create;
pub(crate) mod explain;
mod how;
mod party;
pub(crate) mod pending;
mod read;

use clap::Subcommand;
use maitred_protocol::{Chooser, ProcessRecord, Why};

use crate::connect::Shell;
use crate::failure::Failure;
use crate::json;
use crate::out::{ago, fields};
pub(crate) use party::Party;

/// Create, look up, list, remove and explain processes
#[derive(Debug, Subcommand)]
pub(crate) enum Process {
    Create(create::Create),
    Plan(create::Plan),
    Get(read::Get),
    Ls(read::Ls),
    Explain(explain::Explain),
    Set(change::Set),
    Del(change::Del),
}

impl Process {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        match self {
            Self::Create(verb) => verb.run(shell).await,
            Self::Plan(verb) => verb.run(shell).await,
            Self::Get(verb) => verb.run(shell).await,
            Self::Ls(verb) => verb.run(shell).await,
            Self::Explain(verb) => verb.run(shell).await,
            Self::Set(verb) => verb.run(shell).await,
            Self::Del(verb) => verb.run(shell).await,
        }
    }
}

/// Who chose, in a few characters: `spread@2`, `fallback least-loaded`, `its node`.
pub(crate) fn chooser(chooser: &Chooser) -> String {
    match chooser {
        Chooser::Node => "its node".to_owned(),
        Chooser::Selector {
            name,
            version,
            canary: true,
            ..
        } => format!("{name}@{version} (canary)"),
        Chooser::Selector { name, version, .. } => format!("{name}@{version}"),
        Chooser::Fallback { fallback, .. } => format!("fallback {}", json::fallback(*fallback)),
        Chooser::Rebalance => "rebalance".to_owned(),
        Chooser::Advice => "advice".to_owned(),
    }
}

/// Who chose and what it took, in a sentence.
pub(crate) fn placed(why: &Why) -> String {
    let cost = format!(
        "in {} µs, from {} {}",
        why.micros,
        why.candidates,
        if why.candidates == 1 { "node" } else { "nodes" }
    );
    match &why.chooser {
        Chooser::Node => "registered by its node".to_owned(),
        Chooser::Rebalance => format!("a move of `maitred rebalance` {cost}"),
        Chooser::Advice => format!("its callback, which advised to start it where it ran {cost}"),
        Chooser::Selector {
            name,
            version,
            digest,
            config,
            canary,
        } => {
            let role = if *canary { " as a canary" } else { "" };
            let (digest, config) = (digest.short(), json::config_hash(*config));
            format!("{name}@{version} ({digest}){role}, configuration {config}, {cost}")
        }
        Chooser::Fallback {
            selector, cause, ..
        } => {
            let failed = selector.as_ref().map_or(String::new(), |name| {
                format!(" because {name} failed: {cause}")
            });
            format!("{} {cost}{failed}", chooser(&why.chooser))
        }
    }
}

/// A record for people.
fn text(record: &ProcessRecord) -> String {
    let share = json::bytes(&record.share);
    let share = share["utf8"]
        .as_str()
        .map_or_else(|| share.to_string(), ToOwned::to_owned);
    let mut rows = vec![
        ("process", record.key.to_string()),
        ("state", json::state(record.state).to_owned()),
        (
            "node",
            format!("{} (epoch {})", record.node, record.node_epoch),
        ),
        ("address", record.address.clone()),
        ("pid", record.pid.clone()),
        ("incarnation", record.incarnation.to_string()),
        ("placed by", placed(&record.why)),
        ("attempt", record.attempt.to_string()),
        ("demand", record.demand.to_string()),
        ("age", ago(record.created_ms)),
        ("revision", record.revision.to_string()),
    ];
    if !record.share.is_empty() {
        rows.insert(5, ("share", share));
    }
    if let Some(group) = &record.group {
        rows.push(("group", group.clone()));
    }
    fields(&rows)
}

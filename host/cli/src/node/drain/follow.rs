//! Following a drain until the node is empty: what is left, and what that waits for.
//!
//! Holds: it only looks on, and may be interrupted without harm.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use maitred_client::{Client, Error};
use maitred_protocol::{
    CreateOptions, CreateProcess, ListProcesses, NodeName, NodeRecord, PendingProcess, ProcessKey,
    Rejection, Waits,
};
use serde_json::json;

use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::json as shape;
use crate::out::{ahead, short, until};
use crate::process::pending;
use crate::progress::Progress;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// What is moved or stopped at the deadline may take so long to be so.
const GRACE: Duration = Duration::from_secs(30);
/// How long nothing may change before it is asked why.
const STILL: Duration = Duration::from_secs(2);
/// How long nobody may be able to say anything before the following ends.
const SILENCE: Duration = Duration::from_secs(30);

/// Looks on until nothing is left, or its deadline has passed.
///
/// # Errors
/// Exit code 6 when something is left then or nobody answers, 4 when the drain was ended.
pub(super) async fn follow(
    shell: &Shell,
    client: &Client,
    mut node: NodeRecord,
) -> Result<(), Failure> {
    let total = node.drain.map_or(0, |drain| drain.processes);
    let total = total.max(node.processes);
    let mut progress = Progress::new(shell, total.into());
    let mut heard = Instant::now();
    let mut still = Still::new(node.processes);
    loop {
        match look(client, &node.name).await {
            Ok(Some((seen, moving))) => {
                heard = Instant::now();
                if seen.drain.is_none() {
                    return Err(ended(&seen.name));
                }
                let deadline = seen.drain.map_or(0, |drain| drain.deadline_at_ms);
                let is_over = moving.count == 0 || until(deadline).is_zero();
                if seen.processes + seen.stopping == 0 && is_over {
                    drop(progress);
                    return done(shell, &seen, total, moving.count);
                }
                still.see(client, &seen, &moving).await;
                let parts = [left(&seen), moving.text(), still.why.clone()];
                let parts: Vec<String> =
                    parts.into_iter().filter(|part| !part.is_empty()).collect();
                progress.show(
                    total.saturating_sub(seen.processes).into(),
                    parts.join("; "),
                );
                node = seen;
            }
            // What it had is dealt with as its types say.
            Ok(None) => {
                drop(progress);
                return gone(shell, client, &node, total).await;
            }
            Err(error) if heard.elapsed() > SILENCE => return Err(error.into()),
            Err(_) => {}
        }
        let deadline = node.drain.map_or(0, |drain| drain.deadline_at_ms);
        if until(deadline.saturating_add(GRACE.as_millis() as u64)).is_zero() {
            return Err(late(&node, &still.why));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Since when nothing has changed, and why.
struct Still {
    since: Instant,
    left: u32,
    why: String,
}

impl Still {
    fn new(left: u32) -> Self {
        Self {
            since: Instant::now(),
            left,
            why: String::new(),
        }
    }

    async fn see(&mut self, client: &Client, node: &NodeRecord, moving: &Moving) {
        if self.left != node.processes || moving.count > 0 {
            *self = Self::new(node.processes);
        } else if self.since.elapsed() > STILL && self.why.is_empty() {
            self.why = why_still(client, &node.name).await;
        }
    }
}

fn left(node: &NodeRecord) -> String {
    let deadline = node.drain.map_or(0, |drain| drain.deadline_at_ms);
    let left = node.processes + node.stopping;
    format!("{left} left, deadline {}", ahead(deadline))
}

fn done(shell: &Shell, node: &NodeRecord, total: u32, waiting: u32) -> Result<(), Failure> {
    let body = json!({
        "node": shape::node(node), "processes": total, "gone": false, "waiting": waiting,
    });
    let name = &node.name;
    shell.out.show("Drained", body, || {
        let waiting = match waiting {
            0 => String::new(),
            _ => format!(
                "; {waiting} of them wait for a node that takes them: maitred process ls --state pending"
            ),
        };
        format!("{name} is empty: {total} processes moved, ended or stopped{waiting}; `maitred node uncordon {name}` takes it back")
    })
}

/// The node has left, which is as good; or it was lost, and what it had may still run there.
async fn gone(
    shell: &Shell,
    client: &Client,
    node: &NodeRecord,
    total: u32,
) -> Result<(), Failure> {
    let name = &node.name;
    let lost = client.lost_nodes().await?;
    let held: u32 = lost
        .iter()
        .filter(|lost| lost.name == *name)
        .map(|lost| lost.safe + lost.strict)
        .sum();
    if held > 0 {
        let message = format!(
            "{name} was lost while it was drained, and {held} processes may still run there"
        );
        let help = "`maitred node ls --lost` shows what their keys wait for";
        return Err(Failure::new(Exit::Unavailable, "lost", message, help));
    }
    let body = json!({ "node": shape::node(node), "processes": total, "gone": true, "waiting": 0 });
    shell.out.show("Drained", body, || {
        format!("{name} has left, and its drain with it")
    })
}

fn ended(name: &NodeName) -> Failure {
    let message = format!("the drain of {name} was ended meanwhile");
    let help = "see `maitred node get`; begin again with `maitred node drain`";
    Failure::new(Exit::Conflict, "drain_ended", message, help)
}

fn late(node: &NodeRecord, why: &str) -> Failure {
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    };
    let message = format!(
        "{} still has {} processes {} after the drain's deadline{why}",
        node.name,
        node.processes + node.stopping,
        short(GRACE)
    );
    let help = format!(
        "see `maitred process ls --node {}` and the node's log; `maitred node confirm-dead` if it is dead",
        node.name
    );
    Failure::new(Exit::Unavailable, "not_drained", message, help)
        .retryable()
        .with(shape::node(node))
}

/// The node, none when it has gone, and what of it is on its way.
async fn look(client: &Client, name: &NodeName) -> Result<Option<(NodeRecord, Moving)>, Error> {
    let node = match client.get_node(name).await {
        Ok(node) => node,
        Err(Error::Rejected(Rejection::NotFound(_))) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut moving = Moving::default();
    pending::each(client, |one| moving.take(name, one)).await?;
    let status = client.status().await?;
    moving.suspended = status.moves_suspended;
    Ok(Some((node, moving)))
}

/// Processes that the node has no more, and nobody else yet.
#[derive(Debug, Default)]
struct Moving {
    count: u32,
    held: u32,
    /// How many find no node, by what the nodes say.
    nowhere: BTreeMap<String, u32>,
    paused: Option<String>,
    suspended: bool,
}

impl Moving {
    fn take(&mut self, name: &NodeName, one: &PendingProcess) {
        if one.record.node != *name {
            return;
        }
        self.count += 1;
        match &one.waits {
            Waits::Held { .. } => self.held += 1,
            Waits::NoNode { .. } => {
                let why = pending::waits(&one.waits);
                *self.nowhere.entry(why).or_default() += 1;
            }
            Waits::Paused(why) => self.paused = Some(why.clone()),
            Waits::Nothing | Waits::BackOff(_) | Waits::Turn(_) => {}
        }
    }

    fn text(&self) -> String {
        let mut parts = Vec::new();
        if self.suspended {
            parts.push("moves are suspended (maitred rebalance resume)".to_owned());
        }
        if let Some(why) = &self.paused {
            parts.push(format!("creating again is paused: {why}"));
        }
        if self.count > 0 {
            parts.push(format!("{} on their way", self.count));
        }
        if self.held > 0 {
            parts.push(format!("{} wait for the node to stop them", self.held));
        }
        for (why, count) in &self.nowhere {
            parts.push(format!("{count} wait for {why}"));
        }
        parts.join("; ")
    }
}

/// Why nothing moves although something is left, as far as the next one tells: what a create of its type
/// and size would be answered.
async fn why_still(client: &Client, name: &NodeName) -> String {
    let unknown = || "nothing moves: what is left is to end by itself".to_owned();
    let list = ListProcesses {
        node: Some(name.clone()),
        limit: 1,
        ..ListProcesses::default()
    };
    let Some(first) = client
        .list(list)
        .await
        .ok()
        .and_then(|page| page.items.into_iter().next())
    else {
        return String::new();
    };
    let Ok(key) = ProcessKey::new(first.key.type_name.as_str(), "maitred-drain-plan") else {
        return unknown();
    };
    let create = CreateProcess {
        key,
        args: Vec::new(),
        selector: None,
        callback: None,
        options: CreateOptions {
            demand: first.demand,
            ..CreateOptions::default()
        },
    };
    match client.plan(create).await {
        Ok(plan) if plan.node.is_none() => {
            let refusals = plan.evidence.refusals;
            let more = plan.evidence.refusals_more;
            let waits = Waits::NoNode { refusals, more };
            format!("{} waits for {}", first.key, pending::waits(&waits))
        }
        _ => unknown(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::under_way;
    use super::*;

    #[test]
    fn what_a_drain_waits_for_is_said() {
        let moving = Moving {
            count: 5,
            held: 2,
            nowhere: BTreeMap::from([("a node (eu-2: cordoned)".to_owned(), 3)]),
            paused: None,
            suspended: true,
        };
        let text = moving.text();
        for part in [
            "moves are suspended",
            "5 on their way",
            "2 wait for the node",
            "3 wait for a node (eu-2",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(Moving::default().text(), "");
        let failure = late(&under_way(1), "");
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(
            failure.message.contains("12 processes"),
            "{}",
            failure.message
        );
    }
}

//! `process ls --state pending`: processes without a node, and what each waits for.

use std::collections::BTreeMap;
use std::time::Duration;

use maitred_client::{Client, Error};
use maitred_protocol::{PendingProcess, ProcessKey, Waits};
use serde_json::json;

use super::read::Ls;
use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::{ago, short, table};

/// Pages that are looked through when all are looked at: 100,000 processes.
const PAGES_MAX: usize = 100;
/// Reasons of nodes that are shown in one line.
const REASONS: usize = 3;

/// Looks at all of them, up to [`PAGES_MAX`] pages.
pub(crate) async fn each(
    client: &Client,
    mut see: impl FnMut(&PendingProcess),
) -> Result<(), Error> {
    let mut after = None;
    for _ in 0..PAGES_MAX {
        let page = client.list_pending(after, 0).await?;
        page.items.iter().for_each(&mut see);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

/// How many wait for what.
pub(crate) async fn by_reason(client: &Client) -> Result<BTreeMap<&'static str, u64>, Error> {
    let mut counts = BTreeMap::new();
    each(client, |one| {
        *counts.entry(shape::waits_code(&one.waits)).or_default() += 1;
    })
    .await?;
    Ok(counts)
}

pub(super) async fn ls(shell: &Shell, ask: &Ls) -> Result<(), Failure> {
    let client = shell.client().await?;
    let limit = if ask.all {
        usize::MAX
    } else {
        ask.limit as usize
    };
    let (items, next) = page(&client, ask, limit).await?;
    let body = json!({
        "items": items.iter().map(shape::pending).collect::<Vec<_>>(),
        "next": next.as_ref().map(ToString::to_string),
        "read_revision": null,
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

/// So many that were asked for, and where the next page begins. What is asked for is picked here: the
/// leader lists all.
async fn page(
    client: &Client,
    ask: &Ls,
    limit: usize,
) -> Result<(Vec<PendingProcess>, Option<ProcessKey>), Error> {
    let mut found = Vec::new();
    let mut after = ask.after.clone();
    loop {
        let page = client.list_pending(after, 0).await?;
        let mut items = page.items.into_iter().filter(|one| ask.wants(&one.record));
        while let Some(one) = items.next() {
            found.push(one);
            if found.len() == limit && (page.next.is_some() || items.next().is_some()) {
                let last = found.last().map(|one| one.record.key.clone());
                return Ok((found, last));
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok((found, None));
        }
    }
}

fn rows(items: &[PendingProcess]) -> String {
    let header = [
        "PROCESS",
        "LAST NODE",
        "SINCE",
        "GIVEN UP",
        "WAITS FOR",
        "LAST FAILURE",
    ];
    let dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
    let row = |one: &PendingProcess| {
        vec![
            one.record.key.to_string(),
            dash(one.record.node.as_str()),
            ago(one.since_ms),
            one.left_ms
                .map_or("never".to_owned(), |left| format!("in {}", millis(left))),
            waits(&one.waits),
            dash(&one.cause),
        ]
    };
    table(&header, items.iter().map(row))
}

fn millis(millis: u32) -> String {
    short(Duration::from_millis(millis.into()))
}

/// What it waits for, in a line.
pub(crate) fn waits(waits: &Waits) -> String {
    match waits {
        Waits::Nothing => "nothing: it is being placed".to_owned(),
        Waits::Held {
            node,
            epoch,
            lost: false,
            ..
        } => format!("{node} (session {epoch}) to say that it has stopped it"),
        Waits::Held {
            node,
            epoch,
            strict: true,
            ..
        } => format!("proof that {node} (session {epoch}) is dead"),
        Waits::Held {
            node,
            epoch,
            left_ms,
            ..
        } => {
            let left = left_ms.map_or(String::new(), |left| format!(", in {}", millis(left)));
            format!("the kill bound of {node} (session {epoch}, lost){left}")
        }
        Waits::BackOff(left) => format!("its next attempt, in {}", millis(*left)),
        Waits::NoNode { refusals, more } => {
            let shown = refusals.iter().take(REASONS);
            let mut reasons: Vec<String> = shown
                .map(|one| format!("{}: {}", one.node, one.reason))
                .collect();
            let rest = u64::from(*more) + refusals.len().saturating_sub(REASONS) as u64;
            if rest > 0 {
                reasons.push(format!("{rest} more nodes"));
            }
            if reasons.is_empty() {
                return "a node: there is none".to_owned();
            }
            format!("a node ({})", reasons.join("; "))
        }
        Waits::Turn(before) => format!("its turn: {before} before it"),
        Waits::Paused(why) => format!("creating again to go on: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::{NodeEpoch, NodeName, Refusal, RefusalReason};

    #[test]
    fn each_says_what_it_waits_for() {
        let node = NodeName::new("eu-1").unwrap();
        let held = |lost, strict, left_ms| Waits::Held {
            node: node.clone(),
            epoch: NodeEpoch(7),
            lost,
            strict,
            left_ms,
        };
        let refusal = |reason| Refusal {
            node: node.clone(),
            reason,
        };
        let full = RefusalReason::Capacity { left: 0, demand: 1 };
        let refusals = vec![refusal(full); 5];
        for (one, text) in [
            (
                held(false, false, None),
                "eu-1 (session 7) to say that it has stopped it",
            ),
            (
                held(true, true, None),
                "proof that eu-1 (session 7) is dead",
            ),
            (
                held(true, false, Some(700)),
                "the kill bound of eu-1 (session 7, lost), in 700ms",
            ),
            (Waits::BackOff(2_000), "its next attempt, in 2s"),
            (Waits::Turn(12), "its turn: 12 before it"),
            (
                Waits::NoNode {
                    refusals: Vec::new(),
                    more: 0,
                },
                "a node: there is none",
            ),
        ] {
            assert_eq!(waits(&one), text);
        }
        let none = waits(&Waits::NoNode { refusals, more: 4 });
        assert!(none.contains("eu-1: capacity: 0 left, 1 needed"), "{none}");
        assert!(none.ends_with("6 more nodes)"), "{none}");
    }
}

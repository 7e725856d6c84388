//! `process create` and `process plan`: have a process started on a node that a selector chooses,
//! or see what would be done.

use clap::Args;
use maitred_client::Error;
use maitred_protocol::{Answered, Chooser, CreateProcess, Plan as Planned, ProcessKey, Rejection};
use serde_json::json;

use super::explain::decision;
use super::how::How;
use super::{placed, text};
use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;

/// What is to be created; the same for `create` and `plan`.
#[derive(Debug, Args)]
struct Spec {
    /// What to create, such as player/1001
    #[arg(value_name = "TYPE/ID")]
    process: ProcessKey,
    /// Its group: selectors may keep one together. All of a group at once: `maitred party create`
    #[arg(long, value_name = "TEXT")]
    group: Option<String>,
    #[command(flatten)]
    how: How,
}

impl Spec {
    fn request(&self) -> Result<CreateProcess, Failure> {
        self.how.request(&self.process, self.group.clone())
    }
}

/// Have a process started on a node that a selector chooses
///
/// Answers once it runs. Creating one that is there already answers with that one, unless
/// --on-conflict says otherwise.
///
/// Example: maitred process create player/1001 --require zone=eu
///
/// Example: maitred process create player/1001 --latency eu-west=18 --latency us-east=96
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
            let verdict = verdict(&self.spec.process, &plan);
            let (why, at) = (placed(&plan.evidence.why), plan.revision);
            let decision = decision(&plan.evidence);
            format!("{verdict}\nby {why}, at revision {at}\n\n{decision}")
        })?;
        client.close().await;
        match plan.node {
            Some(_) => Ok(()),
            None => Err(Error::Rejected(self.refused(plan)).into()),
        }
    }

    /// What the create would be answered.
    fn refused(&self, plan: Planned) -> Rejection {
        let evidence = plan.evidence;
        // It was asked only when there was something to choose from.
        let selector = match evidence.why.chooser {
            Chooser::Selector { name, .. } if evidence.why.candidates > 0 => Some(name),
            _ => None,
        };
        match (evidence.answered, selector) {
            (Answered::Rejected { code, reason }, Some(selector)) => Rejection::BySelector {
                selector,
                code,
                reason,
            },
            (_, selector) => Rejection::NoPlacement {
                refusals: evidence.refusals,
                more: evidence.refusals_more,
                selector,
            },
        }
    }
}

/// Where it would go, and where next.
fn verdict(key: &ProcessKey, plan: &Planned) -> String {
    let Some(node) = &plan.node else {
        return format!("{key} would not be placed");
    };
    let then: Vec<&str> = plan.then.iter().map(|node| node.as_str()).collect();
    match then.is_empty() {
        true => format!("{key} would be placed on {node}"),
        false => format!(
            "{key} would be placed on {node}; if that cannot take it, on {}",
            then.join(", then ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use maitred_protocol::{Evidence, NodeName};

    use super::*;

    #[test]
    fn what_the_selector_ranked_next_is_told_in_its_order() {
        let node = |name: &str| NodeName::new(name).unwrap();
        let key = ProcessKey::new("player", "1").unwrap();
        let mut plan = Planned {
            node: Some(node("a")),
            then: Vec::new(),
            evidence: evidence(),
            revision: maitred_protocol::Revision(1),
        };
        assert_eq!(verdict(&key, &plan), "player/1 would be placed on a");
        plan.then = vec![node("c"), node("b")];
        assert_eq!(
            verdict(&key, &plan),
            "player/1 would be placed on a; if that cannot take it, on c, then b"
        );
        assert_eq!(shape::plan(&plan)["then"], json!(["c", "b"]));
        plan.node = None;
        assert_eq!(verdict(&key, &plan), "player/1 would not be placed");
    }

    fn evidence() -> Evidence {
        Evidence {
            why: maitred_protocol::Why {
                chooser: Chooser::Node,
                seed: 0,
                micros: 0,
                candidates: 3,
            },
            features: Vec::new(),
            candidates: Vec::new(),
            refusals: Vec::new(),
            refusals_more: 0,
            decided_ms: 0,
            filtered: Vec::new(),
            terms: Vec::new(),
            answered: Answered::Ranked(3),
        }
    }
}

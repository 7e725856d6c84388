//! `process explain`: why a process is where it is, and why not elsewhere.
//!
//! Holds: a decision is shown by the names of nodes, filters, features and terms, never by numbers
//! that only a host knows.

use clap::Args;
use maitred_protocol::{
    Answered, Candidate, Evidence, Explanation, NodeName, ProcessKey, Refusal, WhyNot,
};

use super::placed;
use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::{ago, grouped, short, table};

/// Rows of a decision that are shown to people; all are in the JSON.
const ROWS_MAX: usize = 60;

/// Show why a process is where it is: every node, what the selector saw of it, or why it was out
///
/// Who decided, with which version, configuration, seed and fuel; how many nodes each native filter took
/// out; of the candidates, the features that the selector saw, how old their load was, and the terms that
/// it scored the best ones by. Fuel is found by deciding again from the recorded input, as long as that
/// is kept.
///
/// Example: maitred process explain player/1001
///
/// Example: maitred process explain player/1001 --why-not eu-3
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Which
    #[arg(value_name = "TYPE/ID")]
    process: ProcessKey,
    /// And why it is not on this node
    #[arg(long, value_name = "NODE")]
    why_not: Option<NodeName>,
}

impl Explain {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let explained = match &self.why_not {
            Some(node) => client.explain_why_not(&self.process, node).await?,
            None => client.explain(&self.process).await?,
        };
        let body = shape::explanation(&explained);
        shell
            .out
            .show("Explanation", body, || self.text(&explained))?;
        client.close().await;
        Ok(())
    }

    fn text(&self, explained: &Explanation) -> String {
        let mut text = explanation(explained);
        if let (Some(node), Some(why_not)) = (&self.why_not, &explained.why_not) {
            // What was asked for comes where it is seen.
            let answer = of_node(node, why_not);
            let (head, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
            text = format!("{head}\n{answer}\n\n{rest}");
        }
        text
    }
}

/// All that is known of a placement.
pub(crate) fn explanation(explained: &Explanation) -> String {
    let record = &explained.record;
    let mut text = format!(
        "{} is on {}\nby {}",
        record.key,
        record.node,
        placed(&record.why)
    );
    if let Some(fuel) = explained.fuel {
        text += &format!(", {} fuel", grouped(fuel));
    }
    match &explained.evidence {
        Some(evidence) => {
            let (since, seed) = (ago(evidence.decided_ms), evidence.why.seed);
            text += &format!(", {since} ago, with seed {seed}\n\n{}", decision(evidence));
        }
        None => text += "\n\nthe host no longer has what the decision was made from",
    }
    text
}

fn of_node(node: &NodeName, why_not: &WhyNot) -> String {
    match why_not {
        WhyNot::Chosen => format!("it is on {node}"),
        WhyNot::Offered(Some(rank)) => {
            format!("not on {node}: it was offered, and scored as number {rank}")
        }
        WhyNot::Offered(None) => {
            format!("not on {node}: it was offered, and another one was preferred")
        }
        WhyNot::NotSampled => format!(
            "not on {node}: it passed the filters, and was not among the candidates that the selector asked for"
        ),
        WhyNot::Refused(reason) => format!("not on {node}: {reason}"),
        WhyNot::Unknown => {
            format!("not on {node}: there was no such node then, as far as is known")
        }
    }
}

/// What a decision was made from, node by node.
pub(crate) fn decision(evidence: &Evidence) -> String {
    let mut text = String::new();
    if let Some(answered) = verdict(&evidence.answered) {
        text += &format!("it answered: {answered}\n");
    }
    if !evidence.filtered.is_empty() {
        let filtered = evidence.filtered.iter();
        let counts: Vec<String> = filtered
            .map(|(name, count)| format!("{count} by {name}"))
            .collect();
        text += &format!("nodes filtered out: {}\n", counts.join(", "));
    }
    if !text.is_empty() {
        text += "\n";
    }
    text + &nodes(evidence)
}

/// What the selector said, where that is more than the node that was chosen.
fn verdict(answered: &Answered) -> Option<String> {
    match answered {
        Answered::Nothing | Answered::Chose => None,
        Answered::Ranked(1) => Some("one node".to_owned()),
        Answered::Ranked(count) => Some(format!("{count} nodes, best first")),
        Answered::None => Some("none of the candidates will do".to_owned()),
        Answered::Rejected { code, reason } => {
            Some(format!("it must not be created: {reason} (code {code})"))
        }
        Answered::Wait(ms) => Some(format!("nothing will do now, ask again within {ms} ms")),
    }
}

fn nodes(evidence: &Evidence) -> String {
    let mut header = vec!["NODE".to_owned(), "RESULT".to_owned()];
    header.extend(evidence.features.iter().cloned());
    let aged = evidence
        .candidates
        .iter()
        .any(|one| !one.load_age_ms.is_nan());
    if aged {
        header.push("LOAD AGE".to_owned());
    }
    header.extend(evidence.terms.iter().map(|term| format!("SCORE {term}")));
    header.push("REASON".to_owned());
    let width = header.len();
    // Whoever was chosen first, then those that were scored.
    let mut candidates: Vec<&Candidate> = evidence.candidates.iter().collect();
    candidates.sort_by_key(|one| (!one.chosen, one.scores.is_empty()));
    let offered = candidates.iter().map(|candidate| {
        let result = if candidate.chosen {
            "chosen"
        } else {
            "offered"
        };
        let mut row = vec![candidate.node.to_string(), result.to_owned()];
        row.extend(candidate.values.iter().map(|value| figure(*value)));
        if aged {
            row.push(age(candidate.load_age_ms));
        }
        row.extend(candidate.scores.iter().map(|value| figure(*value)));
        row.resize(width, String::new());
        row
    });
    let refused = evidence.refusals.iter().map(|refusal: &Refusal| {
        let mut row = vec![refusal.node.to_string(), "out".to_owned()];
        row.resize(width - 1, String::new());
        row.push(refusal.reason.to_string());
        row
    });
    let rows: Vec<Vec<String>> = offered.chain(refused).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let more = rows.len().saturating_sub(ROWS_MAX);
    let mut text = table(&header, rows.into_iter().take(ROWS_MAX));
    if more > 0 {
        text += &format!("\nand {more} more nodes (-o json shows them)");
    }
    if evidence.refusals_more > 0 {
        text += &format!("\nand {} more nodes that were out", evidence.refusals_more);
    }
    text
}

/// A feature's value: whole numbers without decimals, `?` for an unknown one.
pub(crate) fn figure(value: f32) -> String {
    if value.is_nan() {
        "?".to_owned()
    } else if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

fn age(millis: f32) -> String {
    if millis.is_nan() {
        return "?".to_owned();
    }
    short(std::time::Duration::from_millis(millis as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::{Chooser, Digest, ModuleName, RefusalReason, Why};

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn evidence() -> Evidence {
        let candidate = |name: &str, chosen, scores: &[f32]| Candidate {
            node: node(name),
            values: vec![3.0],
            chosen,
            load_age_ms: if chosen { 1_500.0 } else { f32::NAN },
            scores: scores.to_vec(),
        };
        Evidence {
            why: Why {
                chooser: Chooser::Selector {
                    name: ModuleName::new("spread").unwrap(),
                    version: 2,
                    digest: Digest([1; 32]),
                    config: 0xab,
                    canary: true,
                },
                seed: 7,
                micros: 12,
                candidates: 3,
            },
            features: vec!["cpu".to_owned()],
            candidates: vec![
                candidate("eu-1", false, &[]),
                candidate("eu-2", false, &[0.5]),
                candidate("eu-3", true, &[0.75]),
            ],
            refusals: vec![Refusal {
                node: node("eu-4"),
                reason: RefusalReason::Cordoned,
            }],
            refusals_more: 2,
            decided_ms: 1,
            filtered: vec![("cordoned".to_owned(), 3)],
            terms: vec!["room".to_owned()],
            answered: Answered::Ranked(2),
        }
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(figure(12.0), "12");
        assert_eq!(figure(0.25), "0.250");
        assert_eq!(figure(f32::NAN), "?");
    }

    #[test]
    fn the_best_nodes_come_first_with_what_they_were_scored_by() {
        let text = decision(&evidence());
        let at = |part: &str| {
            text.find(part)
                .unwrap_or_else(|| panic!("no {part} in\n{text}"))
        };
        assert!(at("eu-3") < at("eu-2") && at("eu-2") < at("eu-1"));
        for part in [
            "it answered: 2 nodes, best first",
            "nodes filtered out: 3 by cordoned",
            "SCORE room",
            "0.750",
            "LOAD AGE",
            "1s",
            "and 2 more nodes that were out",
        ] {
            at(part);
        }
        assert!(placed(&evidence().why).contains("spread@2 (0101"));
        assert!(placed(&evidence().why).contains("as a canary"));
    }

    #[test]
    fn many_nodes_are_cut_and_counted() {
        let mut many = evidence();
        let one = many.candidates[0].clone();
        many.candidates.extend(std::iter::repeat_n(one, 100));
        let text = decision(&many);
        assert!(text.contains("and 44 more nodes (-o json"), "{text}");
    }

    #[test]
    fn why_not_names_the_reason() {
        let of = |why_not| of_node(&node("eu-4"), &why_not);
        let label = RefusalReason::Label {
            key: "zone".to_owned(),
            value: "eu".to_owned(),
        };
        assert!(of(WhyNot::Refused(label)).contains("label zone is not eu"));
        assert!(of(WhyNot::Offered(Some(2))).contains("number 2"));
        assert!(of(WhyNot::NotSampled).contains("asked for"));
    }
}

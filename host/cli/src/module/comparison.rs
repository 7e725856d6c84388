//! A comparison of two versions for people: how often they agree, where they do not, what that does to
//! the nodes, and what it costs.

use maitred_protocol::NodeName;
use maitred_protocol::comparison::{ComparedVersion, Comparison, Difference, Evenness, Quantiles};

use crate::json as shape;
use crate::out::{ago, fields, grouped, table};

pub(super) fn text(of: &Comparison) -> String {
    let mut rows = vec![("tried", version(of, &of.other))];
    rows.extend(beside(of));
    rows.push(("decisions", decisions(of)));
    if of.decisions == 0 {
        return fields(&rows);
    }
    rows.push(("agreement", share(of.agreed, of.decisions)));
    let different = [
        ("moved", of.moved, "to another node"),
        (
            "newly rejected",
            of.newly_rejected,
            "no node instead of one",
        ),
        ("newly placed", of.newly_placed, "a node instead of none"),
    ];
    rows.extend(different.map(|(name, count, what)| {
        let share = share(count, of.decisions);
        (name, format!("{share}: {what}"))
    }));
    if of.same_version > 0 {
        let identical = share(of.identical, of.same_version);
        let text =
            format!("{identical} decided by this very version came out to the bit as they were");
        rows.push(("identical", text));
    }
    let failures = format!(
        "{} traps, {} time-outs, {} bad answers",
        grouped(of.traps),
        grouped(of.timeouts),
        grouped(of.bad_answers)
    );
    rows.push(("failures", failures));
    rows.push(("fuel", quantiles(of.fuel, grouped)));
    rows.push(("time", quantiles(of.nanos, micros)));
    rows.push(("nodes have", evenness(of.spread_decided)));
    rows.push(("would have", evenness(of.spread_other)));
    let mut text = fields(&rows);
    if !of.differences.is_empty() {
        text += &format!("\n\n{}", differences(&of.differences));
    }
    text
}

fn version(of: &Comparison, version: &ComparedVersion) -> String {
    let named = match version.version {
        0 => "a file".to_owned(),
        number => format!("{}@{number}", of.module),
    };
    let config = shape::config_hash(version.config);
    format!(
        "{named} ({}), configuration {config}",
        version.digest.short()
    )
}

fn beside(of: &Comparison) -> Vec<(&'static str, String)> {
    if of.decided.is_empty() {
        return vec![("beside", "nothing yet".to_owned())];
    }
    let names = std::iter::once("beside").chain(std::iter::repeat(""));
    let versions = of.decided.iter().map(|one| version(of, one));
    names.zip(versions).collect()
}

fn decisions(of: &Comparison) -> String {
    let mut text = grouped(of.decisions);
    if of.decisions > 0 {
        text += &format!(", made {} to {} ago", ago(of.from_ms), ago(of.to_ms));
    }
    if of.skipped > 0 {
        text += &format!("; {} were left out", grouped(of.skipped));
    }
    text
}

/// `98.70 % (9,870)`; a share that is not quite all, or not quite nothing, never looks like it.
fn share(part: u64, whole: u64) -> String {
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    let shown = match percent {
        percent if part < whole && percent > 99.99 => 99.99,
        percent if part > 0 && percent < 0.01 => 0.01,
        percent => percent,
    };
    format!("{shown:.2} % ({})", grouped(part))
}

fn quantiles(of: Quantiles, show: impl Fn(u64) -> String) -> String {
    format!(
        "p50 {}, p90 {}, p99 {}, most {}",
        show(of.p50),
        show(of.p90),
        show(of.p99),
        show(of.max)
    )
}

fn micros(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{:.1} µs", nanos as f64 / 1_000.0),
        _ => format!("{} µs", grouped(nanos / 1_000)),
    }
}

fn evenness(of: Evenness) -> String {
    format!(
        "{} processes at most, {:.2} on average, deviation {:.2}",
        grouped(of.max.into()),
        of.mean,
        of.deviation
    )
}

fn differences(all: &[Difference]) -> String {
    let node = |node: &Option<NodeName>| node.as_ref().map_or("-".to_owned(), ToString::to_string);
    let rows = all.iter().map(|one| {
        vec![
            one.key.to_string(),
            node(&one.decided),
            node(&one.other),
            one.reason.clone(),
        ]
    });
    table(
        &["FIRST DIFFERENCES", "DECIDED", "WOULD BE", "REASON"],
        rows,
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use maitred_protocol::{Digest, ModuleName, ProcessKey};

    pub(in super::super) fn example() -> Comparison {
        let version = |version| ComparedVersion {
            version,
            digest: Digest([1; 32]),
            config: 0xab,
        };
        Comparison {
            module: ModuleName::new("spread").unwrap(),
            decided: vec![version(2)],
            other: version(3),
            decisions: 100_000,
            skipped: 12,
            agreed: 99_999,
            moved: 1,
            newly_rejected: 0,
            newly_placed: 0,
            same_version: 0,
            identical: 0,
            traps: 3,
            timeouts: 0,
            bad_answers: 0,
            fuel: Quantiles {
                p50: 12_000,
                p90: 13_000,
                p99: 14_000,
                max: 15_000,
            },
            nanos: Quantiles {
                p50: 4_300,
                p90: 5_000,
                p99: 20_000,
                max: 1_000_000,
            },
            spread_decided: Evenness {
                max: 1_012,
                mean: 1_000.0,
                deviation: 3.5,
            },
            spread_other: Evenness {
                max: 1_013,
                mean: 1_000.0,
                deviation: 3.25,
            },
            differences: vec![Difference {
                key: ProcessKey::new("player", "7").unwrap(),
                decided: Some(NodeName::new("eu-1").unwrap()),
                other: None,
                reason: "no room".to_owned(),
            }],
            from_ms: 1,
            to_ms: 2,
        }
    }

    #[test]
    fn a_comparison_names_both_versions_and_what_would_be_different() {
        let text = text(&example());
        for part in [
            "spread@3 (0101",
            "spread@2",
            "100,000",
            "12 were left out",
            // Not 100 %: one was different.
            "99.99 % (99,999)",
            "0.01 % (1): to another node",
            "3 traps",
            "p50 12,000",
            "p50 4.3 µs",
            "most 1,000 µs",
            "1,012 processes at most",
            "would have      1,013",
            "player/7",
            "no room",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("identical"), "{text}");
    }

    #[test]
    fn nothing_compared_is_said_as_that() {
        let mut none = example();
        (none.decisions, none.decided) = (0, Vec::new());
        let text = text(&none);
        assert!(
            text.contains("nothing yet") && !text.contains('%'),
            "{text}"
        );
    }
}

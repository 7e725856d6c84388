//! What was found out about a component: by the host that took it in, or here, as a host would. For
//! people and for scripts.

use std::time::Duration;

use maitred_protocol::Findings;
use maitred_sandbox::{MemoryPages, Scanned};
use serde_json::{Value, json};

use crate::out::{grouped, short, table};

/// A line of what was measured, and one for each note.
pub(super) fn text(findings: &Findings) -> String {
    let compiled = short(Duration::from_millis(findings.compile_ms.into()));
    let memory = grouped(findings.memory_bytes >> 10);
    let mut lines = vec![format!(
        "ready in {compiled}, {memory} KiB an instance{}",
        decision(findings)
    )];
    lines.extend(notes(findings));
    lines.join("\n")
}

/// The notes, a line each: they may hold a module's own words.
pub(super) fn notes(findings: &Findings) -> impl Iterator<Item = String> {
    let notes = findings.notes.iter();
    notes.map(|note| format!("note: {}", note.replace('\n', " ")))
}

fn decision(findings: &Findings) -> String {
    if findings.decision_nanos == 0 {
        return String::new();
    }
    let micros = findings.decision_nanos as f64 / 1_000.0;
    format!(", {micros:.1} µs a decision over {} nodes", findings.nodes)
}

/// What the memories declare: `2 or more pages of 64 KiB`, `2 to 16 pages of 64 KiB`.
pub(super) fn pages(scanned: &Scanned) -> String {
    let one = |memory: &MemoryPages| match (memory.minimum, memory.maximum) {
        (least, Some(most)) => format!("{} to {}", grouped(least), grouped(most)),
        (least, None) => format!("{} or more", grouped(least)),
    };
    let all: Vec<String> = scanned.memories.iter().map(one).collect();
    match all.is_empty() {
        true => "none".to_owned(),
        false => format!("{} pages of 64 KiB", all.join(", ")),
    }
}

/// What the scan held against a limit, a line each.
pub(super) fn measures(scanned: &Scanned) -> String {
    let rows = scanned.measures.iter().map(|one| {
        let (got, most) = (grouped(one.got), grouped(one.most));
        vec![one.what.to_owned(), got, most, one.limit.to_owned()]
    });
    table(&["SCANNED", "HAS", "AT MOST", "LIMIT"], rows)
}

pub(super) fn scanned_json(scanned: &Scanned) -> Value {
    let measures = scanned.measures.iter().map(|one| {
        json!({
            "what": one.what,
            "limit": one.limit,
            "got": one.got.to_string(),
            "most": one.most.to_string(),
        })
    });
    let memories = scanned.memories.iter().map(|one| {
        json!({
            "minimum_pages": one.minimum.to_string(),
            "maximum_pages": one.maximum.map(|most| most.to_string()),
        })
    });
    json!({
        "measures": measures.collect::<Vec<_>>(),
        "memories": memories.collect::<Vec<_>>(),
    })
}

pub(super) fn to_json(findings: &Findings) -> Value {
    json!({
        "notes": findings.notes,
        "compile_ms": findings.compile_ms,
        "memory_bytes": findings.memory_bytes.to_string(),
        "decision_nanos": findings.decision_nanos.to_string(),
        "nodes": findings.nodes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_one_line_and_what_decides_nothing_has_no_decision() {
        let mut findings = Findings {
            compile_ms: 12,
            memory_bytes: 128 << 10,
            ..Findings::default()
        };
        assert_eq!(text(&findings), "ready in 12ms, 128 KiB an instance");
        (findings.decision_nanos, findings.nodes) = (840, 8);
        findings.note("two\nlines".to_owned());
        assert_eq!(
            text(&findings),
            "ready in 12ms, 128 KiB an instance, 0.8 µs a decision over 8 nodes\nnote: two lines"
        );
    }

    #[test]
    fn memories_are_told_with_what_they_declare() {
        let memory = |minimum, maximum| MemoryPages { minimum, maximum };
        let of = |memories: &[MemoryPages]| {
            pages(&Scanned {
                memories: memories.to_vec(),
                ..Scanned::default()
            })
        };
        assert_eq!(of(&[]), "none");
        assert_eq!(
            of(&[memory(2, None), memory(1, Some(16))]),
            "2 or more, 1 to 16 pages of 64 KiB"
        );
    }
}

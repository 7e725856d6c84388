//! What decisions came to, counted.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use maitred_protocol::{Answered, Chooser};
use maitred_registry::decide::Decision;

/// In the order of [`of`].
const NAMES: [&str; 7] = [
    "chose", "ranked", "none", "rejected", "wait", "fallback", "no_node",
];
const FALLBACK: usize = 5;

/// Decisions since the host started, by what came of them.
#[derive(Debug, Default)]
pub(crate) struct Verdicts([AtomicU64; NAMES.len()]);

/// Which of [`NAMES`]. Where there was nothing to choose from, nobody chose.
fn of(decision: &Decision) -> usize {
    let trace = &decision.trace;
    if trace.why.candidates == 0 {
        return 6;
    }
    if matches!(trace.why.chooser, Chooser::Fallback { .. }) {
        return FALLBACK;
    }
    match trace.answered {
        Answered::Chose => 0,
        Answered::Ranked(_) => 1,
        Answered::None => 2,
        Answered::Rejected { .. } => 3,
        Answered::Wait(_) => 4,
        Answered::Nothing => 6,
    }
}

impl Verdicts {
    /// Counts the decisions of a batch.
    pub(crate) fn count(&self, decisions: &[Decision]) {
        for decision in decisions {
            self.0[of(decision)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those that a fallback made.
    pub(crate) fn fallbacks(&self) -> u64 {
        self.0[FALLBACK].load(Ordering::Relaxed)
    }

    /// Appends them, as Prometheus reads them. Writing to a string cannot fail.
    pub(crate) fn write(&self, text: &mut String) {
        let name = "maitred_decisions_total";
        let help = "Placement decisions, by what came of them; `fallback`: the native fallback chose; `no_node`: no node passed the filter.";
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for (verdict, count) in NAMES.iter().zip(&self.0) {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}{{verdict=\"{verdict}\"}} {count}");
        }
    }
}

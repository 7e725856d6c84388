//! A violation as a person reads it: the shortest beginning of the history that has no order.
//!
//! A beginning is cut at a return: what had not been invoked by then is left out, and what had not
//! returned only may have happened. If a beginning has no order, no longer one has, so the shortest
//! is found by halving.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::search::{Found, Search};
use super::{Limit, Model, Operation, Violation};

/// Calls that are printed; earlier ones are only counted.
const LINES_MAX: usize = 40;
/// Characters of the bars.
const COLUMNS: usize = 40;

/// Explains why `operations`, which have no order, have none.
pub(super) fn explain<M: Model>(
    model: &M,
    key: &str,
    operations: &[Operation<M::Action>],
    limit: Limit,
) -> Violation {
    let required = operations.iter().filter(|operation| operation.required);
    let returns: BTreeSet<u64> = required
        .filter_map(|operation| operation.returned)
        .collect();
    let returns: Vec<u64> = returns.into_iter().collect();
    let holds = |end: &u64| {
        let outcome = Search::new(model, &cut(operations, *end)).run(limit);
        outcome.found != Found::NoOrder
    };
    let at = returns.partition_point(holds);
    let end = returns.get(at).copied().unwrap_or(u64::MAX);
    let kept = cut(operations, end);
    let best = Search::new(model, &kept).run(limit).best;

    let calls: BTreeSet<u64> = kept.iter().map(|operation| operation.call).collect();
    let all: BTreeSet<u64> = operations.iter().map(|operation| operation.call).collect();
    let (calls, all) = (calls.len(), all.len());
    let mut text = format!(
        "{key} is not linearizable: the first {calls} of {all} calls have no order (times in ms)\n"
    );
    draw(&mut text, &kept, end);
    let _ = writeln!(text, "The longest order that holds leaves: {}", best.state);
    text.push_str("None of these, one of which must come next, goes with that:\n");
    for at in best.stuck {
        let _ = writeln!(text, "  {}", line(&kept[at]));
    }
    let key = key.to_owned();
    Violation { key, calls, text }
}

fn cut<A: Clone>(operations: &[Operation<A>], end: u64) -> Vec<Operation<A>> {
    let begun = operations
        .iter()
        .filter(|operation| operation.invoked <= end);
    let cut = begun.map(|operation| {
        let over = operation.returned.is_some_and(|returned| returned <= end);
        let required = operation.required && over;
        Operation {
            required,
            ..operation.clone()
        }
    });
    cut.collect()
}

fn line<A: std::fmt::Display>(operation: &Operation<A>) -> String {
    let end = match operation.returned {
        Some(returned) => ms(returned),
        None => "?".to_owned(),
    };
    format!(
        "{:>10} {:>10}  c{:<4} {}",
        ms(operation.invoked),
        end,
        operation.caller,
        operation.action
    )
}

fn ms(micros: u64) -> String {
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

/// One line a call, by invocation, with a bar that shows what overlaps what.
fn draw<A: std::fmt::Display>(text: &mut String, operations: &[Operation<A>], end: u64) {
    // The last operation of a call says what the call was.
    let calls: BTreeMap<u64, &Operation<A>> = operations
        .iter()
        .map(|operation| (operation.call, operation))
        .collect();
    let mut calls: Vec<_> = calls.into_values().collect();
    calls.sort_by_key(|operation| (operation.invoked, operation.call));
    let hidden = calls.len().saturating_sub(LINES_MAX);
    // What is open or may happen at any time is shown, however old.
    let mut left = hidden;
    calls.retain(|operation| {
        let hide = left > 0 && operation.required;
        left -= usize::from(hide);
        !hide
    });
    if hidden > left {
        let _ = writeln!(text, "  ({} earlier calls)", hidden - left);
    }
    let until = |operation: &Operation<A>| operation.returned.unwrap_or(end).min(end);
    let times: BTreeSet<u64> = calls
        .iter()
        .flat_map(|operation| [operation.invoked, until(operation)])
        .collect();
    let column = |time: u64| times.range(..time).count() * COLUMNS / times.len().max(1);
    let lines: Vec<String> = calls.iter().map(|operation| line(operation)).collect();
    let width = lines.iter().map(String::len).max().unwrap_or(0);
    for (operation, line) in calls.iter().zip(&lines) {
        let (from, to) = (column(operation.invoked), column(until(operation)));
        let open = operation.returned.is_none_or(|returned| returned > end);
        let tail = if open { '~' } else { '|' };
        let (pad, bar) = (" ".repeat(from), "-".repeat(to.saturating_sub(from)));
        let _ = writeln!(text, "{line:<width$}  {pad}|{bar}{tail}");
    }
}

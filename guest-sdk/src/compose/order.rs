//! Ordered criteria: one term after another instead of a sum.

use std::cmp::Ordering;

use super::score::Term;
use crate::answer::SCORED_MAX;
use crate::{Answer, Chance, Row, Scores};

/// See [`Kept::in_order`](super::Kept::in_order).
pub(super) fn in_order(rows: &[Row<'_>], terms: &[Term<'_>], explained: bool, seed: u32) -> Answer {
    // Each value once: rows are compared with several others.
    let mut values = Vec::with_capacity(rows.len() * terms.len());
    for &row in rows {
        values.extend(terms.iter().map(|term| term.criterion(row)));
    }
    let of_row = |row: usize| values.get(row * terms.len()..(row + 1) * terms.len());
    // The better row is less; of full ties the one that drew less.
    let compare = |one: &(u32, usize), other: &(u32, usize)| {
        let pairs = of_row(one.1)
            .zip(of_row(other.1))
            .map(|(a, b)| a.iter().zip(b));
        let order = pairs.into_iter().flatten().zip(terms);
        let mut order = order.map(|((&a, &b), term)| before(a, b, term.lowest_is_best()));
        let decided = order.find(|order| order.is_ne());
        decided.unwrap_or_else(|| one.0.cmp(&other.0))
    };
    let count = if explained { SCORED_MAX } else { 1 };
    let mut chance = Chance::new(seed);
    let mut top: Vec<(u32, usize)> = Vec::with_capacity(count + 1);
    for row in 0..rows.len() {
        let place = (chance.draw(), row);
        let at = top
            .iter()
            .take_while(|other| compare(other, &place).is_le());
        let at = at.count();
        if at < count {
            top.insert(at, place);
            top.truncate(count);
        }
    }
    let Some(&(_, best)) = top.first() else {
        return Answer::none();
    };
    let answer = Answer::choose(rows[best].slot);
    if !explained {
        return answer;
    }
    let shown = top.iter().filter_map(|&(_, row)| of_row(row));
    answer.with_scores(Scores {
        slots: top.iter().map(|&(_, row)| rows[row].slot).collect(),
        values: shown.flatten().copied().collect(),
    })
}

/// Unknown values come last, whichever is best.
fn before(value: f32, other: f32, lowest_is_best: bool) -> Ordering {
    match value.partial_cmp(&other) {
        Some(order) if lowest_is_best => order,
        Some(order) => order.reverse(),
        None => value.is_nan().cmp(&other.is_nan()),
    }
}

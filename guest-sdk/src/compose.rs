//! A choice in three steps: filters keep rows, terms score them, a pick takes one.
//!
//! ```
//! use maitred_guest::{Answer, Candidates, Request};
//! use maitred_guest::compose::{flag, high, low};
//!
//! const FEATURES: &[&str] = &["processes", "memory-free-mib", "local:zone", "cpu"];
//! const TERMS: &[&str] = &["processes", "memory", "local"];
//!
//! fn select(request: &Request, nodes: Candidates<'_>) -> Answer {
//!     nodes
//!         .keep(|row| row.known(3).is_none_or(|cpu| cpu < 0.9))
//!         .score(&[low(0).times(2.0), high(1), flag(2).times(0.5)])
//!         .best(request.seed)
//! }
//! # let row = [3.0, 100.0, 1.0, 0.2];
//! # let nodes = Candidates::new(&[7], &row, 4)?;
//! # assert_eq!(select(&maitred_guest::testing::request("room", "r"), nodes), Answer::choose(7));
//! # Ok::<(), String>(())
//! ```
//!
//! The score of a row is the sum of weight times value over the terms, in their order, as `f32`;
//! higher is better, and a score that is NaN counts as minus infinity. Rows of the same score are
//! each as likely as the others, by the seed. An answer carries the weighted values of the best five
//! rows, so that they add up to the score; only where the policy declares `TERMS`.
//!
//! It decides the arithmetic, which is the same natively and in a component; it knows no feature.

mod order;
mod score;

pub use score::{Scored, Term, flag, given, high, low, scaled};

use crate::candidates::{Row, lowest};
use crate::{Answer, Chance, Slot};

/// The rows that filters have left.
#[derive(Clone, Debug)]
pub struct Kept<'a> {
    rows: Vec<Row<'a>>,
    explained: bool,
}

impl<'a> Kept<'a> {
    pub(crate) fn new(rows: Vec<Row<'a>>, explained: bool) -> Self {
        Self { rows, explained }
    }

    /// The rows, in the order of the candidates.
    #[must_use]
    pub fn rows(&self) -> &[Row<'a>] {
        &self.rows
    }

    /// Whether no row is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Only the rows for which `wanted` holds. Every comparison with an unknown value (NaN) is false:
    /// `row.value(0) < 0.9` drops the unknown ones, `row.known(0).is_none_or(|cpu| cpu < 0.9)` keeps
    /// them.
    #[must_use]
    pub fn keep(mut self, mut wanted: impl FnMut(Row<'a>) -> bool) -> Self {
        self.rows.retain(|&row| wanted(row));
        self
    }

    /// Only the rows for which `wanted` holds, unless it holds for none.
    #[must_use]
    pub fn prefer(self, mut wanted: impl FnMut(Row<'a>) -> bool) -> Self {
        if self.rows.iter().any(|&row| wanted(row)) {
            self.keep(wanted)
        } else {
            self
        }
    }

    /// Only the rows that tie for the lowest value of `key`. Rows where it is unknown (NaN) are
    /// dropped, unless it is unknown everywhere. One after another, these are ordered criteria.
    #[must_use]
    pub fn least(self, key: impl FnMut(Row<'a>) -> f32) -> Self {
        self.within(0.0, key)
    }

    /// The same with every row up to `margin` above the lowest.
    #[must_use]
    pub fn within(self, margin: f32, mut key: impl FnMut(Row<'a>) -> f32) -> Self {
        // `min` answers the other one of a number and NaN.
        let least = self
            .rows
            .iter()
            .map(|&row| key(row))
            .fold(f32::NAN, f32::min);
        if least.is_nan() {
            self
        } else {
            self.keep(|row| key(row) <= least + margin)
        }
    }

    /// Scores the rows; as many terms as the policy declares, in that order.
    #[must_use]
    pub fn score<'t>(self, terms: &'t [Term<'t>]) -> Scored<'a, 't> {
        Scored::new(self.rows, terms, self.explained)
    }

    /// Chooses the best row by the first term, among those that tie by the second, and so on: ordered
    /// criteria. Values are not brought to a range; of a weight only the sign counts, and below 0 it
    /// is the lowest value that is best. Unknown values (NaN) come last, and full ties are broken by
    /// `seed`. The scores of the answer are the values themselves.
    #[must_use]
    pub fn in_order(&self, terms: &[Term<'_>], seed: u32) -> Answer {
        order::in_order(&self.rows, terms, self.explained, seed)
    }

    /// The slot with the lowest key; see [`Candidates::lowest`](crate::Candidates::lowest).
    pub fn lowest(&self, seed: u32, key: impl FnMut(Row<'a>) -> Option<f32>) -> Option<Slot> {
        lowest(self.rows.iter().copied(), seed, key)
    }

    /// One of the rows, each as likely as the others, by `seed`.
    #[must_use]
    pub fn random(&self, seed: u32) -> Option<Slot> {
        let at = Chance::new(seed).below(self.rows.len() as u32);
        self.rows.get(at as usize).map(|row| row.slot)
    }
}

#[cfg(test)]
mod tests;

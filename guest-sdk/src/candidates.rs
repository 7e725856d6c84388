//! The candidates of one decision, as rows over the two flat lists that crossed the border.
//!
//! The lists come from outside, so their shape is checked once, when [`Candidates`] is made; after
//! that no access can fail. It knows no feature by name: columns are the manifest's, by position.

use crate::compose::Kept;
use crate::{Chance, Slot};

/// The nodes to choose from.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    slots: &'a [Slot],
    features: &'a [f32],
    columns: usize,
    explained: bool,
}

/// One candidate with its features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    /// What to answer to choose this node; valid for this call only.
    pub slot: Slot,
    /// One value for each feature, in the manifest's order; NaN where the host does not know it.
    pub values: &'a [f32],
}

impl Row<'_> {
    /// The value in `column` (0 is the first feature); NaN when the host does not know it, or when
    /// there is no such column.
    #[must_use]
    pub fn value(&self, column: usize) -> f32 {
        self.values.get(column).copied().unwrap_or(f32::NAN)
    }

    /// The value in `column`, when the host knows it.
    #[must_use]
    pub fn known(&self, column: usize) -> Option<f32> {
        Some(self.value(column)).filter(|value| !value.is_nan())
    }

    /// The value in `column` as a whole number from 0 to 2^24 (which `f32` holds exactly), when the
    /// host knows it and it is one: counts, label numbers and hashes are.
    #[must_use]
    pub fn whole(&self, column: usize) -> Option<u32> {
        let value = self.known(column)?;
        let number = value as u32;
        (number <= 1 << 24 && number as f32 == value).then_some(number)
    }

    /// Whether the value in `column` is 1, as it is where `requester`, `previous` and `local:KEY`
    /// hold.
    #[must_use]
    pub fn is(&self, column: usize) -> bool {
        self.value(column) == 1.0
    }
}

impl<'a> Candidates<'a> {
    /// Pairs `slots` with `features`, which holds `columns` values for each slot, row by row.
    ///
    /// # Errors
    /// When the lengths do not fit together.
    pub fn new(slots: &'a [Slot], features: &'a [f32], columns: usize) -> Result<Self, String> {
        if slots.len().checked_mul(columns) == Some(features.len()) {
            Ok(Self {
                slots,
                features,
                columns,
                explained: false,
            })
        } else {
            Err(format!(
                "{} candidates of {columns} features each came with {} values",
                slots.len(),
                features.len(),
            ))
        }
    }

    /// Whether scores are wanted with an answer: when the policy declares terms.
    pub(crate) fn explained(self, explained: bool) -> Self {
        Self { explained, ..self }
    }

    /// How many candidates there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no candidate; the host never asks then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The candidate at `index`, counted from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Row<'a>> {
        let slot = *self.slots.get(index)?;
        let first = index * self.columns;
        let values = self.features.get(first..first + self.columns)?;
        Some(Row { slot, values })
    }

    /// The candidates in the order in which the host gave them.
    pub fn iter(&self) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let all = *self;
        (0..all.len()).filter_map(move |index| all.get(index))
    }

    /// The slot with the lowest key, without allocating anything. `key` answers none for a row that
    /// must not be chosen; a NaN comes after every number; each of several equal rows is as likely
    /// as the others, by `seed`.
    pub fn lowest(&self, seed: u32, key: impl FnMut(Row<'a>) -> Option<f32>) -> Option<Slot> {
        lowest(self.iter(), seed, key)
    }

    /// All rows, to compose a choice of; see [`crate::compose`].
    #[must_use]
    pub fn all(&self) -> Kept<'a> {
        self.keep(|_| true)
    }

    /// The rows for which `wanted` holds, to compose a choice of; see [`crate::compose`].
    pub fn keep(&self, mut wanted: impl FnMut(Row<'a>) -> bool) -> Kept<'a> {
        let rows = self.iter().filter(|&row| wanted(row)).collect();
        Kept::new(rows, self.explained)
    }
}

/// The slot of the row with the lowest key; see [`Candidates::lowest`].
pub(crate) fn lowest<'a>(
    rows: impl Iterator<Item = Row<'a>>,
    seed: u32,
    mut key: impl FnMut(Row<'a>) -> Option<f32>,
) -> Option<Slot> {
    let mut chance = Chance::new(seed);
    let mut best: Option<(f32, Slot)> = None;
    let mut equals = 0;
    for row in rows {
        let Some(key) = key(row) else { continue };
        let before =
            best.is_none_or(|(lowest, _)| key < lowest || lowest.is_nan() && !key.is_nan());
        let equal =
            best.is_some_and(|(lowest, _)| key == lowest || lowest.is_nan() && key.is_nan());
        if before {
            equals = 1;
        } else if equal {
            equals += 1;
        }
        // A row that is the k-th equal one takes the place with chance 1/k (reservoir sampling).
        if before || equal && chance.below(equals) == 0 {
            best = Some((key, row.slot));
        }
    }
    best.map(|(_, slot)| slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        assert!(Candidates::new(&[1, 2], &[0.0; 4], 2).is_ok());
        assert!(Candidates::new(&[1, 2], &[0.0; 3], 2).is_err());
        assert!(Candidates::new(&[1, 2], &[], 0).is_ok());
        assert!(Candidates::new(&[1, 2], &[], usize::MAX).is_err());
    }

    #[test]
    fn rows_follow_the_order_of_the_host() {
        let rows = Candidates::new(&[7, 3], &[1.0, 2.0, 3.0, f32::NAN], 2).unwrap();
        assert_eq!(rows.iter().map(|row| row.slot).collect::<Vec<_>>(), [7, 3]);
        let second = rows.get(1).unwrap();
        assert_eq!(second.known(0), Some(3.0));
        assert_eq!(second.known(1), None);
        assert_eq!(second.known(2), None);
        assert!(rows.get(2).is_none());
    }

    #[test]
    fn only_whole_numbers_are_whole() {
        let values = [16_777_215.0, 0.5, -1.0, f32::INFINITY, f32::NAN];
        let row = Row {
            slot: 0,
            values: &values,
        };
        assert_eq!(
            (0..5).map(|column| row.whole(column)).collect::<Vec<_>>(),
            [Some(16_777_215), None, None, None, None]
        );
    }

    #[test]
    fn unknown_values_come_last_and_ties_are_fair() {
        let unknown = [f32::NAN, f32::NAN];
        let rows = Candidates::new(&[0, 1], &unknown, 1).unwrap();
        assert!(rows.lowest(1, |row| Some(row.value(0))).is_some());

        let features = [f32::NAN, 2.0, 5.0, 2.0, 2.0];
        let rows = Candidates::new(&[0, 1, 2, 3, 4], &features, 1).unwrap();
        let mut chosen = [0_u32; 5];
        for seed in 0..3_000 {
            let slot = rows.lowest(seed, |row| Some(row.value(0))).unwrap();
            chosen[slot as usize] += 1;
        }
        assert_eq!((chosen[0], chosen[2]), (0, 0));
        // A thousand each, give or take four standard deviations of a binomial (26).
        for slot in [1, 3, 4] {
            assert!(chosen[slot].abs_diff(1_000) < 104, "{chosen:?}");
        }
        assert_eq!(rows.lowest(1, |_| None), None);
    }
}

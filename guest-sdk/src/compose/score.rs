//! Terms, scores, and the picks that take a node by its score.

use crate::answer::{RANKED_MAX, SCORED_MAX};
use crate::{Answer, Chance, Row, Scores, Verdict};

/// One summand of a score: a weight (1 unless [`times`](Self::times) says otherwise) and a value.
#[derive(Clone, Copy)]
pub struct Term<'t> {
    weight: f32,
    value: Value<'t>,
}

#[derive(Clone, Copy)]
enum Value<'t> {
    Low(usize),
    High(usize),
    Scaled(&'t dyn Fn(Row<'_>) -> f32),
    Flag(usize),
    Given(&'t dyn Fn(Row<'_>) -> f32),
}

/// 1 where `column` is lowest among the rows, 0 where it is highest, and in proportion between them.
/// All equal: 1. Not known, or infinite: 0.
#[must_use]
pub const fn low<'t>(column: usize) -> Term<'t> {
    Term::new(Value::Low(column))
}

/// 1 where `column` is highest among the rows, 0 where it is lowest, and in proportion between them.
/// All equal: 1. Not known, or infinite: 0.
#[must_use]
pub const fn high<'t>(column: usize) -> Term<'t> {
    Term::new(Value::High(column))
}

/// As [`high`], of what `value` makes of a row.
#[must_use]
pub const fn scaled(value: &dyn Fn(Row<'_>) -> f32) -> Term<'_> {
    Term::new(Value::Scaled(value))
}

/// 1 where `column` is 1, 0 elsewhere: for `requester`, `previous` and `local:KEY`.
#[must_use]
pub const fn flag<'t>(column: usize) -> Term<'t> {
    Term::new(Value::Flag(column))
}

/// What `value` makes of a row, as it is. A NaN puts the row behind all others.
#[must_use]
pub const fn given(value: &dyn Fn(Row<'_>) -> f32) -> Term<'_> {
    Term::new(Value::Given(value))
}

impl<'t> Term<'t> {
    const fn new(value: Value<'t>) -> Self {
        Self { weight: 1.0, value }
    }

    /// The same term with this weight.
    #[must_use]
    pub const fn times(self, weight: f32) -> Self {
        Self { weight, ..self }
    }

    /// What ordered criteria compare and show of a row.
    pub(super) fn criterion(&self, row: Row<'_>) -> f32 {
        match self.value {
            Value::Low(column) => row.value(column),
            _ => self.raw(row),
        }
    }

    /// Whether they choose the lowest of it.
    pub(super) fn lowest_is_best(&self) -> bool {
        matches!(self.value, Value::Low(_)) == (self.weight >= 0.0)
    }

    /// Before it is brought to the range from 0 to 1, if it is.
    fn raw(&self, row: Row<'_>) -> f32 {
        match self.value {
            Value::Low(column) => -row.value(column),
            Value::High(column) => row.value(column),
            Value::Scaled(value) | Value::Given(value) => value(row),
            Value::Flag(column) => f32::from(u8::from(row.is(column))),
        }
    }

    /// Lowest and highest finite value over the rows; none for a term that is taken as it is.
    fn range(&self, rows: &[Row<'_>]) -> Option<(f32, f32)> {
        if matches!(self.value, Value::Flag(_) | Value::Given(_)) {
            return None;
        }
        let values = rows.iter().map(|&row| self.raw(row));
        let finite = values.filter(|value| value.is_finite());
        Some(
            finite.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            }),
        )
    }

    fn points(&self, row: Row<'_>, range: Option<(f32, f32)>) -> f32 {
        let raw = self.raw(row);
        let value = match range {
            None => raw,
            Some(_) if !raw.is_finite() => 0.0,
            Some((low, high)) if low == high => 1.0,
            // As f64, since the width of a range may be more than an f32 holds.
            Some((low, high)) => {
                ((f64::from(raw) - f64::from(low)) / (f64::from(high) - f64::from(low))) as f32
            }
        };
        self.weight * value
    }
}

/// Rows with their scores.
pub struct Scored<'a, 't> {
    rows: Vec<(f32, Row<'a>)>,
    terms: &'t [Term<'t>],
    ranges: Vec<Option<(f32, f32)>>,
    explained: bool,
}

/// A row with its score, and a number that orders rows of the same score.
type Place<'a> = (f32, u32, Row<'a>);

impl<'a, 't> Scored<'a, 't> {
    pub(super) fn new(rows: Vec<Row<'a>>, terms: &'t [Term<'t>], explained: bool) -> Self {
        let ranges: Vec<_> = terms.iter().map(|term| term.range(&rows)).collect();
        let score = |row| {
            let points = terms.iter().zip(&ranges);
            let score: f32 = points.map(|(term, &range)| term.points(row, range)).sum();
            if score.is_nan() {
                f32::NEG_INFINITY
            } else {
                score
            }
        };
        let rows = rows.into_iter().map(|row| (score(row), row)).collect();
        Self {
            rows,
            terms,
            ranges,
            explained,
        }
    }

    /// Each row with its score, in the order of the candidates.
    #[must_use]
    pub fn rows(&self) -> &[(f32, Row<'a>)] {
        &self.rows
    }

    /// Chooses the row of the highest score; none when there is no row.
    #[must_use]
    pub fn best(&self, seed: u32) -> Answer {
        let top = self.top(1, &mut Chance::new(seed));
        self.answer(top.first().map(|best| best.2.slot).into(), top)
    }

    /// Ranks the rows of the highest scores, at most `count` and at most 8.
    #[must_use]
    pub fn ranked(&self, count: usize, seed: u32) -> Answer {
        let count = count.min(RANKED_MAX);
        let top = self.top(count, &mut Chance::new(seed));
        let ranking = Answer::ranked(top.iter().take(count).map(|place| place.2.slot));
        self.answer(ranking, top)
    }

    /// Chooses a row by chance, in proportion to its score; one of a score of 0 or less is only
    /// chosen when there is no other, and then each is as likely as the others.
    #[must_use]
    pub fn weighted(&self, seed: u32) -> Answer {
        let mut chance = Chance::new(seed);
        let positive = self.rows.iter().filter(|(score, _)| *score > 0.0);
        let sum: f64 = positive.clone().map(|(score, _)| f64::from(*score)).sum();
        // Finite sums only: an infinite score is as good as certain.
        let drawn = f64::from(chance.draw()) / f64::from(u32::MAX);
        let mut left = drawn * sum;
        let chosen = positive.clone().find(|(score, _)| {
            left -= f64::from(*score);
            left <= 0.0 || left.is_nan()
        });
        let chosen = chosen.or_else(|| positive.clone().next_back()).or_else(|| {
            let at = (drawn * self.rows.len() as f64) as usize;
            self.rows.get(at.min(self.rows.len().saturating_sub(1)))
        });
        self.choose(chosen.map(|&(score, row)| (score, 0, row)), &mut chance)
    }

    /// Draws `count` rows (at least one) without replacement and chooses the best of them: the power
    /// of two choices and more.
    #[must_use]
    pub fn best_of(mut self, count: usize, seed: u32) -> Answer {
        let mut chance = Chance::new(seed);
        let count = count.max(1).min(self.rows.len());
        for at in 0..count {
            let other = at + chance.below((self.rows.len() - at) as u32) as usize;
            self.rows.swap(at, other);
        }
        self.rows.truncate(count);
        let top = self.top(1, &mut chance);
        self.answer(top.first().map(|best| best.2.slot).into(), top)
    }

    /// Chooses the best of the rows for which `wanted` holds when its score is at most `margin`
    /// below the highest one, and the best of all otherwise.
    #[must_use]
    pub fn best_preferring(
        &self,
        margin: f32,
        mut wanted: impl FnMut(Row<'a>) -> bool,
        seed: u32,
    ) -> Answer {
        let mut chance = Chance::new(seed);
        let best = first(self.rows.iter().copied(), &mut chance);
        let preferred = self.rows.iter().copied().filter(|&(_, row)| wanted(row));
        let preferred = first(preferred, &mut chance);
        let near = |place: &Place<'a>| best.is_some_and(|best| place.0 >= best.0 - margin);
        self.choose(preferred.filter(near).or(best), &mut chance)
    }

    /// Chooses `chosen`, and shows it among the best.
    fn choose(&self, chosen: Option<Place<'a>>, chance: &mut Chance) -> Answer {
        let Some(chosen) = chosen else {
            return Answer::none();
        };
        if !self.explained {
            return Answer::choose(chosen.2.slot);
        }
        let mut top = self.top(0, chance);
        if !top.iter().any(|place| place.2.slot == chosen.2.slot) {
            top.truncate(SCORED_MAX - 1);
            let at = top.partition_point(|place| place.0 >= chosen.0);
            top.insert(at, chosen);
        }
        self.answer(Answer::choose(chosen.2.slot), top)
    }

    /// The places of the highest scores, best first: `count`, and five where they are shown.
    fn top(&self, count: usize, chance: &mut Chance) -> Vec<Place<'a>> {
        let shown = if self.explained { SCORED_MAX } else { 0 };
        top(self.rows.iter().copied(), count.max(shown), chance)
    }

    /// An answer with the terms of the first five of `top`.
    fn answer(&self, answer: Answer, top: Vec<Place<'a>>) -> Answer {
        if !self.explained || answer.verdict == Verdict::None {
            return answer;
        }
        let shown = &top[..top.len().min(SCORED_MAX)];
        let values = shown.iter().flat_map(|&(_, _, row)| {
            let terms = self.terms.iter().zip(&self.ranges);
            terms.map(move |(term, &range)| term.points(row, range))
        });
        answer.with_scores(Scores {
            slots: shown.iter().map(|place| place.2.slot).collect(),
            values: values.collect(),
        })
    }
}

/// The place of the highest score.
fn first<'a>(rows: impl Iterator<Item = (f32, Row<'a>)>, chance: &mut Chance) -> Option<Place<'a>> {
    top(rows, 1, chance).pop()
}

/// The `count` places of the highest scores, best first, by insertion: there are never many.
fn top<'a>(
    rows: impl Iterator<Item = (f32, Row<'a>)>,
    count: usize,
    chance: &mut Chance,
) -> Vec<Place<'a>> {
    let mut top: Vec<Place<'a>> = Vec::with_capacity(count + 1);
    for (score, row) in rows {
        // Drawn for every row, so that the winner does not depend on how many are shown.
        let place = (score, chance.draw(), row);
        let ahead = |other: &Place<'a>| (other.0, other.1) >= (place.0, place.1);
        if top.len() < count || top.last().is_some_and(|last| !ahead(last)) {
            let at = top.iter().take_while(|other| ahead(other)).count();
            top.insert(at, place);
            top.truncate(count);
        }
    }
    top
}

//! The arithmetic of terms, what is unknown, fairness of the picks, and what is shown.

use super::*;
use crate::{Candidates, Scores, Verdict};

const NAN: f32 = f32::NAN;

/// Rows with one column, in slots from 0.
fn rows(values: &[f32]) -> Kept<'_> {
    let rows = values.chunks(1).zip(0..);
    Kept::new(
        rows.map(|(values, slot)| Row { slot, values }).collect(),
        true,
    )
}

fn slots(kept: &Kept<'_>) -> Vec<Slot> {
    kept.rows().iter().map(|row| row.slot).collect()
}

fn scores(scored: &Scored<'_, '_>) -> Vec<f32> {
    scored.rows().iter().map(|(score, _)| *score).collect()
}

#[test]
fn filters_say_what_becomes_of_unknown_values() {
    let values = [3.0, NAN, 1.0, 1.0];
    assert_eq!(slots(&rows(&values).keep(|row| row.value(0) < 2.0)), [2, 3]);
    assert_eq!(
        slots(&rows(&values).keep(|row| row.known(0).is_none_or(|value| value < 2.0))),
        [1, 2, 3]
    );
    assert_eq!(slots(&rows(&values).prefer(|row| row.value(0) > 2.0)), [0]);
    assert_eq!(
        slots(&rows(&values).prefer(|row| row.value(0) > 9.0)),
        [0, 1, 2, 3]
    );
    assert_eq!(slots(&rows(&values).least(|row| row.value(0))), [2, 3]);
    assert_eq!(
        slots(&rows(&values).within(2.0, |row| row.value(0))),
        [0, 2, 3]
    );
    assert_eq!(slots(&rows(&[NAN, NAN]).least(|row| row.value(0))), [0, 1]);
    assert!(rows(&[]).least(|row| row.value(0)).is_empty());
    assert_eq!(rows(&[]).random(1), None);
}

#[test]
fn terms_are_brought_to_their_range() {
    let values = [4.0, 2.0, NAN, 3.0, f32::INFINITY];
    assert_eq!(
        scores(&rows(&values).score(&[low(0)])),
        [0.0, 1.0, 0.0, 0.5, 0.0]
    );
    assert_eq!(
        scores(&rows(&values).score(&[high(0).times(2.0)])),
        [2.0, 0.0, 0.0, 1.0, 0.0]
    );
    let twice = |row: Row<'_>| row.value(0) * 2.0;
    assert_eq!(
        scores(&rows(&values).score(&[scaled(&twice)])),
        [1.0, 0.0, 0.0, 0.5, 0.0]
    );
    let minus = f32::NEG_INFINITY;
    assert_eq!(
        scores(&rows(&values).score(&[given(&twice), flag(0)])),
        [8.0, 4.0, minus, 6.0, f32::INFINITY]
    );
    assert_eq!(
        scores(&rows(&[1.0, 0.0, NAN, 2.0]).score(&[flag(0)])),
        [1.0, 0.0, 0.0, 0.0]
    );
    assert_eq!(
        scores(&rows(&[5.0, 5.0]).score(&[low(0), high(0)])),
        [2.0, 2.0]
    );
    assert_eq!(
        scores(&rows(&[f32::MAX, f32::MIN, 0.0]).score(&[high(0)])),
        [1.0, 0.0, 0.5]
    );
    assert_eq!(scores(&rows(&[1.0, 2.0]).score(&[])), [0.0, 0.0]);
}

#[test]
fn the_best_is_chosen_and_the_terms_are_shown() {
    let values = [4.0, 2.0, 9.0, 3.0, 8.0, NAN, 5.0];
    let terms = [given(&|row| row.value(0)), flag(0)];
    let answer = rows(&values).score(&terms).best(1);
    assert_eq!(answer.verdict, Verdict::Choose(2));
    assert_eq!(answer.scores.slots, [2, 4, 6, 0, 3]);
    assert_eq!(
        answer.scores.values,
        [9.0, 0.0, 8.0, 0.0, 5.0, 0.0, 4.0, 0.0, 3.0, 0.0]
    );
    let ranked = rows(&values).score(&terms).ranked(9, 1);
    assert_eq!(ranked.verdict, Verdict::Ranked(vec![2, 4, 6, 0, 3, 1, 5]));
    assert_eq!(ranked.scores, answer.scores);
    assert_eq!(rows(&values).score(&terms).ranked(1, 1), answer);
    assert_eq!(rows(&[]).score(&terms).best(1), Answer::none());
    assert_eq!(rows(&[]).score(&terms).weighted(1), Answer::none());
    assert_eq!(rows(&[]).score(&terms).best_of(2, 1), Answer::none());
    // A row of which nothing is known is chosen when there is no other.
    assert_eq!(
        rows(&[NAN]).score(&terms).best(1).verdict,
        Verdict::Choose(0)
    );
}

#[test]
fn nothing_is_shown_where_no_term_is_declared() {
    let (slots, values) = ([0, 1, 2], [1.0, 2.0, 3.0]);
    let nodes = Candidates::new(&slots, &values, 1).unwrap();
    for seed in 0..50 {
        let shown = nodes.explained(true).all().score(&[high(0)]).best(seed);
        let hidden = nodes.all().score(&[high(0)]).best(seed);
        assert_eq!(hidden.verdict, shown.verdict);
        assert_eq!(
            (hidden.scores, shown.scores.slots.len()),
            (Scores::none(), 3)
        );
    }
}

/// How often each of the rows is chosen in 10,000 decisions.
fn tally(count: usize, choose: impl Fn(u32) -> Answer) -> Vec<u32> {
    let mut tally = vec![0; count];
    for seed in 0..10_000 {
        let answer = choose(seed);
        let Verdict::Choose(slot) = answer.verdict else {
            panic!("{answer:?}");
        };
        let shown = &answer.scores.slots;
        assert!(shown.is_empty() || shown.contains(&slot), "{answer:?}");
        tally[slot as usize] += 1;
    }
    tally
}

#[test]
fn ties_are_fair() {
    let values = [1.0; 4];
    let terms = [low(0)];
    // 2,500 each, give or take four standard deviations (43).
    let fair = |tally: Vec<u32>| tally.iter().all(|count| count.abs_diff(2_500) < 173);
    assert!(fair(tally(4, |seed| rows(&values)
        .score(&terms)
        .best(seed))));
    assert!(fair(tally(4, |seed| rows(&values)
        .score(&terms)
        .best_of(2, seed))));
    assert!(fair(tally(4, |seed| rows(&values)
        .score(&terms)
        .weighted(seed))));
    assert!(fair(tally(4, |seed| rows(&values)
        .random(seed)
        .unwrap()
        .into())));
}

#[test]
fn chance_is_in_proportion_to_the_score() {
    let values = [3.0, 0.0, -5.0, NAN, 1.0, 0.5, 0.25, 0.25];
    let terms = [given(&|row| row.value(0))];
    let counts = tally(8, |seed| rows(&values).score(&terms).weighted(seed));
    // Six tenths, two, one and twice half a tenth; four standard deviations are below 200.
    for (count, expected) in counts.iter().zip([6_000, 0, 0, 0, 2_000, 1_000, 500, 500]) {
        assert!(
            count.abs_diff(expected) < 200 && (expected > 0 || *count == 0),
            "{counts:?}"
        );
    }
    let none = [-1.0, 0.0, NAN];
    let counts = tally(3, |seed| rows(&none).score(&terms).weighted(seed));
    assert!(
        counts.iter().all(|count| count.abs_diff(3_333) < 200),
        "{counts:?}"
    );
}

#[test]
fn the_best_of_two_is_the_best_of_them() {
    let values = [0.0, 1.0, 2.0, 3.0];
    let terms = [high(0)];
    let counts = tally(4, |seed| rows(&values).score(&terms).best_of(2, seed));
    // Of the six pairs the fourth wins three, the third two, the second one.
    for (count, expected) in counts.iter().zip([0, 1_667, 3_333, 5_000]) {
        assert!(count.abs_diff(expected) < 200, "{counts:?}");
    }
    let all = |seed| rows(&values).score(&terms).best_of(9, seed);
    assert_eq!(tally(4, all), [0, 0, 0, 10_000]);
}

#[test]
fn a_margin_keeps_the_preferred_near() {
    let values = [10.0, 9.0, 7.0];
    let terms = [given(&|row| row.value(0))];
    let choose = |margin, slot| {
        let answer = rows(&values)
            .score(&terms)
            .best_preferring(margin, |row| row.slot == slot, 1);
        answer.verdict
    };
    assert_eq!(choose(1.0, 1), Verdict::Choose(1));
    assert_eq!(choose(0.5, 1), Verdict::Choose(0));
    assert_eq!(choose(1.0, 2), Verdict::Choose(0));
    assert_eq!(choose(1.0, 9), Verdict::Choose(0));
}

#[test]
fn criteria_count_in_their_order() {
    let values = [3.0, 1.0, 1.0, NAN, 2.0, 9.0, 1.0];
    let even = |row: Row<'_>| (row.slot % 2) as f32;
    let terms = [low(0), given(&even).times(-1.0)];
    let answer = rows(&values).in_order(&terms, 1);
    assert!(
        matches!(answer.verdict, Verdict::Choose(2 | 6)),
        "{answer:?}"
    );
    assert_eq!(answer.scores.slots[2..], [1, 4, 0]);
    assert_eq!(
        answer.scores.values,
        [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 2.0, 0.0, 3.0, 0.0]
    );
    // 5,000 each, give or take four standard deviations (50).
    let counts = tally(7, |seed| rows(&values).in_order(&terms, seed));
    assert!(
        counts[2].abs_diff(5_000) < 200 && counts[2] + counts[6] == 10_000,
        "{counts:?}"
    );
    assert_eq!(rows(&[NAN]).in_order(&terms, 1).verdict, Verdict::Choose(0));
    assert_eq!(rows(&[]).in_order(&terms, 1), Answer::none());
}

//! The search itself, on plain registers.

use std::collections::BTreeMap;

use maitred_registry::random::Random;
use maitred_tests::linear::register::{Action, Register};
use maitred_tests::linear::{Limit, Model, Operation, Verdict, Violation, check};

use Action::{Read, Swap, Write};

fn verdict(operations: &[(u64, Option<u64>, Action)], limit: Limit) -> Verdict {
    let operations = operations.iter().zip(0..);
    let operations = operations.map(|((invoked, returned, action), call)| Operation {
        call,
        caller: call,
        invoked: *invoked,
        returned: *returned,
        required: returned.is_some(),
        action: *action,
    });
    check(
        &Register,
        BTreeMap::from([(7, operations.collect())]),
        limit,
    )
}

fn holds(operations: &[(u64, Option<u64>, Action)]) {
    verdict(operations, Limit::default()).assert();
}

fn violation(operations: &[(u64, Option<u64>, Action)]) -> Violation {
    match verdict(operations, Limit::default()) {
        Verdict::Violation(violation) => violation,
        other => panic!("{other}"),
    }
}

#[test]
fn what_overlaps_may_have_come_in_any_order() {
    holds(&[]);
    holds(&[
        (0, Some(10), Write(1)),
        (5, Some(15), Write(2)),
        (20, Some(30), Read(1)),
    ]);
    holds(&[
        (0, Some(10), Write(1)),
        (5, Some(15), Write(2)),
        (20, Some(30), Read(2)),
    ]);
    holds(&[
        (0, Some(10), Write(1)),
        (5, Some(6), Read(1)),
        (5, Some(6), Read(0)),
    ]);
    // One returns at the microsecond in which the other begins: nobody knows which was first.
    holds(&[(0, Some(10), Write(1)), (10, Some(20), Read(0))]);
}

#[test]
fn a_stale_read_is_caught_and_explained() {
    let violation = violation(&[
        (0, Some(10), Write(1)),
        (20, Some(30), Write(2)),
        (40, Some(50), Read(1)),
        (60, Some(70), Read(2)),
    ]);
    let expected = "\
7 is not linearizable: the first 3 of 4 calls have no order (times in ms)
     0.000      0.010  c0    write 1    |------|
     0.020      0.030  c1    write 2                 |-------|
     0.040      0.050  c2    read -> 1                            |-------|
The longest order that holds leaves: 2
None of these, one of which must come next, goes with that:
       0.040      0.050  c2    read -> 1
";
    assert_eq!(violation.text, expected);
}

#[test]
fn reads_that_see_a_write_and_then_do_not_are_caught() {
    violation(&[
        (0, Some(90), Write(1)),
        (10, Some(20), Read(1)),
        (30, Some(40), Read(0)),
    ]);
}

#[test]
fn an_update_that_is_lost_is_caught() {
    violation(&[(0, Some(10), Swap(0, 1)), (5, Some(15), Swap(0, 2))]);
}

#[test]
fn what_may_have_happened_happens_late_or_never_but_not_early() {
    holds(&[
        (0, None, Write(1)),
        (10, Some(20), Read(0)),
        (30, Some(40), Read(1)),
    ]);
    holds(&[
        (0, None, Write(1)),
        (10, Some(20), Read(0)),
        (30, Some(40), Read(0)),
    ]);
    violation(&[(0, Some(5), Read(1)), (10, None, Write(1))]);
    // Once, not twice.
    violation(&[
        (0, None, Write(1)),
        (10, Some(20), Read(1)),
        (30, Some(40), Write(2)),
        (50, Some(60), Read(1)),
    ]);
}

#[test]
fn a_window_that_is_over_is_over() {
    let history = |read: u64| {
        let operation = |call, invoked, returned, required, action| Operation {
            call,
            caller: call,
            invoked,
            returned: Some(returned),
            required,
            action,
        };
        let operations = vec![
            operation(0, 0, 100, false, Write(1)),
            operation(1, read, read + 10, true, Read(0)),
            operation(2, read + 20, read + 30, true, Read(1)),
        ];
        check(
            &Register,
            BTreeMap::from([(7, operations)]),
            Limit::default(),
        )
    };
    history(70).assert();
    assert!(matches!(history(101), Verdict::Violation(_)));
}

#[test]
fn forty_lost_writes_do_not_explode_and_a_limit_is_a_limit() {
    // Nobody read them, or they are all alike.
    let mut history: Vec<_> = (0..40).map(|at| (at, None, Write(100 + at))).collect();
    history.extend((0..40).map(|at| (at, None, Write(1))));
    history.extend([(50, Some(60), Read(1)), (70, Some(80), Read(2))]);
    assert_eq!(violation(&history).calls, 42);

    // Each was read, and nothing tells their order.
    let mut history: Vec<_> = (0..40).map(|at| (0, Some(90), Write(1 + at))).collect();
    history.extend((0..40).map(|at| (0, Some(90), Read(1 + at))));
    history.push((100, Some(110), Read(99)));
    let verdict = verdict(&history, Limit { steps: 20_000 });
    assert!(
        matches!(verdict, Verdict::GaveUp { steps: 20_000, .. }),
        "{verdict}"
    );
}

#[test]
fn long_histories_take_few_steps() {
    let pairs = (0..20_000).flat_map(|at| {
        let time = at * 10;
        [
            (time, Some(time + 12), Write(at)),
            (time + 5, Some(time + 12), Read(at)),
        ]
    });
    let pairs: Vec<_> = pairs.collect();
    match verdict(&pairs, Limit::default()) {
        Verdict::Linearizable { operations, steps } => {
            assert_eq!(operations, 40_000);
            assert!(steps < 200_000, "{steps} steps");
        }
        other => panic!("{other}"),
    }
}

/// Whether there is an order, by trying all of them.
fn brute(left: &[Operation<Action>], state: u64, latest: u64) -> bool {
    let mut required = left.iter().filter(|operation| operation.required);
    let done = required.clone().next().is_none();
    let deadline = required.by_ref().filter_map(|operation| operation.returned);
    let deadline = deadline.min().unwrap_or(u64::MAX);
    done || (0..left.len()).any(|at| {
        let mut left = left.to_vec();
        let next = left.remove(at);
        let in_time = next.invoked <= deadline && next.returned.is_none_or(|end| end >= latest);
        let state = in_time.then(|| Register.step(&state, &next.action));
        let latest = latest.max(next.invoked);
        state
            .flatten()
            .is_some_and(|state| brute(&left, state, latest))
    })
}

#[test]
fn small_histories_have_the_verdict_of_brute_force() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..6_000 {
        let mut random = Random::new(seed);
        let mut below = |bound| u64::from(random.below(bound));
        let operations = (0..3 + below(4)).map(|call| {
            let invoked = below(12);
            let required = below(4) > 0;
            let endless = !required && below(2) == 0;
            Operation {
                call,
                caller: call,
                invoked,
                returned: (!endless).then(|| invoked + below(8)),
                required,
                action: match below(4) {
                    0 => Write(below(3)),
                    1 => Swap(below(3), below(3)),
                    _ => Read(below(3)),
                },
            }
        });
        let operations: Vec<_> = operations.collect();
        let holds = brute(&operations, 0, 0);
        let history = BTreeMap::from([(7, operations)]);
        let verdict = check(&Register, history, Limit::default());
        assert_eq!(
            matches!(verdict, Verdict::Linearizable { .. }),
            holds,
            "seed {seed}: {verdict}"
        );
        good += u32::from(holds);
        bad += u32::from(!holds);
    }
    assert!(good > 1_000 && bad > 1_000, "{good} good, {bad} bad");
}

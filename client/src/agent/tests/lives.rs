//! Starts and stops of processes: which are carried out, and what is answered.

use super::*;
use crate::agent::command::LATE;

#[test]
fn a_lower_incarnation_is_refused_whatever_became_of_the_higher_one() {
    let mut bench = Bench::serving();
    bench.run("a", 20);
    let fenced = |tag| [Effect::Answer(tag, NodeAnswer::Fenced)];
    assert_eq!(bench.start(1, 1, "a", 19), fenced(1));
    assert_eq!(
        bench.step(Input::Exited(key("a"), inc(20))),
        [Effect::Delete(key("a"), inc(20))]
    );
    assert_eq!(bench.start(2, 1, "a", 19), fenced(2));
    assert_eq!(bench.start(3, 1, "a", 20), fenced(3));
    assert_eq!(bench.start(4, 1, "a", 21), [spawn("a", 21)]);
}

#[test]
fn the_same_incarnation_is_answered_the_same_and_started_once() {
    let mut bench = Bench::serving();
    assert_eq!(bench.start(1, 1, "a", 5), [spawn("a", 5)]);
    // Asked again while the first start is still under way: one start, both are answered.
    assert_eq!(bench.start(2, 1, "a", 5), []);
    assert_eq!(
        bench.spawn_ended("a", 5, spawned("p")),
        [
            Effect::Answer(1, started("p")),
            Effect::Answer(2, started("p"))
        ]
    );
    assert_eq!(bench.start(3, 1, "a", 5), [Effect::Answer(3, started("p"))]);
    // And a failure stays the failure that it was.
    assert_eq!(bench.start(4, 1, "b", 6), [spawn("b", 6)]);
    let failed = NodeAnswer::Failed("no".to_owned());
    let error = SpawnError::Failed("no".to_owned());
    assert_eq!(
        bench.spawn_ended("b", 6, Err(error)),
        [Effect::Answer(4, failed.clone())]
    );
    assert_eq!(bench.start(5, 1, "b", 6), [Effect::Answer(5, failed)]);
}

#[test]
fn a_tombstone_that_comes_first_is_honoured() {
    let mut bench = Bench::serving();
    let stopped = Effect::Answer(1, NodeAnswer::Stopped);
    assert_eq!(bench.stop(1, 1, "a", 7), [stopped]);
    let fenced = |tag| [Effect::Answer(tag, NodeAnswer::Fenced)];
    assert_eq!(bench.start(2, 1, "a", 7), fenced(2));
    assert_eq!(bench.start(3, 1, "a", 6), fenced(3));
    assert_eq!(bench.start(4, 1, "a", 8), [spawn("a", 8)]);
}

#[test]
fn a_start_that_is_cancelled_is_stopped_once_it_has_started_and_never_answered_as_started() {
    let mut bench = Bench::serving();
    assert_eq!(bench.start(1, 1, "a", 5), [spawn("a", 5)]);
    assert_eq!(bench.stop(2, 1, "a", 5), []);
    assert_eq!(
        bench.start(3, 1, "a", 5),
        [Effect::Answer(3, NodeAnswer::Fenced)]
    );
    assert_eq!(
        bench.spawn_ended("a", 5, spawned("p")),
        [Effect::Answer(1, NodeAnswer::Fenced), stop_effect("a", 5)]
    );
    assert_eq!(
        bench.stop_ended("a", 5),
        [Effect::Answer(2, NodeAnswer::Stopped)]
    );
    assert_eq!(
        bench.start(4, 1, "a", 5),
        [Effect::Answer(4, NodeAnswer::Fenced)]
    );
}

#[test]
fn a_newer_life_begins_only_after_the_older_one_has_ended() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    assert_eq!(bench.start(1, 1, "a", 8), [stop_effect("a", 5)]);
    // Of two that wait, the higher one stays.
    assert_eq!(
        bench.start(2, 1, "a", 9),
        [Effect::Answer(1, NodeAnswer::Fenced)]
    );
    assert_eq!(bench.stop_ended("a", 5), [spawn("a", 9)]);
    assert_eq!(
        bench.spawn_ended("a", 9, spawned("p")),
        [Effect::Answer(2, started("p"))]
    );
    // A late end of the older life changes nothing.
    assert_eq!(bench.stop_ended("a", 5), []);
    assert_eq!(bench.step(Input::Exited(key("a"), inc(5))), []);
    assert_eq!(bench.agent.running_incarnation(&key("a")), Some(inc(9)));
}

#[test]
fn a_stop_covers_the_life_that_waits() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    assert_eq!(bench.start(1, 1, "a", 8), [stop_effect("a", 5)]);
    assert_eq!(
        bench.stop(2, 1, "a", 8),
        [Effect::Answer(1, NodeAnswer::Fenced)]
    );
    assert_eq!(
        bench.stop_ended("a", 5),
        [Effect::Answer(2, NodeAnswer::Stopped)]
    );
    assert_eq!(
        bench.start(3, 1, "a", 8),
        [Effect::Answer(3, NodeAnswer::Fenced)]
    );
}

#[test]
fn a_lower_term_is_refused() {
    let mut bench = Bench::serving();
    assert_eq!(bench.start(1, 4, "a", 5), [spawn("a", 5)]);
    let fenced = |tag| [Effect::Answer(tag, NodeAnswer::Fenced)];
    assert_eq!(bench.start(2, 3, "b", 6), fenced(2));
    assert_eq!(bench.stop(3, 3, "a", 5), fenced(3));
    // What the old leader wanted stopped still runs.
    let running = Effect::Answer(1, started("p"));
    assert_eq!(bench.spawn_ended("a", 5, spawned("p")), [running]);
}

#[test]
fn an_answer_that_is_too_long_is_a_failure_and_is_stopped() {
    let mut bench = Bench::serving();
    bench.start(1, 1, "a", 5);
    let too_long = spawned(&"x".repeat(PID_BYTES_MAX + 1));
    assert_eq!(bench.spawn_ended("a", 5, too_long), [stop_effect("a", 5)]);
    // A failure says that nothing runs, so it is told when nothing does.
    for (tag, effects) in [
        (1, bench.stop_ended("a", 5)),
        (2, bench.start(2, 1, "a", 5)),
    ] {
        let [Effect::Answer(answered, NodeAnswer::Failed(why))] = &effects[..] else {
            panic!("{effects:?}");
        };
        assert_eq!(*answered, tag);
        assert!(why.contains("pid"), "{why}");
    }
}

#[test]
fn nobody_hears_that_a_start_came_to_nothing_while_it_is_under_way() {
    let mut bench = Bench::serving();
    assert_eq!(bench.start(1, 1, "a", 5), [spawn("a", 5)]);
    for tag in 2..=8 {
        assert_eq!(bench.start(tag, 1, "a", 5), []);
    }
    // Of many that wait for the same start the oldest is let go: it may run all the same.
    assert_eq!(
        bench.start(9, 1, "a", 5),
        [Effect::Answer(1, NodeAnswer::Fenced)]
    );
    let effects = bench.spawn_ended("a", 5, spawned("a"));
    let expected: Vec<_> = (2..=9)
        .map(|tag| Effect::Answer(tag, started("a")))
        .collect();
    assert_eq!(effects, expected);
}

#[test]
fn a_start_that_waited_too_long_for_the_life_before_is_not_begun() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    assert_eq!(bench.start(1, 1, "a", 8), [stop_effect("a", 5)]);
    bench.now = 200_000;
    let spawned_late = Effect::Spawn {
        key: key("a"),
        incarnation: inc(8),
        payload: b"hi".to_vec(),
        deadline_ms: 300,
    };
    assert_eq!(bench.stop_ended("a", 5), [spawned_late]);
    bench.run("b", 6);
    assert_eq!(bench.start(2, 1, "b", 9), [stop_effect("b", 6)]);
    bench.now += 500_001;
    assert_eq!(
        bench.stop_ended("b", 6),
        [Effect::Answer(2, NodeAnswer::Busy(LATE.to_owned()))]
    );
    // Whoever heard that counts on it: asked again, the node says the same.
    let same = Effect::Answer(3, NodeAnswer::Busy(LATE.to_owned()));
    assert_eq!(bench.start(3, 1, "b", 9), [same]);
    assert_eq!(bench.start(4, 1, "b", 10), [spawn("b", 10)]);
}

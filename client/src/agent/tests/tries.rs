//! Starts that came to nothing and are tried again on the same node, and ends that are told with a
//! reason.

use super::*;

fn busy(why: &str) -> NodeAnswer {
    NodeAnswer::Busy(why.to_owned())
}

/// Has try `n` of life 5 of `a` begin, and fail.
fn fails(bench: &mut Bench, n: u32) {
    let effects = bench.start_try((u64::from(n), n), 1, "a", 5);
    assert_eq!(effects, [spawn("a", 5)], "try {n}");
    let why = format!("try {n}");
    assert_eq!(
        bench.spawn_ended("a", 5, Err(SpawnError::Busy(why.clone()))),
        [Effect::Answer(u64::from(n), busy(&why))]
    );
}

#[test]
fn a_later_try_begins_and_an_earlier_or_the_same_one_does_not() {
    let mut bench = Bench::serving();
    fails(&mut bench, 1);
    let again = bench.start_try((7, 1), 1, "a", 5);
    assert_eq!(again, [Effect::Answer(7, busy("try 1"))]);
    fails(&mut bench, 3);
    // What was on its way for long, and a run that a new leader has begun anew, hear what was said last.
    for (tag, earlier) in [(8, 2), (9, 3), (10, 1)] {
        let told = bench.start_try((tag, earlier), 2, "a", 5);
        assert_eq!(told, [Effect::Answer(tag, busy("try 3"))]);
    }
    assert_eq!(bench.start_try((11, 4), 2, "a", 5), [spawn("a", 5)]);
    assert_eq!(
        bench.spawn_ended("a", 5, spawned("p")),
        [Effect::Answer(11, started("p"))]
    );
    for (tag, any) in [(12, 1), (13, 4), (14, 9)] {
        let told = bench.start_try((tag, any), 2, "a", 5);
        assert_eq!(told, [Effect::Answer(tag, started("p"))]);
    }
}

#[test]
fn a_try_that_comes_while_another_is_under_way_shares_its_end() {
    let mut bench = Bench::serving();
    assert_eq!(bench.start_try((1, 1), 1, "a", 5), [spawn("a", 5)]);
    assert_eq!(bench.start_try((2, 2), 1, "a", 5), []);
    let no = || busy("no");
    assert_eq!(
        bench.spawn_ended("a", 5, Err(SpawnError::Busy("no".to_owned()))),
        [Effect::Answer(1, no()), Effect::Answer(2, no())]
    );
    let told = bench.start_try((3, 2), 1, "a", 5);
    assert_eq!(told, [Effect::Answer(3, no())]);
    assert_eq!(bench.start_try((4, 3), 1, "a", 5), [spawn("a", 5)]);
}

#[test]
fn no_try_begins_what_was_stopped_has_ended_or_is_of_an_older_life_or_term() {
    let fenced = |tag| [Effect::Answer(tag, NodeAnswer::Fenced)];
    let mut bench = Bench::serving();
    // A tombstone after a no: whoever is told that it has stopped counts on it.
    fails(&mut bench, 1);
    assert_eq!(
        bench.stop(2, 1, "a", 5),
        [Effect::Answer(2, NodeAnswer::Stopped)]
    );
    let told = bench.start_try((3, 2), 1, "a", 5);
    assert_eq!(told, [Effect::Answer(3, busy("try 1"))]);
    // One that comes first.
    assert_eq!(
        bench.stop(4, 1, "b", 6),
        [Effect::Answer(4, NodeAnswer::Stopped)]
    );
    assert_eq!(bench.start_try((5, 2), 1, "b", 6), fenced(5));
    // One that ran.
    bench.run("c", 7);
    bench.step(Input::Exited(key("c"), inc(7)));
    assert_eq!(bench.start_try((8, 2), 1, "c", 7), fenced(8));
    // A newer life, and a newer leader.
    bench.start_try((9, 1), 3, "a", 8);
    bench.spawn_ended("a", 8, Err(SpawnError::Failed("no".to_owned())));
    assert_eq!(bench.start_try((10, 2), 3, "a", 5), fenced(10));
    assert_eq!(bench.start_try((11, 2), 2, "a", 8), fenced(11));
    assert_eq!(bench.start_try((12, 2), 3, "a", 8), [spawn("a", 8)]);
}

#[test]
fn a_stop_that_comes_while_it_starts_ends_the_tries_however_the_start_ends() {
    for result in [Err(SpawnError::Failed("no".to_owned())), spawned("p")] {
        let mut bench = Bench::serving();
        assert_eq!(bench.start_try((1, 1), 1, "a", 5), [spawn("a", 5)]);
        assert_eq!(bench.stop(2, 1, "a", 5), []);
        bench.spawn_ended("a", 5, result);
        bench.stop_ended("a", 5);
        let told = bench.start_try((3, 2), 1, "a", 5);
        assert_eq!(told, [Effect::Answer(3, NodeAnswer::Fenced)]);
    }
    // Also one that had ended before its start did, which is answered as a failure.
    let mut bench = Bench::serving();
    assert_eq!(bench.start_try((1, 1), 1, "a", 5), [spawn("a", 5)]);
    assert_eq!(bench.step(Input::Exited(key("a"), inc(5))), []);
    assert_eq!(bench.stop(2, 1, "a", 5), []);
    let answers = bench.spawn_ended("a", 5, spawned("p"));
    assert_eq!(answers[1], Effect::Answer(2, NodeAnswer::Stopped));
    assert!(matches!(
        bench.start_try((3, 2), 1, "a", 5)[..],
        [Effect::Answer(3, NodeAnswer::Failed(_))]
    ));
}

#[test]
fn a_node_that_would_start_nothing_just_now_may_start_it_at_a_later_try() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    // The next life of it waits for this one to end, and for too long.
    assert_eq!(bench.start_try((6, 1), 1, "a", 6), [stop_effect("a", 5)]);
    bench.now = 600_000;
    let effects = bench.stop_ended("a", 5);
    let late = effects
        .iter()
        .any(|effect| matches!(effect, Effect::Answer(6, NodeAnswer::Busy(_))));
    assert!(late, "{effects:?}");
    assert_eq!(bench.start_try((7, 2), 1, "a", 6), [spawn("a", 6)]);
}

#[test]
fn an_end_with_a_reason_is_told_once_and_cut() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    let reason = "é".repeat(300);
    let ended = Input::ExitedBecause(key("a"), inc(5), reason);
    let told = Effect::Report(key("a"), inc(5), "é".repeat(256));
    assert_eq!(bench.step(ended.clone()), [told]);
    assert_eq!(bench.step(ended), []);
    assert_eq!(
        bench.start(6, 1, "a", 5),
        [Effect::Answer(6, NodeAnswer::Fenced)]
    );
    // One that is being stopped ends as it was to: nobody is asked.
    bench.run("b", 7);
    assert_eq!(bench.stop(8, 1, "b", 7), [stop_effect("b", 7)]);
    let ended = Input::ExitedBecause(key("b"), inc(7), "crash".to_owned());
    assert_eq!(bench.step(ended), [Effect::Answer(8, NodeAnswer::Stopped)]);
}

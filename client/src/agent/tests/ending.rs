//! How long stops take, and by when everything must be gone.

use super::*;

fn kill_by(bench: &Bench) -> Option<u64> {
    bench.agent.kill_by_us()
}

/// The longest stop that the next keep-alive tells of.
fn told(bench: &mut Bench) -> u32 {
    bench.now = bench.agent.next_us();
    let effects = bench.step(Input::Tick);
    let told = effects.iter().find_map(|effect| match effect {
        Effect::KeepAlive { stop_ms, .. } => Some(*stop_ms),
        _ => None,
    });
    told.unwrap_or_else(|| panic!("{effects:?}"))
}

#[test]
fn after_the_lease_and_the_kill_bound_everything_must_be_gone() {
    let mut bench = Bench::serving();
    assert_eq!(kill_by(&bench), None, "nothing runs");
    assert_eq!(bench.start(1, 1, "a", 5), [spawn("a", 5)]);
    assert_eq!(kill_by(&bench), Some(SAFE + KILL_BOUND), "it may run");
    bench.spawn_ended("a", 5, spawned("a"));
    bench.run("b", 6);
    bench.now = 2_000_000;
    bench.step(Input::Tick);
    bench.ack(2, true);
    let gone_by = bench.now + SAFE + KILL_BOUND;
    assert_eq!(kill_by(&bench), Some(gone_by), "the lease goes on");
    // The node was stuck, and the deadline is not counted from when it noticed.
    bench.now = gone_by - 1;
    let effects = bench.step(Input::Tick);
    let stops = [Effect::LeaseLost, stop_effect("a", 5), stop_effect("b", 6)];
    assert_eq!(effects, stops);
    assert_eq!(kill_by(&bench), Some(gone_by));
    bench.stop_ended("a", 5);
    assert_eq!(kill_by(&bench), Some(gone_by), "one is left");
    bench.stop_ended("b", 6);
    assert_eq!(kill_by(&bench), None);
}

#[test]
fn a_session_that_is_ended_early_must_be_gone_early() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    assert_eq!(bench.start(1, 1, "b", 6), [spawn("b", 6)]);
    bench.now = 1_000_000;
    bench.ack(1, false);
    assert_eq!(kill_by(&bench), Some(1_000_000 + KILL_BOUND));
    bench.stop_ended("a", 5);
    // A start that was under way counts until it has failed, or been stopped.
    assert_eq!(kill_by(&bench), Some(1_000_000 + KILL_BOUND));
    bench.spawn_ended("b", 6, spawned("b"));
    assert_eq!(kill_by(&bench), Some(1_000_000 + KILL_BOUND));
    bench.stop_ended("b", 6);
    assert_eq!(kill_by(&bench), None);
}

#[test]
fn what_an_old_session_has_left_is_not_forgiven_by_a_new_one() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.ack(1, false);
    bench.now = bench.agent.next_us();
    let (number, ..) = enrolment(&bench.step(Input::Tick));
    bench.enrolled(number, 9, &[Verdict::Stop], bench.now);
    bench.run("b", 10);
    assert_eq!(kill_by(&bench), Some(KILL_BOUND));
    bench.stop_ended("a", 5);
    let until_us = bench.agent.lease_until_us();
    assert_eq!(kill_by(&bench), Some(until_us + KILL_BOUND));
}

#[test]
fn a_start_whose_place_another_life_has_taken_counts_until_it_is_over() {
    let mut bench = Bench::serving();
    assert_eq!(bench.start(1, 1, "a", 5), [spawn("a", 5)]);
    bench.step(owned(1, "a", 9));
    bench.step(Input::Exited(key("a"), inc(9)));
    assert_eq!(kill_by(&bench), Some(SAFE + KILL_BOUND));
    // It is named when the node attaches, for it may run.
    let effects = bench.step(Input::Disconnected);
    let attach = Effect::Enroll {
        number: 2,
        epoch: Some(NodeEpoch(1)),
        last_epoch: Some(NodeEpoch(1)),
        inventory: vec![(key("a"), inc(5))],
    };
    assert_eq!(effects, [attach]);
    let error = SpawnError::Failed("no".to_owned());
    bench.spawn_ended("a", 5, Err(error));
    assert_eq!(kill_by(&bench), None);
}

/// What a lost session leaves to be stopped is what others wait for; it ends in the next one.
#[test]
fn a_stop_that_a_lost_session_left_is_told_in_the_next() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.ack(1, false);
    bench.now += 3_000_000;
    let (number, ..) = enrolment(&bench.step(Input::StopEnded(key("a"), inc(5))));
    let effects = bench.enrolled(number, 9, &[], bench.now);
    let told = effects.iter().find_map(|effect| match effect {
        Effect::KeepAlive { stop_ms, .. } => Some(*stop_ms),
        _ => None,
    });
    assert_eq!(told, Some(3_000));
}

#[test]
fn the_longest_stop_is_told() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.run("b", 6);
    bench.run("c", 7);
    bench.stop(1, 1, "a", 5);
    bench.now = 300_001;
    bench.stop_ended("a", 5);
    bench.stop(2, 1, "b", 6);
    bench.now += 20_000;
    bench.stop_ended("b", 6);
    assert_eq!(told(&mut bench), 301, "rounded up");
    // One that hangs is told before it has ended.
    bench.stop(3, 1, "c", 7);
    let began_us = bench.now;
    bench.ack(2, true);
    assert_eq!(told(&mut bench), 2_000);
    assert_eq!(bench.now, began_us + 2_000_000);
    // What has ended by itself has ended.
    bench.step(Input::Exited(key("c"), inc(7)));
    bench.ack(3, true);
    assert_eq!(told(&mut bench), 2_000);
}

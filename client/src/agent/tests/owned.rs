//! Processes that the game began by itself.

use super::*;

#[test]
fn a_process_registered_under_a_lost_session_is_stopped() {
    let mut bench = Bench::serving();
    let owned = |epoch, id, n| {
        let spawned = Spawned::default();
        Input::Owned(NodeEpoch(epoch), key(id), inc(n), spawned)
    };
    assert_eq!(bench.step(owned(1, "a", 5)), []);
    assert_eq!(bench.agent.running_incarnation(&key("a")), Some(inc(5)));
    assert_eq!(bench.step(owned(0, "b", 6)), [stop_effect("b", 6)]);
    assert_eq!(bench.agent.running_incarnation(&key("b")), None);
}

#[test]
fn what_was_told_to_stop_while_it_was_being_registered_is_stopped_once() {
    let owned = |epoch, id, n| {
        let spawned = Spawned::default();
        Input::Owned(NodeEpoch(epoch), key(id), inc(n), spawned)
    };
    // An update of a process was under way when the lease was lost.
    let mut bench = Bench::serving();
    bench.run("a", 5);
    let lost = bench.ack(1, false);
    assert!(lost.contains(&stop_effect("a", 5)), "{lost:?}");
    assert_eq!(bench.step(owned(1, "a", 5)), []);
    // It was removed from the registry before the node knew that it was there.
    let mut bench = Bench::serving();
    assert_eq!(
        bench.stop(1, 1, "b", 7),
        [Effect::Answer(1, NodeAnswer::Stopped)]
    );
    assert_eq!(bench.step(owned(1, "b", 7)), [stop_effect("b", 7)]);
    assert_eq!(bench.agent.running_incarnation(&key("b")), None);
    // It ended while its pid was being updated.
    bench.run("c", 8);
    bench.step(Input::Exited(key("c"), inc(8)));
    assert_eq!(bench.step(owned(1, "c", 8)), [stop_effect("c", 8)]);
    assert_eq!(bench.agent.running_incarnation(&key("c")), None);
}

#[test]
fn a_life_that_the_node_began_itself_leaves_nobody_waiting_for_the_one_before() {
    let mut bench = Bench::serving();
    assert_eq!(bench.start(1, 1, "a", 5), [spawn("a", 5)]);
    assert_eq!(bench.stop(2, 1, "a", 5), []);
    let owned = Input::Owned(NodeEpoch(1), key("a"), inc(9), Spawned::default());
    assert_eq!(bench.step(owned), [Effect::Answer(1, NodeAnswer::Fenced)]);
    assert_eq!(bench.agent.running_incarnation(&key("a")), Some(inc(9)));
    // It is over only when it has been stopped: until then nobody hears that it is, however asked.
    assert_eq!(bench.stop(3, 1, "a", 5), []);
    assert_eq!(
        bench.spawn_ended("a", 5, spawned("a")),
        [stop_effect("a", 5)]
    );
    let over = [2, 3].map(|tag| Effect::Answer(tag, NodeAnswer::Stopped));
    assert_eq!(bench.stop_ended("a", 5), over);
    // A start that is newer still waits on.
    let mut bench = Bench::serving();
    bench.run("a", 5);
    assert_eq!(bench.start(1, 1, "a", 12), [stop_effect("a", 5)]);
    let owned = Input::Owned(NodeEpoch(1), key("a"), inc(9), Spawned::default());
    assert_eq!(bench.step(owned), [stop_effect("a", 9)]);
    assert_eq!(bench.stop_ended("a", 9), [spawn("a", 12)]);
}

#[test]
fn a_life_that_was_starting_when_the_node_began_its_own_is_stopped_when_it_has_started() {
    let mut bench = Bench::serving();
    assert_eq!(bench.start(1, 1, "a", 5), [spawn("a", 5)]);
    let owned = Input::Owned(NodeEpoch(1), key("a"), inc(9), Spawned::default());
    assert_eq!(bench.step(owned), [Effect::Answer(1, NodeAnswer::Fenced)]);
    assert_eq!(
        bench.spawn_ended("a", 5, spawned("a")),
        [stop_effect("a", 5)]
    );
    assert_eq!(bench.stop_ended("a", 5), []);
    assert_eq!(bench.agent.running_incarnation(&key("a")), Some(inc(9)));
}

#[test]
fn of_two_lives_that_the_node_began_at_the_same_time_the_older_is_stopped() {
    let owned = |n, pid: &str| {
        let spawned = Spawned {
            pid: pid.to_owned(),
            share: Vec::new(),
        };
        Input::Owned(NodeEpoch(1), key("a"), inc(n), spawned)
    };
    let mut bench = Bench::serving();
    assert_eq!(bench.step(owned(5, "one")), []);
    assert_eq!(bench.step(owned(9, "two")), [stop_effect("a", 5)]);
    assert_eq!(bench.agent.running_incarnation(&key("a")), Some(inc(9)));
    assert_eq!(bench.stop_ended("a", 5), []);
    // The same one, registered anew after its record was removed, goes on.
    assert_eq!(bench.step(owned(12, "two")), []);
    assert_eq!(bench.agent.running_incarnation(&key("a")), Some(inc(12)));
}

#[test]
fn a_start_that_came_to_nothing_is_not_said_to_have_failed_while_it_is_stopped() {
    let mut bench = Bench::serving();
    bench.start(1, 1, "a", 5);
    let too_long = spawned(&"x".repeat(PID_BYTES_MAX + 1));
    assert_eq!(bench.spawn_ended("a", 5, too_long), [stop_effect("a", 5)]);
    // Its place is taken before it has stopped.
    let effects = bench.step(owned(1, "a", 9));
    assert_eq!(effects, [Effect::Answer(1, NodeAnswer::Fenced)]);
    assert_eq!(bench.stop_ended("a", 5), []);
}

#[test]
fn a_life_of_a_lost_session_beside_a_newer_one_must_be_gone_in_time_too() {
    let mut bench = Bench::serving();
    let (number, ..) = enrolment(&bench.ack(1, false));
    bench.enrolled(number, 9, &[], bench.now);
    bench.run("a", 12);
    // It was registered in the session before, and its place is taken.
    assert_eq!(bench.step(owned(1, "a", 5)), [stop_effect("a", 5)]);
    assert_eq!(bench.agent.kill_by_us(), Some(bench.now + KILL_BOUND));
    bench.stop_ended("a", 5);
    assert_eq!(bench.agent.kill_by_us(), Some(SAFE + KILL_BOUND));
}

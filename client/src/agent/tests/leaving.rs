//! How a node ends: of its own accord, and when another has taken its name.

use super::*;

#[test]
fn leaving_stops_everything_then_ends_the_session() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    assert_eq!(bench.step(Input::Shutdown), [stop_effect("a", 5)]);
    let busy = NodeAnswer::Busy("the node is shutting down".to_owned());
    assert_eq!(bench.start(1, 1, "b", 6), [Effect::Answer(1, busy)]);
    assert_eq!(
        bench.stop_ended("a", 5),
        [Effect::Leave(Some(NodeEpoch(1)))]
    );
}

#[test]
fn with_something_that_does_not_stop_the_session_is_left_to_run_out() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.run("b", 6);
    let stops = [stop_effect("a", 5), stop_effect("b", 6)];
    assert_eq!(bench.step(Input::Shutdown), stops);
    assert_eq!(bench.stop_ended("b", 6), []);
    bench.now = STOP_GRACE_US - 1;
    let effects = bench.step(Input::Tick);
    let leaves = |effect: &Effect| matches!(effect, Effect::Leave(_));
    assert!(!effects.iter().any(leaves), "{effects:?}");
    bench.now += 1;
    assert_eq!(bench.step(Input::Tick), [Effect::Leave(None)]);
    // A watchdog still has it: it must be gone when the registry may give its key to others.
    assert_eq!(bench.agent.kill_by_us(), Some(SAFE + KILL_BOUND));
    assert_eq!(bench.stop_ended("a", 5), []);
    assert_eq!(bench.agent.kill_by_us(), None);
}

#[test]
fn what_is_stopped_beside_a_newer_life_is_waited_for_too() {
    let mut bench = Bench::serving();
    bench.step(owned(1, "a", 5));
    let other = Spawned {
        pid: "other".to_owned(),
        share: Vec::new(),
    };
    let newer = Input::Owned(NodeEpoch(1), key("a"), inc(9), other);
    assert_eq!(bench.step(newer), [stop_effect("a", 5)]);
    assert_eq!(bench.step(Input::Shutdown), [stop_effect("a", 9)]);
    assert_eq!(bench.stop_ended("a", 9), []);
    assert_eq!(
        bench.stop_ended("a", 5),
        [Effect::Leave(Some(NodeEpoch(1)))]
    );
}

#[test]
fn a_kill_bound_above_the_grace_is_waited_for() {
    let mut bench = Bench::serving();
    bench.agent = Agent::new(TTL, 20_000_000);
    bench.step(Input::Tick);
    bench.enrolled(1, 1, &[], 0);
    bench.run("a", 5);
    bench.ack(1, false);
    bench.now = STOP_GRACE_US;
    assert_eq!(bench.step(Input::Tick), []);
    assert_eq!(bench.agent.next_us(), 20_000_000);
}

#[test]
fn a_node_whose_name_another_has_taken_stops_everything_and_never_comes_back() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.now = 1_000_000;
    let lost = bench.ack(1, false);
    assert_eq!(lost, [Effect::LeaseLost, stop_effect("a", 5)]);
    // It does not stop in time, and the node says so when it registers.
    bench.now = bench.agent.next_us();
    let (number, epoch, last) = enrolment(&bench.step(Input::Tick));
    assert_eq!((epoch, last), (None, Some(NodeEpoch(1))));
    assert_eq!(bench.refused(number, Refused::Superseded), []);
    let busy = NodeAnswer::Busy("the node is shutting down".to_owned());
    assert_eq!(bench.start(1, 1, "b", 20), [Effect::Answer(1, busy)]);
    assert_eq!(bench.stop_ended("a", 5), [Effect::Leave(None)]);
    bench.now += TTL;
    assert_eq!(bench.step(Input::Tick), []);
    assert_eq!(bench.agent.next_us(), u64::MAX);
}

#[test]
fn one_that_learns_so_while_its_lease_holds_is_fenced_first() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.step(Input::Disconnected);
    bench.refused(2, Refused::Forgotten);
    assert_eq!(
        bench.refused(3, Refused::Superseded),
        [Effect::LeaseLost, stop_effect("a", 5)]
    );
    assert_eq!(bench.stop_ended("a", 5), [Effect::Leave(None)]);
}

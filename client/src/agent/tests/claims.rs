//! What the registry says to an inventory.

use super::*;

#[test]
fn a_process_that_will_not_stop_is_named_when_the_node_registers_anew() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.ack(1, false);
    bench.now = bench.agent.next_us();
    let register = Effect::Enroll {
        number: 2,
        epoch: None,
        last_epoch: Some(NodeEpoch(1)),
        inventory: vec![(key("a"), inc(5))],
    };
    assert_eq!(bench.step(Input::Tick), [register]);
    bench.enrolled(2, 9, &[Verdict::Keep], bench.now);
    // The registry kept it; so it is told when it has ended.
    assert_eq!(bench.stop_ended("a", 5), [Effect::Delete(key("a"), inc(5))]);
}

#[test]
fn a_reconnect_attaches_with_the_inventory_and_obeys_the_verdicts() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.run("b", 6);
    let attach = Effect::Enroll {
        number: 2,
        epoch: Some(NodeEpoch(1)),
        last_epoch: Some(NodeEpoch(1)),
        inventory: vec![(key("a"), inc(5)), (key("b"), inc(6))],
    };
    assert_eq!(bench.step(Input::Disconnected), [attach]);
    let until = bench.agent.lease_until_us();
    bench.now = 1_000_000;
    let verdicts = [Verdict::Stop, Verdict::Keep];
    let effects = bench.enrolled(2, 1, &verdicts, bench.now);
    let expected = [stop_effect("a", 5), keep_alive(1, 2)];
    assert_eq!(effects, expected);
    // Attaching renews nothing.
    assert_eq!(bench.agent.lease_until_us(), until);
    // The registry knows; nothing to delete.
    assert_eq!(bench.stop_ended("a", 5), []);
    let running: Vec<_> = bench.agent.running().collect();
    assert_eq!(running, [(&key("b"), inc(6))]);
}

#[test]
fn what_ends_while_it_is_being_claimed_does_not_stay_in_the_registry() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    assert_eq!(bench.start(1, 1, "b", 6), [spawn("b", 6)]);
    bench.ack(1, false);
    bench.now = bench.agent.next_us();
    bench.step(Input::Tick);
    // Both are over before the answer comes that the registry counts on them.
    assert_eq!(bench.stop_ended("a", 5), []);
    let error = SpawnError::Failed("no".to_owned());
    bench.spawn_ended("b", 6, Err(error));
    let effects = bench.enrolled(2, 9, &[Verdict::Keep, Verdict::Keep], bench.now);
    let deleted: Vec<_> = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Delete(..)))
        .collect();
    // The start that failed has not been answered over this connection: the host asks again.
    assert_eq!(deleted, [&Effect::Delete(key("a"), inc(5))]);
}

#[test]
fn inventories_are_compared_when_they_may_differ() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    let compare = Effect::Enroll {
        number: 2,
        epoch: Some(NodeEpoch(1)),
        last_epoch: Some(NodeEpoch(1)),
        inventory: vec![(key("a"), inc(5))],
    };
    assert_eq!(bench.step(Input::Reconcile), [compare]);
    assert_eq!(bench.agent.enrolments(), 2);
    assert_eq!(bench.step(Input::Reconcile), [], "it is under way");
    let effects = bench.enrolled(2, 1, &[Verdict::Stop], bench.now);
    assert!(effects.contains(&stop_effect("a", 5)), "{effects:?}");
}

#[test]
fn a_late_answer_that_comes_while_inventories_are_compared_is_compared_too() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.step(Input::Disconnected);
    assert_eq!(bench.agent.enrolments(), 2);
    let owned = Input::Owned(NodeEpoch(1), key("b"), inc(6), Spawned::default());
    assert_eq!(bench.step(owned), []);
    let compare = Effect::Enroll {
        number: 3,
        epoch: Some(NodeEpoch(1)),
        last_epoch: Some(NodeEpoch(1)),
        inventory: vec![(key("a"), inc(5)), (key("b"), inc(6))],
    };
    assert_eq!(bench.step(Input::Reconcile), [compare]);
    // The answer to the first one comes too late.
    assert_eq!(bench.enrolled(2, 1, &[Verdict::Keep], bench.now), []);
    let effects = bench.enrolled(3, 1, &[Verdict::Keep, Verdict::Stop], bench.now);
    assert!(effects.contains(&stop_effect("b", 6)), "{effects:?}");
}

#[test]
fn a_life_that_waits_for_the_one_before_is_given_up_when_the_node_attaches() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    assert_eq!(bench.start(1, 1, "a", 9), [stop_effect("a", 5)]);
    let effects = bench.step(Input::Disconnected);
    let busy = NodeAnswer::Busy("the node is attaching to a host anew".to_owned());
    assert!(effects.contains(&Effect::Answer(1, busy)), "{effects:?}");
    // Its record may be gone by now: it does not begin by itself.
    assert_eq!(bench.stop_ended("a", 5), []);
    bench.enrolled(2, 1, &[Verdict::Stop], bench.now);
    // Nor when the command comes again: whoever heard of the refusal counts on it.
    let fenced = Effect::Answer(2, NodeAnswer::Fenced);
    assert_eq!(bench.start(2, 1, "a", 9), [fenced]);
    assert_eq!(bench.start(3, 1, "a", 10), [spawn("a", 10)]);
}

#[test]
fn a_start_that_was_asked_of_an_older_session_is_refused() {
    let mut bench = Bench::serving();
    bench.now = TTL;
    let effects = bench.step(Input::Tick);
    let number = effects.iter().find_map(|effect| match effect {
        Effect::Enroll { number, .. } => Some(*number),
        _ => None,
    });
    bench.enrolled(number.unwrap(), 20, &[], TTL);
    assert_eq!(
        bench.start(1, 1, "a", 12),
        [Effect::Answer(1, NodeAnswer::Fenced)]
    );
    assert_eq!(bench.start(2, 1, "a", 21), [spawn("a", 21)]);
}

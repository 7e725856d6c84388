//! Leases: until when they hold, and what happens then.

use super::*;

#[test]
fn the_lease_counts_from_the_send_time_of_the_last_acknowledged_keep_alive() {
    let mut bench = Bench::serving();
    assert_eq!(bench.agent.lease_until_us(), SAFE);
    bench.run("a", 5);
    // Sent at 2 s, acknowledged at 6 s: the lease ends a TTL after 2 s, not after 6 s.
    bench.now = 2_000_000;
    assert_eq!(bench.step(Input::Tick), [keep_alive(1, 2)]);
    bench.now = 4_000_000;
    bench.step(Input::Tick);
    bench.now = 6_000_000;
    bench.ack(2, true);
    assert_eq!(bench.agent.lease_until_us(), 2_000_000 + SAFE);
    // The answer to an older one does not take it back.
    bench.ack(1, true);
    assert_eq!(bench.agent.lease_until_us(), 2_000_000 + SAFE);

    bench.now = 2_000_000 + SAFE - 1;
    let effects = bench.step(Input::Tick);
    assert!(!effects.contains(&Effect::LeaseLost), "{effects:?}");
    bench.now += 1;
    assert_eq!(
        bench.step(Input::Tick),
        [Effect::LeaseLost, stop_effect("a", 5)]
    );
    assert_eq!(bench.agent.epoch(), None);
    // Too late, even though it was sent in time.
    bench.step(Input::Acknowledged(KeepAliveAck {
        epoch: NodeEpoch(1),
        sequence: 3,
        alive: true,
    }));
    assert_eq!(bench.agent.epoch(), None);
}

#[test]
fn after_a_lost_lease_everything_stops_before_the_node_registers_anew() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.run("b", 6);
    assert_eq!(bench.start(1, 1, "c", 7), [spawn("c", 7)]);
    let effects = bench.ack(1, false);
    let stops = [stop_effect("a", 5), stop_effect("b", 6)];
    assert_eq!(effects[0], Effect::LeaseLost);
    assert_eq!(effects[1..], stops);
    let busy = NodeAnswer::Busy("the node has lost its lease".to_owned());
    assert_eq!(bench.start(2, 1, "d", 8), [Effect::Answer(2, busy)]);
    assert_eq!(bench.stop_ended("a", 5), []);
    assert_eq!(bench.stop_ended("b", 6), []);
    // The one that was starting is stopped as soon as it has started.
    assert_eq!(
        bench.spawn_ended("c", 7, spawned("p")),
        [Effect::Answer(1, NodeAnswer::Fenced), stop_effect("c", 7)]
    );
    let register = Effect::Enroll {
        number: 2,
        epoch: None,
        last_epoch: Some(NodeEpoch(1)),
        inventory: vec![],
    };
    assert_eq!(bench.stop_ended("c", 7), [register]);
    assert_eq!(bench.enrolled(2, 9, &[], bench.now), [keep_alive(9, 1)]);
    assert_eq!(bench.start(3, 1, "d", 10), [spawn("d", 10)]);
}

#[test]
fn an_attach_that_is_refused_ends_the_session() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.step(Input::Disconnected);
    assert_eq!(
        bench.refused(2, Refused::Ended),
        [Effect::LeaseLost, stop_effect("a", 5)]
    );
    // A second answer to the same attempt is nobody's.
    assert_eq!(bench.refused(2, Refused::Ended), []);
}

#[test]
fn a_deaf_host_is_attached_to_again() {
    let mut bench = Bench::serving();
    bench.now = TTL / 2;
    let effects = bench.step(Input::Tick);
    let again = |effect: &Effect| {
        matches!(
            effect,
            Effect::Enroll {
                epoch: Some(NodeEpoch(1)),
                number: 2,
                ..
            }
        )
    };
    assert!(effects.iter().any(again), "{effects:?}");
}

#[test]
fn the_next_tick_is_never_later_than_the_lease() {
    let bench = Bench::serving();
    assert!(bench.agent.next_us() <= bench.agent.lease_until_us());
    assert_eq!(Lease::new(TTL, KILL_BOUND).next_us(), 0);
}

#[test]
fn a_late_word_about_an_older_session_changes_nothing() {
    let mut bench = Bench::serving();
    bench.now = SAFE;
    let lost = bench.step(Input::Tick);
    assert_eq!(lost[0], Effect::LeaseLost);
    let (number, ..) = enrolment(&lost);
    bench.enrolled(number, 9, &[], bench.now);
    bench.run("a", 10);
    let until_us = bench.agent.lease_until_us();
    bench.now += 1_000_000;
    for alive in [true, false] {
        let ack = KeepAliveAck {
            epoch: NodeEpoch(1),
            sequence: 1,
            alive,
        };
        assert_eq!(bench.step(Input::Acknowledged(ack)), []);
    }
    assert_eq!(bench.agent.epoch(), Some(NodeEpoch(9)));
    assert_eq!(bench.agent.lease_until_us(), until_us);
}

#[test]
fn a_session_that_the_registry_has_forgotten_is_registered_anew_without_stopping_anything() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.step(Input::Disconnected);
    // Whoever is asked meanwhile does not know the session either; the answer to the attach tells more.
    assert_eq!(bench.ack(1, false), []);
    let effects = bench.refused(2, Refused::Forgotten);
    let register = Effect::Enroll {
        number: 3,
        epoch: None,
        last_epoch: Some(NodeEpoch(1)),
        inventory: vec![(key("a"), inc(5))],
    };
    assert_eq!(effects, [register]);
    assert_eq!(bench.agent.lease_until_us(), SAFE, "it holds as it did");
    // Nothing is left to be renewed.
    bench.now = SAFE - 1;
    assert_eq!(bench.step(Input::Tick), []);
    assert_eq!(bench.agent.next_us(), SAFE);
    let effects = bench.enrolled(3, 9, &[Verdict::Keep], bench.now);
    assert_eq!(effects, [keep_alive(9, 1)]);
    assert_eq!(bench.agent.lease_until_us(), bench.now + SAFE);
    assert_eq!(bench.agent.running_incarnation(&key("a")), Some(inc(5)));
}

#[test]
fn a_forgotten_session_still_ends_with_its_lease() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.step(Input::Disconnected);
    bench.refused(2, Refused::Forgotten);
    bench.now = 1_000_000;
    // A registration may fail as it likes: that does not end what holds.
    assert_eq!(bench.refused(3, Refused::Ended), []);
    bench.now = bench.agent.next_us();
    let (number, epoch, last) = enrolment(&bench.step(Input::Tick));
    assert_eq!((number, epoch, last), (4, None, Some(NodeEpoch(1))));
    bench.now = SAFE;
    assert_eq!(
        bench.step(Input::Tick),
        [Effect::LeaseLost, stop_effect("a", 5)]
    );
    assert_eq!(bench.enrolled(4, 9, &[Verdict::Keep], bench.now), []);
}

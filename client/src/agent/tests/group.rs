//! What a node does when hosts come and go, and when what it runs and what is registered may differ.

use super::*;

fn attach(number: u64) -> Effect {
    Effect::Enroll {
        number,
        epoch: Some(NodeEpoch(1)),
        inventory: vec![],
    }
}

impl Bench {
    fn heard(&mut self, from: u64, host: Option<u64>, term: u64) -> Vec<Effect> {
        self.step(Input::Leader { from, host, term })
    }

    fn attached(&mut self, number: u64, host: u64) -> Vec<Effect> {
        self.step(Input::Enrolled {
            number,
            host,
            epoch: NodeEpoch(1),
            verdicts: vec![],
            sent_us: self.now,
        })
    }
}

#[test]
fn the_node_attaches_to_every_new_leader_at_once() {
    let mut bench = Bench::serving();
    assert_eq!(bench.heard(1, Some(1), 5), [], "it is attached to that one");
    assert_eq!(bench.heard(3, Some(1), 5), []);
    assert_eq!(bench.heard(3, Some(2), 4), [], "an old term");
    assert_eq!(bench.heard(3, Some(2), 6), [attach(2)]);
    assert_eq!(
        (bench.agent.attached(), bench.agent.leader()),
        (None, Some(2))
    );
    assert_eq!(bench.heard(2, Some(2), 6), [], "it is on its way there");
    // The leader changes once more before there is an answer; the late answer is nobody's.
    assert_eq!(bench.heard(3, Some(3), 7), [attach(3)]);
    assert_eq!(bench.attached(2, 2), []);
    assert_eq!(bench.agent.attached(), None);
    let until_us = bench.agent.lease_until_us();
    bench.now += 100_000;
    assert_eq!(bench.attached(3, 3), [Effect::KeepAlive(NodeEpoch(1), 2)]);
    assert_eq!(bench.agent.attached(), Some(3));
    assert_eq!(
        bench.agent.lease_until_us(),
        until_us,
        "only keep-alives extend a lease"
    );
    // The same host may lead again, and must be told again.
    assert_eq!(bench.heard(3, Some(3), 8), [attach(4)]);
}

#[test]
fn a_leader_that_lost_its_place_is_left_and_a_follower_that_lost_sight_of_it_is_not_believed() {
    let mut bench = Bench::serving();
    assert_eq!(bench.heard(1, Some(1), 5), []);
    assert_eq!(bench.heard(2, None, 5), []);
    assert_eq!(bench.heard(1, None, 5), [attach(2)]);
    // While there is no leader the attempt goes on; when there is one it is made anew.
    bench.now += 300_000;
    assert_eq!(bench.heard(2, Some(2), 6), [attach(3)]);
    let failed = Input::EnrollFailed {
        number: 3,
        over: false,
    };
    assert_eq!(bench.step(failed), []);
    assert_eq!(bench.agent.next_us(), bench.now + 100_000);
    // A notice is reason enough not to wait for that.
    assert_eq!(bench.heard(1, Some(1), 7), [attach(4)]);
}

#[test]
fn an_answer_that_comes_before_the_notice_is_not_asked_for_twice() {
    let mut bench = Bench::serving();
    assert_eq!(bench.step(Input::Disconnected), [attach(2)]);
    bench.attached(2, 2);
    assert_eq!(bench.heard(2, Some(2), 6), []);
    assert_eq!(bench.heard(1, Some(1), 7), [attach(3)]);
}

#[test]
fn a_notice_raises_the_term_below_which_commands_are_refused() {
    let mut bench = Bench::serving();
    bench.heard(3, None, 9);
    assert_eq!(
        bench.start(1, 8, "a", 5),
        [spawn("a", 5)],
        "nobody leads in 9"
    );
    bench.heard(3, Some(2), 9);
    let fenced = [Effect::Answer(2, NodeAnswer::Fenced)];
    assert_eq!(bench.start(2, 8, "b", 6), fenced);
    assert_eq!(bench.stop(2, 8, "a", 5), fenced);
    assert_eq!(bench.agent.term(), 9);
}

#[test]
fn a_registration_under_way_is_not_made_twice() {
    let mut agent = Agent::new(TTL);
    let mut out = Vec::new();
    agent.step(0, Input::Tick, &mut out);
    assert!(matches!(out[..], [Effect::Enroll { epoch: None, .. }]));
    out.clear();
    let leader = Input::Leader {
        from: 1,
        host: Some(2),
        term: 3,
    };
    agent.step(0, leader, &mut out);
    assert_eq!(out, []);
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

#[test]
fn inventories_are_compared_when_they_may_differ() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    let compare = Effect::Enroll {
        number: 2,
        epoch: Some(NodeEpoch(1)),
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
        inventory: vec![(key("a"), inc(5)), (key("b"), inc(6))],
    };
    assert_eq!(bench.step(Input::Reconcile), [compare]);
    // The answer to the first one comes too late.
    assert_eq!(bench.enrolled(2, 1, &[Verdict::Keep], bench.now), []);
    let effects = bench.enrolled(3, 1, &[Verdict::Keep, Verdict::Stop], bench.now);
    assert!(effects.contains(&stop_effect("b", 6)), "{effects:?}");
}

#[test]
fn a_life_that_waits_for_the_one_before_is_asked_for_again_after_attaching() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    assert_eq!(bench.start(1, 1, "a", 9), [stop_effect("a", 5)]);
    let effects = bench.step(Input::Disconnected);
    let busy = NodeAnswer::Busy("the node is attaching to a host anew".to_owned());
    assert!(effects.contains(&Effect::Answer(1, busy)), "{effects:?}");
    // Its record may be gone by now: it does not begin by itself.
    assert_eq!(bench.stop_ended("a", 5), []);
    bench.enrolled(2, 1, &[Verdict::Stop], bench.now);
    assert_eq!(bench.start(2, 1, "a", 9), [spawn("a", 9)]);
}

//! What a node does when hosts come and go.

use super::*;

fn attach(number: u64) -> Effect {
    Effect::Enroll {
        number,
        epoch: Some(NodeEpoch(1)),
        last_epoch: Some(NodeEpoch(1)),
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
    assert_eq!(bench.attached(3, 3), [keep_alive(1, 2)]);
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
        refused: Refused::Unavailable,
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
    let mut agent = Agent::new(TTL, KILL_BOUND);
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

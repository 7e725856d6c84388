//! What a node does with commands, leases and their ends, without a clock or a network.

use maitred_protocol::{KeepAliveAck, Verdict};

use super::*;

mod group;

const TTL: u64 = 10_000_000;
/// TTL less 2 % and 50 ms.
const SAFE: u64 = 9_750_000;

fn key(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

fn started(pid: &str) -> NodeAnswer {
    NodeAnswer::Started {
        pid: pid.to_owned(),
        share: Vec::new(),
    }
}

fn spawned(pid: &str) -> Result<Spawned, SpawnError> {
    Ok(Spawned {
        pid: pid.to_owned(),
        share: Vec::new(),
    })
}

fn inc(n: u64) -> Incarnation {
    Incarnation(n)
}

/// An agent with its time and its last effects.
struct Bench {
    agent: Agent,
    now: u64,
}

impl Bench {
    /// Registered at time 0 under epoch 1.
    fn serving() -> Self {
        let agent = Agent::new(TTL);
        let mut bench = Self { agent, now: 0 };
        let effects = bench.step(Input::Tick);
        let expected = Effect::Enroll {
            number: 1,
            epoch: None,
            inventory: vec![],
        };
        assert_eq!(effects, [expected]);
        let effects = bench.enrolled(1, 1, &[], 0);
        assert_eq!(effects, [Effect::KeepAlive(NodeEpoch(1), 1)]);
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        self.agent.step(self.now, input, &mut out);
        out
    }

    fn enrolled(
        &mut self,
        number: u64,
        epoch: u64,
        verdicts: &[Verdict],
        sent_us: u64,
    ) -> Vec<Effect> {
        self.step(Input::Enrolled {
            number,
            host: 1,
            epoch: NodeEpoch(epoch),
            verdicts: verdicts.to_vec(),
            sent_us,
        })
    }

    fn start(&mut self, tag: u64, term: u64, id: &str, incarnation: u64) -> Vec<Effect> {
        let command = NodeCommand::Start {
            term,
            key: key(id),
            incarnation: inc(incarnation),
            payload: b"hi".to_vec(),
            deadline_ms: 500,
        };
        self.step(Input::Command(tag, command))
    }

    fn stop(&mut self, tag: u64, term: u64, id: &str, incarnation: u64) -> Vec<Effect> {
        let command = NodeCommand::Stop {
            term,
            key: key(id),
            incarnation: inc(incarnation),
        };
        self.step(Input::Command(tag, command))
    }

    fn spawn_ended(
        &mut self,
        id: &str,
        n: u64,
        result: Result<Spawned, SpawnError>,
    ) -> Vec<Effect> {
        self.step(Input::SpawnEnded(key(id), inc(n), result))
    }

    fn stop_ended(&mut self, id: &str, n: u64) -> Vec<Effect> {
        self.step(Input::StopEnded(key(id), inc(n)))
    }

    /// Has `id` running as incarnation `n`.
    fn run(&mut self, id: &str, n: u64) {
        assert_eq!(self.start(n, 1, id, n), [spawn(id, n)]);
        let answer = Effect::Answer(n, started(id));
        assert_eq!(self.spawn_ended(id, n, spawned(id)), [answer]);
    }

    fn ack(&mut self, sequence: u64, alive: bool) -> Vec<Effect> {
        let epoch = self.agent.epoch().unwrap();
        self.step(Input::Acknowledged(KeepAliveAck {
            epoch,
            sequence,
            alive,
        }))
    }
}

fn spawn(id: &str, incarnation: u64) -> Effect {
    Effect::Spawn {
        key: key(id),
        incarnation: inc(incarnation),
        payload: b"hi".to_vec(),
        deadline_ms: 500,
    }
}

fn stop_effect(id: &str, incarnation: u64) -> Effect {
    Effect::Stop(key(id), inc(incarnation))
}

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
fn the_lease_counts_from_the_send_time_of_the_last_acknowledged_keep_alive() {
    let mut bench = Bench::serving();
    assert_eq!(bench.agent.lease_until_us(), SAFE);
    bench.run("a", 5);
    // Sent at 2 s, acknowledged at 6 s: the lease ends a TTL after 2 s, not after 6 s.
    bench.now = 2_000_000;
    assert_eq!(
        bench.step(Input::Tick),
        [Effect::KeepAlive(NodeEpoch(1), 2)]
    );
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
        inventory: vec![],
    };
    assert_eq!(bench.stop_ended("c", 7), [register]);
    assert_eq!(
        bench.enrolled(2, 9, &[], bench.now),
        [Effect::KeepAlive(NodeEpoch(9), 1)]
    );
    assert_eq!(bench.start(3, 1, "d", 10), [spawn("d", 10)]);
}

#[test]
fn a_process_that_will_not_stop_is_named_when_the_node_registers_anew() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.ack(1, false);
    bench.now = bench.agent.next_us();
    let register = Effect::Enroll {
        number: 2,
        epoch: None,
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
        inventory: vec![(key("a"), inc(5)), (key("b"), inc(6))],
    };
    assert_eq!(bench.step(Input::Disconnected), [attach]);
    let until = bench.agent.lease_until_us();
    bench.now = 1_000_000;
    let verdicts = [Verdict::Stop, Verdict::Keep];
    let effects = bench.enrolled(2, 1, &verdicts, bench.now);
    let expected = [stop_effect("a", 5), Effect::KeepAlive(NodeEpoch(1), 2)];
    assert_eq!(effects, expected);
    // Attaching renews nothing.
    assert_eq!(bench.agent.lease_until_us(), until);
    // The registry knows; nothing to delete.
    assert_eq!(bench.stop_ended("a", 5), []);
    let running: Vec<_> = bench.agent.running().collect();
    assert_eq!(running, [(&key("b"), inc(6))]);
}

#[test]
fn an_attach_that_is_refused_ends_the_session() {
    let mut bench = Bench::serving();
    bench.run("a", 5);
    bench.step(Input::Disconnected);
    let failed = |over| Input::EnrollFailed { number: 2, over };
    assert_eq!(
        bench.step(failed(true)),
        [Effect::LeaseLost, stop_effect("a", 5)]
    );
    // A second answer to the same attempt is nobody's.
    assert_eq!(bench.step(failed(true)), []);
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
fn an_answer_that_is_too_long_is_a_failure_and_is_stopped() {
    let mut bench = Bench::serving();
    bench.start(1, 1, "a", 5);
    let effects = bench.spawn_ended("a", 5, spawned(&"x".repeat(PID_BYTES_MAX + 1)));
    assert!(matches!(
        &effects[0],
        Effect::Answer(1, NodeAnswer::Failed(_))
    ));
    assert_eq!(effects[1..], [stop_effect("a", 5)]);
}

#[test]
fn the_next_tick_is_never_later_than_the_lease() {
    let bench = Bench::serving();
    assert!(bench.agent.next_us() <= bench.agent.lease_until_us());
    assert_eq!(Lease::new(TTL).next_us(), 0);
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
    assert_eq!(
        bench.step(owned),
        [
            Effect::Answer(1, NodeAnswer::Fenced),
            Effect::Answer(2, NodeAnswer::Stopped)
        ]
    );
    assert_eq!(bench.agent.running_incarnation(&key("a")), Some(inc(9)));
    // A start that is newer still waits on.
    let mut bench = Bench::serving();
    bench.run("a", 5);
    assert_eq!(bench.start(1, 1, "a", 12), [stop_effect("a", 5)]);
    let owned = Input::Owned(NodeEpoch(1), key("a"), inc(9), Spawned::default());
    assert_eq!(bench.step(owned), [stop_effect("a", 9)]);
    assert_eq!(bench.stop_ended("a", 9), [spawn("a", 12)]);
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
    // A host that asks again may have it.
    let later = Effect::Answer(3, started("b"));
    assert_eq!(bench.start(3, 1, "b", 9), [spawn("b", 9)]);
    assert_eq!(bench.spawn_ended("b", 9, spawned("b")), [later]);
}

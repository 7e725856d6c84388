//! What a node does with commands, leases and their ends, without a clock or a network.

use maitred_protocol::{KeepAliveAck, NodeCommand, Verdict};

use super::*;

mod adopt;
mod claims;
mod ending;
mod group;
mod keep_alive;
mod lease;
mod leaving;
mod lives;
mod owned;
mod tries;

const TTL: u64 = 10_000_000;
const KILL_BOUND: u64 = 1_000_000;
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
        let agent = Agent::new(TTL, KILL_BOUND);
        let mut bench = Self { agent, now: 0 };
        let effects = bench.step(Input::Tick);
        let expected = Effect::Enroll {
            number: 1,
            epoch: None,
            last_epoch: None,
            inventory: vec![],
        };
        assert_eq!(effects, [expected]);
        let effects = bench.enrolled(1, 1, &[], 0);
        assert_eq!(effects, [keep_alive(1, 1)]);
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
        self.start_try((tag, 1), term, id, incarnation)
    }

    fn start_try(
        &mut self,
        (tag, try_number): (u64, u32),
        term: u64,
        id: &str,
        incarnation: u64,
    ) -> Vec<Effect> {
        let command = NodeCommand::Start {
            term,
            key: key(id),
            incarnation: inc(incarnation),
            payload: b"hi".to_vec(),
            deadline_ms: 500,
            try_number,
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

    fn refused(&mut self, number: u64, refused: Refused) -> Vec<Effect> {
        self.step(Input::EnrollFailed { number, refused })
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

fn keep_alive(epoch: u64, sequence: u64) -> Effect {
    Effect::KeepAlive {
        epoch: NodeEpoch(epoch),
        sequence,
        stop_ms: 0,
        by_stream: false,
    }
}

fn owned(epoch: u64, id: &str, n: u64) -> Input {
    Input::Owned(NodeEpoch(epoch), key(id), inc(n), Spawned::default())
}

/// The one registration or attachment among these: its number, the session to attach to, and the last
/// session.
fn enrolment(effects: &[Effect]) -> (u64, Option<NodeEpoch>, Option<NodeEpoch>) {
    let mut all = effects.iter().filter_map(|effect| match effect {
        Effect::Enroll {
            number,
            epoch,
            last_epoch,
            ..
        } => Some((*number, *epoch, *last_epoch)),
        _ => None,
    });
    let one = all.next();
    assert_eq!(all.next(), None, "{effects:?}");
    one.unwrap_or_else(|| panic!("{effects:?}"))
}

fn stop_effect(id: &str, incarnation: u64) -> Effect {
    Effect::Stop(key(id), inc(incarnation))
}

//! Clients: each asks one thing after another, of few keys, so that they meet.
//!
//! What they ask and what they are answered goes into the history, which is checked in the end. Reads go
//! to the leader or, pinned, to any host; stale reads are not in the history.

use maitred_protocol::{
    CreateOptions, CreateParty, CreateProcess, ListProcesses, OnConflict, ProcessKey, Rejection,
    Request, Response, TypeName,
};
use maitred_registry::random::Random;

use super::actor::{ActorEvent, Role};
use super::caller::{Outcome, Purpose};
use super::world::{Phase, World};

/// The session goes into a request when it is sent.
pub(super) const NO_SESSION: maitred_protocol::ClientId = maitred_protocol::ClientId(0);
/// The types; the scenario says what they are like.
pub const TYPES: [&str; 3] = ["match", "player", "room"];

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Client {
    /// Whether something is under way.
    pub busy: bool,
    /// The party that it asked for last.
    pub party: Option<CreateParty>,
    /// What it deletes next.
    pub deletes: Vec<ProcessKey>,
    /// Reads of the last phase that are still to be made: key and machine.
    pub last: Vec<(ProcessKey, usize)>,
}

/// One of the few keys.
pub fn key_of(random: &mut Random, keys: u32) -> ProcessKey {
    let type_name = TYPES[random.below(TYPES.len() as u32) as usize];
    let id = random.below(keys).to_string();
    ProcessKey::new(type_name, &id).expect("a valid key")
}

/// All of them.
pub fn all_keys(keys: u32) -> Vec<ProcessKey> {
    let ids = 0..keys;
    let all = ids.flat_map(|id| TYPES.map(|name| (name, id.to_string())));
    all.map(|(name, id)| ProcessKey::new(name, &id).expect("a valid key"))
        .collect()
}

impl World {
    /// A client goes on after a while of at most so many microseconds.
    pub fn client_later(&mut self, actor: usize, most_us: u32) {
        let us = 1_000 + u64::from(self.actors[actor].random.below(most_us));
        self.actor_later(actor, us, ActorEvent::Next);
    }

    pub(super) fn client(&mut self, actor: usize) -> &mut Client {
        match &mut self.actors[actor].role {
            Role::Client(client) => client,
            other => unreachable!("{other:?} is asked to be a client"),
        }
    }

    /// A client asks the next thing.
    pub fn client_next(&mut self, actor: usize) {
        if self.client(actor).busy {
            return;
        }
        match self.phase {
            Phase::Chaos => {}
            Phase::Last => {
                if let Some((key, machine)) = self.client(actor).last.pop() {
                    self.client(actor).busy = true;
                    let request = Request::GetProcess { key, stale: false };
                    self.ask(actor, Purpose::Work, request, 20_000_000, Some(machine));
                }
                return;
            }
            Phase::Quiet | Phase::Done => return,
        }
        let keys = self.scenario.knobs.keys;
        let there = self.hosts.iter().filter(|host| host.id != 0);
        let there: Vec<usize> = there.map(|host| host.machine).collect();
        if self.asks_for_party(actor) {
            return;
        }
        let random = &mut self.actors[actor].random;
        let key = key_of(random, keys);
        let any = there[random.below(there.len() as u32) as usize];
        let any = (random.below(2) == 0).then_some(any);
        let mut within_us = 2_000_000 + u64::from(random.below(6_000_000));
        let mut pin = None;
        let request = match random.below(100) {
            0..40 => create(random, key),
            40..68 => {
                pin = any;
                within_us = 3_000_000;
                Request::GetProcess { key, stale: false }
            }
            68..72 => {
                pin = any;
                within_us = 1_000_000;
                Request::GetProcess { key, stale: true }
            }
            72..76 => {
                pin = any;
                within_us = 3_000_000;
                let list = ListProcesses {
                    type_name: TypeName::new(TYPES[0]).ok(),
                    ..ListProcesses::default()
                };
                Request::ListProcesses(Box::new(list))
            }
            76..79 => {
                pin = any;
                within_us = 1_000_000;
                Request::ListMembers
            }
            79..81 => Request::Status,
            _ => delete(key),
        };
        self.client(actor).busy = true;
        self.cover.count("request made");
        self.ask(actor, Purpose::Work, request, within_us, pin);
    }

    /// A client's request has come to its end.
    pub fn worked(&mut self, actor: usize, outcome: Outcome) {
        match &outcome {
            Outcome::Answer(_, Response::Created { created: true, .. }) => {
                self.cover.count("create done");
            }
            Outcome::Answer(_, Response::Party(_, true)) => self.party_made(actor),
            Outcome::Answer(_, Response::Party(_, false)) => self.cover.count("party was there"),
            Outcome::Answer(_, Response::Rejected(Rejection::Party { .. })) => {
                self.party_refused(actor);
            }
            Outcome::Answer(_, Response::Rejected(_)) => self.cover.count("request rejected"),
            Outcome::Answer(..) => self.cover.count("request answered"),
            Outcome::Unknown => self.cover.count("outcome unknown"),
            Outcome::NotDone => self.cover.count("request not done"),
        }
        let failed = !matches!(outcome, Outcome::Answer(..));
        if self.phase == Phase::Last && failed {
            self.fail(
                "quiet",
                "a read of a quiet group is not answered".to_owned(),
            );
        }
        self.client(actor).busy = false;
        let pause = match self.actors[actor].random.below(8) {
            0 => 200_000,
            1..4 => 30_000,
            _ => 3_000,
        };
        self.client_later(actor, pause);
    }
}

/// Whatever life of it there is.
pub(super) fn delete(key: ProcessKey) -> Request {
    Request::DelProcess {
        client: NO_SESSION,
        key,
        incarnation: None,
        ended: false,
    }
}

fn create(random: &mut Random, key: ProcessKey) -> Request {
    let conflicts = [
        OnConflict::Return,
        OnConflict::Return,
        OnConflict::Fail,
        OnConflict::Wait,
    ];
    let on_conflict = conflicts[random.below(4) as usize];
    let waits = on_conflict == OnConflict::Wait;
    let options = CreateOptions {
        on_conflict,
        deadline_ms: 300 + random.below(if waits { 500 } else { 4_000 }),
        attempts: random.below(4) as u8,
        back_off_ms: random.below(200),
        demand: random.below(3),
        priority: random.below(10) as i32,
        ..CreateOptions::default()
    };
    let create = CreateProcess {
        key,
        args: vec![0; random.below(40) as usize],
        selector: None,
        callback: None,
        options,
    };
    Request::CreateProcess(NO_SESSION, Box::new(create))
}

//! One host by itself: its log, its time, and what it answers. What else it asks for is its user's to
//! carry out.

use std::collections::BTreeMap;

use maitred_protocol::{
    ClientId, CreateOptions, CreateProcess, KeepAlive, NodeEpoch, NodeName, ProcessKey,
    RegisterNode, Request, Response,
};
use maitred_replica::{Config, Effect, Input, Now, Recovered, Replica, Ticket};
use raft::eraftpb::{Entry, HardState};

/// See the head of this file.
pub(crate) struct Host {
    replica: Option<Replica>,
    entries: Vec<Entry>,
    hard_state: HardState,
    pub(crate) now: Now,
    pub(crate) client: ClientId,
    answers: BTreeMap<u64, Response>,
    sequence: u64,
    ticket: u64,
}

pub(crate) fn key(id: impl std::fmt::Display) -> ProcessKey {
    ProcessKey::new("player", &id.to_string()).unwrap()
}

pub(crate) fn name(node: &str) -> NodeName {
    NodeName::new(node).unwrap()
}

/// A node that hosts everything.
pub(crate) fn comer(node: &str, capacity: u32, ttl_ms: u32) -> RegisterNode {
    RegisterNode {
        name: name(node),
        types: Vec::new(),
        address: String::new(),
        labels: Vec::new(),
        capacity,
        share: Vec::new(),
        ttl_ms,
        inventory: Vec::new(),
        kill_bound_ms: 500,
        instance: 1,
        last_epoch: None,
    }
}

impl Host {
    /// A host that has not started yet.
    pub(crate) fn new(wall_ms: u64) -> Self {
        Self {
            replica: None,
            entries: Vec::new(),
            hard_state: HardState::default(),
            now: Now {
                mono_us: 1_000_000,
                wall_ms,
            },
            client: ClientId(0),
            answers: BTreeMap::new(),
            sequence: 1,
            ticket: 0,
        }
    }

    /// Starts, or starts again with the log that it has, and leads in a new term.
    pub(crate) fn start(&mut self, change: fn(&mut Config)) {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let recovered = Recovered {
            hard_state: self.hard_state.clone(),
            entries: self.entries.clone(),
            ..Recovered::default()
        };
        let mut config = Config {
            seed: 7,
            ..Config::new(1)
        };
        change(&mut config);
        self.replica = Some(Replica::new(config, recovered, self.now, &logger).unwrap());
    }

    pub(crate) fn replica(&self) -> &Replica {
        self.replica.as_ref().unwrap()
    }

    pub(crate) fn step(&mut self, input: Input) {
        self.replica.as_mut().unwrap().step(self.now, input);
    }

    /// What a turn asks for.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let replica = self.replica.as_mut().unwrap();
        replica.effects(self.now, &mut effects);
        effects
    }

    /// Carries out what is the host's own: its log and its answers. Everything else comes back.
    pub(crate) fn carry_out_own(&mut self, effect: Effect) -> Option<Effect> {
        match effect {
            Effect::Persist(persist) => {
                if let Some(first) = persist.entries.first() {
                    self.entries.truncate(first.index as usize - 1);
                }
                self.entries.extend(persist.entries);
                if let Some(hard_state) = persist.hard_state {
                    self.hard_state = hard_state;
                }
                self.step(Input::Persisted(persist.number));
            }
            Effect::Reply(ticket, answer) => {
                let before = self.answers.insert(ticket.0, answer.into_response());
                assert!(before.is_none(), "ticket {} is answered twice", ticket.0);
            }
            other => return Some(other),
        }
        None
    }

    /// Asks without waiting for what comes of it.
    pub(crate) fn send(&mut self, request: Request) -> u64 {
        self.ticket += 1;
        self.sequence += 1;
        let (ticket, sequence) = (Ticket(self.ticket), self.sequence);
        self.step(Input::Request {
            ticket,
            sequence,
            request,
        });
        ticket.0
    }

    pub(crate) fn answered(&mut self, ticket: u64) -> Option<Response> {
        self.answers.remove(&ticket)
    }

    /// A request to create a process of the type's defaults, but for what is changed.
    pub(crate) fn create_of(
        &self,
        key: &ProcessKey,
        change: impl FnOnce(&mut CreateOptions),
    ) -> Request {
        let mut create = CreateProcess {
            key: key.clone(),
            args: Vec::new(),
            selector: None,
            callback: None,
            options: CreateOptions::default(),
        };
        change(&mut create.options);
        Request::CreateProcess(self.client, Box::new(create))
    }

    /// A session renews its lease.
    pub(crate) fn renew(&mut self, epoch: NodeEpoch) {
        self.sequence += 1;
        let keep_alive = KeepAlive {
            epoch,
            sequence: self.sequence,
            load: None,
            stop_ms: 0,
        };
        let at_us = self.now.mono_us;
        self.step(Input::KeepAlive {
            link: 1,
            keep_alive,
            at_us,
        });
    }
}

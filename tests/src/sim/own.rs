//! What a game does by itself: processes that it begins and registers, and those that end, whose records
//! are to go. As `client/src/node.rs` does it.

use maitred_client::agent::{Input, Spawned};
use maitred_protocol::{
    ClientId, Incarnation, NodeEpoch, ProcessKey, Request, Response, SetProcess,
};

use super::actor::ActorEvent;
use super::caller::{Outcome, Purpose};
use super::game::{Life, Truth};
use super::node::NodeEvent;
use super::world::{Phase, World, say};

/// The session goes into a request when it is sent.
const NO_SESSION: ClientId = ClientId(0);
/// One try at a delete.
const DELETE_WITHIN_US: u64 = 30_000_000;

impl World {
    /// A process has ended by itself.
    pub fn process_exits(&mut self, actor: usize) {
        let lives = self.node(actor).truth.iter();
        let alive = lives.filter(|(_, truth)| !truth.stopping);
        let Some((key, incarnation)) = alive.map(|(life, _)| life.clone()).next() else {
            return;
        };
        say!(self, "a{actor}: {key}@{incarnation} ends by itself");
        self.cover.count("process ended by itself");
        self.node(actor).truth.remove(&(key.clone(), incarnation));
        let says_why = self.scenario.knobs.hooks && self.actors[actor].random.below(4) > 0;
        let input = match says_why {
            true => Input::ExitedBecause(key, incarnation, "it was over".to_owned()),
            false => Input::Exited(key, incarnation),
        };
        self.agent_step(actor, input);
    }

    /// A record of a process that ended is to go.
    pub(super) fn delete(&mut self, actor: usize, key: ProcessKey, incarnation: Incarnation) {
        let request = Request::DelProcess {
            client: NO_SESSION,
            key: key.clone(),
            incarnation: Some(incarnation),
            ended: true,
        };
        let purpose = Purpose::Delete(key, incarnation);
        self.ask(actor, purpose, request, DELETE_WITHIN_US, None);
    }

    /// Until the registry says that it is gone or is another's.
    pub fn deleted(&mut self, actor: usize, again: NodeEvent, outcome: &Outcome) {
        if !matches!(outcome, Outcome::Answer(..)) {
            self.actor_later(actor, 1_000_000, ActorEvent::Node(again));
        }
    }

    /// The registry is told that a process has ended, and why.
    pub(super) fn report(
        &mut self,
        actor: usize,
        key: ProcessKey,
        incarnation: Incarnation,
        reason: String,
    ) {
        let request = Request::ProcessExited {
            client: NO_SESSION,
            key: key.clone(),
            incarnation,
            reason: reason.clone(),
        };
        let purpose = Purpose::Report(key, incarnation, reason);
        self.ask(actor, purpose, request, DELETE_WITHIN_US, None);
    }

    /// The game begins a process by itself, and registers it.
    pub(super) fn own(&mut self, actor: usize) {
        if self.phase != Phase::Chaos {
            return;
        }
        let next = 400_000 + u64::from(self.actors[actor].random.below(2_500_000));
        self.actor_later(actor, next, ActorEvent::Node(NodeEvent::Own));
        let keys = self.scenario.knobs.keys;
        let key = super::client::key_of(&mut self.actors[actor].random, keys);
        let node = self.node(actor);
        let Some(epoch) = node.agent.epoch() else {
            return;
        };
        if node.agent.has_no_room_for(&key).is_some() {
            return;
        }
        node.own += 1;
        let enrolments = node.agent.enrolments();
        let pid = format!("{actor}.{}", node.own);
        let set = SetProcess {
            key: key.clone(),
            node: node.name.clone(),
            epoch,
            pid: pid.clone(),
            share: Vec::new(),
            incarnation: node.agent.running_incarnation(&key),
        };
        let request = Request::SetProcess(NO_SESSION, Box::new(set));
        let purpose = Purpose::Own(epoch, key, pid, enrolments);
        self.ask(actor, purpose, request, 8_000_000, None);
    }

    /// A life of the node's own serves from now on, if the agent has taken it.
    fn begins(&mut self, actor: usize, life: &Life) {
        let now = self.now;
        let node = self.node(actor);
        let taken = node.agent.running_incarnation(&life.0) == Some(life.1);
        if let Some(truth) = node.truth.get_mut(life).filter(|_| taken) {
            truth.since_us = truth.since_us.min(now);
        }
    }

    /// The registration of a node's own process has come to its end.
    pub fn own_set(
        &mut self,
        actor: usize,
        (epoch, key, pid): (NodeEpoch, ProcessKey, String),
        enrolments: u64,
        outcome: Outcome,
    ) {
        let Outcome::Answer(_, Response::Process { record, .. }) = outcome else {
            return;
        };
        self.cover.count("node registered a process");
        let incarnation = record.incarnation;
        let life = (key.clone(), incarnation);
        // An update of a life that has ended meanwhile does not bring it back.
        if self.node(actor).owned.insert(life.clone()) {
            let truth = Truth {
                stopping: false,
                // It serves only once the agent takes it: it may be over already.
                since_us: u64::MAX,
                session: Some(epoch),
                overslept: false,
                own: true,
            };
            self.node(actor).truth.insert(life.clone(), truth);
        }
        let spawned = Spawned {
            pid,
            share: Vec::new(),
        };
        self.agent_step(actor, Input::Owned(epoch, key, incarnation, spawned));
        self.begins(actor, &life);
        let found = self.check_lives_of(actor);
        self.verify("truth", found);
        if self.node(actor).agent.enrolments() != enrolments {
            self.cover
                .count("node compares inventories after a late answer");
            self.agent_step(actor, Input::Reconcile);
        }
    }
}

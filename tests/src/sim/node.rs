//! A game node: the client library's own agent, and the processes that it really runs.
//!
//! The truth is here: which lives run at each moment, and which of them have been told to stop. Starting
//! and stopping take a while; a start may fail. What the agent wants is carried out as
//! `client/src/node_thread.rs` does it.

use std::collections::{BTreeMap, BTreeSet};

use maitred_client::agent::{Agent, Effect, Input, SpawnError, Spawned};
use maitred_protocol::{
    ClientId, Incarnation, KeepAlive, KeepAliveAck, Load, NodeCommand, NodeEpoch, NodeName, Notice,
    ProcessKey, RegisterNode, Request, Response,
};

use super::actor::{ActorEvent, Role};
use super::caller::{Outcome, Purpose};
use super::plan::{Mend, Scenario};
use super::queue::What;
use super::wire::{ConnId, Up};
use super::world::{Phase, World, say};

/// The session goes into a request when it is sent.
const NO_SESSION: ClientId = ClientId(0);
/// Commands that may wait for the end of a registration.
const EARLY_MAX: usize = 4_096;

/// What happens to a node.
#[derive(Debug)]
pub enum NodeEvent {
    /// The agent's time.
    Tick,
    /// A start has come to its end.
    Started(ProcessKey, Incarnation, Result<Spawned, SpawnError>),
    /// A process is gone.
    Stopped(ProcessKey, Incarnation),
    /// The game registers a process of its own.
    Own,
    /// A delete is tried again.
    Delete(ProcessKey, Incarnation),
}

/// A life that really runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truth {
    /// Which.
    pub incarnation: Incarnation,
    /// Whether it was told to stop.
    pub stopping: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// The library's agent.
    pub agent: Agent,
    /// What really runs.
    pub truth: BTreeMap<(ProcessKey, Incarnation), Truth>,
    capacity: u32,
    ttl_ms: u32,
    attached: Option<ConnId>,
    early: Vec<(ConnId, u64, NodeCommand)>,
    tags: BTreeMap<u64, (ConnId, u64)>,
    last_tag: u64,
    tick_at: u64,
    /// How long it is down when it has left.
    pub leaving: Option<u64>,
    /// Lives of its own that it has ever had, or was asked to start.
    pub(super) owned: BTreeSet<(ProcessKey, Incarnation)>,
    pub(super) own: u32,
}

impl Node {
    /// A node that has not begun.
    pub fn new(number: usize, scenario: &Scenario) -> Self {
        let ttl_ms = scenario.knobs.ttl_ms;
        Self {
            name: NodeName::new(format!("n{number}")).expect("letters and digits"),
            agent: Agent::new(u64::from(ttl_ms) * 1_000),
            truth: BTreeMap::new(),
            capacity: scenario.knobs.capacity,
            ttl_ms,
            attached: None,
            early: Vec::new(),
            tags: BTreeMap::new(),
            last_tag: 0,
            tick_at: u64::MAX,
            leaving: None,
            owned: BTreeSet::new(),
            own: 0,
        }
    }

    fn register(&self, inventory: Vec<(ProcessKey, Incarnation)>) -> RegisterNode {
        RegisterNode {
            name: self.name.clone(),
            types: Vec::new(),
            address: format!("{}:1", self.name),
            labels: Vec::new(),
            capacity: self.capacity,
            share: Vec::new(),
            ttl_ms: self.ttl_ms,
            inventory,
        }
    }
}

impl World {
    /// The node that an actor is.
    pub fn node(&mut self, actor: usize) -> &mut Node {
        match &mut self.actors[actor].role {
            Role::Node(node) => node,
            other => unreachable!("{other:?} is asked to be a node"),
        }
    }

    fn is_node(&self, actor: usize) -> bool {
        matches!(self.actors[actor].role, Role::Node(_))
    }

    /// A node's process begins.
    pub fn start_node(&mut self, actor: usize) {
        let ttl_us = u64::from(self.scenario.knobs.ttl_ms) * 1_000;
        // A node that believes in a longer lease than it has registered.
        let factor = if self.mutant("node-long-lease") { 2 } else { 1 };
        let at = &mut self.actors[actor];
        at.up = true;
        let node = self.node(actor);
        node.agent = Agent::new(ttl_us * factor);
        node.truth.clear();
        node.attached = None;
        node.early.clear();
        node.tags.clear();
        node.tick_at = u64::MAX;
        node.leaving = None;
        node.owned.clear();
        say!(self, "a{actor} starts");
        self.cover.count("node started");
        self.agent_step(actor, Input::Tick);
        let first = 500_000 + u64::from(self.actors[actor].random.below(1_500_000));
        self.actor_later(actor, first, ActorEvent::Node(NodeEvent::Own));
    }

    /// A node's process is gone, and all that it ran.
    pub fn kill_node(&mut self, actor: usize) {
        say!(self, "a{actor} dies");
        self.kill_actor(actor);
        self.node(actor).truth.clear();
    }

    /// Something happens to a node.
    pub fn node_event(&mut self, actor: usize, event: NodeEvent) {
        match event {
            NodeEvent::Tick => {
                if self.node(actor).tick_at <= self.now {
                    self.node(actor).tick_at = u64::MAX;
                    self.agent_step(actor, Input::Tick);
                }
            }
            NodeEvent::Started(key, incarnation, result) => {
                if result.is_ok() {
                    self.runs(actor, key.clone(), incarnation);
                }
                self.agent_step(actor, Input::SpawnEnded(key, incarnation, result));
            }
            NodeEvent::Stopped(key, incarnation) => {
                self.node(actor).truth.remove(&(key.clone(), incarnation));
                say!(self, "a{actor}: {key}@{incarnation} is gone");
                self.agent_step(actor, Input::StopEnded(key, incarnation));
            }
            NodeEvent::Own => self.own(actor),
            NodeEvent::Delete(key, incarnation) => self.delete(actor, key, incarnation),
        }
    }

    /// A life really begins.
    fn runs(&mut self, actor: usize, key: ProcessKey, incarnation: Incarnation) {
        say!(self, "a{actor}: {key}@{incarnation} runs");
        self.cover.count("process started");
        let truth = Truth {
            incarnation,
            stopping: false,
        };
        self.node(actor)
            .truth
            .insert((key.clone(), incarnation), truth);
        let found = self.check_one_life(actor, &key, incarnation);
        self.verify("truth", found);
    }

    pub(super) fn agent_step(&mut self, actor: usize, input: Input) {
        let now_us = self.actors[actor].clock.mono_us(self.now);
        let mut effects = Vec::new();
        self.node(actor).agent.step(now_us, input, &mut effects);
        for effect in effects {
            self.agent_effect(actor, effect);
        }
        self.schedule_tick(actor);
    }

    fn schedule_tick(&mut self, actor: usize) {
        let next = self.node(actor).agent.next_us();
        let late = u64::from(self.actors[actor].random.below(5_000));
        let at = self.actors[actor].clock.true_us(next);
        let at = at.max(self.now + 1).min(self.now + 1_000_000) + late;
        if at < self.node(actor).tick_at {
            self.node(actor).tick_at = at;
            let life = self.actors[actor].life;
            let event = ActorEvent::Node(NodeEvent::Tick);
            self.queue.push(at, What::Actor(actor, life, event));
        }
    }

    fn agent_effect(&mut self, actor: usize, effect: Effect) {
        match effect {
            Effect::Answer(tag, answer) => {
                if let Some((conn, number)) = self.node(actor).tags.remove(&tag) {
                    self.send_up(conn, Up::Answer(number, answer));
                }
            }
            Effect::Spawn {
                key, incarnation, ..
            } => self.game_start(actor, key, incarnation),
            Effect::Stop(key, incarnation) => self.game_stop(actor, key, incarnation),
            Effect::KeepAlive(epoch, sequence) => self.keep_alive(actor, epoch, sequence),
            Effect::Enroll {
                number,
                epoch,
                inventory,
            } => self.enroll(actor, number, epoch, inventory),
            Effect::Delete(key, incarnation) => self.delete(actor, key, incarnation),
            Effect::LeaseLost => {
                say!(self, "a{actor}: the lease is lost");
                self.cover.count("node fenced itself");
            }
            Effect::Leave(epoch) => self.leave(actor, epoch),
        }
    }

    fn game_start(&mut self, actor: usize, key: ProcessKey, incarnation: Incarnation) {
        say!(self, "a{actor}: is starting {key}@{incarnation}");
        self.node(actor).owned.insert((key.clone(), incarnation));
        let chaos = self.phase == Phase::Chaos;
        let random = &mut self.actors[actor].random;
        let slow = random.below(20) == 0;
        let took = 500 + u64::from(random.below(if slow { 1_500_000 } else { 20_000 }));
        let result = match random.below(20) {
            0 if chaos => Err(SpawnError::Busy("not now".to_owned())),
            1 if chaos => Err(SpawnError::Failed("it went wrong".to_owned())),
            _ => Ok(Spawned {
                pid: format!("{actor}-{incarnation}"),
                share: vec![1, 2, 3],
            }),
        };
        let event = NodeEvent::Started(key, incarnation, result);
        self.actor_later(actor, took, ActorEvent::Node(event));
    }

    fn game_stop(&mut self, actor: usize, key: ProcessKey, incarnation: Incarnation) {
        say!(self, "a{actor}: is stopping {key}@{incarnation}");
        if self.mutant("node-no-fence") && self.node(actor).agent.epoch().is_none() {
            return;
        }
        if let Some(truth) = self.node(actor).truth.get_mut(&(key.clone(), incarnation)) {
            truth.stopping = true;
        }
        let random = &mut self.actors[actor].random;
        let slow = random.below(20) == 0;
        let took = 200 + u64::from(random.below(if slow { 400_000 } else { 5_000 }));
        let event = NodeEvent::Stopped(key, incarnation);
        self.actor_later(actor, took, ActorEvent::Node(event));
    }

    fn keep_alive(&mut self, actor: usize, epoch: NodeEpoch, sequence: u64) {
        let leader = self.node(actor).agent.leader();
        let attached = self.node(actor).attached;
        let machine = leader.and_then(|host| self.hosts.iter().position(|one| one.id == host));
        let conn = attached.or_else(|| self.actors[actor].caller.conn_to(machine));
        let load = Load {
            cpu: 0.5,
            memory_free_mib: 1,
            counters: Vec::new(),
        };
        let keep_alive = KeepAlive {
            epoch,
            sequence,
            load: sequence.is_multiple_of(4).then_some(load),
        };
        if let Some(conn) = conn {
            self.send_up(conn, Up::KeepAlive(keep_alive));
        }
    }

    fn enroll(
        &mut self,
        actor: usize,
        number: u64,
        epoch: Option<NodeEpoch>,
        inventory: Vec<(ProcessKey, Incarnation)>,
    ) {
        self.give_up(actor, |purpose| matches!(purpose, Purpose::Enroll(..)));
        let node = self.node(actor);
        let request = match epoch {
            Some(epoch) => Request::AttachNode {
                name: node.name.clone(),
                epoch,
                inventory,
            },
            None => Request::RegisterNode(NO_SESSION, Box::new(node.register(inventory))),
        };
        say!(self, "a{actor}: enrols, session {epoch:?}");
        let sent_us = self.actors[actor].clock.mono_us(self.now);
        let within_us = (u64::from(self.scenario.knobs.ttl_ms) * 1_000).max(2_000_000);
        let purpose = Purpose::Enroll(number, sent_us);
        self.ask(actor, purpose, request, within_us, None);
    }

    /// A registration or attachment has come to its end.
    pub fn enrolled(&mut self, actor: usize, number: u64, sent_us: u64, outcome: Outcome) {
        let input = match outcome {
            Outcome::Answer(conn, Response::Registered { epoch, verdicts }) => {
                say!(self, "a{actor}: session {epoch}, {verdicts:?}");
                self.cover.count("node enrolled");
                let host = self.conns[conn].host;
                let node = self.node(actor);
                node.attached = Some(conn);
                Input::Enrolled {
                    number,
                    host,
                    epoch,
                    verdicts,
                    sent_us,
                }
            }
            Outcome::Answer(_, Response::Rejected(_)) => Input::EnrollFailed { number, over: true },
            _ => Input::EnrollFailed {
                number,
                over: false,
            },
        };
        let done = matches!(input, Input::Enrolled { .. });
        self.agent_step(actor, input);
        if done {
            let attached = self.node(actor).attached;
            for (conn, number, command) in std::mem::take(&mut self.node(actor).early) {
                if attached == Some(conn) {
                    self.node_command(actor, conn, number, command);
                }
            }
        }
    }

    /// A command of a host.
    pub fn node_command(&mut self, actor: usize, conn: ConnId, number: u64, command: NodeCommand) {
        if !self.is_node(actor) {
            return;
        }
        let node = self.node(actor);
        if node.attached != Some(conn) {
            if node.early.len() < EARLY_MAX {
                node.early.push((conn, number, command));
            }
            return;
        }
        say!(self, "a{actor} is told {number}: {command:?}");
        let node = self.node(actor);
        node.last_tag += 1;
        let tag = node.last_tag;
        node.tags.insert(tag, (conn, number));
        self.agent_step(actor, Input::Command(tag, command));
    }

    /// A keep-alive is acknowledged.
    pub fn node_ack(&mut self, actor: usize, ack: KeepAliveAck) {
        if self.is_node(actor) {
            self.cover.count("keep-alive acknowledged");
            self.agent_step(actor, Input::Acknowledged(ack));
        }
    }

    /// A host says who leads.
    pub fn node_noticed(&mut self, actor: usize, from: u64, notice: &Notice) {
        if self.is_node(actor) {
            let Notice::Leader { host, term, .. } = notice;
            let (host, term) = (*host, *term);
            self.agent_step(actor, Input::Leader { from, host, term });
        }
    }

    /// A connection is gone.
    pub fn node_lost_conn(&mut self, actor: usize, conn: ConnId) {
        if !self.is_node(actor) {
            return;
        }
        self.node(actor).early.retain(|(from, ..)| *from != conn);
        if self.node(actor).attached == Some(conn) {
            self.node(actor).attached = None;
            self.agent_step(actor, Input::Disconnected);
        }
    }

    /// A node is to leave cleanly.
    pub fn node_leaves(&mut self, actor: usize, down_us: u64) {
        self.node(actor).leaving = Some(down_us);
        say!(self, "a{actor} leaves");
        self.agent_step(actor, Input::Shutdown);
    }

    fn leave(&mut self, actor: usize, epoch: Option<NodeEpoch>) {
        let Some(epoch) = epoch else {
            return self.left(actor);
        };
        let name = self.node(actor).name.clone();
        let request = Request::DeregisterNode {
            client: NO_SESSION,
            name,
            epoch,
        };
        self.ask(actor, Purpose::Leave, request, 3_000_000, None);
    }

    /// A node has left.
    pub fn left(&mut self, actor: usize) {
        let down_us = self.node(actor).leaving.unwrap_or(0);
        self.kill_node(actor);
        let start = Mend::NodeStart(actor, self.actors[actor].life);
        self.queue.push(self.now + down_us, What::Mend(start));
    }

    /// Whether a node is there and not stopped.
    pub fn node_is_alive(&self, actor: usize) -> bool {
        self.actors[actor].up && !self.actors[actor].paused
    }
}

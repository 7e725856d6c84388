//! A game node: the client library's own agent, and what is between it and the hosts.
//!
//! What the agent wants is carried out as `client/src/node_thread.rs` does it; its processes are in
//! [`super::game`]. Bugs of nodes are put in here.

use std::collections::{BTreeMap, BTreeSet};

use maitred_client::agent::{Agent, Effect, Input, Refused, SpawnError, Spawned};
use maitred_protocol::{
    ClientId, Incarnation, KeepAlive, KeepAliveAck, Load, NodeCommand, NodeEpoch, NodeName, Notice,
    ProcessKey, RegisterNode, Request, Response, Verdict,
};

use super::actor::{ActorEvent, Role};
use super::caller::{Outcome, Purpose};
use super::game::{LATE_US, Life, Truth};
use super::plan::{Mend, Scenario};
use super::queue::What;
use super::wire::{ConnId, Up};
use super::world::{World, say};

/// The session goes into a request when it is sent.
const NO_SESSION: ClientId = ClientId(0);
/// Commands that may wait for the end of a registration.
const EARLY_MAX: usize = 4_096;

/// What happens to a node.
#[derive(Debug)]
pub enum NodeEvent {
    /// The agent's time.
    Tick,
    /// The watchdog's.
    Watchdog,
    /// A start has come to its end.
    Started(ProcessKey, Incarnation, Result<Spawned, SpawnError>),
    /// A process is gone.
    Stopped(ProcessKey, Incarnation),
    /// The game registers a process of its own.
    Own,
    /// A delete is tried again.
    Delete(ProcessKey, Incarnation),
    /// A report of an end is.
    Report(ProcessKey, Incarnation, String),
}

/// See the head of this file.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// The library's agent.
    pub agent: Agent,
    /// What really runs.
    pub truth: BTreeMap<Life, Truth>,
    /// What the game is starting, and the session that it began in.
    pub(super) starting: BTreeMap<Life, Option<NodeEpoch>>,
    /// Of those, what was being started while the lease ended in a pause.
    pub(super) overslept: BTreeSet<Life>,
    /// Proves which process it is.
    pub instance: u64,
    /// Another process has its name: it has ended for good.
    pub retired: bool,
    /// How many faults keep its datagrams from coming through.
    pub(super) no_datagrams: u32,
    capacity: u32,
    ttl_ms: u32,
    kill_bound_ms: u32,
    /// The last keep-alive that was sent.
    last_sent: u64,
    pub(super) watchdog_at: u64,
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
        let (ttl_ms, kill_bound_ms) = (scenario.knobs.ttl_ms, scenario.knobs.kill_bound_ms);
        let twin = scenario.twins && number == 1;
        let name = if twin { 0 } else { number };
        Self {
            name: NodeName::new(format!("n{name}")).expect("letters and digits"),
            agent: Agent::new(u64::from(ttl_ms) * 1_000, u64::from(kill_bound_ms) * 1_000),
            truth: BTreeMap::new(),
            starting: BTreeMap::new(),
            overslept: BTreeSet::new(),
            instance: 0,
            retired: false,
            no_datagrams: 0,
            kill_bound_ms,
            last_sent: 0,
            watchdog_at: u64::MAX,
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

    fn register(&self, inventory: Vec<Life>, last_epoch: Option<NodeEpoch>) -> RegisterNode {
        RegisterNode {
            name: self.name.clone(),
            types: Vec::new(),
            address: format!("{}:1", self.name),
            labels: Vec::new(),
            capacity: self.capacity,
            share: Vec::new(),
            ttl_ms: self.ttl_ms,
            inventory,
            kill_bound_ms: self.kill_bound_ms,
            instance: self.instance,
            last_epoch,
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
        let instance = (actor as u64 + 1) << 20 | u64::from(at.life + 1);
        let node = self.node(actor);
        node.agent = Agent::new(ttl_us * factor, u64::from(node.kill_bound_ms) * 1_000);
        node.instance = instance;
        node.truth.clear();
        node.starting.clear();
        node.overslept.clear();
        node.last_sent = 0;
        node.watchdog_at = u64::MAX;
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
        let node = self.node(actor);
        node.truth.clear();
        node.starting.clear();
        node.overslept.clear();
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
            NodeEvent::Watchdog => {
                if self.node(actor).watchdog_at <= self.now {
                    self.watchdog(actor);
                }
            }
            NodeEvent::Started(key, incarnation, result) => {
                self.game_started(actor, (key, incarnation), result);
            }
            NodeEvent::Stopped(key, incarnation) => self.game_stopped(actor, key, incarnation),
            NodeEvent::Own => self.own(actor),
            NodeEvent::Delete(key, incarnation) => self.delete(actor, key, incarnation),
            NodeEvent::Report(key, incarnation, why) => self.report(actor, key, incarnation, why),
        }
    }

    pub(super) fn agent_step(&mut self, actor: usize, input: Input) {
        let now_us = self.actors[actor].clock.mono_us(self.now);
        let mut effects = Vec::new();
        self.node(actor).agent.step(now_us, input, &mut effects);
        for effect in effects {
            self.agent_effect(actor, effect);
        }
        self.schedule_tick(actor);
        self.set_watchdog(actor);
    }

    fn schedule_tick(&mut self, actor: usize) {
        let next = self.node(actor).agent.next_us();
        let late = u64::from(self.actors[actor].random.below(LATE_US as u32));
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
            Effect::KeepAlive {
                epoch,
                sequence,
                stop_ms,
                by_stream,
            } => self.keep_alive(actor, (epoch, sequence), stop_ms, by_stream),
            Effect::Enroll {
                number,
                epoch,
                last_epoch,
                inventory,
            } => self.enroll(actor, number, (epoch, last_epoch), inventory),
            Effect::Adopt {
                key, incarnation, ..
            }
            | Effect::Adopted(key, incarnation, _) => {
                let text = format!("{key}@{incarnation} is adopted, and no snapshot was restored");
                self.fail("needless", text);
            }
            Effect::Delete(key, incarnation) => self.delete(actor, key, incarnation),
            Effect::Report(key, incarnation, why) => self.report(actor, key, incarnation, why),
            Effect::LeaseLost => {
                say!(self, "a{actor}: the lease is lost");
                self.cover.count("node fenced itself");
            }
            Effect::Leave(epoch) => self.leave(actor, epoch),
        }
    }

    fn keep_alive(
        &mut self,
        actor: usize,
        (epoch, sequence): (NodeEpoch, u64),
        stop_ms: u32,
        by_stream: bool,
    ) {
        self.node(actor).last_sent = sequence;
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
            stop_ms,
        };
        if let Some(conn) = conn {
            if by_stream {
                self.cover.count("keep-alive on the stream");
            }
            self.send_up(conn, Up::KeepAlive(keep_alive, by_stream));
        }
    }

    fn enroll(
        &mut self,
        actor: usize,
        number: u64,
        (epoch, last_epoch): (Option<NodeEpoch>, Option<NodeEpoch>),
        inventory: Vec<Life>,
    ) {
        self.give_up(actor, |purpose| matches!(purpose, Purpose::Enroll(..)));
        let node = self.node(actor);
        let request = match epoch {
            Some(epoch) => Request::AttachNode {
                name: node.name.clone(),
                epoch,
                inventory,
            },
            None => {
                Request::RegisterNode(NO_SESSION, Box::new(node.register(inventory, last_epoch)))
            }
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
            Outcome::Answer(
                conn,
                Response::Registered {
                    epoch,
                    mut verdicts,
                },
            ) => {
                say!(self, "a{actor}: session {epoch}, {verdicts:?}");
                self.cover.count("node enrolled");
                let host = self.conns[conn].host;
                if self.mutant("node-survives-verdict") {
                    verdicts.fill(Verdict::Keep);
                }
                let node = self.node(actor);
                for truth in node.truth.values_mut() {
                    truth.session = Some(epoch);
                }
                node.attached = Some(conn);
                Input::Enrolled {
                    number,
                    host,
                    epoch,
                    verdicts,
                    sent_us,
                }
            }
            Outcome::Answer(_, Response::Rejected(no)) => {
                let refused = Refused::by(&no);
                Input::EnrollFailed { number, refused }
            }
            _ => Input::EnrollFailed {
                number,
                refused: Refused::Unavailable,
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
    pub fn node_ack(&mut self, actor: usize, mut ack: KeepAliveAck) {
        if self.is_node(actor) {
            // A node that counts its lease from when it hears, not from when it spoke.
            if self.mutant("node-lease-from-receipt") && ack.alive {
                ack.sequence = self.node(actor).last_sent;
            }
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
        let leaving = self.node(actor).leaving;
        self.kill_node(actor);
        let Some(down_us) = leaving else {
            return self.retire(actor);
        };
        let start = Mend::NodeStart(actor, self.actors[actor].life);
        self.queue.push(self.now + down_us, What::Mend(start));
    }

    /// A node has ended since another process has its name.
    fn retire(&mut self, actor: usize) {
        self.cover.count("node gave way to another of its name");
        self.node(actor).retired = true;
        if !self.scenario.twins {
            let text = format!("a{actor} stops for good, and no other process has its name");
            self.fail("needless", text);
        }
    }

    /// Whether a node is there and not stopped.
    pub fn node_is_alive(&self, actor: usize) -> bool {
        self.actors[actor].up && !self.actors[actor].paused
    }
}

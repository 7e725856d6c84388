//! Clients and game nodes: whoever talks to the group from outside.
//!
//! An actor that is paused takes nothing; what comes waits, and is taken in order when it goes on, as
//! packets wait in a socket.

use maitred_registry::random::Random;

use super::caller::{Caller, Outcome, Purpose};
use super::client::Client;
use super::clock::Clock;
use super::node::{Node, NodeEvent};
use super::plan::Scenario;
use super::queue::What;
use super::wire::{ConnId, Down};
use super::world::{World, say};

/// What happens to an actor.
#[derive(Debug)]
pub enum ActorEvent {
    /// A frame or datagram has come.
    Frame(ConnId, Down),
    /// A call of a machine has come to its end.
    Dialled(usize),
    /// A connection is found to be gone.
    Lost(ConnId),
    /// A request's pause is over, or its answer has not come.
    OpTimer(u64, u32),
    /// To a node.
    Node(NodeEvent),
    /// A client has thought, or the operator.
    Next,
    /// The operator looks at the membership again.
    Member,
}

/// What an actor is.
#[derive(Debug)]
pub enum Role {
    /// It asks for processes.
    Client(Client),
    /// It runs them.
    Node(Box<Node>),
    /// It changes the membership, and makes the scenery.
    Operator,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Actor {
    /// Grows with every end of its process.
    pub life: u32,
    /// Whether its process runs.
    pub up: bool,
    /// Whether it is stopped for a while.
    pub paused: bool,
    /// Its clocks.
    pub clock: Clock,
    /// Its chance.
    pub random: Random,
    /// Its requests.
    pub caller: Caller,
    /// What it is.
    pub role: Role,
    backlog: Vec<ActorEvent>,
}

impl Actor {
    fn new(stream: u64, role: Role, scenario: &Scenario, clocks: &mut Random) -> Self {
        let mut random = Random::new(scenario.seed ^ (stream << 40) ^ 0xAC70);
        let preferred = random.below(scenario.hosts as u32) as usize;
        Self {
            life: 0,
            up: true,
            paused: false,
            clock: Clock::drawn(clocks),
            random,
            caller: Caller::new(preferred),
            role,
            backlog: Vec::new(),
        }
    }

    /// A game node.
    pub fn node(number: usize, scenario: &Scenario, clocks: &mut Random) -> Self {
        let node = Node::new(number, scenario);
        let role = Role::Node(Box::new(node));
        Self::new(100 + number as u64, role, scenario, clocks)
    }

    /// A client.
    pub fn client(number: usize, scenario: &Scenario, clocks: &mut Random) -> Self {
        let role = Role::Client(Client::default());
        Self::new(200 + number as u64, role, scenario, clocks)
    }

    /// The operator.
    pub fn operator(scenario: &Scenario, clocks: &mut Random) -> Self {
        Self::new(300, Role::Operator, scenario, clocks)
    }
}

impl World {
    /// An actor begins.
    pub fn start_actor(&mut self, actor: usize) {
        match &self.actors[actor].role {
            Role::Client(_) => self.client_later(actor, 300_000),
            Role::Node(_) => self.start_node(actor),
            Role::Operator => self.make_scenery(actor),
        }
    }

    /// Something happens to an actor.
    pub fn actor_event(&mut self, actor: usize, life: u32, event: ActorEvent) {
        let at = &mut self.actors[actor];
        if at.life != life || !at.up {
            return;
        }
        if at.paused {
            return at.backlog.push(event);
        }
        self.take_event(actor, event);
    }

    fn take_event(&mut self, actor: usize, event: ActorEvent) {
        match event {
            ActorEvent::Frame(conn, down) => self.framed(actor, conn, down),
            ActorEvent::Dialled(machine) => self.dialled(actor, machine),
            ActorEvent::Lost(conn) => self.lost_conn(actor, conn),
            ActorEvent::OpTimer(number, step) => self.op_timer(actor, number, step),
            ActorEvent::Node(event) => self.node_event(actor, event),
            ActorEvent::Next if matches!(self.actors[actor].role, Role::Operator) => {
                self.operator_next(actor);
            }
            ActorEvent::Next => self.client_next(actor),
            ActorEvent::Member => self.operator_again(),
        }
    }

    fn framed(&mut self, actor: usize, conn: ConnId, down: Down) {
        match down {
            Down::Response(id, response) => self.responded(actor, conn, id, *response),
            Down::Notice(from, notice) => {
                self.noticed(actor, &notice);
                self.node_noticed(actor, from, &notice);
            }
            Down::Command(number, command) => self.node_command(actor, conn, number, command),
            Down::Ack(ack, _) => self.node_ack(actor, ack),
        }
    }

    /// A request has come to its end.
    pub fn answered(&mut self, actor: usize, purpose: Purpose, outcome: Outcome) {
        match purpose {
            Purpose::Session => {}
            Purpose::Work => self.worked(actor, outcome),
            Purpose::Scenery => self.scenery_made(actor, outcome),
            Purpose::Member => self.member_answered(actor, outcome),
            Purpose::Enroll(number, sent_us) => self.enrolled(actor, number, sent_us, outcome),
            Purpose::Own(epoch, key, pid, enrolments) => {
                self.own_set(actor, (epoch, key, pid), enrolments, outcome);
            }
            Purpose::Delete(key, incarnation) => {
                self.deleted(actor, NodeEvent::Delete(key, incarnation), &outcome);
            }
            Purpose::Report(key, incarnation, why) => {
                self.deleted(actor, NodeEvent::Report(key, incarnation, why), &outcome);
            }
            Purpose::Leave => self.left(actor),
            Purpose::Rebalance => self.rebalance(actor, outcome),
        }
    }

    /// An actor's process is stopped for a while.
    pub fn pause_actor(&mut self, actor: usize) {
        self.actors[actor].paused = true;
        say!(self, "a{actor} pauses");
    }

    /// It goes on, and takes what has come meanwhile.
    pub fn resume_actor(&mut self, actor: usize) {
        if !std::mem::take(&mut self.actors[actor].paused) {
            return;
        }
        say!(self, "a{actor} goes on");
        let is_node = matches!(self.actors[actor].role, Role::Node(_));
        let overslept = is_node && self.node_wakes(actor);
        let life = self.actors[actor].life;
        for event in std::mem::take(&mut self.actors[actor].backlog) {
            // One of them may be its end.
            if self.actors[actor].life == life {
                self.take_event(actor, event);
            }
        }
        if is_node {
            self.node_is_awake(actor, overslept);
        }
    }

    /// An actor's process is gone, at once.
    pub fn kill_actor(&mut self, actor: usize) {
        let at = &mut self.actors[actor];
        at.life += 1;
        at.up = false;
        at.paused = false;
        at.backlog.clear();
        at.caller = Caller::new(at.random.below(self.scenario.hosts as u32) as usize);
        for conn in 0..self.conns.len() {
            if self.conns[conn].open && self.conns[conn].actor == actor {
                self.close(conn);
            }
        }
    }

    /// An event of an actor's own, after a while.
    pub fn actor_later(&mut self, actor: usize, us: u64, event: ActorEvent) {
        let life = self.actors[actor].life;
        self.queue
            .push(self.now + us, What::Actor(actor, life, event));
    }
}

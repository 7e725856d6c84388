//! One request from its first try to its answer, as `client/src/call.rs` does it, without IO.
//!
//! A change keeps its request id over all tries within one session. An outcome is an answer, or "not
//! done", or "unknown" when a host may have got the request and did not say what came of it. Whoever is
//! silent is given up only when it cannot be reached at all.

use std::collections::BTreeMap;

use maitred_protocol::{
    ClientId, Incarnation, NodeEpoch, Notice, ProcessKey, Request, RequestId, Response, Unavailable,
};
use maitred_registry::random::Random;

use super::actor::ActorEvent;
use super::host::{State, machine_of};
use super::network::delay_us;
use super::queue::What;
use super::wire::{ConnId, Up};
use super::world::{World, say};
use crate::linear::CallId;

/// Wait before a refused request is tried again, at first and at most.
const BACK_OFF_US: (u64, u64) = (50_000, 2_000_000);
/// Silence after which a connection is looked at.
const SILENCE_US: u64 = 1_500_000;

/// What a request is for.
#[derive(Debug, Clone)]
pub enum Purpose {
    /// The caller's own session.
    Session,
    /// A client's or node's piece of work.
    Work,
    /// To make the scenery: types and modules.
    Scenery,
    /// A node's session: the number of its try, and when it was first sent by its clock.
    Enroll(u64, u64),
    /// A node's own process: session, key, pid, and its enrolments when it was asked.
    Own(NodeEpoch, ProcessKey, String, u64),
    /// A record of a process that ended.
    Delete(ProcessKey, Incarnation),
    /// The same, and why it did.
    Report(ProcessKey, Incarnation, String),
    /// A node leaves.
    Leave,
    /// The operator's plan of moves.
    Rebalance,
    /// The operator's.
    Member,
}

/// How a request ended.
#[derive(Debug)]
pub enum Outcome {
    /// With this answer, over this connection.
    Answer(ConnId, Response),
    /// It may have been carried out.
    Unknown,
    /// Nothing was done.
    NotDone,
}

/// A request under way.
#[derive(Debug)]
pub struct Op {
    /// What for.
    pub purpose: Purpose,
    request: Request,
    /// Its places in the history: one for each key.
    pub calls: Vec<CallId>,
    id: u64,
    sent: bool,
    on: Option<ConnId>,
    deadline_us: u64,
    wait_us: u64,
    pin: Option<usize>,
    step: u32,
    hinted: bool,
}

/// Makes requests, in one session.
#[derive(Debug)]
pub struct Caller {
    preferred: usize,
    leader_term: u64,
    /// Connections by machine; none while one is being made.
    conns: BTreeMap<usize, Option<ConnId>>,
    session: ClientId,
    opening: bool,
    last_id: u64,
    last_op: u64,
    /// What is under way.
    pub ops: BTreeMap<u64, Op>,
}

impl Caller {
    /// One that asks this machine first.
    pub fn new(preferred: usize) -> Self {
        Self {
            preferred,
            leader_term: 0,
            conns: BTreeMap::new(),
            session: ClientId(0),
            opening: false,
            last_id: 0,
            last_op: 0,
            ops: BTreeMap::new(),
        }
    }

    /// Its session; 0 while there is none.
    pub fn session(&self) -> ClientId {
        self.session
    }

    /// A connection to the host of this number, or any.
    pub fn conn_to(&self, machine: Option<usize>) -> Option<ConnId> {
        match machine {
            Some(machine) => self.conns.get(&machine).copied().flatten(),
            None => {
                let preferred = self.conns.get(&self.preferred).copied().flatten();
                preferred.or_else(|| self.conns.values().find_map(|conn| *conn))
            }
        }
    }
}

/// Half to the whole of a wait.
fn jittered(random: &mut Random, wait_us: u64) -> u64 {
    wait_us / 2 + u64::from(random.below((wait_us / 2).max(1) as u32))
}

impl World {
    /// Asks; the answer comes to [`World::answered`]. A pinned request goes to this machine only.
    pub fn ask(
        &mut self,
        actor: usize,
        purpose: Purpose,
        request: Request,
        within_us: u64,
        pin: Option<usize>,
    ) -> u64 {
        let calls = match purpose {
            // Of a process that is asked about, a node's word that it has ended deletes nothing.
            Purpose::Delete(..) if self.scenario.knobs.hooks => Vec::new(),
            Purpose::Work | Purpose::Own(..) | Purpose::Delete(..) => {
                let history = &mut self.checks.history;
                history.requests(self.now, actor as u64, &request)
            }
            _ => Vec::new(),
        };
        say!(self, "a{actor} asks {pin:?}: {request:?}");
        let caller = &mut self.actors[actor].caller;
        caller.last_op += 1;
        let number = caller.last_op;
        let op = Op {
            purpose,
            request,
            calls,
            id: 0,
            sent: false,
            on: None,
            deadline_us: self.now + within_us,
            wait_us: BACK_OFF_US.0,
            pin,
            step: 0,
            hinted: false,
        };
        caller.ops.insert(number, op);
        self.try_op(actor, number);
        number
    }

    /// Gives a request up; nobody hears of it any more.
    pub fn give_up(&mut self, actor: usize, wanted: impl Fn(&Purpose) -> bool) {
        self.actors[actor]
            .caller
            .ops
            .retain(|_, op| !wanted(&op.purpose));
    }

    fn try_op(&mut self, actor: usize, number: u64) {
        let now = self.now;
        let new_id = self.mutant("client-new-id");
        let caller = &mut self.actors[actor].caller;
        let Some(op) = caller.ops.get_mut(&number) else {
            return;
        };
        op.on = None;
        op.step += 1;
        if now >= op.deadline_us {
            return self.expire_op(actor, number);
        }
        let needs_session = op.request.client().is_some();
        if needs_session && caller.session.0 == 0 {
            let opening = std::mem::replace(&mut caller.opening, true);
            self.op_later(actor, number, 20_000);
            if !opening {
                self.ask(
                    actor,
                    Purpose::Session,
                    Request::OpenSession,
                    u64::MAX / 4,
                    None,
                );
            }
            return;
        }
        if op.id == 0 || new_id {
            caller.last_id += 1;
            op.id = caller.last_id;
            if let Some(client) = op.request.client_mut() {
                *client = caller.session;
            }
        }
        let machine = op.pin.unwrap_or(caller.preferred);
        match caller.conns.get(&machine) {
            Some(Some(conn)) => {
                let conn = *conn;
                op.on = Some(conn);
                let (id, request) = (op.id, Box::new(op.request.clone()));
                self.send_up(conn, Up::Request(id, request));
                self.op_later(actor, number, SILENCE_US);
            }
            // Whoever is being called says so.
            Some(None) => self.op_later(actor, number, 1_000_000),
            None => {
                caller.conns.insert(machine, None);
                self.dial(actor, machine);
                self.op_later(actor, number, 1_000_000);
            }
        }
    }

    fn op_later(&mut self, actor: usize, number: u64, us: u64) {
        let life = self.actors[actor].life;
        let Some(op) = self.actors[actor].caller.ops.get(&number) else {
            return;
        };
        let at = (self.now + us).min(op.deadline_us.max(self.now + 1));
        let event = ActorEvent::OpTimer(number, op.step);
        self.queue.push(at, What::Actor(actor, life, event));
    }

    fn back_off(&mut self, actor: usize, number: u64) {
        let at = &mut self.actors[actor];
        let Some(op) = at.caller.ops.get_mut(&number) else {
            return;
        };
        op.on = None;
        op.step += 1;
        let wait = jittered(&mut at.random, op.wait_us);
        op.wait_us = (op.wait_us * 2).min(BACK_OFF_US.1);
        self.op_later(actor, number, wait);
    }

    fn dial(&mut self, actor: usize, machine: usize) {
        let reached = self.reaches(actor, machine) && self.hosts[machine].state == State::Up;
        let random = &mut self.network;
        let took = if reached {
            2 * delay_us(random)
        } else {
            300_000 + u64::from(random.below(700_000))
        };
        let (life, event) = (self.actors[actor].life, ActorEvent::Dialled(machine));
        self.queue
            .push(self.now + took, What::Actor(actor, life, event));
    }

    /// A call has come to its end.
    pub fn dialled(&mut self, actor: usize, machine: usize) {
        let reached = self.reaches(actor, machine) && self.hosts[machine].state == State::Up;
        if reached {
            let conn = self.connected(actor, machine);
            self.actors[actor].caller.conns.insert(machine, Some(conn));
        } else {
            let machines = self.hosts.len();
            let caller = &mut self.actors[actor].caller;
            caller.conns.remove(&machine);
            if caller.preferred == machine {
                caller.preferred = (machine + 1) % machines;
            }
        }
        let ops = self.actors[actor].caller.ops.iter();
        let idle = ops.filter(|(_, op)| op.on.is_none() && op.id > 0);
        let numbers: Vec<u64> = idle.map(|(number, _)| *number).collect();
        for number in numbers {
            if reached {
                self.try_op(actor, number);
            } else {
                self.back_off(actor, number);
            }
        }
    }

    /// A connection is gone; says whether it was one.
    pub fn lost_conn(&mut self, actor: usize, conn: ConnId) {
        self.close(conn);
        let machine = self.conns[conn].machine;
        let machines = self.hosts.len();
        let caller = &mut self.actors[actor].caller;
        if caller.conns.get(&machine) == Some(&Some(conn)) {
            caller.conns.remove(&machine);
            if caller.preferred == machine {
                caller.preferred = (machine + 1) % machines;
            }
        }
        let mut lost = Vec::new();
        for (number, op) in &mut caller.ops {
            if op.on == Some(conn) {
                op.sent = true;
                lost.push(*number);
            }
        }
        for number in lost {
            self.cover
                .count("request asked again after a lost connection");
            self.back_off(actor, number);
        }
        self.node_lost_conn(actor, conn);
    }

    /// The client hears, sooner or later, that the other end is gone.
    pub fn notice_loss(&mut self, conn: ConnId) {
        let actor = self.conns[conn].actor;
        let after = 20_000 + u64::from(self.network.below(1_500_000));
        let (life, event) = (self.actors[actor].life, ActorEvent::Lost(conn));
        self.queue
            .push(self.now + after, What::Actor(actor, life, event));
    }

    /// A pause is over, or an answer has not come.
    pub fn op_timer(&mut self, actor: usize, number: u64, step: u32) {
        let Some(op) = self.actors[actor].caller.ops.get(&number) else {
            return;
        };
        if op.step != step {
            return;
        }
        if self.now >= op.deadline_us {
            return self.expire_op(actor, number);
        }
        let Some(conn) = op.on else {
            return self.try_op(actor, number);
        };
        let machine = self.conns[conn].machine;
        let alive = self.conns[conn].open && self.hosts[machine].state == State::Up;
        if alive && self.reaches(actor, machine) {
            return self.op_later(actor, number, SILENCE_US);
        }
        self.cover.count("silent connection given up");
        self.lost_conn(actor, conn);
    }

    fn expire_op(&mut self, actor: usize, number: u64) {
        let op = &self.actors[actor].caller.ops[&number];
        let change = op.request.client().is_some();
        let outcome = if change && (op.sent || op.on.is_some()) {
            Outcome::Unknown
        } else {
            Outcome::NotDone
        };
        self.finish_op(actor, number, outcome);
    }

    /// An answer has come.
    pub fn responded(&mut self, actor: usize, conn: ConnId, id: u64, response: Response) {
        let machines = self.hosts.len();
        let caller = &mut self.actors[actor].caller;
        let found = caller.ops.iter_mut();
        let found = found
            .filter(|(_, op)| op.on == Some(conn) && op.id == id)
            .map(|(number, op)| (*number, op));
        let Some((number, op)) = found.last() else {
            return;
        };
        let machine = self.conns[conn].machine;
        match response {
            Response::Unavailable(why) => {
                self.cover.count("refused for now");
                let next = match &why {
                    Unavailable::NotLeader { leader } => {
                        let named = leader.as_deref().and_then(machine_of);
                        let first = !std::mem::replace(&mut op.hinted, true);
                        Some((
                            named.unwrap_or((machine + 1) % machines),
                            first && named.is_some(),
                        ))
                    }
                    Unavailable::ShuttingDown => Some(((machine + 1) % machines, false)),
                    Unavailable::NoSession if op.request.client().is_some() => {
                        if caller.session == op.request.client().unwrap_or_default() {
                            caller.session = ClientId(0);
                            caller.opening = false;
                        }
                        if op.sent {
                            return self.finish_op(actor, number, Outcome::Unknown);
                        }
                        op.id = 0;
                        None
                    }
                    _ => None,
                };
                if let Some((next, _)) = next
                    && caller.preferred == machine
                {
                    caller.preferred = next;
                }
                if next.is_some_and(|(_, at_once)| at_once) {
                    return self.try_op(actor, number);
                }
                self.back_off(actor, number);
            }
            Response::Unknown(_) => {
                op.sent = true;
                self.cover.count("answered: unknown");
                self.back_off(actor, number);
            }
            response => self.finish_op(actor, number, Outcome::Answer(conn, response)),
        }
    }

    fn finish_op(&mut self, actor: usize, number: u64, outcome: Outcome) {
        let Some(op) = self.actors[actor].caller.ops.remove(&number) else {
            return;
        };
        say!(self, "a{actor} has its answer to {}: {outcome:?}", op.id);
        if matches!(outcome, Outcome::Answer(..)) && op.request.client().is_some() {
            self.cover.count("change acknowledged");
        }
        for call in op.calls {
            match &outcome {
                Outcome::Answer(_, response) => {
                    self.checks.history.response(call, self.now, response);
                }
                Outcome::NotDone => self.checks.history.retract(call),
                Outcome::Unknown => {}
            }
        }
        if let (Outcome::Answer(_, response), Request::CreateParty(client, _)) =
            (&outcome, &op.request)
        {
            let request = RequestId {
                client: *client,
                sequence: op.id,
            };
            self.checks.parties.heard(request, response);
        }
        if matches!(op.purpose, Purpose::Session) {
            let caller = &mut self.actors[actor].caller;
            caller.opening = false;
            if let Outcome::Answer(_, Response::Session(client)) = outcome {
                caller.session = client;
            }
            return;
        }
        self.answered(actor, op.purpose, outcome);
    }

    /// A host says who leads.
    pub fn noticed(&mut self, actor: usize, notice: &Notice) {
        let Notice::Leader { address, term, .. } = notice;
        let caller = &mut self.actors[actor].caller;
        let machine = address.as_deref().and_then(machine_of);
        if let Some(machine) = machine
            && *term >= caller.leader_term
        {
            caller.leader_term = *term;
            caller.preferred = machine;
        }
    }
}

//! What passes between clients or nodes and machines: a stream each way a connection, and datagrams.
//!
//! Frames keep their order while the connection lives; what is sent into a cut waits for its end.
//! Datagrams are lost there, and now and then anyway. A connection ends when either process dies or
//! the client gives it up; what was under way is lost then, except what the host had taken.
//! A share of requests and answers goes through the wire's real bytes.

use maitred_protocol::{
    KeepAlive, KeepAliveAck, NodeAnswer, NodeCommand, Notice, Request, Response, codec,
};

use super::actor::{ActorEvent, Role};
use super::network::delay_us;
use super::plan::Way;
use super::queue::What;
use super::world::World;

/// Number of a connection, never given again.
pub type ConnId = usize;

/// From a client to a host.
#[derive(Debug, Clone)]
pub enum Up {
    /// With its request id.
    Request(u64, Box<Request>),
    /// With the command's number.
    Answer(u64, NodeAnswer),
    /// A datagram; or, when the flag is set, a frame.
    KeepAlive(KeepAlive, bool),
}

/// From a host to a client.
#[derive(Debug, Clone)]
pub enum Down {
    /// With its request id.
    Response(u64, Box<Response>),
    /// With its number.
    Command(u64, NodeCommand),
    /// In the way in which the keep-alive came.
    Ack(KeepAliveAck, bool),
    /// From the host of this number.
    Notice(u64, Notice),
}

/// What reaches a machine.
#[derive(Debug)]
pub struct ToHost {
    pub(super) conn: ConnId,
    pub(super) up: Up,
}

/// A connection of a client or node.
#[derive(Debug)]
pub struct Conn {
    /// Whose.
    pub actor: usize,
    actor_life: u32,
    /// To which machine.
    pub machine: usize,
    host_life: u32,
    /// The host's number.
    pub host: u64,
    /// Whether it is still there.
    pub open: bool,
    last_up_us: u64,
    last_down_us: u64,
    held_up: Vec<Up>,
    held_down: Vec<Down>,
}

/// How many faults cut the way between a client or node and a machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reach {
    up: u32,
    down: u32,
}

impl World {
    fn reach(&mut self, actor: usize, machine: usize) -> &mut Reach {
        let machines = self.hosts.len();
        &mut self.reaches[actor * machines + machine]
    }

    /// Whether a client or node and a machine hear each other.
    pub fn reaches(&mut self, actor: usize, machine: usize) -> bool {
        let reach = *self.reach(actor, machine);
        reach.up == 0 && reach.down == 0
    }

    /// A connection that has just been made.
    pub fn connected(&mut self, actor: usize, machine: usize) -> ConnId {
        self.conns.push(Conn {
            actor,
            actor_life: self.actors[actor].life,
            machine,
            host_life: self.hosts[machine].life,
            host: self.hosts[machine].id,
            open: true,
            last_up_us: 0,
            last_down_us: 0,
            held_up: Vec::new(),
            held_down: Vec::new(),
        });
        let conn = self.conns.len() - 1;
        self.hosts[machine].conns.insert(conn);
        self.welcome(machine, conn);
        conn
    }

    /// The client is done with it.
    pub fn close(&mut self, conn: ConnId) {
        let at = &mut self.conns[conn];
        at.open = false;
        at.held_up.clear();
        at.held_down.clear();
        let machine = at.machine;
        self.hosts[machine].conns.remove(&conn);
    }

    fn is_datagram_lost(&mut self, actor: usize) -> bool {
        let blocked = match &self.actors[actor].role {
            Role::Node(node) => node.no_datagrams > 0,
            _ => false,
        };
        self.network.below(1_000) < 2 + self.lossy || blocked
    }

    /// A client or node sends.
    pub fn send_up(&mut self, conn: ConnId, up: Up) {
        let (actor, machine) = (self.conns[conn].actor, self.conns[conn].machine);
        if !self.conns[conn].open {
            return;
        }
        let cut = self.reach(actor, machine).up > 0;
        let mut delay = delay_us(&mut self.network);
        if matches!(up, Up::KeepAlive(_, false)) {
            if !cut && !self.is_datagram_lost(actor) {
                self.queue
                    .push(self.now + delay, What::ToHost(ToHost { conn, up }));
            }
            return;
        }
        if cut {
            return self.conns[conn].held_up.push(up);
        }
        if self.network.below(1_000) < self.lossy {
            delay += 2_000 + u64::from(self.network.below(50_000));
        }
        let up = match up {
            Up::Request(id, request) => Up::Request(id, Box::new(self.through_bytes(id, *request))),
            other => other,
        };
        let at = (self.now + delay).max(self.conns[conn].last_up_us + 1);
        self.conns[conn].last_up_us = at;
        self.queue.push(at, What::ToHost(ToHost { conn, up }));
    }

    /// A host sends.
    pub fn send_down(&mut self, conn: ConnId, down: Down) {
        let at = &self.conns[conn];
        let (actor, machine, life) = (at.actor, at.machine, at.actor_life);
        if !at.open {
            return;
        }
        let cut = self.reach(actor, machine).down > 0;
        let mut delay = delay_us(&mut self.network);
        if matches!(down, Down::Ack(_, false)) {
            if !cut && !self.is_datagram_lost(actor) {
                let event = ActorEvent::Frame(conn, down);
                self.queue
                    .push(self.now + delay, What::Actor(actor, life, event));
            }
            return;
        }
        if cut {
            return self.conns[conn].held_down.push(down);
        }
        if self.network.below(1_000) < self.lossy {
            delay += 2_000 + u64::from(self.network.below(50_000));
        }
        let down = match down {
            Down::Response(id, response) => {
                Down::Response(id, Box::new(self.through_bytes(id, *response)))
            }
            other => other,
        };
        let at = (self.now + delay).max(self.conns[conn].last_down_us + 1);
        self.conns[conn].last_down_us = at;
        let event = ActorEvent::Frame(conn, down);
        self.queue.push(at, What::Actor(actor, life, event));
    }

    /// A message as the other side reads it: for a share of them, from real bytes.
    fn through_bytes<T: codec::Wire>(&mut self, id: u64, message: T) -> T {
        if self.network.below(self.scenario.knobs.bytes_one_in) != 0 {
            return message;
        }
        let mut bytes = Vec::new();
        let read = codec::encode(id, &message, &mut bytes).and_then(|()| {
            let frame = codec::split(&bytes)?.expect("the whole frame was written");
            codec::decode::<T>(&frame)
        });
        match read {
            Ok(read) => {
                self.cover.count("frame in real bytes");
                read
            }
            Err(error) => {
                self.fail("wire", format!("a message cannot be read back: {error}"));
                message
            }
        }
    }

    /// Something reaches a machine over a connection.
    pub fn at_host(&mut self, to: ToHost) {
        let conn = &self.conns[to.conn];
        let host = &self.hosts[conn.machine];
        if !conn.open || host.life != conn.host_life || host.replica.is_none() {
            return;
        }
        let machine = conn.machine;
        self.asked(machine, to.conn, to.up);
    }

    /// A direction between a client or node and a machine is cut once more, or once less.
    pub fn cut_actor(&mut self, actor: usize, machine: usize, way: Way, more: bool) {
        let reach = self.reach(actor, machine);
        let change = |count: &mut u32| {
            *count = if more {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
        };
        // As the machine sees it: what comes in to it goes up.
        if way != Way::Out {
            change(&mut reach.up);
        }
        if way != Way::In {
            change(&mut reach.down);
        }
        if !more {
            self.flush(actor, machine);
        }
    }

    /// What was held at a cut goes on its way.
    fn flush(&mut self, actor: usize, machine: usize) {
        let reach = *self.reach(actor, machine);
        for conn in 0..self.conns.len() {
            let at = &mut self.conns[conn];
            if !at.open || at.actor != actor || at.machine != machine {
                continue;
            }
            if reach.up == 0 {
                for up in std::mem::take(&mut at.held_up) {
                    self.send_up(conn, up);
                }
            }
            if reach.down == 0 {
                for down in std::mem::take(&mut self.conns[conn].held_down) {
                    self.send_down(conn, down);
                }
            }
        }
    }

    /// All clients and nodes reach all machines again.
    pub fn heal_reach(&mut self) {
        for reach in &mut self.reaches {
            *reach = Reach::default();
        }
        for actor in 0..self.actors.len() {
            for machine in 0..self.hosts.len() {
                self.flush(actor, machine);
            }
        }
    }
}

//! What passes between machines: ordered streams, as QUIC's are, or single packets in a harsher mode.
//!
//! A stream's connection keeps what was sent in order. A lost packet only delays it and everything
//! behind it; what is sent into a cut waits, and goes on when the cut ends soon enough. Otherwise, or when
//! a process dies, the connection breaks: all that was under way on it is lost, and a new one begins.
//! In the harsher mode every packet is on its own: lost, doubled, overtaken.
//! A share of the packets goes through the wire's real bytes.

use std::collections::BTreeMap;

use maitred_protocol::{PeerBatch, codec};
use maitred_registry::random::Random;
use maitred_replica::{Input, peer};
use raft::eraftpb::{Message, MessageType};

use super::host::HostEvent;
use super::plan::{Fault, Way};
use super::queue::What;
use super::world::{World, say};

/// Packets that wait at a cut; more are dropped, as a bounded queue does.
const HELD_MAX: usize = 256;
/// How often a host is told again that another cannot be reached.
const TOLD_EVERY_US: u64 = 500_000;

/// What a packet carries.
#[derive(Debug, Clone)]
pub enum Body {
    /// Raft's messages.
    Raft(Vec<Message>),
    /// The same, as a frame.
    Frame(Vec<u8>),
}

/// Something on its way from one machine to another.
#[derive(Debug, Clone)]
pub struct Packet {
    from: usize,
    to: usize,
    /// The numbers of the hosts that it is from and for.
    hosts: (u64, u64),
    connection: u64,
    order: u64,
    body: Body,
}

/// One direction between two machines.
#[derive(Debug, Default)]
pub struct Link {
    /// How many faults cut it now.
    cuts: u32,
    cut_since_us: u64,
    extra_us: u64,
    connection: u64,
    order: u64,
    /// The last packet of the stream arrives then.
    last_us: u64,
    held: Vec<Packet>,
    greeted: bool,
    told_us: u64,
}

impl Link {
    /// Whether packets pass.
    pub fn is_open(&self) -> bool {
        self.cuts == 0
    }

    /// The connection breaks; a new one begins with a greeting.
    pub fn break_off(&mut self) {
        self.connection += 1;
        self.held.clear();
        self.greeted = false;
        self.last_us = 0;
    }
}

/// A delay on a fast network, with a heavy tail.
pub fn delay_us(random: &mut Random) -> u64 {
    let base = 80 + u64::from(random.below(400));
    match random.below(400) {
        0 => base + u64::from(random.below(200_000)),
        1..8 => base + u64::from(random.below(10_000)),
        _ => base,
    }
}

impl World {
    /// One direction between two machines.
    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let machines = self.hosts.len();
        &mut self.links[from * machines + to]
    }

    /// Whether packets pass both ways.
    pub fn is_open(&self, a: usize, b: usize) -> bool {
        let machines = self.hosts.len();
        self.links[a * machines + b].is_open() && self.links[b * machines + a].is_open()
    }

    /// A host sends Raft's messages.
    pub fn post(&mut self, from: usize, messages: Vec<Message>) {
        let mut batches: BTreeMap<u64, Vec<Message>> = BTreeMap::new();
        for message in messages {
            self.note_sent(from, &message);
            batches.entry(message.to).or_default().push(message);
        }
        for (to_host, messages) in batches {
            // A host whose address is not known is not called.
            let Some(to) = self.hosts[from].peer_machine(to_host) else {
                continue;
            };
            let hosts = (self.hosts[from].id, to_host);
            if self.scenario.knobs.harsh {
                for message in messages {
                    self.launch(from, to, hosts, vec![message]);
                }
            } else {
                self.launch(from, to, hosts, messages);
            }
        }
    }

    fn launch(&mut self, from: usize, to: usize, hosts: (u64, u64), messages: Vec<Message>) {
        let (now, harsh, lossy) = (self.now, self.scenario.knobs.harsh, self.lossy);
        let body = self.spell_out(messages);
        let random = &mut self.network;
        let mut delay = delay_us(random);
        let lost = random.below(1_000) < lossy + if harsh { 5 } else { 0 };
        let doubled = harsh && random.below(100) == 0;
        let overtaken = harsh && random.below(30) == 0;
        let late = u64::from(random.below(60_000));
        let machines = self.hosts.len();
        let link = &mut self.links[from * machines + to];
        delay += link.extra_us;
        link.order += 1;
        let packet = Packet {
            from,
            to,
            hosts,
            connection: link.connection,
            order: link.order,
            body,
        };
        if !link.is_open() {
            if harsh || link.held.len() >= HELD_MAX {
                self.cover.count("packet lost at a cut");
            } else {
                link.held.push(packet);
            }
            self.complain(from, to);
            return;
        }
        if harsh {
            if lost {
                return self.cover.count("packet lost");
            }
            if doubled {
                self.cover.count("packet doubled");
                let again = Box::new(packet.clone());
                self.queue.push(now + delay + late, What::Packet(again));
            }
            if overtaken {
                self.cover.count("packet overtaken");
                delay += late;
            }
            return self.queue.push(now + delay, What::Packet(Box::new(packet)));
        }
        if lost {
            self.cover.count("packet sent again");
            delay += 2_000 + late;
        }
        let at = (now + delay).max(link.last_us + 1);
        link.last_us = at;
        self.queue.push(at, What::Packet(Box::new(packet)));
    }

    /// Real bytes for a share of the packets.
    fn spell_out(&mut self, messages: Vec<Message>) -> Body {
        if self.network.below(self.scenario.knobs.bytes_one_in) != 0 {
            return Body::Raft(messages);
        }
        let batch = PeerBatch {
            group: 0,
            messages: messages.into_iter().filter_map(peer::to_wire).collect(),
        };
        let mut bytes = Vec::new();
        match codec::encode(1, &batch, &mut bytes) {
            Ok(()) => self.cover.count("packet in real bytes"),
            Err(error) => self.fail("wire", format!("a batch cannot be encoded: {error}")),
        }
        Body::Frame(bytes)
    }

    fn read_back(&mut self, packet: &Packet, bytes: &[u8]) -> Vec<Message> {
        let read = codec::split(bytes).and_then(|frame| {
            let frame = frame.expect("the whole frame was sent");
            codec::decode::<PeerBatch>(&frame)
        });
        let (from, to) = packet.hosts;
        let ours = self.hosts[packet.to].disk.term();
        let messages = match read {
            Ok(batch) => batch.messages,
            Err(error) => {
                self.fail("wire", format!("a batch cannot be read back: {error}"));
                return Vec::new();
            }
        };
        let mut all = Vec::new();
        for message in messages {
            match peer::from_wire(message, from, to, ours) {
                Ok(message) => all.push(message),
                Err(error) => self.fail("wire", format!("a sound message is refused: {error}")),
            }
        }
        all
    }

    /// A packet arrives, or is lost at the last moment.
    pub fn arrive(&mut self, packet: Packet) {
        let (from, to) = (packet.from, packet.to);
        let harsh = self.scenario.knobs.harsh;
        let link = self.link(from, to);
        if link.connection != packet.connection {
            return;
        }
        if !link.is_open() {
            if !harsh && link.held.len() < HELD_MAX {
                link.held.push(packet);
            }
            return;
        }
        let host = &self.hosts[to];
        if host.replica.is_none() || host.id != packet.hosts.1 {
            // Nobody is there, or another than the one that is meant, who refuses.
            return self.complain(from, to);
        }
        if self.refuses(to, packet.hosts.0) {
            return self.refused(from, packet.hosts.0);
        }
        self.hosts[to].called_by(packet.hosts.0, from);
        self.greet(from, to, packet.hosts);
        let body = match &packet.body {
            Body::Raft(messages) => messages.clone(),
            Body::Frame(bytes) => self.read_back(&packet, bytes),
        };
        for message in body {
            self.tell(from, to, &message);
            if message.msg_type == MessageType::MsgSnapshot {
                self.fetch(to, from, message);
            } else {
                self.give(to, Input::Peer(Box::new(message)));
            }
        }
    }

    fn tell(&mut self, from: usize, to: usize, message: &Message) {
        let Message {
            term,
            log_term,
            index,
            commit,
            reject,
            ..
        } = *message;
        let (kind, entries) = (message.msg_type, message.entries.len());
        say!(
            self,
            "h{from} -> h{to} {kind:?} term {term} at {index}/{log_term} +{entries} commit {commit} reject {reject}"
        );
    }

    /// Whether a host has seen that another is not a member any more: numbers are indices of the log,
    /// so one that it could not have heard of yet is known by its number.
    pub(super) fn refuses(&self, machine: usize, host: u64) -> bool {
        let here = &self.hosts[machine];
        let Some(replica) = &here.replica else {
            return false;
        };
        let registry = replica.registry();
        let member = registry.members().contains_key(&host);
        let linked = here.peers.iter().any(|peer| peer.host == host);
        // A host that does not find itself among the members has too little of the log to judge.
        let judges = registry.members().contains_key(&here.id);
        judges && !member && !linked && registry.applied() >= host
    }

    /// A host is told that it is not a member any more, and ends.
    pub(super) fn refused(&mut self, machine: usize, host: u64) {
        if self.hosts[machine].id == host && self.hosts[machine].replica.is_some() {
            self.cover.count("removed host refused by a peer");
            self.removed(machine);
        }
    }

    /// The first packet of a connection comes after the greeting, which tells both sides' levels.
    fn greet(&mut self, from: usize, to: usize, hosts: (u64, u64)) {
        if self.link(from, to).greeted {
            return;
        }
        self.link(from, to).greeted = true;
        let (theirs, ours) = (self.hosts[from].level_max, self.hosts[to].level_max);
        let host = hosts.0;
        let level_max = theirs;
        self.give(to, Input::Met { host, level_max });
        if self.is_open(from, to) {
            let met = Input::Met {
                host: hosts.1,
                level_max: ours,
            };
            let (life, at) = (
                self.hosts[from].life,
                self.now + delay_us(&mut self.network),
            );
            let event = HostEvent::Input(Box::new(met));
            self.queue.push(at, What::Host(from, life, event));
        }
    }

    /// The sender hears that a peer cannot be reached, now and then.
    fn complain(&mut self, from: usize, to: usize) {
        let (now, idle_us) = (self.now, self.scenario.knobs.idle_us);
        let link = self.link(from, to);
        let dead = link.is_open() || now - link.cut_since_us > idle_us;
        if !dead || now < link.told_us + TOLD_EVERY_US {
            return;
        }
        link.told_us = now;
        let host = &self.hosts[from];
        let numbers = host.peers.iter().map(|peer| peer.host);
        let found = numbers
            .filter(|peer| host.peer_machine(*peer) == Some(to))
            .last();
        if let Some(host) = found {
            self.cover.count("peer unreachable");
            self.give(from, Input::Unreachable(host));
        }
    }

    fn cut(&mut self, from: usize, to: usize, more: bool) {
        let (now, idle_us) = (self.now, self.scenario.knobs.idle_us);
        let link = self.link(from, to);
        if more {
            if link.cuts == 0 {
                link.cut_since_us = now;
            }
            link.cuts += 1;
            return;
        }
        link.cuts = link.cuts.saturating_sub(1);
        if link.cuts > 0 {
            return;
        }
        let mut held = std::mem::take(&mut link.held);
        if now - link.cut_since_us > idle_us {
            link.break_off();
            return self.cover.count("connection lost at a cut");
        }
        held.sort_by_key(|packet| packet.order);
        for packet in held {
            let at = (now + delay_us(&mut self.network)).max(self.link(from, to).last_us + 1);
            self.link(from, to).last_us = at;
            self.queue.push(at, What::Packet(Box::new(packet)));
        }
    }

    fn cut_pair(&mut self, a: usize, b: usize, way: Way, more: bool) {
        if way != Way::Out {
            self.cut(b, a, more);
        }
        if way != Way::In {
            self.cut(a, b, more);
        }
    }

    /// A network fault begins or ends.
    pub fn network_fault(&mut self, fault: Fault, begins: bool) {
        let machines = self.hosts.len();
        match fault {
            Fault::Isolate(super::plan::Pick::Machine(one), way, clients, _) => {
                for other in (0..machines).filter(|other| *other != one) {
                    self.cut_pair(one, other, way, begins);
                }
                if clients {
                    for actor in 0..self.actors.len() {
                        self.cut_actor(actor, one, way, begins);
                    }
                }
            }
            Fault::Cut(a, b, way, _) => self.cut_pair(a, b, way, begins),
            Fault::Split(mask, _) => {
                for a in 0..machines {
                    for b in 0..machines {
                        if mask >> a & 1 == 1 && mask >> b & 1 == 0 {
                            self.cut_pair(a, b, Way::Both, begins);
                        }
                    }
                }
            }
            Fault::Lossy(loss, _) => self.lossy = if begins { loss } else { 0 },
            Fault::Slow(a, b, extra, _) => {
                let extra_us = if begins { extra } else { 0 };
                self.link(a, b).extra_us = extra_us;
                self.link(b, a).extra_us = extra_us;
            }
            Fault::Reconnect(a, b) => {
                self.link(a, b).break_off();
                self.link(b, a).break_off();
            }
            _ => {}
        }
    }

    /// Everything is connected again.
    pub fn heal_network(&mut self) {
        self.lossy = 0;
        let machines = self.hosts.len();
        for from in 0..machines {
            for to in 0..machines {
                self.link(from, to).extra_us = 0;
                while !self.link(from, to).is_open() {
                    self.cut(from, to, false);
                }
            }
        }
    }
}

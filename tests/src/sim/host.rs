//! A machine and the host's process on it: turns, as `server/replica_loop.rs` makes them, and starts
//! and ends of the process.
//!
//! What a process keeps in memory ends with it; the disk stays. A process that is paused takes nothing,
//! and finds everything that came meanwhile when it goes on. A crash may come between any two effects of
//! a turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maitred_protocol::{HostName, Join, NodeName, RequestId, Response};
use maitred_registry::random::Random;
use maitred_replica::{Config, Effect, Input, LEVEL_MAX, Peer, Replica, TakeSnapshot, Ticket};
use raft::eraftpb::Message;

use super::clock::Clock;
use super::disk::{Disk, Saved};
use super::guests::Runner;
use super::plan::Scenario;
use super::queue::What;
use super::sessions::Sessions;
use super::wire::ConnId;
use super::world::{World, say};

/// Ticks that are made up for after a pause, as in production.
const TICKS_LATE_MAX: u64 = 2;
/// Inputs that may wait for a process; more are dropped, as bounded queues do.
const INBOX_MAX: usize = 8_192;
/// Between what comes and the turn that takes it.
const WAKE_US: u64 = 30;

/// What a machine's process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is none.
    Down,
    /// It runs.
    Up,
    /// It is stopped, and will go on.
    Paused,
    /// It runs, and has no number yet.
    Joining,
    /// It was removed from the group, and has ended for good.
    Removed,
}

/// What happens to a process.
#[derive(Debug)]
pub enum HostEvent {
    /// Time for a turn.
    Wake,
    /// An input that was on its way.
    Input(Box<Input>),
    /// The disk has done what it was at.
    Written,
    /// A snapshot is written.
    Saved(Box<TakeSnapshot>),
    /// A snapshot has come from this machine; how often it was tried.
    Fetched(usize, Box<Message>, u32),
    /// And is durable.
    Fetchable(Box<Message>, Arc<Saved>),
    /// Nobody has answered the command of this number.
    Late(u64),
    /// Time to ask for a number.
    AskToJoin,
    /// The answer to that.
    Joined(Box<Response>, BTreeMap<u64, usize>),
    /// A shutdown has come to its end.
    Stopped(u64),
}

/// Who waits for an answer of the replica.
#[derive(Debug, Clone)]
pub enum Asker {
    /// The request of this id on this connection; and the node whose session the answer binds.
    Conn(ConnId, RequestId, Option<NodeName>),
    /// A machine, in this life, that wants to join.
    Join(usize, u32),
    /// Nobody.
    Nobody,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Host {
    /// Which machine.
    pub machine: usize,
    /// The host's number; 0 while it has none.
    pub id: u64,
    /// Proves that it is the one that joined.
    pub instance: u64,
    /// Its clocks.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    /// Grows with every end of its process.
    pub life: u32,
    /// What its process is doing.
    pub state: State,
    /// The process's replica.
    pub replica: Option<Replica>,
    /// The level that its program knows.
    pub level_max: u16,
    /// Whom it is to be connected with.
    pub peers: Vec<Peer>,
    /// Connections of clients and nodes.
    pub conns: BTreeSet<ConnId>,
    /// Nodes' sessions, as this process knows them.
    pub sessions: Sessions,
    /// Spawns under way.
    pub runner: Runner,
    /// Tickets that wait for an answer.
    pub tickets: BTreeMap<u64, Asker>,
    /// What it last said of the leader: number, address, term.
    pub leader: (Option<u64>, Option<String>, u64),
    /// Whether it leads and serves.
    pub serving: bool,
    /// The crash that waits: after so many effects, and how long it is down then.
    pub crash_in: Option<(u32, u64)>,
    pub(super) last_ticket: u64,
    pub(super) answers: u64,
    pub(super) fetching: bool,
    inbox: Vec<Input>,
    /// Keep-alives.
    urgent: Vec<Input>,
    next_tick_us: u64,
    wake_at: u64,
    /// The members that it was told of when it joined.
    pub(super) seeds: BTreeMap<u64, usize>,
    /// Callers that are not members yet, as far as it knows: they are answered where they called from.
    pub(super) strangers: BTreeMap<u64, usize>,
    pub(super) asked: usize,
    pub(super) announced: bool,
    shutting_down: Option<u64>,
}

/// The address of a machine.
pub fn address_of(machine: usize) -> String {
    format!("h{machine}:1")
}

/// The machine of an address.
pub fn machine_of(address: &str) -> Option<usize> {
    address.strip_prefix('h')?.strip_suffix(":1")?.parse().ok()
}

impl Host {
    /// A machine; those of the beginning have the numbers from 1 on.
    pub fn new(machine: usize, scenario: &Scenario, random: &mut Random) -> Self {
        let first = machine < scenario.founders;
        Self {
            machine,
            id: if first { machine as u64 + 1 } else { 0 },
            instance: machine as u64 + 1,
            clock: Clock::drawn(random),
            disk: Disk::default(),
            life: 0,
            state: State::Down,
            replica: None,
            level_max: LEVEL_MAX,
            peers: Vec::new(),
            conns: BTreeSet::new(),
            sessions: Sessions::default(),
            runner: Runner::default(),
            tickets: BTreeMap::new(),
            leader: (None, None, 0),
            serving: false,
            crash_in: None,
            last_ticket: 0,
            answers: 0,
            fetching: false,
            inbox: Vec::new(),
            urgent: Vec::new(),
            next_tick_us: 0,
            wake_at: u64::MAX,
            seeds: (0..scenario.founders)
                .map(|one| (one as u64 + 1, one))
                .collect(),
            strangers: BTreeMap::new(),
            asked: 0,
            announced: false,
            shutting_down: None,
        }
    }

    /// Whether a process is there that answers sooner or later.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up | State::Paused)
    }

    /// The machine of a peer, when its address is known: from the members that its replica knows, or
    /// else from those that it was told of when it joined, or from its own call.
    pub fn peer_machine(&self, host: u64) -> Option<usize> {
        let peer = self.peers.iter().find(|peer| peer.host == host);
        let known = peer.and_then(|peer| machine_of(&peer.address));
        let told = self.seeds.get(&host).or(self.strangers.get(&host));
        known.or(told.copied())
    }

    /// A host has called from this machine; it may be a member that this one has not heard of yet.
    pub fn called_by(&mut self, host: u64, machine: usize) {
        if self.peers.iter().all(|peer| peer.host != host) {
            self.strangers.insert(host, machine);
        }
    }

    /// The members have changed: whom it knows by now is no stranger, nor is one that was removed.
    pub fn follow_peers(&mut self, peers: Vec<Peer>) {
        let replica = self.replica.as_ref();
        let applied = replica.map_or(0, |replica| replica.registry().applied());
        let known = |host: u64| peers.iter().any(|peer| peer.host == host);
        self.strangers
            .retain(|host, _| *host > applied && !known(*host));
        self.peers = peers;
    }

    /// Its name.
    pub fn name(&self) -> HostName {
        HostName::new(format!("host-{}", self.machine + 1)).expect("letters and digits")
    }

    /// What it says of itself when it asks to be taken in.
    pub(super) fn join(&self) -> Join {
        Join {
            host: self.id,
            name: self.name(),
            address: address_of(self.machine),
            instance: self.instance,
            level_max: self.level_max,
        }
    }

    /// It will come back as somebody else.
    pub fn lose_disk(&mut self, instance: u64) {
        self.disk = Disk::default();
        self.id = 0;
        self.instance = instance;
    }
}

impl World {
    fn config(&self, machine: usize) -> Config {
        let (host, knobs) = (&self.hosts[machine], &self.scenario.knobs);
        Config {
            voters: (1..=self.scenario.founders as u64).collect(),
            name: host.name(),
            address: address_of(machine),
            instance: host.instance,
            level_max: host.level_max,
            tick_us: knobs.tick_us,
            election_ticks: knobs.election_ticks,
            heartbeat_ticks: knobs.heartbeat_ticks,
            lease_reads: knobs.lease_reads,
            disk_slow_us: 300_000,
            seed: self.scenario.seed ^ (u64::from(host.life) << 32) ^ host.id,
            snapshot_entries: knobs.snapshot_entries,
            log_kept_bytes: knobs.log_kept_bytes,
            ..Config::new(host.id)
        }
    }

    /// A machine's process begins.
    pub fn start_host(&mut self, machine: usize) {
        let host = &mut self.hosts[machine];
        if host.state != State::Down {
            return;
        }
        if host.id == 0 {
            host.state = State::Joining;
            host.announced = false;
            let (life, at) = (host.life, self.now + 1_000);
            return self
                .queue
                .push(at, What::Host(machine, life, HostEvent::AskToJoin));
        }
        let now = host.clock.now(self.now);
        let recovered = host.disk.recovered();
        self.checks.started(machine, &recovered);
        let config = self.config(machine);
        self.verify("start", config.validate());
        let tick_us = config.tick_us;
        let replica = match Replica::new(config, recovered, now, &self.logger) {
            Ok(replica) => replica,
            Err(error) => {
                let text = format!("machine {machine} cannot start: {error}");
                return self.fail("start", text);
            }
        };
        let host = &mut self.hosts[machine];
        host.replica = Some(replica);
        host.state = State::Up;
        host.next_tick_us = now.mono_us + tick_us;
        host.sessions.begin(host.life);
        say!(self, "h{machine} starts as host {}", self.hosts[machine].id);
        self.cover.count("host started");
        self.wake(machine, 0);
        // It says where it is, until somebody has written that down.
        let (life, at) = (self.hosts[machine].life, self.now + 50_000);
        self.hosts[machine].announced = false;
        self.queue
            .push(at, What::Host(machine, life, HostEvent::AskToJoin));
    }

    /// A machine's process is gone, at once.
    pub fn kill_host(&mut self, machine: usize) {
        if self.hosts[machine].state == State::Down {
            return;
        }
        say!(self, "h{machine} dies");
        self.hosts[machine].disk.crash(&mut self.storage);
        self.end_process(machine);
    }

    /// The members as a host knows them, as the answer to a join says them.
    pub(super) fn known_members(&self, machine: usize) -> BTreeMap<u64, usize> {
        let replica = self.hosts[machine].replica.iter();
        let members = replica.flat_map(|replica| replica.registry().members());
        members
            .filter_map(|(host, member)| Some((*host, machine_of(&member.address)?)))
            .collect()
    }

    /// What a process kept in memory ends with it.
    pub(super) fn end_process(&mut self, machine: usize) {
        let founders = self.scenario.founders as u64;
        let host = &mut self.hosts[machine];
        host.life += 1;
        host.state = State::Down;
        host.replica = None;
        host.inbox.clear();
        host.urgent.clear();
        host.tickets.clear();
        host.sessions = Sessions::default();
        host.runner = Runner::default();
        host.serving = false;
        host.leader = (None, None, 0);
        host.crash_in = None;
        host.fetching = false;
        host.wake_at = u64::MAX;
        host.shutting_down = None;
        host.peers.clear();
        host.strangers.clear();
        host.seeds.retain(|host, _| *host <= founders);
        let conns = std::mem::take(&mut host.conns);
        self.checks.ended(machine);
        for other in 0..self.hosts.len() {
            self.link(machine, other).break_off();
            self.link(other, machine).break_off();
        }
        for conn in conns {
            self.conns[conn].open = false;
            self.notice_loss(conn);
        }
    }

    /// A keep-alive is taken before everything else that waits, as the server does.
    pub fn give_first(&mut self, machine: usize, input: Input) {
        let host = &mut self.hosts[machine];
        if host.replica.is_none() || host.urgent.len() >= INBOX_MAX {
            return;
        }
        host.urgent.push(input);
        self.wake(machine, WAKE_US);
    }

    /// Something for a process; what does not fit is dropped.
    pub fn give(&mut self, machine: usize, input: Input) {
        let host = &mut self.hosts[machine];
        if host.replica.is_none() || host.inbox.len() >= INBOX_MAX {
            return;
        }
        host.inbox.push(input);
        self.wake(machine, WAKE_US);
    }

    /// The next turn is in so many microseconds, at the latest.
    fn wake(&mut self, machine: usize, within_us: u64) {
        let at = self.now + within_us;
        let host = &mut self.hosts[machine];
        if at < host.wake_at {
            host.wake_at = at;
            let life = host.life;
            self.queue
                .push(at, What::Host(machine, life, HostEvent::Wake));
        }
    }

    /// A process is stopped for a while.
    pub fn pause_host(&mut self, machine: usize) -> bool {
        let host = &mut self.hosts[machine];
        if host.state != State::Up {
            return false;
        }
        host.state = State::Paused;
        say!(self, "h{machine} pauses");
        true
    }

    /// A process that was stopped goes on.
    pub fn resume_host(&mut self, machine: usize) {
        if self.hosts[machine].state == State::Paused {
            self.hosts[machine].state = State::Up;
            self.hosts[machine].wake_at = u64::MAX;
            say!(self, "h{machine} goes on");
            self.wake(machine, 0);
        }
    }

    /// Something happens to a process.
    pub fn host_event(&mut self, machine: usize, life: u32, event: HostEvent) {
        if self.hosts[machine].life != life {
            return;
        }
        match event {
            HostEvent::Wake => self.turn(machine),
            HostEvent::Input(input) => self.give(machine, *input),
            HostEvent::Written => self.written(machine),
            HostEvent::Saved(take) => self.saved(machine, *take),
            HostEvent::Fetched(from, message, tries) => {
                self.fetched(machine, from, *message, tries);
            }
            HostEvent::Fetchable(message, saved) => self.install(machine, *message, saved),
            HostEvent::Late(number) => self.command_late(machine, number),
            HostEvent::AskToJoin => self.ask_to_join(machine),
            HostEvent::Joined(response, members) => {
                self.hosts[machine].seeds.extend(members);
                self.joined(machine, *response);
            }
            HostEvent::Stopped(down_us) => {
                say!(self, "h{machine} has shut down");
                // What was written is waited for; what was not acknowledged may be lost.
                self.hosts[machine].disk.crash(&mut self.storage);
                self.end_process(machine);
                let life = self.hosts[machine].life;
                let start = super::plan::Mend::Start(machine, life);
                self.queue.push(self.now + down_us, What::Mend(start));
            }
        }
    }

    /// One turn of the replica's thread.
    fn turn(&mut self, machine: usize) {
        let host = &mut self.hosts[machine];
        if host.wake_at != self.now || host.state != State::Up {
            return;
        }
        host.wake_at = u64::MAX;
        let Some(replica) = &mut host.replica else {
            return;
        };
        let now = host.clock.now(self.now);
        let tick_us = self.scenario.knobs.tick_us;
        // Also before a tick, which would find the leases run out that they renew.
        for input in host.urgent.drain(..) {
            replica.step(now, input);
        }
        while host.next_tick_us <= now.mono_us {
            replica.step(now, Input::Tick);
            let oldest = now.mono_us.saturating_sub(TICKS_LATE_MAX * tick_us);
            host.next_tick_us = (host.next_tick_us + tick_us).max(oldest);
        }
        for input in host.inbox.drain(..) {
            replica.step(now, input);
        }
        let mut effects = Vec::new();
        replica.effects(now, &mut effects);
        let ttl_us = u64::from(self.scenario.knobs.ttl_ms) * 1_000;
        let host = &self.hosts[machine];
        let found = self
            .checks
            .entries(self.now, host, &effects, (ttl_us, tick_us));
        if let Err(violation) = found {
            return self.fail(violation.checker, violation.text);
        }
        for effect in effects {
            if self.crash_is_due(machine) {
                return;
            }
            self.dispatch(machine, effect);
        }
        self.after_turn(machine);
    }

    /// Whether the process dies just before its next effect.
    fn crash_is_due(&mut self, machine: usize) -> bool {
        let Some((left, down_us)) = self.hosts[machine].crash_in else {
            return self.hosts[machine].replica.is_none();
        };
        if left > 0 {
            self.hosts[machine].crash_in = Some((left - 1, down_us));
            return false;
        }
        self.cover.count("host crashed within a turn");
        self.kill_host(machine);
        let start = super::plan::Mend::Start(machine, self.hosts[machine].life);
        self.queue.push(self.now + down_us, What::Mend(start));
        true
    }

    fn after_turn(&mut self, machine: usize) {
        let host = &self.hosts[machine];
        let Some(replica) = &host.replica else { return };
        let mut next = host.next_tick_us;
        if let Some(wake) = replica.next_wake_us() {
            next = next.min(wake.max(host.clock.mono_us(self.now) + 1));
        }
        let at = host.clock.true_us(next);
        match self.checks.applied(host, replica, &mut self.cover) {
            Ok(fresh) => self.check_applied(&fresh),
            Err(violation) => self.fail(violation.checker, violation.text),
        }
        self.wake(machine, at.saturating_sub(self.now).max(1));
        if let Some(down_us) = self.hosts[machine].shutting_down.take() {
            let (life, at) = (self.hosts[machine].life, self.now + 150_000);
            let event = HostEvent::Stopped(down_us);
            self.queue.push(at, What::Host(machine, life, event));
        }
    }

    /// A clean end: the replica is told, and has a moment for it.
    pub fn shut_down(&mut self, machine: usize, down_us: u64) -> bool {
        if self.hosts[machine].state != State::Up || self.hosts[machine].shutting_down.is_some() {
            return false;
        }
        say!(self, "h{machine} shuts down");
        self.give(machine, Input::Shutdown);
        self.hosts[machine].shutting_down = Some(down_us);
        true
    }

    /// A new ticket, for somebody.
    pub fn ticket(&mut self, machine: usize, asker: Asker) -> Ticket {
        let host = &mut self.hosts[machine];
        host.last_ticket += 1;
        let number = host.last_ticket;
        host.tickets.insert(number, asker);
        Ticket(number)
    }

    /// An effect of the replica is carried out.
    pub(super) fn dispatch(&mut self, machine: usize, effect: Effect) {
        self.carry_out(machine, effect);
    }
}

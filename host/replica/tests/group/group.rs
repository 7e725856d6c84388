//! Several replicas in one test: messages arrive at once and in order, writes are durable at once,
//! unless the test says otherwise; time moves only when the test moves it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use maitred_protocol::{
    ClientId, HostName, Join, KeepAliveAck, Members, NodeEpoch, Request, Response,
};
use maitred_registry::decide::{LaneId, SelectBatch, decide};
use maitred_registry::{Command, Loader};
use maitred_replica::{
    Config, Effect, Input, Install, Now, Persist, Recovered, RecoveredSnapshot, Replica, Spawned,
    TakeSnapshot, Ticket,
};
use raft::eraftpb::{ConfState, Entry, HardState, Message, MessageType};

/// Chooses a node for everything in a batch, as a host without a selector's module does.
fn decided(lane: LaneId, mut batch: SelectBatch) -> Input {
    let selector = batch.selector.clone();
    let none = || Err("no selector is there".to_owned());
    let decisions = (batch.jobs.iter())
        .map(|job| decide(&mut batch.fleet, job, &selector, none(), batch.time_s, || 1))
        .collect();
    Input::Selected { lane, decisions }
}

/// What a host has on its disc.
#[derive(Debug, Default, Clone)]
pub(crate) struct Disc {
    hard_state: HardState,
    entries: Vec<Entry>,
    start: (u64, u64),
    pub(crate) snapshots: BTreeMap<u64, (u64, ConfState, Vec<Vec<u8>>)>,
}

fn load(chunks: &[Vec<u8>]) -> maitred_registry::Registry {
    let mut loader = Loader::new();
    for chunk in chunks {
        loader.chunk(chunk).unwrap();
    }
    loader.finish().unwrap()
}

impl Disc {
    fn recovered(&self) -> Recovered {
        let snapshot = self.snapshots.last_key_value();
        let snapshot = snapshot.map(|(index, (term, conf_state, chunks))| RecoveredSnapshot {
            index: *index,
            term: *term,
            conf_state: conf_state.clone(),
            registry: load(chunks),
        });
        Recovered {
            hard_state: self.hard_state.clone(),
            entries: self.entries.clone(),
            start_index: self.start.0,
            start_term: self.start.1,
            snapshot,
        }
    }

    fn persist(&mut self, persist: &mut Persist) {
        if let Some(start) = persist.reset {
            (self.start, self.entries) = (start, Vec::new());
        }
        if let Some(first) = persist.entries.first() {
            let keep = (first.index - self.start.0 - 1) as usize;
            assert!(keep <= self.entries.len(), "the log has a gap");
            self.entries.truncate(keep);
            self.entries.append(&mut persist.entries);
        }
        if let Some(hard_state) = persist.hard_state.take() {
            self.hard_state = hard_state;
        }
    }

    fn save(&mut self, take: &TakeSnapshot) -> Input {
        let mut chunks = Vec::new();
        let encoded = take.state.encode(|chunk| {
            chunks.push(chunk);
            Ok::<(), std::convert::Infallible>(())
        });
        encoded.unwrap();
        let floor = self.snapshots.keys().next_back().copied().unwrap_or(0);
        let saved = (take.term, take.conf_state.clone(), chunks);
        self.snapshots.insert(take.index, saved);
        while self.snapshots.len() > 2 {
            self.snapshots.pop_first();
        }
        let index = Some(take.index);
        Input::SnapshotSaved { index, floor }
    }

    fn compact(&mut self, through: u64) {
        let cut = through.saturating_sub(self.start.0) as usize;
        if let Some(last) = self.entries.drain(..cut).next_back() {
            self.start = (last.index, last.term);
        }
    }
}

struct Host {
    config: Config,
    replica: Option<Replica>,
    disc: Disc,
}

/// See the head of this file.
pub(crate) struct Group {
    hosts: BTreeMap<u64, Host>,
    mail: VecDeque<Message>,
    pub(crate) now: Now,
    /// Pairs between which nothing passes, both ways.
    pub(crate) cut: BTreeSet<(u64, u64)>,
    /// Hosts whose writes do not end.
    pub(crate) stuck: BTreeSet<u64>,
    /// Hosts for which no time passes.
    pub(crate) paused: BTreeSet<u64>,
    /// Hosts whose writes of entries do not end, and of votes do.
    pub(crate) entries_stuck: BTreeSet<u64>,
    held: Vec<(u64, Persist)>,
    pub(crate) answers: BTreeMap<u64, Response>,
    /// What nodes were told, and by which host.
    pub(crate) acks: Vec<(u64, KeepAliveAck)>,
    pub(crate) removed: BTreeSet<u64>,
    /// The hosts that each wants links with.
    links: BTreeMap<u64, BTreeSet<u64>>,
    pub(crate) installs: u64,
    last_ticket: u64,
}

impl Group {
    /// A group of these voters, none of which has said anything yet.
    pub(crate) fn new(voters: &[u64], change: impl Fn(&mut Config)) -> Self {
        let mut group = Self {
            hosts: BTreeMap::new(),
            mail: VecDeque::new(),
            now: Now {
                mono_us: 1_000_000,
                wall_ms: 1_000,
            },
            cut: BTreeSet::new(),
            stuck: BTreeSet::new(),
            paused: BTreeSet::new(),
            entries_stuck: BTreeSet::new(),
            held: Vec::new(),
            answers: BTreeMap::new(),
            acks: Vec::new(),
            removed: BTreeSet::new(),
            links: BTreeMap::new(),
            installs: 0,
            last_ticket: 0,
        };
        for host in voters {
            group.add(*host, voters, &change);
        }
        group
    }

    /// One more host, with an empty disc.
    pub(crate) fn add(&mut self, id: u64, voters: &[u64], change: impl Fn(&mut Config)) {
        let mut config = Config {
            voters: voters.to_vec(),
            address: format!("10.0.0.{id}:7600"),
            seed: 7 * id,
            ..Config::new(id)
        };
        change(&mut config);
        let host = Host {
            config,
            replica: None,
            disc: Disc::default(),
        };
        self.hosts.insert(id, host);
        self.start(id);
    }

    /// A host starts from its disc.
    pub(crate) fn start(&mut self, id: u64) {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        self.links.remove(&id);
        let host = self.hosts.get_mut(&id).unwrap();
        let (config, recovered) = (host.config.clone(), host.disc.recovered());
        host.replica = Some(Replica::new(config, recovered, self.now, &logger).unwrap());
        let known: Vec<_> = (self.hosts.iter())
            .map(|(host, state)| (*host, state.config.level_max))
            .collect();
        for (host, level_max) in known {
            self.step(id, Input::Met { host, level_max });
            if self.is_up(host) {
                let level_max = self.hosts[&id].config.level_max;
                self.step(
                    host,
                    Input::Met {
                        host: id,
                        level_max,
                    },
                );
            }
        }
    }

    /// A host dies; what was not written is lost.
    pub(crate) fn kill(&mut self, id: u64) {
        self.hosts.get_mut(&id).unwrap().replica = None;
        self.held.retain(|(host, _)| *host != id);
        self.stuck.remove(&id);
    }

    pub(crate) fn is_up(&self, id: u64) -> bool {
        self.hosts[&id].replica.is_some()
    }

    pub(crate) fn exists(&self, id: u64) -> bool {
        self.hosts.contains_key(&id)
    }

    /// The expiries in a host's log, committed or not: their indices, and the sessions.
    pub(crate) fn expiries(&self, id: u64) -> Vec<(u64, NodeEpoch)> {
        let entries = self.disc(id).entries.iter();
        let expiry = |entry: &Entry| {
            let level_max = maitred_replica::LEVEL_MAX;
            let decoded = maitred_registry::Entry::decode(&entry.data, level_max).ok()?;
            match decoded.command {
                Command::Expire { epoch, .. } => Some((entry.index, epoch)),
                _ => None,
            }
        };
        entries.filter_map(expiry).collect()
    }

    /// Which level a host can carry out when it starts next.
    pub(crate) fn set_level(&mut self, id: u64, level_max: u16) {
        self.hosts.get_mut(&id).unwrap().config.level_max = level_max;
    }

    pub(crate) fn replica(&self, id: u64) -> &Replica {
        self.hosts[&id].replica.as_ref().unwrap()
    }

    pub(crate) fn disc(&self, id: u64) -> &Disc {
        &self.hosts[&id].disc
    }

    /// Nothing passes between one host and all others; or does again.
    pub(crate) fn isolate(&mut self, id: u64) {
        self.cut = self
            .hosts
            .keys()
            .map(|other| (id.min(*other), id.max(*other)))
            .collect();
    }

    pub(crate) fn step(&mut self, id: u64, input: Input) {
        let Some(replica) = &mut self.hosts.get_mut(&id).unwrap().replica else {
            return;
        };
        replica.step(self.now, input);
        self.run(id);
    }

    fn run(&mut self, id: u64) {
        let mut effects = Vec::new();
        loop {
            let Some(replica) = &mut self.hosts.get_mut(&id).unwrap().replica else {
                return;
            };
            replica.effects(self.now, &mut effects);
            if effects.is_empty() {
                return;
            }
            for effect in effects.drain(..) {
                self.carry_out(id, effect);
            }
        }
    }

    fn persist(&mut self, id: u64, mut persist: Persist) {
        let host = self.hosts.get_mut(&id).unwrap();
        host.disc.persist(&mut persist);
        self.mail.extend(persist.release);
        let replica = host.replica.as_mut().unwrap();
        replica.step(self.now, Input::Persisted(persist.number));
    }

    /// Writes are in order: what comes after one that is held is held too.
    fn is_stuck(&self, id: u64, persist: &Persist) -> bool {
        self.stuck.contains(&id)
            || self.held.iter().any(|(host, _)| *host == id)
            || (self.entries_stuck.contains(&id) && !persist.entries.is_empty())
    }

    fn carry_out(&mut self, id: u64, effect: Effect) {
        match effect {
            Effect::Persist(persist) if self.is_stuck(id, &persist) => {
                self.held.push((id, persist));
            }
            Effect::Persist(persist) => self.persist(id, persist),
            Effect::Send(messages) => self.mail.extend(messages),
            Effect::Reply(ticket, answer) => {
                let before = self.answers.insert(ticket.0, answer.into_response());
                assert!(before.is_none(), "ticket {} is answered twice", ticket.0);
            }
            Effect::Snapshot(take) => {
                let host = self.hosts.get_mut(&id).unwrap();
                let saved = host.disc.save(&take);
                host.replica.as_mut().unwrap().step(self.now, saved);
            }
            Effect::Compact(through) => {
                self.hosts.get_mut(&id).unwrap().disc.compact(through);
            }
            Effect::Peers(peers) => {
                let hosts = peers.iter().map(|peer| peer.host).collect();
                self.links.insert(id, hosts);
            }
            Effect::Select { lane, batch } => {
                let replica = self.hosts.get_mut(&id).unwrap().replica.as_mut();
                replica.unwrap().step(self.now, decided(lane, batch));
            }
            Effect::Spawn(job) => {
                let started = Input::Spawned {
                    key: job.key,
                    incarnation: job.incarnation,
                    result: Spawned::Started {
                        pid: "started".to_owned(),
                        share: Vec::new(),
                    },
                    over: false,
                };
                let replica = self.hosts.get_mut(&id).unwrap().replica.as_mut();
                replica.unwrap().step(self.now, started);
            }
            Effect::KeepAliveAck { ack, .. } => self.acks.push((id, ack)),
            Effect::Removed => {
                self.removed.insert(id);
            }
            Effect::Lost { .. } | Effect::TooOld { .. } => panic!("host {id}: {effect:?}"),
            _ => {}
        }
    }

    fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from, message.to);
        if !self
            .links
            .get(&from)
            .is_some_and(|links| links.contains(&to))
        {
            return;
        }
        let known = self
            .hosts
            .get(&to)
            .is_some_and(|host| host.replica.is_some());
        if !known || self.cut.contains(&(from.min(to), from.max(to))) {
            return;
        }
        let wire = maitred_replica::peer::to_wire(message).unwrap();
        let message = maitred_replica::peer::from_wire(wire, from, to, 0).unwrap();
        if message.get_msg_type() != MessageType::MsgSnapshot {
            return self.step(to, Input::Peer(Box::new(message)));
        }
        let index = message.get_snapshot().get_metadata().index;
        let Some((term, conf_state, chunks)) =
            self.hosts[&from].disc.snapshots.get(&index).cloned()
        else {
            return;
        };
        let registry = load(&chunks);
        let disc = &mut self.hosts.get_mut(&to).unwrap().disc;
        disc.snapshots.insert(index, (term, conf_state, chunks));
        self.installs += 1;
        self.step(to, Input::Install(Box::new(Install { message, registry })));
    }

    /// Everything that is on its way arrives.
    pub(crate) fn settle(&mut self) {
        while let Some(message) = self.mail.pop_front() {
            self.deliver(message);
        }
    }

    /// A host is told once more of the newest snapshot of another, as its leader would after a loss.
    pub(crate) fn offer_again(&mut self, from: u64, to: u64) {
        let saved = self.hosts[&from].disc.snapshots.last_key_value();
        let (index, (term, conf_state, _)) = saved.unwrap();
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgSnapshot);
        (message.from, message.to) = (from, to);
        message.term = self.replica(from).term();
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (*index, *term);
        metadata.set_conf_state(conf_state.clone());
        self.mail.push_back(message);
        self.settle();
    }

    /// Time passes for everybody.
    pub(crate) fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(20) {
            self.now.mono_us += 20_000;
            self.now.wall_ms += 20;
            let up: Vec<u64> = self
                .hosts
                .keys()
                .copied()
                .filter(|id| self.is_up(*id) && !self.paused.contains(id))
                .collect();
            for id in up {
                self.step(id, Input::Tick);
            }
            self.settle();
        }
    }

    /// The writes of a host go on.
    pub(crate) fn unstick(&mut self, id: u64) {
        self.stuck.remove(&id);
        let (mine, others) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(host, _)| *host == id);
        self.held = others;
        let mine: Vec<(u64, Persist)> = mine;
        for (_, persist) in mine {
            self.persist(id, persist);
            self.run(id);
        }
        self.settle();
    }

    /// Asks a host; the ticket.
    pub(crate) fn ask(&mut self, id: u64, sequence: u64, request: Request) -> u64 {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let input = Input::Request {
            ticket,
            sequence,
            request,
        };
        self.step(id, input);
        self.settle();
        ticket.0
    }

    /// Asks, and waits a little for the answer.
    pub(crate) fn answer(&mut self, id: u64, sequence: u64, request: Request) -> Response {
        let ticket = self.ask(id, sequence, request);
        for _ in 0..200 {
            if let Some(answer) = self.answers.get(&ticket) {
                return answer.clone();
            }
            self.pass(20);
        }
        panic!("no answer");
    }

    pub(crate) fn join(&mut self, at: u64, join: Join) -> Response {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.step(at, Input::Join { ticket, join });
        self.settle();
        for _ in 0..200 {
            if let Some(answer) = self.answers.get(&ticket.0) {
                return answer.clone();
            }
            self.pass(20);
        }
        panic!("no answer");
    }

    /// The members as a host has applied them.
    pub(crate) fn members_wanted(&self, at: u64) -> &BTreeMap<u64, maitred_registry::Member> {
        self.replica(at).registry().members()
    }

    pub(crate) fn members(&mut self, at: u64) -> Members {
        match self.answer(at, 0, Request::ListMembers) {
            Response::Members(members) => *members,
            other => panic!("{other:?}"),
        }
    }

    /// Who leads in the eyes of a host.
    pub(crate) fn leader_of(&mut self, at: u64) -> Option<u64> {
        self.members(at).leader
    }

    /// Lets time pass until all hosts that are up agree on a leader, and it serves.
    pub(crate) fn elect(&mut self) -> u64 {
        for _ in 0..500 {
            self.pass(20);
            let up: Vec<u64> = self
                .hosts
                .keys()
                .copied()
                .filter(|id| self.is_up(*id))
                .collect();
            let leaders: BTreeSet<_> = up.iter().map(|id| self.leader_of(*id)).collect();
            if let [Some(leader)] = leaders.iter().copied().collect::<Vec<_>>()[..]
                && self.is_up(leader)
                && let Response::Session(_) = self.answer(leader, 1, Request::OpenSession)
            {
                return leader;
            }
        }
        panic!("no leader");
    }

    /// A session.
    pub(crate) fn session(&mut self, at: u64) -> ClientId {
        match self.answer(at, 1, Request::OpenSession) {
            Response::Session(client) => client,
            other => panic!("{other:?}"),
        }
    }

    /// All hosts that are up have the same state.
    pub(crate) fn assert_equal(&self) {
        let up = self
            .hosts
            .iter()
            .filter_map(|(id, host)| Some((id, host.replica.as_ref()?)));
        let states: Vec<_> = up
            .map(|(id, replica)| {
                (
                    id,
                    replica.registry().applied(),
                    replica.registry().digest(),
                )
            })
            .collect();
        for pair in states.windows(2) {
            assert_eq!((pair[0].1, pair[0].2), (pair[1].1, pair[1].2), "{states:?}");
        }
    }
}

pub(crate) fn join_of(host: u64, name: &str, instance: u64) -> Join {
    Join {
        host,
        name: HostName::new(name).unwrap(),
        address: format!("10.0.0.{instance}:7600"),
        instance,
        level_max: maitred_replica::LEVEL_MAX,
    }
}

//! Linearizable reads, and the proof that this host still leads (Ongaro's thesis, section 6.4).
//!
//! Reads that come while two rounds are under way share the next one. A round is granted when a
//! quorum has confirmed, after the round was asked for, that the leader still leads; it is served
//! once everything up to its index is applied. A follower asks its leader. Keep-alives wait for a
//! round too: what is acknowledged without one could outlive the leader's reign, and with it the
//! node its lease.
//!
//! **Lease.** Where [`Config::lease_reads`] allows it, a round that was granted to the leader lets it
//! answer alone for [`Config::lease_us`] from the moment the round was *asked for*: no host that
//! confirmed it votes for another before its shortest election time-out is over. There is no lease
//! any more in a term in which leadership was handed over, though it came to nothing: that election
//! waits for nobody, and the word to begin it may be late. And a host that has just started holds its
//! vote back, since it does not remember what it confirmed.

use std::collections::VecDeque;

use maitred_protocol::{
    CreateParty, CreateProcess, Join, KeepAliveAck, Request, RequestId, Response, Revision,
};
use maitred_registry::{Node, Record};
use raft::eraftpb::{Message, MessageType};

use crate::config::Config;
use crate::effect::{Answer, Effect};
use crate::input::Ticket;
use crate::mutants;
use crate::replica::Replica;
use crate::saga::Joined;

/// A round of reads.
#[derive(Debug)]
struct Round {
    number: u64,
    /// When it was first asked for, and when last.
    first_us: u64,
    asked_us: u64,
    index: Option<u64>,
    waiting: Vec<Waiting>,
}

/// What waits for the proof that this host, or the leader that it asks, still leads.
#[derive(Debug)]
enum Waiting {
    /// A read, and what was applied when it came.
    Read(Ticket, Request, u64),
    /// A host that says where it is.
    Join(Ticket, Join),
    /// A create whose key seems to be taken.
    Create(Joined),
    /// One whose session, or a module of which, seems to be unknown.
    NewCreate(Ticket, RequestId, Box<CreateProcess>),
    /// A party: only a leader may say that a key is taken.
    Party(Ticket, RequestId, Box<CreateParty>),
    /// A keep-alive's acknowledgement, and the link that it goes to.
    Ack(u64, KeepAliveAck),
}

/// Reads that wait.
#[derive(Debug)]
pub(crate) struct Reads {
    next: Vec<Waiting>,
    rounds: VecDeque<Round>,
    number: u64,
    /// Tells rounds of this run of this host from all others': an answer to a question of an earlier
    /// run would be too old.
    run: [u8; 16],
    again_us: u64,
    lease_us: Option<u64>,
    lease_until_us: u64,
    /// The last term in which leadership was handed over.
    handed_over: u64,
    votes_from_us: Option<u64>,
    longest_election_us: u64,
}

/// Rounds that may be under way without an answer; what comes meanwhile shares the next.
const ROUNDS_MAX: usize = 2;

/// Microseconds after which reads that nobody could grant are given back.
const PATIENCE_US: u64 = 2_000_000;

impl Reads {
    pub(crate) fn new(config: &Config) -> Self {
        let mut run = [0; 16];
        run[..8].copy_from_slice(&config.id.to_le_bytes());
        run[8..].copy_from_slice(&config.seed.to_le_bytes());
        Self {
            next: Vec::new(),
            rounds: VecDeque::new(),
            number: 0,
            run,
            // Raft drops questions without a word when leadership is unsettled.
            again_us: 4 * config.heartbeat_ticks as u64 * config.tick_us,
            lease_us: config.lease_reads.then(|| config.lease_us()),
            lease_until_us: 0,
            handed_over: 0,
            votes_from_us: None,
            longest_election_us: 2 * config.election_ticks as u64 * config.tick_us,
        }
    }

    fn context(&self, number: u64) -> Vec<u8> {
        [&self.run[..], &number.to_le_bytes()].concat()
    }

    pub(crate) fn push(&mut self, ticket: Ticket, request: Request, applied: u64) {
        self.next.push(Waiting::Read(ticket, request, applied));
    }

    /// A host to whom only a leader may say that it is no member.
    pub(crate) fn push_join(&mut self, ticket: Ticket, join: Join) {
        self.next.push(Waiting::Join(ticket, join));
    }

    /// A create that would be answered from the state as it is: only a leader may say that a key is
    /// taken.
    pub(crate) fn push_create(&mut self, joined: Joined) {
        self.next.push(Waiting::Create(joined));
    }

    /// A create that would be refused by the state as it is.
    pub(crate) fn push_new_create(
        &mut self,
        ticket: Ticket,
        request: RequestId,
        create: Box<CreateProcess>,
    ) {
        self.next.push(Waiting::NewCreate(ticket, request, create));
    }

    /// A party, which is looked at when it is certain that this host leads.
    pub(crate) fn push_party(
        &mut self,
        ticket: Ticket,
        request: RequestId,
        party: Box<CreateParty>,
    ) {
        self.next.push(Waiting::Party(ticket, request, party));
    }

    /// An acknowledgement that leaves when a round that begins now is granted.
    pub(crate) fn push_ack(&mut self, link: u64, ack: KeepAliveAck) {
        self.next.push(Waiting::Ack(link, ack));
    }

    /// Rounds that were granted; the term says in which one this host leads, if it does.
    pub(crate) fn granted(&mut self, granted: Vec<(Vec<u8>, u64)>, leads: Option<u64>) {
        let leases = leads.is_some_and(|term| term > self.handed_over);
        for (context, index) in granted {
            let Some(number) = context.strip_prefix(&self.run) else {
                continue;
            };
            let Ok(number) = <[u8; 8]>::try_from(number).map(u64::from_le_bytes) else {
                continue;
            };
            // A round that is granted grants those before it: they were asked for earlier.
            let before = |round: &&mut Round| round.number <= number;
            for round in self.rounds.iter_mut().take_while(before) {
                round.index.get_or_insert(index);
                if let Some(lease_us) = self.lease_us.filter(|_| leases) {
                    self.lease_until_us = self.lease_until_us.max(round.first_us + lease_us);
                }
            }
        }
    }

    /// What needs no round, and yet the state that is committed now.
    fn grant(&mut self, now_us: u64, waiting: Vec<Waiting>, index: u64) {
        if waiting.is_empty() {
            return;
        }
        self.number += 1;
        self.rounds.push_back(Round {
            number: self.number,
            first_us: now_us,
            asked_us: now_us,
            index: Some(index),
            waiting,
        });
    }

    /// Leadership is being handed over in this term: nobody is promised anything any more.
    pub(crate) fn end_leases(&mut self, term: u64) {
        if !mutants::on("lease-kept-at-hand-over") {
            self.lease_until_us = 0;
            self.handed_over = term;
        }
    }

    /// Whether a call for votes must be held back: this run may not remember what an earlier one
    /// has confirmed to a leader.
    pub(crate) fn holds_votes(&mut self, message: &Message, now_us: u64) -> bool {
        let until = *self
            .votes_from_us
            .get_or_insert(now_us + self.longest_election_us);
        let votes = matches!(
            message.msg_type,
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
        );
        votes && self.lease_us.is_some() && now_us < until
    }

    pub(crate) fn clear(&mut self) -> Vec<Ticket> {
        self.lease_until_us = 0;
        let waiting = self.rounds.drain(..).flat_map(|round| round.waiting);
        waiting
            .chain(self.next.drain(..))
            .filter_map(Waiting::ticket)
            .collect()
    }
}

impl Waiting {
    fn ticket(self) -> Option<Ticket> {
        match self {
            Self::Read(ticket, ..)
            | Self::Join(ticket, _)
            | Self::NewCreate(ticket, ..)
            | Self::Party(ticket, ..) => Some(ticket),
            Self::Create(joined) => Some(joined.ticket),
            Self::Ack(..) => None,
        }
    }
}

impl Replica {
    /// Asks for a round for what waits, and again for one that got no answer.
    pub(crate) fn request_reads(&mut self) {
        let now_us = self.now.mono_us;
        let careless = mutants::on("read-without-round") && self.serving.is_some()
            || mutants::on("follower-reads-own-commit");
        if careless || self.serving.is_some() && now_us < self.reads.lease_until_us {
            let (acks, certain) = std::mem::take(&mut self.reads.next)
                .into_iter()
                .partition(|waiting| matches!(waiting, Waiting::Ack(..)));
            // A lease is for answers; a node's own rests on a round that began after it asked.
            self.reads.next = acks;
            // Others may have shown what this host has not applied yet: it is committed already.
            let commit = self.consensus.standing().commit;
            let behind = careless || mutants::on("lease-reads-applied");
            self.reads
                .grant(now_us, certain, if behind { 0 } else { commit });
        }
        let waits = !self.reads.next.is_empty();
        let asked = self
            .reads
            .rounds
            .iter()
            .filter(|round| round.index.is_none());
        if waits && asked.count() < ROUNDS_MAX {
            self.reads.number += 1;
            let round = Round {
                number: self.reads.number,
                first_us: now_us,
                asked_us: now_us,
                index: None,
                waiting: std::mem::take(&mut self.reads.next),
            };
            self.consensus.read_index(self.reads.context(round.number));
            self.reads.rounds.push_back(round);
        }
        let oldest = self.reads.rounds.iter_mut();
        if let Some(oldest) = oldest.into_iter().find(|round| round.index.is_none())
            && oldest.asked_us + self.reads.again_us <= now_us
        {
            oldest.asked_us = now_us;
            let number = oldest.number;
            self.consensus.read_index(self.reads.context(number));
        }
        self.give_reads_back();
    }

    /// Reads that could not be answered in time may find another host.
    fn give_reads_back(&mut self) {
        let late_us = self.now.mono_us.saturating_sub(PATIENCE_US);
        while let Some(round) = self.reads.rounds.front()
            && round.first_us <= late_us
            && let Some(round) = self.reads.rounds.pop_front()
        {
            let why = self.not_leader();
            for ticket in round.waiting.into_iter().filter_map(Waiting::ticket) {
                self.unavailable(ticket, why.clone());
            }
        }
    }

    /// Answers the rounds whose index is applied.
    pub(crate) fn answer_reads(&mut self) {
        let applied = self.registry.applied();
        let due = |round: &Round| {
            let reached = |index| index <= applied || mutants::on("read-before-applied");
            round.index.is_some_and(reached)
        };
        while let Some(at) = self.reads.rounds.iter().position(due)
            && let Some(round) = self.reads.rounds.remove(at)
        {
            self.answer_certain(round.waiting);
        }
    }

    fn answer_certain(&mut self, waiting: Vec<Waiting>) {
        for waiting in waiting {
            match waiting {
                Waiting::Read(ticket, request, asked) => {
                    self.answer_read_since(ticket, request, asked);
                }
                Waiting::Join(ticket, join) if self.serving.is_some() => {
                    self.admit_certain_join(ticket, join);
                }
                Waiting::Join(ticket, _) => self.unavailable(ticket, self.not_leader()),
                Waiting::Create(joined) if self.serving.is_some() => {
                    self.admit_certain_create(joined);
                }
                Waiting::Create(joined) => self.unavailable(joined.ticket, self.not_leader()),
                Waiting::NewCreate(ticket, request, create) if self.serving.is_some() => {
                    self.admit_new_create(ticket, request, create, true);
                }
                Waiting::NewCreate(ticket, ..) => self.unavailable(ticket, self.not_leader()),
                Waiting::Party(ticket, request, party) if self.serving.is_some() => {
                    self.admit_party(ticket, request, party);
                }
                Waiting::Party(ticket, ..) => self.unavailable(ticket, self.not_leader()),
                Waiting::Ack(link, ack) => self.acknowledge(link, ack),
            }
        }
    }

    pub(crate) fn node_of(
        &self,
        record: &Record,
    ) -> Option<std::sync::Arc<maitred_registry::candidates::NodeFacts>> {
        let node = self.registry.node(&record.node)?;
        (node.epoch() == record.epoch).then(|| std::sync::Arc::clone(&node.facts))
    }

    /// Answers from the state as it is.
    pub(crate) fn answer_read(&mut self, ticket: Ticket, request: Request) {
        self.answer_read_since(ticket, request, self.registry.applied());
    }

    fn answer_read_since(&mut self, ticket: Ticket, request: Request, asked: u64) {
        let revision = Revision(self.registry.applied());
        let not_found =
            |what: String| Response::Rejected(maitred_protocol::Rejection::NotFound(what));
        let response = match request {
            Request::GetProcess { key, .. } => match self.registry.process(&key) {
                Some(record) => {
                    let (record, node) = (std::sync::Arc::clone(record), self.node_of(record));
                    let answer = Answer::Process {
                        record,
                        node,
                        revision,
                    };
                    return self.effects.push(Effect::Reply(ticket, answer));
                }
                None => not_found(format!("process {key}")),
            },
            Request::ListProcesses(list) => {
                let page = self.registry.list(&list);
                let items = page.items.into_iter().map(|record| {
                    let node = self.node_of(&record);
                    (record, node)
                });
                let answer = Answer::Page {
                    items: items.collect(),
                    next: page.next,
                    revision,
                };
                return self.effects.push(Effect::Reply(ticket, answer));
            }
            Request::GetNode(name) => match self.registry.node(&name) {
                Some(node) => Response::Node(Box::new(self.node_record(node))),
                None => not_found(format!("node {name}")),
            },
            Request::ListNodes { after } => {
                let spelled_out = |node: &Node| self.node_record(node);
                let (items, next) = self.registry.list_nodes(after.as_ref(), spelled_out);
                Response::Nodes { items, next }
            }
            Request::GetModule(name) => match self.registry.module(&name) {
                Some(module) => Response::Module(Box::new(module.to_wire(&name))),
                None => not_found(format!("module {name}")),
            },
            Request::ModuleHistory(name) => match self.registry.module(&name) {
                Some(module) => Response::ModuleHistory(module.history.iter().cloned().collect()),
                None => not_found(format!("module {name}")),
            },
            Request::ListModules { after } => {
                let (items, next) = self.registry.list_modules(after.as_ref());
                Response::Modules { items, next }
            }
            Request::GetType(name) => match self.registry.described_type(&name) {
                Some(spec) => Response::Type(Box::new((**spec).clone())),
                None => not_found(format!("type {name}")),
            },
            Request::ListLost => Response::Lost(self.lost_nodes()),
            Request::ListTypes { after } => {
                let (items, next) = self.registry.list_types(after.as_ref());
                Response::Types { items, next }
            }
            Request::Explain { key, why_not } => match self.registry.process(&key) {
                Some(record) => {
                    let record = Box::new(self.registry.to_wire(record));
                    let explain = Effect::Explain(ticket, record, why_not);
                    return self.effects.push(explain);
                }
                None => not_found(format!("process {key}")),
            },
            Request::AttachNode {
                name,
                epoch,
                inventory,
            } => {
                return match self.serving {
                    Some(_) => self.attach_node(ticket, (&name, epoch), &inventory, asked),
                    None => self.unavailable(ticket, self.not_leader()),
                };
            }
            Request::ListPending { after, limit } => {
                return self.list_pending(ticket, after.as_ref(), limit);
            }
            // Everything else changes something, or is answered before it gets here.
            other => {
                debug_assert!(false, "{other:?} is not a read");
                Response::Rejected(maitred_protocol::Rejection::Invalid(
                    "not a read".to_owned(),
                ))
            }
        };
        self.reply(ticket, response);
    }
}

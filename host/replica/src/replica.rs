//! The replica: what it remembers, and the two doors.
//!
//! `step` takes what happened and decides what follows from it, file by file: [`crate::admit`] for
//! requests, [`crate::saga`] for creates under way, [`crate::placing`] for decisions,
//! [`crate::leases`] for nodes, [`crate::reads`] for reads. `effects` ends a turn: all proposals of
//! the turn go to Raft at once, committed entries are applied ([`crate::apply`]), and the caller
//! gets what is to be done.
//!
//! **Invariants.** Every ticket is answered exactly once. Nothing is answered about a change before
//! its entry is committed and applied. Only a leader that has applied an entry of its own term
//! takes requests; until then it does not know what its predecessors promised.

use std::collections::{BTreeMap, VecDeque};

use maitred_protocol::{ModuleName, Rejection, Request, RequestId, Response, Unavailable};
use maitred_registry::random::Random;
use maitred_registry::{Command, Registry};
use raft::eraftpb::{ConfState, Message};

use crate::advice::Questions;
use crate::compensation::Compensating;
use crate::config::Config;
use crate::consensus::{Consensus, Lost, Proposal, Refused};
use crate::effect::{Answer, Effect};
use crate::holding::Holding;
use crate::input::{Disk, Input, Install, Now, Push, Ticket};
use crate::leading::Told;
use crate::leases::Leases;
use crate::membership::Peers;
use crate::moves::Moves;
use crate::mutants;
use crate::party::Parties;
use crate::placing::Placing;
use crate::proposals::{Proposed, Waiter};
use crate::reads::Reads;
use crate::recreation::Recreation;
use crate::saga::Sagas;
use crate::timer::Timers;
use crate::waiting::Waiting;

/// See the head of this file.
#[derive(Debug)]
pub struct Replica {
    pub(crate) config: Config,
    pub(crate) consensus: Consensus,
    pub(crate) registry: Registry,
    pub(crate) now: Now,
    pub(crate) random: Random,
    pub(crate) effects: Vec<Effect>,
    pub(crate) proposals: Vec<Proposal<Waiter>>,
    /// What this host proposed and has not seen committed, by index.
    pub(crate) waiters: VecDeque<Proposed>,
    pub(crate) sagas: Sagas,
    pub(crate) parties: Parties,
    pub(crate) placing: Placing,
    pub(crate) leases: Leases,
    pub(crate) holding: Holding,
    pub(crate) moves: Moves,
    pub(crate) recreation: Recreation,
    pub(crate) waiting: Waiting,
    pub(crate) reads: Reads,
    pub(crate) timers: Timers,
    /// What has been proposed to be taken back (modules, and when they were activated), and when that may
    /// be proposed again.
    pub(crate) guarded: BTreeMap<(ModuleName, u64), u64>,
    pub(crate) advising: Questions,
    pub(crate) compensating: Compensating,
    /// The term in which this host leads and serves; none otherwise.
    pub(crate) serving: Option<u64>,
    pub(crate) disk: Disk,
    pub(crate) shutting_down: bool,
    pub(crate) started_us: u64,
    pub(crate) snapshot: SnapshotState,
    pub(crate) peers: Peers,
    /// Writes under way: their numbers, and when they were asked for.
    pub(crate) writes: VecDeque<(u64, u64)>,
    pub(crate) told: Option<Told>,
    /// What a snapshot under way to storage contains.
    pub(crate) installing: Option<Registry>,
    /// What came between this host's election and its first entry, and when.
    pub(crate) early: Vec<(u64, Ticket, u64, Request)>,
    /// A snapshot that was fetched for a leader that is one no longer, while there is no other.
    pub(crate) postponed: Option<Install>,
    /// This host must not go on, and its caller has been told why.
    pub(crate) halted: bool,
}

/// When the next snapshot is due.
#[derive(Debug, Default)]
pub(crate) struct SnapshotState {
    /// What the newest one contains.
    pub(crate) index: u64,
    /// Bytes that the log had taken by then.
    pub(crate) bytes: u64,
    /// Whether one is being written.
    pub(crate) writing: bool,
    /// After one could not be written: when the next may be tried.
    pub(crate) not_before_us: u64,
    /// What the one that is being written contains.
    pub(crate) under_way: Option<(u64, u64, ConfState)>,
    /// Who asked for one, to be told when it is written; those that asked meanwhile wait for the
    /// next.
    pub(crate) waiting: Vec<Ticket>,
    pub(crate) asked: Vec<Ticket>,
}

impl Replica {
    /// Takes something that happened. What follows from it comes with [`Replica::effects`].
    pub fn step(&mut self, now: Now, input: Input) {
        self.now = now;
        if self.halted {
            return self.refuse_all(input);
        }
        match input {
            Input::Tick => self.tick(),
            Input::Request {
                ticket,
                sequence,
                request,
            } => self.admit(ticket, sequence, request),
            Input::Push {
                ticket,
                sequence,
                push,
            } => self.admit_push(ticket, sequence, push),
            Input::KeepAlive {
                link,
                keep_alive,
                at_us,
            } => self.keep_alive(link, keep_alive, at_us),
            Input::Stopped { key, incarnation } => self.stopped(key, incarnation),
            Input::Examined {
                epoch,
                fence,
                verdict,
            } => self.examined(epoch, fence, verdict),
            Input::Advised {
                key,
                incarnation,
                advice,
            } => self.advised(key, incarnation, advice),
            Input::Persisted(number) => self.persisted(number),
            Input::Peer(message) => self.peer(*message),
            Input::Install(install) => self.install(*install),
            Input::Unreachable(host) => self.consensus.unreachable(host),
            Input::Met { host, level_max } => self.peers.met(host, level_max),
            Input::Join { ticket, join } => self.admit_join(ticket, join),
            Input::TakeSnapshot(ticket) => self.snapshot.asked.push(ticket),
            Input::Selected { lane, decisions } => self.selected(&lane, decisions),
            Input::Spawned {
                key,
                incarnation,
                result,
                over,
            } => self.spawned(key, incarnation, (result, over)),
            Input::Guarded {
                name,
                activated,
                cause,
            } => self.guarded(name, activated, cause),
            Input::SnapshotSaved { index, floor } => self.snapshot_saved(index, floor),
            Input::Disk(disk) => self.disk = disk,
            Input::Shutdown => self.shut_down(),
        }
    }

    /// Ends a turn: appends what is to be done, in order.
    pub fn effects(&mut self, now: Now, into: &mut Vec<Effect>) {
        self.now = now;
        if !self.halted {
            self.turn();
        }
        into.append(&mut self.effects);
    }

    fn turn(&mut self) {
        self.check_leadership();
        self.fire_timers();
        // Applying may lead to further proposals and reads, and those to further entries to persist.
        loop {
            self.request_reads();
            self.answer_reads();
            self.ask_callbacks();
            self.recreate();
            self.wake_waiting();
            self.wake_parties();
            self.propose_released();
            self.propose();
            let turn = self.consensus.turn();
            if turn.is_empty() {
                break;
            }
            if !turn.send.is_empty() {
                self.effects.push(Effect::Send(turn.send));
            }
            for persist in turn.persist {
                if !persist.is_empty() {
                    self.writes.push_back((persist.number, self.now.mono_us));
                }
                self.effects.push(Effect::Persist(persist));
            }
            if turn.restored {
                self.restored();
            }
            self.apply(turn.committed);
            if self.halted {
                return;
            }
            let leads = self.consensus.is_leader();
            let term = leads.then(|| self.consensus.standing().term);
            self.reads.granted(turn.reads, term);
            self.check_leadership();
        }
        self.emit_batches();
        self.take_snapshot();
        self.follow_members();
        self.tell_of_leader();
    }

    fn persisted(&mut self, number: u64) {
        while self
            .writes
            .front()
            .is_some_and(|(write, _)| *write <= number)
        {
            self.writes.pop_front();
        }
        self.consensus.persisted(number);
    }

    fn peer(&mut self, message: Message) {
        self.peers.heard(message.from, self.now.mono_us);
        if self.reads.holds_votes(&message, self.now.mono_us) {
            return;
        }
        if let Err(Lost { last, commit }) = self.consensus.step(message) {
            self.halt(Effect::Lost { last, commit });
        }
    }

    /// Whoever asks a host that cannot go on is told to ask another.
    fn refuse_all(&mut self, input: Input) {
        if let Input::Request { ticket, .. }
        | Input::Push { ticket, .. }
        | Input::Join { ticket, .. }
        | Input::TakeSnapshot(ticket) = input
        {
            self.unavailable(ticket, Unavailable::ShuttingDown);
        }
    }

    /// This host cannot go on without harm.
    pub(crate) fn halt(&mut self, why: Effect) {
        self.halted = true;
        self.serving = None;
        self.stop_serving();
        self.effects.push(why);
    }

    /// When `effects` is next due though nothing happens: microseconds on the clock of
    /// [`Now::mono_us`]. Ticks come besides.
    #[must_use]
    pub fn next_wake_us(&self) -> Option<u64> {
        self.timers.next_us()
    }

    /// The Raft term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.consensus.standing().term
    }

    /// The replicated state, to look at.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn reply(&mut self, ticket: Ticket, response: Response) {
        self.effects
            .push(Effect::Reply(ticket, Answer::Other(Box::new(response))));
    }

    pub(crate) fn reject(&mut self, ticket: Ticket, rejection: Rejection) {
        self.reply(ticket, Response::Rejected(rejection));
    }

    pub(crate) fn unavailable(&mut self, ticket: Ticket, why: Unavailable) {
        self.reply(ticket, Response::Unavailable(why));
    }

    pub(crate) fn not_leader(&self) -> Unavailable {
        let raft = &self.consensus.node.raft;
        let leader = raft.lead_transferee.unwrap_or(raft.leader_id);
        let leader = if leader == self.config.id {
            None
        } else {
            self.address_of(leader)
        };
        Unavailable::NotLeader { leader }
    }

    fn tick(&mut self) {
        self.consensus.tick();
        self.check_leadership();
        self.install_postponed();
        self.look_at_group();
        self.look_at_disk();
        if self.serving.is_some() {
            self.expire_leases();
            self.forget_released();
        }
    }

    /// Stops serving when another host leads, or this one in another term.
    fn check_leadership(&mut self) {
        if mutants::on("serve-before-own-term") && self.serving.is_none() {
            self.begin_serving(self.consensus.standing().term);
        }
        let Some(term) = self.serving else {
            return self.refuse_early();
        };
        if self.consensus.is_leader() && self.consensus.standing().term == term {
            return;
        }
        self.serving = None;
        self.stop_serving();
    }

    /// Everything that only a leader knows is forgotten; whoever waits for it is told.
    pub(crate) fn stop_serving(&mut self) {
        self.refuse_early();
        let why = if self.shutting_down {
            Unavailable::ShuttingDown
        } else {
            self.not_leader()
        };
        let parties = self.parties.clear();
        for ticket in self.sagas.clear().into_iter().chain(parties) {
            // Its reservation may be in the log, and the next leader will carry it on.
            let text = "the host stopped leading while the create was under way; ask again with the same request id";
            self.reply(ticket, Response::Unknown(text.to_owned()));
        }
        for ticket in self.placing.clear().into_iter().chain(self.reads.clear()) {
            self.unavailable(ticket, why.clone());
        }
        if self.shutting_down || self.halted {
            let asked = self.snapshot.asked.drain(..);
            let waiting = asked.chain(self.snapshot.waiting.drain(..));
            let transfers = self.peers.transfers.drain(..).map(|(ticket, _)| ticket);
            for ticket in waiting.chain(transfers).collect::<Vec<_>>() {
                self.unavailable(ticket, why.clone());
            }
        }
        if self.halted {
            for proposal in std::mem::take(&mut self.proposals) {
                self.refused(proposal, Refused::NotLeader);
            }
            // Their entries may be in the log, and this host will not know what becomes of them.
            self.disown_from(0);
        }
        self.leases = Leases::default();
        self.holding = Holding::default();
        self.moves = Moves::default();
        self.recreation = Recreation::default();
        self.waiting = Waiting::default();
        self.advising = Questions::default();
        self.compensating = Compensating::default();
        self.guarded.clear();
        self.timers.clear();
    }

    fn shut_down(&mut self) {
        self.shutting_down = true;
        if self.consensus.is_leader()
            && let Some(to) = self.successor()
        {
            self.hand_over(to);
        }
        self.serving = None;
        self.stop_serving();
    }

    pub(crate) fn admit_push(&mut self, ticket: Ticket, sequence: u64, push: Push) {
        if let Some(why) = self.refusal(true) {
            return self.unavailable(ticket, why);
        }
        let request = RequestId {
            client: push.client,
            sequence,
        };
        let command = Command::PushModule(Box::new(push.module));
        self.queue(Some(request), command, Waiter::Client(ticket));
    }

    /// Why nothing new is taken now, if so. `grows` says whether it would need room on the disk.
    pub(crate) fn refusal(&self, grows: bool) -> Option<Unavailable> {
        if self.shutting_down {
            return Some(Unavailable::ShuttingDown);
        }
        if self.serving.is_none() {
            return Some(self.not_leader());
        }
        match self.disk {
            Disk::Low(free) if grows => {
                let text = format!(
                    "{} MiB are left; creates go on when there is room",
                    free >> 20
                );
                Some(Unavailable::DiskFull(text))
            }
            _ => None,
        }
    }
}

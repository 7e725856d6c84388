//! Raft, and nothing else: messages and proposals in; messages, committed entries and what must be
//! durable out.
//!
//! `RawNode` does not leave this file and [`crate::standing`]. Proposals of a turn go in as one
//! message; what must be durable is handed out with a number and with the messages that may leave
//! only then, and Raft hears of it when that number comes back.
//!
//! **Invariants.** Whatever is written carries the commit index as it is known then, so that a host
//! which starts again is at most one change of the group behind what it has written (see
//! [`committed_alone`]). Election time-outs are a function of seed, host, term and role: Raft's own
//! dice are never used.

use bytes::Bytes;
use maitred_protocol::RequestId;
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, EntryType, HardState, Message, MessageType};
use raft::{Error, RawNode, ReadOnlyOption, SnapshotStatus, StateRole};

use crate::config::Config;
use crate::effect::Persist;
use crate::log::Log;
use crate::membership;
use crate::mutants;

/// What a turn of Raft came to.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// To be sent at once.
    pub(crate) send: Vec<Message>,
    /// To be made durable, in order.
    pub(crate) persist: Vec<Persist>,
    /// The log was replaced by a snapshot.
    pub(crate) restored: bool,
    /// To be applied, in order.
    pub(crate) committed: Vec<Entry>,
    /// Reads that may be served once this index is applied: context and index.
    pub(crate) reads: Vec<(Vec<u8>, u64)>,
}

impl Turn {
    pub(crate) fn is_empty(&self) -> bool {
        self.send.is_empty()
            && self.persist.is_empty()
            && !self.restored
            && self.committed.is_empty()
            && self.reads.is_empty()
    }
}

/// What the group is doing, for `status`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) role: StateRole,
    pub(crate) term: u64,
    pub(crate) leader: u64,
    pub(crate) commit: u64,
}

/// A proposal that Raft did not take; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Another host leads, or none does, or leadership is being handed over.
    NotLeader,
    /// Too much is proposed and not yet committed.
    TooMuch,
}

/// A message that shows that this host has lost what it had acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The last entry of this host's log.
    pub(crate) last: u64,
    /// What the leader knows it to have had.
    pub(crate) commit: u64,
}

pub(crate) struct Consensus {
    pub(crate) node: RawNode<Log>,
    seed: u64,
    election_ticks: usize,
    /// The number of the newest write that was asked for, and of the newest that is done.
    asked: u64,
    done: u64,
    /// The write that makes this host's own vote durable, and the vote's term.
    vote: Option<(u64, u64)>,
    /// A snapshot whose write is under way: its write, and its index.
    restoring: Option<(u64, u64)>,
    /// The group has changed since the commit index was last written.
    changed: bool,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus")
            .field("standing", &self.standing())
            .finish_non_exhaustive()
    }
}

/// What is certainly committed of a log: a host that is the only voter has committed whatever it has
/// written, up to the entry that makes it one of several.
///
/// Without this, a host that was alone when it last wrote down its commit index would, after a
/// restart, take itself for the whole group and elect itself beside the others' leader.
fn committed_alone(id: u64, log: &Log, applied: u64) -> u64 {
    let conf = log.conf_state();
    if conf.voters != [id] || !conf.voters_outgoing.is_empty() {
        return 0;
    }
    let changes = |entry: &&Entry| {
        entry.index > applied
            && entry.entry_type != EntryType::EntryNormal
            && membership::read_change(&entry.data)
                .is_none_or(|change| membership::changes_voters(&change))
    };
    log.iter()
        .find(changes)
        .map_or(log.last(), |entry| entry.index)
}

impl Consensus {
    /// # Panics
    /// When the configuration contradicts itself: a bug, not an input.
    pub(crate) fn new(
        config: &Config,
        mut log: Log,
        mut hard_state: HardState,
        applied: u64,
        logger: &slog::Logger,
    ) -> Self {
        // A commit index alone is not worth an fsync, so the durable one may lag behind a snapshot.
        let alone = committed_alone(config.id, &log, applied);
        hard_state.commit = hard_state.commit.max(applied).max(alone);
        log.set_hard_state(hard_state);
        let raft_config = raft::Config {
            id: config.id,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            // The defaults of these are unsafe or slow: one entry a message, no cap, no checks.
            max_size_per_msg: config.uncommitted_bytes_max.min(1 << 20),
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            // Raft 0.7 takes an append without entries for one that any entries continue, and sends
            // some that are not in a row. The proposals of a turn are one message in any case.
            batch_append: false,
            read_only_option: ReadOnlyOption::Safe,
            max_uncommitted_size: config.uncommitted_bytes_max,
            max_committed_size_per_ready: 16 << 20,
            ..raft::Config::default()
        };
        let node = RawNode::new(&raft_config, log, logger).expect("a valid raft configuration");
        let mut consensus = Self {
            node,
            seed: config.seed,
            election_ticks: config.election_ticks,
            asked: 0,
            done: 0,
            vote: None,
            restoring: None,
            changed: false,
        };
        consensus.set_timeout();
        consensus
    }

    /// Alone in the group, a host need not wait for an election time-out.
    pub(crate) fn campaign_if_alone(&mut self) {
        if self.conf_state().voters == [self.node.raft.id] {
            // It can only fail for a host that may not vote.
            let _ = self.node.campaign();
            self.set_timeout();
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        let raft = &self.node.raft;
        Standing {
            role: raft.state,
            term: raft.term,
            leader: raft.leader_id,
            commit: raft.raft_log.committed,
        }
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    pub(crate) fn log(&self) -> &Log {
        self.node.store()
    }

    pub(crate) fn log_mut(&mut self) -> &mut Log {
        self.node.mut_store()
    }

    pub(crate) fn conf_state(&self) -> &ConfState {
        self.node.store().conf_state()
    }

    /// Time passes for Raft.
    pub(crate) fn tick(&mut self) {
        // A log that begins after what is applied cannot be campaigned with; it is a matter of one
        // write.
        if self.restoring.is_none() {
            self.node.tick();
            self.set_timeout();
        }
    }

    /// Between the shortest election time-out and its double, by chance that is the same in every
    /// run.
    fn set_timeout(&mut self) {
        let raft = &mut self.node.raft;
        let mut mixed = self.seed ^ raft.id.rotate_left(32);
        for part in [raft.term, raft.state as u64, raft.id] {
            // SplitMix64 (Steele, Lea, Flood 2014).
            mixed = mixed.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
        }
        let spread = self.election_ticks as u64;
        let timeout = self.election_ticks + (mixed % spread) as usize;
        raft.set_randomized_election_timeout(timeout);
    }

    /// Takes a peer's message.
    ///
    /// # Errors
    /// [`Lost`]: this host must not go on.
    pub(crate) fn step(&mut self, message: Message) -> Result<(), Lost> {
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        match message.msg_type {
            // A leader's heartbeat goes as far as this host has acknowledged.
            MessageType::MsgHeartbeat if message.term >= raft.term && message.commit > last => {
                let commit = message.commit;
                return Err(Lost { last, commit });
            }
            // Raft would pass it on in the asker's name; the asker asks again.
            MessageType::MsgReadIndex if !self.is_leader() => return Ok(()),
            MessageType::MsgTimeoutNow if self.restoring.is_some() => return Ok(()),
            // Whoever answers a vote has been asked, and nobody is before the vote is durable:
            // the answer may overtake the word of that.
            MessageType::MsgRequestVoteResponse => {
                if let Some((number, term)) = self.vote
                    && term == message.term
                    && number > self.done
                {
                    self.persisted(number);
                }
            }
            _ => {}
        }
        // What Raft refuses is from a host that is not, or not yet, in the group.
        let _ = self.node.step(message);
        self.set_timeout();
        Ok(())
    }

    /// Proposes entries in one message. The first of them gets the index that is returned.
    pub(crate) fn propose(&mut self, data: Vec<Bytes>) -> Result<u64, Refused> {
        let entry = |data| Entry {
            data,
            ..Entry::default()
        };
        self.propose_entries(data.into_iter().map(entry).collect())
    }

    /// Proposes a change of the group.
    pub(crate) fn propose_change(&mut self, change: &ConfChangeV2) -> Result<u64, Refused> {
        let entry = Entry {
            entry_type: EntryType::EntryConfChangeV2,
            data: membership::write_change(change).into(),
            ..Entry::default()
        };
        self.propose_entries(vec![entry])
    }

    fn propose_entries(&mut self, entries: Vec<Entry>) -> Result<u64, Refused> {
        if !self.is_leader() || self.is_moving() {
            // raft would forward it to the leader, and nobody would hear of the outcome.
            return Err(Refused::NotLeader);
        }
        let first = self.node.raft.raft_log.last_index() + 1;
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.node.raft.id;
        message.entries = entries.into();
        match self.node.step(message) {
            Ok(()) => Ok(first),
            Err(Error::ProposalDropped) => Err(Refused::TooMuch),
            Err(_) => Err(Refused::NotLeader),
        }
    }

    /// Asks for a read index under a context of the caller's. Raft forgets it without a word when
    /// there is no leader.
    pub(crate) fn read_index(&mut self, context: Vec<u8>) {
        self.node.read_index(context);
    }

    /// Hands leadership to a voter.
    pub(crate) fn transfer(&mut self, to: u64) {
        self.node.transfer_leader(to);
        self.set_timeout();
    }

    /// Whether leadership is being handed over.
    pub(crate) fn is_moving(&self) -> bool {
        self.is_leader() && self.node.raft.lead_transferee.is_some()
    }

    pub(crate) fn unreachable(&mut self, host: u64) {
        self.node.report_unreachable(host);
    }

    /// A peer that was told of a snapshot has not come back: it is told again.
    pub(crate) fn snapshot_again(&mut self, host: u64) {
        self.node.report_snapshot(host, SnapshotStatus::Failure);
    }

    pub(crate) fn persisted(&mut self, number: u64) {
        if number <= self.done {
            return;
        }
        self.done = number;
        self.node.on_persist_ready(number);
        if let Some((write, index)) = self.restoring
            && write <= number
        {
            self.restoring = None;
            self.node.advance_apply_to(index);
        }
    }

    pub(crate) fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
    }

    /// A change of the group is committed.
    pub(crate) fn apply_change(&mut self, change: &ConfChangeV2) {
        // A change that does not fit (the end of a joint phase that is over) changes nothing, on
        // every host alike.
        if let Ok(conf_state) = self.node.apply_conf_change(change) {
            self.node.mut_store().set_conf_state(conf_state);
            self.changed = true;
        }
        // A host may be elected with its own removal in its log. Raft would let it lead on, and
        // then miss its place among the others.
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader && !raft.promotable() {
            raft.become_follower(raft.term, raft::INVALID_ID);
            self.set_timeout();
        }
    }

    /// Runs Raft until it has nothing more to say.
    pub(crate) fn turn(&mut self) -> Turn {
        let mut turn = Turn::default();
        while self.node.has_ready() {
            self.ready(&mut turn);
        }
        if std::mem::take(&mut self.changed) {
            // Whoever starts again must know of this change before it takes part in the next.
            let number = self.asked;
            turn.persist.push(Persist {
                number,
                reset: None,
                entries: Vec::new(),
                hard_state: Some(self.node.raft.hard_state()),
                release: Vec::new(),
            });
        }
        turn
    }

    fn ready(&mut self, turn: &mut Turn) {
        let mut ready = self.node.ready();
        turn.committed.append(&mut ready.take_committed_entries());
        for state in ready.take_read_states() {
            turn.reads.push((state.request_ctx, state.index));
        }
        turn.send.append(&mut ready.take_messages());
        let (free, mut release) = split(ready.take_persisted_messages());
        turn.send.extend(free);
        if mutants::on("release-early") {
            turn.send.append(&mut release);
        }
        let number = ready.number();
        let entries = ready.take_entries();
        let hard_state = self.node.raft.hard_state();
        let store = self.node.mut_store();
        let mut reset = None;
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata();
            let at = (metadata.index, metadata.term);
            store.reset(at, metadata.get_conf_state().clone());
            reset = (!mutants::on("install-keeps-log")).then_some(at);
            self.restoring = Some((number, at.0));
            turn.restored = true;
            // The snapshot contains what was committed before it.
            turn.committed.clear();
        }
        store.append(&entries);
        store.set_hard_state(hard_state.clone());
        let must_sync = ready.must_sync();
        if must_sync {
            self.changed = false;
            if self.node.raft.state == StateRole::Candidate {
                self.vote = Some((number, hard_state.term));
            }
        }
        // What promises nothing new still waits for the writes before it: it may repeat a promise
        // whose write is under way.
        if must_sync || (!release.is_empty() && self.asked > self.done) {
            self.asked = number;
            turn.persist.push(Persist {
                number,
                reset,
                entries,
                hard_state: must_sync.then_some(hard_state),
                release,
            });
        } else {
            turn.send.extend(release);
        }
        self.node.advance_append_async(ready);
        self.set_timeout();
    }
}

/// Messages that promise nothing go at once, whatever the disk does: else a slow one would look like
/// a dead host. Those are answers to heartbeats and pre-votes, and questions for a read index.
fn split(messages: Vec<Message>) -> (Vec<Message>, Vec<Message>) {
    messages.into_iter().partition(|message| {
        matches!(
            message.msg_type,
            MessageType::MsgHeartbeatResponse
                | MessageType::MsgReadIndex
                | MessageType::MsgRequestPreVote
                | MessageType::MsgRequestPreVoteResponse
        )
    })
}

/// Which entries of the log belong to whom; kept here because it is a matter of index and term.
#[derive(Debug)]
pub(crate) struct Proposal<W> {
    /// The entry.
    pub(crate) entry: maitred_registry::Entry,
    /// Who hears of its outcome.
    pub(crate) waiter: W,
}

impl<W> Proposal<W> {
    pub(crate) fn new(
        time_ms: u64,
        request: Option<RequestId>,
        command: maitred_registry::Command,
        waiter: W,
    ) -> Self {
        Self {
            entry: maitred_registry::Entry {
                time_ms,
                request,
                command,
            },
            waiter,
        }
    }
}

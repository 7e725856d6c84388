//! Raft, and nothing else: proposals in, committed entries and what must be durable out.
//!
//! `RawNode` does not leave this file. Proposals of a turn go in as one message; what must be
//! durable is handed out with a number, and Raft hears of it when that number comes back.

use bytes::Bytes;
use maitred_protocol::RequestId;
use raft::eraftpb::{ConfState, Entry, HardState, Message, MessageType};
use raft::{Error, RawNode, ReadOnlyOption, StateRole};

use crate::config::Config;
use crate::effect::Persist;
use crate::log::Log;

/// What a turn of Raft came to.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// To be made durable, in order.
    pub(crate) persist: Vec<Persist>,
    /// To be applied, in order.
    pub(crate) committed: Vec<Entry>,
    /// Reads that may be served once this index is applied: context and index.
    pub(crate) reads: Vec<(u64, u64)>,
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
    /// Another host leads, or none does.
    NotLeader,
    /// Too much is proposed and not yet committed.
    TooMuch,
}

pub(crate) struct Consensus {
    node: RawNode<Log>,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus")
            .field("standing", &self.standing())
            .finish_non_exhaustive()
    }
}

impl Consensus {
    /// # Panics
    /// When the configuration contradicts itself: a bug, not an input.
    pub(crate) fn new(
        config: &Config,
        mut log: Log,
        hard_state: HardState,
        applied: u64,
        logger: &slog::Logger,
    ) -> Self {
        let mut hard_state = hard_state;
        // A commit index alone is not worth an fsync, so the durable one may lag behind a snapshot.
        hard_state.commit = hard_state.commit.max(applied);
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
            read_only_option: ReadOnlyOption::Safe,
            max_uncommitted_size: config.uncommitted_bytes_max,
            max_committed_size_per_ready: 16 << 20,
            ..raft::Config::default()
        };
        let node = RawNode::new(&raft_config, log, logger).expect("a valid raft configuration");
        Self { node }
    }

    /// Alone in the group, a host need not wait for an election time-out.
    pub(crate) fn campaign_if_alone(&mut self) {
        let voters = &self.node.store().conf_state().voters;
        if voters.len() == 1 && voters[0] == self.node.raft.id {
            // It can only fail for a host that may not vote.
            let _ = self.node.campaign();
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

    pub(crate) fn conf_state(&self) -> &ConfState {
        self.node.store().conf_state()
    }

    pub(crate) fn tick(&mut self) {
        self.node.tick();
    }

    /// Proposes entries in one message. The first of them gets the index that is returned.
    pub(crate) fn propose(&mut self, data: Vec<Bytes>) -> Result<u64, Refused> {
        if !self.is_leader() {
            // raft would forward it to the leader, and nobody would hear of the outcome.
            return Err(Refused::NotLeader);
        }
        let first = self.node.raft.raft_log.last_index() + 1;
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.node.raft.id;
        message.entries = data
            .into_iter()
            .map(|data| Entry {
                data,
                ..Entry::default()
            })
            .collect();
        match self.node.step(message) {
            Ok(()) => Ok(first),
            Err(Error::ProposalDropped) => Err(Refused::TooMuch),
            Err(_) => Err(Refused::NotLeader),
        }
    }

    /// Asks for a read index under a context of the caller's.
    pub(crate) fn read_index(&mut self, context: u64) {
        self.node.read_index(context.to_le_bytes().to_vec());
    }

    pub(crate) fn persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
    }

    pub(crate) fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
    }

    pub(crate) fn compact(&mut self, index: u64) {
        self.node.mut_store().compact(index);
    }

    /// Runs Raft until it has nothing more to say.
    pub(crate) fn turn(&mut self) -> Turn {
        let mut turn = Turn::default();
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            turn.committed.append(&mut ready.take_committed_entries());
            for state in ready.take_read_states() {
                if let Ok(context) = <[u8; 8]>::try_from(state.request_ctx.as_slice()) {
                    turn.reads.push((u64::from_le_bytes(context), state.index));
                }
            }
            let entries = ready.take_entries();
            let hard_state = ready.hs().cloned();
            let store = self.node.mut_store();
            store.append(&entries);
            if let Some(hard_state) = &hard_state {
                store.set_hard_state(hard_state.clone());
            }
            let number = ready.number();
            if ready.must_sync() {
                turn.persist.push(Persist {
                    number,
                    entries,
                    hard_state,
                });
            }
            self.node.advance_append_async(ready);
        }
        turn
    }
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

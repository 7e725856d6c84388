//! Raft's messages to the wire's mirrors and back.
//!
//! What comes from outside is checked here for what could hurt Raft: kinds that a peer may not send,
//! entries that are not in a row, a term that would poison the group. Protobuf does not cross the
//! wire: of an entry that changes the group, only the bytes that our own leader made.

use maitred_protocol::{Configuration, EntryKind, LogEntry, RaftKind, RaftMessage, SnapshotId};
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot};

/// How far a peer's term may be ahead of ours: nobody holds so many elections in the time that a host
/// is away, and terms never shrink again.
const TERM_JUMP_MAX: u64 = 1 << 32;

/// No log is so long; raft counts on from the indices that it is told.
const INDEX_MAX: u64 = 1 << 62;

/// A message that is not taken from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Its term is absurd.
    #[error("its term {term} is far beyond ours, {ours}")]
    Term {
        /// The message's.
        term: u64,
        /// This host's.
        ours: u64,
    },
    /// It claims to come from another host, or is for another.
    #[error("it is from host {from} to host {to}")]
    Address {
        /// From whom.
        from: u64,
        /// For whom.
        to: u64,
    },
    /// It names a term or an index that nobody has.
    #[error("it names a term or an index that nobody has")]
    Number,
    /// Its entries are not those that it announces.
    #[error("its entries are not in a row")]
    Entries,
    /// It asks for a read index and does not say for what.
    #[error("it asks for a read index under no name")]
    Context,
    /// It tells of a snapshot and does not say which.
    #[error("it names no snapshot")]
    Snapshot,
    /// A change of the group that cannot be read.
    #[error("it changes the group in a way that cannot be read")]
    ConfChange,
}

fn kind_to_wire(kind: MessageType) -> Option<RaftKind> {
    Some(match kind {
        MessageType::MsgAppend => RaftKind::Append,
        MessageType::MsgAppendResponse => RaftKind::AppendResponse,
        MessageType::MsgRequestVote => RaftKind::RequestVote,
        MessageType::MsgRequestVoteResponse => RaftKind::RequestVoteResponse,
        MessageType::MsgSnapshot => RaftKind::Snapshot,
        MessageType::MsgHeartbeat => RaftKind::Heartbeat,
        MessageType::MsgHeartbeatResponse => RaftKind::HeartbeatResponse,
        MessageType::MsgTimeoutNow => RaftKind::TimeoutNow,
        MessageType::MsgReadIndex => RaftKind::ReadIndex,
        MessageType::MsgReadIndexResp => RaftKind::ReadIndexResponse,
        MessageType::MsgRequestPreVote => RaftKind::RequestPreVote,
        MessageType::MsgRequestPreVoteResponse => RaftKind::RequestPreVoteResponse,
        // Raft's own affairs, and proposals, which only a leader makes.
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => return None,
    })
}

fn kind_from_wire(kind: RaftKind) -> MessageType {
    match kind {
        RaftKind::Append => MessageType::MsgAppend,
        RaftKind::AppendResponse => MessageType::MsgAppendResponse,
        RaftKind::RequestVote => MessageType::MsgRequestVote,
        RaftKind::RequestVoteResponse => MessageType::MsgRequestVoteResponse,
        RaftKind::Snapshot => MessageType::MsgSnapshot,
        RaftKind::Heartbeat => MessageType::MsgHeartbeat,
        RaftKind::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
        RaftKind::TimeoutNow => MessageType::MsgTimeoutNow,
        RaftKind::ReadIndex => MessageType::MsgReadIndex,
        RaftKind::ReadIndexResponse => MessageType::MsgReadIndexResp,
        RaftKind::RequestPreVote => MessageType::MsgRequestPreVote,
        RaftKind::RequestPreVoteResponse => MessageType::MsgRequestPreVoteResponse,
    }
}

/// The mirror of who belongs to a group.
#[must_use]
pub fn configuration(state: &ConfState) -> Configuration {
    Configuration {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave,
    }
}

/// Raft's form of who belongs to a group.
#[must_use]
pub fn conf_state(configuration: Configuration) -> ConfState {
    ConfState {
        voters: configuration.voters,
        learners: configuration.learners,
        voters_outgoing: configuration.voters_outgoing,
        learners_next: configuration.learners_next,
        auto_leave: configuration.auto_leave,
        ..ConfState::default()
    }
}

fn entry_to_wire(entry: Entry) -> LogEntry {
    let kind = match entry.entry_type {
        EntryType::EntryNormal => EntryKind::Normal,
        // We only make the second version; the first is read as one that cannot be.
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::ConfChange,
    };
    LogEntry {
        index: entry.index,
        term: entry.term,
        kind,
        data: entry.data.into(),
    }
}

fn entry_from_wire(entry: LogEntry) -> Entry {
    let entry_type = match entry.kind {
        EntryKind::Normal => EntryType::EntryNormal,
        EntryKind::ConfChange => EntryType::EntryConfChangeV2,
    };
    Entry {
        entry_type,
        index: entry.index,
        term: entry.term,
        data: entry.data.into(),
        ..Entry::default()
    }
}

/// The mirror of a message; none for kinds that do not leave a host.
#[must_use]
pub fn to_wire(message: Message) -> Option<RaftMessage> {
    let kind = kind_to_wire(message.msg_type)?;
    let snapshot = message.snapshot.into_option().map(|snapshot| {
        let metadata = snapshot.metadata.unwrap_or_default();
        Box::new(SnapshotId {
            index: metadata.index,
            term: metadata.term,
            configuration: configuration(metadata.get_conf_state()),
        })
    });
    Some(RaftMessage {
        kind,
        from: message.from,
        to: message.to,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        request_snapshot: message.request_snapshot,
        priority: message.priority,
        context: message.context.into(),
        entries: message.entries.into_iter().map(entry_to_wire).collect(),
        snapshot: snapshot.filter(|_| kind == RaftKind::Snapshot),
    })
}

/// Raft's form of a message from the peer `from` to this host, `to`, whose term is `ours`.
///
/// # Errors
/// [`BadMessage`] when it is not one that a sound peer sends.
pub fn from_wire(
    message: RaftMessage,
    from: u64,
    to: u64,
    ours: u64,
) -> Result<Message, BadMessage> {
    if message.from != from || message.to != to {
        let (from, to) = (message.from, message.to);
        return Err(BadMessage::Address { from, to });
    }
    let term = message.term;
    if term.saturating_sub(ours) > TERM_JUMP_MAX {
        return Err(BadMessage::Term { term, ours });
    }
    // Raft takes a message without a term for one of its own; only this kind has none. And it finds
    // that term wherever its log has nothing.
    let termless = term == 0 && message.kind != RaftKind::ReadIndex;
    let nowhere = message.kind == RaftKind::Append && message.log_term == 0 && message.index > 0;
    let indices = [message.index, message.commit, message.reject_hint];
    if termless || nowhere || indices.iter().any(|index| *index > INDEX_MAX) {
        return Err(BadMessage::Number);
    }
    match message.kind {
        RaftKind::Append => check_entries(&message)?,
        RaftKind::ReadIndex if message.entries.len() != 1 => return Err(BadMessage::Context),
        _ => {}
    }
    let mut made = Message {
        msg_type: kind_from_wire(message.kind),
        from,
        to,
        term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        // Nobody asks for one: the leader sees who needs it.
        request_snapshot: 0,
        priority: message.priority,
        context: message.context.into(),
        ..Message::default()
    };
    made.entries = message.entries.into_iter().map(entry_from_wire).collect();
    match (message.kind, message.snapshot) {
        (RaftKind::Snapshot, None) => return Err(BadMessage::Snapshot),
        (RaftKind::Snapshot, Some(id)) if id.index > 0 && is_sound(&id.configuration) => {
            made.set_snapshot(snapshot_of(*id));
        }
        (RaftKind::Snapshot, Some(_)) => return Err(BadMessage::Snapshot),
        _ => {}
    }
    Ok(made)
}

fn check_entries(message: &RaftMessage) -> Result<(), BadMessage> {
    let mut term = message.log_term;
    for (entry, index) in message
        .entries
        .iter()
        .zip(message.index.saturating_add(1)..)
    {
        if entry.index != index || entry.term < term || entry.term > message.term {
            return Err(BadMessage::Entries);
        }
        term = entry.term;
        if entry.kind == EntryKind::ConfChange
            && crate::membership::read_change(&entry.data).is_none()
        {
            return Err(BadMessage::ConfChange);
        }
    }
    Ok(())
}

/// Whether Raft can go on from it: somebody votes, and nobody has two roles.
fn is_sound(group: &Configuration) -> bool {
    let votes = |host: &u64| group.voters.contains(host) || group.voters_outgoing.contains(host);
    let next = |host: &u64| group.voters_outgoing.contains(host);
    let nobody = group.voters.is_empty();
    let leaves_nothing = group.auto_leave && group.voters_outgoing.is_empty();
    if nobody || leaves_nothing || group.learners.iter().any(votes) {
        return false;
    }
    group.learners_next.iter().all(next)
}

fn snapshot_of(id: SnapshotId) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = id.index;
    metadata.term = id.term;
    metadata.set_conf_state(conf_state(id.configuration));
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(entries: &[(u64, u64)]) -> RaftMessage {
        let entry = |&(index, term): &(u64, u64)| Entry {
            index,
            term,
            data: vec![7; 3].into(),
            ..Entry::default()
        };
        let message = Message {
            msg_type: MessageType::MsgAppend,
            from: 1,
            to: 2,
            term: 5,
            index: 10,
            log_term: 3,
            commit: 9,
            entries: entries.iter().map(entry).collect(),
            ..Message::default()
        };
        to_wire(message).unwrap()
    }

    #[test]
    fn a_message_survives_the_way_there_and_back() {
        let wire = append(&[(11, 3), (12, 5)]);
        let back = from_wire(wire.clone(), 1, 2, 5).unwrap();
        assert_eq!(to_wire(back), Some(wire));
        let mut message = Message {
            msg_type: MessageType::MsgSnapshot,
            from: 1,
            to: 2,
            term: 5,
            ..Message::default()
        };
        let id = SnapshotId {
            index: 40,
            term: 4,
            configuration: Configuration {
                voters: vec![1, 3],
                learners: vec![2],
                voters_outgoing: vec![4],
                ..Configuration::default()
            },
        };
        message.set_snapshot(snapshot_of(id.clone()));
        let wire = to_wire(message).unwrap();
        assert_eq!(wire.snapshot.as_deref(), Some(&id));
        let back = from_wire(wire.clone(), 1, 2, 5).unwrap();
        assert_eq!(to_wire(back), Some(wire));
    }

    #[test]
    fn what_a_sound_peer_does_not_send_is_refused() {
        let good = || append(&[(11, 3), (12, 5)]);
        assert_eq!(
            from_wire(good(), 3, 2, 5),
            Err(BadMessage::Address { from: 1, to: 2 })
        );
        assert_eq!(
            from_wire(good(), 1, 9, 5),
            Err(BadMessage::Address { from: 1, to: 2 })
        );
        let mut jump = good();
        jump.term = 6 + TERM_JUMP_MAX;
        let (term, ours) = (jump.term, 5);
        assert_eq!(
            from_wire(jump, 1, 2, ours),
            Err(BadMessage::Term { term, ours })
        );
        for entries in [&[(12, 3)][..], &[(11, 2)], &[(11, 4), (12, 3)], &[(11, 6)]] {
            let message = from_wire(append(entries), 1, 2, 5);
            assert_eq!(message, Err(BadMessage::Entries), "{entries:?}");
        }
        let mut change = good();
        change.entries[0].kind = EntryKind::ConfChange;
        assert_eq!(from_wire(change, 1, 2, 5), Err(BadMessage::ConfChange));
        let mut question = append(&[]);
        question.kind = RaftKind::ReadIndex;
        assert_eq!(from_wire(question, 1, 2, 5), Err(BadMessage::Context));
        let change: [fn(&mut RaftMessage); 3] = [
            |message| message.term = 0,
            |message| message.log_term = 0,
            |message| message.index = u64::MAX,
        ];
        for change in change {
            let mut message = append(&[]);
            change(&mut message);
            assert_eq!(from_wire(message, 1, 2, 5), Err(BadMessage::Number));
        }
        let mut snapshot = good();
        snapshot.kind = RaftKind::Snapshot;
        assert_eq!(
            from_wire(snapshot.clone(), 1, 2, 5),
            Err(BadMessage::Snapshot)
        );
        let (index, term, learners) = (40, 4, vec![1]);
        let configuration = Configuration {
            voters: vec![1, 2],
            learners,
            ..Configuration::default()
        };
        let id = SnapshotId {
            index,
            term,
            configuration,
        };
        snapshot.snapshot = Some(Box::new(id));
        assert_eq!(from_wire(snapshot, 1, 2, 5), Err(BadMessage::Snapshot));
    }

    #[test]
    fn a_proposal_does_not_leave_a_host() {
        let message = Message {
            msg_type: MessageType::MsgPropose,
            ..Message::default()
        };
        assert_eq!(to_wire(message), None);
    }
}

//! What passes between hosts: the greeting, Raft's messages, and calls.
//!
//! Each host calls every other one. A connection opens with [`PeerHello`] and [`PeerGreeting`] on
//! its first bidirectional stream. One connection carries Raft: [`PeerBatch`] frames on one
//! unidirectional stream. Whatever is large has a connection of its own, with a bidirectional stream
//! for each call: a [`PeerRequest`], a [`PeerResponse`], then raw bytes where that says so.
//!
//! The shapes of Raft's messages are mirrors that are this protocol's own: protobuf never crosses
//! the wire.

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::{ClusterId, Digest, HostName, Incarnation, NodeName, ProcessKey};
use crate::member::MemberRecord;
use crate::module::{ModuleKind, Signature};
use crate::record::{Evidence, WhyNot};

/// What a connection between hosts is for.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Raft's messages.
    Raft,
    /// Calls: joining, snapshots, modules.
    Bulk,
}

/// The first frame of a host that calls another.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// Its cluster; none while it is joining one.
    pub cluster: Option<ClusterId>,
    /// Its number; 0 while it is joining.
    pub host: u64,
    /// What its data directory proves itself with.
    pub instance: u64,
    /// The host that it means to call; 0 when any will do.
    pub to: u64,
    /// Program and version, for the log; at most 256 bytes.
    pub build: String,
    /// The highest level of replicated commands that it can carry out.
    pub level_max: u16,
    /// What the connection is for.
    pub purpose: Purpose,
}

/// Why a host does not talk to another. The caller shows it to a person: it says what to do.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// The two belong to different clusters.
    #[error(
        "it belongs to another cluster; check the address, and that the data directory is the right one"
    )]
    OtherCluster,
    /// The caller meant another host.
    #[error("this address is host {0}'s; another host is meant")]
    OtherHost(u64),
    /// The caller is not a member, or no longer one.
    #[error(
        "host {0} is not a member of the cluster, or was removed from it; to join again, start it on an empty data directory with --join"
    )]
    NotAMember(u64),
    /// Another data directory has joined under this number.
    #[error(
        "host {0} is another data directory's; two hosts must not run on copies of one directory"
    )]
    OtherInstance(u64),
    /// The caller's program is too old for what the cluster uses.
    #[error("the cluster uses level {cluster} and this program knows {program}; upgrade it")]
    TooOld {
        /// The cluster's level.
        cluster: u16,
        /// The caller's.
        program: u16,
    },
}

/// The answer to [`PeerHello`].
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum PeerGreeting {
    /// Go on.
    Welcome {
        /// The cluster.
        cluster: ClusterId,
        /// This host's number.
        host: u64,
        /// Program and version; at most 256 bytes.
        build: String,
        /// The highest level of replicated commands that it can carry out.
        level_max: u16,
    },
    /// No.
    Refused(PeerRefusal),
}

/// The kinds of Raft's messages that may cross the wire. Proposals may not.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RaftKind {
    /// Entries.
    Append,
    /// Its answer.
    AppendResponse,
    /// A call for votes.
    RequestVote,
    /// Its answer.
    RequestVoteResponse,
    /// Fetch this snapshot.
    Snapshot,
    /// The leader is there.
    Heartbeat,
    /// Its answer.
    HeartbeatResponse,
    /// Hold an election at once: leadership is handed over.
    TimeoutNow,
    /// A follower asks for a read index.
    ReadIndex,
    /// Its answer.
    ReadIndexResponse,
    /// Would you vote for me?
    RequestPreVote,
    /// Its answer.
    RequestPreVoteResponse,
}

/// What an entry of the log is to Raft.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A command, or nothing.
    Normal,
    /// A change of the group.
    ConfChange,
}

/// An entry of the log.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What it is.
    pub kind: EntryKind,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// Who belongs to the group.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct Configuration {
    /// Those who vote.
    pub voters: Vec<u64>,
    /// Those who only follow.
    pub learners: Vec<u64>,
    /// While it changes: those who voted before.
    pub voters_outgoing: Vec<u64>,
    /// While it changes: voters that are to become learners.
    pub learners_next: Vec<u64>,
    /// Whether the change ends by itself.
    pub auto_leave: bool,
}

/// A snapshot that is to be fetched.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SnapshotId {
    /// The last index that it contains.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The group at that index.
    pub configuration: Configuration,
}

/// A message of Raft.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct RaftMessage {
    /// Which kind.
    pub kind: RaftKind,
    /// Whose.
    pub from: u64,
    /// For whom.
    pub to: u64,
    /// The sender's term.
    pub term: u64,
    /// Raft's `log_term`.
    pub log_term: u64,
    /// Raft's `index`.
    pub index: u64,
    /// Raft's `commit`.
    pub commit: u64,
    /// Raft's `commit_term`.
    pub commit_term: u64,
    /// Raft's `reject`.
    pub reject: bool,
    /// Raft's `reject_hint`.
    pub reject_hint: u64,
    /// Raft's `request_snapshot`.
    pub request_snapshot: u64,
    /// Raft's `priority`.
    pub priority: i64,
    /// Raft's `context`; at most 64 bytes.
    pub context: Vec<u8>,
    /// Entries: of an append, or the context of a read index.
    pub entries: Vec<LogEntry>,
    /// The snapshot that is to be fetched.
    pub snapshot: Option<Box<SnapshotId>>,
}

/// Messages for one host, in order.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PeerBatch {
    /// The Raft group; 0 today.
    pub group: u32,
    /// The messages.
    pub messages: Vec<RaftMessage>,
}

/// A host that wants to belong to a cluster, or says where it is now.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Its number; 0 to be given one.
    pub host: u64,
    /// Its name.
    pub name: HostName,
    /// Where it is reached: `HOST:PORT`, 1 to 256 bytes.
    pub address: String,
    /// What its data directory proves itself with; not 0.
    pub instance: u64,
    /// The highest level of replicated commands that it can carry out.
    pub level_max: u16,
}

/// What one host may ask of another. Each call has a stream of its own.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum PeerRequest {
    /// See [`Join`]. Any member passes it on to the leader or says who that is.
    Join(Box<Join>),
    /// The file of a snapshot, from this byte on.
    Snapshot {
        /// Which.
        index: u64,
        /// Where to begin.
        offset: u64,
    },
    /// The bytes of a module.
    Blob(Digest),
    /// Fetch these bytes from me and keep them; answered when they are durable.
    Hold {
        /// Which.
        digest: Digest,
        /// How many.
        bytes: u64,
    },
    /// What a placement was made from, and what becomes of the node that is asked about.
    Evidence(ProcessKey, Incarnation, Option<NodeName>),
    /// Make a module that you hold ready to run; answered with `Ready` or why not. May take as long as
    /// a compilation.
    Ready {
        /// What it is for.
        kind: ModuleKind,
        /// Which.
        digest: Digest,
        /// Who vouches for it, and for what.
        signature: Option<Signature>,
    },
}

/// The answer to a [`PeerRequest`].
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum PeerResponse {
    /// To `Join`.
    Joined {
        /// The cluster.
        cluster: ClusterId,
        /// The host as it is recorded; its number is in it.
        member: Box<MemberRecord>,
        /// Everybody.
        members: Vec<MemberRecord>,
    },
    /// The leader is elsewhere; its address when it is known.
    NotLeader(Option<String>),
    /// Raw bytes follow.
    Bytes {
        /// How many follow.
        bytes: u64,
        /// How large the whole is.
        total: u64,
        /// The blake3 hash of the whole.
        digest: Digest,
    },
    /// To `Hold`.
    Held,
    /// To `Evidence`.
    Evidence(Option<Box<Evidence>>, Option<WhyNot>),
    /// To `Ready`.
    Ready,
    /// It has no such thing.
    NotFound,
    /// It cannot now; why.
    Unavailable(String),
    /// It will not; why.
    Refused(String),
}

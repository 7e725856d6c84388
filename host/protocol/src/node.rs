//! What passes between a host and a node beyond requests: the greeting, keep-alives, and the
//! commands that start and stop processes.

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::{Incarnation, NodeEpoch, ProcessKey};

/// The first frame of a client on its control stream.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Program and version, for the host's log; at most 256 bytes.
    pub build: String,
}

/// The host's answer to [`Hello`].
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Program and version of the host.
    pub build: String,
    /// The group; 0 today.
    pub group: u32,
    /// This host's number in its group.
    pub host: u64,
    /// Unanswered requests that the host takes on this connection.
    pub in_flight_max: u32,
}

/// What a node reports with its keep-alives.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
pub struct Load {
    /// 0.0 idle to 1.0 busy. Values out of bounds, and NaN, count as unknown.
    pub cpu: f32,
    /// MiB of memory that are free.
    pub memory_free_mib: u32,
    /// At most 16 counters of the game's own, by name.
    pub counters: Vec<(String, f32)>,
}

/// Renews a node's lease. A datagram, of which lost ones do no harm; or a frame of the control stream,
/// where datagrams are not taken or do not come through.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct KeepAlive {
    /// The session that is renewed.
    pub epoch: NodeEpoch,
    /// Grows with each keep-alive of the epoch.
    pub sequence: u64,
    /// How the node is.
    pub load: Option<Load>,
    /// The longest that stopping a process has taken since the node's program began, in milliseconds.
    pub stop_ms: u32,
}

/// Answers a [`KeepAlive`], in the way in which that came.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAliveAck {
    /// The session.
    pub epoch: NodeEpoch,
    /// Which keep-alive.
    pub sequence: u64,
    /// False: the session has ended, and the node must stop what it started.
    pub alive: bool,
}

/// What a host tells a node. A node refuses a `term` lower than one it has seen.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum NodeCommand {
    /// Start a process, at most once per incarnation.
    Start {
        /// The Raft term of the leader.
        term: u64,
        /// Which process.
        key: ProcessKey,
        /// Which life of it.
        incarnation: Incarnation,
        /// What the callback passed.
        payload: Vec<u8>,
        /// Milliseconds after which nobody waits for the answer.
        deadline_ms: u32,
        /// 1 for the first try of this life. A node that has answered `Busy` or `Failed` to a lower
        /// number tries again; one that has started it answers as before.
        try_number: u32,
    },
    /// Stop this incarnation if it runs, and never start it: a tombstone.
    Stop {
        /// The Raft term of the leader.
        term: u64,
        /// Which process.
        key: ProcessKey,
        /// Which life of it, and every lower one.
        incarnation: Incarnation,
    },
}

/// What a node answers to a [`NodeCommand`].
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum NodeAnswer {
    /// The process runs.
    Started {
        /// What the node calls it; at most 256 bytes.
        pid: String,
        /// What callers are to know; at most 4 KiB.
        share: Vec<u8>,
    },
    /// Not now; another node may do.
    Busy(String),
    /// The start went wrong.
    Failed(String),
    /// A higher incarnation, a tombstone of this one, or a higher term has been seen.
    Fenced,
    /// The incarnation does not run here, and never will.
    Stopped,
}

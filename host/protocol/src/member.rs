//! The hosts of a cluster, as operators and clients see them.

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::HostName;

/// What a host is in its group.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberRole {
    /// Announced; it is not part of the Raft group yet.
    Joining,
    /// It gets the log and does not vote; it becomes a voter by itself when it has caught up.
    Learner,
    /// It votes.
    Voter,
    /// It is no longer wanted, and still part of the group.
    Leaving,
}

/// How a member's log follows the leader's; only the leader knows.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last entry that it is known to have.
    pub matched: u64,
    /// Milliseconds since the leader last heard of it; none when it never did.
    pub heard_ms: Option<u32>,
    /// The index of the snapshot that it is to fetch, while it does.
    pub snapshot: Option<u64>,
}

/// A host of the cluster.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its number: never used again after it has gone.
    pub host: u64,
    /// Its name, unique among the members.
    pub name: HostName,
    /// Where peers and clients reach it: `HOST:PORT`, at most 256 bytes. Empty while that is not
    /// known.
    pub address: String,
    /// What it is.
    pub role: MemberRole,
    /// The member that it takes the place of, until it has.
    pub replaces: Option<u64>,
    /// Whether the host itself has come (and not only its announcement).
    pub arrived: bool,
    /// What it has of the log; none when the host that answers does not lead.
    pub progress: Option<Progress>,
}

/// The cluster as one host sees it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The members, by number.
    pub items: Vec<MemberRecord>,
    /// The leader, when one is known.
    pub leader: Option<u64>,
    /// The Raft term.
    pub term: u64,
    /// The last index known to be committed.
    pub commit: u64,
    /// The commands that the cluster may use; see `docs/UPGRADE.md`.
    pub level: u16,
}

/// What a host tells its clients without being asked.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Who leads, as far as this host knows. Sent after the greeting, and when it changes.
    Leader {
        /// Its number; none while there is no leader.
        host: Option<u64>,
        /// Its address, when known.
        address: Option<String>,
        /// The Raft term.
        term: u64,
    },
}

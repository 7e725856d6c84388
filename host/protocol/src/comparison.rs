//! How one version of a selector decides beside another: what shadow running and replay report.
//!
//! These are shapes; `maitred-registry`'s `compare` fills them in.

use rkyv::{Archive, Deserialize, Serialize};

use crate::id::{Digest, ModuleName, NodeName, ProcessKey};

/// A version that was compared.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ComparedVersion {
    /// Its number; 0 for a file that was not uploaded.
    pub version: u32,
    /// Its identity.
    pub digest: Digest,
    /// The hash of its configuration.
    pub config: u64,
}

/// The middle, the tail and the most of something that was measured; 0 when nothing was.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Half are at most this.
    pub p50: u64,
    /// 90 of 100 are.
    pub p90: u64,
    /// 99 of 100 are.
    pub p99: u64,
    /// All are.
    pub max: u64,
}

/// How evenly placements fell on the nodes: of the decisions that were compared only.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq)]
pub struct Evenness {
    /// The most processes on one node, those counted that were there before.
    pub max: u32,
    /// The mean over the nodes.
    pub mean: f32,
    /// The standard deviation.
    pub deviation: f32,
}

/// A decision that came out differently.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The process.
    pub key: ProcessKey,
    /// Where the deciding version put it; none for nowhere.
    pub decided: Option<NodeName>,
    /// Where the other one would have; none for nowhere.
    pub other: Option<NodeName>,
    /// What the other one said when it did not choose, for people.
    pub reason: String,
}

/// See the module's text.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The module whose decisions were compared.
    pub module: ModuleName,
    /// The versions that made them, most decisions first; at most 8.
    pub decided: Vec<ComparedVersion>,
    /// The version that was tried.
    pub other: ComparedVersion,
    /// Decisions that were compared.
    pub decisions: u64,
    /// Decisions that were not, because there were too many or their input was not recorded.
    pub skipped: u64,
    /// The same node, or the same refusal.
    pub agreed: u64,
    /// Another node.
    pub moved: u64,
    /// No node where the deciding version chose one.
    pub newly_rejected: u64,
    /// A node where the deciding version chose none.
    pub newly_placed: u64,
    /// Decisions of the same version and configuration, and how many of them came out to the bit as
    /// they were.
    pub same_version: u64,
    /// See `same_version`.
    pub identical: u64,
    /// Traps of the version that was tried.
    pub traps: u64,
    /// Its time-outs.
    pub timeouts: u64,
    /// Its errors and answers that no node was meant by.
    pub bad_answers: u64,
    /// Fuel of its decisions.
    pub fuel: Quantiles,
    /// Nanoseconds of its decisions, fuel being counted, which takes a tenth to a fifth.
    pub nanos: Quantiles,
    /// How evenly the deciding version placed.
    pub spread_decided: Evenness,
    /// How evenly the other one would have.
    pub spread_other: Evenness,
    /// Some of the differences, oldest first; at most 20.
    pub differences: Vec<Difference>,
    /// Milliseconds since 1970 of the oldest decision that was compared.
    pub from_ms: u64,
    /// And of the newest.
    pub to_ms: u64,
}

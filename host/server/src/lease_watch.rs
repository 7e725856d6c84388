//! When keep-alives came, to measure by: how long one waits for its acknowledgement, and how long it
//! takes from a lease's end until everything that follows from it is known.
//!
//! It decides nothing: which lease has run out is the replica's to say.

use hashbrown::HashMap;
use maitred_protocol::{KeepAliveAck, NodeEpoch};
use maitred_registry::{Node, Registry};

use crate::inbox::Renewal;

/// The replica grants this part of a lease beyond what the node has, for the drift of two clocks.
const DRIFT_PART: u64 = 50;

#[derive(Debug)]
struct Lease {
    ttl_us: u64,
    /// Its last keep-alive, and when that came.
    sequence: u64,
    at_us: u64,
}

/// The live sessions, while this host leads.
#[derive(Debug, Default)]
pub(crate) struct LeaseWatch(HashMap<NodeEpoch, Lease>);

impl LeaseWatch {
    /// A session has begun.
    pub(crate) fn began(&mut self, node: &Node, now_us: u64) {
        let lease = Lease {
            ttl_us: u64::from(node.ttl_ms) * 1_000,
            sequence: 0,
            at_us: now_us,
        };
        self.0.insert(node.epoch(), lease);
    }

    /// This host leads from now on, and gives every node a full lease.
    pub(crate) fn grant(&mut self, registry: &Registry, now_us: u64) {
        for node in registry.nodes() {
            self.began(node, now_us);
        }
    }

    /// This host leads no more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn renewed(&mut self, renewal: &Renewal) {
        let keep_alive = &renewal.keep_alive;
        let lease = self.0.get_mut(&keep_alive.epoch);
        if let Some(lease) = lease.filter(|lease| lease.sequence < keep_alive.sequence) {
            (lease.sequence, lease.at_us) = (keep_alive.sequence, renewal.at_us);
        }
    }

    /// When the keep-alive came that is acknowledged, unless a newer one has come since.
    pub(crate) fn came(&self, ack: &KeepAliveAck) -> Option<u64> {
        let lease = self.0.get(&ack.epoch);
        let lease = lease.filter(|lease| lease.sequence == ack.sequence);
        lease.map(|lease| lease.at_us)
    }

    /// The session has ended; says when its lease ran out, or would have.
    pub(crate) fn ended(&mut self, epoch: NodeEpoch) -> Option<u64> {
        let lease = self.0.remove(&epoch)?;
        Some(lease.at_us + lease.ttl_us + lease.ttl_us / DRIFT_PART)
    }
}

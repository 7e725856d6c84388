//! **Property: no lease expires early.** A leader proposes the expiry of a node only when, by its own
//! clock, the whole lease and the bound of the clocks' drift have passed since it received the last
//! keep-alive that it acknowledged, and since it began to serve; from then on it acknowledges nothing more of
//! that session. And no other session ends than the one whose end was proposed.

use std::collections::{BTreeMap, BTreeSet};

use maitred_protocol::{KeepAlive, KeepAliveAck, NodeEpoch};

/// One part in this many is the bound of drift.
const DRIFT_PART: u64 = 50;

#[derive(Debug, Default)]
struct Known {
    serving_us: u64,
    /// When a keep-alive of this session and number came.
    received: BTreeMap<(NodeEpoch, u64), u64>,
    /// When the last acknowledged one of a session came.
    acknowledged: BTreeMap<NodeEpoch, u64>,
    /// Sessions whose expiry it has proposed.
    expiring: BTreeSet<NodeEpoch>,
}

/// See the head of this file. Times are of each machine's own clock.
#[derive(Debug, Default)]
pub struct Leases {
    machines: BTreeMap<usize, Known>,
    /// Sessions whose end somebody has proposed.
    ending: BTreeSet<NodeEpoch>,
}

impl Leases {
    /// A machine's process is gone.
    pub fn ended(&mut self, machine: usize) {
        self.machines.remove(&machine);
    }

    /// A host begins to serve.
    pub fn serving(&mut self, machine: usize, mono_us: u64) {
        let known = self.machines.entry(machine).or_default();
        known.serving_us = mono_us;
        known.acknowledged.clear();
        known.expiring.clear();
    }

    /// A keep-alive has come.
    pub fn received(&mut self, machine: usize, keep_alive: &KeepAlive, mono_us: u64) {
        let known = self.machines.entry(machine).or_default();
        let at = (keep_alive.epoch, keep_alive.sequence);
        known.received.entry(at).or_insert(mono_us);
    }

    /// It is acknowledged.
    ///
    /// # Errors
    /// The session's expiry was proposed before, by the same leader.
    pub fn acknowledged(&mut self, machine: usize, ack: &KeepAliveAck) -> Result<(), String> {
        let known = self.machines.entry(machine).or_default();
        if ack.alive && known.expiring.contains(&ack.epoch) {
            let epoch = ack.epoch;
            return Err(format!(
                "machine {machine} acknowledges session {epoch}, whose expiry it has proposed"
            ));
        }
        let received = known.received.get(&(ack.epoch, ack.sequence)).copied();
        if let Some(received) = received.filter(|_| ack.alive) {
            let last = known.acknowledged.entry(ack.epoch).or_insert(received);
            *last = received.max(*last);
        }
        Ok(())
    }

    /// Somebody has proposed that this session ends.
    pub fn ends(&mut self, epoch: NodeEpoch) {
        self.ending.insert(epoch);
    }

    /// A session has ended.
    ///
    /// # Errors
    /// Nobody has proposed that.
    pub fn is_over(&self, epoch: NodeEpoch) -> Result<(), String> {
        if self.ending.contains(&epoch) {
            return Ok(());
        }
        Err(format!(
            "session {epoch} is ended, which nobody has proposed"
        ))
    }

    /// An expiry is proposed. A host says that it serves up to `slack_us` after it began to.
    ///
    /// # Errors
    /// It is too early.
    pub fn expires(
        &mut self,
        machine: usize,
        epoch: NodeEpoch,
        mono_us: u64,
        (ttl_us, slack_us): (u64, u64),
    ) -> Result<(), String> {
        let Some(known) = self.machines.get_mut(&machine) else {
            return Ok(());
        };
        known.expiring.insert(epoch);
        let last = known.acknowledged.get(&epoch).copied().unwrap_or(0);
        let since = last.max(known.serving_us);
        if mono_us + slack_us >= since + ttl_us + ttl_us / DRIFT_PART {
            return Ok(());
        }
        let after_ms = (mono_us - since) / 1_000;
        Err(format!(
            "machine {machine} expires session {epoch} {after_ms} ms after it {} (the lease has {} ms)",
            if last > known.serving_us {
                "received a keep-alive that it acknowledged"
            } else {
                "began to serve"
            },
            ttl_us / 1_000
        ))
    }
}

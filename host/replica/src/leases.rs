//! Nodes as only the leader knows them: leases, loads, and placements that are not yet committed.
//!
//! None of this is in the log. A new leader gives every node a full term, and loads come back with
//! the next keep-alives. Expiry is a conditional entry: it names the session, and from the moment
//! it is proposed nothing of that session is acknowledged any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use maitred_protocol::{
    KeepAlive, KeepAliveAck, Load, NodeEpoch, NodeName, NodeRecord, limits as wire,
};
use maitred_registry::candidates::NEVER;
use maitred_registry::{Command, Node};

use crate::effect::Effect;
use crate::health::Health;
use crate::mutants;
use crate::proposals::Waiter;
use crate::recreation::bucket::Bucket;
use crate::replica::Replica;
use crate::saga::Placed;

/// The bound on how much faster or slower than another a host's or node's clock may run: one part
/// in this many.
const DRIFT_PART: u64 = 50;

/// Microseconds after which a node that has not come to a new leader is given nothing more.
const NEW_LEADER_US: u64 = 2_000_000;

/// What the leader knows of one session.
#[derive(Debug)]
pub(crate) struct Lease {
    name: NodeName,
    ttl_us: u64,
    last_us: u64,
    deadline_us: u64,
    /// Whether it has said anything to this leader.
    heard: bool,
    /// The number of its last keep-alive; replays and stragglers do not renew.
    sequence: u64,
    /// Its expiry has been proposed.
    expiring: bool,
    load: Option<(Load, u64)>,
    pub(crate) counters: Arc<[(String, f32)]>,
    /// Placements decided and not yet committed: how many, and units.
    pub(crate) decided: (u32, u32),
    /// Placements committed and not yet running.
    pub(crate) spawning: u32,
    pub(crate) health: Health,
    /// Processes of lost nodes that it may be given.
    pub(crate) budget: Bucket,
    placed: Rate,
    /// When the last of them was decided; [`NEVER`] for never.
    pub(crate) placed_at_us: u64,
}

impl Lease {
    fn new(node: &Node, now_us: u64) -> Self {
        let ttl_us = u64::from(node.ttl_ms) * 1_000;
        Self {
            name: node.facts.name.clone(),
            ttl_us,
            last_us: now_us,
            deadline_us: now_us + ttl_us + ttl_us / DRIFT_PART,
            heard: false,
            sequence: 0,
            expiring: false,
            load: None,
            counters: Arc::new([]),
            decided: (0, 0),
            spawning: 0,
            health: Health::default(),
            budget: Bucket::default(),
            placed: Rate::default(),
            placed_at_us: NEVER,
        }
    }

    /// Whether it is given nothing for now.
    pub(crate) fn is_suspect(&self, now_us: u64) -> bool {
        self.expiring || self.health.is_suspect() || self.is_silent(now_us)
    }

    /// Two keep-alives in a row have been missed (nodes send one every quarter of their lease); or the
    /// node has not come to this leader, which nodes do at once.
    fn is_silent(&self, now_us: u64) -> bool {
        let missed_us = self.ttl_us * 3 / 4;
        let patience_us = if self.heard {
            missed_us
        } else {
            missed_us.min(NEW_LEADER_US)
        };
        now_us.saturating_sub(self.last_us) > patience_us
    }

    /// CPU, memory, and when that was reported; NaN and [`NEVER`] for what is not known.
    pub(crate) fn load(&self) -> (f32, f32, u64) {
        match &self.load {
            Some((load, at_us)) => (load.cpu, load.memory_free_mib as f32, *at_us),
            None => (f32::NAN, f32::NAN, NEVER),
        }
    }

    pub(crate) fn placed(&mut self, now_us: u64) -> [u32; 3] {
        if self.placed_at_us == NEVER || now_us.saturating_sub(self.placed_at_us) > 61_000_000 {
            return [0; 3];
        }
        self.placed.sums(now_us)
    }
}

/// Placements of the last minute, by second.
#[derive(Debug)]
struct Rate {
    buckets: [u32; 60],
    second: u64,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            buckets: [0; 60],
            second: 0,
        }
    }
}

impl Rate {
    fn advance(&mut self, now_us: u64) {
        let second = now_us / 1_000_000;
        let passed = second.saturating_sub(self.second).min(60);
        for back in 0..passed {
            self.buckets[((second - back) % 60) as usize] = 0;
        }
        self.second = self.second.max(second);
    }

    fn count(&mut self, now_us: u64) {
        self.advance(now_us);
        self.buckets[(self.second % 60) as usize] += 1;
    }

    fn sums(&mut self, now_us: u64) -> [u32; 3] {
        self.advance(now_us);
        let sum = |seconds: u64| {
            (0..seconds)
                .map(|back| self.buckets[((self.second + 60 - back) % 60) as usize])
                .sum()
        };
        [sum(1), sum(10), sum(60)]
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    all: BTreeMap<NodeEpoch, Lease>,
    /// When this leader gave every node a full term.
    since_us: u64,
}

impl Leases {
    pub(crate) fn get_mut(&mut self, epoch: NodeEpoch) -> Option<&mut Lease> {
        self.all.get_mut(&epoch)
    }

    /// Whether nodes may still be on their way to this leader.
    pub(crate) fn are_new(&self, now_us: u64) -> bool {
        now_us < self.since_us + 2 * NEW_LEADER_US
    }

    /// Whether it has a lease whose end is not decided yet.
    pub(crate) fn is_live(&self, epoch: NodeEpoch) -> bool {
        let lease = self.all.get(&epoch);
        lease.is_some_and(|lease| !lease.expiring)
    }

    pub(crate) fn add(&mut self, node: &Node, now_us: u64) {
        self.all.insert(node.epoch(), Lease::new(node, now_us));
    }

    pub(crate) fn remove(&mut self, epoch: NodeEpoch) {
        self.all.remove(&epoch);
    }

    /// Counts a decision as load of its node until it is committed.
    /// `rate` is how many processes of lost nodes a node may be given in a second.
    pub(crate) fn place(&mut self, placed: Placed, rate: u32, now_us: u64) {
        if let Some(lease) = self.all.get_mut(&placed.epoch) {
            if placed.again {
                lease.budget.take(rate, now_us);
            }
            lease.decided.0 += 1;
            lease.decided.1 = lease.decided.1.saturating_add(placed.demand);
            lease.placed.count(now_us);
            lease.placed_at_us = now_us;
        }
    }

    /// A decision has come to nothing: its token is the node's again.
    pub(crate) fn give_back(&mut self, placed: Placed) {
        if let Some(lease) = self.all.get_mut(&placed.epoch)
            && placed.again
        {
            lease.budget.give_back();
        }
    }

    /// The decision has been committed, or has come to nothing.
    pub(crate) fn unplace(&mut self, placed: Placed) {
        if let Some(lease) = self.all.get_mut(&placed.epoch) {
            lease.decided.0 = lease.decided.0.saturating_sub(1);
            lease.decided.1 = lease.decided.1.saturating_sub(placed.demand);
        }
    }
}

/// Drops what no node can mean: a report is data from outside.
fn sane(mut load: Load) -> Load {
    if !(0.0..=1.0).contains(&load.cpu) {
        load.cpu = f32::NAN;
    }
    load.counters
        .retain(|(name, value)| value.is_finite() && name.len() <= wire::NAME_BYTES_MAX);
    load.counters.truncate(wire::COUNTERS_MAX);
    load
}

impl Replica {
    pub(crate) fn keep_alive(&mut self, link: u64, keep_alive: KeepAlive, at_us: u64) {
        if self.serving.is_none() {
            return;
        }
        let lease = self.leases.all.get(&keep_alive.epoch);
        if let Some(raise) = lease.and_then(|lease| self.raised_bound(&lease.name, &keep_alive)) {
            self.queue(None, raise, Waiter::Nobody);
        }
        let now_us = at_us.min(self.now.mono_us);
        let KeepAlive {
            epoch,
            sequence,
            load,
            stop_ms: _,
        } = keep_alive;
        let mut steady_again = false;
        let alive = match self.leases.all.get_mut(&epoch) {
            // Its end is decided; only apply can tell whether it still holds.
            Some(lease) if lease.expiring && !mutants::on("ack-after-expiry") => return,
            Some(lease) if sequence <= lease.sequence => return,
            Some(lease) => {
                lease.sequence = sequence;
                let was_suspect = lease.is_suspect(self.now.mono_us);
                let since_us = now_us.saturating_sub(lease.last_us);
                lease.health.heard(since_us <= lease.ttl_us / 2);
                lease.heard = true;
                lease.last_us = lease.last_us.max(now_us);
                steady_again = was_suspect && !lease.is_suspect(self.now.mono_us);
                let deadline_us = now_us + lease.ttl_us + lease.ttl_us / DRIFT_PART;
                lease.deadline_us = lease.deadline_us.max(deadline_us);
                if mutants::on("expire-early") {
                    lease.deadline_us = now_us + lease.ttl_us / 3;
                }
                if let Some(load) = load.map(sane) {
                    lease.counters = load.counters.clone().into();
                    lease.load = Some((load, now_us));
                }
                true
            }
            None => false,
        };
        let ack = KeepAliveAck {
            epoch,
            sequence,
            alive,
        };
        if steady_again {
            self.capacity_appeared();
        }
        // It leaves when a quorum has confirmed, from now on, that this host still leads: a
        // successor's full term then begins after this keep-alive was sent.
        if mutants::on("ack-without-round") {
            return self.acknowledge(link, ack);
        }
        self.reads.push_ack(link, ack);
    }

    /// A quorum has confirmed this host since the keep-alive came.
    pub(crate) fn acknowledge(&mut self, link: u64, ack: KeepAliveAck) {
        let lease = self.leases.all.get(&ack.epoch);
        // Its end may have been decided, or even come, while it waited for the quorum.
        let over = ack.alive && lease.is_none_or(|lease| lease.expiring);
        let over = over && !mutants::on("ack-after-expiry");
        if self.serving.is_some() && !over {
            self.effects.push(Effect::KeepAliveAck { link, ack });
        }
    }

    pub(crate) fn expire_leases(&mut self) {
        let now_us = self.now.mono_us;
        let mut expired = Vec::new();
        let mut settled = false;
        for (epoch, lease) in &mut self.leases.all {
            if !lease.expiring && lease.deadline_us <= now_us {
                lease.expiring = true;
                expired.push((lease.name.clone(), *epoch));
            }
            // One that has not come to this leader yet has its first keep-alive to prove itself.
            if lease.heard && lease.is_silent(now_us) {
                lease.health.missed(now_us);
            }
            settled |= lease.health.settle(now_us);
        }
        if settled {
            self.capacity_appeared();
        }
        for (name, epoch) in expired {
            let command = expiry(name, epoch);
            self.queue(None, command, Waiter::Nobody);
        }
    }

    /// A full term for every node: the leader before may have renewed a moment ago.
    pub(crate) fn grant_leases(&mut self) {
        let now_us = self.now.mono_us;
        self.leases.since_us = now_us;
        let leases = self
            .registry
            .nodes()
            .map(|node| (node.epoch(), Lease::new(node, now_us)));
        self.leases.all = leases.collect();
        if mutants::on("no-full-ttl") {
            for lease in self.leases.all.values_mut() {
                lease.deadline_us = now_us;
            }
        }
    }

    /// A node with what the leader knows of it.
    pub(crate) fn node_record(&self, node: &Node) -> NodeRecord {
        let mut record = self.registry.node_to_wire(node);
        let now_us = self.now.mono_us;
        if let Some(lease) = self.leases.all.get(&node.epoch()) {
            record.suspect = lease.is_suspect(now_us);
            record.damped_ms = lease.health.damped_ms(now_us);
            record.lease_left_ms = (lease.deadline_us.saturating_sub(now_us) / 1_000) as u32;
            record.load = lease.load.as_ref().map(|(load, at_us)| {
                (load.clone(), (now_us.saturating_sub(*at_us) / 1_000) as u32)
            });
        }
        record
    }
}

fn expiry(name: NodeName, epoch: NodeEpoch) -> Command {
    if mutants::on("hold-skipped-on-expiry") {
        return Command::ConfirmDead {
            name,
            epoch: Some(epoch),
            types: Vec::new(),
            proof: String::new(),
        };
    }
    Command::Expire { name, epoch }
}

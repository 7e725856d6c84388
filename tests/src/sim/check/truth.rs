//! **Property: what the registry takes from a node does not go on there.** When an expiry is applied for
//! the first time, the node that it names, if it runs and is not stopped, holds no lease of that session by
//! its own clock, and runs nothing that it has not been told to stop. And when a life begins on one node,
//! an older one of its key that goes on elsewhere does so under a lease that holds.
//!
//! Until restarts wait for a proof of death, two lives of a key may overlap for other reasons: a tombstone
//! that is still on its way, after a delete or a failed attempt. That is not judged here.

use maitred_protocol::{Incarnation, NodeEpoch, NodeName, ProcessKey};

use super::agreement::Kind;
use crate::sim::actor::Role;
use crate::sim::node::Node;
use crate::sim::world::World;

/// How late a node's timer may be.
const LATE_US: u64 = 50_000;

impl World {
    fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.actors
            .iter()
            .enumerate()
            .filter_map(|(at, actor)| match &actor.role {
                Role::Node(node) if actor.up && !actor.paused => Some((at, &**node)),
                _ => None,
            })
    }

    /// Entries are applied for the first time.
    pub fn check_applied(&mut self, fresh: &[Kind]) {
        for kind in fresh {
            if let Kind::Expire(name, epoch) = kind {
                self.cover.count("lease expired");
                let found = self.check_expiry(name, *epoch);
                self.verify("truth", found);
            }
        }
    }

    /// An expiry is applied.
    ///
    /// # Errors
    /// The node still believes in its lease.
    pub fn check_expiry(&self, name: &NodeName, epoch: NodeEpoch) -> Result<(), String> {
        for (at, node) in self.nodes() {
            if node.name != *name || node.agent.epoch() != Some(epoch) {
                continue;
            }
            let now_us = self.actors[at].clock.mono_us(self.now);
            let left_us = node.agent.lease_until_us().saturating_sub(now_us);
            if left_us > 0 {
                return Err(format!(
                    "session {epoch} of {name} is expired, and the node holds its lease for another {} ms",
                    left_us / 1_000
                ));
            }
        }
        for (_, node) in self.nodes().filter(|(_, node)| node.name == *name) {
            let ended = node.agent.epoch().is_none();
            let going_on = node.truth.iter().find(|(_, truth)| !truth.stopping);
            if let Some(((key, incarnation), _)) = going_on.filter(|_| ended) {
                return Err(format!(
                    "session {epoch} of {name} is expired, and {key}@{incarnation} goes on there"
                ));
            }
        }
        Ok(())
    }

    /// A life begins on a node.
    ///
    /// # Errors
    /// An older one goes on elsewhere without a lease.
    pub fn check_one_life(
        &self,
        actor: usize,
        key: &ProcessKey,
        incarnation: Incarnation,
    ) -> Result<(), String> {
        for (at, node) in self.nodes().filter(|(at, _)| *at != actor) {
            let older = node.truth.iter().find(|((other, life), truth)| {
                other == key && *life < incarnation && !truth.stopping
            });
            let Some(((_, old), _)) = older else { continue };
            let now_us = self.actors[at].clock.mono_us(self.now);
            if node.agent.lease_until_us() + LATE_US < now_us {
                return Err(format!(
                    "{key}@{incarnation} begins, and {old} goes on on {} without a lease",
                    node.name
                ));
            }
        }
        Ok(())
    }
}

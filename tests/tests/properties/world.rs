//! The nodes' side of a random run: which lives they were asked to start, which run, which were
//! stopped; and the checks that follow from that.

use std::collections::{BTreeMap, BTreeSet};

use maitred_protocol::{
    Incarnation, NodeEpoch, NodeName, ProcessKey, Response, Unavailable, Verdict,
};
use maitred_registry::Event;
use maitred_tests::driver::Seen;

/// A life that a node was asked to start and was not told to stop.
#[derive(Debug)]
struct Life {
    incarnation: Incarnation,
    node: NodeName,
    epoch: NodeEpoch,
}

/// What a ticket stands for.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    /// A node's session, with the inventory that was sent.
    Session(NodeName, Vec<(ProcessKey, Incarnation)>),
    /// Anything else.
    Other,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct World {
    lives: BTreeMap<ProcessKey, Vec<Life>>,
    pub(super) asked: BTreeMap<u64, Asked>,
    pub(super) answered: BTreeSet<u64>,
}

impl World {
    /// What a node says when it comes back: all that it runs or is starting.
    pub(super) fn inventory(&self, node: &NodeName) -> Vec<(ProcessKey, Incarnation)> {
        let lives = self.lives.iter();
        lives
            .flat_map(|(key, lives)| lives.iter().map(move |life| (key, life)))
            .filter(|(_, life)| life.node == *node)
            .map(|(key, life)| (key.clone(), life.incarnation))
            .collect()
    }

    /// The node's program has died, or nobody can reach it: what it was asked for does not count.
    pub(super) fn node_died(&mut self, node: &NodeName) {
        for lives in self.lives.values_mut() {
            lives.retain(|life| life.node != *node);
        }
    }

    fn stop(&mut self, node: &NodeName, key: &ProcessKey, incarnation: Incarnation) {
        if let Some(lives) = self.lives.get_mut(key) {
            lives.retain(|life| life.node != *node || life.incarnation > incarnation);
        }
    }

    /// Takes in what left the replica, in order.
    pub(super) fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Reply(ticket, response) => self.reply(ticket, &response),
            Seen::Spawn(job) => {
                let lives = self.lives.entry(job.key.clone()).or_default();
                let older = lives.iter().find(|life| life.incarnation < job.incarnation);
                assert!(
                    older.is_none(),
                    "{}@{} is started on {} while {older:?} was not stopped",
                    job.key,
                    job.incarnation,
                    job.node.name
                );
                assert!(
                    lives.iter().all(|life| life.incarnation == job.incarnation),
                    "{}@{} is started after a later life",
                    job.key,
                    job.incarnation
                );
                lives.clear();
                lives.push(Life {
                    incarnation: job.incarnation,
                    node: job.node.name.clone(),
                    epoch: job.node.epoch,
                });
            }
            Seen::Stop {
                node,
                key,
                incarnation,
                ..
            } => self.stop(&node, &key, incarnation),
            Seen::Events(events) => events.iter().for_each(|event| self.event(event)),
            Seen::Ack(_) | Seen::Snapshot(_) | Seen::Compact(_) => {}
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            // A node whose session ends has stopped what it ran.
            Event::NodeDown(_, epoch) => {
                for lives in self.lives.values_mut() {
                    lives.retain(|life| life.epoch != *epoch);
                }
            }
            Event::NodeUp {
                epoch,
                superseded: Some(old),
                ..
            } => {
                for life in self.lives.values_mut().flatten() {
                    if life.epoch == *old {
                        life.epoch = *epoch;
                    }
                }
            }
            _ => {}
        }
    }

    fn reply(&mut self, ticket: u64, response: &Response) {
        self.answered.insert(ticket);
        let asked = self.asked.get(&ticket).cloned().unwrap();
        match (asked, response) {
            (Asked::Session(node, inventory), Response::Registered { epoch, verdicts }) => {
                assert_eq!(inventory.len(), verdicts.len());
                // A node that waits for the answer begins nothing, whatever its last session was told.
                let is_named = |key: &ProcessKey, life: &Life| {
                    let named =
                        |(of, at): &(ProcessKey, Incarnation)| of == key && *at == life.incarnation;
                    inventory.iter().any(named)
                };
                for (key, lives) in &mut self.lives {
                    lives.retain(|life| {
                        life.node != node || life.incarnation.0 > epoch.0 || is_named(key, life)
                    });
                }
                for ((key, incarnation), verdict) in inventory.iter().zip(verdicts) {
                    if *verdict == Verdict::Stop {
                        self.stop(&node, key, *incarnation);
                    }
                }
            }
            (_, Response::Unavailable(Unavailable::NotLeader { .. })) => {
                panic!("the only host of its group leads it")
            }
            _ => {}
        }
    }

    /// Tickets that have no answer.
    pub(super) fn unanswered(&self) -> Vec<u64> {
        let tickets = self.asked.keys();
        tickets
            .filter(|ticket| !self.answered.contains(*ticket))
            .copied()
            .collect()
    }

    /// The host died: whoever waited for an answer will not get one.
    pub(super) fn host_died(&mut self) {
        for ticket in self.unanswered() {
            self.answered.insert(ticket);
        }
    }
}

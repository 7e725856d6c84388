//! What operators hold up or empty: drains, and the switches. The leader carries drains out; what is
//! kept here is what another leader needs to go on with one.

use std::collections::VecDeque;
use std::sync::Arc;

use maitred_protocol::{Drain, DrainState, NodeName, Rejection, Revision, Switch};

use crate::Registry;
use crate::limits::{CORDONS_MAX, LOSSES_MAX};
use crate::outcome::{Event, Outcome};

/// What an operator holds up, and what the breaker for the loss of many nodes looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Failover {
    pub(crate) moves_suspended: bool,
    pub(crate) recreation_suspended: bool,
    /// Nodes that were lost and have not come back, each once: when, in milliseconds since 1970, and
    /// its name; the latest last.
    pub(crate) losses: VecDeque<(u64, Arc<NodeName>)>,
    /// After a restore: indices that the registry cannot know of, from the first to before the last.
    pub(crate) forgotten: Option<(u64, u64)>,
}

impl Failover {
    pub(crate) fn lost(&mut self, time_ms: u64, name: &Arc<NodeName>) {
        self.came_back(name);
        if self.losses.len() >= LOSSES_MAX {
            self.losses.pop_front();
        }
        self.losses.push_back((time_ms, Arc::clone(name)));
    }

    /// One that comes and goes is one node, and none while it is there.
    pub(crate) fn came_back(&mut self, name: &NodeName) {
        self.losses.retain(|(_, lost)| **lost != *name);
    }
}

impl Registry {
    pub(crate) fn drain_node(
        &mut self,
        (index, time_ms): (u64, u64),
        name: &NodeName,
        drain: Option<Drain>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(drain) = drain else {
            if self.drains.remove(name).is_none() {
                return Outcome::not_found(format!("a drain of node {name}"));
            }
            if let Some(node) = self.nodes.get_mut(name) {
                node.revision = Revision(index);
            }
            events.push(Event::NodeChanged(name.clone()));
            return Outcome::Done(Revision(index));
        };
        let Some(node) = self.nodes.get(name) else {
            return Outcome::not_found(format!("node {name}"));
        };
        if !self.cordoned.contains(name) && self.cordoned.len() >= CORDONS_MAX {
            return Outcome::rejected(Rejection::Conflict(format!(
                "{CORDONS_MAX} nodes are cordoned already, which is the limit; uncordon those that are gone"
            )));
        }
        let before = self.drains.get(name);
        let state = DrainState {
            began_ms: before.map_or(time_ms, |before| before.began_ms),
            deadline_at_ms: time_ms.saturating_add(drain.deadline_ms.into()),
            per_second: drain.per_second,
            processes: before.map_or(node.processes(), |before| before.processes),
        };
        self.drains.insert(name.clone(), state);
        self.cordoned.insert(name.clone());
        if let Some(node) = self.nodes.get_mut(name) {
            node.revision = Revision(index);
        }
        self.fleet_revision = index;
        events.push(Event::NodeChanged(name.clone()));
        Outcome::Done(Revision(index))
    }

    pub(crate) fn suspend(
        &mut self,
        index: u64,
        what: Switch,
        suspended: bool,
        events: &mut Vec<Event>,
    ) -> Outcome {
        match what {
            Switch::Moves => self.failover.moves_suspended = suspended,
            Switch::Recreation => {
                self.failover.recreation_suspended = suspended;
                if !suspended {
                    self.failover.losses.clear();
                }
            }
        }
        events.push(Event::Switched(what));
        Outcome::Done(Revision(index))
    }

    /// Drains under way or done, by name.
    pub fn drains(&self) -> impl Iterator<Item = (&NodeName, &DrainState)> {
        self.drains.iter()
    }

    /// Whether an operator holds it up.
    #[must_use]
    pub fn is_suspended(&self, what: Switch) -> bool {
        match what {
            Switch::Moves => self.failover.moves_suspended,
            Switch::Recreation => self.failover.recreation_suspended,
        }
    }

    /// When each of the nodes was lost that have not come back since, in milliseconds since 1970, in
    /// order; the last 1,024. None after an operator let re-creation go on.
    pub fn losses_ms(&self) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator {
        self.failover.losses.iter().map(|(time_ms, _)| *time_ms)
    }

    /// Whether something began at an index that a restore has lost sight of.
    #[must_use]
    pub fn is_forgotten(&self, index: u64) -> bool {
        let forgotten = self.failover.forgotten;
        forgotten.is_some_and(|(from, to)| (from..to).contains(&index))
    }
}

//! A node registers: what becomes of the sessions that its name had before, and of each process that
//! it says it runs: kept, stopped, or adopted.
//!
//! A registration is proof that what the name ran before is over, except for what the node still
//! names: a process of a name begins when the one before has ended. The one exception is a process
//! that was superseded and has not heard of it: it knows nothing of the one that came after it.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use maitred_protocol::{
    Incarnation, NodeEpoch, NodeName, ProcessKey, ProcessState, RegisterNode, Rejection, Verdict,
};

use crate::Registry;
use crate::holds::{Hold, wire};
use crate::life::At;
use crate::limits::NODES_MAX;
use crate::node::Node;
use crate::outcome::{Change, Event, Outcome};
use crate::process::Record;

type Inventory = [(ProcessKey, Incarnation)];

/// A session that begins.
struct Comer<'a> {
    name: Arc<NodeName>,
    epoch: NodeEpoch,
    instance: u64,
    last_epoch: Option<NodeEpoch>,
    inventory: &'a Inventory,
    /// The inventory, in order.
    runs: BTreeSet<(&'a ProcessKey, Incarnation)>,
}

impl Registry {
    pub(crate) fn register_node(
        &mut self,
        at: At,
        mut register: RegisterNode,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let old = self.nodes.get(&register.name);
        if let Some(old) = old
            && is_superseded(&register, old)
        {
            return Outcome::rejected(Rejection::Superseded {
                epoch: old.epoch(),
                name: register.name,
            });
        }
        if old.is_none() && self.nodes.len() >= NODES_MAX {
            return Outcome::rejected(Rejection::Conflict(format!(
                "the group has {NODES_MAX} nodes already, which is its limit"
            )));
        }
        let old = self.nodes.remove(&register.name);
        let inventory = std::mem::take(&mut register.inventory);
        let last_epoch = register.last_epoch;
        let node = Node::new(at, register, old.as_ref());
        let comer = Comer {
            name: Arc::clone(&node.name),
            epoch: node.epoch(),
            instance: node.instance,
            last_epoch,
            inventory: &inventory,
            runs: inventory.iter().map(|(key, life)| (key, *life)).collect(),
        };
        self.nodes.insert((*node.name).clone(), node);
        self.fleet_revision = at.index;
        self.failover.came_back(&comer.name);
        events.push(Event::NodeUp {
            name: (*comer.name).clone(),
            epoch: comer.epoch,
            superseded: old.as_ref().map(Node::epoch),
        });
        let claimed = self.claim(at, &comer, events);
        if let Some(old) = &old {
            // What it runs it has claimed. All else is over.
            self.lose_processes(at, old, "its node registered anew without it", events);
        }
        self.succeed_sessions(&comer, events);
        let verdicts = self.judge(&comer, &claimed, events);
        Outcome::Registered {
            epoch: comer.epoch,
            verdicts: verdicts.into(),
        }
    }

    /// Moves what a node still runs from its old session to its new one; and says of each process of
    /// its inventory whether it is that.
    fn claim(&mut self, at: At, comer: &Comer<'_>, events: &mut Vec<Event>) -> Vec<bool> {
        let mut claim_one = |key: &ProcessKey, incarnation: Incarnation| {
            let record = self.process(key)?;
            let is_same = record.incarnation == incarnation && record.node == comer.name;
            if !is_same || !record.is_placed() {
                return None;
            }
            if record.epoch == comer.epoch {
                // Named twice in the inventory: it has been claimed already.
                return Some(());
            }
            let change = match record.state {
                ProcessState::Starting => Change::Reserved,
                _ => Change::Updated,
            };
            let record = Arc::new(Record {
                epoch: comer.epoch,
                revision: at.revision(),
                ..(**record).clone()
            });
            self.processes.put(Arc::clone(&record));
            self.nodes.get_mut(&*comer.name)?.add(&record);
            events.push(Event::Process(change, record));
            Some(())
        };
        let inventory = comer.inventory.iter();
        inventory
            .map(|(key, incarnation)| claim_one(key, *incarnation).is_some())
            .collect()
    }

    /// Whatever the sessions of the name before held is over, except for what it still runs: that is
    /// held by the new session.
    fn succeed_sessions(&mut self, comer: &Comer<'_>, events: &mut Vec<Event>) {
        let begins = match comer.last_epoch {
            Some(last) => self.is_forgotten(last.0),
            None => true,
        };
        let is_succeeded = |session: NodeEpoch| {
            let lost = self.lost_session(session);
            begins || lost.is_none_or(|lost| lost.instance == comer.instance)
        };
        let before = self.holds.by_session.iter();
        let before: Vec<NodeEpoch> = before
            .filter(|(_, holder)| holder.node == comer.name)
            .map(|(session, _)| *session)
            .filter(|session| is_succeeded(*session))
            .collect();
        for session in before {
            let lives = self.holds.lives_of(session);
            let lives: Vec<_> = lives.map(|(key, life, _)| (key.clone(), life)).collect();
            for (key, incarnation) in lives {
                let process = wire(&key);
                if !comer.runs.contains(&(&process, incarnation)) {
                    self.release_one(key, incarnation, events);
                } else if let Some((hold, _)) = self.holds.take(key.clone(), incarnation) {
                    let epoch = comer.epoch;
                    self.holds.add(key, Hold { epoch, ..hold });
                    events.push(comer.linger(process, incarnation));
                }
            }
        }
    }

    /// One verdict for each process of the inventory. What is to be stopped is held until it has been.
    fn judge(
        &mut self,
        comer: &Comer<'_>,
        claimed: &[bool],
        events: &mut Vec<Event>,
    ) -> Vec<Verdict> {
        let each = comer.inventory.iter().zip(claimed);
        let verdicts = each.map(|((key, incarnation), claimed)| {
            if *claimed {
                return Verdict::Keep;
            }
            if self.may_adopt(comer.epoch, &comer.runs, (key, *incarnation)) {
                return Verdict::Adopt;
            }
            if self.hold_named(comer, key, *incarnation) {
                events.push(comer.linger(key.clone(), *incarnation));
            }
            Verdict::Stop
        });
        verdicts.collect()
    }

    /// Whether a life that a session says it `runs` may be one that a restore has lost sight of, and
    /// the last of its key: the node may then register it anew.
    #[must_use]
    pub fn may_adopt(
        &self,
        epoch: NodeEpoch,
        runs: &BTreeSet<(&ProcessKey, Incarnation)>,
        (key, incarnation): (&ProcessKey, Incarnation),
    ) -> bool {
        let later = (
            Bound::Excluded((key, incarnation)),
            Bound::Included((key, Incarnation(u64::MAX))),
        );
        self.is_forgotten(incarnation.0)
            && self.process(key).is_none()
            && !self.is_held_elsewhere(key, epoch)
            && runs.range(later).next().is_none()
    }

    /// Holds a life that a node says it runs, and must not; unless no node can have it, or another
    /// has it.
    fn hold_named(
        &mut self,
        comer: &Comer<'_>,
        key: &ProcessKey,
        incarnation: Incarnation,
    ) -> bool {
        let record = self.process(key);
        let is_anothers =
            record.is_some_and(|record| record.incarnation == incarnation && record.is_placed());
        if is_anothers || incarnation.0 >= comer.epoch.0 {
            return false;
        }
        let key = match record {
            Some(record) => (Arc::clone(&record.type_name), Arc::clone(&record.id)),
            None => {
                let type_name = self.processes.type_name(&key.type_name);
                (type_name, Arc::from(key.id.as_str()))
            }
        };
        self.hold(key, incarnation, (Arc::clone(&comer.name), comer.epoch))
    }
}

impl Comer<'_> {
    fn linger(&self, key: ProcessKey, incarnation: Incarnation) -> Event {
        Event::Linger {
            node: (*self.name).clone(),
            epoch: self.epoch,
            key,
            incarnation,
        }
    }
}

/// Two processes of one name would end each other's session for ever: the older one gives way.
fn is_superseded(register: &RegisterNode, current: &Node) -> bool {
    let last = register.last_epoch;
    current.instance != register.instance && last.is_some_and(|last| last < current.epoch())
}

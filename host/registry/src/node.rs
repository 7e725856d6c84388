//! A node's life: register, supersede, update, cordon, expire.
//!
//! A node's session is its epoch: the index at which it registered. Everything that ends a session
//! names the epoch, and is void when another one is current.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maitred_protocol::{
    Attempt, Incarnation, NodeEpoch, NodeName, ProcessKey, ProcessState, RegisterNode, Rejection,
    Revision, TypeName, Verdict,
};

use crate::Registry;
use crate::candidates::NodeFacts;
use crate::limits::{CORDONS_MAX, NODES_MAX};
use crate::outcome::{Change, Event, Outcome};
use crate::process::{Record, Spec};

/// A node with a session.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it said of itself.
    pub facts: Arc<NodeFacts>,
    /// Its name, shared with its records.
    pub name: Arc<NodeName>,
    /// What it wants others to know.
    pub share: Arc<[u8]>,
    /// Milliseconds of its lease.
    pub ttl_ms: u32,
    /// When it last changed.
    pub revision: Revision,
    /// Units taken.
    pub used: u32,
    /// Processes of each type.
    pub of_type: BTreeMap<Arc<TypeName>, u32>,
    /// Processes of each group.
    pub of_group: BTreeMap<String, u32>,
    /// Its processes.
    pub(crate) keys: BTreeSet<(Arc<TypeName>, Arc<str>)>,
}

impl Node {
    /// Its session.
    #[must_use]
    pub fn epoch(&self) -> NodeEpoch {
        self.facts.epoch
    }

    /// How many processes it has, starting ones included.
    #[must_use]
    pub fn processes(&self) -> u32 {
        self.keys.len() as u32
    }

    /// Units free.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.facts.capacity.saturating_sub(self.used)
    }

    pub(crate) fn add(&mut self, record: &Record) {
        if self
            .keys
            .insert((Arc::clone(&record.type_name), Arc::clone(&record.id)))
        {
            self.used = self.used.saturating_add(record.demand);
            *self
                .of_type
                .entry(Arc::clone(&record.type_name))
                .or_insert(0) += 1;
            if let Some(group) = record.group() {
                // Looked up first: the name is copied only for the first of its group.
                match self.of_group.get_mut(group) {
                    Some(count) => *count += 1,
                    None => {
                        self.of_group.insert(group.to_owned(), 1);
                    }
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, record: &Record) {
        if self
            .keys
            .remove(&(Arc::clone(&record.type_name), Arc::clone(&record.id)))
        {
            self.used = self.used.saturating_sub(record.demand);
            if let Some(count) = self.of_type.get_mut(&record.type_name) {
                *count -= 1;
                if *count == 0 {
                    self.of_type.remove(&record.type_name);
                }
            }
            if let Some(group) = record.group()
                && let Some(count) = self.of_group.get_mut(group)
            {
                *count -= 1;
                if *count == 0 {
                    self.of_group.remove(group);
                }
            }
        }
    }
}

/// What a node changes of itself.
#[derive(Debug)]
pub(crate) struct NodeChange {
    pub(crate) labels: Option<Vec<(String, String)>>,
    pub(crate) capacity: Option<u32>,
    pub(crate) share: Option<Vec<u8>>,
}

/// A no: the session is not the current one.
fn fenced(current: Option<NodeEpoch>) -> Outcome {
    let current = current.map_or(0, |epoch| epoch.0);
    Outcome::rejected(Rejection::Fenced {
        what: "node epoch".to_owned(),
        current,
    })
}

impl Registry {
    /// The session of a name, if it is this one.
    pub(crate) fn live_node(
        &mut self,
        name: &NodeName,
        epoch: NodeEpoch,
    ) -> Result<&mut Node, Outcome> {
        match self.nodes.get_mut(name) {
            Some(node) if node.epoch() == epoch => Ok(node),
            other => Err(fenced(other.map(|node| node.epoch()))),
        }
    }

    pub(crate) fn register_node(
        &mut self,
        index: u64,
        register: RegisterNode,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let old = self.nodes.remove(&register.name);
        if old.is_none() && self.nodes.len() >= NODES_MAX {
            return Outcome::rejected(Rejection::Conflict(format!(
                "the group has {NODES_MAX} nodes already, which is its limit"
            )));
        }
        let epoch = NodeEpoch(index);
        let superseded = old.as_ref().map(Node::epoch);
        let facts = NodeFacts {
            name: register.name.clone(),
            epoch,
            types: register.types,
            address: register.address,
            labels: register.labels,
            capacity: register.capacity,
        };
        let node = Node {
            facts: Arc::new(facts),
            name: old.as_ref().map_or_else(
                || Arc::new(register.name.clone()),
                |old| Arc::clone(&old.name),
            ),
            share: register.share.into(),
            ttl_ms: register.ttl_ms,
            revision: Revision(index),
            used: 0,
            of_type: BTreeMap::new(),
            of_group: BTreeMap::new(),
            keys: BTreeSet::new(),
        };
        self.nodes.insert(register.name.clone(), node);
        self.fleet_revision = index;
        events.push(Event::NodeUp {
            name: register.name.clone(),
            epoch,
            superseded,
        });
        let verdicts = self.claim(index, &register.name, epoch, &register.inventory, events);
        if let Some(old) = old {
            self.lose_processes(index, old, "its node registered anew without it", events);
        }
        Outcome::Registered {
            epoch,
            verdicts: verdicts.into(),
        }
    }

    /// Moves what a node still runs from its old session to its new one.
    fn claim(
        &mut self,
        index: u64,
        name: &NodeName,
        epoch: NodeEpoch,
        inventory: &[(ProcessKey, Incarnation)],
        events: &mut Vec<Event>,
    ) -> Vec<Verdict> {
        let mut claim_one = |key: &ProcessKey, incarnation: Incarnation| {
            let record = self
                .processes
                .get(key.type_name.as_str(), key.id.as_str())?;
            let is_same = record.incarnation == incarnation && *record.node == *name;
            if !is_same || !record.is_placed() {
                return None;
            }
            if record.epoch == epoch {
                // Named twice in the inventory: it has been claimed already.
                return Some(());
            }
            let record = Record {
                epoch,
                revision: Revision(index),
                ..(**record).clone()
            };
            let change = match record.state {
                ProcessState::Starting => Change::Reserved,
                _ => Change::Updated,
            };
            let record = Arc::new(record);
            self.processes.put(Arc::clone(&record));
            self.nodes.get_mut(name)?.add(&record);
            events.push(Event::Process(change, record));
            Some(())
        };
        inventory
            .iter()
            .map(|(key, incarnation)| match claim_one(key, *incarnation) {
                Some(()) => Verdict::Keep,
                None => Verdict::Stop,
            })
            .collect()
    }

    /// Deals with the processes of a session that has ended.
    fn lose_processes(&mut self, index: u64, node: Node, cause: &str, events: &mut Vec<Event>) {
        for (type_name, id) in &node.keys {
            let Some(record) = self.processes.get(type_name.as_str(), id) else {
                continue;
            };
            if record.epoch == node.epoch() {
                let record = Arc::clone(record);
                self.lose(index, &record, cause, events);
            }
        }
    }

    /// Deals with one process whose node no longer has it: forgotten or made pending.
    pub(crate) fn lose(
        &mut self,
        index: u64,
        record: &Arc<Record>,
        cause: &str,
        events: &mut Vec<Event>,
    ) {
        let recreate = record.is_creating()
            || (record.spec.is_some()
                && self.type_spec(&record.type_name).on_node_lost
                    == maitred_protocol::OnNodeLost::Recreate);
        if recreate {
            self.unplace(index, record, cause, events);
        } else {
            self.remove_process(record);
            let gone = Record {
                revision: Revision(index),
                ..(**record).clone()
            };
            events.push(Event::Process(Change::Removed, Arc::new(gone)));
        }
    }

    /// Takes a process off its node, to be given to another.
    pub(crate) fn unplace(
        &mut self,
        index: u64,
        record: &Arc<Record>,
        cause: &str,
        events: &mut Vec<Event>,
    ) {
        if let Some(node) = self.nodes.get_mut(&*record.node) {
            node.remove(record);
        }
        let failure = Attempt {
            node: (*record.node).clone(),
            incarnation: record.incarnation,
            cause: crate::decide::cut(cause.to_owned()),
        };
        let spec = record
            .spec
            .as_deref()
            .map(|spec| Arc::new(with_failure(spec, failure)));
        let pending = Arc::new(Record {
            state: ProcessState::Pending,
            revision: Revision(index),
            pid: Box::default(),
            share: Box::default(),
            spec,
            ..(**record).clone()
        });
        self.processes.put(Arc::clone(&pending));
        events.push(Event::Process(Change::Pending, pending));
    }

    pub(crate) fn update_node(
        &mut self,
        index: u64,
        name: &NodeName,
        epoch: NodeEpoch,
        change: NodeChange,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let node = match self.live_node(name, epoch) {
            Ok(node) => node,
            Err(no) => return no,
        };
        let facts = Arc::make_mut(&mut node.facts);
        facts.labels = change
            .labels
            .unwrap_or_else(|| std::mem::take(&mut facts.labels));
        facts.capacity = change.capacity.unwrap_or(facts.capacity);
        if let Some(share) = change.share {
            node.share = share.into();
        }
        node.revision = Revision(index);
        self.fleet_revision = index;
        events.push(Event::NodeChanged(name.clone()));
        Outcome::Done(Revision(index))
    }

    pub(crate) fn end_node(
        &mut self,
        index: u64,
        name: &NodeName,
        epoch: NodeEpoch,
        cause: &str,
        events: &mut Vec<Event>,
    ) -> Outcome {
        if let Err(no) = self.live_node(name, epoch) {
            return no;
        }
        let Some(node) = self.nodes.remove(name) else {
            return fenced(None);
        };
        self.fleet_revision = index;
        events.push(Event::NodeDown(name.clone(), epoch));
        self.lose_processes(index, node, cause, events);
        Outcome::Done(Revision(index))
    }

    pub(crate) fn cordon_node(
        &mut self,
        index: u64,
        name: &NodeName,
        cordoned: bool,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let known = self.nodes.contains_key(name);
        if !known && !self.cordoned.contains(name) {
            return Outcome::not_found(format!("node {name}"));
        }
        if cordoned && self.cordoned.len() >= CORDONS_MAX && !self.cordoned.contains(name) {
            return Outcome::rejected(Rejection::Conflict(format!(
                "{CORDONS_MAX} nodes are cordoned already, which is the limit; uncordon those that are gone"
            )));
        }
        let changed = if cordoned {
            self.cordoned.insert(name.clone())
        } else {
            self.cordoned.remove(name)
        };
        if changed {
            if let Some(node) = self.nodes.get_mut(name) {
                node.revision = Revision(index);
            }
            self.fleet_revision = index;
            events.push(Event::NodeChanged(name.clone()));
        }
        Outcome::Done(Revision(index))
    }
}

fn with_failure(spec: &Spec, failure: Attempt) -> Spec {
    let mut spec = spec.clone();
    spec.failures.push(failure);
    // A wanted process is tried for as long as it takes; what is kept of that is bounded.
    let most = usize::from(maitred_protocol::limits::ATTEMPTS_MAX);
    if spec.failures.len() > most {
        spec.failures.remove(0);
    }
    spec
}

impl Spec {
    /// The same with one more failed attempt on record; the oldest is dropped past 16.
    #[must_use]
    pub(crate) fn failed(&self, failure: Attempt) -> Self {
        with_failure(self, failure)
    }
}

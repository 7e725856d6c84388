//! A node with a session: its counts, what it changes of itself, cordons. How a session begins is in
//! [`crate::register`], how it ends in [`crate::lost`].
//!
//! A node's session is its epoch: the index at which it registered. Everything that ends a session
//! names the epoch, and is void when another one is current.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maitred_protocol::{NodeEpoch, NodeName, RegisterNode, Rejection, Revision, TypeName};

use crate::Registry;
use crate::candidates::NodeFacts;
use crate::life::At;
use crate::limits::CORDONS_MAX;
use crate::outcome::{Event, Outcome};
use crate::process::Record;

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
    /// Milliseconds that it takes at most to stop what it runs.
    pub kill_bound_ms: u32,
    /// The process that registered it.
    pub instance: u64,
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
    /// As it registers, without its processes; `old` is the session of the name before.
    pub(crate) fn new(at: At, register: RegisterNode, old: Option<&Self>) -> Self {
        let name = old.map_or_else(
            || Arc::new(register.name.clone()),
            |old| Arc::clone(&old.name),
        );
        // What was measured of a process stays true of it.
        let measured = old.filter(|old| old.instance == register.instance);
        let kill_bound_ms = measured.map_or(0, |old| old.kill_bound_ms);
        Self {
            facts: Arc::new(NodeFacts {
                name: register.name,
                epoch: NodeEpoch(at.index),
                types: register.types,
                address: register.address,
                labels: register.labels,
                capacity: register.capacity,
                registered_ms: at.time_ms,
            }),
            name,
            share: register.share.into(),
            ttl_ms: register.ttl_ms,
            kill_bound_ms: register.kill_bound_ms.max(kill_bound_ms),
            instance: register.instance,
            revision: at.revision(),
            used: 0,
            of_type: BTreeMap::new(),
            of_group: BTreeMap::new(),
            keys: BTreeSet::new(),
        }
    }

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
pub(crate) fn fenced(current: Option<NodeEpoch>) -> Outcome {
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

    /// A node takes longer than it said to stop what it runs.
    pub(crate) fn raise_kill_bound(
        &mut self,
        index: u64,
        (name, epoch): (&NodeName, NodeEpoch),
        kill_bound_ms: u32,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let node = match self.live_node(name, epoch) {
            Ok(node) => node,
            Err(no) => return no,
        };
        if kill_bound_ms > node.kill_bound_ms {
            node.kill_bound_ms = kill_bound_ms;
            node.revision = Revision(index);
            events.push(Event::NodeChanged(name.clone()));
        }
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
            self.drains.remove(name);
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

//! Sessions that end, and what becomes of their processes: forgotten, or pending until another node
//! takes them; and held, when nobody has said that they are over.
//!
//! A node that leaves has stopped everything; one that is confirmed dead runs nothing. One whose
//! lease ran out may run all that it had, until its kill bound has passed or it is proven dead.

use std::sync::Arc;

use maitred_protocol::{
    Attempt, NodeEpoch, NodeName, OnNodeLost, ProcessState, Revision, TypeName,
};

use crate::Registry;
use crate::exit::EndedBy;
use crate::life::At;
use crate::node::{Node, fenced};
use crate::outcome::{Change, Event, Outcome};
use crate::process::{Record, Spec};

/// A session that ended without a word, while lives of it may still go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The node.
    pub name: Arc<NodeName>,
    /// When, by the proposer's clock, in milliseconds since 1970.
    pub lost_ms: u64,
    /// What its node takes at most to stop what it runs, in milliseconds.
    pub kill_bound_ms: u32,
    /// Where it was reached, for whoever examines it.
    pub address: Arc<str>,
    /// Its labels, likewise.
    pub labels: Arc<[(String, String)]>,
    /// The process that had registered it.
    pub instance: u64,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It said so, having stopped everything.
    Left,
    /// Its lease ran out.
    Expired,
    /// Somebody who knows said that it is dead.
    Dead,
}

impl End {
    fn cause(self) -> &'static str {
        match self {
            Self::Left => "its node was deregistered",
            Self::Expired => "its node's lease ran out",
            Self::Dead => "its node was confirmed dead",
        }
    }
}

impl Registry {
    /// Sessions that were lost and have holds, in their order.
    pub fn lost(&self) -> impl Iterator<Item = (NodeEpoch, &Lost)> {
        self.holds.lost.iter().map(|(epoch, lost)| (*epoch, lost))
    }

    /// One of them.
    #[must_use]
    pub fn lost_session(&self, epoch: NodeEpoch) -> Option<&Lost> {
        self.holds.lost.get(&epoch)
    }

    pub(crate) fn end_node(
        &mut self,
        at: At,
        name: &NodeName,
        epoch: NodeEpoch,
        end: End,
        events: &mut Vec<Event>,
    ) -> Outcome {
        if let Err(no) = self.live_node(name, epoch) {
            return no;
        }
        let Some(node) = self.nodes.remove(name) else {
            return fenced(None);
        };
        self.fleet_revision = at.index;
        if end == End::Expired {
            self.hold_all(&node);
            let lost = Lost {
                name: Arc::clone(&node.name),
                lost_ms: at.time_ms,
                kill_bound_ms: node.kill_bound_ms,
                address: node.facts.address.as_str().into(),
                labels: node.facts.labels.as_slice().into(),
                instance: node.instance,
            };
            self.holds.lose(epoch, lost);
            self.failover.lost(at.time_ms, &node.name);
        } else {
            self.release_session(epoch, |_, _| true, events);
        }
        events.push(Event::NodeDown(name.clone(), epoch));
        self.lose_processes(at, &node, end.cause(), events);
        Outcome::Done(at.revision())
    }

    /// Holds all lives of a session that has ended.
    fn hold_all(&mut self, node: &Node) {
        let lives = node.keys.iter().filter_map(|key| {
            let strict = self.is_strict(&key.0)?;
            let record = self.processes.get(key.0.as_str(), &key.1)?;
            Some(((key.clone(), record.incarnation), strict))
        });
        let lives = lives.collect();
        self.holds.add_all((&node.name, node.epoch()), lives);
    }

    /// Deals with the processes of a session that has ended, but for those that are another's by now.
    pub(crate) fn lose_processes(
        &mut self,
        at: At,
        node: &Node,
        cause: &str,
        events: &mut Vec<Event>,
    ) {
        for (type_name, id) in &node.keys {
            let record = self.processes.get(type_name.as_str(), id);
            let record = record.filter(|record| record.epoch == node.epoch());
            if let Some(record) = record.cloned() {
                self.lose(at, &record, cause, events);
            }
        }
    }

    /// Deals with one process whose node no longer has it: forgotten or made pending.
    pub(crate) fn lose(
        &mut self,
        at: At,
        record: &Arc<Record>,
        cause: &str,
        events: &mut Vec<Event>,
    ) {
        let is_wanted = || {
            let described = self.described_type(&record.type_name);
            let policy = described.map_or(OnNodeLost::default(), |spec| spec.on_node_lost);
            record.spec.is_some() && policy == OnNodeLost::Recreate
        };
        if record.is_creating() || is_wanted() {
            self.unplace(at, record, cause, Some(EndedBy::NodeLost), events);
        } else {
            self.remove_process(record);
            let gone = Record {
                revision: at.revision(),
                ..(**record).clone()
            };
            events.push(Event::Process(Change::Removed, Arc::new(gone)));
        }
    }

    /// Takes a process off its node, to be given to another; `by` when its life has ended by itself.
    pub(crate) fn unplace(
        &mut self,
        at: At,
        record: &Arc<Record>,
        cause: &str,
        by: Option<EndedBy>,
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
        let spec = record.spec.as_deref().map(|spec| {
            Arc::new(Spec {
                pending_ms: at.time_ms,
                ends: spec.ends.taken_off(by, record.state, at.time_ms),
                ..spec.failed(failure)
            })
        });
        let pending = Arc::new(Record {
            state: ProcessState::Pending,
            revision: at.revision(),
            pid: Box::default(),
            share: Box::default(),
            spec,
            ..(**record).clone()
        });
        self.processes.put(Arc::clone(&pending));
        events.push(Event::Process(Change::Pending, pending));
    }

    /// The kill bound of a lost session has passed: what needs no proof is free.
    pub(crate) fn kill_bound_passed(
        &mut self,
        index: u64,
        epoch: NodeEpoch,
        events: &mut Vec<Event>,
    ) -> Outcome {
        if self.holds.lost.contains_key(&epoch) {
            self.release_session(epoch, |_, strict| !strict, events);
        }
        Outcome::Done(Revision(index))
    }

    /// Somebody who knows says that a node is dead; of all of it, or of some types only, for which a
    /// session must have been lost.
    pub(crate) fn confirm_dead(
        &mut self,
        at: At,
        (name, only): (&NodeName, Option<NodeEpoch>),
        types: &[TypeName],
        events: &mut Vec<Event>,
    ) -> Outcome {
        let is_meant = |epoch: NodeEpoch| only.is_none_or(|only| only == epoch);
        let live = self.nodes.get(name).map(Node::epoch);
        let live = live.filter(|live| types.is_empty() && is_meant(*live));
        let meant: Vec<NodeEpoch> = self
            .lost()
            .filter(|(epoch, lost)| *lost.name == *name && is_meant(*epoch))
            .map(|(epoch, _)| epoch)
            .collect();
        if live.is_none() && meant.is_empty() {
            let what = format!("node {name}, alive or lost with keys that wait for it,");
            return Outcome::not_found(what);
        }
        if let Some(epoch) = live {
            self.end_node(at, name, epoch, End::Dead, events);
        }
        for epoch in meant {
            let may = |of: &TypeName, _| types.is_empty() || types.contains(of);
            self.release_session(epoch, may, events);
        }
        Outcome::Done(at.revision())
    }
}

impl Spec {
    /// The same with one more failed attempt on record. A wanted process is tried for as long as it
    /// takes, so the oldest is dropped past 16.
    #[must_use]
    pub(crate) fn failed(&self, failure: Attempt) -> Self {
        let mut spec = self.clone();
        spec.failures.push(failure);
        if spec.failures.len() > usize::from(maitred_protocol::limits::ATTEMPTS_MAX) {
            spec.failures.remove(0);
        }
        spec
    }
}

//! A process's life: reserved, confirmed, reassigned, aborted; set and deleted.
//!
//! Every transition names the incarnation that it is about, and is void when another one is
//! current. A decision is checked again here, because the state may have moved on since it was
//! made: the node's session lives, it is not cordoned, it has capacity left, the key is free, and
//! the module that decided is still the active one.

use std::sync::Arc;

use maitred_protocol::{
    Attempt, Chooser, Incarnation, NodeEpoch, NodeName, ProcessKey, ProcessState, Rejection,
    RequestId, Revision, SetProcess, Why,
};

use crate::Registry;
use crate::command::{AbortCause, Place, Reserve};
use crate::decide::cut;
use crate::outcome::{Change, Event, Outcome, Stale};
use crate::process::{CompactWhy, Record, Spec};

/// Choosers that are kept to be shared: selectors in use at one time, and the causes of fallbacks.
const CHOOSERS_SHARED: usize = 32;

/// What every transition is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// The index of the entry.
    pub(crate) index: u64,
    /// The proposer's time, never going back.
    pub(crate) time_ms: u64,
    /// Who asked.
    pub(crate) request: Option<RequestId>,
}

impl At {
    fn revision(self) -> Revision {
        Revision(self.index)
    }

    fn incarnation(self) -> Incarnation {
        Incarnation(self.index)
    }
}

/// A no: another life is the current one.
fn fenced(current: Incarnation) -> Outcome {
    Outcome::rejected(Rejection::Fenced {
        what: "incarnation".to_owned(),
        current: current.0,
    })
}

fn not_found(key: &ProcessKey) -> Outcome {
    Outcome::not_found(format!("process {key}"))
}

impl Registry {
    fn record(&self, key: &ProcessKey) -> Option<Arc<Record>> {
        self.processes
            .get(key.type_name.as_str(), key.id.as_str())
            .cloned()
    }

    /// The record, if it is this life of it.
    fn current(&self, key: &ProcessKey, incarnation: Incarnation) -> Option<Arc<Record>> {
        self.record(key)
            .filter(|record| record.incarnation == incarnation)
    }

    /// Puts a record in and keeps its nodes' counts right.
    fn put(&mut self, record: Record) -> Arc<Record> {
        let record = Arc::new(record);
        let old = self.processes.put(Arc::clone(&record));
        // The counts change only when the process comes to a node or leaves one.
        let on_node = |record: &Record| record.is_placed().then_some((record.epoch, record.demand));
        if old.as_deref().and_then(on_node) != on_node(&record) {
            if let Some(old) = &old
                && let Some(node) = self.nodes.get_mut(&*old.node)
            {
                node.remove(old);
            }
            if record.is_placed()
                && let Some(node) = self.nodes.get_mut(&*record.node)
            {
                node.add(&record);
            }
        }
        record
    }

    pub(crate) fn remove_process(&mut self, record: &Record) {
        self.processes.remove(record);
        if let Some(node) = self.nodes.get_mut(&*record.node) {
            node.remove(record);
        }
    }

    /// Shares the chooser among all records that were placed by it.
    fn compact(&mut self, why: Why) -> CompactWhy {
        let known = self
            .choosers
            .iter()
            .position(|known| **known == why.chooser);
        let chooser = match known {
            Some(at) => Arc::clone(&self.choosers[at]),
            None => {
                let chooser = Arc::new(why.chooser);
                if self.choosers.len() >= CHOOSERS_SHARED {
                    self.choosers.pop_front();
                }
                self.choosers.push_back(Arc::clone(&chooser));
                chooser
            }
        };
        CompactWhy {
            chooser,
            seed: why.seed,
            micros: why.micros,
            candidates: why.candidates,
        }
    }

    /// Whether a decision still holds.
    fn check_place(&self, place: &Place, demand: u32) -> Result<(), Stale> {
        let node = self
            .nodes
            .get(&place.node)
            .filter(|node| node.epoch() == place.epoch);
        let node = node.ok_or(Stale::Node)?;
        if self.cordoned.contains(&place.node) || node.left() < demand {
            return Err(Stale::Node);
        }
        if let Some(activated) = place.activated {
            let name = match &place.why.chooser {
                Chooser::Selector { name, .. }
                | Chooser::Fallback {
                    selector: Some(name),
                    ..
                } => name,
                _ => return Ok(()),
            };
            let active = self
                .modules
                .get(name)
                .and_then(|module| module.active.as_ref());
            if active.is_none_or(|active| active.at != activated) {
                return Err(Stale::Selector);
            }
        }
        Ok(())
    }

    pub(crate) fn reserve(&mut self, at: At, reserve: Reserve, events: &mut Vec<Event>) -> Outcome {
        if self.record(&reserve.key).is_some() {
            return Outcome::Stale(Stale::KeyTaken);
        }
        let demand = reserve.options.demand.max(1);
        if let Err(stale) = self.check_place(&reserve.place, demand) {
            return Outcome::Stale(stale);
        }
        let spec = Spec {
            args: reserve.args.into(),
            selector: reserve.selector,
            callback: reserve.callback,
            options: reserve.options,
            deadline_at_ms: reserve.deadline_at_ms,
            request: at.request,
            failures: Vec::new(),
            confirmed: false,
        };
        let record = Record {
            type_name: self.processes.type_name(&reserve.key.type_name),
            id: reserve.key.id.as_str().into(),
            state: ProcessState::Starting,
            node: self.shared_name(&reserve.place.node),
            epoch: reserve.place.epoch,
            incarnation: at.incarnation(),
            revision: at.revision(),
            created_ms: at.time_ms,
            attempt: 1,
            demand,
            pid: Box::default(),
            share: Box::default(),
            spec: Some(Arc::new(spec)),
            why: self.compact(reserve.place.why),
        };
        let record = self.put(record);
        events.push(Event::Process(Change::Reserved, Arc::clone(&record)));
        Outcome::Reserved(record)
    }

    fn shared_name(&self, name: &NodeName) -> Arc<NodeName> {
        self.nodes
            .get(name)
            .map_or_else(|| Arc::new(name.clone()), |node| Arc::clone(&node.name))
    }

    pub(crate) fn reassign(
        &mut self,
        at: At,
        life: (&ProcessKey, Incarnation),
        cause: Option<String>,
        place: Place,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(old) = self.current(life.0, life.1) else {
            return Outcome::Stale(Stale::Incarnation);
        };
        if old.state == ProcessState::Running {
            return Outcome::Stale(Stale::Incarnation);
        }
        // What it frees on a node that it leaves is not counted: that node has just failed it.
        if let Err(stale) = self.check_place(&place, old.demand) {
            return Outcome::Stale(stale);
        }
        let spec = old.spec.as_deref().map(|spec| match cause {
            Some(cause) => Arc::new(spec.failed(attempt_of(&old, cause))),
            None => Arc::new(spec.clone()),
        });
        let record = Record {
            state: ProcessState::Starting,
            node: self.shared_name(&place.node),
            epoch: place.epoch,
            incarnation: at.incarnation(),
            revision: at.revision(),
            attempt: old.attempt.saturating_add(1),
            pid: Box::default(),
            share: Box::default(),
            spec,
            why: self.compact(place.why),
            ..(*old).clone()
        };
        let record = self.put(record);
        events.push(Event::Ended(old));
        events.push(Event::Process(Change::Reserved, Arc::clone(&record)));
        Outcome::Reserved(record)
    }

    pub(crate) fn confirm(
        &mut self,
        at: At,
        life: (&ProcessKey, Incarnation),
        pid: String,
        share: Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let starting = self.current(life.0, life.1);
        let Some(old) = starting.filter(|old| old.state == ProcessState::Starting) else {
            return Outcome::Stale(Stale::Incarnation);
        };
        let waiting = old
            .spec
            .as_ref()
            .filter(|spec| !spec.confirmed)
            .and_then(|spec| spec.request);
        let spec = old.spec.as_deref().map(|spec| {
            Arc::new(Spec {
                confirmed: true,
                failures: Vec::new(),
                ..spec.clone()
            })
        });
        let record = self.put(Record {
            state: ProcessState::Running,
            revision: at.revision(),
            pid: pid.into(),
            share: share.into(),
            spec,
            ..(*old).clone()
        });
        events.push(Event::Process(Change::Running, Arc::clone(&record)));
        let outcome = Outcome::Created {
            record,
            created: true,
        };
        if let Some(request) = waiting {
            self.sessions.store(at.index, request, outcome.clone());
        }
        outcome
    }

    pub(crate) fn abort(
        &mut self,
        at: At,
        life: (&ProcessKey, Incarnation),
        failure: Option<String>,
        cause: AbortCause,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(old) = self.current(life.0, life.1).filter(|old| old.is_creating()) else {
            return Outcome::Stale(Stale::Incarnation);
        };
        let mut failures = old.failures().to_vec();
        failures.extend(failure.map(|failure| attempt_of(&old, failure)));
        let rejection = match cause {
            AbortCause::SpawnFailed => Rejection::SpawnFailed(failures),
            AbortCause::Deadline => Rejection::Deadline(failures),
            AbortCause::NoPlacement { .. } if !failures.is_empty() => {
                Rejection::SpawnFailed(failures)
            }
            AbortCause::NoPlacement {
                refusals,
                more,
                selector,
            } => Rejection::NoPlacement {
                refusals,
                more,
                selector,
            },
        };
        self.remove_process(&old);
        events.push(Event::Ended(Arc::clone(&old)));
        let gone = Record {
            revision: at.revision(),
            ..(*old).clone()
        };
        events.push(Event::Process(Change::Removed, Arc::new(gone)));
        let outcome = Outcome::rejected(rejection);
        if let Some(request) = old.spec.as_ref().and_then(|spec| spec.request) {
            self.sessions.store(at.index, request, outcome.clone());
        }
        outcome
    }

    pub(crate) fn unplace_running(
        &mut self,
        at: At,
        life: (&ProcessKey, Incarnation),
        cause: &str,
        events: &mut Vec<Event>,
    ) -> Outcome {
        match self.current(life.0, life.1) {
            Some(old) if old.is_placed() && old.spec.is_some() => {
                events.push(Event::Ended(Arc::clone(&old)));
                self.unplace(at.index, &old, cause, events);
                Outcome::Done(at.revision())
            }
            _ => Outcome::Stale(Stale::Incarnation),
        }
    }

    pub(crate) fn set_process(
        &mut self,
        at: At,
        set: SetProcess,
        events: &mut Vec<Event>,
    ) -> Outcome {
        if let Err(no) = self.live_node(&set.node, set.epoch) {
            return no;
        }
        match (self.record(&set.key), set.incarnation) {
            (None, Some(_)) => not_found(&set.key),
            (None, None) => self.register_process(at, set, events),
            (Some(old), Some(incarnation)) if old.incarnation != incarnation => {
                fenced(old.incarnation)
            }
            (Some(old), incarnation) => {
                let own = *old.node == set.node && old.epoch == set.epoch;
                if !own || old.state != ProcessState::Running {
                    return match incarnation {
                        Some(_) => fenced(old.incarnation),
                        None => self.already_exists(&old),
                    };
                }
                let record = self.put(Record {
                    revision: at.revision(),
                    pid: set.pid.into(),
                    share: set.share.into(),
                    ..(*old).clone()
                });
                events.push(Event::Process(Change::Updated, Arc::clone(&record)));
                Outcome::Process(record)
            }
        }
    }

    /// A no: the key is taken, by this record.
    #[must_use]
    pub fn already_exists(&self, record: &Record) -> Outcome {
        Outcome::rejected(Rejection::AlreadyExists(Box::new(self.to_wire(record))))
    }

    fn register_process(&mut self, at: At, set: SetProcess, events: &mut Vec<Event>) -> Outcome {
        let why = Why {
            chooser: Chooser::Node,
            seed: 0,
            micros: 0,
            candidates: 0,
        };
        let record = Record {
            type_name: self.processes.type_name(&set.key.type_name),
            id: set.key.id.as_str().into(),
            state: ProcessState::Running,
            node: self.shared_name(&set.node),
            epoch: set.epoch,
            incarnation: at.incarnation(),
            revision: at.revision(),
            created_ms: at.time_ms,
            attempt: 1,
            demand: 1,
            pid: set.pid.into(),
            share: set.share.into(),
            spec: None,
            why: self.compact(why),
        };
        let record = self.put(record);
        events.push(Event::Process(Change::Running, Arc::clone(&record)));
        Outcome::Process(record)
    }

    pub(crate) fn del_process(
        &mut self,
        at: At,
        key: &ProcessKey,
        incarnation: Option<Incarnation>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(old) = self.record(key) else {
            return not_found(key);
        };
        if incarnation.is_some_and(|only| only != old.incarnation) {
            return fenced(old.incarnation);
        }
        self.remove_process(&old);
        events.push(Event::Ended(Arc::clone(&old)));
        let gone = Record {
            revision: at.revision(),
            ..(*old).clone()
        };
        events.push(Event::Process(Change::Removed, Arc::new(gone)));
        // A create that is under way when its key is deleted has its answer here.
        if old.is_creating()
            && let Some(request) = old.spec.as_ref().and_then(|spec| spec.request)
        {
            let no =
                Rejection::Conflict(format!("process {key} was deleted while it was starting"));
            self.sessions
                .store(at.index, request, Outcome::rejected(no));
        }
        Outcome::Done(at.revision())
    }

    pub(crate) fn missing(
        &mut self,
        at: At,
        node: (&NodeName, NodeEpoch),
        processes: &[(ProcessKey, Incarnation)],
        events: &mut Vec<Event>,
    ) -> Outcome {
        if let Err(no) = self.live_node(node.0, node.1) {
            return no;
        }
        for (key, incarnation) in processes {
            let here = self.current(key, *incarnation);
            if let Some(record) = here.filter(|record| record.epoch == node.1)
                && record.state == ProcessState::Running
            {
                // The node may have begun it after it said what it runs: it is told.
                events.push(Event::Ended(Arc::clone(&record)));
                // The same rule as for a lost node: wanted processes come back, others are gone.
                self.lose(at.index, &record, "its node no longer has it", events);
            }
        }
        Outcome::Done(at.revision())
    }
}

fn attempt_of(record: &Record, cause: String) -> Attempt {
    Attempt {
        node: (*record.node).clone(),
        incarnation: record.incarnation,
        cause: cut(cause),
    }
}

//! A process's life: reserved, confirmed, reassigned, aborted, taken off its node, given up. What
//! nodes and games register and delete themselves is in [`crate::set`].
//!
//! Every transition names the incarnation that it is about, and is void when another one is
//! current. A decision is checked again here, because the state may have moved on since it was
//! made: the node's session lives, it is not cordoned, it has capacity left, the key is free, and
//! the module that decided is still the active one.

use std::sync::Arc;

use maitred_protocol::{
    Attempt, Chooser, Incarnation, NodeName, ProcessKey, ProcessState, Rejection, RequestId,
    Revision, Why,
};

use crate::Registry;
use crate::command::{AbortCause, Place, Reserve};
use crate::decide::cut;
use crate::exit::{EndedBy, Ends};
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
    pub(crate) fn revision(self) -> Revision {
        Revision(self.index)
    }

    pub(crate) fn incarnation(self) -> Incarnation {
        Incarnation(self.index)
    }
}

impl Registry {
    pub(crate) fn record(&self, key: &ProcessKey) -> Option<Arc<Record>> {
        self.processes
            .get(key.type_name.as_str(), key.id.as_str())
            .cloned()
    }

    /// The record, if it is this life of it.
    pub(crate) fn current(
        &self,
        key: &ProcessKey,
        incarnation: Incarnation,
    ) -> Option<Arc<Record>> {
        self.record(key)
            .filter(|record| record.incarnation == incarnation)
    }

    /// Puts a record in and keeps its nodes' counts right.
    pub(crate) fn put(&mut self, record: Record) -> Arc<Record> {
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
    pub(crate) fn compact(&mut self, why: Why) -> CompactWhy {
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
    pub(crate) fn check_place(&self, place: &Place, demand: u32) -> Result<(), Stale> {
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
            let module = self.modules.get(name);
            if module.is_none_or(|module| !module.decides(activated)) {
                return Err(Stale::Selector);
            }
        }
        Ok(())
    }

    pub(crate) fn reserve(&mut self, at: At, reserve: Reserve, events: &mut Vec<Event>) -> Outcome {
        if self.record(&reserve.key).is_some() {
            return Outcome::Stale(Stale::KeyTaken);
        }
        if self.is_held(&reserve.key) {
            return Outcome::Stale(Stale::Held);
        }
        let demand = reserve.options.demand.max(1);
        if let Err(stale) = self.check_place(&reserve.place, demand) {
            return Outcome::Stale(stale);
        }
        Outcome::Reserved(self.put_reserved(at, reserve, 0, events))
    }

    /// Makes the record of a reservation that holds; `party` is 0 for none.
    pub(crate) fn put_reserved(
        &mut self,
        at: At,
        reserve: Reserve,
        party: u64,
        events: &mut Vec<Event>,
    ) -> Arc<Record> {
        let demand = reserve.options.demand.max(1);
        let spec = Spec {
            args: reserve.args.into(),
            selector: reserve.selector,
            callback: reserve.callback,
            options: reserve.options,
            deadline_at_ms: reserve.deadline_at_ms,
            // A party is answered as a whole.
            request: at.request.filter(|_| party == 0),
            party,
            failures: Vec::new(),
            confirmed: false,
            pending_ms: 0,
            ends: Ends::default(),
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
        record
    }

    pub(crate) fn shared_name(&self, name: &NodeName) -> Arc<NodeName> {
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
        if self.is_held(life.0) {
            return Outcome::Stale(Stale::Held);
        }
        // What it frees on a node that it leaves is not counted: that node has just failed it.
        if let Err(stale) = self.check_place(&place, old.demand) {
            return Outcome::Stale(stale);
        }
        if !self.rule_admits(&old, &place.node) {
            return Outcome::Stale(Stale::Node);
        }
        let spec = old.spec.as_deref().map(|spec| {
            let mut spec = match cause {
                Some(cause) => spec.failed(attempt_of(&old, cause)),
                None => spec.clone(),
            };
            spec.pending_ms = 0;
            spec.ends = spec.ends.placed();
            Arc::new(spec)
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
                ends: spec.ends.runs(at.time_ms),
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
        if let Some(party) = old
            .spec
            .as_ref()
            .map(|spec| spec.party)
            .filter(|_| old.is_creating())
        {
            self.member_confirmed(at, party, events);
        }
        outcome
    }

    pub(crate) fn abort(
        &mut self,
        at: At,
        life: (&ProcessKey, Incarnation),
        (failure, over): (Option<String>, bool),
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
            AbortCause::BySelector { .. } if !failures.is_empty() => {
                Rejection::SpawnFailed(failures)
            }
            AbortCause::BySelector {
                selector,
                code,
                reason,
            } => Rejection::BySelector {
                selector,
                code,
                reason,
            },
        };
        if old.is_placed() && !over {
            self.hold_record(&old);
        }
        let outcome = Outcome::rejected(rejection);
        self.remove_because(at, &old, &outcome, events);
        if let Some(request) = old.spec.as_ref().and_then(|spec| spec.request) {
            self.sessions.store(at.index, request, outcome.clone());
        }
        outcome
    }

    /// Removes a process whose create has come to nothing; and its party, if it is of one.
    fn remove_because(
        &mut self,
        at: At,
        old: &Arc<Record>,
        outcome: &Outcome,
        events: &mut Vec<Event>,
    ) {
        let party = self.party_of(old).map(|(index, _)| index);
        self.remove_one(at, old, events);
        if let (Some(party), Outcome::Rejected(no)) = (party, outcome) {
            let last = match &**no {
                Rejection::SpawnFailed(attempts) => attempts.last(),
                _ => None,
            };
            let reason = last.map_or_else(
                || no.to_string(),
                |last| format!("{no}; the last one on {}: {}", last.node, last.cause),
            );
            self.undo_party(at, party, &old.key(), &reason, events);
        }
    }

    /// Removes a process whose node may have to be told. A party that it has not started with is
    /// undone.
    pub(crate) fn remove(&mut self, at: At, old: &Arc<Record>, events: &mut Vec<Event>) {
        let party = self.party_of(old).map(|(index, _)| index);
        self.remove_one(at, old, events);
        if let Some(party) = party {
            let reason = "it was deleted while the party was being created";
            self.undo_party(at, party, &old.key(), reason, events);
        }
    }

    fn remove_one(&mut self, at: At, old: &Arc<Record>, events: &mut Vec<Event>) {
        self.remove_process(old);
        events.push(Event::Ended(Arc::clone(old)));
        let gone = Record {
            revision: at.revision(),
            ..(**old).clone()
        };
        events.push(Event::Process(Change::Removed, Arc::new(gone)));
    }

    /// A process that has lost its node for good.
    pub(crate) fn give_up(
        &mut self,
        at: At,
        life: (&ProcessKey, Incarnation),
        events: &mut Vec<Event>,
    ) -> Outcome {
        let old = self.current(life.0, life.1);
        let pending = |old: &Arc<Record>| old.state == ProcessState::Pending && !old.is_creating();
        match old.filter(pending) {
            Some(old) => {
                self.remove(at, &old, events);
                Outcome::Done(at.revision())
            }
            None => Outcome::Stale(Stale::Incarnation),
        }
    }

    /// Takes a process off its node; `by` when its life has ended by itself.
    pub(crate) fn take_off(
        &mut self,
        at: At,
        life: (&ProcessKey, Incarnation),
        (cause, over): (&str, bool),
        by: Option<EndedBy>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        match self.current(life.0, life.1) {
            Some(old) if old.is_placed() && old.spec.is_some() => {
                if !over {
                    self.hold_record(&old);
                }
                events.push(Event::Ended(Arc::clone(&old)));
                self.unplace(at, &old, cause, by, events);
                Outcome::Done(at.revision())
            }
            _ => Outcome::Stale(Stale::Incarnation),
        }
    }
}

fn attempt_of(record: &Record, cause: String) -> Attempt {
    Attempt {
        node: (*record.node).clone(),
        incarnation: record.incarnation,
        cause: cut(cause),
    }
}

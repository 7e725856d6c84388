//! Creates under way: from the request to a running process, or to nothing.
//!
//! A saga is what the leader remembers of a key that is being created, or created again after its
//! node was lost. Its facts are in the registry's record; what is here is who waits, what is under
//! way, and when to try again. A new leader makes its sagas anew from the records.
//!
//! ```text
//! Selecting -> Proposed (reserve) -> Spawning -> Proposed (confirm) -> settled
//!     ^                                 |
//!     +------- Waiting (back-off) <-----+   attempt failed; or Proposed (abort) -> settled
//!     +------- Held <- Proposed (unplace) <-+   it may still run there ([`crate::holding`])
//! ```
//!
//! A process that ran before gets to Selecting by way of Queued, and back to it by way of Asleep
//! ([`crate::recreation`]). This file decides on a node and proposes; [`crate::verdict`] is about decisions without a node, [`crate::spawning`] about starting there,
//! [`crate::due`] about what comes of proposals and of time, [`crate::joined`] about who waits.
//!
//! **Invariants.** Every record that is starting or pending has a saga while this host serves. A
//! saga that is not there any more has no timer.

use std::sync::Arc;

use hashbrown::{Equivalent, HashMap};
use maitred_protocol::{
    CreateProcess, Incarnation, ModuleName, NodeEpoch, NodeName, ProcessKey, ProcessState,
    RequestId,
};
use maitred_registry::candidates::SelectRequest;
use maitred_registry::decide::{Decision, Trace};
use maitred_registry::{AbortCause, Command, EndedBy, Place, Record, Reserve};

use crate::input::Ticket;
use crate::mutants;
use crate::party::keep_to_party;
use crate::placing::{Purpose, select_request};
use crate::proposals::Waiter;
use crate::recreation::{Again, is_wanted};
use crate::replica::Replica;
use crate::timer::{Due, TimerId};
use crate::verdict::Ranked;
use crate::waiting::Wait;

/// One life of a process; incarnation 0 while there is none yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) key: ProcessKey,
    pub(crate) incarnation: Incarnation,
}

/// A decision as it counts for its node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) epoch: NodeEpoch,
    pub(crate) demand: u32,
    /// Whether it is a process of a lost node, which takes a token of this one.
    pub(crate) again: bool,
}

/// A client that waits for the outcome.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub(crate) ticket: Ticket,
    pub(crate) request: RequestId,
    /// With the type's defaults filled in.
    pub(crate) create: Arc<CreateProcess>,
    /// When it gives up, whatever it waits for.
    pub(crate) deadline_us: u64,
    /// What tells it so, while it waits for another create or for its key.
    pub(crate) late: Option<TimerId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Selecting,
    Proposed,
    Spawning,
    Waiting,
    /// Its last life has ended, and its callback is asked what becomes of it ([`crate::advice`]).
    Asking,
    /// An earlier life of its key may still go on.
    Held,
    /// It waits for its turn to be created again.
    Queued,
    /// No node would take it, and it waits for one that may.
    Asleep,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Saga {
    id: u64,
    pub(crate) step: Step,
    pub(crate) incarnation: Incarnation,
    /// Whether it is a create's, and not one of a process that ran before.
    creates: bool,
    /// The request that is carried out; none for a process that is started again.
    pub(crate) maker: Option<RequestId>,
    /// Who is told. While there is no record, the first one is the maker.
    pub(crate) waiters: Vec<Joined>,
    pub(crate) deadline: Option<TimerId>,
    pub(crate) deadline_passed: bool,
    pub(crate) retry: Option<TimerId>,
    /// Decisions that were overtaken, in a row.
    pub(crate) stale: u32,
    pub(crate) retries: u32,
    /// How the present attempt failed, while that is not on record yet.
    pub(crate) failed: Option<String>,
    /// Whether that attempt is known not to run.
    pub(crate) over: bool,
    pub(crate) trace: Option<Arc<Trace>>,
    /// Where it goes when that node will not do.
    pub(crate) ranked: Option<Ranked>,
    pub(crate) wait: Wait,
    pub(crate) again: Again,
}

impl Saga {
    /// Where it is to come, while that is on its way to the log.
    pub(crate) fn comes_to(&self) -> Option<&NodeName> {
        let trace = self
            .trace
            .as_ref()
            .filter(|_| self.step == Step::Proposed)?;
        let chosen = trace.facts.get(trace.chosen? as usize)?;
        Some(&chosen.name)
    }
}

/// A [`ProcessKey`] that need not be made to be looked up: hashes and compares like one.
#[derive(Hash)]
pub(crate) struct KeyOf<'a> {
    type_name: &'a str,
    id: &'a str,
}

impl<'a> KeyOf<'a> {
    pub(crate) fn of(record: &'a Record) -> Self {
        Self {
            type_name: record.type_name.as_str(),
            id: &record.id,
        }
    }
}

impl Equivalent<ProcessKey> for KeyOf<'_> {
    fn equivalent(&self, key: &ProcessKey) -> bool {
        self.id == key.id.as_str() && self.type_name == key.type_name.as_str()
    }
}

/// All sagas, and creates that wait for their key to be free.
#[derive(Debug, Default)]
pub(crate) struct Sagas {
    pub(crate) all: HashMap<ProcessKey, Saga>,
    pub(crate) parked: HashMap<ProcessKey, Vec<Joined>>,
    pub(crate) parked_count: usize,
    /// Sagas of creates.
    creates: usize,
    last_id: u64,
}

impl Sagas {
    /// Creates under way, those that wait for their key included; not what is created again.
    pub(crate) fn creates(&self) -> usize {
        self.creates + self.parked_count
    }

    /// Forgets everything; the tickets come back to be answered.
    pub(crate) fn clear(&mut self) -> Vec<Ticket> {
        let all = std::mem::take(&mut self.all);
        let parked = std::mem::take(&mut self.parked);
        (self.creates, self.parked_count) = (0, 0);
        let waiting = all.into_values().flat_map(|saga| saga.waiters);
        let parked = parked.into_values().flatten();
        let mut tickets: Vec<_> = waiting.chain(parked).map(|joined| joined.ticket).collect();
        // The maps have no order; the answers do.
        tickets.sort_unstable();
        tickets
    }

    pub(crate) fn add(
        &mut self,
        key: ProcessKey,
        step: Step,
        incarnation: Incarnation,
        creates: bool,
    ) -> &mut Saga {
        self.last_id += 1;
        self.creates += usize::from(creates);
        let saga = Saga {
            id: self.last_id,
            step,
            incarnation,
            creates,
            maker: None,
            waiters: Vec::new(),
            deadline: None,
            deadline_passed: false,
            retry: None,
            stale: 0,
            retries: 0,
            failed: None,
            over: false,
            trace: None,
            ranked: None,
            wait: Wait::default(),
            again: Again::default(),
        };
        self.all.entry(key).insert(saga).into_mut()
    }

    /// The saga of this life.
    pub(crate) fn current(&mut self, life: &Life) -> Option<&mut Saga> {
        self.all
            .get_mut(&life.key)
            .filter(|saga| saga.incarnation == life.incarnation)
    }
}

impl Replica {
    /// Begins a create whose key is free.
    pub(crate) fn begin_create(&mut self, joined: Joined) {
        let create = Arc::clone(&joined.create);
        let due = Due::Deadline(create.key.clone());
        let deadline = self.timers.set(joined.deadline_us, due);
        let key = create.key.clone();
        let saga = self.sagas.add(key, Step::Selecting, Incarnation(0), true);
        saga.deadline = Some(deadline);
        saga.maker = Some(joined.request);
        saga.waiters.push(joined);
        self.select(&create.key);
    }

    /// Takes a saga out, with its timers. Those of its waiters are theirs.
    pub(crate) fn end_saga<K>(&mut self, key: &K) -> Option<Saga>
    where
        K: std::hash::Hash + Equivalent<ProcessKey> + ?Sized,
    {
        let mut saga = self.sagas.all.remove(key)?;
        self.sagas.creates -= usize::from(saga.creates);
        self.recreation.let_go(&mut saga.again);
        self.waiting.let_go(&mut saga.wait);
        self.timers.cancel(saga.deadline);
        self.timers.cancel(saga.retry);
        Some(saga)
    }

    /// Queues the decision that a saga needs now.
    pub(crate) fn select(&mut self, key: &ProcessKey) {
        let Some(saga) = self.sagas.all.get_mut(key) else {
            return;
        };
        self.recreation.let_go(&mut saga.again);
        self.waiting.rise(&mut saga.wait);
        let record = self.registry.process(key);
        if saga.deadline_passed && record.is_none_or(|record| record.is_creating()) {
            return self.too_late(key);
        }
        if self.registry.is_held(key) {
            self.waiting.let_go(&mut saga.wait);
            saga.step = Step::Held;
            return;
        }
        match record.filter(|record| is_wanted(record)).cloned() {
            Some(record) => self.line_up(key, &record),
            None => self.ask_selector(key),
        }
    }

    /// Queues the decision of a saga that nothing holds up.
    pub(crate) fn ask_selector(&mut self, key: &ProcessKey) {
        let Some(saga) = self.sagas.all.get_mut(key) else {
            return;
        };
        saga.step = Step::Selecting;
        saga.trace = None;
        saga.wait.asked(self.recreation.appeared());
        let (id, incarnation) = (saga.id, saga.incarnation);
        let life = Life {
            key: key.clone(),
            incarnation,
        };
        let next = if incarnation.0 == 0 {
            saga.waiters.first().map(|first| {
                let request = select_request(&first.create, 1, Vec::new());
                (selector_of(&first.create), request)
            })
        } else {
            let record = self.registry.process(key);
            record.and_then(|record| {
                let (lane, mut request) = again(record, saga.again.avoids())?;
                keep_to_party(&self.registry, record, &mut request);
                Some((lane, request))
            })
        };
        debug_assert!(next.is_some(), "{key} has a saga and nothing to decide");
        if let Some((lane, request)) = next {
            let made = self.planned(&life, &request);
            let made = made.or_else(|| self.advised_node(&life, &request));
            match made.or_else(|| self.alternative(&life, &request)) {
                Some(decision) => self.saga_decided(&life, id, decision),
                None => self.decide(&lane, Purpose::Saga(life, id), request),
            }
        }
    }

    /// A decision for a saga has been made.
    pub(crate) fn saga_decided(&mut self, life: &Life, id: u64, decision: Decision) {
        let Some(saga) = self.sagas.current(life) else {
            return;
        };
        if saga.id != id || saga.step != Step::Selecting {
            return;
        }
        let Some((node, epoch)) = decision.node else {
            return self.no_placement(life, &decision.trace);
        };
        let trace = decision.trace;
        saga.ranked = Ranked::of(&trace, decision.then);
        self.waiting.let_go(&mut saga.wait);
        let place = Place {
            node,
            epoch,
            activated: activation_of(&trace),
            why: trace.why.clone(),
        };
        let placed = Placed {
            epoch,
            demand: trace.request.demand,
            again: trace.request.again,
        };
        let (request, command) = if life.incarnation.0 == 0 {
            let Some(first) = saga.waiters.first() else {
                return;
            };
            let left_us = first.deadline_us.saturating_sub(self.now.mono_us);
            let create = &*first.create;
            let reserve = Reserve {
                key: create.key.clone(),
                args: create.args.clone(),
                selector: selector_of(create),
                callback: callback_of(create),
                options: create.options.clone(),
                deadline_at_ms: self.now.wall_ms + left_us / 1_000,
                place,
            };
            (Some(first.request), Command::Reserve(Box::new(reserve)))
        } else {
            let reassign = Command::Reassign {
                key: life.key.clone(),
                incarnation: life.incarnation,
                cause: saga.failed.clone(),
                place,
            };
            (None, reassign)
        };
        saga.step = Step::Proposed;
        saga.trace = Some(trace);
        if life.incarnation.0 == 0 {
            // It waited for nodes to come to this leader; no attempt has failed yet.
            saga.retries = 0;
        }
        self.recreation.decided(&mut saga.again);
        let rate = self.config.recreate_per_node_per_second;
        self.leases.place(placed, rate, self.now.mono_us);
        self.queue(request, command, Waiter::Reserve(life.clone(), placed));
    }

    pub(crate) fn unplace(&mut self, life: &Life, cause: String) {
        if let Some(saga) = self.sagas.current(life) {
            saga.step = Step::Proposed;
            let (key, incarnation) = (life.key.clone(), life.incarnation);
            let command = Command::Unplace {
                key,
                incarnation,
                cause,
                over: saga.over,
            };
            self.queue(None, command, Waiter::Saga(life.clone()));
        }
    }

    pub(crate) fn abort(&mut self, life: &Life, cause: AbortCause) {
        if let Some(saga) = self.sagas.current(life) {
            saga.step = Step::Proposed;
            let failure = saga.failed.take();
            let (key, incarnation) = (life.key.clone(), life.incarnation);
            let command = Command::Abort {
                key,
                incarnation,
                failure,
                cause,
                over: saga.over,
            };
            self.queue(None, command, Waiter::Saga(life.clone()));
        }
    }
}

/// The lane and the request of another try for a record. Nodes that failed it are avoided, unless it
/// is wanted and no other would take it.
fn again(record: &Record, avoids: bool) -> Option<(ModuleName, SelectRequest)> {
    let spec = record.spec.as_deref()?;
    // A node on which it ended by itself has not failed it.
    let exited = usize::from(spec.ends.by == Some(EndedBy::Exit));
    let failed = spec.failures.iter().skip(exited);
    let mut exclude: Vec<NodeName> = failed.map(|failure| failure.node.clone()).collect();
    if record.state == ProcessState::Starting {
        exclude.push((*record.node).clone());
    }
    if spec.confirmed && !avoids {
        exclude.clear();
    }
    let request = SelectRequest {
        demand: record.demand,
        attempt: record.attempt.saturating_add(1),
        exclude,
        again: spec.confirmed,
        previous: spec.confirmed.then(|| last_ran(record)),
        ..SelectRequest::of(record.key(), &spec.options)
    };
    Some((spec.selector.clone(), request))
}

/// What apply is to check: that whoever decided does so still.
fn activation_of(trace: &Trace) -> Option<u64> {
    let bound = trace
        .selector
        .as_ref()
        .filter(|_| !mutants::on("decision-unbound"));
    bound.map(|selector| selector.activated)
}

/// Where a process ran before: the first failure is the loss of that node.
fn last_ran(record: &Record) -> NodeName {
    let lost = record.failures().first();
    lost.map_or_else(|| (*record.node).clone(), |lost| lost.node.clone())
}

/// The selector of a create whose defaults have been filled in.
pub(crate) fn selector_of(create: &CreateProcess) -> ModuleName {
    create
        .selector
        .clone()
        .expect("admission fills in the selector")
}

pub(crate) fn callback_of(create: &CreateProcess) -> ModuleName {
    create
        .callback
        .clone()
        .expect("admission fills in the callback")
}

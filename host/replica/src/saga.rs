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
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use maitred_protocol::{
    CreateProcess, Incarnation, ModuleKind, ModuleName, NodeEpoch, NodeName, OnConflict,
    ProcessKey, ProcessState, Rejection, RequestId, Unavailable,
};
use maitred_registry::candidates::SelectRequest;
use maitred_registry::decide::{Decision, Trace};
use maitred_registry::{AbortCause, Command, Outcome, Place, Record, Reserve, Stale};

use crate::effect::{Answer, Effect, SpawnJob};
use crate::input::{Spawned, Ticket};
use crate::placing::{Purpose, select_request};
use crate::replica::{Replica, Waiter};
use crate::timer::Due;

/// The longest pause between two attempts to start a wanted process again.
const BACK_OFF_US_MAX: u64 = 30_000_000;

/// What a re-creation waits for its node, when no client set a deadline.
const RECREATE_WITHIN_MS: u32 = 10_000;

/// Decisions that were overtaken, in a row, before a create is told to come back later.
const STALE_MAX: u32 = 64;

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
}

/// A client that waits for the outcome.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub(crate) ticket: Ticket,
    pub(crate) request: RequestId,
    pub(crate) create: Arc<CreateProcess>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Selecting,
    Proposed,
    Spawning,
    Waiting,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Saga {
    id: u64,
    step: Step,
    incarnation: Incarnation,
    waiters: Vec<Joined>,
    deadline_us: Option<u64>,
    deadline_passed: bool,
    stale: u32,
    retries: u32,
    /// How the present attempt failed, while that is not on record yet.
    failed: Option<String>,
    trace: Option<Arc<Trace>>,
}

/// All sagas, and creates that wait for their key to be free.
#[derive(Debug, Default)]
pub(crate) struct Sagas {
    all: HashMap<ProcessKey, Saga>,
    parked: BTreeMap<ProcessKey, Vec<(u64, Joined)>>,
    parked_count: usize,
    last_id: u64,
}

impl Sagas {
    pub(crate) fn len(&self) -> usize {
        self.all.len() + self.parked_count
    }

    pub(crate) fn get(&self, key: &ProcessKey) -> Option<&Saga> {
        self.all.get(key)
    }

    /// Forgets everything; the tickets come back to be answered.
    pub(crate) fn clear(&mut self) -> Vec<Ticket> {
        let all = std::mem::take(&mut self.all);
        let parked = std::mem::take(&mut self.parked);
        self.parked_count = 0;
        let waiting = all.into_values().flat_map(|saga| saga.waiters);
        let parked = parked.into_values().flatten().map(|(_, joined)| joined);
        let mut tickets: Vec<_> = waiting.chain(parked).map(|joined| joined.ticket).collect();
        tickets.sort_unstable();
        tickets
    }

    fn add(&mut self, key: ProcessKey, step: Step, incarnation: Incarnation) -> &mut Saga {
        self.last_id += 1;
        let saga = Saga {
            id: self.last_id,
            step,
            incarnation,
            waiters: Vec::new(),
            deadline_us: None,
            deadline_passed: false,
            stale: 0,
            retries: 0,
            failed: None,
            trace: None,
        };
        self.all.entry(key).insert(saga).into_mut()
    }

    /// The saga of this life.
    fn current(&mut self, life: &Life) -> Option<&mut Saga> {
        self.all
            .get_mut(&life.key)
            .filter(|saga| saga.incarnation == life.incarnation)
    }

    pub(crate) fn join(&mut self, key: &ProcessKey, joined: Joined) {
        if let Some(saga) = self.all.get_mut(key) {
            saga.waiters.push(joined);
        }
    }
}

impl Replica {
    /// Begins a create whose key is free.
    pub(crate) fn begin_create(&mut self, joined: Joined) {
        let create = Arc::clone(&joined.create);
        let deadline_us = self.now.mono_us + u64::from(create.options.deadline_ms) * 1_000;
        let saga = self
            .sagas
            .add(create.key.clone(), Step::Selecting, Incarnation(0));
        saga.deadline_us = Some(deadline_us);
        saga.waiters.push(joined);
        let id = saga.id;
        self.timers
            .set(deadline_us, Due::Deadline(create.key.clone(), id));
        self.select(&create.key);
    }

    /// Parks a create until its key is free.
    pub(crate) fn park(&mut self, joined: Joined) {
        let key = joined.create.key.clone();
        let deadline_us = self.now.mono_us + u64::from(joined.create.options.deadline_ms) * 1_000;
        self.timers.set(deadline_us, Due::Parked(key.clone()));
        self.sagas
            .parked
            .entry(key)
            .or_default()
            .push((deadline_us, joined));
        self.sagas.parked_count += 1;
    }

    /// Queues the decision that a saga needs now.
    fn select(&mut self, key: &ProcessKey) {
        let Some(saga) = self.sagas.all.get_mut(key) else {
            return;
        };
        saga.step = Step::Selecting;
        let (id, incarnation, retries) = (saga.id, saga.incarnation, saga.retries);
        let (lane, request) = match self.registry.process(key) {
            Some(record) if incarnation.0 != 0 => match again(record, retries) {
                Some(again) => again,
                None => return,
            },
            _ => {
                let Some(first) = saga.waiters.first() else {
                    return;
                };
                (
                    selector_of(&first.create),
                    select_request(&first.create, 1, Vec::new()),
                )
            }
        };
        let life = Life {
            key: key.clone(),
            incarnation,
        };
        self.decide(&lane, Purpose::Saga(life, id), request);
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
        saga.step = Step::Proposed;
        saga.trace = Some(Arc::clone(&decision.trace));
        let place = Place {
            node,
            epoch,
            activated: decision
                .trace
                .selector
                .as_ref()
                .map(|selector| selector.activated),
            why: decision.trace.why.clone(),
        };
        let placed = Placed {
            epoch,
            demand: decision.trace.request.demand,
        };
        let (request, command) = if life.incarnation.0 == 0 {
            let Some(first) = saga.waiters.first() else {
                return;
            };
            let left_us = saga
                .deadline_us
                .unwrap_or(0)
                .saturating_sub(self.now.mono_us);
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
            let (key, incarnation) = (life.key.clone(), life.incarnation);
            let cause = saga.failed.clone();
            (
                None,
                Command::Reassign {
                    key,
                    incarnation,
                    cause,
                    place,
                },
            )
        };
        self.leases.place(placed, self.now.mono_us);
        self.queue(request, command, Waiter::Reserve(life.clone(), placed));
    }

    /// No node will do.
    fn no_placement(&mut self, life: &Life, trace: &Trace) {
        let (refusals, more) = trace.refusals();
        let asked = !trace.slots.is_empty();
        let selector = trace
            .selector
            .as_ref()
            .filter(|_| asked)
            .map(|module| module.name.clone());
        if life.incarnation.0 == 0 {
            let Some(saga) = self.sagas.all.remove(&life.key) else {
                return;
            };
            let no = Rejection::NoPlacement {
                refusals,
                more,
                selector,
            };
            return self.answer_all(saga, &no);
        }
        let Some(record) = self.registry.process(&life.key).cloned() else {
            return;
        };
        if record.is_creating() {
            self.abort(
                life,
                AbortCause::NoPlacement {
                    refusals,
                    more,
                    selector,
                },
            );
        } else if record.state == ProcessState::Starting {
            let cause = self.sagas.current(life).and_then(|saga| saga.failed.take());
            self.unplace(
                life,
                cause.unwrap_or_else(|| "no node would take it".to_owned()),
            );
        } else {
            self.retry_later(&life.key);
        }
    }

    fn unplace(&mut self, life: &Life, cause: String) {
        if let Some(saga) = self.sagas.current(life) {
            saga.step = Step::Proposed;
            let (key, incarnation) = (life.key.clone(), life.incarnation);
            let command = Command::Unplace {
                key,
                incarnation,
                cause,
            };
            self.queue(None, command, Waiter::Saga(life.clone()));
        }
    }

    fn abort(&mut self, life: &Life, cause: AbortCause) {
        if let Some(saga) = self.sagas.current(life) {
            saga.step = Step::Proposed;
            let failure = saga.failed.take();
            let (key, incarnation) = (life.key.clone(), life.incarnation);
            let command = Command::Abort {
                key,
                incarnation,
                failure,
                cause,
            };
            self.queue(None, command, Waiter::Saga(life.clone()));
        }
    }

    /// Sets a timer for the next try of a saga: exponential, from the type's back-off.
    fn retry_later(&mut self, key: &ProcessKey) {
        let record = self.registry.process(key);
        let options = record
            .and_then(|record| record.spec.as_ref())
            .map(|spec| &spec.options);
        let first_us = u64::from(options.map_or(50, |options| options.back_off_ms)) * 1_000;
        let Some(saga) = self.sagas.all.get_mut(key) else {
            return;
        };
        saga.step = Step::Waiting;
        let pause = first_us
            .max(1_000)
            .saturating_mul(1 << saga.retries.min(16))
            .min(BACK_OFF_US_MAX);
        // Up to a quarter more, so that those that failed together do not come back together.
        let jitter = u64::from(self.random.below((pause / 4).max(1) as u32));
        saga.retries += 1;
        self.timers.set(
            self.now.mono_us + pause + jitter,
            Due::Retry(key.clone(), saga.id),
        );
    }

    /// Carries out what the timers say is due.
    pub(crate) fn fire_timers(&mut self) {
        while let Some(due) = self.timers.pop(self.now.mono_us) {
            match due {
                Due::Retry(key, id) => {
                    let waiting = |saga: &&Saga| saga.id == id && saga.step == Step::Waiting;
                    if self.sagas.get(&key).filter(waiting).is_some() {
                        self.select(&key);
                    }
                }
                Due::Deadline(key, id) => {
                    if self.sagas.get(&key).is_some_and(|saga| saga.id == id) {
                        self.deadline(&key);
                    }
                }
                Due::Parked(key) => self.unpark_late(&key),
            }
        }
    }

    fn deadline(&mut self, key: &ProcessKey) {
        let Some(saga) = self.sagas.all.get_mut(key) else {
            return;
        };
        saga.deadline_passed = true;
        if saga.incarnation.0 == 0 {
            // A reservation that is on its way is undone when it arrives.
            if saga.step == Step::Selecting
                && let Some(saga) = self.sagas.all.remove(key)
            {
                self.answer_all(saga, &Rejection::Deadline(Vec::new()));
            }
        } else if saga.step != Step::Proposed {
            let life = Life {
                key: key.clone(),
                incarnation: saga.incarnation,
            };
            self.abort(&life, AbortCause::Deadline);
        }
    }

    fn unpark_late(&mut self, key: &ProcessKey) {
        let now_us = self.now.mono_us;
        let Some(parked) = self.sagas.parked.get_mut(key) else {
            return;
        };
        let (late, waiting) = std::mem::take(parked)
            .into_iter()
            .partition(|(at, _)| *at <= now_us);
        *parked = waiting;
        if parked.is_empty() {
            self.sagas.parked.remove(key);
        }
        let late: Vec<(u64, Joined)> = late;
        self.sagas.parked_count -= late.len();
        for (_, joined) in late {
            self.reject(joined.ticket, Rejection::Deadline(Vec::new()));
        }
    }

    /// What came of proposing a reservation.
    pub(crate) fn reserved(&mut self, life: &Life, outcome: Outcome) {
        match outcome {
            // The event of the reservation does the rest.
            Outcome::Reserved(record) => {
                let trace = self
                    .sagas
                    .all
                    .get_mut(&life.key)
                    .and_then(|saga| saga.trace.take());
                if let Some(trace) = trace {
                    self.effects.push(Effect::Record(record.incarnation, trace));
                }
            }
            Outcome::Stale(Stale::KeyTaken) => {
                if let Some(saga) = self.sagas.all.remove(&life.key) {
                    self.admit_again(saga.waiters);
                }
            }
            Outcome::Stale(Stale::Node | Stale::Selector) => {
                let Some(saga) = self.sagas.current(life) else {
                    return;
                };
                saga.stale += 1;
                if saga.stale > STALE_MAX && life.incarnation.0 == 0 {
                    let why = "its decisions were overtaken again and again";
                    return self.saga_refused(life, &Unavailable::Overloaded(why.to_owned()));
                }
                if saga.deadline_passed && life.incarnation.0 == 0 {
                    if let Some(saga) = self.sagas.all.remove(&life.key) {
                        self.answer_all(saga, &Rejection::Deadline(Vec::new()));
                    }
                    return;
                }
                self.select(&life.key);
            }
            Outcome::Stale(Stale::Incarnation) => {}
            // The request had been carried out before: a retry that this host did not remember.
            other => {
                if let Some(saga) = self.sagas.all.remove(&life.key) {
                    for joined in saga.waiters {
                        self.answer(joined.ticket, other.clone());
                    }
                }
            }
        }
    }

    /// What came of a saga's other proposals; success is told by events.
    pub(crate) fn saga_outcome(&mut self, life: &Life, outcome: Outcome) {
        if let Outcome::Rejected(rejection) = outcome
            && self.sagas.current(life).is_some()
            && let Some(saga) = self.sagas.all.remove(&life.key)
        {
            self.answer_all(saga, &rejection);
        }
    }

    /// A saga's proposal never reached the log.
    pub(crate) fn saga_refused(&mut self, life: &Life, why: &Unavailable) {
        if life.incarnation.0 == 0 {
            let Some(saga) = self.sagas.all.remove(&life.key) else {
                return;
            };
            for joined in saga.waiters {
                self.unavailable(joined.ticket, why.clone());
            }
        } else {
            // What was to be proposed is derived anew from the record.
            self.retry_later(&life.key);
        }
    }

    fn answer_all(&mut self, saga: Saga, rejection: &Rejection) {
        for joined in saga.waiters {
            self.reject(joined.ticket, rejection.clone());
        }
    }

    /// A record is starting: its callback is to be run. Also when a node's new session takes a
    /// starting process over, and for every starting record when this host begins to lead.
    pub(crate) fn spawn(&mut self, record: &Arc<Record>) {
        let key = record.key();
        let deadline_passed = match self.sagas.all.get_mut(&key) {
            Some(saga) => {
                saga.incarnation = record.incarnation;
                saga.step = Step::Spawning;
                saga.stale = 0;
                saga.failed = None;
                saga.deadline_passed
            }
            None => {
                self.adopt(record, Step::Spawning);
                false
            }
        };
        let life = Life {
            key: key.clone(),
            incarnation: record.incarnation,
        };
        if deadline_passed && record.is_creating() {
            return self.abort(&life, AbortCause::Deadline);
        }
        let Some(spec) = record.spec.clone() else {
            return;
        };
        let Some(node) = self.node_of(record) else {
            return;
        };
        if let Some(lease) = self.leases.get_mut(record.epoch) {
            lease.spawning += 1;
        }
        let within_ms = if record.is_creating() {
            let left = spec.deadline_at_ms.saturating_sub(self.now.wall_ms);
            u32::try_from(left).unwrap_or(u32::MAX).max(1)
        } else {
            RECREATE_WITHIN_MS
        };
        let callback = self
            .registry
            .active_module(&spec.callback, ModuleKind::Callback);
        let job = SpawnJob {
            key,
            incarnation: record.incarnation,
            spec,
            attempt: record.attempt,
            node,
            term: self.consensus.standing().term,
            callback,
            seed: record.why.seed,
            within_ms,
        };
        self.effects.push(Effect::Spawn(Box::new(job)));
    }

    /// Makes a saga for a record that has none.
    fn adopt(&mut self, record: &Arc<Record>, step: Step) {
        let key = record.key();
        let creating = record.is_creating();
        let deadline_ms = record.spec.as_ref().map_or(0, |spec| spec.deadline_at_ms);
        let left_us = deadline_ms.saturating_sub(self.now.wall_ms) * 1_000;
        let deadline_us = self.now.mono_us + left_us;
        let saga = self.sagas.add(key.clone(), step, record.incarnation);
        if creating {
            saga.deadline_us = Some(deadline_us);
            let due = Due::Deadline(key, saga.id);
            self.timers.set(deadline_us, due);
        }
    }

    /// A record needs a node.
    pub(crate) fn pending(&mut self, record: &Arc<Record>) {
        let key = record.key();
        match self.sagas.all.get_mut(&key) {
            Some(saga) => {
                // How the attempt failed is on record now.
                saga.failed = None;
                if matches!(saga.step, Step::Selecting | Step::Waiting) {
                    return;
                }
            }
            None => self.adopt(record, Step::Proposed),
        }
        let life = Life {
            key: key.clone(),
            incarnation: record.incarnation,
        };
        let options = record.spec.as_ref().map(|spec| &spec.options);
        let attempts = options.map_or(1, |options| u32::from(options.attempts));
        if record.is_creating() && record.attempt >= attempts {
            return self.abort(&life, AbortCause::SpawnFailed);
        }
        // The first try is at once; one that has just failed waits.
        let fresh = self
            .sagas
            .all
            .get(&key)
            .is_some_and(|saga| saga.retries == 0);
        if fresh && !record.is_creating() {
            self.select(&key)
        } else {
            self.retry_later(&key)
        }
    }

    /// A spawn has ended.
    pub(crate) fn spawned(&mut self, key: ProcessKey, incarnation: Incarnation, result: Spawned) {
        let life = Life { key, incarnation };
        let record = self.registry.process(&life.key).cloned();
        let record = record.filter(|record| record.incarnation == incarnation);
        let Some(record) = record else { return };
        let Some(saga) = self.sagas.current(&life) else {
            return;
        };
        if saga.step != Step::Spawning || record.state != ProcessState::Starting {
            return;
        }
        let options = record.spec.as_ref().map(|spec| &spec.options);
        let attempts = options.map_or(1, |options| u32::from(options.attempts));
        match result {
            Spawned::Started { pid, share } => {
                saga.step = Step::Proposed;
                let command = Command::Confirm {
                    key: life.key.clone(),
                    incarnation,
                    pid,
                    share,
                };
                self.queue(None, command, Waiter::Saga(life));
            }
            Spawned::GiveUp(cause) if record.is_creating() => {
                saga.failed = Some(cause);
                self.abort(&life, AbortCause::SpawnFailed);
            }
            Spawned::Elsewhere(cause) if record.is_creating() => {
                saga.failed = Some(cause);
                if record.attempt >= attempts {
                    self.abort(&life, AbortCause::SpawnFailed);
                } else {
                    self.retry_later(&life.key);
                }
            }
            // A wanted process goes back to waiting for a node, for as long as it takes.
            Spawned::GiveUp(cause) | Spawned::Elsewhere(cause) => self.unplace(&life, cause),
        }
    }

    /// A process runs: whoever waits for it is told.
    pub(crate) fn settle(&mut self, record: &Arc<Record>) {
        let key = record.key();
        let Some(saga) = self.sagas.all.remove(&key) else {
            return;
        };
        if let Some(deadline_us) = saga.deadline_us {
            self.timers.cancel(deadline_us, Due::Deadline(key, saga.id));
        }
        let maker = record.spec.as_ref().and_then(|spec| spec.request);
        for joined in saga.waiters {
            let created = maker == Some(joined.request);
            if created {
                self.created(joined.ticket, record, true);
            } else {
                self.conflict(joined, record);
            }
        }
    }

    pub(crate) fn created(&mut self, ticket: Ticket, record: &Arc<Record>, created: bool) {
        let answer = Answer::Created {
            record: Arc::clone(record),
            node: self.node_of(record),
            created,
        };
        self.effects.push(Effect::Reply(ticket, answer));
    }

    /// The key of a create is taken by a running process.
    pub(crate) fn conflict(&mut self, joined: Joined, record: &Arc<Record>) {
        match joined.create.options.on_conflict {
            OnConflict::Return => self.created(joined.ticket, record, false),
            OnConflict::Fail => {
                let outcome = self.registry.already_exists(record);
                self.answer(joined.ticket, outcome);
            }
            OnConflict::Wait => self.park(joined),
        }
    }

    /// A key is free: those that wait for it go on, and those whose create was deleted are told.
    pub(crate) fn freed(&mut self, record: &Arc<Record>) {
        let key = record.key();
        let saga = self
            .sagas
            .all
            .get(&key)
            .filter(|saga| saga.incarnation == record.incarnation);
        if saga.is_some()
            && let Some(saga) = self.sagas.all.remove(&key)
        {
            let text = format!("process {key} was deleted while it was starting");
            self.answer_all(saga, &Rejection::Conflict(text));
        }
        if let Some(parked) = self.sagas.parked.remove(&key) {
            self.sagas.parked_count -= parked.len();
            self.admit_again(parked.into_iter().map(|(_, joined)| joined).collect());
        }
    }

    fn admit_again(&mut self, waiters: Vec<Joined>) {
        for joined in waiters {
            self.admit_create(joined);
        }
    }
}

/// The lane and the request of another try for a record.
fn again(record: &Record, retries: u32) -> Option<(ModuleName, SelectRequest)> {
    let spec = record.spec.as_deref()?;
    let mut exclude: Vec<NodeName> = spec
        .failures
        .iter()
        .map(|failure| failure.node.clone())
        .collect();
    if record.state == ProcessState::Starting {
        exclude.push((*record.node).clone());
    }
    // A wanted process must not run out of nodes because each of them failed it once.
    if spec.confirmed && retries > 0 {
        exclude.clear();
    }
    let options = &spec.options;
    let request = SelectRequest {
        key: record.key(),
        group: options.group.clone(),
        requester: options.requester.clone(),
        require: options.require.clone(),
        demand: record.demand,
        priority: options.priority,
        attempt: record.attempt + 1,
        exclude,
    };
    Some((spec.selector.clone(), request))
}

/// The selector of a create whose defaults have been filled in.
pub(crate) fn selector_of(create: &CreateProcess) -> ModuleName {
    create
        .selector
        .clone()
        .expect("admission fills in the selector")
}

fn callback_of(create: &CreateProcess) -> ModuleName {
    create
        .callback
        .clone()
        .expect("admission fills in the callback")
}

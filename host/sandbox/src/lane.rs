//! Which thread decides. A lane is one thread for one activation of a selector, or of its canary
//! ([`LaneId`]), so one selector's decisions are serial and see each other, and lanes run in parallel.
//! Lanes begin with their first batch and end when they are idle, or when another activation takes
//! their place. What runs in shadow is handed on when its batch is decided (`shadow`).
//!
//! What holds: every batch that is submitted is answered, once, whatever guests do. A batch whose
//! selector could not be had, or whose lane is full, is decided by the fallback on a lane without
//! guests, and when even that is full, on the caller's thread.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use maitred_protocol::ModuleName;
use maitred_registry::decide::{Decision, LaneId, ModuleRef, SelectBatch};
use maitred_registry::inputs::Outcome;

use crate::breaker::Breaker;
use crate::limits::Limits;
use crate::sandbox::Sandbox;
use crate::shadow::Shadows;
use crate::tally::{Cause, LaneCounters, Tally};
use crate::worker::{self, Worker};

/// Takes a batch as it was before it was decided, and what came out.
pub(crate) type Record = Box<dyn FnOnce(SelectBatch, Arc<[Outcome]>) + Send>;

/// A batch and where its decisions go.
pub(crate) struct Work {
    pub(crate) batch: SelectBatch,
    pub(crate) done: Box<dyn FnOnce(Vec<Decision>) + Send>,
    /// Who keeps what it was made from, once it is done.
    pub(crate) record: Option<Record>,
    /// Why the selector is not to be asked, if it is not.
    pub(crate) bypass: Option<String>,
}

/// Decides batches. Dropping it ends its threads once they have answered what they had.
pub struct Lanes {
    shared: Arc<Shared>,
}

struct Shared {
    sandbox: Arc<Sandbox>,
    shadows: Option<Arc<Shadows>>,
    /// Under none, the lane without guests.
    lanes: Mutex<HashMap<Option<LaneId>, Lane>>,
}

struct Lane {
    state: Arc<LaneState>,
    /// None while no thread runs.
    inbox: Option<SyncSender<Box<Work>>>,
}

/// What outlives a lane's thread.
pub(crate) struct LaneState {
    /// None for the lane without guests.
    pub(crate) module: Option<ModuleRef>,
    pub(crate) tally: Tally,
    pub(crate) breaker: Mutex<Breaker>,
    pub(crate) breaker_open: AtomicBool,
}

impl Lanes {
    /// Lanes over the modules of a sandbox; no thread is started yet.
    #[must_use]
    pub fn new(sandbox: Arc<Sandbox>) -> Self {
        Self::with(sandbox, None)
    }

    /// The same; what a batch names as its shadow is rehearsed behind it.
    #[must_use]
    pub fn with_shadows(sandbox: Arc<Sandbox>, shadows: Arc<Shadows>) -> Self {
        Self::with(sandbox, Some(shadows))
    }

    fn with(sandbox: Arc<Sandbox>, shadows: Option<Arc<Shadows>>) -> Self {
        Self {
            shared: Arc::new(Shared {
                sandbox,
                shadows,
                lanes: Mutex::default(),
            }),
        }
    }

    /// Decides a batch, one job after the other, and hands the decisions to `done`, on the lane's
    /// thread unless the host is overloaded. Does not wait for guests.
    pub fn submit(&self, batch: SelectBatch, done: impl FnOnce(Vec<Decision>) + Send + 'static) {
        self.send(batch, Box::new(done), None);
    }

    /// The same; then `record` gets the batch as it was and what came out, one a job, in a form that
    /// is small enough to wait. What that costs is counted as nobody's decision.
    pub fn submit_recorded(
        &self,
        batch: SelectBatch,
        done: impl FnOnce(Vec<Decision>) + Send + 'static,
        record: impl FnOnce(SelectBatch, Arc<[Outcome]>) + Send + 'static,
    ) {
        self.send(batch, Box::new(done), Some(Box::new(record)));
    }

    fn send(
        &self,
        batch: SelectBatch,
        done: Box<dyn FnOnce(Vec<Decision>) + Send>,
        record: Option<Record>,
    ) {
        let work = Box::new(Work {
            batch,
            done,
            record,
            bypass: None,
        });
        let sent = self.shared.send(work).or_else(|mut work| {
            let most = self.shared.sandbox.limits.lane_batches;
            work.bypass = Some(format!(
                "{most} batches wait for it already (limit lane_batches)"
            ));
            self.shared.send(work)
        });
        if let Err(work) = sent {
            worker::fall_back(*work);
        }
    }

    /// What each selector has done, by name, canaries last.
    #[must_use]
    pub fn counters(&self) -> Vec<LaneCounters> {
        let lanes = self.shared.lanes();
        let read = |Lane { state, .. }: &Lane| {
            let module = state.module.as_ref()?;
            Some(state.tally.read(module, state.breaker_open.load(Relaxed)))
        };
        let mut counters: Vec<LaneCounters> = lanes.values().filter_map(read).collect();
        counters.sort_by(|a, b| a.lane.cmp(&b.lane));
        counters
    }

    /// Forgets the lanes that are not to be kept and have no thread any more, with what was counted of
    /// them. One that is idle ends a while later, so say it again, now and then.
    pub fn retain(&self, keep: impl Fn(&LaneId) -> bool) {
        let ended = |lane: &Lane| lane.inbox.is_none();
        let kept = |id: &Option<LaneId>| id.as_ref().is_none_or(&keep);
        self.shared
            .lanes()
            .retain(|id, lane| kept(id) || !ended(lane));
    }

    /// The selectors that failed too often and are not asked for so many seconds yet, by name; the
    /// longer one where its canary is bypassed, too.
    #[must_use]
    pub fn bypassed(&self) -> Vec<(ModuleName, u32)> {
        let now = Instant::now();
        let mut bypassed: Vec<(ModuleName, u32)> = Vec::new();
        for (id, lane) in self.shared.lanes().iter() {
            let left = match id {
                Some(_) if lane.state.breaker_open.load(Relaxed) => lane.state.breaker().admit(now),
                _ => continue,
            };
            if let (Some(id), Err(left)) = (id, left) {
                bypassed.push((id.module.clone(), left.as_secs() as u32 + 1));
            }
        }
        bypassed.sort_by(|(a, left), (b, other)| a.cmp(b).then(other.cmp(left)));
        bypassed.dedup_by(|(later, _), (kept, _)| later == kept);
        bypassed
    }
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, HashMap<Option<LaneId>, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a batch to its lane, or back when the lane is full or has no thread.
    fn send(self: &Arc<Self>, work: Box<Work>) -> Result<(), Box<Work>> {
        let module = work
            .batch
            .selector
            .as_ref()
            .ok()
            .filter(|_| work.bypass.is_none());
        let mut lanes = self.lanes();
        let lane = lanes
            .entry(module.map(lane_of))
            .and_modify(|lane| lane.supersede(module, &self.sandbox.limits))
            .or_insert_with(|| Lane::new(module, &self.sandbox.limits));
        let (inbox, work) = match lane.inbox.take() {
            Some(inbox) => (inbox, work),
            None => match self.start(&lane.state) {
                Some(inbox) => (inbox, work),
                None => return Err(work),
            },
        };
        let sent = inbox.try_send(work);
        lane.inbox = Some(inbox);
        match sent {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(work)) => {
                work.batch
                    .jobs
                    .iter()
                    .for_each(|_| lane.state.tally.fell_back(Cause::QueueFull));
                Err(work)
            }
            Err(TrySendError::Disconnected(work)) => {
                lane.inbox = None;
                Err(work)
            }
        }
    }

    fn start(self: &Arc<Self>, state: &Arc<LaneState>) -> Option<SyncSender<Box<Work>>> {
        let (sender, inbox) = mpsc::sync_channel(self.sandbox.limits.lane_batches);
        let name = state
            .module
            .as_ref()
            .map_or("fallback", |module| module.name.as_str());
        // The kernel cuts a thread's name to 15 bytes.
        let thread = thread::Builder::new().name(format!("lane-{name}"));
        let worker = Worker::new(
            Arc::clone(&self.sandbox),
            self.shadows.clone(),
            Arc::clone(state),
        );
        let (shared, idle) = (
            Arc::downgrade(self),
            Duration::from_millis(self.sandbox.limits.lane_idle_ms),
        );
        match thread.spawn(move || run(worker, &inbox, &shared, idle)) {
            Ok(_) => Some(sender),
            Err(error) => {
                tracing::error!(%error, "the thread of a lane could not be started; the fallback decides");
                None
            }
        }
    }

    /// Ends a lane's thread, unless a batch came meanwhile: senders hold the lock.
    fn retire(&self, state: &Arc<LaneState>, inbox: &Receiver<Box<Work>>) -> Option<Box<Work>> {
        let mut lanes = self.lanes();
        let work = inbox.try_recv().ok();
        if work.is_none()
            && let Some(lane) = lanes.get_mut(&state.module.as_ref().map(lane_of))
            && Arc::ptr_eq(&lane.state, state)
        {
            lane.inbox = None;
        }
        work
    }
}

impl LaneState {
    pub(crate) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lane_of(module: &ModuleRef) -> LaneId {
    LaneId {
        module: module.name.clone(),
        canary: module.canary,
    }
}

impl Lane {
    fn new(module: Option<&ModuleRef>, limits: &Limits) -> Self {
        let state = LaneState {
            module: module.cloned(),
            tally: Tally::default(),
            breaker: Mutex::new(Breaker::new(&limits.breaker)),
            breaker_open: AtomicBool::new(false),
        };
        Self {
            state: Arc::new(state),
            inbox: None,
        }
    }

    /// Begins anew with another activation. The old thread answers what it has, and ends.
    fn supersede(&mut self, module: Option<&ModuleRef>, limits: &Limits) {
        let identity =
            |module: &ModuleRef| (module.digest, module.activated, Arc::clone(&module.config));
        if self.state.module.as_ref().map(identity) != module.map(identity) {
            *self = Self::new(module, limits);
        }
    }
}

fn run(mut worker: Worker, inbox: &Receiver<Box<Work>>, shared: &Weak<Shared>, idle: Duration) {
    loop {
        let work = match inbox.recv_timeout(idle) {
            Ok(work) => work,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                match shared
                    .upgrade()
                    .and_then(|shared| shared.retire(worker.state(), inbox))
                {
                    Some(work) => work,
                    None => return,
                }
            }
        };
        worker.serve(*work);
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes")
            .field("lanes", &self.shared.lanes().len())
            .finish_non_exhaustive()
    }
}

//! Modules whose calls run on fibers, so that waiting for an answer holds no thread: what callbacks
//! and fences have in common. Instances are reused; no more live than there are permits, and calls
//! beyond them wait until one is free or their deadline has passed.
//!
//! What holds: a call ends by its deadline and what it may compute; an instance whose call failed,
//! or was dropped half-way, is never used again. What a call is, and what follows from its answer,
//! is the [`World`]'s.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use maitred_registry::decide::{ModuleRef, cut};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use wasmtime::Store;
use wasmtime::component::{self, InstancePre};

use crate::convert;
use crate::error::{ModuleError, Stage};
use crate::guest::{self, Budget, Failure, Guest};
use crate::limits::{CALLS_MAX, Limits};
use crate::meter::Meter;
use crate::node::{Call, Port};
use crate::sandbox::{Loaded, Sandbox};
use crate::selector::worn_at;
use crate::shelf::{CallCounters, Shelf};

/// The exports of one instance, as generated, and the one function of them that is called.
pub(crate) trait World: Sized + Send + Sync + 'static {
    /// What it is called with.
    type Job: Sync;
    /// What it answers when all is well.
    type Done: Send;
    /// What it answers otherwise.
    type Refusal: Send;

    /// What its modules are called in errors.
    const NAME: &'static str;
    /// The name of the limit on its instances.
    const INSTANCES: &'static str;

    /// A module of this kind.
    fn module(loaded: &Loaded) -> Option<&InstancePre<Guest>>;

    /// The exports of an instance.
    fn exports(store: &mut Store<Guest>, instance: &component::Instance) -> wasmtime::Result<Self>;

    /// Name and version of its manifest.
    fn describe(
        &self,
        store: &mut Store<Guest>,
    ) -> impl Future<Output = wasmtime::Result<(String, String)>> + Send;

    /// What a call may compute.
    fn budget(limits: &Limits) -> Budget;

    /// Calls it.
    fn call(
        &self,
        store: &mut Store<Guest>,
        job: &Self::Job,
    ) -> impl Future<Output = wasmtime::Result<Answer<Self>>> + Send;
}

/// What a module answered.
pub(crate) enum Answer<W: World> {
    Done(W::Done),
    Refused(W::Refusal),
    /// What it must not; how that reads after its name.
    OutOfBounds(String),
}

/// One instance.
pub(crate) struct Instance<W> {
    store: Store<Guest>,
    exports: W,
    meter: Arc<Meter>,
    pub(crate) title: String,
    calls: u32,
    memory_bytes_worn: usize,
}

/// Runs the modules of one world.
pub(crate) struct Runner<W> {
    sandbox: Arc<Sandbox>,
    shelf: Arc<Shelf<Instance<W>>>,
    /// One permit a running call.
    turns: Semaphore,
}

impl<W: World> Runner<W> {
    /// Over the modules of a sandbox, with so many instances.
    pub(crate) fn new(sandbox: Arc<Sandbox>, instances: u32) -> Self {
        let instances = instances as usize;
        Self {
            sandbox,
            shelf: Shelf::new(instances),
            turns: Semaphore::new(instances),
        }
    }

    pub(crate) fn counters(&self) -> Vec<CallCounters> {
        self.shelf.counters()
    }

    /// How many calls may begin at once.
    pub(crate) fn free(&self) -> usize {
        self.turns.available_permits()
    }

    /// Calls a module.
    ///
    /// # Errors
    /// When it failed itself, by a trap, a time-out or an answer out of bounds, or could not be
    /// had: a sentence that begins with its kind, name and version.
    pub(crate) async fn run(
        &self,
        module: &ModuleRef,
        job: &W::Job,
        port: Port,
        deadline: Instant,
    ) -> Result<Result<W::Done, W::Refusal>, String> {
        let fail = |what: &str| cut(format!("{} {what}", titled::<W>(module)));
        let _turn = match self.turns.try_acquire() {
            Ok(turn) => turn,
            Err(_) => match timeout_at(deadline.into(), self.turns.acquire()).await {
                Ok(Ok(turn)) => turn,
                Ok(Err(_)) | Err(_) => {
                    let limit = W::INSTANCES;
                    return Err(fail(&format!(
                        "waited for an instance until the deadline (limit {limit})"
                    )));
                }
            },
        };
        let (place, idle) = self.shelf.take(module);
        let tally = Arc::clone(place.tally());
        tally.calls.fetch_add(1, Relaxed);
        let made = match idle {
            Some(instance) => Ok(instance),
            None => self.instance(module).await,
        };
        let mut instance = made.map_err(|what| {
            tally.failed.fetch_add(1, Relaxed);
            fail(&what)
        })?;
        let call = Call::new(port, deadline);
        let answer = instance.call(job, call, &self.sandbox.limits).await;
        tally
            .lines_dropped
            .fetch_add(instance.take_lines_dropped(), Relaxed);
        match answer {
            Ok(answer) => {
                if instance.worn() {
                    tally.recycled.fetch_add(1, Relaxed);
                } else {
                    place.give_back(instance);
                }
                Ok(answer.inspect_err(|_| {
                    tally.refused.fetch_add(1, Relaxed);
                }))
            }
            Err(Failure { timeout, reason }) => {
                let count = if timeout {
                    &tally.timeouts
                } else {
                    &tally.failed
                };
                count.fetch_add(1, Relaxed);
                let (name, version) = (module.name.as_str(), module.version);
                tracing::warn!(module = name, version, reason, "a {} failed", W::NAME);
                Err(fail(&reason))
            }
        }
    }

    async fn instance(&self, module: &ModuleRef) -> Result<Instance<W>, String> {
        let loaded = self.sandbox.loaded(&module.digest);
        let Some(pre) = loaded.as_ref().and_then(W::module) else {
            return Err("is not loaded on this host".to_owned());
        };
        let (name, config) = (module.name.as_str().into(), Arc::clone(&module.config));
        let made = Instance::new(pre, &self.sandbox.limits, name, config);
        made.await
            .map_err(|ModuleError { stage, reason }| format!("could not be had: {stage}: {reason}"))
    }
}

/// How a module is named in errors.
pub(crate) fn titled<W: World>(module: &ModuleRef) -> String {
    format!("{} {}@{}", W::NAME, module.name, module.version)
}

impl<W: World> Instance<W> {
    /// Makes an instance and asks what it is.
    pub(crate) async fn new(
        module: &InstancePre<Guest>,
        limits: &Limits,
        name: Arc<str>,
        config: Arc<str>,
    ) -> Result<Self, ModuleError> {
        let meter = Arc::<Meter>::default();
        let mut store = guest::store(module.engine(), limits, name, config);
        let ticking = Arc::clone(&meter);
        store.epoch_deadline_callback(move |_| Ok(ticking.tick()));
        store.set_epoch_deadline(1);
        let (ms, limit) = (limits.describe_ms, "describe_ms");
        let fail = |store: &Store<Guest>, stage, what, error| {
            let Failure { reason, .. } =
                store
                    .data()
                    .failure(&error, limits, Budget { what, ms, limit });
            ModuleError::new(stage, reason)
        };
        let within = Duration::from_millis(ms);
        let made = meter
            .run(within, module.instantiate_async(&mut store))
            .await;
        let instance =
            made.map_err(|error| fail(&store, Stage::Instantiating, "a start function", error))?;
        let exports = W::exports(&mut store, &instance).map_err(ModuleError::of_world)?;
        let described = meter.run(within, exports.describe(&mut store)).await;
        let (name, version) =
            described.map_err(|error| fail(&store, Stage::Describing, "describe", error))?;
        let title = convert::title(&name, &version)
            .map_err(|reason| ModuleError::new(Stage::Describing, reason))?;
        let memory_bytes_worn = worn_at(store.data().room.memory_bytes, limits);
        Ok(Self {
            store,
            exports,
            meter,
            title,
            calls: 0,
            memory_bytes_worn,
        })
    }

    /// Carries out one call.
    ///
    /// # Errors
    /// When the module itself failed; the instance is not to be called again then.
    pub(crate) async fn call(
        &mut self,
        job: &W::Job,
        call: Call,
        limits: &Limits,
    ) -> Result<Result<W::Done, W::Refusal>, Failure> {
        self.calls += 1;
        let guest = self.store.data_mut();
        guest.begin();
        guest.call = Some(call);
        self.store.set_epoch_deadline(1);
        let budget = W::budget(limits);
        let answer = self
            .meter
            .run(
                Duration::from_millis(budget.ms),
                self.exports.call(&mut self.store, job),
            )
            .await;
        self.store.data_mut().call = None;
        match answer {
            Ok(Answer::Done(done)) => Ok(Ok(done)),
            Ok(Answer::Refused(refusal)) => Ok(Err(refusal)),
            Ok(Answer::OutOfBounds(reason)) => Err(Failure {
                timeout: false,
                reason,
            }),
            Err(error) => Err(self.store.data().failure(&error, limits, budget)),
        }
    }

    fn take_lines_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.store.data_mut().lines_dropped)
    }

    fn worn(&self) -> bool {
        self.calls >= CALLS_MAX || self.store.data().room.memory_bytes > self.memory_bytes_worn
    }
}

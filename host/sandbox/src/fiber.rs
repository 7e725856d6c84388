//! Modules whose calls run on fibers, so that waiting for an answer holds no thread: what callbacks
//! and fences have in common. Instances are reused; no more live than there are turns (`turns`), and
//! calls beyond them wait until one is free or their deadline has passed.
//!
//! What holds: a call is answered, by its deadline and what it may compute; an instance whose call
//! failed, panicked or was dropped half-way, is never used again. What a call is, and what follows
//! from its answer, is the [`Task`]'s.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use maitred_protocol::Hook;
use maitred_registry::decide::{ModuleRef, cut};
use tokio::time::timeout_at;
use wasmtime::Store;
use wasmtime::component::{self, InstancePre};

use crate::caught::caught;
use crate::convert;
use crate::error::{ModuleError, Stage};
use crate::guest::{self, Budget, Failure, Guest};
use crate::limits::{CALLS_MAX, Limits};
use crate::meter::Meter;
use crate::node::{Call, Port};
use crate::sandbox::{Loaded, Sandbox};
use crate::selector::worn_at;
use crate::shelf::{CallCounters, Place, Shelf};
use crate::turns::Turns;

/// The exports of one instance of a kind, whatever version of the WIT they are of.
pub(crate) trait World: Sized + Send + Sync + 'static {
    /// A module that is linked.
    type Module: Clone + Send + Sync;

    /// What its modules are called in errors.
    const NAME: &'static str;
    /// The name of the limit on its instances.
    const INSTANCES: &'static str;

    /// A module of this kind.
    fn module(loaded: &Loaded) -> Option<&Self::Module>;

    /// What instances are made from.
    fn instance_pre(module: &Self::Module) -> &InstancePre<Guest>;

    /// The exports of an instance.
    fn exports(
        module: &Self::Module,
        store: &mut Store<Guest>,
        instance: &component::Instance,
    ) -> wasmtime::Result<Self>;

    /// Asks what it is.
    fn describe(
        &self,
        store: &mut Store<Guest>,
    ) -> impl Future<Output = wasmtime::Result<Described>> + Send;

    /// Asks whether a configuration will do.
    fn validate(
        &self,
        store: &mut Store<Guest>,
        config: &str,
    ) -> impl Future<Output = wasmtime::Result<Result<(), String>>> + Send;
}

/// A manifest.
#[derive(Debug, Default)]
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) version: String,
    /// What it wants to be asked besides.
    pub(crate) hooks: Vec<Hook>,
}

/// A call of a module.
pub(crate) trait Task<W>: Sync {
    /// What is answered when all is well.
    type Done: Send;
    /// What is answered otherwise.
    type Refusal: Send;

    /// What it may compute.
    fn budget(&self, limits: &Limits) -> Budget;

    /// Calls it.
    fn call(
        &self,
        exports: &W,
        hooks: &[Hook],
        store: &mut Store<Guest>,
    ) -> impl Future<Output = wasmtime::Result<Answer<Self::Done, Self::Refusal>>> + Send;
}

/// What a module answered.
pub(crate) enum Answer<D, R> {
    Done(D),
    Refused(R),
    /// What it must not; how that reads after its name.
    OutOfBounds(String),
}

/// One instance.
pub(crate) struct Instance<W> {
    store: Store<Guest>,
    exports: W,
    meter: Arc<Meter>,
    pub(crate) title: String,
    pub(crate) hooks: Vec<Hook>,
    calls: u32,
    memory_bytes_worn: usize,
}

/// Runs the modules of one world.
pub(crate) struct Runner<W> {
    sandbox: Arc<Sandbox>,
    shelf: Arc<Shelf<Instance<W>>>,
    /// One a running call.
    turns: Arc<Turns>,
}

impl<W: World> Runner<W> {
    /// Over the modules of a sandbox, with so many instances.
    pub(crate) fn new(sandbox: Arc<Sandbox>, instances: u32) -> Self {
        let instances = instances as usize;
        Self {
            sandbox,
            shelf: Shelf::new(instances),
            turns: Turns::new(instances),
        }
    }

    pub(crate) fn counters(&self) -> Vec<CallCounters> {
        self.shelf.counters()
    }

    /// How many calls may begin at once.
    pub(crate) fn free(&self) -> usize {
        self.turns.free()
    }

    /// Calls a module.
    ///
    /// # Errors
    /// When it failed itself, by a trap, a time-out or an answer out of bounds, or could not be
    /// had: a sentence that begins with its kind, name and version.
    pub(crate) async fn run<T: Task<W>>(
        &self,
        module: &ModuleRef,
        task: &T,
        port: Port,
        deadline: Instant,
    ) -> Result<Result<T::Done, T::Refusal>, String> {
        let fail = |what: &str| cut(format!("{} {what}", titled::<W>(module)));
        let turn = timeout_at(deadline.into(), self.turns.take(&module.name));
        let Ok(_turn) = turn.await else {
            let limit = W::INSTANCES;
            return Err(fail(&format!(
                "waited for an instance until the deadline (limit {limit})"
            )));
        };
        let (place, idle) = self.shelf.take(module);
        let tally = Arc::clone(place.tally());
        tally.calls.fetch_add(1, Relaxed);
        let call = Call::new(port, deadline);
        let called = caught(self.call(module, task, call, (place, idle))).await;
        let what = match called {
            Some(Ok(answer)) => {
                return Ok(answer.inspect_err(|_| {
                    tally.refused.fetch_add(1, Relaxed);
                }));
            }
            Some(Err(Failure { timeout, reason })) => {
                let count = if timeout {
                    &tally.timeouts
                } else {
                    &tally.failed
                };
                count.fetch_add(1, Relaxed);
                reason
            }
            None => {
                tally.failed.fetch_add(1, Relaxed);
                let (name, version) = (module.name.as_str(), module.version);
                tracing::error!(
                    module = name,
                    version,
                    "the sandbox failed on a {}",
                    W::NAME
                );
                "made the sandbox fail, which is a bug; the log says more".to_owned()
            }
        };
        Err(fail(&what))
    }

    /// Calls an instance, which goes back to its place when it may be used again.
    async fn call<T: Task<W>>(
        &self,
        module: &ModuleRef,
        task: &T,
        call: Call,
        (place, idle): (Place<Instance<W>>, Option<Instance<W>>),
    ) -> Result<Result<T::Done, T::Refusal>, Failure> {
        let mut instance = match idle {
            Some(instance) => instance,
            None => self.instance(module).await.map_err(|reason| Failure {
                timeout: false,
                reason,
            })?,
        };
        let answer = instance.call(task, call, &self.sandbox.limits).await;
        let tally = place.tally();
        tally
            .lines_dropped
            .fetch_add(instance.take_lines_dropped(), Relaxed);
        match &answer {
            Ok(_) if instance.worn() => {
                tally.recycled.fetch_add(1, Relaxed);
            }
            Ok(_) => place.give_back(instance),
            Err(Failure { reason, .. }) => {
                let (name, version) = (module.name.as_str(), module.version);
                tracing::warn!(module = name, version, reason, "a {} failed", W::NAME);
            }
        }
        answer
    }

    async fn instance(&self, module: &ModuleRef) -> Result<Instance<W>, String> {
        let loaded = self.sandbox.loaded(&module.digest);
        let Some(linked) = loaded.as_ref().and_then(W::module) else {
            return Err("is not loaded on this host".to_owned());
        };
        let (name, config) = (module.name.as_str().into(), Arc::clone(&module.config));
        let made = Instance::new(linked, &self.sandbox.limits, name, config);
        made.await
            .map_err(|ModuleError { stage, reason }| format!("could not be had: {stage}: {reason}"))
    }
}

/// How a module is named in errors.
pub(crate) fn titled<W: World>(module: &ModuleRef) -> String {
    format!("{} {}@{}", W::NAME, module.name, module.version)
}

/// What is made first, and its clock.
struct Born<W> {
    store: Store<Guest>,
    exports: W,
    meter: Arc<Meter>,
}

impl<W: World> Born<W> {
    async fn new(
        module: &W::Module,
        limits: &Limits,
        name: Arc<str>,
        config: Arc<str>,
    ) -> Result<Self, ModuleError> {
        let pre = W::instance_pre(module);
        let meter = Arc::<Meter>::default();
        let mut store = guest::store(pre.engine(), limits, name, config);
        let ticking = Arc::clone(&meter);
        store.epoch_deadline_callback(move |_| Ok(ticking.tick()));
        store.set_epoch_deadline(1);
        let within = Duration::from_millis(limits.describe_ms);
        let made = meter.run(within, pre.instantiate_async(&mut store)).await;
        let instance = made.map_err(|error| {
            let stage = Stage::Instantiating;
            failed(&store, limits, stage, "a start function", &error)
        })?;
        let exports = W::exports(module, &mut store, &instance).map_err(ModuleError::of_world)?;
        Ok(Self {
            store,
            exports,
            meter,
        })
    }
}

/// How a call reads that is none of a start or an examination.
fn failed(
    store: &Store<Guest>,
    limits: &Limits,
    stage: Stage,
    what: &'static str,
    error: &wasmtime::Error,
) -> ModuleError {
    let (ms, limit) = (limits.describe_ms, "describe_ms");
    let budget = Budget { what, ms, limit };
    let Failure { reason, .. } = store.data().failure(error, limits, budget);
    ModuleError::new(stage, reason)
}

/// Has a module judge a configuration, on an instance that has it and is used for nothing else.
pub(crate) async fn validate<W: World>(
    module: &W::Module,
    limits: &Limits,
    name: Arc<str>,
    config: &Arc<str>,
) -> Result<Result<(), String>, ModuleError> {
    let born = Born::<W>::new(module, limits, name, Arc::clone(config)).await?;
    let Born {
        mut store,
        exports,
        meter,
    } = born;
    let within = Duration::from_millis(limits.describe_ms);
    let validated = meter.run(within, exports.validate(&mut store, config));
    let validated = validated.await;
    validated.map_err(|error| failed(&store, limits, Stage::Validating, "validate", &error))
}

impl<W: World> Instance<W> {
    /// Makes an instance and asks what it is.
    pub(crate) async fn new(
        module: &W::Module,
        limits: &Limits,
        name: Arc<str>,
        config: Arc<str>,
    ) -> Result<Self, ModuleError> {
        let Born {
            mut store,
            exports,
            meter,
        } = Born::<W>::new(module, limits, name, config).await?;
        let within = Duration::from_millis(limits.describe_ms);
        let described = meter.run(within, exports.describe(&mut store)).await;
        let described = described
            .map_err(|error| failed(&store, limits, Stage::Describing, "describe", &error))?;
        let title = convert::title(&described.name, &described.version)
            .map_err(|reason| ModuleError::new(Stage::Describing, reason))?;
        let memory_bytes_worn = worn_at(store.data().room.memory_bytes, limits);
        Ok(Self {
            store,
            exports,
            meter,
            title,
            hooks: described.hooks,
            calls: 0,
            memory_bytes_worn,
        })
    }

    /// Carries out one call.
    ///
    /// # Errors
    /// When the module itself failed; the instance is not to be called again then.
    pub(crate) async fn call<T: Task<W>>(
        &mut self,
        task: &T,
        call: Call,
        limits: &Limits,
    ) -> Result<Result<T::Done, T::Refusal>, Failure> {
        self.calls += 1;
        let guest = self.store.data_mut();
        guest.begin();
        guest.call = Some(call);
        self.store.set_epoch_deadline(1);
        let budget = task.budget(limits);
        let answer = self
            .meter
            .run(
                Duration::from_millis(budget.ms),
                task.call(&self.exports, &self.hooks, &mut self.store),
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

    /// Bytes of all its memories.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().room.memory_bytes
    }

    fn worn(&self) -> bool {
        self.calls >= CALLS_MAX || self.memory_bytes() > self.memory_bytes_worn
    }
}

/// Waits for what runs on fibers, on a thread of its own: the caller's may belong to a runtime
/// already.
pub(crate) fn block_on<T: Send>(
    stage: Stage,
    work: impl Future<Output = Result<T, ModuleError>> + Send,
) -> Result<T, ModuleError> {
    let done = thread::scope(|scope| {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            runtime
                .map_err(|error| ModuleError::new(stage, format!("it could not begin: {error}")))?
                .block_on(work)
        };
        scope.spawn(run).join()
    });
    done.unwrap_or_else(|_| Err(ModuleError::new(stage, "it ended unexpectedly")))
}

//! Callbacks: one instance a spawn at a time, on a fiber, so that waiting for a node holds no
//! thread. Instances are reused; at most `limits.callback_instances` live, and spawns beyond them
//! wait until one is free or their deadline has passed.
//!
//! What holds: a spawn ends by its deadline and what it may compute; an instance whose call failed,
//! or was dropped half-way, is never used again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use maitred_protocol::{Incarnation, NodeName, ProcessKey, limits as wire};
use maitred_registry::decide::{ModuleRef, cut};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use wasmtime::Store;

use crate::bindings::callback::exports::maitred::policy::callback as wit;
use crate::bindings::callback::maitred::policy::node as node_wit;
use crate::bindings::callback::{CallbackModule, CallbackModulePre};
use crate::convert;
use crate::error::{ModuleError, Stage};
use crate::guest::{self, Budget, Failure, Guest};
use crate::limits::{CALLS_MAX, Limits};
use crate::meter::Meter;
use crate::node::{NodeCall, NodePort, Started};
use crate::sandbox::{Loaded, Sandbox};
use crate::selector::worn_at;
use crate::shelf::{CallbackCounters, Shelf};

/// What is to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct SpawnRequest {
    /// Type and id.
    pub key: ProcessKey,
    /// What the caller passes to the process; at most 64 KiB.
    pub args: Vec<u8>,
    /// Its party.
    pub group: Option<String>,
    /// The node that asked.
    pub requester: Option<NodeName>,
    /// Units that it takes.
    pub demand: u32,
    /// Larger is more important.
    pub priority: i32,
    /// 1 for the first.
    pub attempt: u32,
    /// The source of chance.
    pub seed: u32,
    /// Seconds since 1970.
    pub time_s: u32,
}

/// Where it is to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The node's name.
    pub node: NodeName,
    /// Where it can be reached.
    pub address: String,
    /// This life of the process.
    pub incarnation: Incarnation,
}

/// A start to be carried out.
#[derive(Debug, Clone)]
pub struct CallbackJob {
    /// By which callback.
    pub module: ModuleRef,
    /// What.
    pub request: SpawnRequest,
    /// Where.
    pub placement: Placement,
    /// Until when.
    pub deadline: Instant,
}

/// Why a spawn did not succeed. Reasons have at most 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpawnFailure {
    /// Try another node, while attempts and deadline allow it.
    Elsewhere(String),
    /// Give up.
    GiveUp(String),
}

/// Runs callbacks. Clones share the instances.
#[derive(Clone)]
pub struct Callbacks {
    sandbox: Arc<Sandbox>,
    shelf: Arc<Shelf>,
    /// One permit a running spawn.
    turns: Arc<Semaphore>,
}

/// One instance of a callback.
pub(crate) struct Callback {
    store: Store<Guest>,
    exports: CallbackModule,
    meter: Arc<Meter>,
    pub(crate) title: String,
    calls: u32,
    memory_bytes_worn: usize,
}

impl Callbacks {
    /// Callbacks over the modules of a sandbox.
    #[must_use]
    pub fn new(sandbox: Arc<Sandbox>) -> Self {
        let instances = sandbox.limits.callback_instances as usize;
        Self {
            sandbox,
            shelf: Shelf::new(instances),
            turns: Arc::new(Semaphore::new(instances)),
        }
    }

    /// Carries out a start. Needs a tokio runtime with time. Dropping the future abandons the call.
    ///
    /// # Errors
    /// What the callback answered; a callback that failed itself, by a trap or a time-out, is
    /// answered as [`SpawnFailure::Elsewhere`] with its name and version.
    pub fn spawn(
        &self,
        job: CallbackJob,
        port: Arc<dyn NodePort>,
    ) -> impl Future<Output = Result<Started, SpawnFailure>> + Send + 'static {
        let this = self.clone();
        async move { this.run(job, port).await }
    }

    /// What each callback has done.
    #[must_use]
    pub fn counters(&self) -> Vec<CallbackCounters> {
        self.shelf.counters()
    }

    async fn run(
        &self,
        job: CallbackJob,
        port: Arc<dyn NodePort>,
    ) -> Result<Started, SpawnFailure> {
        let ModuleRef { name, version, .. } = &job.module;
        let fail =
            |what: &str| SpawnFailure::Elsewhere(cut(format!("callback {name}@{version} {what}")));
        let _turn = match self.turns.try_acquire() {
            Ok(turn) => turn,
            Err(_) => match timeout_at(job.deadline.into(), self.turns.acquire()).await {
                Ok(Ok(turn)) => turn,
                Ok(Err(_)) | Err(_) => {
                    return Err(fail(
                        "waited for an instance until the deadline (limit callback_instances)",
                    ));
                }
            },
        };
        let mut taken = self.shelf.take(&job.module);
        let tally = Arc::clone(taken.tally());
        tally.spawns.fetch_add(1, Relaxed);
        if taken.instance().is_none() {
            match self.instance(&job.module).await {
                Ok(instance) => *taken.instance() = Some(instance),
                Err(what) => {
                    tally.failed.fetch_add(1, Relaxed);
                    return Err(fail(&what));
                }
            }
        }
        let Some(instance) = taken.instance() else {
            return Err(fail("has no instance"));
        };
        let answer = instance.spawn(&job, port, &self.sandbox.limits).await;
        tally
            .lines_dropped
            .fetch_add(instance.take_lines_dropped(), Relaxed);
        match answer {
            Ok(answer) => {
                if instance.worn() {
                    tally.recycled.fetch_add(1, Relaxed);
                } else {
                    taken.give_back();
                }
                answer.inspect_err(|_| {
                    tally.refused.fetch_add(1, Relaxed);
                })
            }
            Err(Failure { timeout, reason }) => {
                let count = if timeout {
                    &tally.timeouts
                } else {
                    &tally.failed
                };
                count.fetch_add(1, Relaxed);
                tracing::warn!(module = name.as_str(), version, reason, "a callback failed");
                Err(fail(&reason))
            }
        }
    }

    async fn instance(&self, module: &ModuleRef) -> Result<Callback, String> {
        let Some(Loaded::Callback(pre)) = self.sandbox.loaded(&module.digest) else {
            return Err("is not loaded on this host".to_owned());
        };
        let made = Callback::new(
            &pre,
            &self.sandbox.limits,
            module.name.as_str().into(),
            Arc::clone(&module.config),
        );
        made.await
            .map_err(|ModuleError { stage, reason }| format!("could not be had: {stage}: {reason}"))
    }
}

impl Callback {
    pub(crate) async fn new(
        module: &CallbackModulePre<Guest>,
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
            .run(within, module.instance_pre().instantiate_async(&mut store))
            .await;
        let instance =
            made.map_err(|error| fail(&store, Stage::Instantiating, "a start function", error))?;
        let exports = CallbackModule::new(&mut store, &instance).map_err(ModuleError::of_world)?;
        let described = meter
            .run(
                within,
                exports.maitred_policy_callback().call_describe(&mut store),
            )
            .await;
        let manifest =
            described.map_err(|error| fail(&store, Stage::Describing, "describe", error))?;
        let title = convert::callback_title(&manifest)
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

    /// Carries out one start.
    ///
    /// # Errors
    /// When the callback itself failed; it is not to be called again then.
    pub(crate) async fn spawn(
        &mut self,
        job: &CallbackJob,
        port: Arc<dyn NodePort>,
        limits: &Limits,
    ) -> Result<Result<Started, SpawnFailure>, Failure> {
        self.calls += 1;
        let guest = self.store.data_mut();
        guest.begin();
        guest.node = Some(NodeCall::new(port, job.deadline));
        let incarnation = job.placement.incarnation.0.to_string();
        let placement = wit::Placement {
            node: job.placement.node.as_str(),
            address: &job.placement.address,
            incarnation: &incarnation,
        };
        let request = convert::spawn_request(&job.request);
        self.store.set_epoch_deadline(1);
        let call =
            self.exports
                .maitred_policy_callback()
                .call_spawn(&mut self.store, request, placement);
        let answer = self
            .meter
            .run(Duration::from_millis(limits.spawn_ms), call)
            .await;
        self.store.data_mut().node = None;
        match answer {
            Ok(Ok(started)) => checked(started).map(Ok),
            Ok(Err(wit::Failure::Elsewhere(reason))) => {
                Ok(Err(SpawnFailure::Elsewhere(cut(reason))))
            }
            Ok(Err(wit::Failure::GiveUp(reason))) => Ok(Err(SpawnFailure::GiveUp(cut(reason)))),
            Err(error) => {
                let budget = Budget {
                    what: "spawn",
                    ms: limits.spawn_ms,
                    limit: "spawn_ms",
                };
                Err(self.store.data().failure(&error, limits, budget))
            }
        }
    }

    fn take_lines_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.store.data_mut().lines_dropped)
    }

    fn worn(&self) -> bool {
        self.calls >= CALLS_MAX || self.store.data().room.memory_bytes > self.memory_bytes_worn
    }
}

/// A callback may make an answer up; it must fit the record.
fn checked(started: node_wit::Started) -> Result<Started, Failure> {
    let bounds = [
        ("pid", started.pid.len(), wire::PID_BYTES_MAX),
        ("share", started.share.len(), wire::SHARE_BYTES_MAX),
    ];
    match bounds.into_iter().find(|(_, got, most)| got > most) {
        None => Ok(Started {
            pid: started.pid,
            share: started.share,
        }),
        Some((what, got, most)) => Err(Failure {
            timeout: false,
            reason: format!("answered a {what} of {got} bytes, of at most {most}"),
        }),
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks")
            .field("free", &self.turns.available_permits())
            .finish_non_exhaustive()
    }
}

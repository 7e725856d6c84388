//! Callbacks: what a spawn and what a hook is, and what follows from a callback's answer. They run on
//! fibers (`fiber`), at most `limits.callback_instances` at a time.
//!
//! What holds: a hook that a callback does not name is not called, and one that fails advises
//! nothing. What a host makes of advice is not known here.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use maitred_protocol::{Hook, Incarnation, NodeName, ProcessKey, limits as wire};
use maitred_registry::decide::{ModuleRef, cut};
use wasmtime::Store;
use wasmtime::component::{self, InstancePre};

use crate::bindings::callback::exports::maitred::policy::callback as wit;
use crate::bindings::callback::maitred::policy::node as node_wit;
use crate::bindings::callback::{CallbackModule, CallbackModulePre};
use crate::convert;
use crate::fiber::{Answer, Described, Runner, Task, World};
use crate::guest::{Budget, Guest};
use crate::limits::{BACK_OFF_MS, Limits};
use crate::node::{NodePort, Port, RecordsPort, Started};
use crate::sandbox::{Loaded, Sandbox};
use crate::shelf::CallCounters;
use crate::v0_1;

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
    /// The node of the life before.
    pub previous: Option<NodeName>,
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

/// A life of a process that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Type and id.
    pub key: ProcessKey,
    /// Its party.
    pub group: Option<String>,
    /// The node that it ran on.
    pub node: NodeName,
    /// The life that ended.
    pub incarnation: Incarnation,
    /// What the node said of the end, at most 512 bytes; empty when the node was lost.
    pub reason: String,
    /// How often it has ended like this in a row, this time included.
    pub times: u32,
    /// Milliseconds that the life lasted.
    pub lasted_ms: u32,
    /// The source of chance.
    pub seed: u32,
    /// Seconds since 1970.
    pub time_s: u32,
}

/// An end that a callback is asked about.
#[derive(Debug, Clone)]
pub struct EndedJob {
    /// Which callback.
    pub module: ModuleRef,
    /// Which end.
    pub ended: Ended,
    /// Until when it may look records up, and wait for an instance.
    pub deadline: Instant,
}

/// What to do with a process whose life has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// What the host does without a hook.
    Usual,
    /// Start it on the same node again, if that can take it; else elsewhere.
    Here,
    /// Start it where the selector chooses.
    Elsewhere,
    /// The same after so many milliseconds, 10 to 600,000.
    BackOff(u32),
    /// Forget it; the reason has at most 512 bytes.
    GiveUp(String),
}

/// Runs callbacks. Clones share the instances.
#[derive(Clone)]
pub struct Callbacks(Arc<Runner<Exports>>);

impl Callbacks {
    /// Callbacks over the modules of a sandbox.
    #[must_use]
    pub fn new(sandbox: Arc<Sandbox>) -> Self {
        let instances = sandbox.limits.callback_instances;
        Self(Arc::new(Runner::new(sandbox, instances)))
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
        let runner = Arc::clone(&self.0);
        async move {
            let answer = runner.run(&job.module, &job, Port::Node(port), job.deadline);
            answer
                .await
                .unwrap_or_else(|reason| Err(SpawnFailure::Elsewhere(reason)))
        }
    }

    /// Tells a callback that a life which it began, or may have begun, is given up, for a reason of
    /// at most 512 bytes. Does nothing when its manifest does not name the hook. Otherwise as
    /// [`Self::spawn`].
    ///
    /// # Errors
    /// The callback failed itself: a sentence that begins with its name and version. What it was to
    /// undo may be there still.
    pub fn compensate(
        &self,
        job: CallbackJob,
        reason: String,
        port: Arc<dyn RecordsPort>,
    ) -> impl Future<Output = Result<(), String>> + Send + 'static {
        let runner = Arc::clone(&self.0);
        async move {
            let (module, deadline) = (job.module.clone(), job.deadline);
            let task = Compensation { job, reason };
            let done = runner.run(&module, &task, Port::Records(port), deadline);
            done.await.map(|_| ())
        }
    }

    /// Asks a callback about a process whose node was lost. [`Advice::Usual`] when its manifest does
    /// not name the hook. Otherwise as [`Self::spawn`].
    ///
    /// # Errors
    /// The callback failed itself: a sentence that begins with its name and version. The host does
    /// the usual.
    pub fn on_node_lost(
        &self,
        job: EndedJob,
        port: Arc<dyn RecordsPort>,
    ) -> impl Future<Output = Result<Advice, String>> + Send + 'static {
        self.advised(Hook::NodeLost, job, port)
    }

    /// Asks a callback about a process that has ended by itself. As [`Self::on_node_lost`].
    ///
    /// # Errors
    /// As there.
    pub fn on_exit(
        &self,
        job: EndedJob,
        port: Arc<dyn RecordsPort>,
    ) -> impl Future<Output = Result<Advice, String>> + Send + 'static {
        self.advised(Hook::Exit, job, port)
    }

    fn advised(
        &self,
        hook: Hook,
        job: EndedJob,
        port: Arc<dyn RecordsPort>,
    ) -> impl Future<Output = Result<Advice, String>> + Send + 'static {
        let runner = Arc::clone(&self.0);
        async move {
            let EndedJob {
                module,
                ended,
                deadline,
            } = job;
            let task = Question { hook, ended };
            let advice = runner.run(&module, &task, Port::Records(port), deadline);
            advice.await.map(|advice| advice.unwrap_or(Advice::Usual))
        }
    }

    /// What each callback has done.
    #[must_use]
    pub fn counters(&self) -> Vec<CallCounters> {
        self.0.counters()
    }
}

/// A callback that is linked.
#[derive(Clone)]
pub(crate) enum CallbackPre {
    Callback(CallbackModulePre<Guest>),
    Old(v0_1::CallbackModulePre<Guest>),
}

/// The exports of one instance.
pub(crate) enum Exports {
    Callback(CallbackModule),
    Old(v0_1::CallbackModule),
}

impl World for Exports {
    type Module = CallbackPre;

    const NAME: &'static str = "callback";
    const INSTANCES: &'static str = "callback_instances";

    fn module(loaded: &Loaded) -> Option<&CallbackPre> {
        match loaded {
            Loaded::Callback(module) => Some(module),
            Loaded::Selector(_) | Loaded::Fence(_) => None,
        }
    }

    fn instance_pre(module: &CallbackPre) -> &InstancePre<Guest> {
        match module {
            CallbackPre::Callback(module) => module.instance_pre(),
            CallbackPre::Old(module) => module.instance_pre(),
        }
    }

    fn exports(
        module: &CallbackPre,
        store: &mut Store<Guest>,
        instance: &component::Instance,
    ) -> wasmtime::Result<Self> {
        Ok(match module {
            CallbackPre::Callback(_) => Self::Callback(CallbackModule::new(store, instance)?),
            CallbackPre::Old(_) => Self::Old(v0_1::CallbackModule::new(store, instance)?),
        })
    }

    async fn describe(&self, store: &mut Store<Guest>) -> wasmtime::Result<Described> {
        let callback = match self {
            Self::Callback(callback) => callback.maitred_policy_callback(),
            Self::Old(callback) => {
                let (name, version) = v0_1::describe_callback(callback, store).await?;
                let hooks = Vec::new();
                return Ok(Described {
                    name,
                    version,
                    hooks,
                });
            }
        };
        let wit::Manifest {
            name,
            version,
            hooks,
        } = callback.call_describe(store).await?;
        Ok(Described {
            name,
            version,
            hooks: convert::hooks(&hooks),
        })
    }

    async fn validate(
        &self,
        store: &mut Store<Guest>,
        config: &str,
    ) -> wasmtime::Result<Result<(), String>> {
        match self {
            Self::Callback(callback) => {
                let callback = callback.maitred_policy_callback();
                callback.call_validate(store, config).await
            }
            Self::Old(_) => Ok(Ok(())),
        }
    }
}

fn budget(limits: &Limits, what: &'static str) -> Budget {
    Budget {
        what,
        ms: limits.spawn_ms,
        limit: "spawn_ms",
    }
}

impl Task<Exports> for CallbackJob {
    type Done = Started;
    type Refusal = SpawnFailure;

    fn budget(&self, limits: &Limits) -> Budget {
        budget(limits, "spawn")
    }

    async fn call(
        &self,
        exports: &Exports,
        _: &[Hook],
        store: &mut Store<Guest>,
    ) -> wasmtime::Result<Answer<Started, SpawnFailure>> {
        let answer = match exports {
            Exports::Old(callback) => {
                v0_1::spawn(callback, store, &self.request, &self.placement).await?
            }
            Exports::Callback(callback) => {
                let incarnation = self.placement.incarnation.0.to_string();
                let placement = placed(&self.placement, &incarnation);
                let request = convert::spawn_request(&self.request);
                let callback = callback.maitred_policy_callback();
                match callback.call_spawn(store, request, placement).await? {
                    Ok(node_wit::Started { pid, share }) => Ok(Started { pid, share }),
                    Err(wit::Failure::Elsewhere(reason)) => Err(SpawnFailure::Elsewhere(reason)),
                    Err(wit::Failure::GiveUp(reason)) => Err(SpawnFailure::GiveUp(reason)),
                }
            }
        };
        Ok(match answer {
            Ok(started) => checked(started),
            Err(SpawnFailure::Elsewhere(reason)) => {
                Answer::Refused(SpawnFailure::Elsewhere(cut(reason)))
            }
            Err(SpawnFailure::GiveUp(reason)) => Answer::Refused(SpawnFailure::GiveUp(cut(reason))),
        })
    }
}

fn placed<'a>(placement: &'a Placement, incarnation: &'a str) -> wit::Placement<'a> {
    wit::Placement {
        node: placement.node.as_str(),
        address: &placement.address,
        incarnation,
    }
}

/// A callback may make an answer up; it must fit the record.
fn checked(started: Started) -> Answer<Started, SpawnFailure> {
    let bounds = [
        ("pid", started.pid.len(), wire::PID_BYTES_MAX),
        ("share", started.share.len(), wire::SHARE_BYTES_MAX),
    ];
    match bounds.into_iter().find(|(_, got, most)| got > most) {
        None => Answer::Done(started),
        Some((what, got, most)) => Answer::OutOfBounds(format!(
            "answered a {what} of {got} bytes, of at most {most}"
        )),
    }
}

/// A life that is given up.
pub(crate) struct Compensation {
    pub(crate) job: CallbackJob,
    pub(crate) reason: String,
}

impl Task<Exports> for Compensation {
    type Done = ();
    type Refusal = ();

    fn budget(&self, limits: &Limits) -> Budget {
        budget(limits, "compensate")
    }

    async fn call(
        &self,
        exports: &Exports,
        hooks: &[Hook],
        store: &mut Store<Guest>,
    ) -> wasmtime::Result<Answer<(), ()>> {
        if let Exports::Callback(callback) = exports
            && hooks.contains(&Hook::Compensate)
        {
            let incarnation = self.job.placement.incarnation.0.to_string();
            let placement = placed(&self.job.placement, &incarnation);
            let request = convert::spawn_request(&self.job.request);
            let callback = callback.maitred_policy_callback();
            let done = callback.call_compensate(store, request, placement, &self.reason);
            done.await?;
        }
        Ok(Answer::Done(()))
    }
}

/// What to do about an end.
pub(crate) struct Question {
    pub(crate) hook: Hook,
    pub(crate) ended: Ended,
}

impl Task<Exports> for Question {
    type Done = Advice;
    type Refusal = ();

    fn budget(&self, limits: &Limits) -> Budget {
        let exit = self.hook == Hook::Exit;
        budget(limits, if exit { "on-exit" } else { "on-node-lost" })
    }

    async fn call(
        &self,
        exports: &Exports,
        hooks: &[Hook],
        store: &mut Store<Guest>,
    ) -> wasmtime::Result<Answer<Advice, ()>> {
        let callback = match exports {
            Exports::Callback(callback) if hooks.contains(&self.hook) => {
                callback.maitred_policy_callback()
            }
            _ => return Ok(Answer::Done(Advice::Usual)),
        };
        let incarnation = self.ended.incarnation.0.to_string();
        let ended = convert::ended(&self.ended, &incarnation);
        let advice = if self.hook == Hook::Exit {
            callback.call_on_exit(store, ended).await?
        } else {
            callback.call_on_node_lost(store, ended).await?
        };
        Ok(match convert::advice(advice) {
            Advice::BackOff(ms) if !BACK_OFF_MS.contains(&ms) => {
                let (least, most) = (BACK_OFF_MS.start(), BACK_OFF_MS.end());
                Answer::OutOfBounds(format!("advised to wait {ms} ms, of {least} to {most}"))
            }
            Advice::GiveUp(reason) => Answer::Done(Advice::GiveUp(cut(reason))),
            advice => Answer::Done(advice),
        })
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks")
            .field("free", &self.0.free())
            .finish_non_exhaustive()
    }
}

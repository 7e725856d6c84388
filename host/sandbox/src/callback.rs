//! Callbacks: what a spawn is, and what follows from a callback's answer. They run on fibers
//! (`fiber`), at most `limits.callback_instances` at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use maitred_protocol::{Incarnation, NodeName, ProcessKey, limits as wire};
use maitred_registry::decide::{ModuleRef, cut};
use wasmtime::Store;
use wasmtime::component::{self, InstancePre};

use crate::bindings::callback::CallbackModule;
use crate::bindings::callback::exports::maitred::policy::callback as wit;
use crate::bindings::callback::maitred::policy::node as node_wit;
use crate::convert;
use crate::fiber::{Answer, Runner, World};
use crate::guest::{Budget, Guest};
use crate::limits::Limits;
use crate::node::{NodePort, Port, Started};
use crate::sandbox::{Loaded, Sandbox};
use crate::shelf::CallCounters;

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
pub struct Callbacks(Arc<Runner<CallbackModule>>);

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

    /// What each callback has done.
    #[must_use]
    pub fn counters(&self) -> Vec<CallCounters> {
        self.0.counters()
    }
}

impl World for CallbackModule {
    type Job = CallbackJob;
    type Done = Started;
    type Refusal = SpawnFailure;

    const NAME: &'static str = "callback";
    const INSTANCES: &'static str = "callback_instances";

    fn module(loaded: &Loaded) -> Option<&InstancePre<Guest>> {
        match loaded {
            Loaded::Callback(pre) => Some(pre.instance_pre()),
            Loaded::Selector(_) | Loaded::Fence(_) => None,
        }
    }

    fn exports(store: &mut Store<Guest>, instance: &component::Instance) -> wasmtime::Result<Self> {
        Self::new(store, instance)
    }

    async fn describe(&self, store: &mut Store<Guest>) -> wasmtime::Result<(String, String)> {
        let callback = self.maitred_policy_callback();
        let wit::Manifest { name, version } = callback.call_describe(store).await?;
        Ok((name, version))
    }

    fn budget(limits: &Limits) -> Budget {
        Budget {
            what: "spawn",
            ms: limits.spawn_ms,
            limit: "spawn_ms",
        }
    }

    async fn call(
        &self,
        store: &mut Store<Guest>,
        job: &CallbackJob,
    ) -> wasmtime::Result<Answer<Self>> {
        let incarnation = job.placement.incarnation.0.to_string();
        let placement = wit::Placement {
            node: job.placement.node.as_str(),
            address: &job.placement.address,
            incarnation: &incarnation,
        };
        let request = convert::spawn_request(&job.request);
        let callback = self.maitred_policy_callback();
        Ok(
            match callback.call_spawn(store, request, placement).await? {
                Ok(started) => checked(started),
                Err(wit::Failure::Elsewhere(reason)) => {
                    Answer::Refused(SpawnFailure::Elsewhere(cut(reason)))
                }
                Err(wit::Failure::GiveUp(reason)) => {
                    Answer::Refused(SpawnFailure::GiveUp(cut(reason)))
                }
            },
        )
    }
}

/// A callback may make an answer up; it must fit the record.
fn checked(started: node_wit::Started) -> Answer<CallbackModule> {
    let bounds = [
        ("pid", started.pid.len(), wire::PID_BYTES_MAX),
        ("share", started.share.len(), wire::SHARE_BYTES_MAX),
    ];
    match bounds.into_iter().find(|(_, got, most)| got > most) {
        None => Answer::Done(Started {
            pid: started.pid,
            share: started.share,
        }),
        Some((what, got, most)) => Answer::OutOfBounds(format!(
            "answered a {what} of {got} bytes, of at most {most}"
        )),
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks")
            .field("free", &self.0.free())
            .finish_non_exhaustive()
    }
}

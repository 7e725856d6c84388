//! Fences: what an examination is, and which answers count. They run on fibers (`fiber`), at most
//! `limits.fence_instances` at a time.
//!
//! What holds: a fence that fails in any way proves nothing. It must not know what a host does with
//! a verdict, nor when it asks again.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use maitred_protocol::limits::REASON_BYTES_MAX;
use maitred_protocol::{Hook, NodeEpoch, NodeName};
use maitred_registry::decide::{ModuleRef, cut};
use wasmtime::Store;
use wasmtime::component::{self, InstancePre};

use crate::bindings::fence::exports::maitred::policy::fence as wit;
use crate::bindings::fence::{FenceModule, FenceModulePre};
use crate::convert;
use crate::fiber::{Answer, Described, Runner, Task, World, titled};
use crate::guest::{Budget, Guest};
use crate::limits::{Limits, RETRY_MS};
use crate::node::{Port, RecordsPort};
use crate::sandbox::{Loaded, Sandbox};
use crate::shelf::CallCounters;
use crate::v0_1;

/// A node whose lease has run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostNode {
    /// Its name.
    pub node: NodeName,
    /// This life of the node.
    pub epoch: NodeEpoch,
    /// Where it could be reached.
    pub address: String,
    /// Keys and values, as it registered itself.
    pub labels: Vec<(String, String)>,
    /// Milliseconds since its lease ran out.
    pub lost_for_ms: u32,
    /// 1 for the first question about this life of the node.
    pub attempt: u32,
    /// The source of chance.
    pub seed: u32,
    /// Seconds since 1970.
    pub time_s: u32,
}

/// A node to be examined.
#[derive(Debug, Clone)]
pub struct FenceJob {
    /// By which fence.
    pub module: ModuleRef,
    /// Which node.
    pub lost: LostNode,
    /// Until when it may look records up, and wait for an instance.
    pub deadline: Instant,
}

/// What a fence found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The node is dead. The proof in the fence's words, at most 512 bytes.
    Dead(String),
    /// It lives, or nobody can tell.
    AliveOrUnknown {
        /// Milliseconds after which to ask again, 100 to 60,000.
        retry_ms: u32,
    },
}

/// Runs fences. Clones share the instances.
#[derive(Clone)]
pub struct Fences(Arc<Runner<Exports>>);

impl Fences {
    /// Fences over the modules of a sandbox.
    #[must_use]
    pub fn new(sandbox: Arc<Sandbox>) -> Self {
        let instances = sandbox.limits.fence_instances;
        Self(Arc::new(Runner::new(sandbox, instances)))
    }

    /// Asks a fence whether a node is dead. Needs a tokio runtime with time. Dropping the future
    /// abandons the call.
    ///
    /// # Errors
    /// There is no verdict, so that nothing is known and the host asks again later: the fence
    /// trapped, computed too long, answered an error or out of bounds, or could not be had. Begins
    /// with its name and version; at most 512 bytes.
    pub fn examine(
        &self,
        job: FenceJob,
        port: Arc<dyn RecordsPort>,
    ) -> impl Future<Output = Result<Verdict, String>> + Send + 'static {
        let runner = Arc::clone(&self.0);
        async move {
            let port = Port::Records(port);
            let answer = runner
                .run(&job.module, &job.lost, port, job.deadline)
                .await?;
            answer.map_err(|text| {
                let fence = titled::<Exports>(&job.module);
                cut(format!("{fence} answered an error: {text}"))
            })
        }
    }

    /// What each fence has done.
    #[must_use]
    pub fn counters(&self) -> Vec<CallCounters> {
        self.0.counters()
    }
}

/// A fence that is linked.
#[derive(Clone)]
pub(crate) enum FencePre {
    Fence(FenceModulePre<Guest>),
    Old(v0_1::FenceModulePre<Guest>),
}

/// The exports of one instance.
pub(crate) enum Exports {
    Fence(FenceModule),
    Old(v0_1::FenceModule),
}

impl World for Exports {
    type Module = FencePre;

    const NAME: &'static str = "fence";
    const INSTANCES: &'static str = "fence_instances";

    fn module(loaded: &Loaded) -> Option<&FencePre> {
        match loaded {
            Loaded::Fence(module) => Some(module),
            Loaded::Selector(_) | Loaded::Callback(_) => None,
        }
    }

    fn instance_pre(module: &FencePre) -> &InstancePre<Guest> {
        match module {
            FencePre::Fence(module) => module.instance_pre(),
            FencePre::Old(module) => module.instance_pre(),
        }
    }

    fn exports(
        module: &FencePre,
        store: &mut Store<Guest>,
        instance: &component::Instance,
    ) -> wasmtime::Result<Self> {
        Ok(match module {
            FencePre::Fence(_) => Self::Fence(FenceModule::new(store, instance)?),
            FencePre::Old(_) => Self::Old(v0_1::FenceModule::new(store, instance)?),
        })
    }

    async fn describe(&self, store: &mut Store<Guest>) -> wasmtime::Result<Described> {
        let (name, version) = match self {
            Self::Old(fence) => v0_1::describe_fence(fence, store).await?,
            Self::Fence(fence) => {
                let described = fence.maitred_policy_fence().call_describe(store);
                let wit::Manifest { name, version } = described.await?;
                (name, version)
            }
        };
        Ok(Described {
            name,
            version,
            hooks: Vec::new(),
        })
    }

    async fn validate(
        &self,
        store: &mut Store<Guest>,
        config: &str,
    ) -> wasmtime::Result<Result<(), String>> {
        match self {
            Self::Fence(fence) => {
                let fence = fence.maitred_policy_fence();
                fence.call_validate(store, config).await
            }
            Self::Old(_) => Ok(Ok(())),
        }
    }
}

impl Task<Exports> for LostNode {
    type Done = Verdict;
    type Refusal = String;

    fn budget(&self, limits: &Limits) -> Budget {
        Budget {
            what: "examine",
            ms: limits.examine_ms,
            limit: "examine_ms",
        }
    }

    async fn call(
        &self,
        exports: &Exports,
        _: &[Hook],
        store: &mut Store<Guest>,
    ) -> wasmtime::Result<Answer<Verdict, String>> {
        let answer = match exports {
            Exports::Old(fence) => v0_1::examine(fence, store, self).await?,
            Exports::Fence(fence) => {
                let epoch = self.epoch.0.to_string();
                let labels = convert::labels(&self.labels);
                let lost = convert::lost_node(self, &epoch, &labels);
                let answer = fence.maitred_policy_fence().call_examine(store, lost);
                answer.await?.map(convert::verdict)
            }
        };
        Ok(answer.map_or_else(|text| Answer::Refused(cut(text)), checked))
    }
}

/// What is out of bounds is not believed.
fn checked(verdict: Verdict) -> Answer<Verdict, String> {
    match verdict {
        Verdict::Dead(proof) if proof.len() > REASON_BYTES_MAX => Answer::OutOfBounds(format!(
            "answered a proof of {} bytes, of at most {REASON_BYTES_MAX}",
            proof.len()
        )),
        Verdict::AliveOrUnknown { retry_ms } if !RETRY_MS.contains(&retry_ms) => {
            let (least, most) = (RETRY_MS.start(), RETRY_MS.end());
            Answer::OutOfBounds(format!(
                "asked to be asked again in {retry_ms} ms, of {least} to {most}"
            ))
        }
        verdict => Answer::Done(verdict),
    }
}

impl fmt::Debug for Fences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fences")
            .field("free", &self.0.free())
            .finish_non_exhaustive()
    }
}

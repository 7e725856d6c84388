//! Carries out spawns: runs the callback, which commands the node through a port of its own.
//!
//! One run a life (`runs`). A job for a life that is under way replaces it, and begins when that has ended;
//! a stop ends it. What comes after a life that was starting is [`crate::advice_runner`]'s.
//! When the standard callback `start` cannot be had, its work is done natively, since it only passes
//! the arguments on; any other callback that is missing ends the create with the reason, because
//! nobody knows what it would have done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use maitred_protocol::limits::{PID_BYTES_MAX, SHARE_BYTES_MAX};
use maitred_protocol::{
    Incarnation, NodeAnswer, NodeCommand, NodeName, ProcessKey, ProcessState, Request, Response,
};
use maitred_registry::Spec;
use maitred_registry::decide::cut;
use maitred_replica::{Compensation, Input, Question, SpawnJob, Spawned};
use maitred_sandbox::{
    BoxFuture, CallbackJob, Callbacks, NodeFailure, NodePort, Placement, Process, SpawnFailure,
    SpawnRequest, Started,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::advice_runner::{self, Hooks};
use crate::clock;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::module_service::Modules;
use crate::nodes::Nodes;
use crate::router::Router;
use crate::runs::{Runs, Said};

/// The callback that passes arguments on and does nothing else.
const START: &str = "start";

/// What a spawn needs of the host. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) router: Arc<Router>,
    nodes: Arc<Nodes>,
    pub(crate) modules: Arc<Modules>,
    pub(crate) callbacks: Callbacks,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hooks: Arc<Hooks>,
}

/// Runs spawns on a tokio runtime.
pub(crate) struct Runner {
    parts: Parts,
    runtime: Handle,
    runs: Arc<Runs>,
}

impl Runner {
    /// Runs spawns on the current runtime.
    pub(crate) fn new(
        inbox: &Arc<Inbox>,
        router: &Arc<Router>,
        nodes: &Arc<Nodes>,
        modules: &Arc<Modules>,
        callbacks: Callbacks,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            parts: Parts {
                inbox: Arc::clone(inbox),
                router: Arc::clone(router),
                nodes: Arc::clone(nodes),
                modules: Arc::clone(modules),
                callbacks,
                metrics: Arc::clone(metrics),
                hooks: Arc::default(),
            },
            runtime: Handle::current(),
            runs: Arc::default(),
        }
    }

    /// Begins a spawn. `number` grows with every call, and tells runs of a life apart.
    pub(crate) fn spawn(&self, number: u64, job: SpawnJob) {
        Metrics::count(&self.parts.metrics.spawns);
        let life = (job.key.clone(), job.incarnation);
        let (parts, tells) = (self.parts.clone(), self.parts.clone());
        self.runs.begin(
            &self.runtime,
            (life, number),
            move |said| async move { carry_out(&parts, job, &said).await },
            move |(key, incarnation), result, over| {
                if matches!(result, Spawned::Started { .. }) {
                    Metrics::count(&tells.metrics.spawns_started);
                }
                tells.inbox.push(Input::Spawned {
                    key,
                    incarnation,
                    result,
                    over,
                });
            },
        );
    }

    /// Gives up a spawn that is under way, if there is one.
    pub(crate) fn stop(&self, key: &ProcessKey, incarnation: Incarnation) {
        self.runs.give_up(&(key.clone(), incarnation));
    }

    /// Gives up all of them: this host leads no more, or ends.
    pub(crate) fn stop_all(&self) {
        self.runs.give_up_all();
    }

    /// Asks a callback what becomes of a process.
    pub(crate) fn advise(&self, question: Question) {
        self.runtime
            .spawn(advice_runner::advise(self.parts.clone(), question));
    }

    /// Has a life compensated; a spawn of it that is under way is given up, and has ended before.
    pub(crate) fn compensate(&self, compensation: Compensation) {
        let life = (compensation.key.clone(), compensation.incarnation);
        let turn = self.runs.after(&life);
        let parts = self.parts.clone();
        self.runtime
            .spawn(advice_runner::compensate(parts, compensation, turn));
    }
}

async fn carry_out(parts: &Parts, job: SpawnJob, said: &Arc<Said>) -> Spawned {
    let within = Duration::from_millis(u64::from(job.within_ms));
    let deadline = Instant::now() + within;
    let module = match &job.callback {
        Ok(module) => {
            match tokio::time::timeout(within, parts.modules.ready(module.digest)).await {
                Ok(Ok(())) => Ok(module.clone()),
                Ok(Err(why)) => Err(why),
                Err(_) => Err("it was not ready in time".to_owned()),
            }
        }
        Err(why) => Err(why.clone()),
    };
    let name = job.spec.callback.clone();
    let args = job.spec.args.to_vec();
    let ready = module.map(|module| callback_job(&job, module, deadline));
    let port = Port {
        parts: parts.clone(),
        job,
        said: Arc::clone(said),
    };
    match ready {
        Ok(callback) => {
            let spawned = parts.callbacks.spawn(callback, Arc::new(port)).await;
            match spawned {
                Ok(_) if said.stop_sent.load(Ordering::Relaxed) => {
                    let why = "its callback had it stopped, and answered that it runs";
                    Spawned::Elsewhere(why.to_owned())
                }
                Ok(Started { pid, share }) => Spawned::Started { pid, share },
                Err(SpawnFailure::Elsewhere(why)) => Spawned::Elsewhere(cut(why)),
                Err(SpawnFailure::GiveUp(why)) => Spawned::GiveUp(cut(why)),
            }
        }
        Err(_) if name.as_str() == START => match port.command(args, within, 1).await {
            Ok(Started { pid, share }) => Spawned::Started { pid, share },
            Err(NodeFailure::Busy(why) | NodeFailure::Failed(why) | NodeFailure::NoAnswer(why)) => {
                Spawned::Elsewhere(cut(why))
            }
        },
        Err(why) => Spawned::GiveUp(cut(format!("the callback {name} is not available: {why}"))),
    }
}

/// Where it ran before, if it did: its first failure is the end of that life.
fn previous(spec: &Spec) -> Option<NodeName> {
    let ended = spec.failures.first().filter(|_| spec.confirmed);
    ended.map(|ended| ended.node.clone())
}

fn callback_job(
    job: &SpawnJob,
    module: maitred_registry::decide::ModuleRef,
    deadline: Instant,
) -> CallbackJob {
    let options = &job.spec.options;
    CallbackJob {
        module,
        request: SpawnRequest {
            key: job.key.clone(),
            args: job.spec.args.to_vec(),
            group: options.group.clone(),
            requester: options.requester.clone(),
            previous: previous(&job.spec),
            demand: options.demand,
            priority: options.priority,
            attempt: job.attempt,
            seed: job.seed,
            time_s: u32::try_from(clock::wall_ms() / 1_000).unwrap_or(u32::MAX),
        },
        placement: Placement {
            node: job.node.name.clone(),
            address: job.node.address.clone(),
            incarnation: job.incarnation,
        },
        deadline,
    }
}

/// A callback's way to its node, and to what is registered.
struct Port {
    parts: Parts,
    job: SpawnJob,
    said: Arc<Said>,
}

impl Port {
    async fn command(
        &self,
        payload: Vec<u8>,
        within: Duration,
        try_number: u32,
    ) -> Result<Started, NodeFailure> {
        let job = &self.job;
        if try_number > 1 {
            Metrics::count(&self.parts.metrics.starts_again);
        }
        let start = NodeCommand::Start {
            term: job.term,
            key: job.key.clone(),
            incarnation: job.incarnation,
            payload,
            deadline_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
            try_number,
        };
        let node = (&job.node.name, job.node.epoch);
        self.said.sent.fetch_add(1, Ordering::Relaxed);
        let Some(mut command) = self.parts.nodes.start(node, start, within) else {
            return Err(NodeFailure::Busy(
                "too many commands wait for the node".to_owned(),
            ));
        };
        let answer = answer_within(&mut command.answer, within).await?;
        self.said.answered(&answer);
        started(answer)
    }

    async fn undo(&self, within: Duration) -> Result<(), NodeFailure> {
        let job = &self.job;
        let node = (&job.node.name, job.node.epoch);
        self.said.stop_sent.store(true, Ordering::Relaxed);
        let life = (job.key.clone(), job.incarnation);
        let Some(mut answer) = self.parts.nodes.stop_and_tell(node, job.term, life) else {
            let why = "too many wait for the node to stop it".to_owned();
            return Err(NodeFailure::Busy(why));
        };
        answer_within(&mut answer, within).await?;
        self.said.stopped.store(true, Ordering::Relaxed);
        Ok(())
    }
}

async fn answer_within(
    answer: &mut oneshot::Receiver<NodeAnswer>,
    within: Duration,
) -> Result<NodeAnswer, NodeFailure> {
    let why = match tokio::time::timeout(within, answer).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(_)) => "the node's session has ended".to_owned(),
        Err(_) => format!("the node did not answer within {} ms", within.as_millis()),
    };
    Err(NodeFailure::NoAnswer(why))
}

/// Looks up what is registered, as this host has it.
pub(crate) async fn find(router: &Router, key: ProcessKey) -> Option<Process> {
    let request = Request::GetProcess { key, stale: true };
    match router.request(0, request).await.into_response() {
        Response::Process { record, .. } => Some(Process {
            node: record.node.to_string(),
            address: record.address,
            pid: record.pid,
            share: record.share,
            incarnation: record.incarnation,
            running: record.state == ProcessState::Running,
        }),
        _ => None,
    }
}

/// What a node says is bounded like everything else that comes from outside.
fn started(answer: NodeAnswer) -> Result<Started, NodeFailure> {
    match answer {
        NodeAnswer::Started { pid, share } => {
            if pid.is_empty() || pid.len() > PID_BYTES_MAX || share.len() > SHARE_BYTES_MAX {
                let why = "the node answered with a pid or share out of bounds (1 to 256 bytes; at most 4,096 bytes)";
                return Err(NodeFailure::Failed(why.to_owned()));
            }
            Ok(Started { pid, share })
        }
        NodeAnswer::Busy(why) => Err(NodeFailure::Busy(cut(why))),
        NodeAnswer::Failed(why) => Err(NodeFailure::Failed(cut(why))),
        NodeAnswer::Fenced => {
            let why = "the node has seen a newer life of the process, a tombstone of this one, or a newer leader";
            Err(NodeFailure::Failed(why.to_owned()))
        }
        NodeAnswer::Stopped => Err(NodeFailure::Failed(
            "the node says that it stopped it".to_owned(),
        )),
    }
}

impl NodePort for Port {
    fn start(
        &self,
        payload: Vec<u8>,
        within: Duration,
        attempt: u32,
    ) -> BoxFuture<'_, Result<Started, NodeFailure>> {
        Box::pin(self.command(payload, within, attempt))
    }

    fn stop(&self, within: Duration) -> BoxFuture<'_, Result<(), NodeFailure>> {
        Box::pin(self.undo(within))
    }

    fn lookup(&self, key: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        Box::pin(find(&self.parts.router, key))
    }
}

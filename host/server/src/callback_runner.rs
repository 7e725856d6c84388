//! Carries out spawns: runs the callback, which commands the node through a port of its own.
//!
//! One task an incarnation. A job for an incarnation that is under way replaces it; a stop ends it.
//! When the standard callback `start` cannot be had, its work is done natively, since it only passes
//! the arguments on; any other callback that is missing ends the create with the reason, because
//! nobody knows what it would have done.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use maitred_protocol::limits::{PID_BYTES_MAX, SHARE_BYTES_MAX};
use maitred_protocol::{
    Incarnation, NodeAnswer, NodeCommand, ProcessKey, ProcessState, Request, Response,
};
use maitred_registry::decide::cut;
use maitred_replica::{Input, SpawnJob, Spawned};
use maitred_sandbox::{
    BoxFuture, CallbackJob, Callbacks, NodeFailure, NodePort, Placement, Process, SpawnFailure,
    SpawnRequest, Started,
};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::clock;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::module_service::Modules;
use crate::nodes::Nodes;
use crate::router::Router;

/// The callback that passes arguments on and does nothing else.
const START: &str = "start";

type Running = Arc<Mutex<HashMap<Incarnation, (u64, AbortHandle)>>>;

/// What a spawn needs of the host. Cheap to clone.
#[derive(Clone)]
struct Parts {
    inbox: Arc<Inbox>,
    router: Arc<Router>,
    nodes: Arc<Nodes>,
    modules: Arc<Modules>,
    callbacks: Callbacks,
    metrics: Arc<Metrics>,
}

/// Runs spawns on a tokio runtime.
pub(crate) struct Runner {
    parts: Parts,
    runtime: Handle,
    running: Running,
}

fn lock(running: &Running) -> MutexGuard<'_, HashMap<Incarnation, (u64, AbortHandle)>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
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
            },
            runtime: Handle::current(),
            running: Running::default(),
        }
    }

    /// Begins a spawn. `run` grows with every call, and tells runs of an incarnation apart.
    pub(crate) fn spawn(&self, run: u64, job: SpawnJob) {
        Metrics::count(&self.parts.metrics.spawns);
        let incarnation = job.incarnation;
        let parts = self.parts.clone();
        let running = Arc::clone(&self.running);
        // Held until the entry is made, so that a run which ends at once finds its own.
        let mut entries = lock(&self.running);
        let task = self.runtime.spawn(async move {
            let key = job.key.clone();
            let said = Arc::new(Said::default());
            let result = carry_out(&parts, job, &said).await;
            let mut entries = lock(&running);
            let current = entries.get(&incarnation).map(|(number, _)| *number);
            if current != Some(run) {
                // Given up, or replaced, just now: what this one has heard is not the last word.
                return;
            }
            entries.remove(&incarnation);
            drop(entries);
            if matches!(result, Spawned::Started { .. }) {
                Metrics::count(&parts.metrics.spawns_started);
            }
            parts.inbox.push(Input::Spawned {
                key,
                incarnation,
                result,
                over: said.is_over(),
            });
        });
        if let Some((_, replaced)) = entries.insert(incarnation, (run, task.abort_handle())) {
            replaced.abort();
        }
    }

    /// Gives up a spawn that is under way, if there is one.
    pub(crate) fn stop(&self, incarnation: Incarnation) {
        if let Some((_, task)) = lock(&self.running).remove(&incarnation) {
            task.abort();
        }
    }

    /// Gives up all of them: the host ends.
    pub(crate) fn stop_all(&self) {
        for (_, (_, task)) in lock(&self.running).drain() {
            task.abort();
        }
    }
}

/// What the node has said in one run to the starts that it was sent.
#[derive(Debug, Default)]
struct Said {
    sent: AtomicU32,
    /// Answers that the life does not run.
    refused: AtomicU32,
}

impl Said {
    /// Whether the node has said of every start that it did not do it: only then is it known that
    /// nothing runs, and that nothing is on its way. A run that sent none knows nothing of those
    /// before it.
    fn is_over(&self) -> bool {
        let sent = self.sent.load(Ordering::Relaxed);
        sent > 0 && self.refused.load(Ordering::Relaxed) == sent
    }

    fn answered(&self, answer: &NodeAnswer) {
        let refused = matches!(
            answer,
            NodeAnswer::Busy(_) | NodeAnswer::Failed(_) | NodeAnswer::Stopped
        );
        if refused {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
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
                Ok(Started { pid, share }) => Spawned::Started { pid, share },
                Err(SpawnFailure::Elsewhere(why)) => Spawned::Elsewhere(cut(why)),
                Err(SpawnFailure::GiveUp(why)) => Spawned::GiveUp(cut(why)),
            }
        }
        Err(_) if name.as_str() == START => match port.command(args, within).await {
            Ok(Started { pid, share }) => Spawned::Started { pid, share },
            Err(NodeFailure::Busy(why) | NodeFailure::Failed(why) | NodeFailure::NoAnswer(why)) => {
                Spawned::Elsewhere(cut(why))
            }
        },
        Err(why) => Spawned::GiveUp(cut(format!("the callback {name} is not available: {why}"))),
    }
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
    async fn command(&self, payload: Vec<u8>, within: Duration) -> Result<Started, NodeFailure> {
        let job = &self.job;
        let start = NodeCommand::Start {
            term: job.term,
            key: job.key.clone(),
            incarnation: job.incarnation,
            payload,
            deadline_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
        };
        let node = (&job.node.name, job.node.epoch);
        self.said.sent.fetch_add(1, Ordering::Relaxed);
        let Some(mut command) = self.parts.nodes.start(node, start, within) else {
            return Err(NodeFailure::Busy(
                "too many commands wait for the node".to_owned(),
            ));
        };
        match tokio::time::timeout(within, &mut command.answer).await {
            Ok(Ok(answer)) => {
                self.said.answered(&answer);
                started(answer)
            }
            Ok(Err(_)) => Err(NodeFailure::NoAnswer(
                "the node's session has ended".to_owned(),
            )),
            Err(_) => {
                let millis = within.as_millis();
                Err(NodeFailure::NoAnswer(format!(
                    "the node did not answer within {millis} ms"
                )))
            }
        }
    }
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
    ) -> BoxFuture<'_, Result<Started, NodeFailure>> {
        Box::pin(self.command(payload, within))
    }

    fn lookup(&self, key: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        Box::pin(find(&self.parts.router, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_has_refused_every_start_has_said_that_nothing_runs() {
        let busy = || NodeAnswer::Busy(String::new());
        let failed = || NodeAnswer::Failed(String::new());
        let started = || NodeAnswer::Started {
            pid: "1".to_owned(),
            share: Vec::new(),
        };
        // The answer to each start; none when it did not come.
        for (answers, over) in [
            (vec![], false),
            (vec![None], false),
            (vec![Some(busy())], true),
            (vec![Some(failed())], true),
            (vec![Some(NodeAnswer::Stopped)], true),
            (vec![Some(NodeAnswer::Fenced)], false),
            (vec![Some(started())], false),
            (vec![Some(busy()), Some(failed())], true),
            (vec![Some(busy()), Some(started())], false),
            (vec![Some(busy()), None], false),
            (vec![None, Some(failed())], false),
        ] {
            let said = Said::default();
            for answer in &answers {
                said.sent.fetch_add(1, Ordering::Relaxed);
                if let Some(answer) = answer {
                    said.answered(answer);
                }
            }
            assert_eq!(said.is_over(), over, "{answers:?}");
        }
    }
}

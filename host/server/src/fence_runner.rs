//! Asks fence modules whether lost nodes are dead.
//!
//! One task an examination, for as long as that may take. Whatever goes wrong proves nothing: the
//! replica is told that it failed, and asks again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use maitred_protocol::{ModuleName, NodeEpoch, ProcessKey};
use maitred_replica::{Examination, Input, Verdict};
use maitred_sandbox::{BoxFuture, FenceJob, Fences, LostNode, Process, RecordsPort};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::callback_runner::find;
use crate::clock;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::module_service::Modules;
use crate::router::Router;

/// The shortest time between two warnings of the same fence.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// Fences that are remembered to have been warned of; beyond it all are forgotten.
const WARNED_MAX: usize = 256;

#[derive(Debug, Default)]
struct State {
    /// By session and fence: several types of a node may have fences of their own.
    running: HashMap<(NodeEpoch, ModuleName), (u64, AbortHandle)>,
    last: u64,
    warned: HashMap<ModuleName, Instant>,
}

/// What an examination needs of the host. Cheap to clone.
#[derive(Clone)]
struct Parts {
    inbox: Arc<Inbox>,
    router: Arc<Router>,
    modules: Arc<Modules>,
    metrics: Arc<Metrics>,
    fences: Fences,
    state: Arc<Mutex<State>>,
}

/// Runs examinations on a tokio runtime.
pub(crate) struct Examiner {
    parts: Parts,
    runtime: Handle,
}

impl Examiner {
    /// Runs examinations on the current runtime.
    pub(crate) fn new(
        inbox: &Arc<Inbox>,
        router: &Arc<Router>,
        modules: &Arc<Modules>,
        fences: Fences,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            parts: Parts {
                inbox: Arc::clone(inbox),
                router: Arc::clone(router),
                modules: Arc::clone(modules),
                metrics: Arc::clone(metrics),
                fences,
                state: Arc::default(),
            },
            runtime: Handle::current(),
        }
    }

    /// Begins an examination; one of the same session by the same fence is given up.
    pub(crate) fn examine(&self, examination: Examination) {
        Metrics::count(&self.parts.metrics.examinations);
        let subject = (examination.epoch, examination.fence.clone());
        let parts = self.parts.clone();
        // Held until the entry is made, so that one which ends at once finds its own.
        let mut state = self.parts.lock();
        state.last += 1;
        let number = state.last;
        let of = subject.clone();
        let task = self.runtime.spawn(async move {
            let verdict = parts.verdict(examination).await;
            let mut state = parts.lock();
            let current = state.running.get(&of).map(|(number, _)| *number);
            if current != Some(number) {
                return; // Given up, or replaced, just now.
            }
            state.running.remove(&of);
            drop(state);
            let (epoch, fence) = of;
            parts.inbox.push(Input::Examined {
                epoch,
                fence,
                verdict,
            });
        });
        let replaced = state.running.insert(subject, (number, task.abort_handle()));
        if let Some((_, replaced)) = replaced {
            replaced.abort();
        }
    }

    /// Gives up all of them: this host leads no more, or ends.
    pub(crate) fn stop_all(&self) {
        for (_, (_, task)) in self.parts.lock().running.drain() {
            task.abort();
        }
    }
}

impl Parts {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn verdict(&self, examination: Examination) -> Verdict {
        let (node, epoch) = (examination.name.clone(), examination.epoch);
        let fence = examination.fence.clone();
        match self.ask(examination).await {
            Ok(maitred_sandbox::Verdict::Dead(proof)) => {
                tracing::info!(%node, %epoch, %fence, proof, "a fence says that a lost node is dead");
                Verdict::Dead(proof)
            }
            Ok(maitred_sandbox::Verdict::AliveOrUnknown { retry_ms }) => {
                Verdict::Unknown { again_ms: retry_ms }
            }
            Err(why) => {
                Metrics::count(&self.metrics.examinations_failed);
                if self.is_to_be_warned_of(&fence) {
                    tracing::warn!(%node, %epoch, %fence, %why, "a fence has no verdict on a lost node; asked again later");
                }
                Verdict::Failed
            }
        }
    }

    async fn ask(&self, examination: Examination) -> Result<maitred_sandbox::Verdict, String> {
        let within = Duration::from_millis(u64::from(examination.within_ms));
        let deadline = Instant::now() + within;
        let asked = async {
            let module = examination.module?;
            self.modules.ready(module.digest).await?;
            let job = FenceJob {
                module,
                lost: LostNode {
                    node: examination.name,
                    epoch: examination.epoch,
                    address: examination.address,
                    labels: examination.labels,
                    lost_for_ms: examination.lost_for_ms,
                    attempt: examination.attempt,
                    seed: examination.seed,
                    time_s: u32::try_from(clock::wall_ms() / 1_000).unwrap_or(u32::MAX),
                },
                deadline,
            };
            let port = Port(Arc::clone(&self.router));
            self.fences.examine(job, Arc::new(port)).await
        };
        match tokio::time::timeout(within, asked).await {
            Ok(verdict) => verdict,
            Err(_) => Err(format!("no verdict within {} ms", within.as_millis())),
        }
    }

    fn is_to_be_warned_of(&self, fence: &ModuleName) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        let warned = state.warned.get(fence);
        if warned.is_some_and(|at| now.duration_since(*at) < WARN_EVERY) {
            return false;
        }
        if state.warned.len() >= WARNED_MAX {
            state.warned.clear();
        }
        state.warned.insert(fence.clone(), now);
        true
    }
}

/// A fence's way to what is registered.
struct Port(Arc<Router>);

impl RecordsPort for Port {
    fn lookup(&self, key: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        Box::pin(find(&self.0, key))
    }
}

//! Runs the hooks of callbacks: asks what becomes of processes whose lives have ended, and has lives
//! compensated that are given up.
//!
//! A question is always answered, within its time; whatever goes wrong advises nothing. A compensation
//! is called until the callback has taken it, with longer and longer pauses; it does not end with the
//! leadership of this host, since the life is over whoever leads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::by_name::ByName;
use crate::callback_runner::{Parts, find};
use crate::clock;
use crate::metrics::Metrics;
use crate::router::Router;
use crate::runs::Turn;
use maitred_protocol::{ModuleName, ProcessKey};
use maitred_registry::EndedBy;
use maitred_replica::{Advice, Compensation, Input, Question};
use maitred_sandbox::{
    BoxFuture, CallbackJob, Ended, EndedJob, Placement, Process, RecordsPort, SpawnRequest,
};

/// Compensations of one callback that run at one time; its spawns and questions need it, too.
const COMPENSATIONS: usize = 32;
/// Compensations that run or wait; beyond it they are dropped, and that is counted and said.
const COMPENSATIONS_MAX: usize = 65_536;
/// Time for one call of a compensation, that included in which the callback gets ready.
const COMPENSATE_WITHIN: Duration = Duration::from_secs(10);
/// How often one is called that fails, and the first pause, which then doubles.
const COMPENSATE_TRIES: u32 = 6;
const COMPENSATE_PAUSE: Duration = Duration::from_secs(1);
/// The shortest time between two warnings of the same callback.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// Callbacks that are remembered to have been warned of; beyond it all are forgotten.
const WARNED_MAX: usize = 256;

/// What hooks share.
#[derive(Debug)]
pub(crate) struct Hooks {
    compensating: ByName,
    compensations: AtomicUsize,
    warned: Mutex<HashMap<ModuleName, Instant>>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            compensating: ByName::new(COMPENSATIONS),
            compensations: AtomicUsize::new(0),
            warned: Mutex::default(),
        }
    }
}

impl Hooks {
    fn is_to_be_warned_of(&self, callback: &ModuleName) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let last = warned.get(callback);
        if last.is_some_and(|at| now.duration_since(*at) < WARN_EVERY) {
            return false;
        }
        if warned.len() >= WARNED_MAX {
            warned.clear();
        }
        warned.insert(callback.clone(), now);
        true
    }
}

/// A hook's way to what is registered.
struct Port(Arc<Router>);

impl RecordsPort for Port {
    fn lookup(&self, key: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        Box::pin(find(&self.0, key))
    }
}

fn time_s() -> u32 {
    u32::try_from(clock::wall_ms() / 1_000).unwrap_or(u32::MAX)
}

/// Asks a callback, and tells the replica what it advises.
pub(crate) async fn advise(parts: Parts, question: Question) {
    Metrics::count(&parts.metrics.advice);
    let (key, incarnation) = (question.key.clone(), question.incarnation);
    let callback = question.callback.name.clone();
    let within = Duration::from_millis(u64::from(question.within_ms));
    let advice = match tokio::time::timeout(within, ask(&parts, question, within)).await {
        Ok(advice) => advice,
        Err(_) => Err(format!("no answer within {} ms", within.as_millis())),
    };
    let advice = match advice {
        Ok(maitred_sandbox::Advice::Usual) => Advice::Usual,
        Ok(maitred_sandbox::Advice::Here) => Advice::Here,
        Ok(maitred_sandbox::Advice::Elsewhere) => Advice::Elsewhere,
        Ok(maitred_sandbox::Advice::BackOff(ms)) => Advice::BackOff(ms),
        Ok(maitred_sandbox::Advice::GiveUp(reason)) => {
            Metrics::count(&parts.metrics.advice_given_up);
            tracing::info!(%key, %incarnation, %callback, reason, "a callback gives a process up whose life has ended");
            Advice::GiveUp
        }
        Err(why) => {
            Metrics::count(&parts.metrics.advice_failed);
            if parts.hooks.is_to_be_warned_of(&callback) {
                tracing::warn!(%key, %incarnation, %callback, %why, "a callback advises nothing on a process whose life has ended; the usual is done");
            }
            Advice::Usual
        }
    };
    parts.inbox.push(Input::Advised {
        key,
        incarnation,
        advice,
    });
}

async fn ask(
    parts: &Parts,
    question: Question,
    within: Duration,
) -> Result<maitred_sandbox::Advice, String> {
    let deadline = Instant::now() + within;
    parts.modules.ready(question.callback.digest).await?;
    let port = Arc::new(Port(Arc::clone(&parts.router)));
    let job = EndedJob {
        module: question.callback,
        ended: Ended {
            key: question.key,
            group: question.group,
            node: question.node,
            incarnation: question.incarnation,
            reason: question.reason,
            times: question.times,
            lasted_ms: question.lasted_ms,
            seed: question.seed,
            time_s: time_s(),
        },
        deadline,
    };
    match question.by {
        EndedBy::Exit => parts.callbacks.on_exit(job, port).await,
        EndedBy::NodeLost => parts.callbacks.on_node_lost(job, port).await,
    }
}

/// Counts one compensation for as long as it lives, however that ends.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Has a life compensated, once it is its `turn`: the runs of its spawn that were given up have ended.
pub(crate) async fn compensate(parts: Parts, compensation: Compensation, turn: Turn) {
    let hooks = &parts.hooks;
    Metrics::count(&parts.metrics.compensations);
    let before = hooks.compensations.fetch_add(1, Ordering::Relaxed);
    let _counted = Counted(&hooks.compensations);
    if before < COMPENSATIONS_MAX {
        drop(turn.lock().await);
        let mut pause = COMPENSATE_PAUSE;
        for tries in 1..=COMPENSATE_TRIES {
            let Err(why) = call(&parts, &compensation).await else {
                break;
            };
            let is_last = tries == COMPENSATE_TRIES;
            let Compensation {
                key, incarnation, ..
            } = &compensation;
            let callback = &compensation.callback.name;
            if is_last {
                Metrics::count(&parts.metrics.compensations_failed);
                tracing::warn!(%key, %incarnation, %callback, %why, "a life was not compensated; what its spawn did besides may still be there");
            } else {
                tracing::debug!(%key, %incarnation, %callback, %why, "a life was not compensated yet");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
    } else {
        Metrics::count(&parts.metrics.compensations_failed);
        let callback = &compensation.callback.name;
        if hooks.is_to_be_warned_of(callback) {
            tracing::warn!(%callback, "{COMPENSATIONS_MAX} lives wait to be compensated, which is the limit; further ones are not");
        }
    }
}

async fn call(parts: &Parts, compensation: &Compensation) -> Result<(), String> {
    let compensating = &parts.hooks.compensating;
    let _permit = compensating.take(&compensation.callback.name).await;
    let deadline = Instant::now() + COMPENSATE_WITHIN;
    let spec = &compensation.spec;
    let options = &spec.options;
    let job = CallbackJob {
        module: compensation.callback.clone(),
        request: SpawnRequest {
            key: compensation.key.clone(),
            args: spec.args.to_vec(),
            group: options.group.clone(),
            requester: options.requester.clone(),
            previous: None,
            demand: options.demand,
            priority: options.priority,
            attempt: compensation.attempt,
            seed: compensation.seed,
            time_s: time_s(),
        },
        placement: Placement {
            node: compensation.node.clone(),
            address: compensation.address.clone(),
            incarnation: compensation.incarnation,
        },
        deadline,
    };
    let run = async {
        parts.modules.ready(compensation.callback.digest).await?;
        let port = Arc::new(Port(Arc::clone(&parts.router)));
        let reason = compensation.reason.clone();
        parts.callbacks.compensate(job, reason, port).await
    };
    match tokio::time::timeout(COMPENSATE_WITHIN, run).await {
        Ok(done) => done,
        Err(_) => Err(format!(
            "it did not end within {} ms",
            COMPENSATE_WITHIN.as_millis()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_warned_of_now_and_then() {
        let hooks = Hooks::default();
        let name = |n: usize| ModuleName::new(format!("callback-{n}")).unwrap();
        assert!(hooks.is_to_be_warned_of(&name(0)));
        assert!(!hooks.is_to_be_warned_of(&name(0)));
        for n in 1..WARNED_MAX + 1 {
            assert!(hooks.is_to_be_warned_of(&name(n)));
        }
        // They were forgotten, so that the table stays small.
        assert!(hooks.is_to_be_warned_of(&name(0)));
    }
}

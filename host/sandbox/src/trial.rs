//! The trial of callbacks and fences at upload: calls in a row on one instance, with a made-up node
//! and made-up records. It refuses what traps, computes too long or answers out of bounds; an answer
//! that is merely odd is a note, because a module may want a configuration, which an upload does not
//! have.

use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{
    Digest, Hook, Incarnation, InvalidName, ModuleName, NodeEpoch, NodeName, ProcessKey,
};
use maitred_registry::decide::ModuleRef;

use crate::callback::{
    self, CallbackJob, CallbackPre, Compensation, Ended, Placement, Question, SpawnFailure,
    SpawnRequest,
};
use crate::error::{ModuleError, Stage};
use crate::fence::{self, FencePre, LostNode, Verdict};
use crate::fiber::{Instance, block_on};
use crate::guest::Failure;
use crate::inspect::{Tried, failed, trial_key};
use crate::limits::Limits;
use crate::node::{BoxFuture, Call, NodeFailure, NodePort, Port, Process, RecordsPort, Started};

/// What a call of the trial may wait; nothing in it waits, unless it pauses.
const WITHIN: Duration = Duration::from_secs(1);

/// Two starts, one that succeeds and one on a node that is busy; and each hook that it names.
pub(crate) fn callback(module: &CallbackPre, limits: &Limits) -> Result<Tried, ModuleError> {
    block_on(Stage::Trying, async {
        let made = Instance::<callback::Exports>::new(module, limits, "".into(), "{}".into());
        let mut callback = made.await?;
        let mut notes = Vec::new();
        for node in [TrialNode::Starts, TrialNode::Busy] {
            let job = spawn()?;
            let call = Call::new(Port::Node(Arc::new(node)), job.deadline);
            let answer = callback.call(&job, call, limits).await;
            match answer.map_err(|Failure { reason, .. }| {
                failed(format!("on a node that {node}, it {reason}"))
            })? {
                Ok(_) => {}
                // That a busy node means `elsewhere` or the end is the callback's decision.
                Err(SpawnFailure::Elsewhere(_) | SpawnFailure::GiveUp(_))
                    if node == TrialNode::Busy => {}
                Err(SpawnFailure::Elsewhere(reason) | SpawnFailure::GiveUp(reason)) => {
                    notes.push(format!("in the trial, without a configuration, on a node that {node}, it failed: {reason}"));
                }
            }
        }
        for hook in callback.hooks.clone() {
            try_hook(&mut callback, hook, limits).await?;
        }
        Ok(Tried {
            memory_bytes: callback.memory_bytes(),
            title: callback.title,
            hooks: callback.hooks,
            notes,
            ..Tried::default()
        })
    })
}

async fn try_hook(
    callback: &mut Instance<callback::Exports>,
    hook: Hook,
    limits: &Limits,
) -> Result<(), ModuleError> {
    let port = || Port::Records(Arc::new(TrialRecords::None));
    let call = Call::new(port(), Instant::now() + WITHIN);
    let (name, failure) = match hook {
        Hook::Compensate => {
            let task = Compensation {
                job: spawn()?,
                reason: "the trial".to_owned(),
            };
            ("compensate", callback.call(&task, call, limits).await.err())
        }
        Hook::NodeLost | Hook::Exit => {
            let task = Question {
                hook,
                ended: ended()?,
            };
            let exit = hook == Hook::Exit;
            let name = if exit { "on-exit" } else { "on-node-lost" };
            (name, callback.call(&task, call, limits).await.err())
        }
    };
    match failure {
        None => Ok(()),
        Some(Failure { reason, .. }) => Err(failed(format!("in its hook {name}, it {reason}"))),
    }
}

/// Two examinations of one node: with no record at all, and with records whose share means nothing.
pub(crate) fn fence(module: &FencePre, limits: &Limits) -> Result<Tried, ModuleError> {
    block_on(Stage::Trying, async {
        let made = Instance::<fence::Exports>::new(module, limits, "".into(), "{}".into());
        let mut fence = made.await?;
        let mut notes = Vec::new();
        for records in [TrialRecords::None, TrialRecords::Meaningless] {
            let call = Call::new(Port::Records(Arc::new(records)), Instant::now() + WITHIN);
            let answer = fence.call(&lost_node()?, call, limits).await;
            match answer
                .map_err(|Failure { reason, .. }| failed(format!("with {records}, it {reason}")))?
            {
                Ok(Verdict::AliveOrUnknown { .. }) => {}
                Ok(Verdict::Dead(proof)) => notes.push(format!(
                    "in the trial, with {records}, it called a made-up node dead ({proof}): what it says is believed, and when that is wrong two lives of one process run"
                )),
                Err(reason) => notes.push(format!(
                    "in the trial, without a configuration, with {records}, it answered an error: {reason}"
                )),
            }
        }
        Ok(Tried {
            memory_bytes: fence.memory_bytes(),
            title: fence.title,
            notes,
            ..Tried::default()
        })
    })
}

fn named(error: InvalidName) -> ModuleError {
    failed(error.to_string())
}

fn spawn() -> Result<CallbackJob, ModuleError> {
    Ok(CallbackJob {
        module: ModuleRef::new(
            ModuleName::new("upload").map_err(named)?,
            0,
            Digest([0; 32]),
            "{}".into(),
            0,
        ),
        request: SpawnRequest {
            key: trial_key()?,
            args: b"{}".to_vec(),
            group: None,
            requester: None,
            previous: None,
            demand: 1,
            priority: 0,
            attempt: 1,
            seed: 1,
            time_s: 1_700_000_000,
        },
        placement: Placement {
            node: NodeName::new("trial").map_err(named)?,
            address: "trial.invalid:1".to_owned(),
            incarnation: Incarnation(1),
        },
        deadline: Instant::now() + WITHIN,
    })
}

fn ended() -> Result<Ended, ModuleError> {
    Ok(Ended {
        key: trial_key()?,
        group: None,
        node: NodeName::new("trial").map_err(named)?,
        incarnation: Incarnation(1),
        reason: "trial".to_owned(),
        times: 1,
        lasted_ms: 60_000,
        seed: 1,
        time_s: 1_700_000_000,
    })
}

fn lost_node() -> Result<LostNode, ModuleError> {
    Ok(LostNode {
        node: NodeName::new("trial").map_err(named)?,
        epoch: NodeEpoch(1),
        address: "trial.invalid:1".to_owned(),
        labels: vec![("zone".to_owned(), "trial".to_owned())],
        lost_for_ms: 3_000,
        attempt: 1,
        seed: 1,
        time_s: 1_700_000_000,
    })
}

/// A node that answers at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrialNode {
    Starts,
    Busy,
}

impl std::fmt::Display for TrialNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Starts => "starts the process",
            Self::Busy => "is busy",
        })
    }
}

impl NodePort for TrialNode {
    fn start(
        &self,
        _: Vec<u8>,
        _: Duration,
        _: u32,
    ) -> BoxFuture<'_, Result<Started, NodeFailure>> {
        let answer = match self {
            Self::Starts => Ok(Started {
                pid: "1".to_owned(),
                share: Vec::new(),
            }),
            Self::Busy => Err(NodeFailure::Busy("trial".to_owned())),
        };
        Box::pin(ready(answer))
    }

    fn stop(&self, _: Duration) -> BoxFuture<'_, Result<(), NodeFailure>> {
        Box::pin(ready(Ok(())))
    }

    fn lookup(&self, _: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        Box::pin(ready(None))
    }
}

/// A registry that answers at once.
#[derive(Debug, Clone, Copy)]
enum TrialRecords {
    None,
    Meaningless,
}

impl std::fmt::Display for TrialRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "no record to be found",
            Self::Meaningless => "records of meaningless bytes",
        })
    }
}

impl RecordsPort for TrialRecords {
    fn lookup(&self, _: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        Box::pin(ready(match self {
            Self::None => None,
            Self::Meaningless => Some(Process {
                node: "trial-watcher".to_owned(),
                address: "trial.invalid:2".to_owned(),
                pid: "1".to_owned(),
                share: vec![0, 0xff, b'{', 0xc3],
                incarnation: Incarnation(u64::MAX),
                running: true,
            }),
        }))
    }
}

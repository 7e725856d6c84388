//! Recorded decisions, made again: by any version, off the path of creates.
//!
//! A host has recorded what it decided while it led; whoever asks it gets what it has. One replay
//! runs at a time, on a thread of its own behind all others, and few wait; it ends after a while, and
//! what was left, or cannot be read, is counted as skipped. What a decision costs in fuel is found the same way, for `explain`.

mod run;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use maitred_protocol::{
    Chooser, ComparedVersion, Comparison, ModuleKind, ModuleName, ModuleRecord, NodeName,
    ProcessKey, Rejection, Request, Response, SaveInputs, Unavailable, Why, WhyNot, config_hash,
};
use maitred_registry::compare::Comparing;
use maitred_registry::decide::{ModuleRef, SelectJob};
use maitred_registry::inputs::{self, FileWriter, RecordedBatch, Tail};
use maitred_replica::Answer;
use maitred_sandbox::{Rehearsal, Sandbox, ShadowReport, give_way};
use maitred_storage::inputs::Newest;
use tokio::sync::{Mutex, Semaphore, oneshot, watch};

use self::run::Run;
use crate::activate::subject;
use crate::host::Host;
use crate::metrics::Metrics;
use crate::module_service::{Modules, Subject};
use crate::recorder::Recorder;
use crate::router::Router;

/// Replays of a host: one runs, the others wait.
const REPLAYS_MAX: usize = 5;
/// The newest decisions among which the one to be explained is looked for.
const EXPLAINED_MAX: u64 = 10_000;
/// Longest that an explanation waits for the fuel: the first time, a module is compiled anew for that.
const FUEL_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a file of recorded inputs.
const FILE_BYTES_MAX: usize = 256 << 20;

/// What is to be made again, as in [`Request::ReplayModule`].
pub(crate) struct Replay {
    pub(crate) name: ModuleName,
    pub(crate) version: u32,
    pub(crate) config: Option<String>,
    pub(crate) last: u32,
}

/// See the module's text.
pub(crate) struct Replays {
    sandbox: Arc<Sandbox>,
    modules: Arc<Modules>,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
    stopping: watch::Receiver<bool>,
    /// Unset when nothing is recorded. Held weakly: it ends with the replica's thread.
    recorder: OnceLock<Weak<Recorder>>,
    /// Permits for [`REPLAYS_MAX`].
    waiting: Semaphore,
    turn: Arc<Mutex<()>>,
    /// One permit: whoever is explained meanwhile is told no fuel.
    explaining: Arc<Semaphore>,
}

impl Replays {
    pub(crate) fn new(
        sandbox: &Arc<Sandbox>,
        modules: &Arc<Modules>,
        router: &Arc<Router>,
        metrics: &Arc<Metrics>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            sandbox: Arc::clone(sandbox),
            modules: Arc::clone(modules),
            router: Arc::clone(router),
            metrics: Arc::clone(metrics),
            stopping,
            recorder: OnceLock::new(),
            waiting: Semaphore::new(REPLAYS_MAX),
            turn: Arc::default(),
            explaining: Arc::new(Semaphore::new(1)),
        }
    }

    /// Where inputs are recorded.
    pub(crate) fn set_recorder(&self, recorder: &Arc<Recorder>) {
        // Set once, when the threads start.
        let _ = self.recorder.set(Arc::downgrade(recorder));
    }

    async fn newest(&self, last: u64, of: Option<ModuleName>) -> Result<Newest, String> {
        let recorder = self
            .recorder
            .get()
            .ok_or("this host records no inputs of decisions: the setting inputs_bytes is 0")?;
        let recorder = recorder.upgrade().ok_or("the host is shutting down")?;
        recorder.newest(last, of).await
    }

    async fn find(&self, name: &ModuleName) -> Result<ModuleRecord, Box<Response>> {
        let asked = self.router.request(0, Request::GetModule(name.clone()));
        match asked.await.into_response() {
            Response::Module(record) => Ok(*record),
            other => Err(Box::new(other)),
        }
    }

    /// Makes decisions again.
    async fn replay(self: &Arc<Self>, asked: Replay) -> Result<Comparison, Box<Response>> {
        let unavailable = |why| Box::new(Response::Unavailable(why));
        let Ok(_permit) = self.waiting.try_acquire() else {
            let why = format!("{REPLAYS_MAX} replays run or wait on this host already");
            return Err(unavailable(Unavailable::Overloaded(why)));
        };
        let record = self.find(&asked.name).await?;
        let newest = record.versions.last().map_or(0, |newest| newest.version);
        let version = if asked.version == 0 {
            newest
        } else {
            asked.version
        };
        let found = subject(&record, version).filter(|_| record.kind == ModuleKind::Selector);
        let Some(subject) = found else {
            let no = match record.kind {
                ModuleKind::Selector => {
                    Rejection::NotFound(format!("version {version} of module {}", asked.name))
                }
                _ => Rejection::Invalid("only the decisions of selectors are recorded".to_owned()),
            };
            return Err(Box::new(Response::Rejected(no)));
        };
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let last = u64::from(asked.last);
        let newest = self.newest(last, Some(asked.name.clone())).await;
        let newest = newest.map_err(|why| unavailable(Unavailable::Overloaded(why)))?;
        let replays = Arc::clone(self);
        let running = aside(move || {
            let other = (version, subject);
            let made = Run::new(&replays, &asked, other).all(newest);
            // The next one begins when this one has ended, and not when nobody waits for it any more.
            drop(turn);
            made
        });
        match running.await {
            Some(Ok(comparison)) => Ok(comparison),
            Some(Err(_)) if self.is_stopping() => Err(unavailable(Unavailable::ShuttingDown)),
            Some(Err(reason)) => Err(Box::new(Response::Rejected(Rejection::Module {
                stage: "replaying".to_owned(),
                reason,
            }))),
            None => {
                let why = "the replay was broken off; this host's log says more".to_owned();
                Err(unavailable(Unavailable::Overloaded(why)))
            }
        }
    }

    /// Whether the host ends, or has ended.
    fn is_stopping(&self) -> bool {
        *self.stopping.borrow() || self.stopping.has_changed().is_err()
    }

    /// A decision made once more, when its inputs are kept here and are not too old: what it has cost,
    /// and what became of a node that the kept evidence has no room for.
    pub(crate) async fn again(
        self: &Arc<Self>,
        key: &ProcessKey,
        why: &Why,
        node: Option<NodeName>,
    ) -> Option<Again> {
        let Chooser::Selector { name, version, .. } = &why.chooser else {
            return None;
        };
        let permit = Arc::clone(&self.explaining).try_acquire_owned().ok()?;
        let work = async {
            let newest = self.newest(EXPLAINED_MAX, Some(name.clone())).await.ok()?;
            let record = self.find(name).await.ok()?;
            let subject = subject(&record, *version)?;
            let (replays, key, seed) = (Arc::clone(self), key.clone(), why.seed);
            let of = name.clone();
            let found = aside(move || {
                let found = replays.made_again(newest, of, &subject, (&key, seed), node);
                drop(permit);
                found
            });
            found.await?
        };
        tokio::time::timeout(FUEL_TIMEOUT, work).await.ok()?
    }

    fn made_again(
        &self,
        mut newest: Newest,
        name: ModuleName,
        subject: &Subject,
        (key, seed): (&ProcessKey, u32),
        node: Option<NodeName>,
    ) -> Option<Again> {
        // Older ones will do as well.
        let mut tail = Tail::new(Some(name), 0);
        for frame in newest.by_ref().flatten() {
            let Ok(Some(RecordedBatch { batch, outcomes })) = tail.next(&frame.frame) else {
                continue;
            };
            let mut jobs = batch.jobs.iter();
            let is_it = |job: &SelectJob| job.seed == seed && job.request.key == *key;
            let Some(at) = jobs.position(is_it) else {
                continue;
            };
            let mut fleet = batch.fleet;
            for (job, outcome) in batch.jobs[..at].iter().zip(&outcomes) {
                if let Some(slot) = outcome.chosen {
                    Arc::make_mut(&mut fleet).take(slot, &job.request);
                }
            }
            let rehearsal = self.rehearsal(subject, batch.selector.ok()?).ok()?;
            Metrics::count(&self.metrics.replayed);
            let rehearsed = rehearsal.consider(&fleet, &batch.jobs[at], batch.time_s);
            return rehearsed.failed.is_none().then(|| Again {
                fuel: rehearsed.fuel,
                why_not: node.map(|node| rehearsed.decision.trace.why_not(&node)),
            });
        }
        None
    }

    fn rehearsal(&self, subject: &Subject, module: ModuleRef) -> Result<Rehearsal, String> {
        let bytes = self.modules.bytes_of(subject)?;
        let made = Rehearsal::new(&self.sandbox, module, &bytes);
        made.map_err(|error| error.to_string())
    }

    /// The newest decisions as a file of their own, and how many they are.
    ///
    /// # Errors
    /// Why not, for people.
    pub(crate) async fn export(&self, asked: SaveInputs) -> Result<(u64, Vec<u8>), String> {
        let last = u64::from(asked.last);
        let newest = self.newest(last, asked.name.clone()).await?;
        let written = tokio::task::spawn_blocking(move || write(newest, asked.name)).await;
        written.map_err(|_| "it was broken off; this host's log says more".to_owned())?
    }
}

/// See [`Replays::again`].
pub(crate) struct Again {
    pub(crate) fuel: u64,
    pub(crate) why_not: Option<WhyNot>,
}

/// Runs what rehearses on a thread of its own, that goes behind all others: a pooled one would stay
/// slow for whoever gets it next. None when it panicked, or could not be started.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, done) = oneshot::channel();
    let started = thread::Builder::new()
        .name("replay".to_owned())
        .spawn(move || {
            give_way();
            // Whoever waited may have gone.
            let _ = sender.send(work());
        });
    if let Err(error) = started {
        tracing::error!(%error, "the thread of a replay could not be started");
        return None;
    }
    done.await.ok()
}

fn write(mut newest: Newest, name: Option<ModuleName>) -> Result<(u64, Vec<u8>), String> {
    let tag = name.as_ref().map(inputs::tag);
    let mut tail = Tail::new(name, Newest::skip(&newest));
    let mut writer = FileWriter::default();
    let mut file = FileWriter::header().to_vec();
    while let Some(frame) = newest.next() {
        // What is damaged is left out, up to the next whole picture.
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(%error, "recorded inputs are left out of a file");
                tail.lose(newest.take_lost());
                continue;
            }
        };
        let batch = match tail.next(&frame.frame) {
            Ok(Some(batch)) => batch,
            Ok(None) => continue,
            Err(_) => {
                let wanted = tag.is_none_or(|tag| tag == frame.of);
                tail.lose(u64::from(frame.decisions) * u64::from(wanted));
                continue;
            }
        };
        let bytes = writer.push(&batch).map_err(|error| error.to_string())?;
        if file.len() + bytes.len() > FILE_BYTES_MAX {
            let most = FILE_BYTES_MAX >> 20;
            return Err(format!("the file would exceed {most} MiB; ask for fewer"));
        }
        file.extend_from_slice(&bytes);
    }
    let decisions = writer.decisions();
    file.extend_from_slice(&writer.end());
    Ok((decisions, file))
}

/// Carries out [`Request::ReplayModule`].
pub(crate) async fn replay(host: &Host, asked: Replay) -> Answer {
    let response = match host.replays.replay(asked).await {
        Ok(comparison) => Response::Comparison(Box::new(comparison)),
        Err(no) => *no,
    };
    Answer::Other(Box::new(response))
}

/// Carries out [`Request::CompareModule`]: how the shadow does.
pub(crate) async fn compare(host: &Host, name: &ModuleName) -> Answer {
    let response = match shadow(host, name).await {
        Ok(comparison) => Response::Comparison(Box::new(comparison)),
        Err(no) => *no,
    };
    Answer::Other(Box::new(response))
}

async fn shadow(host: &Host, name: &ModuleName) -> Result<Comparison, Box<Response>> {
    if let Some(elsewhere) = host.leads_elsewhere() {
        return Err(Box::new(Response::Unavailable(elsewhere)));
    }
    let record = host.replays.find(name).await?;
    let found = record.shadow.as_ref();
    let found = found.and_then(|shadow| Some((shadow, subject(&record, shadow.version)?)));
    let Some((shadow, subject)) = found else {
        let text = format!(
            "no version of {name} runs in shadow; `maitred module shadow start {name}@VERSION` begins"
        );
        let no = Rejection::Conflict(text);
        return Err(Box::new(Response::Rejected(no)));
    };
    let other = ComparedVersion {
        version: shadow.version,
        digest: subject.digest,
        config: config_hash(&shadow.config),
    };
    let report = host.shadows.report(name);
    let report = report.filter(|report| report.shadow.activated == shadow.since.0);
    match report {
        Some(ShadowReport {
            broken: Some(reason),
            ..
        }) => Err(Box::new(Response::Rejected(Rejection::Module {
            stage: "running in shadow".to_owned(),
            reason,
        }))),
        Some(report) => Ok(report.comparison),
        // Nothing has been decided since it began, or the leader has changed.
        None => Ok(Comparing::new(name.clone(), other).comparison()),
    }
}

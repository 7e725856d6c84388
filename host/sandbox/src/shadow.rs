//! Versions that run beside the active one: what a lane has decided is decided once more by the
//! shadow, on a thread of its own, and compared.
//!
//! What holds: a lane never waits for it. A batch that finds the queue full, in batches or in bytes,
//! is not compared, and counted; what waits holds no traces. A shadow sees the nodes as the deciding version saw them, its decisions included, not
//! its own. Which shadow runs is what the batches name: with another one the comparison begins anew.
//! One that cannot be made is tried again after a while: its bytes may come.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use maitred_protocol::{ComparedVersion, Comparison, Digest, ModuleName};
use maitred_registry::compare::{Compared, Comparing, Failure, Tried};
use maitred_registry::decide::{ModuleRef, SelectBatch};
use maitred_registry::inputs::{Outcome, waiting_bytes};

use crate::rehearsal::{Rehearsal, give_way};
use crate::sandbox::Sandbox;
use crate::selector::Failed;

/// How long after a failed attempt a shadow is tried again, at least; ten times as long as the
/// attempt took, when that is more.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Finds the bytes of a module on this host.
type Bytes = dyn Fn(&Digest) -> Option<Vec<u8>> + Send + Sync;

/// A batch that was decided.
struct Followed {
    shadow: ModuleRef,
    /// As it was before.
    batch: SelectBatch,
    /// One a job.
    outcomes: Arc<[Outcome]>,
    /// What all this takes, about.
    bytes: usize,
}

/// Rehearses shadows behind the lanes. Dropping it ends its thread with the batch under way.
pub struct Shadows {
    shared: Arc<Shared>,
    batches: usize,
    /// None while no thread runs.
    inbox: Mutex<Option<SyncSender<Box<Followed>>>>,
}

struct Shared {
    sandbox: Arc<Sandbox>,
    bytes: Box<Bytes>,
    /// Bytes of the batches that wait or are compared.
    waiting: AtomicUsize,
    runs: Mutex<HashMap<ModuleName, Run>>,
    /// Decisions of each shadow that found the queue full; apart, so that a lane waits for nobody.
    dropped: Mutex<HashMap<ModuleName, (ModuleRef, u64)>>,
}

/// One shadow and what it came to.
struct Run {
    shadow: ModuleRef,
    comparing: Comparing,
    broken: Option<Broken>,
}

/// Time without work for each time with it: shadows take a quarter of a core at most.
const IDLE_PER_WORK: u32 = 3;
/// Shortest and longest sleep at a time.
const SLEEP_MIN: Duration = Duration::from_millis(5);
/// See [`SLEEP_MIN`].
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Why a shadow cannot be rehearsed.
struct Broken {
    reason: String,
    /// When to try again.
    again_at: Instant,
}

/// The state of one shadow.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowReport {
    /// Which version, with which configuration.
    pub shadow: ModuleRef,
    /// How it compares so far.
    pub comparison: Comparison,
    /// Why it cannot be rehearsed, if it cannot: nothing is compared then.
    pub broken: Option<String>,
}

impl Shadows {
    /// Shadows over a sandbox; no thread is started yet. `bytes` finds the bytes of a module on this
    /// host; it is called on the shadows' thread, for each that begins.
    #[must_use]
    pub fn new(
        sandbox: Arc<Sandbox>,
        bytes: impl Fn(&Digest) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let batches = sandbox.limits.shadow_batches;
        Arc::new(Self {
            shared: Arc::new(Shared {
                sandbox,
                bytes: Box::new(bytes),
                waiting: AtomicUsize::new(0),
                runs: Mutex::default(),
                dropped: Mutex::default(),
            }),
            batches,
            inbox: Mutex::default(),
        })
    }

    /// How a module's shadow compares so far; none when none has run here.
    #[must_use]
    pub fn report(&self, module: &ModuleName) -> Option<ShadowReport> {
        let (shadow, mut comparing, broken) = {
            let runs = self.shared.runs();
            let run = runs.get(module)?;
            let broken = run.broken.as_ref();
            (
                run.shadow.clone(),
                run.comparing.clone(),
                broken.map(|broken| broken.reason.clone()),
            )
        };
        let dropped = lock(&self.shared.dropped);
        let dropped = dropped.get(module).filter(|(of, _)| *of == shadow);
        comparing.skip(dropped.map_or(0, |(_, decisions)| *decisions));
        Some(ShadowReport {
            shadow,
            comparison: comparing.comparison(),
            broken,
        })
    }

    /// Forgets the shadows that are not to be kept: those that have ended. A batch that waits still
    /// may bring one back, so say it again, now and then.
    pub fn retain(&self, keep: impl Fn(&ModuleRef) -> bool) {
        self.shared.runs().retain(|_, run| keep(&run.shadow));
        let runs = self.shared.runs();
        lock(&self.shared.dropped).retain(|name, _| runs.contains_key(name));
    }

    /// Takes a batch that names a shadow, as it was before it was decided, and what came out; or drops
    /// and counts it. Never waits.
    pub(crate) fn follow(&self, batch: SelectBatch, outcomes: Arc<[Outcome]>) {
        let Some(shadow) = batch.shadow.clone() else {
            return;
        };
        let bytes = waiting_bytes(&batch, &outcomes);
        let followed = Box::new(Followed {
            shadow,
            batch,
            outcomes,
            bytes,
        });
        let waiting = self.shared.waiting.fetch_add(bytes, Relaxed) + bytes;
        // One is taken however large it is.
        let fits = waiting == bytes || waiting <= self.shared.sandbox.limits.shadow_bytes;
        let sent = if fits {
            self.send(followed)
        } else {
            Err(followed)
        };
        if let Err(followed) = sent {
            self.shared.waiting.fetch_sub(bytes, Relaxed);
            self.drop_batch(&followed);
        }
    }

    fn send(&self, followed: Box<Followed>) -> Result<(), Box<Followed>> {
        let mut inbox = lock(&self.inbox);
        let sender = match inbox.take() {
            Some(sender) => sender,
            None => match self.start() {
                Some(sender) => sender,
                None => return Err(followed),
            },
        };
        match sender.try_send(followed) {
            Ok(()) => {
                *inbox = Some(sender);
                Ok(())
            }
            Err(TrySendError::Full(followed)) => {
                *inbox = Some(sender);
                Err(followed)
            }
            Err(TrySendError::Disconnected(followed)) => Err(followed),
        }
    }

    fn drop_batch(&self, followed: &Followed) {
        let Followed { shadow, batch, .. } = followed;
        let mut dropped = lock(&self.shared.dropped);
        let none = || (shadow.clone(), 0);
        let entry = dropped.entry(shadow.name.clone()).or_insert_with(none);
        if entry.0 != *shadow {
            *entry = none();
        }
        entry.1 += batch.jobs.len() as u64;
    }

    fn start(&self) -> Option<SyncSender<Box<Followed>>> {
        let (sender, inbox) = mpsc::sync_channel(self.batches);
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("shadow".to_owned());
        match thread.spawn(move || shared.run(&inbox)) {
            Ok(_) => Some(sender),
            Err(error) => {
                tracing::error!(%error, "the thread of shadows could not be started; nothing is compared");
                None
            }
        }
    }
}

/// Keeps the thread idle for most of the time: instances come and go in memory that all threads
/// share, so at full speed it would cost the others more than the core that it runs on.
#[derive(Default)]
struct Pace {
    owed: Duration,
}

impl Pace {
    /// Sleeps for what the work since the last time has earned, once that is worth it.
    fn worked(&mut self, took: Duration) {
        self.owed += took * IDLE_PER_WORK;
        if self.owed >= SLEEP_MIN {
            thread::sleep(std::mem::take(&mut self.owed).min(SLEEP_MAX));
        }
    }
}

/// A panic elsewhere costs no shadow: counts stay counts.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn runs(&self) -> MutexGuard<'_, HashMap<ModuleName, Run>> {
        lock(&self.runs)
    }

    fn run(&self, inbox: &Receiver<Box<Followed>>) {
        give_way();
        let mut rehearsals: HashMap<ModuleName, Rehearsal> = HashMap::new();
        while let Ok(followed) = inbox.recv() {
            let mut compared = 0;
            let one = || self.rehearse(&mut rehearsals, &followed, &mut compared);
            if catch_unwind(AssertUnwindSafe(one)).is_err() {
                tracing::error!("the host failed on a shadow, which is a bug");
                rehearsals.remove(&followed.shadow.name);
                let reason = "the host failed on it, which is a bug; its log says more".to_owned();
                self.fail(&followed.shadow, reason, Duration::ZERO);
            }
            let left = followed.batch.jobs.len() - compared;
            self.with(&followed.shadow, |run| run.comparing.skip(left as u64));
            self.waiting.fetch_sub(followed.bytes, Relaxed);
            let runs = self.runs();
            rehearsals.retain(|name, _| runs.contains_key(name));
        }
    }

    /// Compares a batch, and counts in `compared` as it goes.
    fn rehearse(
        &self,
        rehearsals: &mut HashMap<ModuleName, Rehearsal>,
        followed: &Followed,
        compared: &mut usize,
    ) {
        let Followed {
            shadow,
            batch,
            outcomes,
            ..
        } = followed;
        self.begin(rehearsals, shadow);
        let Some(rehearsal) = rehearsals.get(&shadow.name) else {
            return;
        };
        let mut fleet = Arc::clone(&batch.fleet);
        let mut pace = Pace::default();
        for (job, decided) in batch.jobs.iter().zip(outcomes.iter()) {
            let begun = Instant::now();
            let rehearsed = rehearsal.consider(&fleet, job, batch.time_s);
            let other = Outcome::of(&rehearsed.decision);
            let failure = rehearsed.failed.as_ref();
            let both = Compared {
                fleet: &batch.fleet,
                key: &job.request.key,
                selector: batch.selector.as_ref().ok(),
                decided,
                other: Tried {
                    outcome: &other,
                    fuel: rehearsed.fuel,
                    nanos: rehearsed.nanos,
                    failure: failure.map(|(how, cause)| (Failure::from(*how), cause.as_str())),
                },
            };
            self.with(shadow, |run| run.comparing.add(&both));
            *compared += 1;
            if let Some(slot) = decided.chosen {
                Arc::make_mut(&mut fleet).take(slot, &job.request);
            }
            pace.worked(begun.elapsed());
        }
    }

    /// Begins a comparison when another shadow than before is named, and makes what rehearses it when
    /// there is none.
    fn begin(&self, rehearsals: &mut HashMap<ModuleName, Rehearsal>, shadow: &ModuleRef) {
        if self.is_new(shadow) {
            rehearsals.remove(&shadow.name);
        }
        let broken = |run: &Run| run.broken.as_ref().map(|broken| broken.again_at);
        let again_at = self.runs().get(&shadow.name).and_then(broken);
        let waits = again_at.is_some_and(|again_at| Instant::now() < again_at);
        if waits || rehearsals.contains_key(&shadow.name) {
            return;
        }
        let begun = Instant::now();
        let made = match (self.bytes)(&shadow.digest) {
            None => Err("its bytes are not on this host".to_owned()),
            Some(bytes) => Rehearsal::new(&self.sandbox, shadow.clone(), &bytes)
                .map_err(|error| error.to_string()),
        };
        match made {
            Ok(rehearsal) => {
                rehearsals.insert(shadow.name.clone(), rehearsal);
                self.with(shadow, |run| run.broken = None);
            }
            Err(reason) => self.fail(shadow, reason, begun.elapsed()),
        }
    }

    /// Whether another shadow than before is named; its comparison has begun then.
    fn is_new(&self, shadow: &ModuleRef) -> bool {
        let mut runs = self.runs();
        if runs
            .get(&shadow.name)
            .is_some_and(|run| run.shadow == *shadow)
        {
            return false;
        }
        let other = ComparedVersion {
            version: shadow.version,
            digest: shadow.digest,
            config: shadow.config_hash,
        };
        let run = Run {
            shadow: shadow.clone(),
            comparing: Comparing::new(shadow.name.clone(), other),
            broken: None,
        };
        runs.insert(shadow.name.clone(), run);
        true
    }

    /// Says once why a shadow cannot be rehearsed.
    fn fail(&self, shadow: &ModuleRef, reason: String, took: Duration) {
        let again_at = Instant::now() + RETRY_AFTER.max(took * 10);
        self.with(shadow, |run| {
            let before = run.broken.as_ref().map(|broken| &broken.reason);
            if before != Some(&reason) {
                tracing::warn!(module = %shadow.name, version = shadow.version, reason, "a shadow cannot be rehearsed");
            }
            run.broken = Some(Broken { reason, again_at });
        });
    }

    /// Its comparison, unless it has ended meanwhile.
    fn with(&self, shadow: &ModuleRef, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.runs().get_mut(&shadow.name) {
            change(run);
        }
    }
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Trap => Self::Trap,
            Failed::Timeout => Self::Timeout,
            Failed::BadAnswer | Failed::Error => Self::BadAnswer,
        }
    }
}

impl fmt::Debug for Shadows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadows")
            .field("shadows", &self.shared.runs().len())
            .finish_non_exhaustive()
    }
}

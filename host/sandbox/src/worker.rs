//! What a lane's thread does with a batch: keeps an instance and a spare, asks it for each
//! decision, replaces it, counts, and hands the batch on to whoever follows: its shadow, and who
//! records it. A decision is always made; why the selector did not make it is the cause that
//! `explain` shows. What following costs is not counted as the selector's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use maitred_protocol::{Chooser, ModuleName};
use maitred_registry::candidates::Fleet;
use maitred_registry::decide::{
    Choose, Decision, ModuleRef, SelectBatch, SelectJob, consider, decide,
};
use maitred_registry::inputs::Outcome;

use crate::error::ModuleError;
use crate::lane::{LaneState, Record, Work};
use crate::sandbox::{Loaded, Sandbox};
use crate::selector::{Failed, Selector, SelectorPre};
use crate::shadow::Shadows;
use crate::tally::{Cause, Tally};

/// A lane's thread.
pub(crate) struct Worker {
    sandbox: Arc<Sandbox>,
    shadows: Option<Arc<Shadows>>,
    state: Arc<LaneState>,
    current: Option<Selector>,
    /// The spare, once it is made.
    spare: Option<Receiver<Option<Selector>>>,
    /// Whether what is decided now is a dry run, which is not counted.
    dry: bool,
    /// Where it is told instead.
    unheard: Tally,
}

/// Decides a batch without its selector.
pub(crate) fn fall_back(work: Work) {
    let Work {
        batch,
        done,
        record,
        bypass,
    } = work;
    let before = record.is_some().then(|| batch.clone());
    let SelectBatch {
        selector,
        mut fleet,
        time_s,
        jobs,
        dry,
        ..
    } = batch;
    let cause = match (&bypass, &selector) {
        (Some(cause), _) | (None, Err((_, cause))) => cause.clone(),
        (None, Ok(_)) => "it has no lane".to_owned(),
    };
    let decided = jobs.iter().map(|job| {
        let begun = Instant::now();
        let (no_one, micros) = (Err(cause.clone()), || micros(begun));
        made(dry, &mut fleet, job, &selector, no_one, time_s, micros)
    });
    let decisions: Vec<Decision> = decided.collect();
    let copy = before.map(|before| (before, decisions.clone()));
    hand_over(|| done(decisions));
    if let Some((before, decisions)) = copy {
        hand_over(|| follow(before, &decisions, None, record));
    }
}

impl Worker {
    pub(crate) fn new(
        sandbox: Arc<Sandbox>,
        shadows: Option<Arc<Shadows>>,
        state: Arc<LaneState>,
    ) -> Self {
        Self {
            sandbox,
            shadows,
            state,
            current: None,
            spare: None,
            dry: false,
            unheard: Tally::default(),
        }
    }

    fn tally(&self) -> &Tally {
        match self.dry {
            true => &self.unheard,
            false => &self.state.tally,
        }
    }

    pub(crate) fn state(&self) -> &Arc<LaneState> {
        &self.state
    }

    /// Decides a batch.
    pub(crate) fn serve(&mut self, work: Work) {
        let state = Arc::clone(&self.state);
        let Some(module) = &state.module else {
            return fall_back(work);
        };
        let Work {
            batch,
            done,
            record,
            ..
        } = work;
        let shadows = self.shadows.clone().filter(|_| batch.shadow.is_some());
        let followed = shadows.is_some() || record.is_some();
        let before = followed.then(|| batch.clone());
        let SelectBatch {
            selector,
            mut fleet,
            time_s,
            jobs,
            dry,
            ..
        } = batch;
        self.dry = dry;
        // Whoever follows needs the nodes as they are now, and decisions count into a copy then: made
        // here, where it is not the selector's time.
        Arc::make_mut(&mut fleet);
        let mut decisions = Vec::with_capacity(jobs.len());
        for job in &jobs {
            let begun = Instant::now();
            let mut asked = false;
            // A bug of the host that a guest brings out costs a decision, not the lane.
            let asking = AssertUnwindSafe(|| {
                let chooser = self.chooser(module, begun);
                asked = chooser.is_ok();
                let micros = || micros(begun);
                made(dry, &mut fleet, job, &selector, chooser, time_s, micros)
            });
            let decision = catch_unwind(asking).unwrap_or_else(|_| {
                asked = false;
                let cause = self.panicked(module, begun);
                let micros = || micros(begun);
                made(dry, &mut fleet, job, &selector, Err(cause), time_s, micros)
            });
            self.tally().decided(begun.elapsed().as_nanos() as u64);
            if asked {
                self.settle(module, &decision, begun);
            }
            decisions.push(decision);
        }
        let copy = before.map(|before| (before, decisions.clone()));
        hand_over(|| done(decisions));
        if let Some((before, decisions)) = copy {
            hand_over(|| follow(before, &decisions, shadows.as_deref(), record));
        }
        self.prepare(module);
    }

    /// The instance to ask, or why there is none.
    fn chooser(&mut self, module: &ModuleRef, now: Instant) -> Result<&mut dyn Choose, String> {
        if self.state.breaker_open.load(Relaxed)
            && let Err(left) = self.state.breaker().admit(now)
        {
            self.tally().fell_back(Cause::BreakerOpen);
            return Err(format!(
                "it failed too often and is not asked for another {} s",
                left.as_secs() + 1
            ));
        }
        if self.current.is_none() {
            self.current = Some(self.instance(module, now)?);
        }
        // Set above; written so that the borrow ends where it is not.
        match &mut self.current {
            Some(current) => Ok(current),
            None => Err("it has no instance".to_owned()),
        }
    }

    fn instance(&mut self, module: &ModuleRef, now: Instant) -> Result<Selector, String> {
        if let Some(spare) = self.spare.take()
            && let Ok(Some(ready)) = spare.try_recv()
        {
            return Ok(ready);
        }
        let Some(Loaded::Selector(pre)) = self.sandbox.loaded(&module.digest) else {
            self.tally().fell_back(Cause::NotLoaded);
            return Err(format!(
                "version {} is not loaded on this host",
                module.version
            ));
        };
        make(&self.sandbox, &pre, module).map_err(|error| {
            self.tally().fell_back(Cause::StartFailed);
            let cause = format!(
                "no instance could be made: {} {}",
                error.stage, error.reason
            );
            self.count_failure(&module.name, &cause, now);
            cause
        })
    }

    /// Counts how the instance did, and replaces it when it failed or is worn.
    fn settle(&mut self, module: &ModuleRef, decision: &Decision, now: Instant) {
        let Some(current) = &mut self.current else {
            return;
        };
        let tally = match self.dry {
            true => &self.unheard,
            false => &self.state.tally,
        };
        tally
            .lines_dropped
            .fetch_add(current.take_lines_dropped(), Relaxed);
        if let Chooser::Fallback { cause, .. } = &decision.trace.why.chooser {
            tally.fell_back(match current.failed() {
                Some(Failed::Trap) => Cause::Trap,
                Some(Failed::Timeout) => Cause::Timeout,
                Some(Failed::Error) => Cause::GuestError,
                // It answered well, and `decide` did not take the answer.
                Some(Failed::BadAnswer) | None => Cause::BadAnswer,
            });
            self.current = None;
            self.count_failure(&module.name, cause, now);
            return;
        }
        tally.answered(&decision.trace.answered);
        if current.worn() {
            tally.recycled.fetch_add(1, Relaxed);
            self.current = None;
        }
        // Where there was nothing to choose from it was not asked.
        let was_asked = decision.trace.why.candidates > 0;
        if !self.dry && self.state.breaker_open.load(Relaxed) && was_asked {
            self.state.breaker().succeeded();
            self.state.breaker_open.store(false, Relaxed);
            tracing::info!(module = module.name.as_str(), "a selector answers again");
        }
    }

    /// What anybody plans says nothing of what clients create, and must not keep the selector from that.
    fn count_failure(&self, name: &ModuleName, cause: &str, now: Instant) {
        if self.dry {
            tracing::debug!(module = name.as_str(), cause, "a selector failed at a plan");
            return;
        }
        tracing::warn!(
            module = name.as_str(),
            cause,
            "a selector failed; the fallback decided"
        );
        let mut breaker = self.state.breaker();
        if breaker.failed(now) {
            tracing::warn!(
                module = name.as_str(),
                "a selector is not asked for a while"
            );
        }
        self.state.breaker_open.store(breaker.is_open(), Relaxed);
    }

    /// Gives the instance up, in whatever state the panic left it.
    fn panicked(&mut self, module: &ModuleRef, now: Instant) -> String {
        // Not dropped: that might panic, too.
        std::mem::forget(self.current.take());
        self.tally().fell_back(Cause::Trap);
        let cause = "the host failed on it, which is a bug; its log says more".to_owned();
        self.count_failure(&module.name, &cause, now);
        cause
    }

    /// Has a spare made in the background, when there is none and the selector works.
    fn prepare(&mut self, module: &ModuleRef) {
        if self.spare.is_some() || self.current.is_none() {
            return;
        }
        let Some(Loaded::Selector(pre)) = self.sandbox.loaded(&module.digest) else {
            return;
        };
        let (sender, spare) = mpsc::sync_channel(1);
        let (sandbox, module) = (Arc::clone(&self.sandbox), module.clone());
        let made = thread::Builder::new()
            .name("guest-spare".to_owned())
            .spawn(move || {
                // A spare that cannot be made is reported when one is needed. The lane may have ended.
                let _ = sender.send(make(&sandbox, &pre, &module).ok());
            });
        if made.is_ok() {
            self.spare = Some(spare);
        }
    }
}

/// Hands a batch on, as it was, with as much of what came out as a comparison needs: traces are
/// large, and whoever follows may be slow.
fn follow(
    before: SelectBatch,
    decisions: &[Decision],
    shadows: Option<&Shadows>,
    record: Option<Record>,
) {
    let outcomes: Arc<[Outcome]> = decisions.iter().map(Outcome::of).collect();
    match (shadows, record) {
        (Some(shadows), Some(record)) => {
            shadows.follow(before.clone(), Arc::clone(&outcomes));
            record(before, outcomes);
        }
        (Some(shadows), None) => shadows.follow(before, outcomes),
        (None, Some(record)) => record(before, outcomes),
        (None, None) => {}
    }
}

/// Makes a decision, and counts it into the fleet unless it is a dry run.
fn made(
    dry: bool,
    fleet: &mut Arc<Fleet>,
    job: &SelectJob,
    selector: &Result<ModuleRef, (ModuleName, String)>,
    chooser: Result<&mut dyn Choose, String>,
    time_s: u32,
    micros: impl FnOnce() -> u32,
) -> Decision {
    match dry {
        true => consider(fleet, job, selector, chooser, time_s, micros),
        false => decide(fleet, job, selector, chooser, time_s, micros),
    }
}

/// Nobody's panic ends a lane: what waits in it has to be answered.
fn hand_over(to: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(to)).is_err() {
        tracing::error!("whoever was to take a batch of decisions panicked; this is a bug");
    }
}

fn make(sandbox: &Sandbox, pre: &SelectorPre, module: &ModuleRef) -> Result<Selector, ModuleError> {
    Selector::new(
        pre,
        &sandbox.limits,
        module.name.as_str().into(),
        Arc::clone(&module.config),
    )
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

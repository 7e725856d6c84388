//! Creates that their selector wants to be asked about again.
//!
//! A selector that answers `wait` has nothing for a create now. It is asked again when that may have
//! changed (a node comes, room is made, a module changes), and after the time that it named, until the
//! create's deadline. Those that wait are woken like processes that have lost their node
//! ([`crate::recreation::sleepers`]): a few first and more while they find nodes, so that a seat that
//! is free does not have all of them decided.
//!
//! **Invariants.** What waits is what its saga's [`Wait`] says, and at most [`WAITING_MAX`] do;
//! [`Waiting::let_go`] takes a saga out. Whoever waits has a timer.

use std::cmp::Reverse;
use std::sync::Arc;

use maitred_protocol::{Answered, Unavailable};
use maitred_registry::decide::Trace;

use crate::recreation::Turn;
use crate::recreation::sleepers::{Kind, Sleepers};
use crate::replica::Replica;
use crate::saga::{Life, Step, selector_of};
use crate::timer::{Due, TimerId};

/// Creates that may wait at one time; more are answered `overloaded`.
pub(crate) const WAITING_MAX: usize = 4_096;

/// How often all of them together are asked about in a millisecond because their time has come: the
/// more there are, the longer each waits at least.
pub(crate) const AGAIN_PER_MS: usize = 4;

/// What a saga remembers of its waiting.
#[derive(Debug, Default)]
pub(crate) struct Wait {
    asleep: Option<(Turn, Arc<Kind>)>,
    /// It was woken, and the others wait for what comes of it.
    woken: bool,
    /// How often capacity had appeared when it was asked about.
    appeared: u64,
    /// What the selector said last: since when (milliseconds since 1970), and for how many milliseconds.
    told: Option<(u64, u32)>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    sleepers: Sleepers,
    count: usize,
    timer: Option<(u64, TimerId)>,
}

impl Waiting {
    /// Takes a saga out of those that sleep; it may have been woken.
    pub(crate) fn rise(&mut self, wait: &mut Wait) {
        if let Some((turn, kind)) = wait.asleep.take() {
            self.sleepers.remove(&kind, &turn);
            self.count -= 1;
        }
    }

    /// Takes a saga out, wherever it is.
    pub(crate) fn let_go(&mut self, wait: &mut Wait) {
        self.rise(wait);
        self.answered(wait, None, false);
    }

    fn answered(&mut self, wait: &mut Wait, refused_by_all: Option<&Kind>, refused: bool) {
        if std::mem::take(&mut wait.woken) {
            self.sleepers.answered(refused_by_all, refused);
        }
    }

    /// A node may be able to take what none could a moment ago.
    pub(crate) fn wake(&mut self, now_us: u64) {
        self.sleepers.wake(now_us);
    }
}

impl Wait {
    /// A decision is asked for, when capacity had appeared so often.
    pub(crate) fn asked(&mut self, appeared: u64) {
        self.appeared = appeared;
    }
}

impl Replica {
    /// For how long a create goes on waiting, given what came of asking again; none if it does not. One
    /// that was told to wait waits while there is nobody to choose from, too.
    pub(crate) fn goes_on_waiting(&mut self, life: &Life, trace: &Trace) -> Option<u32> {
        let told = self.sagas.current(life)?.wait.told;
        match trace.answered {
            Answered::Wait(ms) => Some(ms),
            Answered::Nothing if !trace.was_offered() => told.map(|(_, ms)| ms),
            _ => None,
        }
    }

    /// Lets a create wait for so many milliseconds at most; or says that too many do.
    pub(crate) fn wait(
        &mut self,
        life: &Life,
        ms: u32,
        trace: &Arc<Trace>,
    ) -> Result<(), Unavailable> {
        let now = self.now;
        let Some(saga) = self.sagas.current(life) else {
            return Ok(());
        };
        // Whoever decided may be gone by now: it is the create that names its selector.
        let record = self.registry.process(&life.key);
        let spec = record.filter(|_| life.incarnation.0 != 0);
        let spec = spec.and_then(|record| record.spec.as_ref());
        let first = saga.waiters.first();
        let selector = spec.map(|spec| spec.selector.clone());
        let Some(selector) = selector.or_else(|| Some(selector_of(&first?.create))) else {
            return Ok(());
        };
        if self.waiting.count >= WAITING_MAX {
            self.waiting.let_go(&mut saga.wait);
            let text = format!("{WAITING_MAX} creates wait for their selectors already");
            return Err(Unavailable::Overloaded(text));
        }
        let request = &trace.request;
        let kind = Kind {
            type_name: request.key.type_name.clone(),
            selector,
            require: request.require.clone(),
            demand: request.demand,
        };
        let by_all = trace.refuses_all().then_some(&kind);
        self.waiting.answered(&mut saga.wait, by_all, true);
        let since_ms = saga.wait.told.map_or(now.wall_ms, |(since_ms, _)| since_ms);
        saga.wait.told = Some((since_ms, ms));
        let turn = Turn::new(Reverse(request.priority), since_ms, life.key.clone());
        let kind = self.waiting.sleepers.add(kind, turn.clone(), trace);
        saga.wait.asleep = Some((turn, kind));
        self.waiting.count += 1;
        let ms = u64::from(ms).max((self.waiting.count / AGAIN_PER_MS) as u64);
        let at_us = now.mono_us + ms * 1_000;
        self.timers.cancel(saga.retry.take());
        saga.step = Step::Waiting;
        saga.retry = Some(self.timers.set(at_us, Due::Retry(life.key.clone())));
        if saga.wait.appeared != self.recreation.appeared() {
            self.waiting.wake(now.mono_us);
        }
        Ok(())
    }

    /// Asks about some of those that wait, when capacity has appeared.
    pub(crate) fn wake_waiting(&mut self) {
        if self.serving.is_none() {
            return;
        }
        let most = self.config.batch_max.max(1);
        for turn in self.waiting.sleepers.step(self.now.mono_us, most) {
            let key = turn.into_key();
            let Some(saga) = self.sagas.all.get_mut(&key) else {
                continue;
            };
            saga.wait.asleep = None;
            saga.wait.woken = true;
            self.waiting.count -= 1;
            if saga.step != Step::Waiting {
                // It has gone on by other ways, and nothing is to be decided.
                self.waiting.let_go(&mut saga.wait);
                continue;
            }
            self.timers.cancel(saga.retry.take());
            self.select(&key);
        }
        let next_us = self.waiting.sleepers.next_us();
        if self.waiting.timer.map(|(at_us, _)| at_us) == next_us {
            return;
        }
        let before = self.waiting.timer.take();
        self.timers.cancel(before.map(|(_, timer)| timer));
        self.waiting.timer = next_us.map(|at_us| (at_us, self.timers.set(at_us, Due::Waiting)));
    }

    /// Some that wait may be asked about now: the turn that is under way does so.
    pub(crate) fn waiting_due(&mut self) {
        self.waiting.timer = None;
    }
}

//! Which question is asked next: the more important process's first, and no callback's at the cost of
//! another's.
//!
//! A callback has a bounded share of what may be out. One that answers nothing in time for some rounds,
//! one after the other, is not asked for a while; whoever waits for it meanwhile is told so at once. A
//! round is whatever was out together: one hiccup makes all of it late, and says no more than one
//! question that is late. It knows neither records nor clocks: times are given to it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use maitred_protocol::{Incarnation, ModuleName, ProcessKey};

use crate::saga::Life;

/// Questions that are out at one time: as many as callbacks answer side by side, and some more, so
/// that those never wait.
const ASKED_MAX: usize = 128;
/// Those of one callback.
const ASKED_OF_ONE_MAX: usize = 32;

/// Rounds in a row that a callback may let time out before it is not asked for a while.
const LATE_ROUNDS_MAX: u32 = 3;
/// That while, in microseconds.
const PAUSE_US: u64 = 10_000_000;

/// More important first, and of those the one that has waited longest, in milliseconds since 1970.
type Turn = (Reverse<i32>, u64, ProcessKey, Incarnation);

/// What is asked of one callback.
#[derive(Debug, Default)]
struct Callback {
    waiting: BTreeSet<Turn>,
    out: usize,
    /// How many rounds were late since it last answered in time.
    late: u32,
    /// When the last of those was noticed: what was sent before belongs to it.
    round_us: u64,
    /// It is not asked before.
    paused_until_us: u64,
}

impl Callback {
    /// A question is out no more; how many wait, when that begins a pause.
    fn heard(&mut self, asked: &Asked, now_us: u64) -> Option<usize> {
        if now_us < asked.late_us {
            self.late = 0;
            return None;
        }
        let is_same_round = self.late > 0 && asked.sent_us < self.round_us;
        if is_same_round || now_us < self.paused_until_us {
            return None;
        }
        self.round_us = now_us;
        self.late += 1;
        if self.late < LATE_ROUNDS_MAX {
            return None;
        }
        self.late = 0;
        self.paused_until_us = now_us + PAUSE_US;
        Some(self.waiting.len())
    }
}

/// A question that is out.
#[derive(Debug)]
struct Asked {
    incarnation: Incarnation,
    callback: ModuleName,
    sent_us: u64,
    late_us: u64,
}

/// A callback that is not asked for a while.
#[derive(Debug)]
pub(super) struct Paused {
    pub(super) callback: ModuleName,
    pub(super) pause_us: u64,
    /// How many waited for it then.
    pub(super) waiting: usize,
}

/// What is asked of callbacks.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    callbacks: BTreeMap<ModuleName, Callback>,
    asked: HashMap<ProcessKey, Asked>,
}

impl Questions {
    /// Has a process wait until its callback is asked.
    pub(super) fn push(
        &mut self,
        callback: &ModuleName,
        life: Life,
        (priority, since_ms): (i32, u64),
    ) {
        let Life { key, incarnation } = life;
        let turn = (Reverse(priority), since_ms, key, incarnation);
        let callback = self.callbacks.entry(callback.clone()).or_default();
        callback.waiting.insert(turn);
    }

    /// Whose turn it is, and whether the callback is to be asked. Whoever waits for a paused one has a turn
    /// though much is out, since nobody is asked.
    pub(super) fn next(&mut self, now_us: u64) -> Option<(Life, bool)> {
        let is_full = self.asked.len() >= ASKED_MAX;
        let ready = self.callbacks.values_mut().filter(|callback| {
            let may_ask = !is_full && callback.out < ASKED_OF_ONE_MAX;
            !callback.waiting.is_empty() && (may_ask || now_us < callback.paused_until_us)
        });
        let callback = ready.min_by(|one, two| one.waiting.first().cmp(&two.waiting.first()))?;
        let (_, _, key, incarnation) = callback.waiting.pop_first()?;
        let asks = now_us >= callback.paused_until_us;
        Some((Life { key, incarnation }, asks))
    }

    /// A question goes out, and is late when it is not answered by `late_us`.
    pub(super) fn sent(
        &mut self,
        life: Life,
        callback: &ModuleName,
        (sent_us, late_us): (u64, u64),
    ) {
        let asked = Asked {
            incarnation: life.incarnation,
            callback: callback.clone(),
            sent_us,
            late_us,
        };
        self.callbacks.entry(callback.clone()).or_default().out += 1;
        if let Some(void) = self.asked.insert(life.key, asked) {
            self.back(&void.callback);
        }
    }

    /// An answer has come, or that there is none; says so when its callback is not asked for a while.
    pub(super) fn answered(
        &mut self,
        key: &ProcessKey,
        incarnation: Incarnation,
        now_us: u64,
    ) -> Option<Paused> {
        let asked = self.asked.get(key);
        asked.filter(|asked| asked.incarnation == incarnation)?;
        let asked = self.asked.remove(key)?;
        self.back(&asked.callback);
        let callback = self.callbacks.get_mut(&asked.callback);
        let waiting = callback.and_then(|callback| callback.heard(&asked, now_us));
        // Nothing is kept of those that nobody waits for: their names come from clients.
        self.callbacks.retain(|_, callback| {
            let is_idle = callback.waiting.is_empty() && callback.out == 0;
            !is_idle || now_us < callback.paused_until_us
        });
        waiting.map(|waiting| Paused {
            callback: asked.callback,
            pause_us: PAUSE_US,
            waiting,
        })
    }

    fn back(&mut self, callback: &ModuleName) {
        if let Some(callback) = self.callbacks.get_mut(callback) {
            callback.out = callback.out.saturating_sub(1);
        }
    }
}

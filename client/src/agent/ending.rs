//! What is ending on a node: how long stops take, and when what ended sessions have left must be gone.
//!
//! Holds: a life counts from when it may run until the game has said that it does not, also when a
//! newer life of its key has taken its place here. It must not know why anything is stopped.

use std::collections::{BTreeMap, BTreeSet};

use maitred_protocol::{Incarnation, NodeAnswer, ProcessKey};

use super::process::wait;
use super::{Effect, answer_all};

type LifeId = (ProcessKey, Incarnation);

#[derive(Debug, Default)]
pub(super) struct Ending {
    /// Stops under way, and when each began.
    stops: BTreeMap<LifeId, u64>,
    /// Lives that were still starting when a newer one took their place.
    displaced: BTreeSet<LifeId>,
    /// Commands that wait for the end of a life whose place another one has taken.
    waiters: BTreeMap<LifeId, Vec<u64>>,
    /// The longest that a stop has taken. Over all sessions: those of a session that was lost are the
    /// ones that others must wait for, and they end in the next one.
    longest_us: u64,
    /// What is left of sessions that are over.
    left: BTreeSet<LifeId>,
    /// When that must be gone, or must have been.
    gone_by_us: u64,
}

impl Ending {
    /// Takes note of a stop that begins.
    pub(super) fn stop(&mut self, now_us: u64, key: &ProcessKey, incarnation: Incarnation) {
        let stop = self.stops.entry((key.clone(), incarnation));
        stop.or_insert(now_us);
    }

    /// A life that is still starting is no longer the one of its key.
    pub(super) fn displace(&mut self, key: &ProcessKey, incarnation: Incarnation) {
        self.displaced.insert((key.clone(), incarnation));
    }

    /// A start has come to its end; what becomes of the life then is told like that of any other.
    pub(super) fn started(&mut self, key: &ProcessKey, incarnation: Incarnation) {
        if !self.displaced.is_empty() {
            self.displaced.remove(&(key.clone(), incarnation));
        }
    }

    /// These commands are answered when a life is over that has not the place of its key.
    pub(super) fn wait_for(
        &mut self,
        (key, incarnation): (&ProcessKey, Incarnation),
        tags: Vec<u64>,
        out: &mut Vec<Effect>,
    ) {
        if tags.is_empty() {
            return;
        }
        let waiters = self.waiters.entry((key.clone(), incarnation)).or_default();
        for tag in tags {
            wait(waiters, tag, out);
        }
    }

    /// A life is over. Says so to those who wait for that.
    pub(super) fn gone(
        &mut self,
        now_us: u64,
        key: &ProcessKey,
        incarnation: Incarnation,
        out: &mut Vec<Effect>,
    ) {
        let life = (key.clone(), incarnation);
        if let Some(began_us) = self.stops.remove(&life) {
            self.longest_us = self.longest_us.max(now_us.saturating_sub(began_us));
        }
        self.left.remove(&life);
        let waiters = self.waiters.remove(&life).unwrap_or_default();
        answer_all(waiters, &NodeAnswer::Stopped, out);
    }

    /// A session is over: what is ending, and these lives of it, must be gone by then.
    pub(super) fn end_session(&mut self, gone_by_us: u64, lives: impl Iterator<Item = LifeId>) {
        let ending: Vec<_> = self.lives().cloned().collect();
        self.outlive(gone_by_us, lives.chain(ending));
    }

    /// These lives are of a session that is over, and must be gone by then, or with what is left of
    /// such sessions already.
    pub(super) fn outlive(&mut self, gone_by_us: u64, lives: impl Iterator<Item = LifeId>) {
        let earlier_us = (!self.left.is_empty()).then_some(self.gone_by_us);
        self.gone_by_us = gone_by_us.min(earlier_us.unwrap_or(u64::MAX));
        self.left.extend(lives);
    }

    /// When what ended sessions have left must be gone; none when nothing is left of them.
    pub(super) fn gone_by_us(&self) -> Option<u64> {
        (!self.left.is_empty()).then_some(self.gone_by_us)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stops.is_empty() && self.displaced.is_empty()
    }

    /// Lives beside those that have the place of their key.
    pub(super) fn lives(&self) -> impl Iterator<Item = &LifeId> {
        self.stops.keys().chain(&self.displaced)
    }

    pub(super) fn has(&self, key: &ProcessKey, incarnation: Incarnation) -> bool {
        let life = (key.clone(), incarnation);
        self.stops.contains_key(&life) || self.displaced.contains(&life)
    }

    /// Milliseconds, rounded up, of the longest stop so far, those under way included: one
    /// that hangs is known before it has ended.
    pub(super) fn longest_ms(&self, now_us: u64) -> u32 {
        let oldest = self.stops.values().min();
        let hanging = oldest.map_or(0, |began_us| now_us.saturating_sub(*began_us));
        let longest_us = self.longest_us.max(hanging);
        u32::try_from(longest_us.div_ceil(1_000)).unwrap_or(u32::MAX)
    }
}

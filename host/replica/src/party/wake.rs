//! Parties that wait: a selector had nothing for one of their members, or nodes are on their way to a
//! new leader. They are decided anew when a node may be able to take what none could, and after the time
//! that was named.
//!
//! When capacity appears a pass begins, the oldest party first, some at a time and at least 50 ms apart,
//! so that churn in a full group costs little.
//!
//! **Invariants.** Whoever waits has a timer of its own. Every party that waits is decided anew after
//! each time that capacity appeared, or ends before its turn comes.

use std::collections::BTreeSet;

use super::Step;
use crate::recreation::sleepers::WAKE_US_MIN;
use crate::replica::Replica;
use crate::timer::{Due, TimerId};
use crate::waiting::AGAIN_PER_MS;

/// Members of which parties are woken at one time; the last party is woken with all of its own.
const SHARE_MAX: usize = 256;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Wake {
    waiting: BTreeSet<u64>,
    /// A pass is to begin.
    wanted: bool,
    /// Where the pass goes on that is under way.
    pass: Option<u64>,
    stepped_us: u64,
    timer: Option<TimerId>,
}

impl Wake {
    pub(super) fn remove(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// Whom to have decided now; they wait no more.
    fn step(&mut self, now_us: u64, members: impl Fn(u64) -> usize) -> Vec<u64> {
        if self.next_us().is_none_or(|next_us| next_us > now_us) {
            return Vec::new();
        }
        let from = self.pass.take().unwrap_or_else(|| {
            self.wanted = false;
            0
        });
        self.stepped_us = now_us;
        let (mut woken, mut share) = (Vec::new(), 0);
        for &number in self.waiting.range(from..) {
            if share >= SHARE_MAX {
                self.pass = Some(number);
                break;
            }
            share += members(number);
            woken.push(number);
        }
        for number in &woken {
            self.waiting.remove(number);
        }
        woken
    }

    /// When `step` has something to do.
    fn next_us(&self) -> Option<u64> {
        let wanted = self.wanted || self.pass.is_some();
        (wanted && !self.waiting.is_empty()).then_some(self.stepped_us + WAKE_US_MIN)
    }
}

impl super::Parties {
    /// A node may be able to take what none could a moment ago.
    pub(crate) fn wake(&mut self) {
        self.wake.wanted |= !self.wake.waiting.is_empty();
    }
}

impl Replica {
    /// Lets a party wait for so many milliseconds at most.
    pub(super) fn party_waits(&mut self, number: u64, ms: u32) {
        let least_ms = (self.parties.undecided() / AGAIN_PER_MS) as u64;
        let at_us = self.now.mono_us + u64::from(ms).max(least_ms) * 1_000;
        let Some(saga) = self.parties.all.get_mut(&number) else {
            return;
        };
        saga.step = Step::Waiting(self.timers.set(at_us, Due::PartyAgain(number)));
        let wake = &mut self.parties.wake;
        wake.waiting.insert(number);
        // It may have appeared while the party was being decided.
        wake.wanted |= saga.appeared != self.recreation.appeared();
    }

    /// A party that waits is decided anew.
    pub(crate) fn party_again(&mut self, number: u64) {
        let Some(saga) = self.parties.all.get(&number) else {
            return;
        };
        if let Step::Waiting(timer) = saga.step {
            self.timers.cancel(Some(timer));
            self.parties.wake.remove(number);
            self.decide_party(number);
        }
    }

    /// Has some of those that wait decided anew, when capacity has appeared.
    pub(crate) fn wake_parties(&mut self) {
        if self.serving.is_none() {
            return;
        }
        let all = &self.parties.all;
        let members = |number| all.get(&number).map_or(0, |saga| saga.creates.len());
        for number in self.parties.wake.step(self.now.mono_us, members) {
            self.party_again(number);
        }
        let wake = &mut self.parties.wake;
        let next_us = wake.next_us();
        if wake.timer.map(TimerId::at_us) == next_us {
            return;
        }
        self.timers.cancel(wake.timer.take());
        wake.timer = next_us.map(|at_us| self.timers.set(at_us, Due::Parties));
    }

    /// Some that wait may be decided anew now: the turn that is under way does so.
    pub(crate) fn parties_due(&mut self) {
        self.parties.wake.timer = None;
    }
}

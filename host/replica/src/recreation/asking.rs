//! Whose turn it is asks for a node; and what becomes of those that none takes.
//!
//! A turn asks for as many as fit one batch, so that whoever becomes more important while they are
//! decided comes before the rest, and a long queue holds nobody up. One that finds no node sleeps;
//! how it is woken is [`super::sleepers`]' business.

use std::sync::Arc;

use maitred_protocol::{Answered, ProcessKey};
use maitred_registry::Record;
use maitred_registry::candidates::Refused;
use maitred_registry::decide::Trace;

use super::sleepers::{Kind, WAKE_US_MIN};
use super::{Stage, Turn, turn_of};
use crate::replica::Replica;
use crate::saga::Step;

/// Microseconds after which those that a selector refused are tried again though no capacity has
/// appeared: what it looks at (loads, the time) changes without a word.
const SELECTOR_AGAIN_US: u64 = 5_000_000;

fn kind_of(record: &Record) -> Option<Kind> {
    let spec = record.spec.as_deref()?;
    Some(Kind {
        type_name: (*record.type_name).clone(),
        selector: spec.selector.clone(),
        require: spec.options.require.clone(),
        demand: record.demand,
    })
}

impl Replica {
    pub(super) fn wake_some(&mut self) {
        let most = self.config.batch_max.max(1);
        for turn in self.recreation.sleepers.step(self.now.mono_us, most) {
            if let Some(saga) = self.sagas.all.get_mut(&turn.key) {
                saga.step = Step::Queued;
                saga.again.woken = true;
                self.recreation.enqueue(&mut saga.again, turn);
            }
        }
    }

    pub(super) fn ask_some(&mut self) {
        let now_us = self.now.mono_us;
        let rate = self.config.recreate_per_second;
        let most = self.config.batch_max.max(1);
        // As many as a turn looks at, so that a long queue holds nobody up.
        for _ in 0..most {
            let recreation = &mut self.recreation;
            if recreation.deciding >= most || now_us < recreation.dry_until_us {
                return;
            }
            if recreation.queue.is_empty() {
                return;
            }
            if recreation.tokens.left(rate, now_us) == 0 {
                // A few at a time cost less than one by one.
                let next_us = recreation.tokens.next_us(rate);
                recreation.dry_until_us = next_us.max(now_us + WAKE_US_MIN);
                return;
            }
            if let Some(turn) = recreation.queue.pop_first() {
                self.ask(turn);
            }
        }
    }

    /// It is the turn of one that stood first in the queue.
    fn ask(&mut self, turn: Turn) {
        let record = self.registry.process(&turn.key).cloned();
        let kind = record.as_deref().and_then(kind_of);
        let Some(saga) = self.sagas.all.get_mut(&turn.key) else {
            return;
        };
        let recreation = &mut self.recreation;
        if let Some(kind) = kind
            && !saga.again.woken
            && let Some(trace) = recreation.sleepers.refusal(&kind)
        {
            let kind = recreation.sleepers.add(kind, turn.clone(), &trace);
            saga.again.stage = Stage::Asleep(turn, kind);
            saga.step = Step::Asleep;
            return;
        }
        let (rate, now_us) = (self.config.recreate_per_second, self.now.mono_us);
        recreation.tokens.take(rate, now_us);
        recreation.deciding += 1;
        saga.again.stage = Stage::Deciding;
        saga.again.appeared = recreation.appeared;
        self.ask_selector(&turn.key);
    }

    /// No node takes a wanted process.
    pub(crate) fn no_node(&mut self, key: &ProcessKey, trace: &Arc<Trace>) {
        let Some(record) = self.registry.process(key).cloned() else {
            return;
        };
        let Some((saga, kind)) = self.sagas.all.get_mut(key).zip(kind_of(&record)) else {
            return;
        };
        let any = |what: Refused| trace.refused.iter().any(|(_, why)| *why == what);
        let (by_budget, avoided) = (any(Refused::Budget), any(Refused::FailedBefore));
        // Where only tokens are short, those that come next are for whoever comes first: the others of its
        // kind wait behind it, though a node refuses it alone.
        let by_all = trace.refuses_all() || (by_budget && !trace.was_offered());
        let woken = std::mem::take(&mut saga.again.woken);
        self.recreation.let_go(&mut saga.again);
        saga.again.woken = woken;
        let turn = turn_of(&record);
        if avoided && !by_budget && !saga.again.widened {
            saga.again.widened = true;
            saga.step = Step::Queued;
            return self.recreation.enqueue(&mut saga.again, turn);
        }
        let now_us = self.now.mono_us;
        let missed = saga.again.appeared != self.recreation.appeared;
        let refused_by_all = by_all.then_some(&kind);
        self.recreation
            .answered(&mut saga.again, refused_by_all, true);
        let sleepers = &mut self.recreation.sleepers;
        let kind = sleepers.add(kind, turn.clone(), trace);
        saga.again.stage = Stage::Asleep(turn, kind);
        saga.step = Step::Asleep;
        if missed {
            sleepers.wake(now_us);
        }
        if by_budget {
            let token_us = 1_000_000 / u64::from(self.config.recreate_per_node_per_second.max(1));
            sleepers.wake(now_us + token_us.max(WAKE_US_MIN));
        }
        if !by_all {
            let again_us = match trace.answered {
                Answered::Wait(ms) => u64::from(ms) * 1_000,
                _ => SELECTOR_AGAIN_US,
            };
            sleepers.wake(now_us + again_us);
        }
    }

    /// A wanted process goes on to its next decision: at once, unless starts of it have failed.
    pub(crate) fn try_again(&mut self, key: &ProcessKey) {
        let saga = self.sagas.all.get(key);
        if saga.is_some_and(|saga| saga.again.failed > 0) {
            self.retry_later(key);
        } else {
            self.select(key);
        }
    }

    /// A process is not wanted any more, whoever may take it.
    pub(crate) fn forget(&mut self, key: &ProcessKey) {
        if let Some(saga) = self.sagas.all.get_mut(key) {
            saga.again.unwanted = true;
            self.give_up(key);
        }
    }
}

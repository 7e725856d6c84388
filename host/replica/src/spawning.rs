//! A process is started on its node: what is asked of the callback, and what comes back.
//!
//! What a node or a callback answers is checked here: a life that is over, an answer that came too
//! late, and texts beyond the protocol's bounds change nothing.

use std::sync::Arc;

use maitred_protocol::{Incarnation, ModuleKind, ProcessKey, ProcessState, limits as wire};
use maitred_registry::{AbortCause, Command, Record};

use crate::effect::{Effect, SpawnJob};
use crate::input::Spawned;
use crate::moves::MOVED;
use crate::mutants;
use crate::proposals::Waiter;
use crate::recreation::is_wanted;
use crate::replica::Replica;
use crate::saga::{KeyOf, Life, Step};
use crate::timer::Due;

/// The longest pause between two attempts, unless the first one is longer.
const BACK_OFF_US_MAX: u64 = 30_000_000;

/// What a re-creation waits for its node, when no client set a deadline.
const RECREATE_WITHIN_MS: u32 = 10_000;

impl Replica {
    /// A record is starting: its callback is to be run. Also when a node's new session takes a
    /// starting process over, and for every starting record when this host begins to lead.
    pub(crate) fn spawn(&mut self, record: &Arc<Record>) {
        let key = record.key();
        // Counted down by whatever ends the start, the abort below included.
        if let Some(lease) = self.leases.get_mut(record.epoch) {
            lease.spawning += 1;
        }
        // A party's reservation carries out no create: one that was on its way waits like any other.
        let is_partys = record.spec.as_ref().is_some_and(|spec| spec.party != 0);
        let saga = self.sagas.all.get(&key);
        let overtaken = saga.filter(|saga| is_partys && saga.incarnation.0 == 0);
        let overtaken = overtaken.is_some().then(|| self.end_saga(&key)).flatten();
        let deadline_passed = match self.sagas.all.get_mut(&key) {
            Some(saga) => {
                self.waiting.let_go(&mut saga.wait);
                saga.incarnation = record.incarnation;
                saga.step = Step::Spawning;
                saga.maker = maker_of(record);
                saga.stale = 0;
                saga.failed = None;
                saga.over = false;
                self.recreation.spend(&mut saga.again);
                self.timers.cancel(saga.retry.take());
                if !record.is_creating() {
                    // It has a node again, and is waited for no longer.
                    self.timers.cancel(saga.deadline.take());
                    saga.deadline_passed = false;
                }
                saga.deadline_passed
            }
            None => {
                self.adopt(record, Step::Spawning);
                false
            }
        };
        if let Some(overtaken) = overtaken {
            self.admit_again(overtaken.waiters);
        }
        let life = Life {
            key,
            incarnation: record.incarnation,
        };
        if deadline_passed && record.is_creating() {
            return self.abort(&life, AbortCause::Deadline);
        }
        let (Some(spec), Some(node)) = (record.spec.clone(), self.node_of(record)) else {
            debug_assert!(false, "{} starts without a spec or a node", life.key);
            return;
        };
        let within_ms = if record.is_creating() {
            let left = spec.deadline_at_ms.saturating_sub(self.now.wall_ms);
            u32::try_from(left).unwrap_or(u32::MAX).max(1)
        } else {
            RECREATE_WITHIN_MS
        };
        let callback = self
            .registry
            .active_module(&spec.callback, ModuleKind::Callback);
        let job = SpawnJob {
            key: life.key,
            incarnation: record.incarnation,
            spec,
            attempt: record.attempt,
            node,
            term: self.consensus.standing().term,
            callback,
            seed: record.why.seed,
            within_ms,
        };
        self.effects.push(Effect::Spawn(Box::new(job)));
    }

    /// Makes a saga for a record that has none.
    fn adopt(&mut self, record: &Arc<Record>, step: Step) {
        let key = record.key();
        let deadline = record.is_creating().then(|| {
            let at_ms = record.spec.as_ref().map_or(0, |spec| spec.deadline_at_ms);
            let left_us = at_ms.saturating_sub(self.now.wall_ms).saturating_mul(1_000);
            let due = Due::Deadline(key.clone());
            self.timers
                .set(self.now.mono_us.saturating_add(left_us), due)
        });
        let creates = record.is_creating();
        let saga = self.sagas.add(key, step, record.incarnation, creates);
        saga.deadline = deadline;
        saga.maker = maker_of(record);
    }

    /// A record needs a node.
    pub(crate) fn pending(&mut self, record: &Arc<Record>) {
        let known = match self.sagas.all.get_mut(&KeyOf::of(record)) {
            Some(saga) => {
                // How the attempt failed is on record now.
                saga.failed = None;
                saga.over = false;
                let waits = matches!(saga.step, Step::Selecting | Step::Waiting | Step::Held);
                if waits && record.is_creating() {
                    return;
                }
                true
            }
            None => {
                self.adopt(record, Step::Proposed);
                false
            }
        };
        if !record.is_creating() {
            return self.lost_its_node(record, known);
        }
        let key = record.key();
        let moved = self.is_moved(record);
        if record.attempt >= attempts_of(record) && !moved {
            let life = Life {
                key,
                incarnation: record.incarnation,
            };
            return self.abort(&life, AbortCause::SpawnFailed);
        }
        if moved {
            self.select(&key)
        } else {
            self.retry_later(&key)
        }
    }

    /// Sets a timer for the next try of a saga: exponential, from the create's back-off.
    pub(crate) fn retry_later(&mut self, key: &ProcessKey) {
        let record = self.registry.process(key);
        let wanted = record.is_some_and(|record| is_wanted(record));
        let options = record
            .and_then(|record| record.spec.as_ref())
            .map(|spec| &spec.options);
        let first_us = u64::from(options.map_or(50, |options| options.back_off_ms)) * 1_000;
        let Some(saga) = self.sagas.all.get_mut(key) else {
            return;
        };
        let pause = first_us
            .max(1_000)
            .saturating_mul(1 << saga.retries.min(16))
            .min(BACK_OFF_US_MAX.max(first_us));
        // Up to a quarter more, so that those that failed together do not come back together.
        let jitter = u64::from(self.random.below((pause / 4).max(1) as u32));
        saga.retries += 1;
        self.timers.cancel(saga.retry.take());
        let at_us = self.now.mono_us + pause + jitter;
        if wanted {
            saga.again.put_off(at_us);
            return self.select(key);
        }
        saga.step = Step::Waiting;
        saga.retry = Some(self.timers.set(at_us, Due::Retry(key.clone())));
    }

    /// A spawn has ended.
    pub(crate) fn spawned(
        &mut self,
        key: ProcessKey,
        incarnation: Incarnation,
        (result, over): (Spawned, bool),
    ) {
        let life = Life { key, incarnation };
        let record = self.registry.process(&life.key).cloned();
        let Some(record) = record.filter(|record| record.incarnation == incarnation) else {
            return;
        };
        let Some(saga) = self.sagas.current(&life) else {
            return;
        };
        if saga.step != Step::Spawning || record.state != ProcessState::Starting {
            return;
        }
        saga.over = over || mutants::on("hold-skipped-on-unknown");
        match within_bounds(result) {
            Spawned::Started { pid, share } => {
                saga.step = Step::Proposed;
                let command = Command::Confirm {
                    key: life.key.clone(),
                    incarnation,
                    pid,
                    share,
                };
                self.queue(None, command, Waiter::Saga(life));
            }
            Spawned::GiveUp(cause) if record.is_creating() => {
                saga.failed = Some(cause);
                self.abort(&life, AbortCause::SpawnFailed);
            }
            Spawned::Elsewhere(cause) if record.is_creating() => {
                saga.failed = Some(cause);
                if record.attempt >= attempts_of(&record) {
                    self.abort(&life, AbortCause::SpawnFailed);
                } else if over && saga.ranked.is_some() {
                    // That is another node's business: there is nothing to wait for.
                    self.select(&life.key);
                } else if over {
                    self.retry_later(&life.key);
                } else {
                    // Whether it runs is not known: its key waits until the node says.
                    let cause = saga.failed.take().unwrap_or_default();
                    self.unplace(&life, cause);
                }
            }
            // A wanted process goes back to waiting for a node, for as long as it takes.
            Spawned::GiveUp(cause) | Spawned::Elsewhere(cause) => self.unplace(&life, cause),
        }
    }
}

/// The request whose create the record is, while that is under way.
fn maker_of(record: &Record) -> Option<maitred_protocol::RequestId> {
    let spec = record.spec.as_ref().filter(|_| record.is_creating());
    spec.and_then(|spec| spec.request)
}

fn attempts_of(record: &Record) -> u32 {
    let spec = record.spec.as_ref();
    spec.map_or(1, |spec| u32::from(spec.options.attempts))
}

/// What a node says goes into the record, and so into the log of every host. It cannot make a failure
/// look like a move, which counts as none.
fn within_bounds(result: Spawned) -> Spawned {
    match result {
        Spawned::Elsewhere(cause) if cause.starts_with(MOVED) => {
            Spawned::Elsewhere(format!("failed: {cause}"))
        }
        Spawned::GiveUp(cause) if cause.starts_with(MOVED) => {
            Spawned::GiveUp(format!("failed: {cause}"))
        }
        Spawned::Started { pid, .. } if pid.len() > wire::PID_BYTES_MAX => {
            let text = format!("its node gave it a pid of {} bytes", pid.len());
            Spawned::Elsewhere(format!("{text}; at most {} will do", wire::PID_BYTES_MAX))
        }
        Spawned::Started { share, .. } if share.len() > wire::SHARE_BYTES_MAX => {
            let text = format!("its node shared {} bytes", share.len());
            Spawned::Elsewhere(format!("{text}; at most {} will do", wire::SHARE_BYTES_MAX))
        }
        other => other,
    }
}

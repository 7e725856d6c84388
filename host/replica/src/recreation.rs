//! Processes that have lost their node: when each of them is created again, and when it is given up.
//!
//! A pending process that ran before is wanted. It passes these gates, in this order: no earlier life
//! of it may go on ([`crate::holding`]), its back-off is over, nothing holds all of them up
//! ([`breaker`]), it is its turn (priority, then how long it has waited) and there is a token
//! ([`bucket`]), and a node takes it. Those that no node takes sleep until that may have changed
//! ([`sleepers`]). A decision is counted against its node's own bucket when it is made. Tokens that
//! come to nothing are given back.
//!
//! Creates of clients pass none of these gates. Nothing here is in the log: a new leader begins with
//! full buckets, and finds everything else in the records.
//!
//! **Invariants.** What stands in the queue, sleeps or is being decided is what its saga's [`Stage`]
//! says; all of it changes here, and [`Recreation::let_go`] takes a saga out of all of it. While
//! anything can go on without an event, a timer is set.

mod asking;
pub(crate) mod breaker;
pub(crate) mod bucket;
mod listing;
pub(crate) mod sleepers;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use maitred_protocol::{ProcessKey, ProcessState, TypeName};
use maitred_registry::{Change, Command, Event, Record};

use crate::moves::MOVED;
use crate::proposals::Waiter;
use crate::replica::Replica;
use crate::saga::{Life, Placed, Step};
use crate::timer::{Due, TimerId};
use breaker::Breaker;
use bucket::Bucket;
use sleepers::{Kind, Sleepers};

/// Whose turn it is: the smallest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    priority: Reverse<i32>,
    since_ms: u64,
    key: ProcessKey,
}

impl Turn {
    pub(crate) fn new(priority: Reverse<i32>, since_ms: u64, key: ProcessKey) -> Self {
        Self {
            priority,
            since_ms,
            key,
        }
    }

    pub(crate) fn into_key(self) -> ProcessKey {
        self.key
    }
}

/// Where a saga is on its way to a decision.
#[derive(Debug, Default)]
enum Stage {
    /// Not here.
    #[default]
    None,
    Queued(Turn),
    Asleep(Turn, Arc<Kind>),
    /// It has a token, and no decision yet.
    Deciding,
    /// It has a token and a node; that is not committed yet.
    Decided,
}

/// What a saga remembers for its process to be created again.
#[derive(Debug, Default)]
pub(crate) struct Again {
    stage: Stage,
    /// Attempts that failed since it last ran.
    failed: u32,
    /// Its back-off.
    not_before_us: u64,
    /// Its callback has advised to forget it.
    unwanted: bool,
    /// It has advised to start it where it ran, and that has not been tried yet.
    stays: bool,
    /// Nodes that failed it may be taken, too: no other would.
    widened: bool,
    /// It was woken, and the sleepers wait for what comes of it.
    woken: bool,
    /// How often capacity had appeared when it was asked for.
    appeared: u64,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Recreation {
    queue: BTreeSet<Turn>,
    sleepers: Sleepers,
    /// Sagas in [`Stage::Deciding`].
    deciding: usize,
    tokens: Bucket,
    /// When tokens are next looked for, after there were none.
    dry_until_us: u64,
    appeared: u64,
    breaker: Breaker,
    timer: Option<(u64, TimerId)>,
}

impl Recreation {
    /// Takes a saga out, wherever it is; a token comes back.
    pub(crate) fn let_go(&mut self, again: &mut Again) {
        match std::mem::take(&mut again.stage) {
            Stage::None => {}
            Stage::Queued(turn) => {
                self.queue.remove(&turn);
            }
            Stage::Asleep(turn, kind) => self.sleepers.remove(&kind, &turn),
            Stage::Deciding => {
                self.deciding -= 1;
                self.give_back();
            }
            Stage::Decided => self.give_back(),
        }
        self.answered(again, None, false);
    }

    /// How often capacity has appeared.
    pub(crate) fn appeared(&self) -> u64 {
        self.appeared
    }

    fn give_back(&mut self) {
        self.tokens.give_back();
        self.dry_until_us = 0;
    }

    /// It has a node.
    pub(crate) fn decided(&mut self, again: &mut Again) {
        if let Stage::Deciding = again.stage {
            self.deciding -= 1;
            again.stage = Stage::Decided;
        }
        self.answered(again, None, false);
    }

    /// It has been given to its node: the token is spent.
    pub(crate) fn spend(&mut self, again: &mut Again) {
        if let Stage::Decided = again.stage {
            again.stage = Stage::None;
        }
        self.let_go(again);
    }

    fn answered(&mut self, again: &mut Again, refused_by_all: Option<&Kind>, refused: bool) {
        if std::mem::take(&mut again.woken) {
            self.sleepers.answered(refused_by_all, refused);
        }
    }

    fn enqueue(&mut self, again: &mut Again, turn: Turn) {
        self.queue.insert(turn.clone());
        again.stage = Stage::Queued(turn);
    }
}

impl Again {
    /// Whether nodes that failed it are to be avoided.
    pub(crate) fn avoids(&self) -> bool {
        !self.widened
    }

    /// It is to be started where it ran, if that is possible at its next decision.
    pub(crate) fn stays(&mut self) {
        self.stays = true;
    }

    pub(crate) fn take_stays(&mut self) -> bool {
        std::mem::take(&mut self.stays)
    }

    /// Nothing is to be tried before this.
    pub(crate) fn put_off(&mut self, until_us: u64) {
        self.not_before_us = until_us;
    }
}

/// Whether a record is of this file's concern.
pub(crate) fn is_wanted(record: &Record) -> bool {
    record.state == ProcessState::Pending && !record.is_creating()
}

fn turn_of(record: &Record) -> Turn {
    let spec = record.spec.as_deref();
    Turn {
        priority: Reverse(spec.map_or(0, |spec| spec.options.priority)),
        since_ms: spec.map_or(0, |spec| spec.pending_ms),
        key: record.key(),
    }
}

/// How many attempts have failed since a process last ran, as far as that is on record: the first
/// failure is the loss of the node that it ran on, and a move is none.
fn failed_on_record(record: &Record) -> u32 {
    let moved = |cause: &str| cause.starts_with(MOVED);
    let attempts = record.failures().iter().skip(1);
    attempts.filter(|attempt| !moved(&attempt.cause)).count() as u32
}

impl Replica {
    /// A process that is wanted has lost its node, or failed to start on another. `known` says
    /// whether it had a saga already.
    pub(crate) fn lost_its_node(&mut self, record: &Arc<Record>, known: bool) {
        let key = record.key();
        let Some(saga) = self.sagas.all.get_mut(&key) else {
            return;
        };
        self.recreation.let_go(&mut saga.again);
        let last = record.failures().last();
        let moved = last.is_some_and(|last| last.cause.starts_with(MOVED));
        // The record keeps a few failures only.
        let counted = saga.again.failed + u32::from(known && !moved);
        saga.again.failed = failed_on_record(record).max(if known { counted } else { 0 });
        saga.again.widened = false;
        let failed = saga.again.failed;
        saga.retries = saga.retries.max(failed.saturating_sub(1));
        if self.set_patience(record) || self.asks(record) {
            return;
        }
        if moved {
            self.select(&key);
        } else {
            self.try_again(&key);
        }
    }

    /// Sets the timer at which a wanted process is given up; gives it up when that is due already, or
    /// its attempts are used up, and says so.
    fn set_patience(&mut self, record: &Record) -> bool {
        let spec = self.registry.type_spec(&record.type_name);
        let since_ms = record.spec.as_ref().map_or(0, |spec| spec.pending_ms);
        let key = record.key();
        let Some(saga) = self.sagas.all.get_mut(&key) else {
            return false;
        };
        self.timers.cancel(saga.deadline.take());
        saga.deadline_passed = false;
        if spec.pending_deadline_ms != 0 {
            let allowed_ms = u64::from(spec.pending_deadline_ms);
            let waited_ms = self.now.wall_ms.saturating_sub(since_ms);
            let at_us = self.now.mono_us + allowed_ms.saturating_sub(waited_ms) * 1_000;
            saga.deadline = Some(self.timers.set(at_us, Due::GiveUp(key.clone())));
        }
        let attempts = u32::from(spec.recreate_attempts);
        let over = attempts != 0 && saga.again.failed >= attempts;
        if over {
            saga.deadline_passed = true;
            self.give_up(&key);
        }
        over
    }

    /// A wanted process has waited for as long as its type allows.
    pub(crate) fn give_up_due(&mut self, key: &ProcessKey) {
        let wanted = self
            .registry
            .process(key)
            .is_some_and(|record| is_wanted(record));
        if let Some(saga) = self.sagas.all.get_mut(key)
            && wanted
        {
            saga.deadline = None;
            saga.deadline_passed = true;
            self.give_up(key);
        }
    }

    fn give_up(&mut self, key: &ProcessKey) {
        let Some(saga) = self.sagas.all.get_mut(key) else {
            return;
        };
        // What is on its way may yet succeed; if not, it comes here again.
        if saga.step == Step::Proposed && matches!(saga.again.stage, Stage::Decided) {
            return;
        }
        self.recreation.let_go(&mut saga.again);
        self.timers.cancel(saga.retry.take());
        saga.step = Step::Proposed;
        let (key, incarnation) = (key.clone(), saga.incarnation);
        let life = Life { key, incarnation };
        let key = life.key.clone();
        self.queue(
            None,
            Command::GiveUp { key, incarnation },
            Waiter::Saga(life),
        );
    }

    /// A wanted process, of which no earlier life goes on, waits for its back-off or its turn.
    pub(crate) fn line_up(&mut self, key: &ProcessKey, record: &Record) {
        let Some(saga) = self.sagas.all.get_mut(key) else {
            return;
        };
        if saga.deadline_passed || saga.again.unwanted {
            return self.give_up(key);
        }
        self.timers.cancel(saga.retry.take());
        if saga.again.not_before_us > self.now.mono_us {
            saga.step = Step::Waiting;
            let due = Due::Retry(key.clone());
            saga.retry = Some(self.timers.set(saga.again.not_before_us, due));
            return;
        }
        saga.step = Step::Queued;
        self.recreation.enqueue(&mut saga.again, turn_of(record));
    }

    /// A node may be able to take what none could a moment ago.
    pub(crate) fn capacity_appeared(&mut self) {
        self.recreation.appeared += 1;
        self.recreation.sleepers.wake(self.now.mono_us);
        self.waiting.wake(self.now.mono_us);
        self.parties.wake();
    }

    /// A decision has come to nothing.
    pub(crate) fn placement_void(&mut self, placed: Placed) {
        self.leases.give_back(placed);
        self.capacity_appeared();
    }

    /// What an event means for those that no node would take.
    pub(crate) fn follow_capacity(&mut self, event: &Event) {
        let appears = match event {
            Event::NodeUp { .. } | Event::NodeChanged(_) | Event::Module(_) => true,
            Event::Process(Change::Removed | Change::Pending, record) | Event::Ended(record) => {
                self.node_of(record).is_some()
            }
            _ => false,
        };
        if appears {
            self.capacity_appeared();
        }
    }

    /// A type's defaults have changed: how long its processes are waited for, and perhaps who takes
    /// them, and who can say that a lost node is dead.
    pub(crate) fn type_changed(&mut self, name: &TypeName) {
        if self.serving.is_none() {
            return;
        }
        self.fences_changed();
        self.capacity_appeared();
        let pending = self.registry.unsettled();
        let pending = pending.filter(|record| *record.type_name == *name && is_wanted(record));
        for record in pending.cloned().collect::<Vec<_>>() {
            self.set_patience(&record);
        }
    }

    /// Has as many decided as may be now, in their order.
    pub(crate) fn recreate(&mut self) {
        if self.serving.is_none() {
            return;
        }
        if !self.holds_recreation_up() {
            self.wake_some();
            self.ask_some();
        }
        self.set_recreation_timer();
    }

    pub(crate) fn recreation_due(&mut self) {
        self.recreation.timer = None;
    }

    /// When anything can go on though nothing happens.
    fn recreation_next_us(&self) -> Option<u64> {
        let recreation = &self.recreation;
        let now_us = self.now.mono_us;
        let breaker_us = recreation.breaker.until_us(now_us);
        if self.is_recreation_paused() {
            return breaker_us;
        }
        let waits = !recreation.queue.is_empty() && recreation.deciding < self.config.batch_max;
        let queue_us = waits.then_some(recreation.dry_until_us.max(now_us));
        queue_us
            .into_iter()
            .chain(recreation.sleepers.next_us())
            .min()
    }

    fn set_recreation_timer(&mut self) {
        let next_us = self.recreation_next_us();
        if self.recreation.timer.map(|(at_us, _)| at_us) == next_us {
            return;
        }
        let before = self.recreation.timer.take();
        self.timers.cancel(before.map(|(_, timer)| timer));
        self.recreation.timer = next_us.map(|at_us| (at_us, self.timers.set(at_us, Due::Recreate)));
    }
}

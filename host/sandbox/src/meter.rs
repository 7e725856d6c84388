//! How much a guest has computed, by the processor time of the thread that it runs on: a machine
//! that is busy with other things costs no guest its decision.
//!
//! The epoch ticks every millisecond, and a guest that meets a tick is asked after here. Selectors
//! have a [`Deadline`], which costs nothing until the first tick; callbacks and fences a [`Meter`],
//! which adds up the polls of their future, so that waiting for a node, or for a turn, does not count.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

/// A call gives way to others when it has computed so long without a pause.
const SLICE_NANOS: u64 = 1_000_000;

/// Nanoseconds that this thread has computed.
fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What a call on one thread may compute, to within a tick.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    budget_nanos: u64,
    /// When the first tick was met.
    since: Option<u64>,
}

impl Deadline {
    pub(crate) fn of_ms(budget_ms: u64) -> Self {
        Self {
            budget_nanos: budget_ms * 1_000_000,
            since: None,
        }
    }

    /// What becomes of a guest that met a tick.
    pub(crate) fn tick(&mut self) -> UpdateDeadline {
        let now = thread_nanos();
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) >= self.budget_nanos {
            UpdateDeadline::Interrupt
        } else {
            UpdateDeadline::Continue(1)
        }
    }
}

/// What a call on a fiber may compute. All in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    budget: AtomicU64,
    /// In the polls before this one.
    spent: AtomicU64,
    /// What the thread had computed when this poll began.
    poll_begun: AtomicU64,
}

impl Meter {
    /// Runs a call that may compute for `budget`.
    pub(crate) async fn run<T>(&self, budget: Duration, call: impl Future<Output = T>) -> T {
        self.budget.store(budget.as_nanos() as u64, Relaxed);
        self.spent.store(0, Relaxed);
        let mut call = pin!(call);
        poll_fn(|context| {
            self.poll_begun.store(thread_nanos(), Relaxed);
            let polled = call.as_mut().poll(context);
            if polled.is_pending() {
                self.spent.fetch_add(self.in_poll(), Relaxed);
            }
            polled
        })
        .await
    }

    /// What becomes of a guest that met a tick.
    pub(crate) fn tick(&self) -> UpdateDeadline {
        let in_poll = self.in_poll();
        if self.spent.load(Relaxed) + in_poll >= self.budget.load(Relaxed) {
            UpdateDeadline::Interrupt
        } else if in_poll < SLICE_NANOS {
            UpdateDeadline::Continue(1)
        } else {
            UpdateDeadline::Yield(1)
        }
    }

    /// A poll begins and ends on one thread.
    fn in_poll(&self) -> u64 {
        thread_nanos().saturating_sub(self.poll_begun.load(Relaxed))
    }
}

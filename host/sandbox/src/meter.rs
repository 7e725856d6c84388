//! How much a callback has computed. Only the time within a poll of its future counts, so waiting
//! for a node, or for a turn on the runtime, does not.
//!
//! The epoch ticks every millisecond; at each tick that a guest meets, [`Meter::tick`] says whether
//! it goes on. The clock is read twice a poll and once a tick.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use wasmtime::UpdateDeadline;

/// A guest gives way to others when it has computed so long without a pause.
const SLICE_NANOS: u64 = 1_000_000;

/// See the head of this file. All in nanoseconds since `base`, or of computing.
#[derive(Debug)]
pub(crate) struct Meter {
    base: Instant,
    budget: AtomicU64,
    spent: AtomicU64,
    poll_begun: AtomicU64,
}

impl Meter {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            base: Instant::now(),
            budget: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            poll_begun: AtomicU64::new(0),
        })
    }

    /// Runs a call that may compute for `budget`.
    pub(crate) async fn run<T>(&self, budget: Duration, call: impl Future<Output = T>) -> T {
        self.budget.store(budget.as_nanos() as u64, Relaxed);
        self.spent.store(0, Relaxed);
        let mut call = pin!(call);
        poll_fn(|context| {
            self.poll_begun.store(self.now(), Relaxed);
            let polled = call.as_mut().poll(context);
            self.spent.fetch_add(self.in_poll(), Relaxed);
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

    fn now(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }

    fn in_poll(&self) -> u64 {
        self.now().saturating_sub(self.poll_begun.load(Relaxed))
    }
}

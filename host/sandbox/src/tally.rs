//! What is counted of each module. The counters are written by the one who runs the module and
//! read by anybody; they only grow.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use maitred_protocol::{Digest, ModuleName};

/// Upper bounds, in microseconds, of the buckets of [`LaneCounters::micros_buckets`]; the last
/// bucket has none.
pub const MICROS_BUCKETS: [u32; 10] = [1, 2, 5, 10, 20, 50, 100, 500, 1_000, 5_000];

/// Why a fallback decided instead of the selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    NotLoaded,
    BreakerOpen,
    QueueFull,
    StartFailed,
    Trap,
    Timeout,
    BadAnswer,
    GuestError,
}

/// Fallbacks by their cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fallbacks {
    /// The module is not loaded on this host.
    pub not_loaded: u64,
    /// It failed too often and is not asked for a while.
    pub breaker_open: u64,
    /// Too many batches waited for it.
    pub queue_full: u64,
    /// No instance could be made.
    pub start_failed: u64,
    /// It trapped.
    pub trap: u64,
    /// It took too long.
    pub timeout: u64,
    /// It chose what was not a candidate.
    pub bad_answer: u64,
    /// It answered an error.
    pub guest_error: u64,
}

impl Fallbacks {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self {
            not_loaded,
            breaker_open,
            queue_full,
            start_failed,
            trap,
            timeout,
            bad_answer,
            guest_error,
        } = *self;
        not_loaded
            + breaker_open
            + queue_full
            + start_failed
            + trap
            + timeout
            + bad_answer
            + guest_error
    }
}

/// What a selector has done on this host since its lane was first used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneCounters {
    /// The name it is uploaded under.
    pub module: ModuleName,
    /// Its bytes. The counters begin anew with another digest or configuration.
    pub digest: Digest,
    /// Decisions, those of the fallback included.
    pub decisions: u64,
    /// Decisions of the fallback.
    pub fallbacks: Fallbacks,
    /// Instances that were replaced because they had been used enough.
    pub recycled: u64,
    /// Microseconds of all decisions.
    pub micros_sum: u64,
    /// Decisions by how long they took; see [`MICROS_BUCKETS`].
    pub micros_buckets: [u64; MICROS_BUCKETS.len() + 1],
    /// Whether it is not asked at the moment.
    pub breaker_open: bool,
    /// Lines that it wanted to log and that were dropped.
    pub log_lines_dropped: u64,
}

/// [`LaneCounters`] while they are written.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    decisions: AtomicU64,
    fallbacks: [AtomicU64; 8],
    pub(crate) recycled: AtomicU64,
    nanos: AtomicU64,
    buckets: [AtomicU64; MICROS_BUCKETS.len() + 1],
    pub(crate) lines_dropped: AtomicU64,
}

impl Tally {
    pub(crate) fn decided(&self, nanos: u64) {
        self.decisions.fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
        let bucket = MICROS_BUCKETS.partition_point(|&bound| u64::from(bound) * 1_000 < nanos);
        self.buckets[bucket].fetch_add(1, Relaxed);
    }

    pub(crate) fn fell_back(&self, cause: Cause) {
        self.fallbacks[cause as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn read(
        &self,
        module: &ModuleName,
        digest: Digest,
        breaker_open: bool,
    ) -> LaneCounters {
        let fallbacks = |cause: Cause| self.fallbacks[cause as usize].load(Relaxed);
        LaneCounters {
            module: module.clone(),
            digest,
            decisions: self.decisions.load(Relaxed),
            fallbacks: Fallbacks {
                not_loaded: fallbacks(Cause::NotLoaded),
                breaker_open: fallbacks(Cause::BreakerOpen),
                queue_full: fallbacks(Cause::QueueFull),
                start_failed: fallbacks(Cause::StartFailed),
                trap: fallbacks(Cause::Trap),
                timeout: fallbacks(Cause::Timeout),
                bad_answer: fallbacks(Cause::BadAnswer),
                guest_error: fallbacks(Cause::GuestError),
            },
            recycled: self.recycled.load(Relaxed),
            micros_sum: self.nanos.load(Relaxed) / 1_000,
            micros_buckets: std::array::from_fn(|at| self.buckets[at].load(Relaxed)),
            breaker_open,
            log_lines_dropped: self.lines_dropped.load(Relaxed),
        }
    }
}

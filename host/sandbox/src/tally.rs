//! What is counted of each module. The counters are written by the one who runs the module and
//! read by anybody; they only grow.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use maitred_protocol::{Answered, Digest};
use maitred_registry::decide::{LaneId, ModuleRef};
use maitred_registry::guard::GuardStats;

/// Upper bounds, in microseconds, of the buckets of [`LaneCounters::micros_buckets`]; the last
/// bucket has none. Each is at most half as much again as the one before, so that a quantile is off
/// by no more than that.
pub const MICROS_BUCKETS: [u32; 25] = [
    1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1_000, 1_500,
    2_000, 3_000, 5_000,
];

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
    /// It answered what is no answer: what was not a candidate, and the like.
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

/// What it said where it decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// A node, or several.
    pub chosen: u64,
    /// That no candidate will do.
    pub none: u64,
    /// That the process must not be created.
    pub rejected: u64,
    /// To be asked again.
    pub waited: u64,
}

/// What a selector has done on this host since its lane was first used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneCounters {
    /// The name it is uploaded under, and whether it is its canary.
    pub lane: LaneId,
    /// Its version. The counters begin anew with another activation.
    pub version: u32,
    /// Its bytes.
    pub digest: Digest,
    /// [`ModuleRef::config_hash`].
    pub config: u64,
    /// [`ModuleRef::activated`].
    pub activated: u64,
    /// Decisions, those of the fallback included.
    pub decisions: u64,
    /// Decisions of the fallback.
    pub fallbacks: Fallbacks,
    /// The others, those that had nothing to choose from excepted.
    pub verdicts: Verdicts,
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

impl LaneCounters {
    /// What it has done since `before`, or since its lane was first used, when that is of another
    /// activation or none.
    #[must_use]
    pub fn since(&self, before: Option<&Self>) -> GuardStats {
        let same = |before: &&Self| {
            let identity = |one: &Self| (one.lane.clone(), one.digest, one.config, one.activated);
            identity(before) == identity(self)
        };
        let before = before.filter(same);
        let more = |count: fn(&Self) -> u64| {
            let had = before.map_or(0, count);
            count(self).saturating_sub(had)
        };
        let mut buckets = self.micros_buckets;
        if let Some(before) = before {
            for (now, had) in buckets.iter_mut().zip(before.micros_buckets) {
                *now = now.saturating_sub(had);
            }
        }
        GuardStats {
            decisions: more(|one| one.decisions),
            traps: more(|one| one.fallbacks.trap),
            timeouts: more(|one| one.fallbacks.timeout),
            bad_answers: more(|one| one.fallbacks.bad_answer),
            errors: more(|one| {
                let Fallbacks {
                    not_loaded,
                    start_failed,
                    guest_error,
                    ..
                } = one.fallbacks;
                not_loaded + start_failed + guest_error
            }),
            rejected: more(|one| one.verdicts.rejected),
            none: more(|one| one.verdicts.none),
            waits: more(|one| one.verdicts.waited),
            p50_us: quantile_micros(&buckets, 500),
            p99_us: quantile_micros(&buckets, 990),
        }
    }
}

/// The bound of the bucket that so many thousandths of the decisions are at or below, in
/// microseconds; for the last one, which has none, twice the largest. 0 when there are no decisions.
#[must_use]
pub fn quantile_micros(buckets: &[u64; MICROS_BUCKETS.len() + 1], permille: u64) -> u64 {
    let total: u64 = buckets.iter().sum();
    let rank = (u128::from(total) * u128::from(permille)).div_ceil(1_000) as u64;
    if total == 0 {
        return 0;
    }
    let mut seen = 0;
    let at = buckets.iter().position(|count| {
        seen += count;
        seen >= rank
    });
    let last = MICROS_BUCKETS[MICROS_BUCKETS.len() - 1];
    let bound = at.and_then(|at| MICROS_BUCKETS.get(at).copied());
    u64::from(bound.unwrap_or(2 * last))
}

/// [`LaneCounters`] while they are written.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    decisions: AtomicU64,
    fallbacks: [AtomicU64; 8],
    verdicts: [AtomicU64; 4],
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

    pub(crate) fn answered(&self, answered: &Answered) {
        let at = match answered {
            Answered::Nothing => return,
            Answered::Chose | Answered::Ranked(_) => 0,
            Answered::None => 1,
            Answered::Rejected { .. } => 2,
            Answered::Wait(_) => 3,
        };
        self.verdicts[at].fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self, module: &ModuleRef, breaker_open: bool) -> LaneCounters {
        let fallbacks = |cause: Cause| self.fallbacks[cause as usize].load(Relaxed);
        let [chosen, none, rejected, waited] = &self.verdicts;
        LaneCounters {
            lane: LaneId {
                module: module.name.clone(),
                canary: module.canary,
            },
            version: module.version,
            digest: module.digest,
            config: module.config_hash,
            activated: module.activated,
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
            verdicts: Verdicts {
                chosen: chosen.load(Relaxed),
                none: none.load(Relaxed),
                rejected: rejected.load(Relaxed),
                waited: waited.load(Relaxed),
            },
            recycled: self.recycled.load(Relaxed),
            micros_sum: self.nanos.load(Relaxed) / 1_000,
            micros_buckets: std::array::from_fn(|at| self.buckets[at].load(Relaxed)),
            breaker_open,
            log_lines_dropped: self.lines_dropped.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let tally = Tally::default();
        for micros in 1..=100 {
            tally.decided(micros * 1_000);
        }
        let buckets = std::array::from_fn(|at| tally.buckets[at].load(Relaxed));
        assert_eq!(quantile_micros(&buckets, 500), 50);
        assert_eq!(quantile_micros(&buckets, 990), 100);
        assert_eq!(quantile_micros(&buckets, 10), 1);
        assert_eq!(quantile_micros(&[0; 26], 990), 0);
        let mut slow = [0; 26];
        slow[25] = 1;
        assert_eq!(quantile_micros(&slow, 990), 10_000);
    }

    #[test]
    fn each_bound_is_at_most_half_as_much_again() {
        for pair in MICROS_BUCKETS[2..].windows(2) {
            assert!(pair[0] < pair[1] && pair[1] <= pair[0] * 5 / 3, "{pair:?}");
        }
    }
}

//! What the load of `dev` has seen: counts, times, and the newest placements.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use maitred_protocol::{Chooser, ProcessKey, ProcessRecord};

use crate::process::chooser;

/// Placements that are remembered.
const RECENT: usize = 64;

/// One placement.
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    pub(crate) key: ProcessKey,
    pub(crate) node: String,
    pub(crate) by: String,
    pub(crate) fallback: bool,
    /// Microseconds of the decision.
    pub(crate) micros: u32,
    /// Of the whole create, as the client saw it.
    pub(crate) took: Duration,
}

pub(crate) struct Tally {
    pub(crate) creates: u64,
    pub(crate) failures: u64,
    pub(crate) fallbacks: u64,
    /// Ticks of the load that were left out because too many creates were under way.
    pub(crate) skipped: u64,
    pub(crate) by_node: BTreeMap<String, u64>,
    pub(crate) by_selector: BTreeMap<String, u64>,
    /// Microseconds of creates.
    pub(crate) creates_us: Histogram<u64>,
    /// Microseconds of decisions.
    pub(crate) decisions_us: Histogram<u64>,
    pub(crate) recent: VecDeque<Placement>,
    pub(crate) last_error: Option<String>,
    pub(crate) first: Option<Instant>,
}

/// Shared by the creates and whoever looks.
pub(crate) struct Stats(Mutex<Tally>);

/// Microseconds up to ten minutes, in three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds that fit")
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Tally {
            creates: 0,
            failures: 0,
            fallbacks: 0,
            skipped: 0,
            by_node: BTreeMap::new(),
            by_selector: BTreeMap::new(),
            creates_us: histogram(),
            decisions_us: histogram(),
            recent: VecDeque::new(),
            last_error: None,
            first: None,
        }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Tally> {
        // Counts stay usable whatever happened to a holder.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn created(&self, record: &ProcessRecord, took: Duration) {
        let by = chooser(&record.why.chooser);
        let fallback = matches!(record.why.chooser, Chooser::Fallback { .. });
        let node = record.node.to_string();
        let mut tally = self.lock();
        tally.creates += 1;
        tally.fallbacks += u64::from(fallback);
        tally.first.get_or_insert_with(Instant::now);
        *tally.by_node.entry(node.clone()).or_default() += 1;
        *tally.by_selector.entry(by.clone()).or_default() += 1;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        tally.creates_us.saturating_record(micros);
        tally
            .decisions_us
            .saturating_record(record.why.micros.into());
        tally.recent.push_front(Placement {
            key: record.key.clone(),
            node,
            by,
            fallback,
            micros: record.why.micros,
            took,
        });
        tally.recent.truncate(RECENT);
    }

    pub(crate) fn failed(&self, text: String) {
        let mut tally = self.lock();
        tally.failures += 1;
        tally.last_error = Some(text);
    }
}

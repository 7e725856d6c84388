//! Which lines of guests reach the host's log: so many a second of each module, whichever of its
//! instances writes them. The log is the process's, and so is this: a module that decides ten thousand
//! times a second would fill a disk otherwise, and hold up whoever else writes there.
//!
//! It knows names and a clock, and nothing of what the lines say.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use crate::limits::{LOG_BURST, LOG_LINES_PER_S};

/// Modules that are kept apart; more only while all of them write.
const MODULES_MAX: usize = 1_024;

static MODULES: LazyLock<Mutex<Buckets>> = LazyLock::new(Mutex::default);

/// Whether a module may write another line now.
pub(crate) fn admit(module: &str) -> bool {
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    modules.admit(module, Instant::now())
}

#[derive(Default)]
struct Buckets(HashMap<Box<str>, Bucket>);

/// Lines that may be written at once.
struct Bucket {
    lines: f64,
    at: Instant,
}

impl Bucket {
    fn lines_at(&self, now: Instant) -> f64 {
        let more = now.saturating_duration_since(self.at).as_secs_f64();
        (self.lines + more * f64::from(LOG_LINES_PER_S)).min(f64::from(LOG_BURST))
    }
}

impl Buckets {
    fn admit(&mut self, module: &str, now: Instant) -> bool {
        if !self.0.contains_key(module) {
            if self.0.len() >= MODULES_MAX {
                // A full one is as good as none.
                let full = f64::from(LOG_BURST);
                self.0.retain(|_, bucket| bucket.lines_at(now) < full);
            }
            let lines = f64::from(LOG_BURST);
            self.0.insert(module.into(), Bucket { lines, at: now });
        }
        let Some(bucket) = self.0.get_mut(module) else {
            return false;
        };
        (bucket.lines, bucket.at) = (bucket.lines_at(now), now);
        let admitted = bucket.lines >= 1.0;
        if admitted {
            bucket.lines -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_module_writes_a_burst_and_then_so_many_lines_a_second() {
        let mut buckets = Buckets::default();
        let begun = Instant::now();
        let mut write = |module: &str, ms: u64| {
            let now = begun + Duration::from_millis(ms);
            (0..1_000).filter(|_| buckets.admit(module, now)).count() as u32
        };
        assert_eq!(write("loud", 0), LOG_BURST);
        assert_eq!(write("loud", 0), 0);
        assert_eq!(write("other", 0), LOG_BURST);
        assert_eq!(write("loud", 500), LOG_LINES_PER_S / 2);
        assert_eq!(write("loud", 100_000), LOG_BURST);
    }

    #[test]
    fn names_that_come_and_go_are_forgotten() {
        let mut buckets = Buckets::default();
        let begun = Instant::now();
        for n in 0..5 * MODULES_MAX as u64 {
            let now = begun + Duration::from_millis(20 * n);
            assert!(buckets.admit(&format!("module-{n}"), now));
        }
        assert!(buckets.0.len() <= MODULES_MAX);
    }
}

//! When a selector that keeps failing is no longer asked: three failures within ten seconds open
//! the breaker; after a pause that doubles each time, one decision tries it again.
//!
//! Time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Failures that open the breaker, when they fall within [`WINDOW`].
const FAILURES: usize = 3;
const WINDOW: Duration = Duration::from_secs(10);

/// The first pause, and the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Breaker {
    failures: VecDeque<Instant>,
    /// Not asked until then. Still set during the trial.
    open_until: Option<Instant>,
    pause: Duration,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self {
            failures: VecDeque::with_capacity(FAILURES),
            open_until: None,
            pause: PAUSE_MIN,
        }
    }

    /// Whether the selector may be asked now, or how long it will not be.
    pub(crate) fn admit(&self, now: Instant) -> Result<(), Duration> {
        match self.open_until {
            Some(until) if now < until => Err(until - now),
            _ => Ok(()),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open_until.is_some()
    }

    pub(crate) fn succeeded(&mut self) {
        if self.open_until.take().is_some() {
            self.pause = PAUSE_MIN;
        }
    }

    /// Counts a failure; true when it opened the breaker.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        if self.open_until.is_some() {
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            self.open_until = Some(now + self.pause);
            return true;
        }
        self.failures.retain(|&at| now.duration_since(at) < WINDOW);
        self.failures.push_back(now);
        if self.failures.len() < FAILURES {
            return false;
        }
        self.failures.clear();
        self.open_until = Some(now + self.pause);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_ten_seconds_open_it_and_one_trial_closes_it() {
        let start = Instant::now();
        let at = |s: f64| start + Duration::from_secs_f64(s);
        let mut breaker = Breaker::new();
        // Too far apart: the first is out of the window when the third comes.
        assert!(!breaker.failed(at(0.0)) && !breaker.failed(at(5.0)) && !breaker.failed(at(10.0)));
        assert!(breaker.failed(at(11.0)));
        assert_eq!(breaker.admit(at(11.5)), Err(Duration::from_millis(500)));
        assert!(breaker.admit(at(12.0)).is_ok());
        // The trial fails: twice the pause.
        assert!(breaker.failed(at(12.0)));
        assert!(breaker.admit(at(13.9)).is_err() && breaker.admit(at(14.0)).is_ok());
        breaker.succeeded();
        assert!(!breaker.is_open());
        for s in [20.0, 20.1] {
            assert!(!breaker.failed(at(s)));
        }
        assert!(breaker.failed(at(20.2)) && breaker.admit(at(21.2)).is_ok());
    }

    #[test]
    fn the_pause_ends_at_five_minutes() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..40 {
            now += breaker.admit(now).err().unwrap_or_default();
            breaker.failed(now);
        }
        assert_eq!(breaker.admit(now), Err(PAUSE_MAX));
    }
}

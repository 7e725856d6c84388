//! When a selector that keeps failing is no longer asked: so many failures within a window open the
//! breaker ([`BreakerLimits`]); after a pause that doubles each time, one decision tries it again.
//!
//! Time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::BreakerLimits;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Breaker {
    limits: BreakerLimits,
    failures: VecDeque<Instant>,
    /// Not asked until then. Still set during the trial.
    open_until: Option<Instant>,
    pause: Duration,
}

impl Breaker {
    pub(crate) fn new(limits: &BreakerLimits) -> Self {
        Self {
            limits: limits.clone(),
            failures: VecDeque::with_capacity(limits.failures as usize),
            open_until: None,
            pause: Duration::from_millis(limits.pause_ms),
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
            self.pause = Duration::from_millis(self.limits.pause_ms);
        }
    }

    /// Counts a failure; true when it opened the breaker.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        if self.open_until.is_some() {
            let longest = Duration::from_millis(self.limits.pause_max_ms);
            self.pause = (self.pause * 2).min(longest);
            self.open_until = Some(now + self.pause);
            return true;
        }
        let window = Duration::from_millis(self.limits.window_ms);
        self.failures.retain(|&at| now.duration_since(at) < window);
        self.failures.push_back(now);
        if self.failures.len() < self.limits.failures as usize {
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
        let mut breaker = Breaker::new(&BreakerLimits::default());
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
        let mut breaker = Breaker::new(&BreakerLimits::default());
        for _ in 0..40 {
            now += breaker.admit(now).err().unwrap_or_default();
            breaker.failed(now);
        }
        assert_eq!(breaker.admit(now), Err(Duration::from_secs(300)));
    }
}

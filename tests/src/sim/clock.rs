//! The clocks of machines: each runs at a rate of its own, from a point of its own.
//!
//! True time is the simulator's: microseconds since it began. A machine's monotonic clock is true time
//! at the machine's rate; its wall clock may be stepped. Neither knows who reads it.

use maitred_registry::random::Random;
use maitred_replica::Now;

/// How far a clock's rate is from true time, at most: parts in a million, as the design allows.
pub const DRIFT_PPM_MAX: u32 = 20_000;

/// One machine's clocks.
#[derive(Debug, Clone)]
pub struct Clock {
    /// Microseconds of it in a second of true time.
    rate: u64,
    offset_us: u64,
    wall_ms: i64,
}

impl Clock {
    /// A clock with a drawn rate and beginning.
    pub fn drawn(random: &mut Random) -> Self {
        let rate =
            1_000_000 - u64::from(DRIFT_PPM_MAX) + u64::from(random.below(2 * DRIFT_PPM_MAX + 1));
        Self {
            rate,
            offset_us: 1_000_000 + u64::from(random.below(1_000_000_000)),
            wall_ms: 1_700_000_000_000 + i64::from(random.below(400)),
        }
    }

    /// The monotonic clock at true time `at_us`.
    pub fn mono_us(&self, at_us: u64) -> u64 {
        self.offset_us + at_us * self.rate / 1_000_000
    }

    /// Both clocks.
    pub fn now(&self, at_us: u64) -> Now {
        let mono_us = self.mono_us(at_us);
        let since_ms = (mono_us - self.offset_us) / 1_000;
        Now {
            mono_us,
            wall_ms: (self.wall_ms + since_ms as i64).max(0) as u64,
        }
    }

    /// The first true time at which the monotonic clock shows at least `mono_us`.
    pub fn true_us(&self, mono_us: u64) -> u64 {
        let since = u128::from(mono_us.saturating_sub(self.offset_us));
        let at = (since * 1_000_000).div_ceil(u128::from(self.rate));
        u64::try_from(at).unwrap_or(u64::MAX)
    }

    /// Sets the wall clock forward or back.
    pub fn step_wall(&mut self, by_ms: i64) {
        self.wall_ms += by_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_on_the_clock_is_reached_at_its_true_time_and_not_before() {
        for seed in 0..50 {
            let clock = Clock::drawn(&mut Random::new(seed));
            for at in [0, 1, 999, 1_000_003, 77_000_000] {
                let shown = clock.mono_us(at);
                let back = clock.true_us(shown);
                assert!(back <= at && clock.mono_us(back) >= shown);
            }
        }
    }
}

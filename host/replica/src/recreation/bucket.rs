//! A token bucket: so many a second, and at most a second's worth at once.
//!
//! It remembers what is owed rather than what is left, so that a new one is full whatever its rate,
//! and what was taken beyond its tokens is paid for later. Numbers are whole; time is an argument.

/// Parts of a token: a rate of one a second earns one part in a microsecond.
const PARTS: u64 = 1_000_000;

/// See the head of this file. The rate, in tokens a second, is the same in all calls, and not 0.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Bucket {
    owed: u64,
    at_us: u64,
}

impl Bucket {
    fn pay(&mut self, rate: u32, now_us: u64) {
        let earned = now_us
            .saturating_sub(self.at_us)
            .saturating_mul(u64::from(rate));
        self.owed = self.owed.saturating_sub(earned);
        self.at_us = self.at_us.max(now_us);
    }

    /// Tokens that are there now.
    pub(crate) fn left(&mut self, rate: u32, now_us: u64) -> u32 {
        self.pay(rate, now_us);
        let left = (u64::from(rate) * PARTS).saturating_sub(self.owed) / PARTS;
        left as u32
    }

    /// Takes one, whether it is there or not.
    pub(crate) fn take(&mut self, rate: u32, now_us: u64) {
        self.pay(rate, now_us);
        self.owed += PARTS;
    }

    /// One that was taken was not needed.
    pub(crate) fn give_back(&mut self) {
        self.owed = self.owed.saturating_sub(PARTS);
    }

    /// When there is one, if none is taken before.
    pub(crate) fn next_us(&self, rate: u32) -> u64 {
        let rate = u64::from(rate.max(1));
        let missing = (self.owed + PARTS).saturating_sub(rate * PARTS);
        self.at_us + missing.div_ceil(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_is_there_at_once_and_the_rest_comes_with_time() {
        let mut bucket = Bucket::default();
        for left in (1..=10).rev() {
            assert_eq!(bucket.left(10, 5), left);
            bucket.take(10, 5);
        }
        assert_eq!(bucket.left(10, 5), 0);
        assert_eq!(bucket.next_us(10), 100_005);
        assert_eq!(bucket.left(10, 100_004), 0);
        assert_eq!(bucket.left(10, 100_005), 1);
        assert_eq!(bucket.left(10, 60_000_000), 10, "never more than that");
    }

    #[test]
    fn what_was_taken_beyond_is_paid_for_and_what_was_not_needed_comes_back() {
        let mut bucket = Bucket::default();
        (0..3).for_each(|_| bucket.take(1, 0));
        assert_eq!(bucket.left(1, 2_000_000), 0);
        assert_eq!(bucket.left(1, 3_000_000), 1);
        bucket.take(1, 3_000_000);
        bucket.give_back();
        assert_eq!(bucket.left(1, 3_000_000), 1);
    }
}

//! Quantiles of what is measured again and again, in a bounded room.
//!
//! Buckets are log-linear, as in HdrHistogram: every octave has [`STEPS`] of one width, so a quantile is
//! off by at most 1 part in 64 of itself (1.6 %), and the largest value is exact. Values below
//! [`STEPS`] are exact too.

use maitred_protocol::Quantiles;

/// Buckets of one octave.
const STEPS: u64 = 32;
const STEPS_LOG: u32 = STEPS.trailing_zeros();
const BUCKETS: usize = (STEPS * (64 - STEPS_LOG as u64 + 1)) as usize;

/// Counts of values, 15 KiB.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Adds a value.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Adds all values of another.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest value; 0 when there is none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// What `permille` of 1,000 values are at most; 0 when there is none.
    #[must_use]
    pub fn quantile(&self, permille: u64) -> u64 {
        let rank = u128::from(self.count) * u128::from(permille.min(1_000));
        let rank = rank.div_ceil(1_000).max(1) as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(at).min(self.max);
            }
        }
        0
    }

    /// The usual ones.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        Quantiles {
            p50: self.quantile(500),
            p90: self.quantile(900),
            p99: self.quantile(990),
            max: self.max,
        }
    }
}

fn bucket(value: u64) -> usize {
    let octave = (64 - value.leading_zeros()).saturating_sub(STEPS_LOG + 1);
    // The first two octaves' worth are exact; from there on the top bits say the step.
    (u64::from(octave) * STEPS + (value >> octave)) as usize
}

/// The middle of a bucket.
fn middle(at: usize) -> u64 {
    let at = at as u64;
    let octave = (at / STEPS).saturating_sub(1);
    let low = (at - octave * STEPS) << octave;
    low + ((1 << octave) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_numbers_by_hand() {
        let mut times = Histogram::default();
        assert_eq!(times.quantiles(), Quantiles::default());
        (1..=10).for_each(|value| times.record(value));
        // The fifth, the ninth and the tenth of ten.
        let expected = Quantiles {
            p50: 5,
            p90: 9,
            p99: 10,
            max: 10,
        };
        assert_eq!(times.quantiles(), expected);
        times.record(1_000_003);
        assert_eq!(times.max(), 1_000_003);
        assert_eq!((times.count(), times.quantile(0)), (11, 1));
    }

    #[test]
    fn the_ends_of_the_range() {
        let mut times = Histogram::default();
        times.record(0);
        times.record(u64::MAX);
        assert_eq!(times.quantile(1), 0);
        assert!(times.quantile(1_000) >= u64::MAX - u64::MAX / 64);
    }

    proptest! {
        #[test]
        fn quantiles_are_close_to_sorting(
            values in prop::collection::vec((0_u32..64, any::<u64>()), 1..200),
            split in any::<prop::sample::Index>(),
            permille in 1_u64..=1_000,
        ) {
            let mut values: Vec<u64> = values.into_iter().map(|(by, value)| value >> by).collect();
            let split = split.index(values.len());
            let (mut all, mut rest) = (Histogram::default(), Histogram::default());
            values[..split].iter().for_each(|&value| all.record(value));
            values[split..].iter().for_each(|&value| rest.record(value));
            all.merge(&rest);
            values.sort_unstable();
            let rank = (values.len() as u64 * permille).div_ceil(1_000) as usize;
            let (exact, got) = (values[rank - 1], all.quantile(permille));
            prop_assert!(got.abs_diff(exact) <= exact / 50, "{got} for {exact}");
            prop_assert_eq!(all.max(), values[values.len() - 1]);
        }
    }
}

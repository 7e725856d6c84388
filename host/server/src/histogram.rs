//! How long something took, again and again, as Prometheus reads it.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets, in microseconds.
const BOUNDS_US: [u64; 13] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000,
];

/// A histogram; added to without order and without locks.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One a bound, and one for what is above all.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Adds one that took so many microseconds.
    pub(crate) fn observe(&self, micros: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Appends it. Writing to a string cannot fail.
    pub(crate) fn write(&self, name: &str, help: &str, text: &mut String) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut count = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let bound = BOUNDS_US
                .get(at)
                .map_or_else(|| "+Inf".to_owned(), |micros| seconds(*micros).to_string());
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let sum = seconds(self.sum_us.load(Ordering::Relaxed));
        let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {count}");
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_counts_all_up_to_its_bound() {
        let times = Histogram::default();
        for micros in [0, 250, 251, 4_000, 60_000_000] {
            times.observe(micros);
        }
        let mut text = String::new();
        times.write("x_seconds", "How long.", &mut text);
        for line in [
            "# TYPE x_seconds histogram",
            "x_seconds_bucket{le=\"0.00025\"} 2",
            "x_seconds_bucket{le=\"0.0005\"} 3",
            "x_seconds_bucket{le=\"0.0025\"} 3",
            "x_seconds_bucket{le=\"0.005\"} 4",
            "x_seconds_bucket{le=\"5\"} 4",
            "x_seconds_bucket{le=\"+Inf\"} 5",
            "x_seconds_sum 60.004501",
            "x_seconds_count 5",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
    }
}

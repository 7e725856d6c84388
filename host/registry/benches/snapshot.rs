//! How long applying stands still while a snapshot of a large state is taken.
//!
//! `cargo bench -p maitred-registry --bench snapshot [-- RECORDS]`
//!
//! The state is filled; then, three times, a snapshot is taken and encoded on another thread while
//! entries are applied. Told are the call that takes it, the longest that any single entry took then
//! (it copies its shard when it is the first there), and the longest without a snapshot. With
//! `GLIBC_TUNABLES=glibc.malloc.mxfast=0` it runs with the setting of the allocator that `maitred` makes
//! for itself (`host/cli/src/memory.rs` says why).

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop here"
)]
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock"
)]

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use maitred_registry::Registry;
use support::{BEGUN, begun, set_process};

struct Filled {
    registry: Registry,
    records: u64,
    index: u64,
}

impl Filled {
    fn new(records: u64) -> Self {
        let mut filled = Self {
            registry: begun(),
            records,
            index: BEGUN,
        };
        for id in 0..records {
            filled.apply(id);
        }
        filled
    }

    /// Applies one entry; how long that took.
    fn apply(&mut self, id: u64) -> Duration {
        self.index += 1;
        let (entry, mut events) = (set_process(id, None), Vec::new());
        let begun = Instant::now();
        self.registry.apply(self.index, entry, &mut events);
        begun.elapsed()
    }

    /// Applies for as long as `goes_on`; the longest single one, and how many.
    fn longest(&mut self, goes_on: impl Fn(u64) -> bool) -> (Duration, u64) {
        let (mut longest, mut count) = (Duration::ZERO, 0);
        while goes_on(count) {
            // A stride through the whole table, so that every shard is written to.
            let id = (count * 7_919) % self.records;
            longest = longest.max(self.apply(id));
            count += 1;
        }
        (longest, count)
    }
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|text| text.parse().ok());
    let records = asked.unwrap_or(1_000_000);
    println!("filling {records} records");
    let mut filled = Filled::new(records);
    let (longest, _) = filled.longest(|count| count < 500_000);
    println!("without a snapshot: the longest entry took {longest:?}");
    for _ in 0..3 {
        let begun = Instant::now();
        let snapshot = filled.registry.snapshot();
        let taken = begun.elapsed();
        let encoded = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&encoded);
        let encoder = std::thread::spawn(move || {
            let (begun, mut bytes) = (Instant::now(), 0);
            let written = snapshot.encode(|chunk| {
                bytes += chunk.len();
                Ok::<(), Infallible>(())
            });
            written.unwrap();
            drop(snapshot);
            done.store(true, Ordering::Relaxed);
            (begun.elapsed(), bytes)
        });
        let (longest, count) = filled.longest(|_| !encoded.load(Ordering::Relaxed));
        let (took, bytes) = encoder.join().unwrap();
        println!(
            "taken in {taken:?}; the longest of {count} entries meanwhile took {longest:?}; encoded {} MiB in {took:?}",
            bytes >> 20
        );
    }
}

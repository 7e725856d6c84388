//! The simulator over a fixed budget of seeds, and the bugs that it must catch.
//!
//! `SEEDS=A..B` runs other seeds, `RUNS=n` fewer or more of them.

mod budget;
mod found;
mod mutants;

/// Threads that the machine has for it: two at least, as the budget assumes.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

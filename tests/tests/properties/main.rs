//! What must hold whatever happens: random sequences, checked after every step.
//!
//! Each run follows from a seed, which a failure names. `SEED=n` runs that one alone, `RUNS=n` runs
//! more of them.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod registry;
mod replica;
mod world;

/// Calls `run` with one seed after another. A failure names its seed.
fn seeds(runs: u64, run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seeds = match number("SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("RUNS").unwrap_or(runs),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("failed with SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

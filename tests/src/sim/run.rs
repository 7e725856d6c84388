//! Runs scenarios: one, or many on several threads; a panic of anything in the world is a violation too.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cover::Cover;
use super::plan::Scenario;
use super::shrink;
use super::trace::Trace;
use super::world::{Violation, World};

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// What was wrong, if anything.
    pub violation: Option<Violation>,
    /// What occurred.
    pub cover: Cover,
    /// True microseconds that were simulated.
    pub simulated_us: u64,
    /// Events that were taken.
    pub events: u64,
    /// What happened, if it was kept.
    pub trace: Trace,
}

thread_local! {
    static SIMULATING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics within a run are reported, not printed.
fn catch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if SIMULATING.get() {
                PANIC.set(info.to_string());
            } else {
                before(info);
            }
        }));
    });
}

/// Runs a scenario to its end, or to the first violation.
#[must_use]
pub fn run(scenario: &Scenario, trace: bool) -> Report {
    catch_panics();
    super::mutant::switch_on(scenario.mutant);
    let mut world = World::new(scenario.clone(), Trace::new(trace));
    SIMULATING.set(true);
    let done = catch_unwind(AssertUnwindSafe(|| world.run()));
    SIMULATING.set(false);
    super::mutant::switch_on(None);
    let mut violation = world.violation.take();
    if done.is_err() {
        let text = PANIC.take();
        world.fail("panic", text);
        violation = world.violation.take();
    }
    Report {
        violation,
        cover: std::mem::take(&mut world.cover),
        simulated_us: world.now,
        events: world.events,
        trace: std::mem::take(&mut world.trace),
    }
}

/// What came of many runs.
#[derive(Debug, Default)]
pub struct Sum {
    /// Runs.
    pub seeds: u64,
    /// What occurred in all of them.
    pub cover: Cover,
    /// True microseconds that were simulated.
    pub simulated_us: u64,
    /// Events that were taken.
    pub events: u64,
    /// Those that failed, lowest seed first.
    pub failures: Vec<(Scenario, Violation)>,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.cover.merge(&other.cover);
        self.simulated_us += other.simulated_us;
        self.events += other.events;
        self.failures.extend(other.failures);
    }
}

/// Runs the scenarios of many seeds on several threads; stops soon after so many have failed.
#[must_use]
pub fn run_many(
    seeds: Range<u64>,
    threads: usize,
    failures_max: u64,
    make: impl Fn(u64) -> Scenario + Sync,
) -> Sum {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(0);
    let worker = || {
        let mut sum = Sum::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failed.load(Ordering::Relaxed) >= failures_max {
                return sum;
            }
            let scenario = make(seed);
            let report = run(&scenario, false);
            sum.seeds += 1;
            sum.cover.merge(&report.cover);
            sum.simulated_us += report.simulated_us;
            sum.events += report.events;
            if let Some(violation) = report.violation {
                failed.fetch_add(1, Ordering::Relaxed);
                sum.failures.push((scenario, violation));
            }
        }
    };
    let mut all = Sum::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            all.add(worker.join().expect("a run's panic is caught in the run"));
        }
    });
    all.failures.sort_by_key(|(scenario, _)| scenario.seed);
    all
}

/// Tells a failure for a person: the seed, the property, the least scenario that fails alike, and the
/// last lines of its trace.
#[must_use]
pub fn explain(scenario: &Scenario, violation: &Violation, lines: usize) -> String {
    let (least, report) = shrink::shrink(scenario, violation);
    let found = report.violation.as_ref().unwrap_or(violation);
    let hosts = if scenario.hosts == 3 {
        String::new()
    } else {
        format!(" --hosts {}", scenario.hosts)
    };
    let mut text = format!(
        "seed {} violates {}: {}\n\nreplay: cargo run -p maitred-tests --release --bin sim -- --trace {}{hosts}\n\nthe least scenario that fails alike ({} of {} faults, {} clients, {} nodes, {:.1} s of chaos):\n  {}: {}\n",
        scenario.seed,
        violation.checker,
        violation.text,
        scenario.seed,
        least.plan.len(),
        scenario.plan.len(),
        least.clients,
        least.nodes,
        least.chaos_us as f64 / 1e6,
        found.checker,
        found.text,
    );
    text.push_str(&format!("  {:?}\n", least.knobs));
    for (at, fault) in &least.plan {
        text.push_str(&format!("  {:9.6} s  {fault}\n", *at as f64 / 1e6));
    }
    text.push_str("\nthe last of its trace:\n");
    for line in report.trace.last(lines) {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

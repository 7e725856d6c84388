//! Where hostile guests are let loose: a sandbox with its default limits, and a good selector that
//! must be served before, beside and after them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::ModuleKind;
use maitred_registry::decide::{Decision, ModuleRef};
use maitred_sandbox::{Inspected, Lanes, Limits, ModuleError, Stage};

use crate::support::guests::{Parts, choose};
use crate::support::{Bench, batch, bench, cause, decide_one, decided, fleet, jobs};

/// The longest that a refusal may take that needs no compiler, and one that does: the machine may
/// be busy, and nothing here is near it.
const SCANNED: Duration = Duration::from_secs(10);
const COMPILED: Duration = Duration::from_secs(45);

/// The most memory that this process may ever have had: all tests, side by side.
const PEAK_BYTES: u64 = 1 << 30;

/// The longest reason that is still one: people read it.
const REASON_BYTES: usize = 2 << 10;

/// See the head of this file.
pub(crate) struct Arena {
    pub(crate) bench: Bench,
    pub(crate) lanes: Lanes,
    good: ModuleRef,
}

impl Arena {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let bench = bench(limits);
        let good = bench.load("good", ModuleKind::Selector, &good(), "{}");
        let lanes = Lanes::new(Arc::clone(&bench.sandbox));
        Self { bench, lanes, good }
    }

    /// What an upload of these bytes is answered.
    pub(crate) fn upload(&self, kind: ModuleKind, bytes: &[u8]) -> Result<Inspected, ModuleError> {
        let begun = Instant::now();
        let answer = self.bench.sandbox.inspect(kind, bytes, |_| ());
        let took = begun.elapsed();
        let scanned = matches!(&answer, Err(error) if compiles_not(error.stage));
        let most = if scanned { SCANNED } else { COMPILED };
        assert!(took < most, "{took:?} until {answer:?}");
        if let Err(ModuleError { reason, .. }) = &answer {
            let length = reason.len();
            assert!(length <= REASON_BYTES, "a reason of {length} bytes");
        }
        self.serves();
        answer
    }

    /// Expects an upload to be refused there, and the reason to say that.
    #[track_caller]
    pub(crate) fn refuses(&self, kind: ModuleKind, bytes: &[u8], stage: Stage, says: &str) {
        match self.upload(kind, bytes) {
            Err(error) => assert!(
                error.stage == stage && error.reason.contains(says),
                "expected {says:?} while {stage}; {error}"
            ),
            Ok(inspected) => panic!("expected {says:?}; it was accepted: {inspected:?}"),
        }
    }

    /// Whether the good module decides, and the process is within its bounds.
    #[track_caller]
    pub(crate) fn serves(&self) {
        let decision = decide_one(&self.lanes, &self.good);
        assert_eq!(cause(&decision), None, "the good module does not decide");
        let peak = peak_bytes();
        assert!(peak < PEAK_BYTES, "the process has had {peak} bytes");
    }

    /// Decisions of a guest that an upload accepted; the good one is served at the same time.
    pub(crate) fn decide(&self, guest: &[u8], count: u64) -> Vec<Decision> {
        self.upload(ModuleKind::Selector, guest)
            .unwrap_or_else(|error| panic!("{error}"));
        let hostile = self
            .bench
            .load("hostile", ModuleKind::Selector, guest, "{}");
        let decisions = std::thread::scope(|scope| {
            let deciding =
                scope.spawn(|| decided(&self.lanes, batch(&hostile, fleet(8, 1), jobs(count, 1))));
            while !deciding.is_finished() {
                self.serves();
            }
            deciding.join().unwrap()
        });
        self.serves();
        decisions
    }

    /// Why the fallback made the first of those decisions. The breaker must have made most others.
    #[track_caller]
    pub(crate) fn falls_back(&self, guest: &[u8], says: &str) {
        let begun = Instant::now();
        let decisions = self.decide(guest, 50);
        assert!(begun.elapsed() < COMPILED, "{:?}", begun.elapsed());
        let causes: Vec<&str> = decisions.iter().map(|one| cause(one).unwrap()).collect();
        assert!(causes[0].contains(says), "expected {says:?}: {}", causes[0]);
        let bypassed = causes
            .iter()
            .filter(|cause| cause.starts_with("it failed too often"));
        assert!(bypassed.count() >= 40, "{causes:?}");
    }
}

fn compiles_not(stage: Stage) -> bool {
    matches!(
        stage,
        Stage::Receiving | Stage::Scanning | Stage::CheckingTheWorld
    )
}

/// A selector that chooses the first node, and another module than any of the tests'.
fn good() -> Vec<u8> {
    Parts::body(&choose("(i32.load (i32.load offset=80 (local.get $args)))")).selector()
}

/// The most memory that this process has had.
pub(crate) fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

/// A condition in a guest: the trial of an upload is over, and this is somebody's process. The trial's type has
/// another length than `player`.
const IN_EARNEST: &str = "(i32.eq (i32.load offset=4 (local.get $args)) (i32.const 6))";

/// A body that behaves itself in the trial, and does `what` in earnest.
pub(crate) fn in_earnest(what: &str) -> String {
    let first = choose("(i32.load (i32.load offset=80 (local.get $args)))");
    format!("(if {IN_EARNEST} (then {what})) {first}")
}

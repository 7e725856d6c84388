//! Shadows: what a lane decided is decided once more and compared; a lane waits for none of it.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use maitred_protocol::{Digest, ModuleKind};
use maitred_registry::decide::ModuleRef;
use maitred_sandbox::{Lanes, Limits, ShadowReport, Shadows};
use support::guests::{Parts, choose, first, none, unlucky};
use support::{Bench, batch, bench, cause, decided, fleet, jobs, module, patient, prebuilt};

struct World {
    bench: Bench,
    lanes: Lanes,
    shadows: Arc<Shadows>,
    active: ModuleRef,
    /// What `Shadows` finds on this host.
    bytes: Arc<Mutex<HashMap<Digest, Vec<u8>>>>,
}

/// A host on which `first` decides.
fn world(limits: Limits) -> World {
    let bench = bench(limits);
    let bytes = Arc::<Mutex<HashMap<Digest, Vec<u8>>>>::default();
    let found = Arc::clone(&bytes);
    let shadows = Shadows::new(Arc::clone(&bench.sandbox), move |digest| {
        found.lock().unwrap().get(digest).cloned()
    });
    let lanes = Lanes::with_shadows(Arc::clone(&bench.sandbox), Arc::clone(&shadows));
    let active = bench.load("tester", ModuleKind::Selector, &first(), "{}");
    World {
        bench,
        lanes,
        shadows,
        active,
        bytes,
    }
}

impl World {
    /// A version that runs in shadow.
    fn shadow(&self, guest: &[u8]) -> ModuleRef {
        let digest = Digest::of(guest);
        self.bytes.lock().unwrap().insert(digest, guest.to_vec());
        ModuleRef {
            version: 4,
            activated: 2,
            ..module("tester", guest, "{}")
        }
    }

    fn decide(&self, shadow: &ModuleRef, nodes: u32, seed: u32, count: u64) {
        let mut batch = batch(&self.active, fleet(nodes, 1), jobs(count, seed));
        batch.shadow = Some(shadow.clone());
        for decision in decided(&self.lanes, batch) {
            assert_eq!(cause(&decision), None);
        }
    }

    /// The report, once that many decisions were compared or skipped.
    fn after(&self, decisions: u64) -> ShadowReport {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let report = self.shadows.report(&self.active.name);
            if let Some(report) = report
                && report.comparison.decisions + report.comparison.skipped >= decisions
            {
                return report;
            }
            assert!(Instant::now() < patience, "nothing is compared");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_shadow_that_decides_alike_agrees_to_the_bit() {
    let world = world(patient());
    let shadow = ModuleRef {
        activated: 2,
        ..world.shadow(&first())
    };
    world.decide(&shadow, 20, 1, 40);
    let ShadowReport {
        shadow: reported,
        comparison,
        broken,
    } = world.after(40);
    assert_eq!((reported, broken), (shadow, None));
    assert_eq!(
        (comparison.decisions, comparison.agreed, comparison.skipped),
        (40, 40, 0)
    );
    assert!(comparison.fuel.p50 > 0 && comparison.nanos.p50 > 0);
    assert_eq!(comparison.spread_decided, comparison.spread_other);
}

#[test]
fn it_sees_the_decisions_of_the_active_version_and_not_its_own() {
    let world = world(patient());
    // The active version puts all on one node; least-loaded, asked beside it, never would, and sees
    // that node fill up.
    let shadow = world.shadow(&prebuilt("least-loaded"));
    world.decide(&shadow, 6, 1, 30);
    let comparison = world.after(30).comparison;
    assert_eq!(comparison.decisions, 30);
    assert!(
        comparison.moved > 0 && comparison.traps == 0,
        "{comparison:?}"
    );
    // It would have put nearly all on the one node that is the emptiest all the while.
    assert!(comparison.spread_decided.max > comparison.spread_decided.mean as u32);
}

#[test]
fn refusals_and_failures_are_told_apart() {
    let world = world(patient());
    world.decide(&world.shadow(&Parts::body(&none()).selector()), 8, 1, 5);
    assert_eq!(world.after(5).comparison.newly_rejected, 5);
    world.decide(&world.shadow(&unlucky("unreachable")), 8, 11, 5);
    // Another shadow: the comparison has begun anew.
    let patience = Instant::now() + Duration::from_secs(60);
    let comparison = loop {
        let comparison = world.after(5).comparison;
        if comparison.newly_rejected == 0 || Instant::now() > patience {
            break comparison;
        }
    };
    assert_eq!((comparison.decisions, comparison.traps), (5, 1));
    let nonsense = Parts::body(&choose("(i32.const 4000)")).selector();
    world.decide(&world.shadow(&nonsense), 8, 1, 3);
    while world.after(3).comparison.bad_answers < 3 {
        assert!(Instant::now() < patience);
    }
}

#[test]
fn a_lane_waits_for_no_shadow() {
    let world = world(Limits {
        shadow_batches: 1,
        ..patient()
    });
    // The thread of shadows stands still in the look-up of its bytes.
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let (entered, waiting) = mpsc::channel();
    let shadows = Shadows::new(Arc::clone(&world.bench.sandbox), move |_| {
        entered.send(()).unwrap();
        gate.lock().unwrap().recv().unwrap();
        Some(first())
    });
    let world = World {
        lanes: Lanes::with_shadows(Arc::clone(&world.bench.sandbox), Arc::clone(&shadows)),
        shadows,
        ..world
    };
    let shadow = world.shadow(&first());
    world.decide(&shadow, 8, 1, 2);
    waiting.recv().unwrap();
    // One batch waits; eight more are dropped, and every one of them is decided.
    for _ in 0..9 {
        world.decide(&shadow, 8, 1, 2);
    }
    open.send(()).unwrap();
    let comparison = world.after(20).comparison;
    assert_eq!((comparison.decisions, comparison.skipped), (4, 16));
}

#[test]
fn what_waits_holds_no_traces_and_is_bounded_in_bytes() {
    let world = world(Limits {
        shadow_bytes: 1 << 20,
        ..patient()
    });
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let (entered, waiting) = mpsc::channel();
    let shadows = Shadows::new(Arc::clone(&world.bench.sandbox), move |_| {
        entered.send(()).unwrap();
        gate.lock().unwrap().recv().unwrap();
        Some(first())
    });
    let world = World {
        lanes: Lanes::with_shadows(Arc::clone(&world.bench.sandbox), Arc::clone(&shadows)),
        shadows,
        ..world
    };
    let shadow = world.shadow(&first());
    // Some 320 KB of nodes each: three fit.
    let decide = || {
        let mut batch = batch(&world.active, fleet(5_000, 1), jobs(4, 1));
        batch.shadow = Some(shadow.clone());
        let decisions = decided(&world.lanes, batch).into_iter();
        let traces = decisions.map(|decision| Arc::downgrade(&decision.trace));
        traces.collect::<Vec<_>>()
    };
    let mut traces = decide();
    waiting.recv().unwrap();
    (0..9).for_each(|_| traces.extend(decide()));
    // What is behind a lane gets its batch after the decisions are out: a further batch comes later.
    let report = || world.shadows.report(&world.active.name).unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while report().comparison.skipped < 7 * 4 {
        assert!(Instant::now() < patience, "{:?}", report());
        std::thread::yield_now();
    }
    assert!(traces.iter().all(|trace| trace.upgrade().is_none()));
    open.send(()).unwrap();
    let comparison = world.after(40).comparison;
    assert_eq!((comparison.decisions, comparison.skipped), (12, 28));
}

#[test]
fn one_that_cannot_be_had_says_why_and_ends_when_it_is_over() {
    let world = world(patient());
    let unknown = module("tester", b"unknown", "{}");
    world.decide(&unknown, 8, 1, 3);
    let report = world.after(3);
    assert_eq!(
        report.broken.as_deref(),
        Some("its bytes are not on this host")
    );
    assert_eq!(
        (report.comparison.decisions, report.comparison.skipped),
        (0, 3)
    );
    world.shadows.retain(|shadow| shadow.version == 99);
    assert_eq!(world.shadows.report(&world.active.name), None);
    assert_eq!(world.lanes.counters()[0].decisions, 3);
}

#[test]
fn one_that_could_not_be_had_at_first_is_tried_again() {
    let world = world(patient());
    // Not there yet; then the host itself fails on it; then all is well.
    let asked = Mutex::new(0);
    let shadows = Shadows::new(Arc::clone(&world.bench.sandbox), move |_| {
        let asked = {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            *asked
        };
        match asked {
            1 => None,
            2 => panic!("on purpose"),
            _ => Some(first()),
        }
    });
    let world = World {
        lanes: Lanes::with_shadows(Arc::clone(&world.bench.sandbox), Arc::clone(&shadows)),
        shadows,
        ..world
    };
    let shadow = world.shadow(&first());
    let patience = Instant::now() + Duration::from_secs(60);
    let (mut decided, mut said) = (0, Vec::new());
    let report = loop {
        world.decide(&shadow, 8, 1, 2);
        decided += 2;
        let report = world.after(decided);
        if report.comparison.decisions > 0 {
            break report;
        }
        assert!(Instant::now() < patience, "{report:?}");
        said.extend(report.broken);
    };
    said.dedup();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[0], "its bytes are not on this host");
    assert!(said[1].contains("a bug"), "{said:?}");
    assert_eq!(report.broken, None);
    assert_eq!(
        (report.comparison.decisions, report.comparison.agreed),
        (2, 2)
    );
    assert_eq!(report.comparison.skipped, decided - 2);
}

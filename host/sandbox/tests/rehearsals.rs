//! Rehearsals: the same input gives the same decision and the same fuel; computing ends at a count
//! and not at a time; and nothing that a guest does costs more than its rehearsal.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use maitred_protocol::{Chooser, Digest, ModuleKind};
use maitred_registry::inputs::Outcome;
use maitred_sandbox::{
    CompilerCommand, Failed, Lanes, Limits, Rehearsal, Rehearsed, Sandbox, Stage,
};
use rustix::time::{ClockId, clock_gettime};
use support::guests::{FIRST, LOG, Parts, START, choose, first, spin, start, unlucky};
use support::{
    batch, bench, compiler, decided, fleet, jobs, module, patient, prebuilt, sandbox_in,
};

fn rehearsal(sandbox: &Arc<Sandbox>, guest: &[u8]) -> Rehearsal {
    Rehearsal::new(sandbox, module("tester", guest, "{}"), guest).unwrap()
}

/// One decision over eight nodes.
fn one(rehearsal: &Rehearsal, seed: u32) -> Rehearsed {
    rehearsal.consider(&Arc::new(fleet(8, 1)), &jobs(1, seed)[0], 1_700_000_000)
}

#[test]
fn the_same_input_gives_the_same_decision_and_the_same_fuel() {
    let sandbox = bench(patient()).sandbox;
    let other = Sandbox::for_tools(compiler()).unwrap();
    for name in [
        "least-loaded",
        "two-choices",
        "rendezvous",
        "spread",
        "round-robin",
    ] {
        let guest = prebuilt(name);
        let (here, there) = (rehearsal(&sandbox, &guest), rehearsal(&other, &guest));
        let nodes = Arc::new(fleet(60, 5));
        let all = jobs(30, 3);
        let run = |rehearsal: &Rehearsal, backwards: bool| {
            let mut order: Vec<_> = all.iter().collect();
            if backwards {
                order.reverse();
            }
            let rehearsed = order.into_iter().map(|job| {
                let rehearsed = rehearsal.consider(&nodes, job, 1_700_000_000);
                assert_eq!(rehearsed.failed, None);
                (job.id, Outcome::of(&rehearsed.decision), rehearsed.fuel)
            });
            let mut rehearsed: Vec<_> = rehearsed.collect();
            rehearsed.sort_by_key(|(id, ..)| *id);
            rehearsed
        };
        let forwards = run(&here, false);
        assert!(forwards.iter().all(|(.., fuel)| *fuel > 0));
        // Another host, another order.
        assert_eq!(forwards, run(&there, true), "{name}");
    }
}

#[test]
fn it_decides_what_a_lane_decides() {
    let bench = bench(patient());
    let guest = prebuilt("least-loaded");
    let module = bench.load("tester", ModuleKind::Selector, &guest, "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let nodes = fleet(40, 2);
    let decisions = decided(&lanes, batch(&module, nodes.clone(), jobs(50, 1)));
    let rehearsal = Rehearsal::new(&bench.sandbox, module, &guest).unwrap();
    let mut followed = Arc::new(nodes);
    for (job, decision) in jobs(50, 1).iter().zip(decisions) {
        let rehearsed = rehearsal.decide(&mut followed, job, 1_700_000_000);
        assert_eq!(Outcome::of(&rehearsed.decision), Outcome::of(&decision));
        assert!(rehearsed.nanos > 0 && rehearsed.steady);
    }
}

#[test]
fn to_consider_counts_nothing() {
    let sandbox = bench(patient()).sandbox;
    let rehearsal = rehearsal(&sandbox, &first());
    let mut nodes = Arc::new(fleet(8, 1));
    let before = nodes.as_ref().clone();
    let job = &jobs(1, 1)[0];
    assert!(
        rehearsal
            .consider(&nodes, job, 1)
            .decision
            .trace
            .chosen
            .is_some()
    );
    assert!(*nodes == before || format!("{nodes:?}") == format!("{before:?}"));
    let chosen = rehearsal
        .decide(&mut nodes, job, 1)
        .decision
        .trace
        .chosen
        .unwrap() as usize;
    assert_eq!(
        nodes.live[chosen].processes,
        before.live[chosen].processes + 1
    );
}

#[test]
fn computing_ends_at_the_same_instruction_each_time() {
    let sandbox = bench(Limits {
        select_ms: 5,
        fuel_per_ms: 100_000,
        ..Limits::default()
    })
    .sandbox;
    let endless = rehearsal(&sandbox, &unlucky("(loop $ever (br $ever))"));
    let (cut, again) = (one(&endless, 13), one(&endless, 13));
    let (how, cause) = cut.failed.clone().unwrap();
    assert_eq!(how, Failed::Timeout);
    assert!(
        cause.contains("at 100000 units of fuel each (limit select_ms)"),
        "{cause}"
    );
    assert_eq!((cut.fuel, cut.failed), (again.fuel, again.failed));
    assert!(cut.fuel.abs_diff(500_000) < 10);
    // The decision is the fallback's then, as it would be in a lane.
    assert!(matches!(
        cut.decision.trace.why.chooser,
        Chooser::Fallback { .. }
    ));
    assert!(cut.decision.node.is_some());
    // A loop of 50,000 rounds fits, whatever the machine does meanwhile.
    let long = Parts::body(&format!("{} {}", spin(50_000), choose(FIRST))).selector();
    let long = one(&rehearsal(&sandbox, &long), 1);
    assert!(
        long.failed.is_none() && (150_000..500_000).contains(&long.fuel),
        "{long:?}"
    );
}

#[test]
fn failures_are_told_apart() {
    let sandbox = bench(patient()).sandbox;
    let error =
        "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 0))
        (i32.store (i32.const 1032) (i32.const 6)) (return (i32.const 1024))";
    for (body, failed) in [
        ("unreachable".to_owned(), Failed::Trap),
        (
            format!("{} (return)", choose("(i32.const 77)")),
            Failed::BadAnswer,
        ),
        (error.to_owned(), Failed::Error),
    ] {
        let rehearsal = rehearsal(&sandbox, &unlucky(&body));
        let failure = one(&rehearsal, 13).failed.unwrap();
        assert_eq!(failure.0, failed, "{}", failure.1);
        assert_eq!(one(&rehearsal, 14).failed, None);
    }
    // Nothing to choose from is no failure, and nobody is asked.
    let nowhere = Arc::new(fleet(0, 1));
    let nobody = rehearsal(&sandbox, &first()).consider(&nowhere, &jobs(1, 1)[0], 1);
    assert_eq!(
        (nobody.fuel, nobody.failed, nobody.decision.node),
        (0, None, None)
    );
}

#[test]
fn state_between_calls_is_seen_and_does_not_change_a_rehearsal() {
    // The first call of an instance takes the first slot, all others the second.
    let body =
        choose("(i32.load (i32.add (i32.load offset=80 (local.get $args)) (global.get $used)))");
    let guest = Parts {
        items: "(global $used (mut i32) (i32.const 0))".to_owned(),
        body: format!("{body} (global.set $used (i32.const 4))"),
        ..Parts::default()
    };
    let sandbox = bench(patient()).sandbox;
    let rehearsal = rehearsal(&sandbox, &guest.selector());
    let (one, other) = (one(&rehearsal, 1), one(&rehearsal, 1));
    assert!(!one.steady && !other.steady);
    assert_eq!(one.decision.trace.chosen, other.decision.trace.chosen);
    assert_eq!(one.fuel, other.fuel);
}

#[test]
fn what_cannot_be_rehearsed_says_why() {
    let sandbox = bench(patient()).sandbox;
    let callback = Parts {
        imports: START,
        body: start(1),
        ..Parts::default()
    }
    .callback();
    let new = |guest: &[u8]| Rehearsal::new(&sandbox, module("tester", guest, "{}"), guest);
    assert_eq!(new(&callback).err().unwrap().stage, Stage::CheckingTheWorld);
    let mute = Parts {
        describe: "unreachable".to_owned(),
        ..Parts::default()
    };
    assert_eq!(
        new(&mute.selector()).err().unwrap().stage,
        Stage::Describing
    );
}

/// Counts the lines of guests.
struct Listener(Arc<AtomicUsize>);

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "guest"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn what_is_only_tried_does_not_write_the_log() {
    let guest = Parts {
        imports: LOG,
        body: format!(
            "(call $log (i32.const 3) (i32.const 0) (i32.const 6)) {}",
            choose(FIRST)
        ),
        ..Parts::default()
    };
    let guest = guest.selector();
    let sandbox = bench(patient()).sandbox;
    let lines = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(Listener(Arc::clone(&lines)), || {
        sandbox
            .inspect(ModuleKind::Selector, &guest, |_| ())
            .unwrap();
        assert_eq!(one(&rehearsal(&sandbox, &guest), 1).failed, None);
        assert_eq!(lines.load(Relaxed), 0);
        // And it would have been heard.
        tracing::error!(target: "guest", "a line");
        assert_eq!(lines.load(Relaxed), 1);
    });
}

#[test]
fn one_budget_of_time_holds_for_all_calls_of_a_rehearsal() {
    // What the host does costs hardly any fuel: `describe` and `select` take the same long while.
    let busy = "(local.set $n (i32.const 20000))
        (loop $again
          (call $log (i32.const 3) (i32.const 8192) (i32.const 50000))
          (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))";
    let guest = Parts {
        imports: LOG,
        items: format!("(func $busy (local $n i32) {busy})"),
        describe: "(call $busy) (i32.const 256)".to_owned(),
        body: format!("(call $busy) {}", choose(FIRST)),
        ..Parts::default()
    }
    .selector();
    let with = |rehearsal_ms| {
        // Fuel is no matter here.
        let limits = Limits {
            select_ms: 5,
            describe_ms: 5,
            fuel_per_ms: 100_000_000,
            rehearsal_ms,
            ..Limits::default()
        };
        let sandbox = bench(limits).sandbox;
        let rehearsal = Rehearsal::new(&sandbox, module("tester", &guest, "{}"), &guest).ok()?;
        let computed = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            time.tv_sec as u64 * 1_000 + time.tv_nsec as u64 / 1_000_000
        };
        let begun = computed();
        let rehearsed = one(&rehearsal, 1);
        Some((rehearsed, computed() - begun))
    };
    // Half of what three calls take is enough for one of them, and not for two. A machine that other
    // things slow down may need another try to show it.
    let mut tries = (0..10).filter_map(|_| {
        let (whole, ms) = with(60_000)?;
        assert_eq!(whole.failed, None);
        with(ms / 2)?.0.failed
    });
    let (how, cause) = tries.next().unwrap();
    assert_eq!(how, Failed::Timeout);
    assert!(cause.contains("(limit rehearsal_ms)"), "{cause}");
}

#[test]
fn what_decides_is_compiled_while_a_rehearsal_waits_for_its_own_compiler() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("compiler");
    // Waits, when the header asks for code that counts fuel, until it may work.
    let script = format!(
        "#!/bin/sh
        PATH=/usr/bin:/bin
        cat > \"$0.$$\"
        if [ $(od -An -tu1 -j32 -N1 \"$0.$$\") = 1 ]; then
            : > \"$0.called\"
            while [ ! -e \"$0.open\" ]; do sleep 0.02; done
        fi
        exec \"{}\" < \"$0.$$\"",
        compiler().program.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let command = CompilerCommand {
        program: path.clone(),
        args: Vec::new(),
    };
    let sandbox = sandbox_in(&dir.path().join("cache"), patient(), command);
    let beside = |what: &str| path.with_file_name(format!("compiler.{what}"));
    let rehearsed = prebuilt("spread");
    let rehearsing = std::thread::spawn({
        let sandbox = Arc::clone(&sandbox);
        move || Rehearsal::new(&sandbox, module("tester", &rehearsed, "{}"), &rehearsed).is_ok()
    });
    let patience = Instant::now() + Duration::from_secs(30);
    while !beside("called").exists() {
        assert!(Instant::now() < patience, "the compiler was not called");
        std::thread::yield_now();
    }
    let other = prebuilt("least-loaded");
    let (loaded, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let made = sandbox.load(Digest::of(&other), ModuleKind::Selector, &other);
        loaded.send(made.is_ok())
    });
    assert_eq!(wait.recv_timeout(Duration::from_secs(30)), Ok(true));
    std::fs::write(beside("open"), "").unwrap();
    assert!(rehearsing.join().unwrap());
}

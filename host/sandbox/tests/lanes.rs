//! Hostile selectors in a lane: each costs its decision nothing but the fallback, which says why,
//! and the next decision finds a new instance.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use maitred_protocol::{Chooser, ModuleKind, ModuleName};
use maitred_registry::candidates::Column;
use maitred_registry::decide::SelectBatch;
use maitred_registry::inputs::Outcome;
use maitred_sandbox::{Lanes, Limits};
use support::guests::{LOG, Parts, choose, first, unlucky, unlucky_with};
use support::{batch, bench, cause, decide_one, decided, fleet, jobs, module, patient};

/// Decides with seeds 12, 13 and 14: the middle one meets what the guest does then.
fn around(guest: &[u8], limits: Limits) -> (Vec<Option<String>>, Lanes) {
    let bench = bench(limits);
    let module = bench.load("tester", ModuleKind::Selector, guest, "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let decisions = decided(&lanes, batch(&module, fleet(8, 1), jobs(3, 12)));
    let causes = decisions
        .iter()
        .map(|decision| cause(decision).map(str::to_owned))
        .collect();
    (causes, lanes)
}

/// The cause of the middle decision, after which the next one is fine again.
fn middle(guest: &[u8], limits: Limits) -> (String, Lanes) {
    let (causes, lanes) = around(guest, limits);
    let [None, Some(cause), None] = &causes[..] else {
        panic!("{causes:?}");
    };
    (cause.clone(), lanes)
}

#[test]
fn a_good_selector_decides_and_decisions_of_a_batch_see_each_other() {
    let bench = bench(patient());
    // The lowest row of "processes": all candidates come in the order of their slots.
    let module = bench.load(
        "tester",
        ModuleKind::Selector,
        &support::prebuilt("least-loaded"),
        "{}",
    );
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let mut level = fleet(4, 1);
    level
        .live
        .iter_mut()
        .for_each(|live| (live.processes, live.used) = (5, 5));
    let decisions = decided(&lanes, batch(&module, level, jobs(8, 1)));
    let mut per_node = [0; 4];
    for decision in &decisions {
        assert_eq!(cause(decision), None);
        per_node[decision.trace.chosen.unwrap() as usize] += 1;
    }
    assert_eq!(per_node, [2; 4]);
    let counters = lanes.counters().remove(0);
    assert_eq!((counters.decisions, counters.fallbacks.total()), (8, 0));
    assert_eq!(counters.micros_buckets.iter().sum::<u64>(), 8);
}

#[test]
fn dry_runs_do_not_see_each_other_and_are_not_counted() {
    let bench = bench(patient());
    let guest = support::prebuilt("least-loaded");
    let module = bench.load("tester", ModuleKind::Selector, &guest, "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let mut level = fleet(4, 1);
    for (slot, live) in level.live.iter_mut().enumerate() {
        live.processes = if slot == 2 { 4 } else { 5 };
        (live.used, live.cordoned) = (5, false);
    }
    let dry = SelectBatch {
        dry: true,
        ..batch(&module, level.clone(), jobs(8, 1))
    };
    for decision in decided(&lanes, dry) {
        assert_eq!((cause(&decision), decision.trace.chosen), (None, Some(2)));
    }
    let counters = lanes.counters().remove(0);
    assert_eq!(counters.decisions, 0);
    assert_eq!(counters.micros_buckets.iter().sum::<u64>(), 0);
    decided(&lanes, batch(&module, level, jobs(1, 1)));
    assert_eq!(lanes.counters().remove(0).decisions, 1);
}

#[test]
fn plans_that_a_selector_fails_at_do_not_keep_it_from_deciding() {
    let bench = bench(patient());
    let guest = unlucky("unreachable");
    let module = bench.load("tester", ModuleKind::Selector, &guest, "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    // It traps at this seed.
    let one = |dry| SelectBatch {
        dry,
        ..batch(&module, fleet(8, 1), jobs(1, 13))
    };
    for dry in [true, true, true, true, true, false] {
        let decisions = decided(&lanes, one(dry));
        let cause = cause(&decisions[0]).unwrap();
        assert!(cause.starts_with("trapped"), "{dry}: {cause}");
    }
    let counters = lanes.counters().remove(0);
    assert_eq!((counters.decisions, counters.fallbacks.total()), (1, 1));
}

#[test]
fn an_endless_loop_is_cut() {
    let limits = Limits {
        select_ms: 50,
        ..Limits::default()
    };
    let (cause, lanes) = middle(&unlucky("(loop $for_ever (br $for_ever))"), limits);
    assert_eq!(
        cause,
        "select computed for more than 50 ms (limit select_ms)"
    );
    assert_eq!(lanes.counters()[0].fallbacks.timeout, 1);
}

#[test]
fn a_trap_is_named() {
    let (cause, lanes) = middle(&unlucky("unreachable"), patient());
    assert_eq!(
        cause,
        "trapped: wasm trap: wasm `unreachable` instruction executed"
    );
    assert_eq!(lanes.counters()[0].fallbacks.trap, 1);
}

#[test]
fn recursion_ends_at_the_stack() {
    let parts = Parts {
        items: "(func $deeper (call $deeper))".to_owned(),
        ..Parts::default()
    };
    let (cause, _) = middle(&unlucky_with("(call $deeper)", parts), patient());
    assert_eq!(
        cause,
        "trapped: recursion beyond a stack of 524288 bytes (limit stack_bytes)"
    );
}

#[test]
fn allocation_ends_at_the_memory() {
    // Grows until it may not, then fails as an allocator does.
    let hungry = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let (cause, _) = middle(&unlucky(hungry), patient());
    assert!(
        cause.ends_with("after it had reached the memory of 33554432 bytes (limit memory_bytes)"),
        "{cause}"
    );
}

#[test]
fn a_slot_that_was_not_offered_is_not_taken() {
    let (cause, lanes) = middle(
        &unlucky(&format!("{} (return)", choose("(i32.const 4000)"))),
        patient(),
    );
    assert_eq!(cause, "chose slot 4000, which was not a candidate");
    assert_eq!(lanes.counters()[0].fallbacks.bad_answer, 1);
}

#[test]
fn an_answer_that_is_no_answer_is_a_trap() {
    // A result that is neither ok nor err, and one that lies outside of the memory.
    for nonsense in [
        "(i32.store8 (i32.const 1024) (i32.const 9)) (return (i32.const 1024))",
        "(return (i32.const 0x7ffffff0))",
    ] {
        let (_, lanes) = middle(&unlucky(nonsense), patient());
        assert_eq!(lanes.counters()[0].fallbacks.trap, 1);
    }
}

/// An `err` whose string lies at `at` and has `bytes` bytes.
fn error(at: u32, bytes: u32) -> String {
    format!(
        "(i32.store8 (i32.const 1024) (i32.const 1))
         (i32.store (i32.const 1028) (i32.const {at})) (i32.store (i32.const 1032) (i32.const {bytes}))
         (return (i32.const 1024))"
    )
}

#[test]
fn an_error_of_the_policy_is_passed_on() {
    let (cause, lanes) = middle(&unlucky(&error(0, 6)), patient());
    assert_eq!(cause, "answered an error: tester");
    assert_eq!(lanes.counters()[0].fallbacks.guest_error, 1);
}

#[test]
fn a_huge_string_does_not_cross_the_border() {
    let parts = || Parts {
        memory: "64",
        ..Parts::default()
    };
    let (cause, _) = middle(&unlucky_with(&error(0, 3 << 20), parts()), patient());
    assert_eq!(
        cause,
        "handed the host more than 262144 bytes in one call (limit border_bytes)"
    );
    // And one that does is cut for people.
    let (cause, _) = middle(
        &unlucky_with(&error(1 << 20, 100 << 10), parts()),
        patient(),
    );
    assert_eq!(cause.len(), 512);
}

#[test]
fn a_flood_of_log_lines_is_dropped_and_counted() {
    // What nobody would read is not counted.
    let heard = tracing_subscriber::fmt().with_writer(std::io::sink);
    tracing::subscriber::set_global_default(heard.finish()).unwrap();
    let flood = "(local.set $n (i32.const 1000))
        (loop $again
          (call $log (i32.const 3) (i32.const 0) (i32.const 2000))
          (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))";
    let guest = unlucky_with(
        flood,
        Parts {
            imports: LOG,
            ..Parts::default()
        },
    );
    let (causes, lanes) = around(&guest, patient());
    assert_eq!(causes, [None, None, None]);
    assert_eq!(lanes.counters()[0].log_lines_dropped, 1_000 - 16);
}

#[test]
fn three_failures_open_the_breaker() {
    let bench = bench(patient());
    let guest = Parts::body("unreachable").selector();
    let module = bench.load("tester", ModuleKind::Selector, &guest, "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let decisions = decided(&lanes, batch(&module, fleet(8, 1), jobs(10, 1)));
    assert!(cause(&decisions[2]).unwrap().starts_with("trapped"));
    assert!(
        cause(&decisions[3])
            .unwrap()
            .starts_with("it failed too often")
    );
    let counters = lanes.counters().remove(0);
    assert_eq!(
        (
            counters.fallbacks.trap,
            counters.fallbacks.breaker_open,
            counters.breaker_open
        ),
        (3, 7, true)
    );
    // A new version begins with a closed breaker.
    let good = bench.load("tester", ModuleKind::Selector, &first(), "{}");
    assert_eq!(cause(&decide_one(&lanes, &good)), None);
}

#[test]
fn one_good_trial_closes_the_breaker() {
    let bench = bench(patient());
    let module = bench.load(
        "tester",
        ModuleKind::Selector,
        &unlucky("unreachable"),
        "{}",
    );
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let with_seed = |seed| decided(&lanes, batch(&module, fleet(8, 1), jobs(1, seed))).remove(0);
    let begun = Instant::now();
    for _ in 0..3 {
        assert!(cause(&with_seed(13)).unwrap().starts_with("trapped"));
    }
    // Within the pause of a second nobody is asked; a decision without candidates is no trial.
    while cause(&with_seed(1)).is_some() {
        let nowhere = decided(&lanes, batch(&module, fleet(0, 1), jobs(1, 1))).remove(0);
        assert_eq!(nowhere.node, None);
        std::thread::yield_now();
    }
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let counters = lanes.counters().remove(0);
    assert!(
        !counters.breaker_open && counters.fallbacks.trap == 3,
        "{counters:?}"
    );
}

#[test]
fn a_broken_instance_is_a_cause_too() {
    let bench = bench(patient());
    for (name, parts, says) in [
        (
            "describe",
            Parts {
                describe: "unreachable".to_owned(),
                ..Parts::default()
            },
            "describing trapped",
        ),
        (
            "start",
            Parts {
                items: "(func $go unreachable) (start $go)".to_owned(),
                ..Parts::default()
            },
            "instantiating trapped",
        ),
    ] {
        let module = bench.load(name, ModuleKind::Selector, &parts.selector(), "{}");
        let decision = decide_one(&Lanes::new(Arc::clone(&bench.sandbox)), &module);
        assert!(cause(&decision).unwrap().contains(says), "{decision:?}");
    }
}

#[test]
fn what_is_not_loaded_or_not_active_falls_back() {
    let bench = bench(patient());
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let guest = first();
    let module = module("tester", &guest, "{}");
    assert_eq!(
        cause(&decide_one(&lanes, &module)),
        Some("version 3 is not loaded on this host")
    );
    // Without its lane knowing of it, it is loaded.
    bench.load("tester", ModuleKind::Selector, &guest, "{}");
    assert_eq!(cause(&decide_one(&lanes, &module)), None);
    bench.sandbox.unload(&module.digest);
    assert!(!bench.sandbox.is_loaded(&module.digest));

    let none = SelectBatch {
        selector: Err((
            ModuleName::new("gone").unwrap(),
            "no version of gone is active".to_owned(),
        )),
        ..batch(&module, fleet(8, 1), jobs(1, 1))
    };
    let decision = decided(&lanes, none).remove(0);
    assert_eq!(cause(&decision), Some("no version of gone is active"));
    assert!(
        matches!(&decision.trace.why.chooser, Chooser::Fallback { selector: Some(name), .. } if name.as_str() == "gone")
    );
}

#[test]
fn a_full_lane_is_passed_by_and_everything_is_answered() {
    let bench = bench(Limits {
        lane_batches: 1,
        ..patient()
    });
    let module = bench.load("tester", ModuleKind::Selector, &first(), "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    // The lane stands still in the `done` of its first batch until all others are submitted.
    let (open, gate) = mpsc::channel::<()>();
    let (entered, waiting) = mpsc::channel();
    let answered = entered.clone();
    lanes.submit(batch(&module, fleet(8, 1), jobs(1, 1)), move |decisions| {
        entered.send(decisions).unwrap();
        gate.recv().unwrap();
    });
    assert_eq!(cause(&waiting.recv().unwrap()[0]), None);
    for _ in 0..5 {
        let answered = answered.clone();
        lanes.submit(batch(&module, fleet(8, 1), jobs(1, 1)), move |decisions| {
            answered.send(decisions).unwrap()
        });
    }
    // One waits in the lane; the others were passed by.
    for _ in 0..4 {
        let decisions = waiting.recv().unwrap();
        assert_eq!(
            cause(&decisions[0]),
            Some("1 batches wait for it already (limit lane_batches)")
        );
    }
    open.send(()).unwrap();
    assert_eq!(cause(&waiting.recv().unwrap()[0]), None);
    assert_eq!(lanes.counters()[0].fallbacks.queue_full, 4);
}

#[test]
fn whoever_panics_over_its_decisions_takes_no_others_with_it() {
    let bench = bench(patient());
    let module = bench.load("tester", ModuleKind::Selector, &first(), "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let (queued, go) = mpsc::channel();
    lanes.submit(batch(&module, fleet(8, 1), jobs(1, 1)), move |_| {
        go.recv().unwrap();
        panic!("on purpose");
    });
    let (sender, decisions) = mpsc::channel();
    lanes.submit(batch(&module, fleet(8, 1), jobs(1, 1)), move |decisions| {
        sender.send(decisions).unwrap();
    });
    queued.send(()).unwrap();
    let decisions = decisions.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(cause(&decisions[0]), None);
    assert_eq!(cause(&decide_one(&lanes, &module)), None);
}

#[test]
fn a_lane_ends_when_it_is_idle_and_begins_again() {
    let bench = bench(Limits {
        lane_idle_ms: 1,
        ..patient()
    });
    let module = bench.load("tester", ModuleKind::Selector, &first(), "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    for round in 1..=20 {
        assert_eq!(cause(&decide_one(&lanes, &module)), None);
        assert_eq!(lanes.counters()[0].decisions, round);
        // The end of the lane may fall before, within or after the next batch.
        std::thread::yield_now();
    }
}

#[test]
fn an_instance_is_replaced_after_ten_thousand_calls() {
    let bench = bench(patient());
    let module = bench.load("tester", ModuleKind::Selector, &first(), "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let decisions = decided(&lanes, batch(&module, fleet(1, 1), jobs(100, 1)));
    assert!(decisions.iter().all(|decision| cause(decision).is_none()));
    for _ in 0..100 {
        let mut wide = fleet(1, 1);
        Arc::make_mut(
            Arc::get_mut(&mut wide.facts)
                .and_then(|facts| facts.first_mut())
                .unwrap(),
        )
        .capacity = 1_000;
        decided(&lanes, batch(&module, wide, jobs(100, 1)));
    }
    let counters = lanes.counters().remove(0);
    assert_eq!((counters.recycled, counters.fallbacks.total()), (1, 0));
}

#[test]
fn an_instance_whose_memory_has_grown_is_replaced() {
    // Each unlucky call takes 20 MiB more; half of 32 is the most an instance may keep.
    let (causes, lanes) = around(&unlucky("(drop (memory.grow (i32.const 320)))"), patient());
    assert_eq!(
        (causes, lanes.counters()[0].recycled),
        (vec![None, None, None], 1)
    );
}

#[test]
fn configuration_reaches_the_guest() {
    // Chooses the slot whose number is the length of the configuration.
    let parts = Parts {
        imports: r#"(import "maitred:policy/host@0.2.0" "config" (func $config (param i32)))"#,
        body: format!(
            "(call $config (i32.const 512)) {}",
            choose("(i32.load (i32.const 516))")
        ),
        ..Parts::default()
    };
    let bench = bench(patient());
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let guest = parts.selector();
    for config in ["{}", "[ 7 ]", "{}"] {
        let module = bench.load("tester", ModuleKind::Selector, &guest, config);
        let mut fleet = fleet(8, 1);
        fleet.live.iter_mut().for_each(|live| live.cordoned = false);
        let decision = decided(&lanes, batch(&module, fleet, jobs(1, 1))).remove(0);
        assert_eq!(
            (cause(&decision), decision.trace.chosen),
            (None, Some(config.len() as u32))
        );
    }
}

#[test]
fn what_is_recorded_is_what_came_out_and_is_nobodys_time() {
    let bench = bench(patient());
    let module = bench.load("tester", ModuleKind::Selector, &first(), "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    // A fleet that takes much longer to copy than the decision takes: 64 MiB of counts.
    let mut large = fleet(8, 1);
    large.of_type = vec![Column {
        of: "other".parse().unwrap(),
        counts: vec![1; 16 << 20],
    }];
    let begun = Instant::now();
    let copy = large.clone();
    let copying = begun.elapsed();
    drop(copy);
    let mut fastest = Duration::MAX;
    let mut before = 0;
    for seed in 0..5 {
        let batch = batch(&module, large.clone(), jobs(1, seed));
        let before_it = batch.clone();
        let (sender, decisions) = mpsc::channel();
        let (keep, recorded) = mpsc::channel();
        lanes.submit_recorded(
            batch,
            move |decisions| sender.send(decisions).unwrap(),
            move |batch, outcomes| keep.send((batch, outcomes)).unwrap(),
        );
        let decisions = decisions.recv().unwrap();
        let (batch, outcomes) = recorded.recv().unwrap();
        let came_out: Vec<Outcome> = decisions.iter().map(Outcome::of).collect();
        assert_eq!(outcomes[..], came_out);
        assert!(Arc::ptr_eq(&batch.fleet, &before_it.fleet) && batch.jobs.len() == 1);
        let micros = lanes.counters()[0].micros_sum;
        fastest = fastest.min(Duration::from_micros(micros - before));
        before = micros;
    }
    assert!(fastest < copying / 2, "{fastest:?} of {copying:?}");
    // What the fallback decides is recorded, too.
    let gone = SelectBatch {
        selector: Err((ModuleName::new("gone").unwrap(), "it is gone".to_owned())),
        ..batch(&module, fleet(8, 1), jobs(2, 1))
    };
    let (keep, recorded) = mpsc::channel();
    let keep = move |_, outcomes| keep.send(outcomes).unwrap();
    lanes.submit_recorded(gone, drop, keep);
    assert!(recorded.recv().unwrap().iter().all(|one| one.fallback));
}

#[test]
fn lanes_of_modules_that_are_gone_are_forgotten() {
    let bench = bench(Limits {
        lane_idle_ms: 1,
        ..patient()
    });
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    for name in ["stays", "goes"] {
        let module = bench.load(name, ModuleKind::Selector, &first(), "{}");
        assert_eq!(cause(&decide_one(&lanes, &module)), None);
    }
    let names = || {
        let counters = lanes.counters();
        let names = counters.iter().map(|one| one.lane.module.to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(), ["goes", "stays"]);
    // One whose thread has not ended yet is kept until it has.
    let patience = Instant::now() + Duration::from_secs(60);
    while names().len() > 1 {
        lanes.retain(|id| id.module.as_str() == "stays");
        assert!(Instant::now() < patience);
        std::thread::yield_now();
    }
    assert_eq!(names(), ["stays"]);
}

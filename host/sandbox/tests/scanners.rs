//! Scanners: what they may ask about all the nodes, and only while they scan.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::sync::Arc;

use maitred_protocol::{ModuleKind, NodeName};
use maitred_registry::candidates::Fleet;
use maitred_registry::decide::{Decision, SelectJob};
use maitred_sandbox::{Lanes, Rehearsal};
use support::guests::{Parts, choose};
use support::{batch, bench, cause, decided, fleet, jobs, module, patient};

const NODES: &str = r#"
    (import "maitred:policy/nodes@0.2.0" "passed" (func $passed (param i32)))
    (import "maitred:policy/nodes@0.2.0" "matching" (func $matching (param i32 i32 i32)))
    (import "maitred:policy/nodes@0.2.0" "column" (func $column (param i32 i32 i32 i32 i32)))
    (import "maitred:policy/nodes@0.2.0" "names" (func $names (param i32 i32 i32)))
    (import "maitred:policy/nodes@0.2.0" "sample" (func $sample (param i32 i32 i32)))"#;

/// A scanner of this body. At 512 and 520 there is room for two lists; the texts "zone" and "north"
/// are at 700 and 704, the pair of them at 720.
fn scanner(body: &str) -> Vec<u8> {
    Parts {
        imports: NODES,
        items: r#"(data (i32.const 700) "zonenorthlabel:zonecpu")
            (data (i32.const 736) "\bc\02\00\00\04\00\00\00\c0\02\00\00\05\00\00\00")"#
            .to_owned(),
        body: body.to_owned(),
        ..Parts::default()
    }
    .scanner()
}

fn scanned(body: &str, fleet: Fleet, jobs: Vec<SelectJob>) -> Vec<Decision> {
    let bench = bench(patient());
    let module = bench.load("tester", ModuleKind::Selector, &scanner(body), "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    decided(&lanes, batch(&module, fleet, jobs))
}

/// The one decision, which must not be a fallback's: the chosen slot.
#[track_caller]
fn chosen(body: &str, fleet: Fleet) -> u32 {
    let decision = scanned(body, fleet, jobs(1, 1)).remove(0);
    assert_eq!(cause(&decision), None);
    decision.trace.chosen.unwrap()
}

/// The last of the list at an address.
fn last(list: u32) -> String {
    format!(
        "(i32.load (i32.sub (i32.add (i32.load (i32.const {list})) (i32.mul (i32.load offset=4 (i32.const {list})) (i32.const 4))) (i32.const 4)))"
    )
}

#[test]
fn it_sees_every_node_that_passed_and_its_decisions_see_each_other() {
    let mut large = fleet(3_000, 1);
    large.live[2_999].cordoned = true;
    large.live[2_998].cordoned = false;
    // More than a selector is ever offered.
    let body = format!("(call $passed (i32.const 512)) {}", choose(&last(512)));
    assert_eq!(chosen(&body, large), 2_998);
    let mut small = fleet(3, 1);
    small
        .live
        .iter_mut()
        .for_each(|live| (live.cordoned, live.processes) = (false, 0));
    // The first node on which nothing runs: a loop over the column "processes".
    let body = format!(
        "(call $passed (i32.const 512))
         (call $column (i32.const 9) (i32.const 9) (i32.load (i32.const 512)) (i32.load (i32.const 516)) (i32.const 520))
         (loop $next
           (if (f32.ne (f32.load (i32.add (i32.load (i32.const 520)) (i32.mul (local.get $n) (i32.const 4)))) (f32.const 0))
             (then (local.set $n (i32.add (local.get $n) (i32.const 1))) (br $next))))
         {}",
        choose("(local.get $n)")
    );
    let decisions = scanned(&body, small, jobs(3, 1));
    let slots: Vec<_> = decisions
        .iter()
        .map(|one| one.trace.chosen.unwrap())
        .collect();
    assert_eq!(slots, [0, 1, 2]);
    // What it was decided from is kept for the nodes that it spoke of.
    let evidence = decisions[1].trace.evidence();
    assert_eq!(evidence.why.candidates, 3);
    assert_eq!(evidence.features, ["processes"]);
    assert!(evidence.candidates.len() == 1 && evidence.candidates[0].values == [0.0]);
}

#[test]
fn labels_are_matched_and_numbered_alike_throughout_a_call() {
    let mut zones = fleet(4, 1);
    let facts = Arc::get_mut(&mut zones.facts).unwrap();
    for (facts, zone) in facts.iter_mut().zip(["west", "south", "north", "south"]) {
        Arc::get_mut(facts).unwrap().labels = vec![("zone".to_owned(), zone.to_owned())];
    }
    zones.live.iter_mut().for_each(|live| live.cordoned = false);
    let body = format!(
        "(call $matching (i32.const 736) (i32.const 1) (i32.const 512))
         (if (i32.ne (i32.load (i32.const 516)) (i32.const 1)) (then unreachable))
         {}",
        choose(&last(512))
    );
    assert_eq!(chosen(&body, zones.clone()), 2);
    // Slots 1 and 3 are asked for in two calls; both are in the south.
    let south = format!(
        "(i32.store (i32.const 600) (i32.const 1)) (i32.store (i32.const 604) (i32.const 3))
         (call $column (i32.const 709) (i32.const 10) (i32.const 600) (i32.const 1) (i32.const 512))
         (call $column (i32.const 709) (i32.const 10) (i32.const 604) (i32.const 1) (i32.const 520))
         (if (f32.ne (f32.load (i32.load (i32.const 512))) (f32.load (i32.load (i32.const 520)))) (then unreachable))
         {}",
        choose("(i32.const 3)")
    );
    let named = Parts {
        describe: "(i32.store (i32.const 64) (i32.const 709)) (i32.store (i32.const 68) (i32.const 10)) (i32.const 256)".to_owned(),
        ..Parts::default()
    };
    let guest = Parts {
        imports: NODES,
        items: r#"(data (i32.const 700) "zonenorthlabel:zonecpu")"#.to_owned(),
        body: south,
        ..named
    };
    let bench = bench(patient());
    let module = bench.load("tester", ModuleKind::Selector, &guest.scanner(), "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let decision = decided(&lanes, batch(&module, zones, jobs(1, 1))).remove(0);
    assert_eq!((cause(&decision), decision.trace.chosen), (None, Some(3)));
}

#[test]
fn what_it_may_not_know_is_nan_or_empty() {
    // Slot 7 is none; "cpu" (at 719) is not in its manifest.
    let nan =
        |at: &str| format!("(if (f32.eq (f32.load {at}) (f32.load {at})) (then unreachable))");
    let body = format!(
        "(i32.store (i32.const 600) (i32.const 0)) (i32.store (i32.const 604) (i32.const 7))
         (call $column (i32.const 9) (i32.const 9) (i32.const 600) (i32.const 2) (i32.const 512))
         (if (i32.ne (i32.load (i32.const 516)) (i32.const 2)) (then unreachable))
         (if (f32.ne (f32.load (i32.load (i32.const 512))) (f32.const 5)) (then unreachable))
         {}
         (call $column (i32.const 719) (i32.const 3) (i32.const 600) (i32.const 1) (i32.const 512))
         {}
         (call $names (i32.const 600) (i32.const 2) (i32.const 512))
         (if (i32.ne (i32.load offset=4 (i32.load (i32.const 512))) (i32.const 6)) (then unreachable))
         (if (i32.ne (i32.load offset=12 (i32.load (i32.const 512))) (i32.const 0)) (then unreachable))
         {}",
        nan("(i32.add (i32.load (i32.const 512)) (i32.const 4))"),
        nan("(i32.load (i32.const 512))"),
        choose("(i32.const 0)")
    );
    let mut one = fleet(1, 1);
    (one.live[0].processes, one.live[0].cpu) = (5, 0.5);
    assert_eq!(chosen(&body, one), 0);
}

#[test]
fn samples_are_drawn_by_the_seed_without_replacement() {
    let sample = |seed: u32| {
        let body = format!(
            "(call $sample (i32.const 2) (i32.const {seed}) (i32.const 512))
             (if (i32.eq (i32.load (i32.load (i32.const 512))) (i32.load offset=4 (i32.load (i32.const 512)))) (then unreachable))
             {}",
            choose("(i32.load (i32.load (i32.const 512)))")
        );
        chosen(&body, fleet(50, 1))
    };
    assert_eq!(sample(1), sample(1));
    assert!((2..9).any(|seed| sample(seed) != sample(1)));
}

#[test]
fn outside_of_a_scan_there_is_nothing() {
    // `describe` looks: the manifest's name is as long as the list is.
    let guest = Parts {
        imports: NODES,
        describe: "(call $passed (i32.const 512)) (i32.store (i32.const 260) (i32.load (i32.const 516))) (i32.const 256)".to_owned(),
        body: format!("(call $passed (i32.const 512)) {}", choose(&last(512))),
        ..Parts::default()
    };
    let inspected =
        bench(patient())
            .sandbox
            .inspect(ModuleKind::Selector, &guest.scanner(), |_| ());
    let inspected = inspected.unwrap();
    assert_eq!(
        (inspected.title.as_str(), inspected.world.as_str()),
        (" 1.0", "scanner")
    );
    assert_eq!(
        (inspected.features, inspected.notes.len()),
        (vec!["processes".to_owned()], 0)
    );
}

#[test]
fn a_request_is_what_a_selector_is_told() {
    // The length of `previous`, at 52, is the slot.
    let body = choose("(i32.load offset=56 (local.get $args))");
    let mut asked = jobs(1, 1);
    Arc::make_mut(&mut asked[0].request).previous = Some(NodeName::new("abc").unwrap());
    let mut all = fleet(5, 1);
    all.live.iter_mut().for_each(|live| live.cordoned = false);
    let decision = scanned(&body, all, asked).remove(0);
    assert_eq!((cause(&decision), decision.trace.chosen), (None, Some(3)));
}

#[test]
fn the_fleet_is_not_copied_for_a_scan() {
    let bench = bench(patient());
    let body = format!("(call $passed (i32.const 512)) {}", choose(&last(512)));
    let guest = scanner(&body);
    let rehearsal = Rehearsal::new(&bench.sandbox, module("tester", &guest, "{}"), &guest).unwrap();
    let mut fleet = Arc::new(fleet(10, 1));
    let before = Arc::as_ptr(&fleet);
    let rehearsed = rehearsal.decide(&mut fleet, &jobs(1, 1)[0], 1);
    assert!(rehearsed.failed.is_none() && rehearsed.steady && rehearsed.fuel > 0);
    assert_eq!(Arc::as_ptr(&fleet), before);
}

//! Guests that say what is not so: answers out of bounds, other answers each time, and one thing in
//! `validate` and another in `select`.

use std::collections::BTreeSet;
use std::sync::Arc;

use maitred_protocol::{Digest, ModuleKind};
use maitred_sandbox::{Rehearsal, Stage};

use crate::arena::{Arena, in_earnest};
use crate::support::guests::{
    FIRST, Parts, SLOTS, choose, invalid, policy, ranked, valid, verdict, wait,
};
use crate::support::{cause, fleet, jobs, module};

const SELECTOR: ModuleKind = ModuleKind::Selector;
const ZERO: &str = "(i32.const 0)";

/// Sets the scores of the answer that was made last: so many slots from the first, so many values.
fn scores(answer: &str, slots: u32, values: u32) -> String {
    let (head, result) = answer.rsplit_once("(i32.const 1024)").unwrap();
    assert_eq!(result, "");
    format!(
        "{head} (i32.store (i32.const 1044) {SLOTS}) (i32.store (i32.const 1048) (i32.const {slots}))
         (i32.store (i32.const 1052) (i32.const 16384)) (i32.store (i32.const 1056) (i32.const {values}))
         (i32.const 1024)"
    )
}

/// A manifest with the one term "t": the features of the usual one are cut.
const TERM: &str =
    r#"(data (i32.const 4080) "t") (data (i32.const 4064) "\f0\0f\00\00\01\00\00\00")"#;
const WITH_TERM: &str = "(i32.store (i32.const 280) (i32.const 4064)) (i32.store (i32.const 284) (i32.const 1)) (i32.const 256)";

fn termed(body: &str) -> Parts {
    Parts {
        items: TERM.to_owned(),
        describe: WITH_TERM.to_owned(),
        ..Parts::body(body)
    }
}

#[test]
fn answers_out_of_bounds_are_refused_at_upload_and_not_taken_later() {
    let arena = Arena::new();
    let first = choose(FIRST);
    let twice = "(i32.store (i32.const 16384) (i32.load (i32.load offset=80 (local.get $args))))
        (i32.store (i32.const 16388) (i32.load (i32.load offset=80 (local.get $args))))"
        .to_owned();
    let twice = twice + &ranked("(i32.const 16384)", 2);
    let cases = [
        (
            choose("(i32.const 4000000)"),
            "chose slot 4000000, which was not a candidate",
        ),
        (ranked(SLOTS, 9), "ranked 9 nodes, of 1 to 8"),
        (ranked(SLOTS, 0), "ranked 0 nodes, of 1 to 8"),
        (twice, "ranked a node twice"),
        (wait(5), "wants to wait 5 ms, of 10 to 60,000"),
        (wait(60_001), "wants to wait 60001 ms, of 10 to 60,000"),
        (
            scores(&first, 1, 2),
            "gave 2 values for 1 nodes and 1 terms",
        ),
        (
            scores(&first, 0, 1),
            "gave 1 values for 0 nodes and 1 terms",
        ),
        (scores(&first, 6, 6), "scored 6 nodes, of at most 5"),
        (verdict(9, [ZERO; 3]), "failed: "),
    ];
    for (body, says) in cases {
        let parts = termed(&body);
        let error = arena.upload(SELECTOR, &parts.selector()).unwrap_err();
        let at_8 = error.reason.contains(says) && error.stage == Stage::Trying;
        // Over one node, what was to be nine is less.
        assert!(
            at_8 || says.contains('9') || says.contains('6'),
            "{says}: {error}"
        );
        let later = in_earnest(&format!("(return {body})"));
        arena.falls_back(&termed(&later).selector(), says);
    }
}

#[test]
fn scores_that_are_no_numbers_are_kept_as_they_are() {
    let arena = Arena::new();
    let nan = "(i32.store (i32.const 16384) (i32.const 0x7fc00000))";
    let body = format!("{nan} {}", scores(&choose(FIRST), 1, 1));
    for decision in arena.decide(&termed(&body).selector(), 5) {
        assert_eq!(cause(&decision), None);
        assert!(decision.trace.scores[0].is_nan(), "{:?}", decision.trace);
    }
}

/// Keeps a count between its calls, which it must not rely on, and goes by it.
fn moody() -> Parts {
    let count = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))";
    let slot = format!(
        "(i32.load (i32.add {SLOTS} (i32.mul (i32.const 4) (i32.rem_u (global.get $calls) (i32.load offset=84 (local.get $args))))))"
    );
    Parts {
        items: "(global $calls (mut i32) (i32.const 0))".to_owned(),
        ..Parts::body(&format!("{count} {}", choose(&slot)))
    }
}

#[test]
fn one_that_answers_differently_each_time_is_told_so_and_harms_nobody() {
    let arena = Arena::new();
    let guest = moody().selector();
    let inspected = arena.upload(SELECTOR, &guest).unwrap();
    assert!(
        inspected.notes[0].starts_with("not deterministic"),
        "{inspected:?}"
    );
    let decisions = arena.decide(&guest, 40);
    let mut chosen = BTreeSet::new();
    for decision in &decisions {
        assert_eq!(cause(decision), None);
        let slot = decision.trace.chosen.unwrap();
        // What the host records is what was offered and chosen.
        assert!(decision.trace.slots.contains(&slot));
        let name = &decision.trace.facts[slot as usize].name;
        assert_eq!(decision.node.as_ref().map(|(name, _)| name), Some(name));
        chosen.insert(slot);
    }
    assert!(chosen.len() > 4, "{chosen:?}");
    // Whoever replays it is told, too.
    let named = module("hostile", &guest, "{}");
    let rehearsal = Rehearsal::new(&arena.bench.sandbox, named, &guest).unwrap();
    let rehearsed = rehearsal.consider(&Arc::new(fleet(8, 1)), &jobs(1, 1)[0], 1_700_000_000);
    assert!(
        !rehearsed.steady && rehearsed.failed.is_none(),
        "{rehearsed:?}"
    );
    arena.serves();
}

#[test]
fn what_validate_says_binds_nobody() {
    let arena = Arena::new();
    // Everything will do, and then nothing does.
    let broken = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 0)) (i32.store (i32.const 1032) (i32.const 6)) (i32.const 1024)";
    let agreeable = Parts {
        validate: valid(),
        ..Parts::body(&in_earnest(&format!("(return {broken})")))
    };
    let guest = agreeable.selector();
    arena.falls_back(&guest, "answered an error: tester");
    let judged = arena.bench.sandbox.validate(&Digest::of(&guest), "{}");
    judged.unwrap();
    // Nothing will do, and it decides all the same: its author is told, and it is not activated.
    let picky = Parts {
        validate: invalid(),
        ..Parts::default()
    };
    let guest = picky.selector();
    let inspected = arena.upload(SELECTOR, &guest).unwrap();
    assert!(
        inspected.notes[0].contains("{} will not do"),
        "{inspected:?}"
    );
    arena.bench.load("picky", SELECTOR, &guest, "{}");
    let judged = arena.bench.sandbox.validate(&Digest::of(&guest), "[1]");
    let error = judged.unwrap_err();
    assert_eq!(
        (error.stage, error.reason.as_str()),
        (Stage::Validating, "[1]")
    );
    arena.serves();
}

/// As an interpreter brings it when it is built without its flag.
#[test]
fn a_system_interface_is_refused_with_the_flags_that_leave_it_out() {
    let arena = Arena::new();
    let text = r#"(component
        (import "wasi:clocks/wall-clock@0.2.3" (instance))
        (import "wasi:random/random@0.2.3" (instance))
        (instance $i) (export "maitred:policy/selector@0.2.0" (instance $i)))"#;
    let guest = wat::parse_str(text).unwrap();
    for says in [
        "it imports wasi:clocks/wall-clock@0.2.3, wasi:random/random@0.2.3; a module may import nothing but maitred:policy",
        "JavaScript: componentize-qjs --sync --stub-wasi",
        "Python: componentize-py componentize -s",
        "wasm32-unknown-unknown",
    ] {
        arena.refuses(SELECTOR, &guest, Stage::CheckingTheWorld, says);
    }
    let node = policy().replace(
        "    export selector;\n",
        "    import node;\n    export selector;\n",
    );
    let imports = r#"(import "maitred:policy/node@0.2.0" "start" (func (param i32 i32 i32 i32)))"#;
    let curious = Parts {
        imports,
        ..Parts::default()
    };
    let says = "it imports maitred:policy/node@0.2.0, which a selector is not offered";
    let curious = curious.selector_of(&node, "selector@0.2.0");
    arena.refuses(SELECTOR, &curious, Stage::CheckingTheWorld, says);
}

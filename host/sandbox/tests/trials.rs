//! The trial at upload: what is refused because it would only ever fall back, and what is noted.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use maitred_protocol::{Hook, ModuleKind};
use maitred_sandbox::{Inspected, Limits, ModuleError, Stage};
use support::guests::{FIRST, Parts, START, choose, invalid, spin, start};
use support::{Bench, bench, patient};

fn inspect(bench: &Bench, kind: ModuleKind, bytes: &[u8]) -> Result<Inspected, ModuleError> {
    bench.sandbox.inspect(kind, bytes, |_| ())
}

#[track_caller]
fn assert_refused(bytes: &[u8], limits: Limits, says: &str) {
    let error = inspect(&bench(limits), ModuleKind::Selector, bytes).unwrap_err();
    assert!(
        error.stage == Stage::Trying && error.reason.contains(says),
        "{error}"
    );
}

#[test]
fn the_trial_refuses_what_would_only_fall_back() {
    let body = |body: &str| Parts::body(body).selector();
    assert_refused(&body("unreachable"), patient(), "over 1 node, it trapped");
    assert_refused(
        &body(&choose("(i32.const 0)")),
        patient(),
        "answer with one of candidates.slots, not with an index",
    );
    let slow = format!("(loop $ever (br $ever)) {}", choose(FIRST));
    assert_refused(
        &body(&slow),
        Limits::default(),
        "it took longer than 5 ms (limit select_ms)",
    );
    // Traps at the first value that is not known.
    let picky = format!(
        "(if (f32.ne (f32.load (i32.load offset=88 (local.get $args))) (f32.load (i32.load offset=88 (local.get $args)))) (then unreachable)) {}",
        choose(FIRST)
    );
    assert_refused(
        &body(&picky),
        patient(),
        "over 8 nodes whose features are not known (NaN), it trapped",
    );
    let leaky = format!("(drop (memory.grow (i32.const 1))) {}", choose(FIRST));
    assert_refused(
        &body(&leaky),
        Limits {
            memory_bytes: 128 << 20,
            ..patient()
        },
        "it leaks",
    );
}

#[test]
fn an_error_of_the_policy_is_a_note() {
    let error = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 0)) (i32.store (i32.const 1032) (i32.const 6)) (i32.const 1024)";
    let inspected = inspect(
        &bench(patient()),
        ModuleKind::Selector,
        &Parts::body(error).selector(),
    )
    .unwrap();
    assert_eq!(
        inspected.notes,
        ["in the trial, without a configuration, over 1 node it answered an error: tester"]
    );
}

#[test]
fn a_callback_is_tried_on_a_node_of_straw() {
    let bench = bench(Limits::default());
    let body = |body: String| {
        Parts {
            imports: START,
            body,
            ..Parts::default()
        }
        .callback()
    };
    let error = inspect(
        &bench,
        ModuleKind::Callback,
        &body("unreachable".to_owned()),
    )
    .unwrap_err();
    assert!(
        error.stage == Stage::Trying
            && error
                .reason
                .contains("on a node that starts the process, it trapped"),
        "{error}"
    );
    let endless = body(format!(
        "(loop $ever {} (br $ever)) unreachable",
        spin(1_000_000)
    ));
    let error = inspect(&bench, ModuleKind::Callback, &endless).unwrap_err();
    assert!(
        error
            .reason
            .contains("spawn computed for more than 50 ms (limit spawn_ms)"),
        "{error}"
    );
}

fn notes(guest: &[u8], limits: Limits) -> Vec<String> {
    inspect(&bench(limits), ModuleKind::Selector, guest)
        .unwrap()
        .notes
}

#[test]
fn answers_that_depend_on_the_calls_before_are_noted() {
    // Takes the slots in turn, as a round-robin that remembers.
    let turns = choose(&format!(
        "(i32.load (i32.add (i32.load offset=80 (local.get $args)) (i32.mul (i32.rem_u (global.get $turn) {COUNT}) (i32.const 4))))"
    ));
    let guest = Parts {
        items: "(global $turn (mut i32) (i32.const 0))".to_owned(),
        body: format!("(global.set $turn (i32.add (global.get $turn) (i32.const 1))) {turns}"),
        ..Parts::default()
    };
    let guest = guest.selector();
    let inspected = inspect(&bench(patient()), ModuleKind::Selector, &guest).unwrap();
    // Which is what its author is told.
    assert_eq!(inspected.findings().notes, inspected.notes);
    let notes = inspected.notes;
    assert!(
        notes.len() == 1 && notes[0].starts_with("not deterministic: over 8 nodes"),
        "{notes:?}"
    );
}

/// How many slots are offered.
const COUNT: &str = "(i32.load offset=84 (local.get $args))";

#[test]
fn a_time_out_over_very_many_nodes_is_noted() {
    let slow = format!(
        "(if (i32.gt_u {COUNT} (i32.const 1000)) (then (loop $ever (br $ever)))) {}",
        choose(FIRST)
    );
    let slow = Parts::body(&slow).selector();
    let notes = notes(
        &slow,
        Limits {
            select_ms: 20,
            ..patient()
        },
    );
    assert!(
        notes.len() == 1 && notes[0].starts_with("over 1024 nodes, it took longer than 20 ms"),
        "{notes:?}"
    );
    // A trap is refused all the same.
    let broken = format!(
        "(if (i32.gt_u {COUNT} (i32.const 1000)) (then unreachable)) {}",
        choose(FIRST)
    );
    assert_refused(
        &Parts::body(&broken).selector(),
        patient(),
        "over 1024 nodes, it trapped",
    );
}

#[test]
fn the_trial_offers_no_more_than_is_asked_for_and_no_group_too() {
    // Asks for three at random; traps when there are more.
    let ask = "(i32.store8 (i32.const 288) (i32.const 1)) (i32.store (i32.const 292) (i32.const 3)) (i32.const 256)";
    let picky = format!(
        "(if (i32.gt_u {COUNT} (i32.const 3)) (then unreachable)) {}",
        choose(FIRST)
    );
    let guest = Parts {
        describe: ask.to_owned(),
        body: picky,
        ..Parts::default()
    };
    assert!(notes(&guest.selector(), patient()).is_empty());
    let grouped = format!(
        "(if (i32.eqz (i32.load8_u offset=24 (local.get $args))) (then unreachable)) {}",
        choose(FIRST)
    );
    assert_refused(
        &Parts::body(&grouped).selector(),
        patient(),
        "over 8 nodes and without a group, it trapped",
    );
}

#[test]
fn a_module_that_wants_a_configuration_says_so() {
    let guest = Parts {
        validate: invalid(),
        ..Parts::default()
    };
    let notes = notes(&guest.selector(), patient());
    assert!(
        notes.len() == 1 && notes[0].ends_with("{} will not do: {}"),
        "{notes:?}"
    );
}

#[test]
fn hooks_are_named_and_tried() {
    // Asks for all three: at 600 their numbers.
    let named = |hooks: [String; 3]| {
        Parts {
            imports: START,
            items: r#"(data (i32.const 600) "\00\01\02")"#.to_owned(),
            describe: "(i32.store (i32.const 336) (i32.const 600)) (i32.store (i32.const 340) (i32.const 3)) (i32.const 320)".to_owned(),
            body: start(1_000),
            hooks,
            ..Parts::default()
        }
        .callback()
    };
    let usual = || "(i32.store8 (i32.const 1600) (i32.const 0)) (i32.const 1600)".to_owned();
    let good = named([String::new(), usual(), usual()]);
    let inspected = inspect(&bench(patient()), ModuleKind::Callback, &good).unwrap();
    assert_eq!(
        inspected.hooks,
        [Hook::NodeLost, Hook::Exit, Hook::Compensate]
    );
    assert_eq!(
        (inspected.world.as_str(), inspected.notes.len()),
        ("callback", 0)
    );
    for (hooks, name) in [
        (["unreachable".to_owned(), usual(), usual()], "compensate"),
        (
            [String::new(), "unreachable".to_owned(), usual()],
            "on-node-lost",
        ),
        (
            [String::new(), usual(), "unreachable".to_owned()],
            "on-exit",
        ),
    ] {
        let error = inspect(&bench(patient()), ModuleKind::Callback, &named(hooks)).unwrap_err();
        assert!(
            error
                .reason
                .starts_with(&format!("in its hook {name}, it trapped")),
            "{error}"
        );
    }
}

//! Guests that do not come back: wherever the host calls them, they are stopped by the limit of that
//! call.

use maitred_protocol::{Digest, ModuleKind};
use maitred_sandbox::Stage;

use crate::arena::{Arena, in_earnest};
use crate::support::guests::{FIRST, LOG, Parts, START, choose, component, policy};

const EVER: &str = "(loop $ever (br $ever))";
const LATE: &str = "it took longer than 5 ms (limit select_ms)";

fn never(body: &str) -> Parts {
    Parts::body(&format!("{EVER} {body}"))
}

#[test]
fn in_select_and_in_scan() {
    let arena = Arena::new();
    let (kind, trying) = (ModuleKind::Selector, Stage::Trying);
    arena.refuses(kind, &never(&choose(FIRST)).selector(), trying, LATE);
    arena.refuses(
        kind,
        &never(&choose("(i32.const 0)")).scanner(),
        trying,
        LATE,
    );
    // Logging is no way to gain time, although what is written is the host's work.
    let chatty =
        "(loop $ever (call $log (i32.const 0) (i32.const 8192) (i32.const 50000)) (br $ever))";
    let parts = Parts {
        imports: LOG,
        ..Parts::body(&format!("{chatty} {}", choose(FIRST)))
    };
    arena.refuses(kind, &parts.selector(), trying, LATE);
}

#[test]
fn in_select_after_a_faultless_trial() {
    let arena = Arena::new();
    let guest = Parts::body(&in_earnest(EVER)).selector();
    arena.falls_back(
        &guest,
        "select computed for more than 5 ms (limit select_ms)",
    );
    let counters = arena.lanes.counters();
    let hostile = counters
        .iter()
        .find(|one| one.lane.module.as_str() == "hostile")
        .unwrap();
    assert!(
        hostile.breaker_open && hostile.fallbacks.timeout >= 3,
        "{hostile:?}"
    );
}

#[test]
fn in_describe() {
    let arena = Arena::new();
    let parts = Parts {
        describe: format!("{EVER} (i32.const 256)"),
        ..Parts::body("unreachable")
    };
    let says = "describe computed for more than 100 ms (limit describe_ms)";
    for (kind, bytes) in [
        (ModuleKind::Selector, parts.selector()),
        (ModuleKind::Selector, parts.scanner()),
        (ModuleKind::Callback, parts.callback()),
        (ModuleKind::Fence, parts.fence()),
    ] {
        arena.refuses(kind, &bytes, Stage::Describing, says);
    }
}

#[test]
fn in_validate() {
    let arena = Arena::new();
    let guest = Parts {
        validate: format!("{EVER} (i32.const 1536)"),
        ..Parts::default()
    }
    .selector();
    let says = "validate computed for more than 100 ms (limit describe_ms)";
    // It may be uploaded: with another configuration it may come to an end. Its author is told.
    let inspected = arena.upload(ModuleKind::Selector, &guest).unwrap();
    assert!(inspected.notes[0].contains(says), "{inspected:?}");
    arena
        .bench
        .load("hostile", ModuleKind::Selector, &guest, "{}");
    let error = arena.bench.sandbox.validate(&Digest::of(&guest), "{}");
    let error = error.unwrap_err();
    assert!(
        error.stage == Stage::Validating && error.reason.contains(says),
        "{error}"
    );
    arena.serves();
}

#[test]
fn in_a_start_function() {
    let arena = Arena::new();
    let parts = Parts {
        items: format!("(func $go {EVER}) (start $go)"),
        ..Parts::body("unreachable")
    };
    let says = "a start function computed for more than 100 ms (limit describe_ms)";
    for (kind, bytes) in [
        (ModuleKind::Selector, parts.selector()),
        (ModuleKind::Callback, parts.callback()),
        (ModuleKind::Fence, parts.fence()),
    ] {
        arena.refuses(kind, &bytes, Stage::Instantiating, says);
    }
}

/// The host calls these of itself: to hand arguments over, and to say that it has read a result.
#[test]
fn in_what_the_host_calls_around_a_call() {
    let arena = Arena::new();
    let post = Parts {
        items: format!(
            r#"(func (export "cabi_post_maitred:policy/selector@0.2.0#select") (param i32) {EVER})"#
        ),
        ..Parts::default()
    };
    arena.refuses(ModuleKind::Selector, &post.selector(), Stage::Trying, LATE);
    let post = Parts {
        items: format!(
            r#"(func (export "cabi_post_maitred:policy/selector@0.2.0#describe") (param i32) {EVER})"#
        ),
        ..Parts::default()
    };
    let says = "describe computed for more than 100 ms (limit describe_ms)";
    arena.refuses(
        ModuleKind::Selector,
        &post.selector(),
        Stage::Describing,
        says,
    );

    let wit = policy();
    let export = |name: &str, rest: &str| {
        format!(r#"(func (export "maitred:policy/selector@0.2.0#{name}") {rest})"#)
    };
    let allocating = |allocate: &str| {
        let core = format!(
            r#"(module
              (memory (export "memory") 1)
              (data (i32.const 256) "\00\00\00\00\01\00\00\00\00\00\00\00\01\00\00\00\40\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00")
              (data (i32.const 0) "x")
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {allocate})
              {} {} {})"#,
            export("describe", "(result i32) (i32.const 256)"),
            export("validate", "(param i32 i32) (result i32) (i32.const 1536)"),
            export("select", "(param i32) (result i32) unreachable"),
        );
        component(&core, &wit, "selector-module")
    };
    let endless = allocating(&format!("{EVER} (i32.const 0)"));
    arena.refuses(ModuleKind::Selector, &endless, Stage::Trying, LATE);
    // And the addresses that it gives are not believed.
    for address in ["0x7ffffff0", "-1", "65535", "4097"] {
        let wild = allocating(&format!("(i32.const {address})"));
        arena.refuses(
            ModuleKind::Selector,
            &wild,
            Stage::Trying,
            "over 1 node, it",
        );
    }
}

#[test]
fn in_a_callback_and_in_a_fence() {
    let arena = Arena::new();
    let callback = never("(i32.const 1024)").callback();
    let says = "spawn computed for more than 50 ms (limit spawn_ms)";
    arena.refuses(ModuleKind::Callback, &callback, Stage::Trying, says);
    let fence = never("(i32.const 1024)").fence();
    let says = "examine computed for more than 50 ms (limit examine_ms)";
    arena.refuses(ModuleKind::Fence, &fence, Stage::Trying, says);

    // Asking the node again and again is no way round either.
    let asks = "(loop $ever (call $start (i32.const 0) (i32.const 6) (i32.const 600000) (i32.const 1024)) (br $ever)) (i32.const 1024)";
    let callback = Parts {
        imports: START,
        ..Parts::body(asks)
    };
    arena.refuses(
        ModuleKind::Callback,
        &callback.callback(),
        Stage::Trying,
        "spawn computed for more than 50 ms (limit spawn_ms)",
    );
}

//! Guests that want too much memory or stack, or hand over too much.

use maitred_protocol::{Digest, ModuleKind};
use maitred_sandbox::Stage;

use crate::arena::{Arena, in_earnest};
use crate::support::guests::{FIRST, LOG, Parts, SLOTS, choose, component, policy, verdict};

const MEMORY: &str = "the memory of 33554432 bytes (limit memory_bytes)";
const BORDER: &str = "handed the host more than 262144 bytes in one call (limit border_bytes)";
const STACK: &str = "trapped: recursion beyond a stack of 524288 bytes (limit stack_bytes)";

/// Grows until it may not, then fails as an allocator does.
const HUNGRY: &str =
    "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";

/// Parts with a memory in which a list of 30 MiB fits.
fn roomy(body: &str) -> Parts {
    Parts {
        memory: "490",
        ..Parts::body(body)
    }
}

const SELECTOR: ModuleKind = ModuleKind::Selector;

#[test]
fn memory_ends_at_its_limit_wherever_it_grows() {
    let arena = Arena::new();
    let after = format!(
        "it trapped: wasm trap: wasm `unreachable` instruction executed, after it had reached {MEMORY}"
    );
    arena.refuses(
        SELECTOR,
        &Parts::body(HUNGRY).selector(),
        Stage::Trying,
        &after,
    );
    let describe = Parts {
        describe: HUNGRY.to_owned(),
        ..Parts::default()
    };
    arena.refuses(SELECTOR, &describe.selector(), Stage::Describing, MEMORY);
    let start = Parts {
        items: format!("(func $go {HUNGRY}) (start $go)"),
        ..Parts::default()
    };
    arena.refuses(SELECTOR, &start.selector(), Stage::Instantiating, MEMORY);
    let validate = Parts {
        validate: HUNGRY.to_owned(),
        ..Parts::default()
    };
    let guest = validate.selector();
    arena.bench.load("hostile", SELECTOR, &guest, "{}");
    let error = arena.bench.sandbox.validate(&Digest::of(&guest), "{}");
    assert!(error.unwrap_err().reason.contains(MEMORY));
    let earnest = Parts::body(&in_earnest(HUNGRY)).selector();
    arena.falls_back(&earnest, MEMORY);
}

#[test]
fn memory_that_is_declared_is_refused_before_it_is_compiled() {
    let arena = Arena::new();
    for pages in ["65536", "513", "1000 65536"] {
        let parts = Parts {
            memory: pages,
            ..Parts::default()
        };
        let scanning = Stage::Scanning;
        arena.refuses(
            SELECTOR,
            &parts.selector(),
            scanning,
            "(limit memory_bytes)",
        );
    }
    let table = Parts {
        items: "(table 20001 funcref)".to_owned(),
        ..Parts::default()
    };
    let says = "(limit table_elements)";
    arena.refuses(SELECTOR, &table.selector(), Stage::Scanning, says);
}

/// Each of them within the limit, all of them not.
#[test]
fn memories_and_tables_of_one_component_are_summed() {
    let arena = Arena::new();
    let several = |item: &str, count: usize| {
        // The module of the good one is the first.
        let instances = "(core instance (instantiate 1))\n".repeat(count);
        around(&format!("(core module {item})\n{instances}"))
    };
    let instantiating = Stage::Instantiating;
    let memories = several("(memory 256)", 3);
    arena.refuses(SELECTOR, &memories, instantiating, "(limit memory_bytes)");
    let tables = several("(table 8000 funcref)", 3);
    arena.refuses(SELECTOR, &tables, instantiating, "(limit table_elements)");
}

/// A good selector with other parts of a component around it.
fn around(items: &str) -> Vec<u8> {
    let good = Parts::default().selector();
    let text = wat::parse_str(format!("(component {items})")).unwrap();
    // Sections of a component may follow those of another: headers have eight bytes.
    [&good[..], &text[8..]].concat()
}

#[test]
fn recursion_ends_at_the_stack() {
    let arena = Arena::new();
    let deep = |body: &str, describe: &str, start: &str| Parts {
        items: format!("(func $deeper (call $deeper)) {start}"),
        describe: format!("{describe} (i32.const 256)"),
        ..Parts::body(body)
    };
    let first = choose(FIRST);
    let select = deep(&format!("(call $deeper) {first}"), "", "");
    arena.refuses(SELECTOR, &select.selector(), Stage::Trying, STACK);
    let describe = deep(&first, "(call $deeper)", "");
    arena.refuses(SELECTOR, &describe.selector(), Stage::Describing, STACK);
    let start = deep(&first, "", "(start $deeper)");
    arena.refuses(SELECTOR, &start.selector(), Stage::Instantiating, STACK);
    let earnest = deep(&in_earnest("(call $deeper)"), "", "");
    arena.falls_back(&earnest.selector(), STACK);
    // Callbacks and fences run on stacks of their own.
    let on_a_fiber = Parts {
        items: "(func $deeper (call $deeper))".to_owned(),
        ..Parts::body("(call $deeper) (i32.const 1024)")
    };
    for (kind, bytes) in [
        (ModuleKind::Callback, on_a_fiber.callback()),
        (ModuleKind::Fence, on_a_fiber.fence()),
    ] {
        arena.refuses(kind, &bytes, Stage::Trying, STACK);
    }
}

/// `err` with a text of so many bytes.
fn error(bytes: u32) -> String {
    format!(
        "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 0))
         (i32.store (i32.const 1032) (i32.const {bytes})) (i32.const 1024)"
    )
}

#[test]
fn what_is_handed_over_has_a_limit() {
    let arena = Arena::new();
    let trying = Stage::Trying;
    arena.refuses(
        SELECTOR,
        &roomy(&error(30 << 20)).selector(),
        trying,
        BORDER,
    );
    // More than there is of its memory.
    let beyond = roomy(&error(60 << 20)).selector();
    arena.refuses(SELECTOR, &beyond, trying, "out of bounds");
    let zero = "(i32.const 0)";
    let ranked = verdict(2, [zero, "(i32.const 7864320)", zero]);
    arena.refuses(SELECTOR, &roomy(&ranked).selector(), trying, BORDER);
    let reject = verdict(3, ["(i32.const 1)", zero, "(i32.const 31457280)"]);
    arena.refuses(SELECTOR, &roomy(&reject).selector(), trying, BORDER);
    let log = Parts {
        imports: LOG,
        ..roomy(&format!(
            "(call $log (i32.const 0) (i32.const 0) (i32.const 31457280)) {}",
            choose(FIRST)
        ))
    };
    arena.refuses(SELECTOR, &log.selector(), trying, BORDER);
    let earnest = roomy(&in_earnest(&format!("(return {})", error(30 << 20))));
    arena.falls_back(&earnest.selector(), BORDER);
}

/// A kilobyte that stands for a gigabyte: each item of the list is the same text.
#[test]
fn a_list_does_not_amplify() {
    let arena = Arena::new();
    let fill = "(local $at i32) (loop $next
        (i32.store (local.get $at) (i32.const 0))
        (i32.store offset=4 (local.get $at) (i32.const 1048576))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $next (i32.lt_u (local.get $at) (i32.const 8192))))";
    let describe = |features: &str| Parts {
        items: format!("(func $fill {fill})"),
        describe: format!(
            "(call $fill) (i32.store (i32.const 16384) (i32.const 0)) {features} (i32.const 16384)"
        ),
        memory: "64",
        ..Parts::default()
    };
    // Words of the manifest from the fifth on: features, then terms.
    let features = "(i32.store offset=16 (i32.const 16384) (i32.const 0)) (i32.store offset=20 (i32.const 16384) (i32.const 1000))";
    let terms = "(i32.store offset=24 (i32.const 16384) (i32.const 0)) (i32.store offset=28 (i32.const 16384) (i32.const 1000))";
    for list in [features, terms] {
        let parts = describe(list);
        arena.refuses(SELECTOR, &parts.selector(), Stage::Describing, BORDER);
        arena.refuses(SELECTOR, &parts.scanner(), Stage::Describing, BORDER);
    }
}

/// Imports that answer lists: the host makes no list that is larger than what may cross.
#[test]
fn a_scanner_cannot_ask_for_more_than_may_cross() {
    let arena = Arena::new();
    let scanner = |imports, ask: &str| {
        let parts = Parts {
            imports,
            ..roomy(&format!("{ask} {}", choose(SLOTS)))
        };
        parts.scanner()
    };
    let names = r#"(import "maitred:policy/nodes@0.2.0" "names" (func $ask (param i32 i32 i32)))"#;
    let ask = "(call $ask (i32.const 0) (i32.const 7000000) (i32.const 1024))";
    arena.refuses(SELECTOR, &scanner(names, ask), Stage::Trying, BORDER);
    let column =
        r#"(import "maitred:policy/nodes@0.2.0" "column" (func $ask (param i32 i32 i32 i32 i32)))"#;
    let ask = "(call $ask (i32.const 0) (i32.const 31457280) (i32.const 0) (i32.const 0) (i32.const 1024))";
    arena.refuses(SELECTOR, &scanner(column, ask), Stage::Trying, BORDER);
    let ask = "(call $ask (i32.const 8) (i32.const 9) (i32.const 0) (i32.const 7000000) (i32.const 1024))";
    arena.refuses(SELECTOR, &scanner(column, ask), Stage::Trying, BORDER);
    // As many as there are, however many it asks for.
    let sample =
        r#"(import "maitred:policy/nodes@0.2.0" "sample" (func $ask (param i32 i32 i32)))"#;
    let ask = "(call $ask (i32.const -1) (i32.const 1) (i32.const 512))";
    let first = choose("(i32.load (i32.load (i32.const 512)))");
    let parts = Parts {
        imports: sample,
        ..Parts::body(&format!("{ask} {first}"))
    };
    arena.upload(SELECTOR, &parts.scanner()).unwrap();
}

#[test]
fn allocating_for_the_host_is_within_the_memory() {
    let arena = Arena::new();
    let core = r#"(module
      (memory (export "memory") 1)
      (data (i32.const 0) "x")
      (data (i32.const 256) "\00\00\00\00\01\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00")
      (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)
      (func (export "maitred:policy/selector@0.2.0#describe") (result i32) (i32.const 256))
      (func (export "maitred:policy/selector@0.2.0#validate") (param i32 i32) (result i32) (i32.const 1536))
      (func (export "maitred:policy/selector@0.2.0#select") (param i32) (result i32) unreachable))"#;
    let guest = component(core, &policy(), "selector-module");
    arena.refuses(SELECTOR, &guest, Stage::Trying, MEMORY);
}

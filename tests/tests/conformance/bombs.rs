//! Small modules that are a lot of work: for the compiler, for the linker, and for whoever reads the
//! error.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use maitred_protocol::ModuleKind;
use maitred_sandbox::{Limits, Stage};

use crate::arena::Arena;
use crate::support::guests::Parts;

const SELECTOR: ModuleKind = ModuleKind::Selector;
const SCANNING: Stage = Stage::Scanning;

fn with(items: String) -> Vec<u8> {
    let parts = Parts {
        items,
        ..Parts::default()
    };
    parts.selector()
}

/// `locals` locals that all change within `loops` nested loops: what the compiler keeps of it grows
/// with the product.
fn loops(locals: u32, loops: u32) -> String {
    let mut body = "(local".to_owned() + &" i32".repeat(locals as usize) + ")";
    body.push_str(&"(loop ".repeat(loops as usize));
    for at in 0..locals {
        write!(
            body,
            "(local.set {at} (i32.add (local.get {at}) (i32.const 1)))"
        )
        .unwrap();
    }
    for at in 0..loops {
        write!(body, "(br_if 0 (local.get {})))", at % locals).unwrap();
    }
    format!("(func {body})")
}

#[test]
fn bombs_of_one_function_do_not_reach_the_compiler() {
    let arena = Arena::new();
    let bomb = with(loops(2_000, 2_000));
    assert!(bomb.len() < 64 << 10, "{}", bomb.len());
    arena.refuses(
        SELECTOR,
        &bomb,
        SCANNING,
        "2000 locals in one function, of at most 1000 (limit locals)",
    );
    let adds = format!(
        "(func (result i32) i32.const 0 {})",
        "i32.const 1 i32.add ".repeat(1_000_000)
    );
    let adds = with(adds);
    assert!(adds.len() > 3_000_000, "{}", adds.len());
    arena.refuses(
        SELECTOR,
        &adds,
        SCANNING,
        "of at most 524288 (limit body_bytes)",
    );
    arena.refuses(
        SELECTOR,
        &with(loops(900, 900)),
        SCANNING,
        "(limit locals_by_blocks)",
    );
    arena.refuses(
        SELECTOR,
        &with(loops(1, 1_100)),
        SCANNING,
        "(limit nesting)",
    );
    let table = format!("(func (br_table {} (i32.const 0)))", "0 ".repeat(30_000));
    arena.refuses(SELECTOR, &with(table), SCANNING, "(limit branch_targets)");
    let functions = with("(func) ".repeat(40_001));
    arena.refuses(
        SELECTOR,
        &functions,
        SCANNING,
        "of at most 40000 (limit functions)",
    );
}

/// Each function is within its limits; that there are so many of them is seen by the clock.
#[test]
fn a_bomb_of_many_functions_is_stopped_while_it_is_compiled() {
    let mut limits = Limits::default();
    limits.compile.cpu_s = 2;
    let arena = Arena::with(limits);
    let bomb = with(loops(900, 440).repeat(100));
    assert!(bomb.len() < 4 << 20, "{}", bomb.len());
    let begun = Instant::now();
    let says = "the compiler needed more than 2 s of computing (limit compile.cpu_s)";
    arena.refuses(SELECTOR, &bomb, Stage::Compiling, says);
    // The good one was served meanwhile, and the next compilation is not held up.
    let next = with("(func $another)".to_owned());
    arena.upload(SELECTOR, &next).unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_module_of_100_mib_is_not_looked_at() {
    let arena = Arena::new();
    let mut bytes = vec![0; 100 << 20];
    bytes[..8].copy_from_slice(b"\0asm\x0d\0\x01\0");
    let begun = Instant::now();
    let says = "it has 104857600 bytes, of at most 4194304 (limit upload_bytes)";
    arena.refuses(SELECTOR, &bytes, Stage::Receiving, says);
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

/// A component that calls itself a selector, of such parts.
fn posing(items: &str) -> Vec<u8> {
    let text = format!(
        r#"(component {items} (instance $i) (export "maitred:policy/selector@0.2.0" (instance $i)))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// So many items, numbered.
fn many(count: u32, item: impl Fn(u32) -> String) -> String {
    (0..count).fold(String::new(), |text, at| text + &item(at))
}

#[test]
fn thousands_of_imports_make_a_short_error() {
    let arena = Arena::new();
    let world = Stage::CheckingTheWorld;
    let foreign = many(5_000, |at| {
        format!(r#"(import "wasi:cli/part-{at}@0.2.0" (instance))"#)
    });
    arena.refuses(
        SELECTOR,
        &posing(&foreign),
        world,
        "it imports wasi:cli/part-0@0.2.0, ",
    );
    let long = format!(r#"(import "{}" (func))"#, "a".repeat(100_000));
    arena.refuses(SELECTOR, &posing(&long), world, "--stub-wasi");
    // Those that are offered, thousands of times under other versions.
    let ours = many(5_000, |at| {
        format!(r#"(import "maitred:policy/host@0.2.{at}" (instance))"#)
    });
    let says = "instances count exceeds limit of 1000";
    arena.refuses(SELECTOR, &posing(&ours), Stage::Compiling, says);
    // Within its core module, which nothing instantiates: they are looked at, and that is all.
    let core = many(20_000, |at| format!(r#"(import "m" "f{at}" (func))"#));
    let guest = posing(&format!("(core module {core})"));
    let says = "it differs from the world";
    arena.refuses(SELECTOR, &guest, Stage::CheckingTheWorld, says);
    let core = many(1_000_001, |_| r#"(import "" "" (func))"#.to_owned());
    let guest = posing(&format!("(core module {core})"));
    let says = "imports count exceeds limit of 1000000";
    arena.refuses(SELECTOR, &guest, Stage::Compiling, says);
}

#[test]
fn thousands_of_exports_make_a_short_error() {
    let arena = Arena::new();
    let exports = many(20_000, |at| {
        format!(r#"(instance $i{at}) (export "e{at}" (instance $i{at}))"#)
    });
    let component = wat::parse_str(format!("(component {exports})")).unwrap();
    let says = "export the interface, not bare functions";
    arena.refuses(SELECTOR, &component, Stage::CheckingTheWorld, says);
    let long = format!(
        r#"(component (instance $i) (export "{}" (instance $i)))"#,
        "a".repeat(100_000)
    );
    let component = wat::parse_str(long).unwrap();
    arena.refuses(
        SELECTOR,
        &component,
        Stage::CheckingTheWorld,
        "this one exports ",
    );
}

#[test]
fn thousands_of_parts_of_a_component_are_refused() {
    let arena = Arena::new();
    let modules = "(core module)".repeat(65);
    arena.refuses(
        SELECTOR,
        &posing(&modules),
        SCANNING,
        "of at most 64 (limit core_modules)",
    );
    let part = "(core module $m) (core instance (instantiate $m))";
    let instances = format!("{part}{}", "(core instance (instantiate $m))".repeat(1_000));
    let memories =
        "(core module $m (memory 1))".to_owned() + &"(core instance (instantiate $m))".repeat(20);
    let types = "(type (tuple u8 u8 u8 u8))".repeat(200_000);
    let mut doubling = "(type $t0 (tuple u8 u8))".to_owned();
    for at in 1..100 {
        write!(doubling, "(type $t{at} (tuple $t{0} $t{0}))", at - 1).unwrap();
    }
    let too_many_memories = "20 Wasm linear memories, which exceeds the configured maximum of 4";
    for (items, stage, says) in [
        (
            instances,
            Stage::Compiling,
            "instances count exceeds limit of 1000",
        ),
        (memories, Stage::Compiling, too_many_memories),
        (
            doubling,
            Stage::Compiling,
            "effective type size exceeds the limit of 1000000",
        ),
        // Much to read, and nothing to do.
        (
            types,
            Stage::CheckingTheWorld,
            "does not have export `describe`",
        ),
    ] {
        arena.refuses(SELECTOR, &posing(&items), stage, says);
    }
    let nothing = "this one exports nothing";
    arena.refuses(SELECTOR, &nested(2_000), Stage::CheckingTheWorld, nothing);
}

/// Components within components, so deep.
fn nested(depth: u32) -> Vec<u8> {
    let header = b"\0asm\x0d\0\x01\0";
    (0..depth).fold(header.to_vec(), |inner, _| {
        let length = inner.len();
        // A section: a component; its length in as many bytes as that takes, up to three.
        let section = [
            4,
            length as u8 | 0x80,
            (length >> 7) as u8 | 0x80,
            (length >> 14) as u8,
        ];
        [&header[..], &section, &inner].concat()
    })
}

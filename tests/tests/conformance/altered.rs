//! Malformed modules by the thousand: what a generator makes, and what is left of real components when
//! bits of them are flipped, parts repeated, cut out or put in from elsewhere. Any of them may be
//! refused, some are good; none may bring the host down, or keep it busy.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use maitred_protocol::ModuleKind;
use maitred_registry::random::Random;
use wasm_smith::{Component, Config, Module};

use crate::arena::Arena;
use crate::support::guests::{component, policy};
use crate::support::{prebuilt, root};

/// Cases of each kind of module; there are four.
const CASES: u64 = 500;

/// What became of the cases, by the stage that they came to.
type Ends = BTreeMap<String, u32>;

fn judge(arena: &Arena, case: &str, kind: ModuleKind, bytes: &[u8], ends: &mut Ends) {
    let begun = Instant::now();
    let answer = arena.upload(kind, bytes);
    let took = begun.elapsed();
    assert!(
        took < Duration::from_secs(30),
        "{case}: {took:?} until {answer:?}"
    );
    let end = answer.map_or_else(|error| error.stage.to_string(), |_| "accepted".to_owned());
    *ends.entry(end).or_default() += 1;
}

fn chance(random: &mut Random, bytes: usize) -> Vec<u8> {
    let words = std::iter::repeat_with(|| random.next_u64().to_le_bytes());
    words.take(bytes.div_ceil(8)).flatten().collect()
}

fn below(random: &mut Random, end: usize) -> usize {
    random.below(end as u32) as usize
}

/// Spoils a module in one of several ways; `other` is where foreign parts come from.
fn spoilt(random: &mut Random, good: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let at = below(random, bytes.len());
    let length = below(random, 64.min(bytes.len() - at)) + 1;
    match random.below(6) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at..at + length].reverse(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..at + length)),
        4 => {
            let part: Vec<u8> = bytes[at..at + length].to_vec();
            bytes.splice(at..at, part);
        }
        _ => {
            let from = below(random, other.len() - 64);
            bytes.splice(at..at + length, other[from..from + length].to_vec());
        }
    }
    bytes
}

#[test]
fn spoilt_components_never_bring_the_host_down() {
    let arena = Arena::new();
    let old = std::fs::read(root().join("tests/guests/0.1.0/least-loaded.wasm")).unwrap();
    let guests = [
        (ModuleKind::Selector, prebuilt("least-loaded")),
        (ModuleKind::Selector, old),
        (ModuleKind::Callback, prebuilt("start")),
        (ModuleKind::Fence, prebuilt("witness")),
    ];
    let (mut random, mut ends) = (Random::new(1), Ends::new());
    for case in 0..2 * CASES {
        let (kind, good) = &guests[below(&mut random, guests.len())];
        let other = &guests[below(&mut random, guests.len())].1;
        let bytes = spoilt(&mut random, good, other);
        judge(&arena, &format!("case {case}"), *kind, &bytes, &mut ends);
    }
    println!("spoilt: {ends:?}");
    let compiled: u32 = ends
        .iter()
        .filter(|(end, _)| !early(end))
        .map(|(_, count)| count)
        .sum();
    assert!(
        compiled > 50,
        "hardly any came further than the scan: {ends:?}"
    );
}

fn early(end: &str) -> bool {
    end == "scanning" || end == "checking the world"
}

#[test]
fn generated_modules_never_bring_the_host_down() {
    let arena = Arena::new();
    let (mut random, mut ends) = (Random::new(2), Ends::new());
    for case in 0..CASES {
        let chance = chance(&mut random, 4_096);
        let config = Config {
            max_memory32_bytes: 1 << 33,
            ..Config::default()
        };
        let mut chance = Unstructured::new(&chance);
        let bytes = if case % 4 == 0 {
            Module::new(config, &mut chance).map(|module| module.to_bytes())
        } else {
            Component::new(config, &mut chance).map(|component| component.to_bytes())
        };
        // When its bytes of chance do not do, there is no such module.
        let Ok(bytes) = bytes else { continue };
        judge(
            &arena,
            &format!("case {case}"),
            ModuleKind::Selector,
            &bytes,
            &mut ends,
        );
    }
    println!("generated: {ends:?}");
    assert!(ends.values().sum::<u32>() > CASES as u32 / 2, "{ends:?}");
}

/// What a selector exports; what it does is the generator's business.
const SHAPE: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
    (func (export "maitred:policy/selector@0.2.0#describe") (result i32) unreachable)
    (func (export "maitred:policy/selector@0.2.0#validate") (param i32 i32) (result i32) unreachable)
    (func (export "maitred:policy/selector@0.2.0#select") (param i32) (result i32) unreachable))"#;

#[test]
fn generated_selectors_run_and_never_bring_the_host_down() {
    let arena = Arena::new();
    let (mut random, mut ends) = (Random::new(3), Ends::new());
    let wit = policy();
    for case in 0..CASES {
        let chance = chance(&mut random, 2_048);
        let config = Config {
            exports: Some(wat::parse_str(SHAPE).unwrap()),
            max_imports: 0,
            // Besides the one that it exports.
            max_memories: 0,
            max_tables: 2,
            max_table_elements: 1_000,
            max_memory32_bytes: 1 << 22,
            // What the sandbox's engine does not speak would not come further than the compiler.
            custom_page_sizes_enabled: false,
            exceptions_enabled: false,
            gc_enabled: false,
            memory64_enabled: false,
            reference_types_enabled: false,
            relaxed_simd_enabled: false,
            shared_everything_threads_enabled: false,
            threads_enabled: false,
            wide_arithmetic_enabled: false,
            ..Config::default()
        };
        let mut chance = Unstructured::new(&chance);
        let Ok(module) = Module::new(config, &mut chance) else {
            continue;
        };
        let guest = component(module.to_bytes(), &wit, "selector-module");
        judge(
            &arena,
            &format!("case {case}"),
            ModuleKind::Selector,
            &guest,
            &mut ends,
        );
    }
    println!("generated selectors: {ends:?}");
    let ran = ends
        .iter()
        .filter(|(end, _)| !early(end) && *end != "compiling");
    let ran: u32 = ran.map(|(_, count)| count).sum();
    assert!(ran > 50, "hardly any ran: {ends:?}");
}

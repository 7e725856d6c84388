//! Two thousand modules: the registry has a limit of names and one of versions, a host has one of
//! modules that are loaded, and memory does not grow with those that were refused.

use std::time::{Duration, Instant};

use maitred_protocol::{Digest, ModuleKind, ModuleName};
use maitred_registry::{Command, Entry, Outcome, PushModule, Registry};
use maitred_sandbox::{Limits, Stage};

use crate::arena::{Arena, peak_bytes};
use crate::support::guests::{Parts, choose};

/// Selectors that differ in a constant.
fn numbered(number: u64) -> Vec<u8> {
    let items = format!("(data (i32.const 8192) \"{number}\")");
    let parts = Parts {
        items,
        ..Parts::body(&choose("(i32.load (i32.load offset=80 (local.get $args)))"))
    };
    parts.selector()
}

#[test]
fn a_host_loads_so_many_modules_and_says_which_limit_that_is() {
    let limits = Limits {
        modules: 32,
        ..Limits::default()
    };
    let arena = Arena::with(limits);
    for number in 1..32 {
        let guest = numbered(number);
        arena.bench.load("many", ModuleKind::Selector, &guest, "{}");
    }
    let (before, begun) = (peak_bytes(), Instant::now());
    for number in 32..2_000 {
        let guest = numbered(number);
        let error = arena
            .bench
            .sandbox
            .load(Digest::of(&guest), ModuleKind::Selector, &guest);
        let error = error.unwrap_err();
        assert!(
            error.stage == Stage::Instantiating
                && error
                    .reason
                    .contains("32 modules are loaded already (limit modules)"),
            "{error}"
        );
    }
    // Nothing was compiled for them, and nothing is kept of them.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let grown = peak_bytes() - before;
    println!("1,968 were refused in {took:?}, {grown} bytes");
    arena.serves();
    // There is room again when one goes.
    arena.bench.sandbox.unload(&Digest::of(&numbered(1)));
    arena
        .bench
        .load("many", ModuleKind::Selector, &numbered(2_000), "{}");
    arena.serves();
}

/// Records a module of that name, and says why not.
fn push(registry: &mut Registry, name: &str, number: u64) -> Result<(), String> {
    let push = PushModule {
        name: ModuleName::new(name).unwrap(),
        kind: ModuleKind::Selector,
        digest: Digest::of(&number.to_le_bytes()),
        bytes: 1 << 20,
        title: "t".repeat(129),
        features: vec!["counter:".to_owned() + &"f".repeat(200); 32],
        world: "selector".to_owned(),
        abi: "0.2.0".to_owned(),
        hooks: Vec::new(),
        signature: None,
        is_trusted: false,
    };
    let entry = Entry {
        time_ms: 1_000,
        request: None,
        command: Command::PushModule(Box::new(push)),
    };
    let index = registry.applied() + 1;
    match registry.apply(index, entry, &mut Vec::new()) {
        Outcome::Pushed(..) => Ok(()),
        Outcome::Rejected(rejection) => Err(rejection.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_registry_takes_so_many_names_and_versions() {
    let mut registry = Registry::founded(&[1]);
    for number in 0..2_000 {
        let pushed = push(&mut registry, &format!("m{number}"), number);
        match pushed {
            Ok(()) => assert!(number < 256),
            Err(why) => assert!(
                number >= 256
                    && why
                        .contains("there are 256 modules already, which is the limit; remove one"),
                "{number}: {why}"
            ),
        }
    }
    for number in 1..2_000 {
        let pushed = push(&mut registry, "m0", 10_000 + number);
        match pushed {
            Ok(()) => assert!(number < 64),
            Err(why) => assert!(
                number >= 64
                    && why.contains(
                        "module m0 has 64 versions already, which is the limit; remove old ones"
                    ),
                "{number}: {why}"
            ),
        }
    }
    // What is there already may be pushed again.
    push(&mut registry, "m7", 7).unwrap();
}

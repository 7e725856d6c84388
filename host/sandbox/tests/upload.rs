//! What an upload is refused for: each with its stage and a reason that names the difference or the
//! limit; and what is accepted.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{Digest, ModuleKind, UploadStage};
use maitred_sandbox::{CompilerCommand, Inspected, Limits, ModuleError, Stage};
use support::guests::{FIRST, LOG, Parts, START, choose, component, first, policy, start, unknown};
use support::{Bench, bench, patient, prebuilt, sandbox_in};

fn inspect(bench: &Bench, kind: ModuleKind, bytes: &[u8]) -> Result<Inspected, ModuleError> {
    bench.sandbox.inspect(kind, bytes, |_| ())
}

/// The stage and the reason that a module is refused for.
fn refused(bytes: &[u8], limits: Limits) -> (Stage, String) {
    let ModuleError { stage, reason } =
        inspect(&bench(limits), ModuleKind::Selector, bytes).unwrap_err();
    (stage, reason)
}

#[track_caller]
fn assert_refused(bytes: &[u8], limits: Limits, stage: Stage, says: &str) {
    let (at, reason) = refused(bytes, limits);
    assert!(at == stage && reason.contains(says), "{at}: {reason}");
}

fn callback() -> Vec<u8> {
    Parts {
        imports: START,
        body: start(1_000),
        ..Parts::default()
    }
    .callback()
}

#[test]
fn a_good_selector_and_a_good_callback_pass() {
    let bench = bench(patient());
    let mut stages = Vec::new();
    let selector = bench
        .sandbox
        .inspect(ModuleKind::Selector, &first(), |stage| stages.push(stage))
        .unwrap();
    assert_eq!(
        selector,
        Inspected {
            title: "tester 1.0".to_owned(),
            world: "selector".to_owned(),
            abi: "0.2.0".to_owned(),
            features: vec!["processes".to_owned()],
            terms: Vec::new(),
            hooks: Vec::new(),
            notes: Vec::new(),
            ..selector.clone()
        }
    );
    let (decision, nodes) = selector.decision;
    assert!(decision > Duration::ZERO && nodes == 8, "{selector:?}");
    assert_eq!(selector.memory_bytes, 64 << 10, "{selector:?}");
    assert!(selector.compile > Duration::ZERO);
    let most = |limit: &str| {
        let measures = &selector.scanned.measures;
        let measure = measures.iter().find(|one| one.limit == limit).unwrap();
        (measure.got, measure.most)
    };
    assert_eq!(most("memory_bytes").0, 64 << 10);
    assert_eq!(most("core_modules"), (1, 64));
    let (body, most_bytes) = most("body_bytes");
    assert!((10..=most_bytes).contains(&body), "{body}");
    assert_eq!(selector.scanned.memories.len(), 1);
    assert_eq!(selector.scanned.memories[0].minimum, 1);
    assert_eq!(
        stages,
        [
            UploadStage::Scanning,
            UploadStage::Compiling,
            UploadStage::Trying
        ]
    );
    let callback = inspect(&bench, ModuleKind::Callback, &callback()).unwrap();
    assert_eq!(
        (callback.title.as_str(), callback.notes),
        ("tester 1.0", Vec::new())
    );
}

#[test]
fn every_standard_module_passes() {
    let bench = bench(patient());
    for name in [
        "affinity",
        "bin-pack",
        "bounded-load",
        "labels",
        "latency",
        "least-loaded",
        "ordered",
        "prefer-local",
        "random",
        "rendezvous",
        "round-robin",
        "spread",
        "sticky",
        "two-choices",
        "weighted",
    ] {
        let inspected = inspect(&bench, ModuleKind::Selector, &prebuilt(name)).unwrap();
        assert!(
            inspected.title.starts_with(name) && inspected.notes.is_empty(),
            "{inspected:?}"
        );
    }
    for (kind, name) in [
        (ModuleKind::Callback, "start"),
        (ModuleKind::Fence, "witness"),
    ] {
        let inspected = inspect(&bench, kind, &prebuilt(name)).unwrap();
        assert!(
            inspected.title.starts_with(name) && inspected.notes.is_empty(),
            "{inspected:?}"
        );
    }
}

#[test]
fn what_is_not_a_component_is_refused() {
    let limits = Limits::default;
    assert_refused(b"", limits(), Stage::Scanning, "not WebAssembly");
    assert_refused(b"(component)", limits(), Stage::Scanning, "not WebAssembly");
    assert_refused(
        b"\0asm\x01\0\0\0",
        limits(),
        Stage::Scanning,
        "core module, not a component: wrap it",
    );
    let good = first();
    assert_refused(
        &good[..good.len() / 2],
        limits(),
        Stage::Scanning,
        "not a valid component",
    );
}

#[test]
fn flipped_bits_never_panic() {
    let bench = bench(patient());
    let good = first();
    for at in (0..good.len()).step_by(good.len() / 40) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        // Some of these are good modules still; what counts is an answer.
        let _ = inspect(&bench, ModuleKind::Selector, &bad);
    }
    assert!(inspect(&bench, ModuleKind::Selector, &good).is_ok());
}

#[test]
fn an_upload_has_a_size() {
    let limits = Limits {
        upload_bytes: 100,
        ..Limits::default()
    };
    assert_refused(
        &first(),
        limits,
        Stage::Receiving,
        "of at most 100 (limit upload_bytes)",
    );
}

#[test]
fn the_worlds_are_told_apart() {
    let world = Stage::CheckingTheWorld;
    assert_refused(
        &callback(),
        patient(),
        world,
        "this one exports callback: push it as a callback",
    );
    let error = inspect(&bench(patient()), ModuleKind::Callback, &first()).unwrap_err();
    assert_eq!(error.stage, world);
    assert!(
        error
            .reason
            .contains("this one exports selector: push it as a selector"),
        "{error}"
    );

    let fence = Parts::body(&unknown("(i32.const 100)")).fence();
    for (kind, bytes, says) in [
        (
            ModuleKind::Fence,
            callback(),
            "a fence exports the interface maitred:policy/fence@0.2.0; this one exports callback: push it as a callback",
        ),
        (
            ModuleKind::Callback,
            fence.clone(),
            "a callback exports the interface maitred:policy/callback@0.2.0; this one exports fence: push it as a fence",
        ),
        (ModuleKind::Selector, fence, "this one exports fence"),
        (ModuleKind::Fence, first(), "this one exports selector"),
    ] {
        let error = inspect(&bench(patient()), kind, &bytes).unwrap_err();
        assert_eq!(error.stage, world);
        assert!(error.reason.contains(says), "{error}");
    }

    let newer = Parts::default().selector_of(
        &policy().replace("policy@0.2.0", "policy@0.3.0"),
        "selector@0.3.0",
    );
    assert_refused(&newer, patient(), world, "this one exports version 0.3.0");
    // Of the same minor version is fine.
    let patched = Parts::default().selector_of(
        &policy().replace("policy@0.2.0", "policy@0.2.4"),
        "selector@0.2.4",
    );
    inspect(&bench(patient()), ModuleKind::Selector, &patched).unwrap();
}

#[test]
fn an_import_that_is_not_offered_is_named() {
    let both = policy().replace(
        "    export selector;\n",
        "    import node;\n    export selector;\n",
    );
    let curious = Parts {
        imports: START,
        ..Parts::default()
    }
    .selector_of(&both, "selector@0.2.0");
    assert_refused(
        &curious,
        patient(),
        Stage::CheckingTheWorld,
        "it imports maitred:policy/node@0.2.0, which a selector is not offered",
    );

    let clock = component(
        r#"(module (import "$root" "now" (func $now)) (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "go") (call $now)))"#,
        "package wasi:clocks@0.2.0; world w { import now: func(); export go: func(); }",
        "w",
    );
    assert_refused(
        &clock,
        patient(),
        Stage::CheckingTheWorld,
        "this one exports go: export the interface",
    );

    // As an interpreter built without its flag would.
    let wasi = format!(
        "{} interface clock {{ now: func() -> u32; }}",
        policy().replace(
            "    export selector;\n",
            "    import clock;\n    export selector;\n"
        )
    );
    let imports = r#"(import "maitred:policy/clock@0.2.0" "now" (func $now (result i32)))"#;
    let timely = Parts {
        imports,
        ..Parts::default()
    }
    .selector_of(&wasi, "selector@0.2.0");
    assert_refused(
        &timely,
        patient(),
        Stage::CheckingTheWorld,
        "it imports maitred:policy/clock@0.2.0",
    );
}

#[test]
fn a_record_of_another_shape_is_refused() {
    let wit = policy().replace(
        "        ask: ask,\n    }",
        "        ask: ask,\n        mood: u32,\n    }",
    );
    assert_ne!(wit, policy());
    let (stage, reason) = refused(
        &Parts::default().selector_of(&wit, "selector@0.2.0"),
        patient(),
    );
    assert!(
        stage == Stage::CheckingTheWorld && reason.contains("record"),
        "{stage}: {reason}"
    );
}

/// A function of `locals` locals that all change within `loops` nested loops: what the compiler
/// keeps of it grows with the product.
fn bomb(locals: u32, loops: u32) -> Vec<u8> {
    let mut body = "(local i32) ".repeat(locals as usize);
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
    Parts {
        items: format!("(func {body})"),
        ..Parts::default()
    }
    .selector()
}

#[test]
fn compile_bombs_do_not_reach_the_compiler() {
    let scanning = Stage::Scanning;
    let begun = Instant::now();
    assert_refused(&bomb(2_000, 2_000), patient(), scanning, "(limit locals)");
    assert_refused(
        &bomb(900, 900),
        patient(),
        scanning,
        "(limit locals_by_blocks)",
    );
    assert_refused(&bomb(1, 2_000), patient(), scanning, "(limit nesting)");
    let with = |items: String| {
        Parts {
            items,
            ..Parts::default()
        }
        .selector()
    };
    let adds = with(format!(
        "(func (result i32) i32.const 0 {})",
        "i32.const 1 i32.add ".repeat(250_000)
    ));
    assert_refused(&adds, patient(), scanning, "(limit body_bytes)");
    assert_refused(
        &with("(func) ".repeat(50_000)),
        patient(),
        scanning,
        "(limit functions)",
    );
    let table = with(format!(
        "(func (br_table {} (i32.const 0)))",
        "0 ".repeat(30_000)
    ));
    assert_refused(&table, patient(), scanning, "(limit branch_targets)");
    assert_refused(
        &with("(table 30000 funcref)".to_owned()),
        patient(),
        scanning,
        "(limit table_elements)",
    );
    assert_refused(
        &Parts {
            memory: "1000",
            ..Parts::default()
        }
        .selector(),
        patient(),
        scanning,
        "(limit memory_bytes)",
    );
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "one of them was compiled"
    );
}

/// Limits under which a bomb passes the scan.
fn careless() -> Limits {
    let mut limits = patient();
    (
        limits.scan.locals,
        limits.scan.locals_by_blocks,
        limits.scan.nesting,
    ) = (10_000, 100_000_000, 10_000);
    limits
}

#[test]
fn a_bomb_that_reaches_the_compiler_is_stopped_there() {
    let mut limits = careless();
    limits.compile.cpu_s = 1;
    assert_refused(
        &bomb(2_000, 900),
        limits,
        Stage::Compiling,
        "(limit compile.cpu_s)",
    );
    let mut limits = careless();
    limits.compile.memory_bytes = 160 << 20;
    assert_refused(
        &bomb(2_000, 900),
        limits,
        Stage::Compiling,
        "(limit compile.memory_bytes)",
    );
}

#[test]
fn a_compiler_that_hangs_or_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut limits = patient();
    (limits.compile.cpu_s, limits.compile.wall_s) = (1, 1);
    let command = |program: &str, args: &[&str]| CompilerCommand {
        program: PathBuf::from(program),
        args: args.iter().map(OsString::from).collect(),
    };
    let hangs = sandbox_in(dir.path(), limits.clone(), command("sleep", &["60"]));
    let error = hangs
        .inspect(ModuleKind::Selector, &first(), |_| ())
        .unwrap_err();
    assert!(
        error.to_string().contains(
            "while compiling: the compiler was stopped after 1 s (limit compile.wall_s), of which"
        ),
        "{error}"
    );
    let missing = sandbox_in(dir.path(), limits, command("/nowhere/compiler", &[]));
    let error = missing
        .inspect(ModuleKind::Selector, &first(), |_| ())
        .unwrap_err();
    assert!(
        error.reason.contains("/nowhere/compiler") && error.reason.contains("could not be run"),
        "{error}"
    );
}

#[test]
fn a_compilation_under_way_ends_when_the_host_does() {
    let dir = tempfile::tempdir().unwrap();
    let began = dir.path().join("began");
    let script = format!("touch {}; exec sleep 600", began.display());
    let command = CompilerCommand {
        program: PathBuf::from("/bin/sh"),
        args: vec!["-c".into(), script.into()],
    };
    let mut limits = patient();
    limits.compile.wall_s = 300;
    let cache = dir.path().join("cache");
    let sandbox = sandbox_in(&cache, limits, command);
    let compiling = std::thread::spawn({
        let sandbox = Arc::clone(&sandbox);
        move || sandbox.inspect(ModuleKind::Selector, &first(), |_| ())
    });
    let patience = Instant::now() + Duration::from_secs(60);
    while !began.exists() && Instant::now() < patience {
        std::thread::yield_now();
    }
    assert!(began.exists());
    sandbox.stop_compiling();
    let error = compiling.join().unwrap().unwrap_err();
    assert!(error.reason.contains("shutting down"), "{error}");
    assert!(Instant::now() < patience);
    // And none begins any more.
    let error = sandbox.load(Digest::of(&first()), ModuleKind::Selector, &first());
    assert!(error.unwrap_err().reason.contains("shutting down"));
}

#[test]
fn machine_code_is_kept_and_made_again_when_it_was_altered() {
    let bench = bench(patient());
    let guest = first();
    let digest = Digest::of(&guest);
    bench
        .sandbox
        .load(digest, ModuleKind::Selector, &guest)
        .unwrap();
    // No compiler is needed any more.
    let none = CompilerCommand {
        program: PathBuf::from("/nowhere/compiler"),
        args: Vec::new(),
    };
    let again = sandbox_in(bench.dir.path(), patient(), none.clone());
    again.load(digest, ModuleKind::Selector, &guest).unwrap();
    assert!(again.is_loaded(&digest));

    let files = std::fs::read_dir(bench.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let file = files
        .into_iter()
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "cwasm")
        })
        .unwrap();
    let mut code = std::fs::read(&file).unwrap();
    *code.last_mut().unwrap() ^= 1;
    std::fs::write(&file, &code).unwrap();
    let altered = sandbox_in(bench.dir.path(), patient(), none);
    let error = altered
        .load(digest, ModuleKind::Selector, &guest)
        .unwrap_err();
    assert_eq!(error.stage, Stage::Compiling, "{error}");
    sandbox_in(bench.dir.path(), patient(), support::compiler())
        .load(digest, ModuleKind::Selector, &guest)
        .unwrap();
}

#[test]
fn bytes_must_be_those_of_the_digest() {
    let error = bench(patient())
        .sandbox
        .load(Digest([9; 32]), ModuleKind::Selector, &first())
        .unwrap_err();
    assert_eq!(error.stage, Stage::Receiving);
}

#[test]
fn a_manifest_is_checked() {
    // The words of the manifest at 256: lengths of name and features, and the variant of ask.
    let describe = |changes: &str| {
        let parts = Parts {
            describe: format!("{changes} (i32.const 256)"),
            ..Parts::default()
        };
        parts.selector()
    };
    let describing = Stage::Describing;
    assert_refused(
        &describe("(i32.store (i32.const 260) (i32.const 65))"),
        patient(),
        describing,
        "name has 65 bytes, of at most 64",
    );
    assert_refused(
        &describe("(i32.store (i32.const 68) (i32.const 8))"),
        patient(),
        describing,
        "unknown feature \"processe\"",
    );
    assert_refused(
        &describe("(i32.store (i32.const 276) (i32.const 33))"),
        patient(),
        describing,
        "33 features, of at most 32",
    );
    let sample =
        "(i32.store8 (i32.const 288) (i32.const 1)) (i32.store (i32.const 292) (i32.const 0))";
    assert_refused(
        &describe(sample),
        patient(),
        describing,
        "it asks for 0 candidates, of 1 to 1024",
    );
    assert_refused(
        &describe("(loop $ever (br $ever))"),
        Limits::default(),
        describing,
        "describe computed for more than 100 ms (limit describe_ms)",
    );
    assert_refused(&describe("unreachable"), patient(), describing, "trapped");
}

#[test]
fn an_instance_must_come_about() {
    let with = |items: &str| {
        Parts {
            items: items.to_owned(),
            ..Parts::default()
        }
        .selector()
    };
    let instantiating = Stage::Instantiating;
    assert_refused(
        &with("(func $go (loop $ever (br $ever))) (start $go)"),
        Limits::default(),
        instantiating,
        "a start function computed for more than 100 ms",
    );
    assert_refused(
        &with("(func $go unreachable) (start $go)"),
        patient(),
        instantiating,
        "trapped",
    );
}

#[test]
fn logging_is_offered() {
    let body = format!(
        "(call $log (i32.const 1) (i32.const 0) (i32.const 6)) {}",
        choose(FIRST)
    );
    inspect(
        &bench(patient()),
        ModuleKind::Selector,
        &Parts {
            imports: LOG,
            body,
            ..Parts::default()
        }
        .selector(),
    )
    .unwrap();
}

#[test]
fn all_foreign_imports_are_listed_with_the_flags_that_remove_them() {
    let ours = policy().replace(
        "world selector-module {\n    import host;",
        "world selector-module {\n    import host;\n    import wasi:clocks/now@0.2.0;\n    import wasi:clocks/later@0.2.0;",
    );
    let clocks = "package wasi:clocks@0.2.0 {
        interface now { now: func() -> u32; }
        interface later { later: func() -> u32; }
    }";
    let wit = format!("{ours}\n{clocks}");
    let imports = r#"(import "wasi:clocks/now@0.2.0" "now" (func $now (result i32)))
        (import "wasi:clocks/later@0.2.0" "later" (func $later (result i32)))"#;
    let parts = Parts {
        imports,
        ..Parts::default()
    };
    let guest = parts.selector_of(&wit, "selector@0.2.0");
    let (stage, reason) = refused(&guest, patient());
    assert_eq!(stage, Stage::CheckingTheWorld);
    // What `module build` says is what an upload is refused with.
    let foreign = ["wasi:clocks/now@0.2.0", "wasi:clocks/later@0.2.0"];
    let advice = maitred_protocol::world::foreign_imports(&foreign);
    assert_eq!(reason, advice);
}

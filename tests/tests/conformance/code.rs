//! Machine code is never taken from anybody: not uploaded, and not from the host's own folder when it
//! was altered there, cut short, or made by another engine. Such a module is compiled again.

use std::path::{Path, PathBuf};

use maitred_protocol::{Digest, ModuleKind};
use maitred_sandbox::{CompilerCommand, Limits, Rehearsal, Stage};

use crate::arena::Arena;
use crate::support::guests::first;
use crate::support::{compiler, module, sandbox_in};

const SELECTOR: ModuleKind = ModuleKind::Selector;
const HASH_BYTES: usize = 32;

/// The one file of machine code in a folder.
fn kept(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap();
    let mut files = files.map(|entry| entry.unwrap().path()).filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "cwasm")
    });
    let file = files.next().unwrap();
    assert_eq!(files.next(), None);
    file
}

/// Gives a file the hash that the host would have given it: what only somebody can do who reads the
/// host's own folder, or the host itself before it was updated.
fn vouched(file: &Path, code: &[u8]) -> Vec<u8> {
    let key = std::fs::read(file.with_file_name("key")).unwrap();
    let mut hash = blake3::Hasher::new_keyed(&key.try_into().unwrap());
    hash.update(file.file_name().unwrap().as_encoded_bytes());
    hash.update(code);
    [hash.finalize().as_bytes(), code].concat()
}

/// What another engine makes of a module: with fuel, without the ticks of the epoch.
fn of_another_engine(guest: &[u8]) -> Vec<u8> {
    let mut config = wasmtime::Config::new();
    config.consume_fuel(true);
    let engine = wasmtime::Engine::new(&config).unwrap();
    engine.precompile_component(guest).unwrap()
}

#[test]
fn machine_code_and_core_modules_are_no_uploads() {
    let arena = Arena::new();
    let says = "it is machine code, made for one engine: push the component";
    for code in [
        of_another_engine(&first()),
        std::fs::read(kept(arena.bench.dir.path())).unwrap()[HASH_BYTES..].to_vec(),
    ] {
        arena.refuses(SELECTOR, &code, Stage::Scanning, says);
    }
    let core = wat::parse_str(r#"(module (func (export "select")))"#).unwrap();
    let says = "it is a core module, not a component: wrap it with `wasm-tools component new`";
    arena.refuses(SELECTOR, &core, Stage::Scanning, says);
    for nothing in [
        &b""[..],
        b"\0",
        b"\0asm",
        b"\0asm\x0d\0\x01",
        b"(component)",
        b"MZ",
        b"#!/bin/sh",
    ] {
        let error = arena.upload(SELECTOR, nothing).unwrap_err();
        assert_eq!(error.stage, Stage::Scanning, "{error}");
    }
}

#[test]
fn kept_machine_code_that_is_not_this_hosts_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let guest = first();
    let load = |compiler: CompilerCommand| {
        let sandbox = sandbox_in(folder.path(), Limits::default(), compiler);
        sandbox.load(Digest::of(&guest), SELECTOR, &guest)
    };
    let no_compiler = || CompilerCommand {
        program: "/nowhere/compiler".into(),
        args: Vec::new(),
    };
    load(compiler()).unwrap();
    let file = kept(folder.path());
    let whole = std::fs::read(&file).unwrap();
    let middle = whole.len() / 2;
    let altered = |at: usize| {
        let mut altered = whole.clone();
        altered[at] ^= 0x10;
        altered
    };
    for (what, bytes) in [
        ("altered in its hash", altered(3)),
        ("altered in its code", altered(middle)),
        ("cut short", whole[..middle].to_vec()),
        ("cut to its hash", whole[..HASH_BYTES].to_vec()),
        ("empty", Vec::new()),
        ("longer", [&whole[..], b"\0"].concat()),
        (
            "vouched for, of another engine",
            vouched(&file, &of_another_engine(&guest)),
        ),
        ("vouched for, no code at all", vouched(&file, b"nonsense")),
        ("vouched for, empty", vouched(&file, b"")),
        ("another module's, under another name", {
            vouched(&file.with_file_name("another.cwasm"), &whole[HASH_BYTES..])
        }),
    ] {
        assert_ne!(bytes, whole, "{what}");
        std::fs::write(&file, &bytes).unwrap();
        let error = load(no_compiler()).unwrap_err();
        assert_eq!(error.stage, Stage::Compiling, "{what}: {error}");
        std::fs::write(&file, &bytes).unwrap();
        load(compiler()).unwrap_or_else(|error| panic!("{what}: {error}"));
        // What is there now is right, and enough.
        assert!(std::fs::read(&file).unwrap() == whole, "{what}");
        load(no_compiler()).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

/// A host with other limits has the same code; one that counts fuel has not.
#[test]
fn code_that_counts_fuel_is_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let guest = first();
    let sandbox = sandbox_in(folder.path(), Limits::default(), compiler());
    sandbox.load(Digest::of(&guest), SELECTOR, &guest).unwrap();
    let deciding = kept(folder.path());
    let named = module("good", &guest, "{}");
    Rehearsal::new(&sandbox, named, &guest).unwrap();
    let names: Vec<PathBuf> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some() && *path != deciding)
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    // Put in each other's place, neither is run.
    std::fs::copy(&names[0], &deciding).unwrap();
    drop(sandbox);
    let again = sandbox_in(
        folder.path(),
        Limits::default(),
        CompilerCommand {
            program: "/nowhere/compiler".into(),
            args: Vec::new(),
        },
    );
    let error = again
        .load(Digest::of(&guest), SELECTOR, &guest)
        .unwrap_err();
    assert_eq!(error.stage, Stage::Compiling, "{error}");
}

//! Modules as an author makes them: each project that `module new` writes is built by `module build`,
//! imports nothing foreign, and decides in the sandbox as its native twin does.
//!
//! Plain `cargo test` needs no foreign toolchain: it runs one selector that was built from the
//! template in C (`tests/guests/prebuilt`). With `MAITRED_GUESTS=all` every template is built, and a
//! missing toolchain fails the test; `.ci/run` installs them all.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

#[path = "../common/mod.rs"]
mod common;
mod fleets;
mod keys;
mod nodes;
mod sandbox;
mod twins;

use std::path::{Path, PathBuf};

use common::Place;
use serde_json::Value;

/// Every template that there is.
const TEMPLATES: [(&str, &str); 10] = [
    ("rust", "selector"),
    ("rust", "scanner"),
    ("rust", "callback"),
    ("rust", "fence"),
    ("js", "selector"),
    ("js", "callback"),
    ("python", "selector"),
    ("python", "callback"),
    ("c", "selector"),
    ("c", "callback"),
];

fn new(place: &Place, lang: &str, kind: &str) -> (PathBuf, Value) {
    let name = format!("{lang}-{kind}");
    let args = ["module", "new", &name, "--lang", lang, "--kind", kind];
    let made = place.json(&[&args[..], &["-o", "json"]].concat());
    (place.path().join(name), made)
}

#[test]
fn every_template_is_written_whole_and_never_over_something() {
    let place = Place::new();
    for (lang, kind) in TEMPLATES {
        let (folder, made) = new(&place, lang, kind);
        assert_eq!(made["project"]["lang"], lang);
        for file in made["files"].as_array().unwrap() {
            let path = folder.join(file.as_str().unwrap());
            assert!(path.is_file(), "{}", path.display());
        }
        assert_eq!(folder.join("sdk").exists(), lang == "rust");
        assert!(folder.join("wit/policy.wit").is_file());
        let tried = kind == "selector" || kind == "scanner";
        assert_eq!(folder.join("scenario.toml").is_file(), tried);
        assert_eq!(made["next"].as_array().unwrap().len(), 4);
        let name = format!("{lang}-{kind}");
        let again = place.error(&["module", "new", &name, "--lang", lang, "-o", "json"], 4);
        assert_eq!(again["code"], "exists");
    }
    for (name, lang, kind) in [
        ("7up", "rust", "selector"),
        ("x", "c", "fence"),
        ("x", "js", "scanner"),
    ] {
        let args = ["module", "new", name, "--lang", lang, "--kind", kind];
        place.error(&[&args[..], &["-o", "json"]].concat(), 2);
        assert!(!place.path().join(name).exists());
    }
}

#[test]
fn what_is_missing_is_named_with_the_command_that_installs_it() {
    let place = Place::new();
    for (lang, word) in [
        ("js", "nodejs"),
        ("python", "componentize-py==0.25.1"),
        ("c", "ziglang==0.17.1"),
    ] {
        new(&place, lang, "selector");
        let name = format!("{lang}-selector");
        let mut command = place.command(&["module", "build", &name, "-o", "json"]);
        // Nothing on the path, no active environment.
        let ended = command
            .env("PATH", place.path())
            .env_remove("VIRTUAL_ENV")
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(9), "{lang}");
        let error: Value = serde_json::from_slice(&ended.stderr).unwrap();
        assert_eq!(error["code"], "toolchain");
        let install = error["details"]["install"].as_str().unwrap();
        assert!(install.contains(word), "{install}");
    }
    let nothing = place.error(&["module", "build", "nowhere", "-o", "json"], 3);
    assert_eq!(nothing["code"], "project");
}

/// The C template as it was built once; see the README beside it.
#[test]
fn the_committed_selector_decides_as_its_twin() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/prebuilt/least-busy.wasm");
    let bytes = std::fs::read(path).unwrap();
    sandbox::selector_equals(&bytes, &mut twins::LeastBusy::new("least-busy"));
}

/// Its component, after a look at what `module build` says of it.
fn build(place: &Place, name: &str, kind: &str) -> Vec<u8> {
    let built = place.json(&["module", "build", name, "-o", "json"]);
    assert_eq!(built["world"], format!("{kind}-module"));
    assert_eq!(built["version"], "0.2.0");
    let imports = built["imports"].as_array().unwrap();
    assert!(!imports.is_empty());
    for import in imports {
        let import = import.as_str().unwrap();
        assert!(import.starts_with("maitred:policy/"), "{name}: {import}");
    }
    let bytes = std::fs::read(place.path().join(built["file"].as_str().unwrap())).unwrap();
    assert_eq!(built["bytes"], bytes.len());
    bytes
}

#[test]
fn guests_of_every_language_build_and_decide_as_their_twins() {
    match std::env::var("MAITRED_GUESTS") {
        Err(_) => {
            eprintln!(
                "MAITRED_GUESTS=all builds the templates; it needs node, python and the like"
            );
            return;
        }
        Ok(which) => assert_eq!(which, "all", "MAITRED_GUESTS"),
    }
    let place = Place::new();
    let mut target: Option<PathBuf> = None;
    for (lang, kind) in TEMPLATES {
        let name = format!("{lang}-{kind}");
        let (folder, _) = new(&place, lang, kind);
        if lang == "rust" {
            // What was compiled for one is good for the next.
            if let Some(before) = target.replace(folder.join("target")) {
                std::fs::rename(before, folder.join("target")).unwrap();
            }
        }
        let bytes = build(&place, &name, kind);
        match (lang, kind) {
            ("rust", "selector") => {
                sandbox::selector_equals(&bytes, &mut twins::Composed::new(&name));
            }
            (_, "selector") => sandbox::selector_equals(&bytes, &mut twins::LeastBusy::new(&name)),
            (_, "callback") => nodes::a_busy_node_is_asked_again(&bytes),
            _ => sandbox::is_accepted(&bytes, kind),
        }
        eprintln!("{name}: {} bytes", bytes.len());
    }
}

#[test]
fn a_measurement_has_a_row_for_each_size_and_says_who_decided() {
    let place = Place::new();
    let component =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/prebuilt/least-busy.wasm");
    let component = component.to_str().unwrap();
    let args = [
        "module",
        "bench",
        component,
        "--nodes",
        "3,40",
        "--decisions",
        "100",
    ];
    let made = place.json(&[&args[..], &["-o", "json"]].concat());
    let [native, module] = made["items"].as_array().unwrap().as_slice() else {
        panic!("{made}");
    };
    assert_eq!(native["module"], "native");
    for item in [native, module] {
        let sizes: Vec<&Value> = item["rows"].as_array().unwrap().iter().collect();
        assert_eq!(sizes.len(), 2);
        for row in sizes {
            assert_eq!(row["warm"]["decisions"], "100");
            assert_eq!(row["fell_back"], "0", "{row}");
        }
    }
    assert_eq!(module["rows"][1]["cold"]["decisions"], "20");
    let refused = place.error(
        &["module", "bench", component, "--config", "{", "-o", "json"],
        2,
    );
    assert_eq!(refused["code"], "usage", "{refused}");
}

//! A backup from end to end: saved from a running host, looked into, altered, restored, and served
//! again as a new cluster.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use common::{Place, Running};
use rustix::process::Signal;
use serde_json::Value;

fn serve(place: &Place, data: &str) -> Running {
    let mut host = place.start(&[
        "serve",
        "--data-dir",
        data,
        "--listen",
        "127.0.0.1:0",
        "--ca",
        "certs/ca.pem",
        "--cert",
        "certs/host.pem",
        "--key",
        "certs/host.key",
        "-o",
        "json",
    ]);
    let line = host.line();
    if line.is_empty() {
        panic!("it did not start: {}", host.wait().err);
    }
    let ready: Value = serde_json::from_str(&line).unwrap();
    let address = ready["address"].as_str().unwrap();
    let contexts = place.path().join("config/maitred/contexts");
    std::fs::create_dir_all(&contexts).unwrap();
    let certs = place.path().join("certs").display().to_string();
    let text = format!(
        "endpoints = [\"{address}\"]\nca = \"{certs}/ca.pem\"\ncert = \"{certs}/client.pem\"\nkey = \"{certs}/client.key\"\n"
    );
    std::fs::write(contexts.join("default.toml"), text).unwrap();
    host
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn a_backup_is_saved_inspected_restored_and_served_as_a_new_cluster() {
    let place = Place::new();
    place.json(&["cert", "init", "-o", "json"]);
    let host = serve(&place, "data");
    place.json(&["type", "put", "room", "--attempts", "7", "-o", "json"]);
    let saved = place.json(&["snapshot", "save", "a.snap", "-o", "json"]);
    assert_eq!(saved["kind"], "SnapshotSaved");
    // A name that is taken is not written over.
    place.error(&["snapshot", "save", "a.snap", "-o", "json"], 4);
    place.json(&["snapshot", "save", "a.snap", "--force", "-o", "json"]);
    let old = place.json(&["status", "-o", "json"]);
    // Over a cluster that runs, nothing is restored.
    let restore = |dir: &'static str| {
        let head = ["snapshot", "restore", "a.snap", "--data-dir", dir];
        [&head[..], &["--name", "z", "-o", "json"]].concat()
    };
    assert_eq!(place.error(&restore("data"), 4)["code"], "data_dir");
    host.signal(Signal::TERM);
    assert_eq!(host.wait().code, 0);
    assert_eq!(place.error(&restore("data"), 4)["code"], "data_dir");

    let inside = place.json(&["snapshot", "inspect", "a.snap", "--json"]);
    assert_eq!(inside["kind"], "Snapshot");
    assert_eq!(inside["types"], 1);
    assert_eq!(inside["voters"], serde_json::json!(["1"]));
    let modules = inside["modules"].as_array().unwrap().len();
    assert!(modules >= 6, "{inside}");
    let text = place.run(&["snapshot", "inspect", "a.snap"]);
    assert!(text.out.contains("state hash"), "{}", text.out);

    let made = place.json(
        &[
            &restore("new")[..],
            &["--modules-from", "data", "--bump", "5000"],
        ]
        .concat(),
    );
    assert_eq!(made["modules_missing"], serde_json::json!([]));
    assert_eq!(number(&made["index"]), number(&inside["index"]) + 5_000);
    assert!(number(&made["term"]) > number(&inside["term"]));
    place.error(&restore("new"), 4);

    let host = serve(&place, "new");
    let status = place.json(&["status", "-o", "json"]);
    assert!(number(&status["applied"]) >= number(&old["applied"]) + 5_000 - 10);
    assert_eq!(status["members"][0]["name"], "z");
    let kept = place.json(&["type", "get", "room", "-o", "json"]);
    assert_eq!(kept["type"]["attempts"], 7);
    host.signal(Signal::TERM);
    assert_eq!(host.wait().code, 0);
}

#[test]
fn a_snapshot_cut_short_or_altered_is_refused_and_nothing_is_made() {
    let place = Place::new();
    place.json(&["cert", "init", "-o", "json"]);
    let host = serve(&place, "data");
    place.json(&["snapshot", "save", "a.snap", "-o", "json"]);
    host.signal(Signal::TERM);
    host.wait();
    let whole = std::fs::read(place.path().join("a.snap")).unwrap();
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    for bad in [&whole[..whole.len() - 1], &whole[..10], &altered, b"text"] {
        std::fs::write(place.path().join("bad.snap"), bad).unwrap();
        let error = place.error(&["snapshot", "inspect", "bad.snap", "-o", "json"], 1);
        assert_eq!(error["code"], "snapshot");
        let head = ["snapshot", "restore", "bad.snap", "--data-dir", "new"];
        place.error(&[&head[..], &["--name", "z", "-o", "json"]].concat(), 1);
        assert!(!place.path().join("new/VERSION").exists());
    }
    place.error(&["snapshot", "inspect", "none.snap", "-o", "json"], 1);
}

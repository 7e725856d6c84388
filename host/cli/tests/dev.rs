//! The main job as a newcomer meets it: `dev` without a terminal, and other commands beside it.

mod common;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use common::Place;
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn headless_sums_up_in_one_line() {
    let place = Place::new();
    let args = ["dev", "--headless", "--json", "--for", "3s", "--port", "0"];
    let ended = place.run(&args);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    assert_eq!(ended.out.lines().count(), 1, "{}", ended.out);
    let summary: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(summary["v"], 1);
    assert_eq!(summary["failures"], 0);
    let creates = summary["creates"].as_u64().unwrap();
    assert!(creates >= 20, "{summary}");
    assert!(summary["swaps"].as_u64().unwrap() >= 1, "{summary}");
    assert!(summary["p50_us"].as_u64().unwrap() <= summary["p99_us"].as_u64().unwrap());
    let nodes = summary["nodes"].as_object().unwrap();
    let placed = |name: &str| nodes[name]["placed"].as_u64().unwrap();
    assert_eq!(placed("eu-1") + placed("eu-2") + placed("us-1"), creates);
}

/// Needs `script` of util-linux to make a terminal; without it, there is nothing to try.
#[test]
fn the_live_table_obeys_keys_and_gives_the_terminal_back() {
    let made = Command::new("script").arg("--version").output();
    if !made.is_ok_and(|made| String::from_utf8_lossy(&made.stdout).contains("util-linux")) {
        return;
    }
    let place = Place::new();
    // It ends by itself should a key be lost, so that nothing here waits for ever.
    let program = env!("CARGO_BIN_EXE_maitred");
    let dev = format!("stty rows 40 cols 100; exec '{program}' dev --port 0 --for 60s");
    let mut command = place.command_of("script", &["-qec", &dev, "/dev/null"]);
    let mut terminal = command
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = terminal.stdin.take().unwrap();
    let mut out = terminal.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut wait_for = |word: &str, seen: &mut Vec<u8>| {
        let mut part = [0; 4_096];
        let from = seen.len();
        while !String::from_utf8_lossy(&seen[from..]).contains(word) {
            let count = out.read(&mut part).unwrap_or(0);
            assert!(count > 0, "{word}: {}", String::from_utf8_lossy(seen));
            seen.extend_from_slice(&part[..count]);
        }
    };
    wait_for("RECENT", &mut seen);
    keys.write_all(b"d").unwrap();
    wait_for("drains:", &mut seen);
    keys.write_all(b"e").unwrap();
    wait_for("closes", &mut seen);
    // The first only closes what is on top.
    keys.write_all(b"qq").unwrap();
    wait_for("\u{1b}[?1049l", &mut seen);
    wait_for("placed by", &mut seen);
    assert!(terminal.wait().unwrap().success());
    assert!(String::from_utf8_lossy(&seen).contains("\u{1b}[?1049h"));
}

#[test]
fn what_a_killed_dev_left_behind_is_cleared_by_the_next_one() {
    let place = Place::new();
    let temporary = place.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let folders = || std::fs::read_dir(&temporary).unwrap().count();
    let args = ["dev", "--headless", "--port", "0"];
    let mut command = place.command(&args);
    command.env("TMPDIR", &temporary);
    let mut killed = place.start_command(command);
    assert!(killed.line().starts_with("maitred "));
    killed.signal(Signal::KILL);
    assert_eq!(killed.wait().code, -1);
    assert_eq!(folders(), 1);
    let mut command = place.command(&args);
    command.env("TMPDIR", &temporary);
    let mut next = place.start_command(command);
    assert!(next.line().starts_with("maitred "));
    assert_eq!(folders(), 1, "only the new one's");
    next.signal(Signal::TERM);
    next.wait();
    assert_eq!(folders(), 0);
}

#[test]
fn a_type_that_somebody_gave_another_selector_keeps_it() {
    let place = Place::new();
    let mut dev = place.start(&["dev", "--headless", "--port", "0"]);
    assert!(dev.line().starts_with("maitred "));
    let types = || place.json(&["type", "ls", "-o", "json"])["items"].clone();
    let of = |types: &Value, name: &str| {
        let types = types.as_array().unwrap();
        let found = types.iter().find(|one| one["name"] == name).unwrap();
        found["selector"].as_str().unwrap().to_owned()
    };
    let swapped = || {
        let before = of(&types(), "room");
        while of(&types(), "room") == before {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    // Right after a swap, so that none is under way that has read the type already.
    swapped();
    let put = [
        "type",
        "put",
        "player",
        "--selector",
        "labels",
        "-o",
        "json",
    ];
    place.json(&put);
    swapped();
    swapped();
    assert_eq!(of(&types(), "player"), "labels");
    dev.signal(Signal::TERM);
    assert_eq!(dev.wait().code, 0);
}

#[test]
fn other_commands_find_a_running_dev_without_flags() {
    let place = Place::new();
    let mut dev = place.start(&["dev", "--headless", "--port", "0", "--life", "1m"]);
    assert!(dev.line().starts_with("maitred "));

    let nodes = place.json(&["node", "ls", "-o", "json"]);
    assert_eq!(nodes["items"].as_array().unwrap().len(), 3);
    assert!(nodes["items"][0]["epoch"].is_string());

    let create = [
        "process",
        "create",
        "player/p1",
        "--require",
        "zone=us",
        "-o",
        "json",
    ];
    let made = place.json(&create);
    assert_eq!(
        (&made["kind"], &made["created"]),
        (&"Created".into(), &true.into())
    );
    assert_eq!(made["process"]["node"], "us-1");
    assert_eq!(place.json(&create)["created"], false);
    let fail = [&create[..], &["--on-conflict", "fail"]].concat();
    assert_eq!(place.error(&fail, 4)["code"], "already_exists");

    let got = place.json(&["process", "get", "player/p1", "-o", "json"]);
    assert_eq!(
        got["process"]["incarnation"],
        made["process"]["incarnation"]
    );
    let why = place.json(&["process", "explain", "player/p1", "-o", "json"]);
    let refused = why["evidence"]["refusals"].as_array().unwrap();
    assert_eq!(refused.len(), 2, "{why}");

    let large = [
        "process", "plan", "match/1", "--demand", "100000", "-o", "json",
    ];
    let ended = place.run(&large);
    assert_eq!(ended.code, 5);
    let plan: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (&plan["kind"], &plan["node"]),
        (&"Plan".into(), &Value::Null)
    );

    let fenced = [
        "process",
        "del",
        "player/p1",
        "--incarnation",
        "1",
        "-o",
        "json",
    ];
    place.error(&fenced, 4);
    place.json(&["process", "del", "player/p1", "-o", "json"]);
    place.error(&["process", "get", "player/p1", "-o", "json"], 3);

    std::fs::write(place.path().join("bad.wasm"), b"no component").unwrap();
    let push = ["module", "push", "bad", "bad.wasm", "-o", "json"];
    assert_eq!(place.error(&push, 8)["code"], "module_rejected");

    let wrong = ["type", "put", "odd", "--selector", "start", "-o", "json"];
    let refused = place.error(&wrong, 2);
    assert_eq!(refused["message"], "start is a callback, not a selector");
    place.error(&["type", "get", "odd", "-o", "json"], 3);
    let doubtful = ["type", "put", "odd", "--selector", "later", "-o", "json"];
    let warnings = &place.json(&doubtful)["warnings"];
    assert!(
        warnings[0].as_str().unwrap().contains("no such module"),
        "{warnings}"
    );
    let spread = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../selectors/prebuilt/spread.wasm"
    );
    let again = place.run(&["module", "push", "spread", spread]);
    assert!(again.out.contains("decides already"), "{}", again.out);

    place.json(&["node", "cordon", "eu-1", "-o", "json"]);
    let node = place.json(&["node", "get", "eu-1", "-o", "json"]);
    assert_eq!(node["node"]["state"], "cordoned");
    place.json(&["node", "uncordon", "eu-1", "-o", "json"]);
    place.error(&["node", "get", "none", "-o", "json"], 3);

    let list = place.json(&["process", "ls", "--limit", "1", "-o", "json"]);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);

    dev.signal(Signal::INT);
    let ended = dev.wait();
    assert_eq!(ended.code, 0, "{}", ended.err);
    let error = place.error(&["node", "ls", "-o", "json"], 6);
    assert_eq!(error["code"], "no_host", "the context must go with its dev");
}

#[test]
fn bench_measures_every_operation() {
    let place = Place::new();
    let short = [
        "--duration",
        "300ms",
        "--warm-up",
        "100ms",
        "--in-flight",
        "1,8",
    ];
    let report = place.json(&[&["bench", "--embedded", "-o", "json"], &short[..]].concat());
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 6);
    for one in results {
        assert_ne!(one["ops"], "0", "{one}");
        assert_eq!(one["failed"], "0", "{one}");
        assert!(one["p50_us"].as_f64().unwrap() <= one["p999_us"].as_f64().unwrap());
    }
}

//! Modules as their author and an operator meet them: tried without a host, then pushed, compared,
//! replayed, activated for some and taken back; parties, and why a process is where it is.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod common;

use std::path::{Path, PathBuf};

use common::{Place, Running};
use serde_json::{Value, json};

/// A standard module's component.
fn component(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../selectors/prebuilt");
    folder.join(format!("{name}.wasm")).display().to_string()
}

/// A host with three sample nodes and a little load, which decides with several selectors.
fn dev(place: &Place) -> Running {
    let args = ["dev", "--headless", "--port", "0", "--rate", "5"];
    let mut dev = place.start(&args);
    assert!(dev.line().starts_with("maitred "));
    dev
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

fn write(place: &Place, name: &str, text: &str) -> PathBuf {
    let path = place.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_component_is_checked_without_a_host() {
    let place = Place::new();
    let found = place.json(&["module", "check", &component("spread"), "-o", "json"]);
    assert_eq!(found["accepted"], true);
    assert_eq!(
        (&found["world"], &found["abi"]),
        (&json!("selector-module"), &json!("0.2.0"))
    );
    assert!(
        found["features"]
            .as_array()
            .unwrap()
            .contains(&json!("processes"))
    );
    let decides = &found["decides"];
    assert_eq!(
        (&decides["deterministic"], &decides["unsteady"]),
        (&json!(true), &json!(0))
    );
    assert!(decides["decisions"].as_u64().unwrap() > 50, "{decides}");
    let [middle, most] = ["fuel_p50", "fuel_max"].map(|name| number(&decides[name]));
    assert!(0 < middle && middle <= most, "{decides}");

    let callback = place.json(&["module", "check", &component("start"), "-o", "json"]);
    assert_eq!(callback["module_kind"], "callback");
    assert_eq!(callback["decides"], Value::Null);
    let start = component("start");
    let wrong = ["module", "check", &start, "--kind", "fence", "-o", "json"];
    assert_eq!(place.error(&wrong, 8)["code"], "module_rejected");
    write(&place, "text.wasm", "this is no component");
    place.error(&["module", "check", "text.wasm", "-o", "json"], 8);
}

const SCENARIO: &str = r#"
[[node]]
name = "full"
processes = 9

[[node]]
name = "idle"

[[case]]
name = "the emptier one"
request = { type = "room", id = "r", count = 5 }
expect = { node = "idle" }

[[case]]
name = "level from the first on"
request = { type = "room", id = "r", count = 4 }
expect = { gap = 1.0 }
"#;

#[test]
fn a_scenario_names_the_case_that_fails_and_why() {
    let place = Place::new();
    write(&place, "scenario.toml", SCENARIO);
    let component = component("least-loaded");
    let test = ["module", "test", "scenario.toml", "--component", &component];
    let ended = place.run(&[&test[..], &["-o", "json"]].concat());
    assert_eq!(ended.code, 1, "{}{}", ended.out, ended.err);
    let found: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&found["cases"], &found["failed"]), (&json!(2), &json!(1)));
    let items = found["items"].as_array().unwrap();
    assert_eq!(items[0]["passed"], true, "{found}");
    assert!(number(&items[0]["fuel_max"]) > 0 && items[0]["decisions"] == 5);
    let why = items[1]["failures"][0].as_str().unwrap();
    assert!(why.contains("above the average"), "{why}");
    let people = place.run(&test);
    assert!(
        people.out.contains("FAIL") && people.out.contains(why),
        "{}",
        people.out
    );

    let better = SCENARIO.replace("gap = 1.0", "max-share = 1.0");
    write(&place, "scenario.toml", &better);
    let again = place.json(&[&test[..], &["-o", "json"]].concat());
    assert_eq!(again["failed"], 0);
    write(&place, "scenario.toml", "[[node]]\nname = 3\n");
    let error = place.error(&[&test[..], &["-o", "json"]].concat(), 2);
    assert!(
        error["message"].as_str().unwrap().contains("line"),
        "{error}"
    );
}

/// Looks until `ready` says so; the load of `dev` goes on meanwhile.
fn until(place: &Place, args: &[&str], ready: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..300 {
        let ended = place.run(&[args, &["-o", "json"]].concat());
        if ended.code == 0 {
            let found: Value = serde_json::from_str(&ended.out).unwrap();
            if ready(&found) {
                return found;
            }
        }
    }
    panic!("{args:?} never came to what is waited for");
}

#[test]
fn a_version_is_tried_in_shadow_and_by_replay_before_it_decides() {
    let place = Place::new();
    let _dev = dev(&place);
    let other = component("least-loaded");
    let pushed = place.json(&["module", "push", "spread", &other, "-o", "json"]);
    assert_eq!(pushed["version"], 2);
    let started = place.json(&["module", "shadow", "start", "spread@2", "-o", "json"]);
    assert_eq!(started["module"]["shadow"]["version"], 2);
    let seen = until(&place, &["module", "compare", "spread"], |seen| {
        number(&seen["decisions"]) >= 3
    });
    assert_eq!(
        (&seen["other"]["version"], &seen["decided"][0]["version"]),
        (&json!(2), &json!(1))
    );
    place.json(&["module", "shadow", "stop", "spread", "-o", "json"]);
    place.error(&["module", "compare", "spread", "-o", "json"], 4);

    // The version that decided comes to the same, to the bit, on the host and on this machine.
    let replay = ["module", "replay", "spread@1", "--last", "50"];
    let replayed = until(&place, &replay, |replayed| {
        number(&replayed["decisions"]) >= 3
    });
    assert_eq!(replayed["identical"], replayed["decisions"], "{replayed}");
    assert_eq!(replayed["same_version"], replayed["decisions"]);
    let saved = place.json(&["module", "replay", "--export", "f", "-o", "json"]);
    assert!(number(&saved["decisions"]) >= 3);
    place.error(&["module", "replay", "--export", "f", "-o", "json"], 4);
    let from = ["module", "replay", "spread", "--from", "f", "--component"];
    let spread = component("spread");
    let local = place.json(&[&from[..], &[&spread, "-o", "json"]].concat());
    assert_eq!(local["identical"], local["decisions"], "{local}");
    let local = place.json(&[&from[..], &[&other, "-o", "json"]].concat());
    assert_eq!(local["same_version"], "0");
    let none = ["module", "replay", "nobody", "--from", "f", "--component"];
    place.error(&[&none[..], &[&spread, "-o", "json"]].concat(), 3);
}

#[test]
fn a_canary_decides_for_some_and_is_taken_back() {
    let place = Place::new();
    let _dev = dev(&place);
    let (first, second) = (component("random"), component("sticky"));
    place.json(&["module", "push", "mine", &first, "--activate", "-o", "json"]);
    let canary = ["--activate", "--percent", "100", "--types", "room"];
    let rule = ["--auto-rollback", "traps>0", "-o", "json"];
    let push = ["module", "push", "mine", &second];
    let pushed = place.json(&[&push[..], &canary, &rule].concat());
    let found = &pushed["module"]["canary"];
    assert_eq!(
        (&found["version"], &found["guard"]),
        (&json!(2), &json!("traps>0"))
    );
    assert_eq!(pushed["module"]["active"], 1);
    let by = |key: &str| {
        let create = ["process", "create", key, "--selector", "mine", "-o", "json"];
        place.json(&create)["process"]["why"]["chooser"].clone()
    };
    let chooser = by("room/m1");
    assert_eq!(
        (&chooser["version"], &chooser["canary"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(chooser["config"].as_str().unwrap().len(), 16);
    assert_eq!(by("match/m1")["version"], 1);

    let configure = [
        "module",
        "configure",
        "mine",
        "--config",
        "{}",
        "-o",
        "json",
    ];
    assert_eq!(place.error(&configure, 4)["code"], "canary");
    let unwanted = [
        "module",
        "activate",
        "mine@1",
        "--config",
        "{\"x\":1}",
        "-o",
        "json",
    ];
    let error = place.error(&unwanted, 8);
    assert_eq!(error["details"]["stage"], "validating the configuration");
    let back = place.json(&["module", "rollback", "mine", "-o", "json"]);
    assert_eq!(
        (&back["module"]["canary"], &back["module"]["active"]),
        (&Value::Null, &json!(1))
    );
    assert_eq!(by("room/m2")["version"], 1);
    let history = place.json(&["module", "history", "mine", "-o", "json"]);
    let actions: Vec<&str> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["action"].as_str().unwrap())
        .collect();
    let expected = [
        "pushed",
        "activated",
        "pushed",
        "canary-started",
        "rolled-back",
    ];
    assert_eq!(actions, expected);
}

#[test]
fn a_party_comes_whole_and_each_of_it_says_why_it_is_where_it_is() {
    let place = Place::new();
    let _dev = dev(&place);
    let party = ["party", "create", "squad", "room/m1", "room/m2", "room/m3"];
    let made = place.json(&[&party[..], &["--rule", "apart", "-o", "json"]].concat());
    assert_eq!(made["created"], true);
    let items = made["items"].as_array().unwrap();
    let mut nodes: Vec<&str> = items
        .iter()
        .map(|one| one["node"].as_str().unwrap())
        .collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["eu-1", "eu-2", "us-1"]);
    assert!(items.iter().all(|one| one["group"] == "squad"), "{made}");
    let more = [
        "party", "create", "four", "match/m1", "match/m2", "match/m3", "match/m4",
    ];
    let error = place.error(&[&more[..], &["--rule", "apart", "-o", "json"]].concat(), 5);
    assert!(error["details"].is_object(), "{error}");
    place.error(&["process", "get", "match/m1", "-o", "json"], 3);

    let create = ["process", "create", "room/m9", "--selector", "spread"];
    place.json(&[&create[..], &["--require", "zone=eu", "-o", "json"]].concat());
    let explain = ["process", "explain", "room/m9", "--why-not", "us-1"];
    let told = place.json(&[&explain[..], &["-o", "json"]].concat());
    assert_eq!(told["why_not"]["answer"], "refused");
    assert_eq!(told["why_not"]["filter"], "label");
    assert_eq!(told["evidence"]["filtered"]["label"], 1);
    assert_eq!(told["evidence"]["answered"]["answer"], "choose");
    assert!(number(&told["fuel"]) > 0, "{told}");
    let people = place.run(&explain);
    for part in [
        "not on us-1: label zone is not eu",
        "fuel",
        "1 by label",
        "LOAD AGE",
    ] {
        assert!(people.out.contains(part), "{part}: {}", people.out);
    }
}

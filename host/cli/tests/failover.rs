//! Lost, drained and uneven nodes, as an operator meets them; and what is measured of them.

mod common;

use common::{Place, Running};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A host with three sample nodes and a little load.
fn dev(place: &Place) -> Running {
    let args = [
        "dev",
        "--headless",
        "--port",
        "0",
        "--rate",
        "5",
        "--life",
        "1m",
    ];
    let mut dev = place.start(&args);
    assert!(dev.line().starts_with("maitred "));
    dev
}

fn state(place: &Place, node: &str) -> Value {
    place.json(&["node", "get", node, "-o", "json"])["node"]["state"].clone()
}

#[test]
fn a_drained_node_is_empty_and_comes_back_when_it_is_uncordoned() {
    let place = Place::new();
    let _dev = dev(&place);
    for number in 0..20 {
        let key = format!("room/{number}");
        place.json(&[
            "process",
            "create",
            &key,
            "--require",
            "zone=eu",
            "-o",
            "json",
        ]);
    }
    let absent = place.error(&["node", "drain", "eu-1", "--watch", "-o", "json"], 3);
    assert_eq!(absent["code"], "not_draining");
    let drain = ["node", "drain", "eu-1", "--rate", "100", "--deadline", "1m"];
    let drained = place.json(&[&drain[..], &["-o", "json"]].concat());
    assert_eq!(drained["kind"], "Drained");
    assert_eq!(drained["node"]["drain"]["left"], 0, "{drained}");
    assert_eq!(drained["gone"], false);
    assert_eq!(state(&place, "eu-1"), "drained");
    // Whoever was interrupted goes on with looking; there is nothing left to see.
    let again = place.run(&["node", "drain", "eu-1"]);
    assert!(
        again.out.contains("eu-1 is empty"),
        "{}{}",
        again.out,
        again.err
    );
    let on_it = ["process", "ls", "--node", "eu-1", "-o", "json"];
    assert_eq!(place.json(&on_it)["items"], json!([]));
    // All of them are there still: those that had to stay in the zone are on its other node.
    for number in 0..20 {
        let key = format!("room/{number}");
        let found = place.json(&["process", "get", &key, "-o", "json"]);
        assert_eq!(found["process"]["node"], "eu-2", "{found}");
    }
    place.json(&["node", "uncordon", "eu-1", "-o", "json"]);
    assert_eq!(state(&place, "eu-1"), "ready");

    let begun = place.json(&["node", "drain", "us-1", "--no-wait", "-o", "json"]);
    assert_eq!(begun["node"]["drain"]["per_second"], 50);
    place.json(&["node", "drain", "us-1", "--cancel", "-o", "json"]);
    assert_eq!(state(&place, "us-1"), "cordoned");
    place.error(&["node", "drain", "us-1", "--cancel", "-o", "json"], 3);
    place.error(&["node", "drain", "none", "-o", "json"], 3);
}

#[test]
fn what_is_held_up_is_said_and_goes_on() {
    let place = Place::new();
    let _dev = dev(&place);
    place.json(&["rebalance", "suspend", "-o", "json"]);
    place.json(&["recreation", "pause", "-o", "json"]);
    let status = place.json(&["status", "-o", "json"]);
    assert_eq!(status["moves_suspended"], true);
    assert!(status["recreation_paused"].is_string(), "{status}");
    let text = place.run(&["status"]).out;
    assert!(
        text.contains("SUSPENDED") && text.contains("PAUSED"),
        "{text}"
    );
    let paused = place.json(&["recreation", "status", "-o", "json"]);
    assert!(paused["recreation_paused"].is_string(), "{paused}");
    assert_eq!(paused["waits"], json!({}));

    place.json(&["rebalance", "resume", "-o", "json"]);
    place.json(&["recreation", "resume", "-o", "json"]);
    let text = place.run(&["status"]).out;
    assert!(
        !text.contains("SUSPENDED") && !text.contains("PAUSED"),
        "{text}"
    );
}

#[test]
fn moves_are_shown_and_made_only_when_that_is_asked_for() {
    let place = Place::new();
    // Nothing comes or goes meanwhile.
    let slow = [
        "dev",
        "--headless",
        "--port",
        "0",
        "--rate",
        "1",
        "--life",
        "1m",
    ];
    let mut dev = place.start(&slow);
    assert!(dev.line().starts_with("maitred "));
    for number in 0..30 {
        let key = format!("room/{number}");
        place.json(&[
            "process",
            "create",
            &key,
            "--require",
            "zone=us",
            "-o",
            "json",
        ]);
    }
    for number in 0..30 {
        let key = format!("player/made-{number}");
        place.json(&[
            "process",
            "create",
            &key,
            "--selector",
            "bin-pack",
            "-o",
            "json",
        ]);
    }
    let plan = ["rebalance", "--type", "player", "-o", "json"];
    let shown = place.json(&plan);
    assert_eq!(shown["applied"], 0);
    let moves = shown["moves"].as_array().unwrap();
    assert!(!moves.is_empty(), "{shown}");
    assert!(moves.iter().all(|one| one["gain"].as_f64().unwrap() > 0.0));
    let deviation = |plan: &Value, at: &str| plan[at]["deviation"].as_f64().unwrap();
    assert!(deviation(&shown, "after") < deviation(&shown, "before"));
    let apply = [
        "rebalance",
        "--type",
        "player",
        "--apply",
        "--rate",
        "500",
        "-o",
        "json",
    ];
    let made = place.json(&apply);
    assert!(made["applied"].as_u64().unwrap() > 0, "{made}");
    assert!(made["now"]["before"]["deviation"].is_number(), "{made}");
    dev.signal(Signal::INT);
    dev.wait();
}

#[test]
fn whoever_waits_says_what_for_and_a_death_is_confirmed_only_on_purpose() {
    let place = Place::new();
    let _dev = dev(&place);
    let pending = place.json(&["process", "ls", "--state", "pending", "-o", "json"]);
    assert_eq!(
        (&pending["items"], &pending["next"]),
        (&json!([]), &Value::Null)
    );
    let lost = place.json(&["node", "ls", "--lost", "-o", "json"]);
    assert_eq!(
        (&lost["kind"], &lost["items"]),
        (&json!("LostList"), &json!([]))
    );

    let asked = place.error(&["node", "confirm-dead", "eu-1", "-o", "json"], 2);
    assert!(asked["help"].as_str().unwrap().contains("--yes"), "{asked}");
    place.error(&["node", "confirm-dead", "none", "--yes", "-o", "json"], 3);

    let put = ["type", "put", "ledger", "--restart", "strict", "-o", "json"];
    let ledger = place.json(&put);
    assert_eq!(ledger["type"]["restart"], "strict");
    let warning = ledger["warnings"][0].as_str().unwrap();
    assert!(warning.contains("confirm-dead"), "{warning}");
    let wrong = ["type", "put", "ledger", "--fence", "spread", "-o", "json"];
    assert_eq!(
        place.error(&wrong, 2)["message"],
        "spread is a selector, not a fence"
    );
}

#[test]
fn bench_measures_what_becomes_of_lost_and_idle_nodes() {
    let place = Place::new();
    let short = [
        "--trials",
        "1",
        "--ttl",
        "1s",
        "--processes",
        "40",
        "--nodes",
        "3",
    ];
    let loss = ["bench", "--op", "node-loss", "-o", "json"];
    let report = place.json(&[&loss[..], &short].concat());
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 2, "{report}");
    for one in results {
        let micros = |name: &str| one[name].as_str().unwrap().parse::<u64>().unwrap();
        assert!(micros("expired_p50_us") > 500_000, "{one}");
        assert!(
            micros("running_p50_us") >= micros("expired_p50_us"),
            "{one}"
        );
    }
    let idle = [
        "bench",
        "--op",
        "keep-alive",
        "--nodes",
        "10",
        "--ttl",
        "1s",
    ];
    let report = place.json(&[&idle[..], &["--duration", "1s", "-o", "json"]].concat());
    assert_eq!((&report["lost"], &report["nodes"]), (&json!(0), &json!(10)));
    let sent: u64 = report["keep_alives"].as_str().unwrap().parse().unwrap();
    assert!(sent >= 10, "{report}");
    let expire = [
        "bench",
        "--op",
        "expire",
        "--nodes",
        "10",
        "--processes",
        "50",
    ];
    let report = place.json(&[&expire[..], &["-o", "json"]].concat());
    assert!(
        report["expirations_per_s"].as_f64().unwrap() > 0.0,
        "{report}"
    );
}

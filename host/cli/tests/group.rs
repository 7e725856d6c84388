//! Several hosts as a person meets them: `dev --hosts 3`, and a cluster of processes that grows,
//! loses its leader, and shrinks again.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::time::{Duration, Instant};

use common::{Place, Running};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn dev_with_three_hosts_rides_over_the_loss_of_its_leader() {
    let place = Place::new();
    let args = ["dev", "--hosts", "3", "--headless", "--json", "--for", "5s"];
    let more = ["--port", "0", "--kill-leader", "2s"];
    let ended = place.run(&[&args[..], &more].concat());
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    let summary: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(summary["failures"], 0, "{summary}");
    assert!(summary["creates"].as_u64().unwrap() >= 20, "{summary}");
    assert!(summary["kills"].as_u64().unwrap() >= 1, "{summary}");
    assert!(
        summary["leader_changes"].as_u64().unwrap() >= 1,
        "{summary}"
    );
    let hosts = summary["hosts"].as_array().unwrap();
    assert_eq!(hosts.len(), 3);
    assert!(
        hosts.iter().all(|host| host["role"] == "voter"),
        "{summary}"
    );
    let mut numbers: Vec<&str> = hosts
        .iter()
        .map(|host| host["host"].as_str().unwrap())
        .collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 3);
}

const TLS: [&str; 6] = [
    "--ca",
    "certs/ca.pem",
    "--cert",
    "certs/host.pem",
    "--key",
    "certs/host.key",
];

/// A host as a process; its address.
fn serve(place: &Place, name: &str, join: &str) -> (Running, String) {
    let head = ["serve", "--data-dir", name, "--name", name, "-o", "json"];
    let mut args = [&head[..], &["--listen", "127.0.0.1:0"], &TLS].concat();
    if !join.is_empty() {
        args.extend(["--join", join]);
    }
    let mut host = place.start(&args);
    let line = host.line();
    if line.is_empty() {
        panic!("{name} did not start: {}", host.wait().err);
    }
    let ready: Value = serde_json::from_str(&line).unwrap();
    let address = ready["address"].as_str().unwrap().to_owned();
    (host, address)
}

fn context(place: &Place, endpoints: &[&str]) {
    let contexts = place.path().join("config/maitred/contexts");
    std::fs::create_dir_all(&contexts).unwrap();
    let certs = place.path().join("certs").display().to_string();
    let text = format!(
        "endpoints = {endpoints:?}\nca = \"{certs}/ca.pem\"\ncert = \"{certs}/client.pem\"\nkey = \"{certs}/client.key\"\n"
    );
    std::fs::write(contexts.join("default.toml"), text).unwrap();
}

#[test]
fn a_cluster_grows_loses_its_leader_and_shrinks() {
    let place = Place::new();
    place.json(&["cert", "init", "-o", "json"]);
    let (a, first) = serve(&place, "a", "");
    context(&place, &[&first]);
    let (b, second) = serve(&place, "b", &first);
    // Announcing a host that has come already only follows it until it votes.
    let added = place.json(&["member", "add", "b", &second, "-o", "json"]);
    assert_eq!(added["member"]["role"], "voter", "{added}");
    let (_c, third) = serve(&place, "c", &second);
    place.json(&["member", "add", "c", &third, "-o", "json"]);
    // The leader is the only host that these know of at first.
    for _ in 0..20 {
        let status = place.json(&["status", "--endpoint", &first, "-o", "json"]);
        let members = status["members"].as_array().unwrap();
        assert_eq!(members.len(), 3, "{status}");
        let answers = |member: &Value| member["status"]["build"].is_string();
        assert!(members.iter().all(answers), "{status}");
    }
    // A name that is taken.
    let used = [
        "member",
        "add",
        "c",
        "127.0.0.1:9",
        "--no-wait",
        "-o",
        "json",
    ];
    place.error(&used, 4);

    let moved = place.json(&["member", "transfer-leader", "b", "-o", "json"]);
    assert_eq!(moved["name"], "b");
    let listed = place.json(&["member", "ls", "-o", "json"]);
    assert_eq!(listed["leader"], moved["leader"]);
    assert_eq!(listed["items"].as_array().unwrap().len(), 3);

    context(&place, &[&first, &second, &third]);
    b.signal(Signal::KILL);
    b.wait();
    // The change waits for the election, and is made once.
    let put = ["type", "put", "room", "--attempts", "7", "-o", "json"];
    assert_eq!(place.json(&put)["type"]["attempts"], 7);
    let status = place.json(&["status", "-o", "json"]);
    let of = |name: &str| {
        let members = status["members"].as_array().unwrap();
        members
            .iter()
            .find(|member| member["name"] == name)
            .unwrap()
            .clone()
    };
    assert!(of("b")["problem"].is_string(), "{status}");
    assert!(of("a")["status"]["build"].is_string(), "{status}");

    // Counted as lost when nothing was heard of it for two seconds.
    let silent = || {
        let listed = place.json(&["member", "ls", "-o", "json"]);
        let items = listed["items"].as_array().unwrap();
        let b = items.iter().find(|member| member["name"] == "b").unwrap();
        b["progress"].is_object()
            && b["progress"]["heard_ms"]
                .as_u64()
                .is_none_or(|ms| ms > 2_100)
    };
    while !silent() {}

    // Two of three are left: taking one of those out would leave one of two.
    let refused = place.error(&["member", "remove", "a", "--yes", "-o", "json"], 4);
    assert!(!refused["help"].as_str().unwrap().is_empty());
    // Nobody can be asked here whether that is meant.
    place.error(&["member", "remove", "b", "-o", "json"], 2);
    let removed = place.json(&["member", "remove", "b", "--yes", "-o", "json"]);
    assert_eq!(removed["member"]["name"], "b");
    let listed = place.json(&["member", "ls", "-o", "json"]);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    place.error(&["member", "remove", "b", "-o", "json"], 3);

    // The one that was removed hears of it, and says that starting it again cannot help.
    let head = [
        "serve",
        "--data-dir",
        "b",
        "--listen",
        &second,
        "-o",
        "json",
    ];
    let ended = place.run(&[&head[..], &TLS].concat());
    assert_eq!(ended.code, 4, "{}{}", ended.out, ended.err);

    // Without most of its voters it says so, whoever is asked.
    a.signal(Signal::KILL);
    a.wait();
    let look = ["status", "--endpoint", &third, "-o", "json"];
    let mut left = place.run(&look);
    // It gives up after an election time-out.
    while left.code == 0 {
        left = place.run(&look);
    }
    assert_eq!(left.code, 6, "{}{}", left.out, left.err);
    let error: Value = serde_json::from_str(left.err.lines().last().unwrap()).unwrap();
    assert_eq!(error["code"], "no_leader", "{error}");
    let status: Value = serde_json::from_str(&left.out).unwrap();
    assert_eq!(status["leader"], Value::Null);

    // So does every other command, and within its time, whatever the type's deadline is.
    let verbs: [&[&str]; 6] = [
        &["process", "get", "room/1"],
        &["process", "create", "room/1"],
        &["type", "put", "room"],
        &["node", "ls"],
        &["member", "remove", "a", "--yes"],
        &["member", "transfer-leader"],
    ];
    for verb in verbs {
        let begun = Instant::now();
        let within = ["--timeout", "1s", "--endpoint", &third, "-o", "json"];
        let error = place.error(&[verb, &within].concat(), 6);
        assert_eq!(error["code"], "no_leader", "{verb:?}: {error}");
        assert!(error["help"].as_str().unwrap().contains("start the hosts"));
        assert!(begun.elapsed() < Duration::from_secs(5), "{verb:?}");
    }
}

#[test]
fn bench_measures_a_group_and_its_failover() {
    let place = Place::new();
    let short = [
        "--duration",
        "300ms",
        "--warm-up",
        "100ms",
        "--in-flight",
        "8",
    ];
    let head = ["bench", "--hosts", "3", "--op", "set", "-o", "json"];
    let report = place.json(&[&head[..], &short].concat());
    assert_eq!(report["hosts"], 3);
    assert_eq!(report["results"][0]["op"], "set");
    assert_ne!(report["results"][0]["ops"], "0");
    let report = place.json(&["bench", "--op", "failover", "--trials", "2", "-o", "json"]);
    assert_eq!(report["trials"], 2, "{report}");
    assert!(report["p50_ms"].as_f64().unwrap() <= report["max_ms"].as_f64().unwrap());
    let many = ["bench", "--op", "restart", "--hosts", "3"];
    let report = place.json(&[&many[..], &["--records", "2000", "-o", "json"]].concat());
    assert!(report["catch_up_s"].as_f64().unwrap() > 0.0, "{report}");
}

//! An operator's path: make certificates, serve, look, be refused with foreign ones, end by signal.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use common::{Place, Running};
use rustix::process::Signal;
use serde_json::Value;

fn serve(place: &Place, args: &[&str]) -> (Running, String) {
    let all = [&["serve", "--data-dir", "data", "-o", "json"][..], args].concat();
    let mut host = place.start(&all);
    let line = host.line();
    if line.is_empty() {
        panic!("it did not start: {}", host.wait().err);
    }
    let ready: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["kind"], "Ready");
    let address = ready["address"].as_str().unwrap().to_owned();
    (host, address)
}

#[test]
fn serve_answers_until_sigterm_and_keeps_what_it_was_told() {
    let place = Place::new();
    place.json(&["cert", "init", "-o", "json"]);
    let tls = "[tls]\nca = \"certs/ca.pem\"\ncert = \"certs/host.pem\"\nkey = \"certs/host.key\"\n";
    // The port of the file is lost to that of the flag.
    let text = format!("data_dir = \"elsewhere\"\nlisten = \"127.0.0.1:9\"\n{tls}");
    std::fs::write(place.path().join("host.toml"), text).unwrap();
    let flags = ["--config", "host.toml", "--listen", "127.0.0.1:0"];
    let (host, address) = serve(&place, &flags);
    let config = place.path().join("config/maitred/contexts");
    std::fs::create_dir_all(&config).unwrap();
    let certs = place.path().join("certs").display().to_string();
    let context = |endpoint: &str| {
        let text = format!(
            "endpoints = [\"{endpoint}\"]\nca = \"{certs}/ca.pem\"\ncert = \"{certs}/client.pem\"\nkey = \"{certs}/client.key\"\n"
        );
        std::fs::write(config.join("default.toml"), text).unwrap();
    };
    context(&address);
    let status = place.json(&["status", "-o", "json"]);
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["role"], "leader");
    assert!(status["applied"].is_string());
    let put = ["type", "put", "room", "--attempts", "7", "-o", "json"];
    assert_eq!(place.json(&put)["type"]["attempts"], 7);
    // Nobody can take it: no nodes.
    let none = place.error(&["process", "create", "room/1", "-o", "json"], 5);
    assert!(none["help"].as_str().unwrap().contains("no nodes"));

    // Another group's certificates.
    place.json(&["cert", "init", "--dir", "foreign", "-o", "json"]);
    let foreign = [
        "--ca",
        "certs/ca.pem",
        "--cert",
        "foreign/client.pem",
        "--key",
        "foreign/client.key",
    ];
    let error = place.error(&[&["status", "-o", "json"], &foreign[..]].concat(), 7);
    assert_eq!(error["code"], "tls");
    let foreign = ["--ca", "foreign/ca.pem"];
    place.error(&[&["status", "-o", "json"], &foreign[..]].concat(), 7);

    // A second host on the same folder says what is wrong.
    let second = place.error(
        &[
            &["serve", "--data-dir", "data", "-o", "json", "--log", "off"],
            &flags[..],
        ]
        .concat(),
        1,
    );
    assert_eq!(second["code"], "data_dir");

    host.signal(Signal::TERM);
    let ended = host.wait();
    assert_eq!(ended.code, 0, "{}", ended.err);
    let silent = place.error(&["status", "--timeout", "1s", "-o", "json"], 6);
    assert_eq!(silent["code"], "no_answer");
    let expected = format!("no answer from {address} within 1s");
    assert_eq!(silent["message"], expected);

    let (host, address) = serve(&place, &flags);
    context(&address);
    let kept = place.json(&["type", "get", "room", "-o", "json"]);
    assert_eq!(kept["type"]["attempts"], 7);
    host.signal(Signal::INT);
    assert_eq!(host.wait().code, 0);
}

#[test]
fn a_host_with_certificates_of_another_group_is_told_so_when_it_joins() {
    let place = Place::new();
    place.json(&["cert", "init", "-o", "json"]);
    place.json(&["cert", "init", "--dir", "other", "-o", "json"]);
    let listen = ["--listen", "127.0.0.1:0"];
    let tls = |dir: &str| {
        let file = |name: &str| format!("{dir}/{name}");
        let (ca, cert, key) = (file("ca.pem"), file("host.pem"), file("host.key"));
        [
            "--ca".to_owned(),
            ca,
            "--cert".to_owned(),
            cert,
            "--key".to_owned(),
            key,
        ]
    };
    let own = tls("certs");
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let (_host, address) = serve(&place, &[&listen[..], &own].concat());
    let other = tls("other");
    let other: Vec<&str> = other.iter().map(String::as_str).collect();
    let head = [
        "serve",
        "--data-dir",
        "second",
        "-o",
        "json",
        "--join",
        &address,
    ];
    let error = place.error(&[&head[..], &listen, &other].concat(), 7);
    assert_eq!(error["code"], "tls");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&address), "{message}");
}

#[test]
fn settings_out_of_range_are_refused_by_their_flag() {
    let place = Place::new();
    for flag in [
        "--tick-ms",
        "--heartbeat-ticks",
        "--election-ticks",
        "--level-max",
    ] {
        let error = place.error(&["serve", "--data-dir", "d", flag, "0", "-o", "json"], 2);
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains(flag) && message.contains("..="),
            "{message}"
        );
    }
}

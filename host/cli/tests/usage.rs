//! What a person meets before any host is there: help, wrong command lines, no host, bad files.

mod common;

use common::Place;

/// Every verb that does something.
const VERBS: &[&[&str]] = &[
    &["dev"],
    &["serve"],
    &["status"],
    &["member", "ls"],
    &["member", "add"],
    &["member", "remove"],
    &["member", "replace"],
    &["member", "transfer-leader"],
    &["snapshot", "save"],
    &["snapshot", "inspect"],
    &["snapshot", "restore"],
    &["process", "create"],
    &["process", "plan"],
    &["process", "get"],
    &["process", "ls"],
    &["process", "explain"],
    &["process", "set"],
    &["process", "del"],
    &["party", "create"],
    &["node", "ls"],
    &["node", "get"],
    &["node", "cordon"],
    &["node", "uncordon"],
    &["node", "drain"],
    &["node", "deregister"],
    &["node", "confirm-dead"],
    &["module", "push"],
    &["module", "ls"],
    &["module", "get"],
    &["module", "check"],
    &["module", "test"],
    &["module", "dev"],
    &["module", "activate"],
    &["module", "configure"],
    &["module", "rollback"],
    &["module", "history"],
    &["module", "shadow", "start"],
    &["module", "shadow", "stop"],
    &["module", "compare"],
    &["module", "replay"],
    &["module", "rm"],
    &["type", "put"],
    &["type", "get"],
    &["type", "ls"],
    &["rebalance"],
    &["rebalance", "suspend"],
    &["rebalance", "resume"],
    &["recreation", "status"],
    &["recreation", "pause"],
    &["recreation", "resume"],
    &["bench"],
    &["cert", "init"],
    &["cert", "issue"],
    &["completions"],
];

#[test]
fn the_help_of_every_verb_teaches_by_an_example() {
    let place = Place::new();
    for verb in VERBS {
        let help = place.run(&[verb, &["--help"][..]].concat());
        assert_eq!(help.code, 0, "{verb:?}");
        let example = format!("maitred {}", verb.join(" "));
        assert!(help.out.contains(&example), "{verb:?} has no example");
        assert!(help.out.contains("--endpoint"), "{verb:?}");
    }
    let all = place.run(&["--help"]);
    assert!(all.out.contains("Exit codes"));
    assert!(!all.out.contains("internal-"));
}

#[test]
fn wrong_command_lines_are_exit_code_2() {
    let place = Place::new();
    for wrong in [
        &["nonsense"][..],
        &["process", "get"],
        &["process", "get", "no-slash"],
        &["process", "get", "Upper/1"],
        &["process", "create", "a/b", "--deadline", "5"],
        &["process", "create", "a/b", "--deadline", "1h"],
        &["process", "create", "a/b", "--demand", "lots"],
        &["process", "create", "a/b", "--require", "zone"],
        &["module", "rm", "x"],
        &["module", "activate", "x@0"],
        &["module", "activate", "x@1", "--version", "2"],
        &["module", "activate", "x", "--percent", "0"],
        &["module", "activate", "x", "--percent", "101"],
        &["module", "activate", "x", "--auto-rollback", "traps"],
        &["module", "activate", "x", "--auto-rollback", "p98>200us"],
        &["module", "configure", "x"],
        &["module", "shadow", "stop", "x@1"],
        &["module", "replay"],
        &["module", "replay", "x", "--last", "0"],
        &["module", "replay", "x", "--from", "f"],
        &["module", "replay", "x@2", "--export", "f"],
        &["module", "replay", "x", "--export", "f", "--config", "{}"],
        &["party", "create", "g"],
        &["party", "create", "g", "a/b", "--rule", "at-most:0"],
        &["party", "create", "g", "a/b", "--on-conflict", "wait"],
        &["process", "create", "a/b", "--latency", "eu"],
        &["dev", "--nodes", "0"],
        &["dev", "--hosts", "0"],
        &["dev", "--kill-leader", "1s", "--headless"],
        &["member", "add", "a"],
        &["member", "add", "a b", "127.0.0.1:1"],
        &["member", "remove"],
        &["member", "add", "a", "b:1", "--no-wait", "--wait", "1s"],
        &["snapshot", "save"],
        &["snapshot", "restore", "f"],
        &[
            "snapshot",
            "restore",
            "f",
            "--data-dir",
            "d",
            "--name",
            "z",
            "--bump",
            "0",
        ],
        &["node", "drain"],
        &["node", "drain", "a", "--deadline", "999ms"],
        &["node", "drain", "a", "--rate", "0"],
        &["node", "drain", "a", "--cancel", "--watch"],
        &["node", "drain", "a", "--watch", "--rate", "5"],
        &["node", "confirm-dead", "a", "--epoch", "x"],
        &["rebalance", "--max", "0"],
        &["rebalance", "--max", "2001"],
        &["rebalance", "--rate", "5"],
        &["rebalance", "--plan", "--apply"],
        &["rebalance", "--apply", "suspend"],
        &["recreation"],
        &["type", "put", "a", "--restart", "maybe"],
        &["type", "put", "a", "--fence", "f", "--no-fence"],
        &["type", "put", "a", "--pending-deadline", "soon"],
        &["type", "put", "a", "--recreate-attempts", "65536"],
        &["serve", "--mass-loss-percent", "0"],
        &["serve", "--recreate-per-node", "0"],
        &["serve", "--data-dir", "d", "--mass-loss-window", "999ms"],
        &["serve", "--name", "a b"],
        &["serve", "--data-dir", "d", "--heartbeat-ticks", "9"],
        &["bench", "--op", "failover", "--hosts", "1"],
        &["bench", "--op", "node-loss", "--nodes", "1"],
        &["bench", "--op", "keep-alive", "--ttl", "999ms"],
        &["bench", "--op", "expire", "--ttl", "1s,3s"],
        &["bench", "--nodes", "65", "--embedded"],
        &["bench", "--in-flight", "0"],
        &["bench", "--in-flight", "5000", "--embedded"],
        &["cert", "issue", "../x"],
        &["serve"],
        &["status", "--context", "../x"],
    ] {
        let ended = place.run(wrong);
        assert_eq!(ended.code, 2, "{wrong:?}: {}", ended.err);
        assert!(ended.out.is_empty(), "{wrong:?}");
        place.error(&[wrong, &["-o", "json"][..]].concat(), 2);
    }
}

#[test]
fn without_a_host_it_says_what_to_do() {
    let place = Place::new();
    let error = place.error(&["node", "ls", "-o", "json"], 6);
    assert_eq!(error["code"], "no_host");
    assert!(error["help"].as_str().unwrap().contains("maitred dev"));
    let error = place.error(&["status", "--context", "prod", "-o", "json"], 2);
    assert_eq!(error["code"], "no_context");
    let flags = ["status", "--endpoint", "127.0.0.1:1", "-o", "json"];
    assert_eq!(place.error(&flags, 7)["code"], "no_certificate");
}

#[test]
fn certificates_are_made_once_and_checked() {
    let place = Place::new();
    let made = place.json(&["cert", "init", "-o", "json"]);
    assert_eq!(made["files"].as_array().unwrap().len(), 6);
    use std::os::unix::fs::PermissionsExt;
    for key in ["ca.key", "host.key", "client.key"] {
        let found = std::fs::metadata(place.path().join("certs").join(key)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o600, "{key}");
    }
    place.error(&["cert", "init", "-o", "json"], 4);
    place.json(&["cert", "issue", "game-7", "-o", "json"]);
    place.error(&["cert", "issue", "game-7", "-o", "json"], 4);
    place.error(&["cert", "issue", "x", "--days", "0", "-o", "json"], 2);
    // A host that nobody has: the certificates are looked at first, then the address.
    let flags = |cert: &'static str, key: &'static str| {
        let files = [
            "status",
            "--ca",
            "certs/ca.pem",
            "--cert",
            cert,
            "--key",
            key,
        ];
        let rest = ["--endpoint", "127.0.0.1:1", "--timeout", "1s", "-o", "json"];
        [&files[..], &rest[..]].concat()
    };
    place.error(&flags("certs/client.pem", "certs/client.key"), 6);
    let mixed = flags("certs/client.pem", "certs/host.key");
    assert_eq!(place.error(&mixed, 7)["code"], "tls");
    place.error(&flags("certs/ca.key", "certs/client.key"), 7);
    place.error(&flags("certs/none.pem", "certs/client.key"), 7);
}

#[test]
fn a_configuration_with_an_unknown_field_is_refused_by_name() {
    let place = Place::new();
    std::fs::write(place.path().join("host.toml"), "data_dri = \"x\"\n").unwrap();
    let error = place.error(&["serve", "--config", "host.toml", "-o", "json"], 2);
    assert!(error["message"].as_str().unwrap().contains("data_dri"));
    let error = place.error(&["serve", "--data-dir", "d", "-o", "json"], 2);
    assert!(error["help"].as_str().unwrap().contains("cert init"));
}

#[test]
fn a_host_with_a_certificate_that_no_client_accepts_does_not_start() {
    let place = Place::new();
    place.json(&["cert", "init", "-o", "json"]);
    let serve = ["serve", "--data-dir", "d", "--listen", "127.0.0.1:0"];
    let wrong = [
        "--ca",
        "certs/ca.pem",
        "--cert",
        "certs/client.pem",
        "--key",
        "certs/client.key",
    ];
    let error = place.error(&[&serve[..], &wrong, &["-o", "json"]].concat(), 7);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("kind for hosts")
    );
    assert!(!place.path().join("d").exists());
}

#[test]
fn files_and_names_that_lead_nowhere_are_told_from_hosts_that_do_not_answer() {
    let place = Place::new();
    place.error(&["module", "push", "x", "/dev/zero", "-o", "json"], 2);
    place.json(&["cert", "init", "-o", "json"]);
    let status = ["status", "--endpoint", "localhost", "--timeout", "1s"];
    let files = [
        "--ca",
        "certs/ca.pem",
        "--cert",
        "certs/client.pem",
        "--key",
        "certs/client.key",
    ];
    let error = place.error(&[&status[..], &files, &["-o", "json"]].concat(), 2);
    assert!(
        error["help"].as_str().unwrap().contains("HOST:PORT"),
        "{error}"
    );
}

#[test]
fn completions_know_the_verbs() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let ended = place.run(&["completions", shell]);
        assert_eq!(ended.code, 0);
        assert!(ended.out.contains("uncordon"), "{shell}");
    }
}

#[test]
fn a_name_that_leads_nowhere_is_not_waited_for() {
    let place = Place::new();
    place.json(&["cert", "init", "-o", "json"]);
    let tls = ["--ca", "certs/ca.pem", "--cert", "certs/client.pem"];
    let key = ["--key", "certs/client.key", "-o", "json"];
    let verb = ["status", "--endpoint", "no-such-host.invalid:7600"];
    let error = place.error(&[&verb[..], &tls, &key].concat(), 6);
    assert_eq!(error["code"], "no_address");
}

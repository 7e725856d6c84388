//! Weights, the margin, and what is not reported.

use super::*;
use maitred_guest::testing::{Fleet, TestHost, check, request};

fn fleet() -> Fleet {
    Fleet::new()
        .node("hot")
        .feature("cpu", 0.9)
        .feature("memory-free-mib", 8_000.0)
        .node("warm")
        .feature("cpu", 0.22)
        .feature("memory-free-mib", 1_000.0)
        .node("cool")
        .feature("cpu", 0.2)
        .feature("memory-free-mib", 1_000.0)
        .node("silent")
}

fn chosen(config: &str, requester: Option<&str>) -> String {
    let mut request = request("room", "r");
    request.requester = requester.map(str::to_owned);
    let chosen = fleet().decide_configured::<Weighted>(&request, config);
    chosen.unwrap().unwrap()
}

#[test]
fn the_weights_decide() {
    assert_eq!(chosen(r#"{"memory": 0}"#, None), "cool");
    assert_eq!(chosen(r#"{"cpu": 0}"#, None), "hot");
    let only_load = r#"{"cpu": 0, "memory": 0, "capacity": 0}"#;
    let mut loaded = fleet();
    loaded = loaded.node("full").processes(9);
    for n in 0..40 {
        let request = request("room", &n.to_string());
        let chosen = loaded.decide_configured::<Weighted>(&request, only_load);
        assert_ne!(chosen.unwrap().unwrap(), "full");
    }
}

#[test]
fn the_node_that_asked_wins_within_the_margin_and_not_beyond_it() {
    let no_memory = |margin: f32| format!(r#"{{"memory": 0, "margin": {margin}}}"#);
    assert_eq!(chosen(&no_memory(0.05), Some("warm")), "warm");
    assert_eq!(chosen(&no_memory(0.0), Some("warm")), "cool");
    assert_eq!(chosen(&no_memory(0.05), Some("hot")), "cool");
}

#[test]
fn what_is_not_reported_counts_as_the_worst() {
    assert_ne!(chosen(r#"{"processes": 0, "capacity": 0}"#, None), "silent");
}

#[test]
fn the_terms_are_shown() {
    let outcome = fleet()
        .answer::<Weighted>(&request("room", "r"), "{}")
        .unwrap();
    assert_eq!(outcome.scores.len(), 4);
    assert!(outcome.scores.iter().all(|(_, terms)| terms.len() == 4));
}

#[test]
fn a_configuration_is_checked() {
    let host = TestHost::default();
    assert_eq!(Weighted::validate("{}", &host), Ok(()));
    for wrong in [
        r#"{"cpu": -1}"#,
        r#"{"ram": 3}"#,
        r#"{"margin": 2}"#,
        r#"{"cpu": 0, "memory": 0, "processes": 0, "capacity": 0}"#,
    ] {
        assert!(Weighted::validate(wrong, &host).is_err(), "{wrong}");
    }
    check::<Weighted>(&fleet(), &[request("room", "1"), request("room", "2")]);
}

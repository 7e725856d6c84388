//! Criteria in their order, with margins and directions.

use super::*;
use maitred_guest::testing::{Fleet, TestHost, check, request};

fn fleet() -> Fleet {
    let node = |fleet: Fleet, name: &str, region: &str, cost: f32, load: u32| {
        let fleet = fleet.node(name).processes(load).label("region", region);
        fleet.feature("counter:cost", cost)
    };
    let fleet = node(Fleet::new(), "near", "eu", 9.0, 3).label("tier", "gold");
    let fleet = node(fleet, "cheap", "us", 1.0, 3);
    let fleet = node(fleet, "empty", "us", 1.0, 0);
    fleet.latency("eu", 20).latency("us", 26)
}

fn chosen(config: &str) -> String {
    let request = request("match", "m");
    let chosen = fleet().decide_configured::<Ordered>(&request, config);
    chosen.unwrap().unwrap()
}

#[test]
fn one_criterion_after_the_other() {
    let order = r#""order": ["latency:region", "counter:cost", "processes"]"#;
    assert_eq!(chosen(&format!("{{{order}}}")), "near");
    let margin = format!(r#"{{{order}, "margin": {{"latency:region": 10}}}}"#);
    assert_eq!(chosen(&margin), "empty");
    assert_eq!(chosen(r#"{"order": ["-counter:cost"]}"#), "near");
    assert_eq!(
        chosen(r#"{"order": ["has:tier=gold", "processes"]}"#),
        "near"
    );
    assert_eq!(
        chosen(r#"{"order": ["-has:tier=gold", "processes"]}"#),
        "empty"
    );
    assert_eq!(chosen("{}"), "empty");
}

#[test]
fn what_is_not_known_is_behind() {
    let fleet = fleet().node("silent");
    let config = r#"{"order": ["counter:cost", "processes"]}"#;
    let request = request("match", "m");
    let chosen = fleet.decide_configured::<Ordered>(&request, config);
    assert_eq!(chosen.unwrap().as_deref(), Some("empty"));
}

#[test]
fn a_configuration_is_checked() {
    let host = TestHost::default();
    for wrong in [
        r#"{"order": []}"#,
        r#"{"order": "processes"}"#,
        r#"{"order": ["a","b","c","d","e","f","g","h","i"]}"#,
        r#"{"margin": {"cpu": 1}}"#,
        r#"{"order": ["cpu"], "margin": {"cpu": -1}}"#,
    ] {
        assert!(Ordered::validate(wrong, &host).is_err(), "{wrong}");
    }
    check::<Ordered>(&fleet(), &[request("match", "1"), request("match", "2")]);
}

//! Required, avoided and preferred labels.

use super::*;
use maitred_guest::testing::{Fleet, TestHost, check, request};

fn fleet() -> Fleet {
    let fleet = Fleet::new().node("plain").node("fast").label("disk", "ssd");
    let fleet = fleet.processes(5).label("zone", "eu");
    let fleet = fleet.node("spot").label("disk", "ssd").label("spot", "yes");
    fleet.node("idle").label("disk", "ssd").label("zone", "us")
}

fn chosen(config: &str) -> Option<String> {
    let request = request("room", "r");
    fleet()
        .decide_configured::<Labels>(&request, config)
        .unwrap()
}

#[test]
fn the_rules_hold_in_their_order() {
    let rules = r#"{"require": {"disk": "ssd"}, "avoid": {"spot": "yes"}"#;
    assert_eq!(chosen(&format!("{rules}}}")).as_deref(), Some("idle"));
    let eu = format!(r#"{rules}, "prefer": {{"zone": "eu"}}}}"#);
    assert_eq!(chosen(&eu).as_deref(), Some("fast"), "though it is fuller");
    let none = r#"{"require": {"disk": "tape"}}"#;
    assert_eq!(chosen(none), None);
    let avoided = r#"{"avoid": {"disk": "ssd"}}"#;
    assert_eq!(chosen(avoided).as_deref(), Some("plain"));
}

#[test]
fn a_configuration_is_checked() {
    let host = TestHost::default();
    for wrong in [
        r#"{"require": {"disk": 3}}"#,
        r#"{"require": "ssd"}"#,
        r#"{"wants": {}}"#,
    ] {
        assert!(Labels::validate(wrong, &host).is_err(), "{wrong}");
    }
    let many: Vec<String> = (0..32).map(|n| format!(r#""l{n}": "x""#)).collect();
    let many = format!(r#"{{"prefer": {{{}}}}}"#, many.join(", "));
    let error = Labels::validate(&many, &host).unwrap_err();
    assert!(error.contains("32 labels, of at most 31"), "{error}");
    check::<Labels>(&fleet(), &[request("room", "1"), request("room", "2")]);
}

//! The node that asked, then its zone, then the emptiest.

use super::*;
use maitred_guest::testing::{Fleet, TestHost, check, request};

fn fleet() -> Fleet {
    let node = |fleet: Fleet, name: &str, zone: &str, rack: &str, load| {
        let fleet = fleet.node(name).processes(load).capacity(10);
        fleet.label("zone", zone).label("rack", rack)
    };
    let fleet = node(Fleet::new(), "a", "north", "1", 9);
    let fleet = node(fleet, "b", "north", "2", 5);
    let fleet = node(fleet, "c", "south", "1", 0);
    node(fleet, "full", "south", "3", 10)
}

fn chosen(requester: Option<&str>, config: &str) -> String {
    let mut request = request("room", "r");
    request.requester = requester.map(str::to_owned);
    let chosen = fleet().decide_configured::<PreferLocal>(&request, config);
    chosen.unwrap().unwrap()
}

#[test]
fn the_node_that_asked_takes_it_if_it_can() {
    assert_eq!(chosen(Some("a"), "{}"), "a");
    assert_eq!(chosen(Some("b"), "{}"), "b");
}

#[test]
fn else_one_like_it_and_else_the_emptiest() {
    assert_eq!(chosen(Some("full"), "{}"), "c", "the same zone");
    assert_eq!(chosen(Some("gone"), "{}"), "c", "the emptiest");
    assert_eq!(chosen(None, "{}"), "c");
    // Only what carries the label as it does counts.
    let mut ask = request("room", "r");
    ask.requester = Some("a".to_owned());
    ask.demand = 2;
    let by_rack = fleet().decide_configured::<PreferLocal>(&ask, r#"{"label": "rack"}"#);
    assert_eq!(by_rack.unwrap().as_deref(), Some("c"));
    let by_zone = fleet().decide_configured::<PreferLocal>(&ask, "{}");
    assert_eq!(by_zone.unwrap().as_deref(), Some("b"));
}

#[test]
fn it_keeps_the_rules_of_every_selector() {
    let host = TestHost::default();
    assert!(PreferLocal::validate(r#"{"label": ""}"#, &host).is_err());
    assert!(PreferLocal::validate(r#"{"zone": "x"}"#, &host).is_err());
    check::<PreferLocal>(&fleet(), &[request("room", "1"), request("room", "2")]);
}

//! Groups that stay together, or apart.

use super::*;
use maitred_guest::testing::{Fleet, TestHost, check, request};

/// How many of a group of twelve come to each of four nodes.
fn spread(config: &str) -> Vec<u32> {
    let mut fleet = Fleet::of(4);
    for n in 0..12 {
        let mut request = request("room", &n.to_string());
        request.group = Some("red".to_owned());
        fleet
            .place_configured::<Affinity>(&request, config)
            .unwrap();
    }
    let mut loads = fleet.loads();
    loads.sort_unstable();
    loads
}

#[test]
fn a_group_stays_together_to_the_most_or_apart() {
    assert_eq!(spread("{}"), [0, 0, 0, 12]);
    assert_eq!(spread(r#"{"most": 5}"#), [0, 2, 5, 5]);
    assert_eq!(spread(r#"{"mode": "apart"}"#), [3, 3, 3, 3]);
}

#[test]
fn without_a_group_the_emptiest_takes_it_and_a_full_house_none() {
    let fleet = Fleet::new().node("a").processes(3).node("b").processes(1);
    let chosen = fleet.decide::<Affinity>(&request("room", "r"));
    assert_eq!(chosen.unwrap().as_deref(), Some("b"));
    let mut request = request("room", "r");
    request.group = Some("red".to_owned());
    let fleet = Fleet::new().node("a").processes_of_group("red", 2);
    let chosen = fleet.decide_configured::<Affinity>(&request, r#"{"most": 2}"#);
    assert_eq!(chosen.unwrap(), None);
}

#[test]
fn it_keeps_the_rules_of_every_selector() {
    let host = TestHost::default();
    for wrong in [r#"{"mode": "near"}"#, r#"{"most": 0}"#, r#"{"max": 3}"#] {
        assert!(Affinity::validate(wrong, &host).is_err(), "{wrong}");
    }
    check::<Affinity>(&Fleet::of(5), &[request("room", "1"), request("room", "2")]);
}

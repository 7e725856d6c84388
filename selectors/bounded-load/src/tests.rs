//! The bound, and the published figures of displacement and disruption.

use std::collections::BTreeMap;

use super::*;
use maitred_guest::testing::{Fleet, TestHost, check, request};

/// Where each of so many ids is, after they have come one by one.
fn placed(mut fleet: Fleet, count: u32, config: &str) -> (BTreeMap<u32, String>, Fleet) {
    let ids = (0..count).map(|n| {
        let request = request("player", &n.to_string());
        let node = fleet.place_configured::<BoundedLoad>(&request, config);
        (n, node.unwrap().unwrap())
    });
    let placed = ids.collect();
    (placed, fleet)
}

#[test]
fn nobody_is_above_the_bound_and_hardly_any_is_displaced() {
    let (bounded, fleet) = placed(Fleet::of(100), 10_000, "{}");
    // 100 a node on average: 125 at most.
    assert!(fleet.loads().into_iter().max() <= Some(125));
    let (free, _) = placed(Fleet::of(100), 10_000, r#"{"bound": 10}"#);
    let displaced = bounded.iter().filter(|(n, node)| free[n] != **node).count();
    // Published: 0.0017; in the order of arrival the first ones meet a lower bound.
    assert!(displaced < 500, "{displaced} of 10,000");
    let (tight, fleet) = placed(Fleet::of(100), 10_000, r#"{"bound": 1.05}"#);
    assert!(fleet.loads().into_iter().max() <= Some(105));
    let more = tight.iter().filter(|(n, node)| free[n] != **node).count();
    assert!(more > displaced, "{more}");
}

#[test]
fn when_a_node_leaves_hardly_more_than_its_share_moves() {
    let (before, _) = placed(Fleet::of(100), 10_000, "{}");
    let gone = before[&0].clone();
    let (after, fleet) = placed(Fleet::of(100).without(&gone), 10_000, "{}");
    assert!(fleet.loads().into_iter().max() <= Some(127));
    let moved = before.iter().filter(|(n, node)| after[n] != **node).count();
    // Published: 0.0113; in the order of arrival some more.
    assert!((90..400).contains(&moved), "{moved} of 10,000");
}

#[test]
fn the_next_heaviest_are_ranked() {
    let outcome = Fleet::of(9).answer::<BoundedLoad>(&request("room", "r"), "{}");
    match outcome.unwrap().choice {
        maitred_guest::testing::Choice::Ranked(names) => assert_eq!(names.len(), 3),
        other => panic!("{other:?}"),
    }
    let one = Fleet::of(1).decide::<BoundedLoad>(&request("room", "r"));
    assert!(one.unwrap().is_some());
}

#[test]
fn it_keeps_the_rules_of_every_selector() {
    let host = TestHost::default();
    assert_eq!(BoundedLoad::validate(r#"{"bound": 1.01}"#, &host), Ok(()));
    for wrong in [r#"{"bound": 1}"#, r#"{"bound": 11}"#, r#"{"c": 2}"#] {
        assert!(BoundedLoad::validate(wrong, &host).is_err(), "{wrong}");
    }
    let requests: Vec<_> = (0..16).map(|n| request("room", &n.to_string())).collect();
    check::<BoundedLoad>(&Fleet::of(5), &requests);
}

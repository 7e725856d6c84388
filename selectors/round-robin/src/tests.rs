//! Turns, at any pace, with nodes that come.

use std::collections::BTreeSet;

use super::*;
use maitred_guest::testing::{Fleet, check, request};

fn turn(fleet: &mut Fleet, n: u32) -> String {
    let request = request("room", &n.to_string());
    fleet.place::<RoundRobin>(&request).unwrap().unwrap()
}

#[test]
fn every_node_has_its_turn_before_any_has_its_second() {
    // A millisecond apart, and all in one.
    for pause in [1, 0] {
        let mut fleet = Fleet::of(10);
        for round in 0..20 {
            let mut seen = BTreeSet::new();
            for n in 0..10 {
                seen.insert(turn(&mut fleet, round * 10 + n));
                fleet = fleet.later(pause);
            }
            assert_eq!(seen.len(), 10, "round {round}, {pause} ms apart");
        }
        assert_eq!(fleet.gap(), 0.0);
    }
}

#[test]
fn a_node_that_comes_is_first_once_and_not_flooded() {
    let mut fleet = Fleet::of(4);
    for n in 0..40 {
        turn(&mut fleet, n);
        fleet = fleet.later(1);
    }
    fleet = fleet.node("new");
    let turns: Vec<String> = (0..10)
        .map(|n| {
            let turn = turn(&mut fleet, 100 + n);
            fleet = fleet.clone().later(1);
            turn
        })
        .collect();
    assert_eq!(turns[0], "new");
    assert_eq!(
        turns.iter().filter(|name| *name == "new").count(),
        2,
        "{turns:?}"
    );
}

#[test]
fn it_keeps_the_rules_of_every_selector() {
    let requests: Vec<_> = (0..16).map(|n| request("room", &n.to_string())).collect();
    check::<RoundRobin>(&Fleet::of(5), &requests);
}

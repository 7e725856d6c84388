//! Stickiness: nothing but the node that left moves anything.

use super::*;
use maitred_guest::testing::{Fleet, check, request, scenario};

fn home(fleet: &Fleet, n: u32, seed: u32) -> String {
    let one = Request {
        seed,
        ..request("player", &format!("p{n}"))
    };
    fleet.decide::<Rendezvous>(&one).unwrap().unwrap()
}

#[test]
fn order_and_seed_do_not_matter() {
    let fleet = Fleet::of(50);
    check::<Rendezvous>(&fleet, &[request("player", "p0"), request("room", "p0")]);
    let other = fleet.clone().shuffled(9);
    for n in 0..200 {
        assert_eq!(home(&fleet, n, 1), home(&other, n, 2));
    }
}

#[test]
fn only_the_share_of_the_node_that_left_moves() {
    let (before, after) = (Fleet::of(100), Fleet::of(100).without("node-42"));
    let mut moved = 0;
    for n in 0..5_000 {
        let home_before = home(&before, n, n);
        if home_before == "node-42" {
            moved += 1;
        } else {
            assert_eq!(home(&after, n, n), home_before);
        }
    }
    // 1 % of 5,000, give or take four standard deviations (7).
    assert!((22..=78).contains(&moved), "{moved}");
}

#[test]
fn the_scenarios_hold() {
    scenario("scenario.toml").check::<Rendezvous>();
}

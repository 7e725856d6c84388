//! When many nodes are lost at once.

use maitred_protocol::Waits;

use crate::world::{World, key};

const NODES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

fn ten() -> World {
    let mut world = World::new(|_| {});
    for node in NODES {
        world.join(node, 100);
    }
    world.fill(0..100);
    world
}

#[test]
fn half_of_the_nodes_at_once_pause_it_and_a_minute_without_more_ends_that() {
    let mut world = ten();
    world.lose(&NODES[..5]);
    assert_eq!(world.pending(), 50);
    let why = world.paused().unwrap();
    assert!(
        why.starts_with("5 of 10 nodes were lost within 30 s"),
        "{why}"
    );
    let item = world.list(0).remove(0);
    assert!(matches!(&item.waits, Waits::Paused(text) if text.starts_with("5 of 10")));
    // Clients are served.
    world.create(&key("new"), |_| {});
    world.pass(58_500);
    assert!(world.starts.is_empty());
    world.pass(1_500);
    assert_eq!((world.pending(), world.starts.len()), (0, 50));
    assert_eq!(world.paused(), None);
}

#[test]
fn one_of_two_nodes_is_no_mass_loss_and_neither_are_four_of_ten() {
    let mut world = World::new(|_| {});
    world.join("a", 100);
    world.fill(0..10);
    world.join("b", 100);
    world.lose(&["a"]);
    assert_eq!((world.pending(), world.paused()), (0, None));
    let mut world = ten();
    world.lose(&NODES[..4]);
    assert_eq!((world.pending(), world.paused()), (0, None));
    // The fifth comes too late to count with them.
    world.pass(31_000);
    world.lose(&NODES[4..5]);
    assert_eq!((world.pending(), world.paused()), (0, None));
}

#[test]
fn an_operator_lets_it_go_on() {
    let mut world = ten();
    world.lose(&NODES[..6]);
    assert_eq!(world.pending(), 60);
    world.suspend(false);
    assert_eq!((world.pending(), world.paused()), (0, None));
}

#[test]
fn a_new_leader_comes_to_the_same_conclusion() {
    let mut world = ten();
    world.lose(&NODES[..6]);
    world.pass(20_000);
    let before = world.paused().unwrap();
    world.restart();
    world.run();
    assert_eq!(world.paused(), Some(before), "the same, to the second");
    assert!(world.starts.is_empty());
    world.pass(38_000);
    assert!(world.starts.is_empty());
    world.pass(2_000);
    assert_eq!(world.pending(), 0);
    assert_eq!(world.starts.len(), 60);
}

#[test]
fn nodes_that_come_back_end_it() {
    let mut world = ten();
    world.lose(&NODES[..5]);
    for node in &NODES[..3] {
        world.join(node, 100);
    }
    assert_eq!(world.paused(), None, "5 of 13");
    world.pass(100);
    assert_eq!(world.pending(), 0);
}

#[test]
fn an_operator_s_pause_has_no_end_of_its_own_and_outlives_the_leader() {
    let mut world = World::new(|_| {});
    world.suspend(true);
    world.join("a", 100);
    world.fill(0..10);
    world.join("b", 100);
    world.lose(&["a"]);
    world.restart();
    world.pass(300_000);
    assert!(world.paused().unwrap().starts_with("an operator"));
    assert_eq!(world.pending(), 10);
    world.suspend(false);
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_clock_that_was_set_makes_no_longer_pause() {
    let mut world = ten();
    world.lose(&NODES[..6]);
    assert!(world.paused().is_some());
    // From here on the wall clock is an hour behind.
    world.step_back_ms(3_600_000);
    world.pass(60_000);
    assert_eq!((world.paused(), world.pending()), (None, 0));
}

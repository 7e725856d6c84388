//! What makes a hold, what it keeps from happening, and what ends it while its node lives.

use std::slice::from_ref;

use maitred_protocol::{ProcessState, Restart};
use maitred_registry::{Command, Outcome, Stale};

use crate::world::{World, dust, node, player, room, spec, vault};

fn two_nodes() -> World {
    let mut world = World::new();
    world.up("a");
    world.up("b");
    world
}

#[test]
fn a_deleted_process_holds_its_key_until_its_node_says_that_it_is_over() {
    let mut world = two_nodes();
    let life = world.running(&room("1"), "a");
    world.del(&life.0, None, false);
    assert_eq!(world.ended(), from_ref(&life), "its node is told");
    assert_eq!(world.reserve(&life.0, "b"), Outcome::Stale(Stale::Held));
    assert_eq!(world.registry.held(), 1);
    world.released(&[&life]);
    assert_eq!(world.freed(), from_ref(&life.0));
    assert_eq!(world.registry.held(), 0);
    world.running(&life.0, "b");
}

#[test]
fn what_its_node_says_has_ended_holds_nothing() {
    let mut world = two_nodes();
    let life = world.running(&room("1"), "a");
    world.del(&life.0, Some(life.1), true);
    assert!(!world.is_held(&life.0));
    // Whoever names no life does not know which one has ended.
    let life = world.running(&room("1"), "a");
    world.del(&life.0, None, true);
    assert!(world.is_held(&life.0));
}

#[test]
fn an_end_of_another_life_changes_nothing() {
    let mut world = two_nodes();
    let old = world.running(&room("1"), "a");
    world.unplace(&old, false);
    world.released(&[&old]);
    let Outcome::Reserved(record) = world.reassign(&old, "b") else {
        panic!("not placed");
    };
    let outcome = world.del(&old.0, Some(old.1), true);
    assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    assert_eq!(world.record(&old.0).incarnation, record.incarnation);
    assert!(!world.is_held(&old.0));
}

#[test]
fn a_move_waits_for_the_node_that_is_left() {
    let mut world = two_nodes();
    let life = world.running(&room("1"), "a");
    assert!(matches!(world.unplace(&life, false), Outcome::Done(_)));
    assert_eq!(world.ended(), from_ref(&life));
    assert_eq!(world.record(&life.0).state, ProcessState::Pending);
    assert_eq!(world.reassign(&life, "b"), Outcome::Stale(Stale::Held));
    assert_eq!(world.record(&life.0).state, ProcessState::Pending);
    world.released(&[&life]);
    assert!(matches!(world.reassign(&life, "b"), Outcome::Reserved(_)));
}

#[test]
fn a_life_that_is_known_to_be_over_holds_nothing() {
    let mut world = two_nodes();
    let life = world.running(&room("1"), "a");
    world.unplace(&life, true);
    assert!(matches!(world.reassign(&life, "b"), Outcome::Reserved(_)));
    let create = world.starting(&room("2"), "a");
    world.abort(&create, true);
    assert!(!world.is_held(&create.0));
}

#[test]
fn an_undone_create_holds_its_key_when_its_node_has_not_answered() {
    let mut world = two_nodes();
    let life = world.starting(&room("1"), "a");
    world.abort(&life, false);
    assert!(world.registry.process(&life.0).is_none());
    assert!(world.is_held(&life.0));
    // One that has no node at that moment adds nothing: that life is held already, or over.
    let life = world.starting(&room("2"), "a");
    world.unplace(&life, true);
    world.abort(&life, false);
    assert!(!world.is_held(&life.0));
}

#[test]
fn fast_types_never_wait() {
    let mut world = two_nodes();
    let life = world.running(&dust("1"), "a");
    world.unplace(&life, false);
    assert!(matches!(world.reassign(&life, "b"), Outcome::Reserved(_)));
    let life = world.running(&dust("2"), "a");
    world.expire("a");
    assert!(matches!(world.reassign(&life, "b"), Outcome::Reserved(_)));
    assert_eq!(world.registry.lost().count(), 0);
}

#[test]
fn a_process_that_its_node_no_longer_has_is_held_until_it_says_so_of_that_life() {
    let mut world = two_nodes();
    let life = world.running(&room("1"), "a");
    let processes = vec![life.clone(), life.clone()];
    let (node, epoch) = (node("a"), world.epoch("a"));
    world.done(Command::Missing {
        node,
        epoch,
        processes,
    });
    assert_eq!(world.ended(), from_ref(&life));
    assert_eq!(world.reassign(&life, "b"), Outcome::Stale(Stale::Held));
    world.released(&[&life]);
    assert!(matches!(world.reassign(&life, "b"), Outcome::Reserved(_)));
}

#[test]
fn a_key_is_free_when_its_last_hold_ends() {
    let mut world = two_nodes();
    let key = player("1");
    let first = world.own(&key, "a");
    world.del(&key, None, false);
    let second = world.own(&key, "a");
    world.del(&key, None, false);
    let epoch = world.epoch("a");
    assert_eq!(world.holds(&key), [(first.1, epoch), (second.1, epoch)]);
    assert_eq!(world.registry.held(), 1, "one key");
    world.released(&[&second]);
    assert_eq!(world.freed(), []);
    assert_eq!(world.reserve(&key, "b"), Outcome::Stale(Stale::Held));
    // What is named again, or was never held, is no matter.
    world.released(&[&second, &(player("9"), second.1), &first, &first]);
    assert_eq!(world.freed(), from_ref(&key));
    world.running(&key, "b");
}

#[test]
fn a_node_registers_a_key_that_only_it_holds() {
    let mut world = two_nodes();
    let key = player("1");
    let first = world.own(&key, "a");
    world.del(&key, None, false);
    let Outcome::Held(nodes) = world.set(&key, "b") else {
        panic!("given to another node");
    };
    assert_eq!(nodes, "on node a");
    let second = world.own(&key, "a");
    assert!(second.1 > first.1);
    // The life before is still one to be stopped, and no other node gets the key until it is.
    world.del(&key, Some(second.1), true);
    assert_eq!(world.reserve(&key, "b"), Outcome::Stale(Stale::Held));
    world.released(&[&first]);
    assert_eq!(world.freed(), [key]);
}

#[test]
fn where_a_key_is_held_is_said_once_a_node() {
    let mut world = two_nodes();
    let key = player("1");
    for _ in 0..2 {
        world.own(&key, "a");
        world.del(&key, None, false);
    }
    let held = world.set(&key, "b");
    assert_eq!(held, Outcome::Held("on node a".to_owned()));
}

#[test]
fn a_create_of_a_held_key_is_stale_whatever_its_own_node() {
    let mut world = two_nodes();
    let life = world.running(&room("1"), "a");
    world.del(&life.0, None, false);
    assert_eq!(world.reserve(&life.0, "a"), Outcome::Stale(Stale::Held));
}

#[test]
fn a_hold_is_as_strict_as_its_type_was_when_the_life_ended() {
    let mut world = two_nodes();
    let (safe, strict) = (
        world.running(&room("1"), "a"),
        world.running(&vault("1"), "a"),
    );
    let fast = world.running(&dust("1"), "a");
    let epoch = world.expire("a");
    world.put_type(spec("room", Restart::Strict));
    world.put_type(spec("vault", Restart::Fast));
    world.put_type(spec("dust", Restart::Safe));
    assert_eq!(world.registry.held_counts(epoch), (1, 1));
    assert!(!world.is_held(&fast.0));
    world.kill_bound_passed(epoch);
    assert_eq!(world.freed(), [safe.0]);
    assert!(world.is_held(&strict.0));
}

#[test]
fn giving_up_leaves_the_hold() {
    let mut world = two_nodes();
    let life = world.running(&room("1"), "a");
    let give_up = |life: &crate::world::Life| Command::GiveUp {
        key: life.0.clone(),
        incarnation: life.1,
    };
    let stale = Outcome::Stale(Stale::Incarnation);
    assert_eq!(world.apply(give_up(&life)), stale, "it runs");
    world.expire("a");
    let other = (life.0.clone(), maitred_protocol::Incarnation(life.1.0 + 1));
    assert_eq!(world.apply(give_up(&other)), stale, "another life");
    world.done(give_up(&life));
    assert!(world.registry.process(&life.0).is_none());
    assert_eq!(world.registry.counts().pending, 0);
    assert_eq!(world.reserve(&life.0, "b"), Outcome::Stale(Stale::Held));
    assert_eq!(world.apply(give_up(&life)), stale, "it is gone");
    // A create that never ran is undone by Abort, which answers whoever asked.
    let create = world.starting(&room("2"), "b");
    world.unplace(&create, true);
    assert_eq!(world.apply(give_up(&create)), stale);
}

#[test]
fn since_when_a_process_is_pending_is_on_record_while_it_is() {
    let mut world = two_nodes();
    let life = world.running(&room("1"), "a");
    let since = |world: &World| world.record(&room("1")).spec.as_ref().unwrap().pending_ms;
    assert_eq!(since(&world), 0);
    world.time_ms = 5_000;
    world.expire("a");
    assert_eq!(since(&world), 5_000);
    world.time_ms = 9_000;
    world.released(&[&life]);
    assert_eq!(since(&world), 5_000);
    assert!(matches!(world.reassign(&life, "b"), Outcome::Reserved(_)));
    assert_eq!(since(&world), 0);
}

//! Drains and switches.

use maitred_protocol::{Drain, DrainState, Rejection, Switch};
use maitred_registry::{Command, Event, Outcome, Stale};

use crate::world::{World, comer, node, rejection, room};

fn drain(name: &str, deadline_ms: u32) -> Command {
    Command::DrainNode {
        name: node(name),
        drain: Some(Drain {
            deadline_ms,
            per_second: 10,
        }),
    }
}

fn undrain(name: &str) -> Command {
    Command::DrainNode {
        name: node(name),
        drain: None,
    }
}

fn cordon(name: &str, cordoned: bool) -> Command {
    Command::CordonNode {
        name: node(name),
        cordoned,
    }
}

fn state(world: &World, name: &str) -> Option<DrainState> {
    let mut drains = world.registry.drains();
    drains
        .find(|(of, _)| **of == node(name))
        .map(|(_, state)| *state)
}

#[test]
fn a_drain_cordons_and_remembers_where_it_began() {
    let mut world = World::new();
    world.up("a");
    world.running(&room("1"), "a");
    world.running(&room("2"), "a");
    world.time_ms = 4_000;
    world.done(drain("a", 60_000));
    assert_eq!(world.events, [Event::NodeChanged(node("a"))]);
    let began = DrainState {
        began_ms: 4_000,
        deadline_at_ms: 64_000,
        per_second: 10,
        processes: 2,
    };
    assert_eq!(state(&world, "a"), Some(began));
    assert!(world.registry.is_cordoned(&node("a")));
    assert_eq!(world.reserve(&room("3"), "a"), Outcome::Stale(Stale::Node));
    let wire = world
        .registry
        .node_to_wire(world.registry.node(&node("a")).unwrap());
    assert_eq!((wire.drain, wire.cordoned), (Some(began), true));
    // Asked again: the deadline and the rate are new, where it began is not.
    world.del(&room("1"), None, false);
    world.time_ms = 9_000;
    world.done(drain("a", 1_000));
    let again = DrainState {
        deadline_at_ms: 10_000,
        ..began
    };
    assert_eq!(state(&world, "a"), Some(again));
}

#[test]
fn a_drain_that_ends_leaves_the_cordon_and_an_uncordon_ends_a_drain() {
    let mut world = World::new();
    world.up("a");
    world.done(drain("a", 60_000));
    world.done(undrain("a"));
    assert_eq!(world.events, [Event::NodeChanged(node("a"))]);
    let revision = world.registry.node(&node("a")).unwrap().revision;
    assert_eq!(
        revision.0,
        world.registry.applied(),
        "its entry has changed"
    );
    assert_eq!(state(&world, "a"), None);
    assert!(world.registry.is_cordoned(&node("a")));
    let outcome = world.apply(undrain("a"));
    assert!(matches!(rejection(&outcome), Rejection::NotFound(_)));
    world.done(drain("a", 60_000));
    world.done(cordon("a", true));
    assert!(state(&world, "a").is_some(), "cordoned it is already");
    world.done(cordon("a", false));
    assert_eq!(state(&world, "a"), None);
}

#[test]
fn only_a_node_that_is_there_is_drained() {
    let mut world = World::new();
    let outcome = world.apply(drain("a", 60_000));
    assert!(matches!(rejection(&outcome), Rejection::NotFound(_)));
    assert_eq!(world.registry.drains().count(), 0);
    assert!(!world.registry.is_cordoned(&node("a")));
}

#[test]
fn a_drain_outlives_the_session_of_its_node() {
    let mut world = World::new();
    world.up("a");
    world.running(&room("1"), "a");
    world.done(drain("a", 60_000));
    let began = state(&world, "a");
    world.expire("a");
    assert_eq!(state(&world, "a"), began);
    world.register(comer("a", 2));
    assert_eq!(state(&world, "a"), began);
    assert!(world.registry.is_cordoned(&node("a")));
    world.expire("a");
    // A node that is gone can still be uncordoned, or its drain ended.
    world.done(cordon("a", false));
    assert_eq!(state(&world, "a"), None);
    let outcome = world.apply(cordon("a", false));
    assert!(matches!(rejection(&outcome), Rejection::NotFound(_)));
}

#[test]
fn a_deadline_past_the_end_of_time_is_the_end_of_time() {
    let mut world = World::new();
    world.up("a");
    world.time_ms = u64::MAX - 10;
    world.done(drain("a", 60_000));
    assert_eq!(state(&world, "a").unwrap().deadline_at_ms, u64::MAX);
}

#[test]
fn switches_are_kept_and_letting_re_creation_go_on_forgets_the_losses() {
    let mut world = World::new();
    world.up("a");
    world.expire("a");
    for what in [Switch::Moves, Switch::Recreation] {
        assert!(!world.registry.is_suspended(what));
        let suspended = true;
        world.done(Command::Suspend { what, suspended });
        assert_eq!(world.events, [Event::Switched(what)]);
        assert!(world.registry.is_suspended(what));
    }
    assert_eq!(world.registry.losses_ms().len(), 1);
    for (what, losses) in [(Switch::Moves, 1), (Switch::Recreation, 0)] {
        let suspended = false;
        world.done(Command::Suspend { what, suspended });
        assert!(!world.registry.is_suspended(what));
        assert_eq!(world.registry.losses_ms().len(), losses);
    }
}

//! That holds, lost sessions, drains, switches, losses and what a restore forgot are part of the
//! state: of snapshots, of digests, and of what is applied after either.

use std::collections::BTreeSet;

use maitred_protocol::{Drain, RegisterNode, Switch};
use maitred_registry::{Command, Entry, Event, Outcome, Registry};

use crate::world::{Life, World, comer, inventory, node, player, room, vault};

/// With something of everything, and the lives that are held.
fn filled() -> (World, Vec<Life>) {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.up(name);
    }
    let mut lives = Vec::new();
    for id in ["1", "2", "3"] {
        lives.push(world.running(&room(id), "a"));
        lives.push(world.running(&vault(id), "b"));
    }
    // Two lives of one key, in two orders of their nodes.
    for _ in 0..2 {
        lives.push(world.own(&player("1"), "a"));
        world.del(&player("1"), None, false);
    }
    world.time_ms = 3_000;
    world.expire("b");
    world.time_ms = 4_000;
    world.expire("a");
    world.done(Command::DrainNode {
        name: node("c"),
        drain: Some(Drain {
            deadline_ms: 60_000,
            per_second: 10,
        }),
    });
    let (what, suspended) = (Switch::Moves, true);
    world.done(Command::Suspend { what, suspended });
    (world, lives)
}

#[test]
fn a_snapshot_brings_all_of_it_back() {
    let (mut world, lives) = filled();
    world.registry.rebase(1_000_000).unwrap();
    let (before, after) = (&world.registry, world.reloaded());
    assert_eq!(after.digest(), before.digest());
    assert_eq!(after.held(), before.held());
    for (key, _) in &lives {
        assert!(after.is_held(key));
        assert_eq!(after.holds(key), before.holds(key));
    }
    let lost = |registry: &Registry| -> Vec<_> {
        let lost = registry.lost();
        lost.map(|(epoch, lost)| (epoch, lost.clone(), registry.held_counts(epoch)))
            .collect()
    };
    assert_eq!(lost(&after).len(), 2);
    assert_eq!(lost(&after), lost(before));
    assert_eq!(
        after.holding().collect::<Vec<_>>(),
        before.holding().collect::<Vec<_>>()
    );
    for epoch in after.holding() {
        let held: Vec<_> = after.held_by(epoch).collect();
        assert_eq!(held, before.held_by(epoch).collect::<Vec<_>>());
    }
    assert!(after.drains().eq(before.drains()));
    assert_eq!(after.drains().count(), 1);
    assert!(after.is_suspended(Switch::Moves) && !after.is_suspended(Switch::Recreation));
    assert_eq!(after.losses_ms().collect::<Vec<_>>(), [3_000, 4_000]);
    assert!(after.is_forgotten(999_999) && !after.is_forgotten(1));
}

#[test]
fn what_is_applied_after_a_snapshot_comes_to_the_same() {
    let (mut world, lives) = filled();
    let mut loaded = world.reloaded();
    let epochs: Vec<_> = world.registry.holding().collect();
    let mut back = comer("a", 2);
    back.inventory = inventory(&[&lives[0], &lives[6]]);
    let commands = [
        Command::Released(vec![lives[6].clone()]),
        Command::RegisterNode(Box::new(back)),
        Command::KillBoundPassed(epochs[0]),
        Command::ConfirmDead {
            name: node("b"),
            epoch: None,
            types: Vec::new(),
            proof: String::new(),
        },
    ];
    for command in commands {
        let outcome = world.apply(command.clone());
        let entry = Entry {
            time_ms: world.time_ms,
            request: None,
            command,
        };
        let mut events: Vec<Event> = Vec::new();
        let other = loaded.apply(loaded.applied() + 1, entry, &mut events);
        assert!(matches!(
            outcome,
            Outcome::Done(_) | Outcome::Registered { .. }
        ));
        assert_eq!(outcome, other);
        assert_eq!(world.events, events);
        assert_eq!(loaded.digest(), world.registry.digest());
    }
    assert_eq!(loaded.held(), 2, "what a node that came back still runs");
}

#[test]
fn a_snapshot_is_of_its_moment() {
    let (mut world, lives) = filled();
    let snapshot = world.registry.snapshot();
    let digest = world.registry.digest();
    let all: Vec<_> = lives.iter().collect();
    world.released(&all);
    assert_eq!(world.registry.held(), 0);
    assert_eq!(world.registry.lost().count(), 0);
    let mut loader = maitred_registry::Loader::new();
    let encoded = snapshot.encode(|chunk| loader.chunk(&chunk));
    encoded.unwrap();
    assert_eq!(loader.finish().unwrap().digest(), digest);
}

#[test]
fn a_restore_keeps_holds_and_what_is_waited_for() {
    let (mut world, lives) = filled();
    let lost: Vec<_> = world.registry.lost().map(|(epoch, _)| epoch).collect();
    world.registry.rebase(1_000_000).unwrap();
    for life in &lives {
        assert!(world.is_held(&life.0));
    }
    for epoch in lost {
        world.kill_bound_passed(epoch);
    }
    let strict = lives
        .iter()
        .filter(|(key, _)| key.type_name.as_str() == "vault");
    assert_eq!(world.registry.held(), strict.count());
}

#[test]
fn a_digest_sees_what_is_waited_for_and_whom() {
    let node = |change: fn(&mut RegisterNode)| {
        let mut comer = comer("a", 1);
        change(&mut comer);
        comer
    };
    let nodes = [
        node(|_| {}),
        node(|a| a.kill_bound_ms = 2_000),
        node(|a| a.instance = 2),
        node(|a| a.address = "elsewhere:1".to_owned()),
        node(|a| a.labels.clear()),
        node(|a| a.name = crate::world::node("b")),
    ];
    let mut digests = BTreeSet::new();
    // Of a node that is gone its lost session is all that is left, and what is held.
    for key in [room("1"), vault("1")] {
        for comer in &nodes {
            let mut world = World::new();
            let name = comer.name.to_string();
            world.register(comer.clone());
            world.own(&key, &name);
            world.expire(&name);
            assert_eq!(world.registry.held(), 1);
            assert!(digests.insert(world.registry.digest()));
            assert!(!digests.insert(world.reloaded().digest()));
        }
    }
}

#[test]
fn a_digest_sees_switches_losses_and_what_a_restore_forgot() {
    let (world, _) = filled();
    let variants: [fn(&mut World); 6] = [
        |world| world.registry.skip(100),
        |world| world.registry.rebase(100).unwrap(),
        |world| suspend(world, Switch::Moves, true),
        |world| suspend(world, Switch::Moves, false),
        |world| suspend(world, Switch::Recreation, true),
        |world| suspend(world, Switch::Recreation, false),
    ];
    let mut digests = BTreeSet::new();
    for change in variants {
        let mut world = World {
            registry: world.reloaded(),
            time_ms: world.time_ms,
            events: Vec::new(),
        };
        change(&mut world);
        assert!(digests.insert(world.registry.digest()));
        assert!(!digests.insert(world.reloaded().digest()));
    }
}

fn suspend(world: &mut World, what: Switch, suspended: bool) {
    world.done(Command::Suspend { what, suspended });
}

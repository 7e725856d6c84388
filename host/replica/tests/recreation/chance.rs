//! Whatever happens in between, once there is room everything that is wanted runs, in bounded time.

use std::collections::BTreeSet;

use maitred_registry::random::Random;

use crate::world::{World, key, spec};

const NODES: [&str; 4] = ["a", "b", "c", "d"];

/// One thing that happens.
fn happen(world: &mut World, random: &mut Random, wanted: &mut BTreeSet<u32>) {
    let node = NODES[random.below(4) as usize];
    let there = !world.games[node].dead;
    match random.below(12) {
        0 | 1 => world.game(node).dead = true,
        2 if !there => world.join(node, 5 + random.below(20)),
        3 => {
            if let Some(id) = wanted.pop_first() {
                world.delete(&key(id));
            }
        }
        4 if there && world.is_there(node) => world.cordon(node, random.below(2) == 0),
        5 => {
            let game = world.game(node);
            game.refuses = !game.refuses;
        }
        6 => world.suspend(random.below(2) == 0),
        7 if random.below(4) == 0 => world.restart(),
        8 => world.hold_select = true,
        9 => world.tell_decisions(),
        10 => world.picky = !world.picky,
        _ => world.put_type(spec("player")),
    }
    world.pass(u64::from(random.below(700)));
    for node in NODES {
        if world.is_there(node) {
            world.on(node);
        }
    }
}

#[test]
fn everything_that_is_wanted_runs_after_whatever_happened() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut world = World::new(|config| {
            config.recreate_per_second = 40;
            config.recreate_per_node_per_second = 20;
            config.mass_loss_pause_ms = 5_000;
        });
        for node in NODES {
            world.join(node, 20);
        }
        world.fill(0..40);
        let mut wanted: BTreeSet<u32> = (0..40).collect();
        for _ in 0..60 {
            happen(&mut world, &mut random, &mut wanted);
        }
        world.tell_decisions();
        (world.picky, world.hold_select) = (false, false);
        world.suspend(false);
        for node in NODES {
            world.join(node, 40);
            world.cordon(node, false);
        }
        // The longest back-off, what the selector refused, and the breaker's pause.
        world.pass(40_000);
        let runs = wanted.iter().filter(|id| world.runs(&key(**id))).count();
        let listed = world.list(0);
        assert_eq!(runs, wanted.len(), "seed {seed}: {listed:?}");
        assert!(listed.is_empty());
    }
}

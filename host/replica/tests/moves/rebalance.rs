//! Rebalancing: plans, and what comes of them.

use maitred_protocol::{Chooser, OnDrain, Rejection, Response, TypeSpec};

use crate::world::{World, key, name, player};

/// Five nodes with 300 processes each and five empty ones.
fn lopsided() -> World {
    let mut world = World::with(&["a", "b", "c", "d", "e"], 1_000);
    world.fill(0..1_500);
    for node in ["f", "g", "h", "i", "j"] {
        world.join(node, 1_000);
    }
    world
}

fn counts(world: &World) -> Vec<u32> {
    world.games.keys().map(|node| world.on(node)).collect()
}

#[test]
fn ten_nodes_are_even_after_one_plan() {
    let mut world = lopsided();
    let plan = world.plan();
    assert_eq!(plan.moves.len(), 750);
    assert_eq!((plan.before.least, plan.before.most), (0.0, 0.3));
    assert_eq!((plan.after.least, plan.after.most), (0.15, 0.15));
    assert!(plan.after.deviation < 1e-4 && plan.before.deviation > 0.14);
    let gains: f32 = plan.moves.iter().map(|one| one.gain).sum();
    let lost = plan.before.deviation - plan.after.deviation;
    assert!((gains - lost).abs() < 1e-3, "{gains} {lost}");
    assert!(plan.moves.iter().all(|one| one.gain > 0.0));
    assert_eq!(
        counts(&world),
        [300, 300, 300, 300, 300, 0, 0, 0, 0, 0],
        "a plan does nothing"
    );
    let answer = world.rebalance(plan.moves.clone(), 1_000);
    assert!(matches!(answer, Response::Done(_)), "{answer:?}");
    assert!(world.status().moves_left > 600);
    world.pass(2_000);
    assert_eq!(counts(&world), [150; 10]);
    assert_eq!(world.status().moves_left, 0);
    world.assert_running(0..1_500);
    for planned in &plan.moves {
        let record = world.record(&planned.key).unwrap();
        assert_eq!(*record.node, planned.to);
        assert_eq!(*record.why.chooser, Chooser::Rebalance);
        let evidence = world.traces[&record.incarnation].evidence();
        assert_eq!(evidence.candidates.len(), 9, "all but where it was");
        let chosen = evidence.candidates.iter().find(|one| one.chosen).unwrap();
        assert_eq!(chosen.node, planned.to);
    }
    assert_eq!(world.plan().moves, []);
}

#[test]
fn nothing_is_moved_between_nodes_that_are_even() {
    let mut world = World::with(&["a", "b", "c"], 100);
    assert_eq!(world.plan().moves, [], "nothing is there");
    world.fill(0..10);
    let mut have = counts(&world);
    have.sort_unstable();
    assert_eq!(have, [3, 3, 4]);
    let plan = world.plan();
    assert_eq!(plan.moves, []);
    assert_eq!(plan.before, plan.after);
    assert_eq!(World::new().plan().moves, [], "no node is there");
}

#[test]
fn nodes_of_unlike_capacity_end_equally_full() {
    let mut world = World::with(&["a"], 1_000);
    for id in 0..100 {
        world.create(&key(id), |options| options.demand = 1 + id % 3);
    }
    world.join("b", 500);
    world.join("c", 500);
    let plan = world.plan();
    world.rebalance(plan.moves.clone(), 10_000);
    world.pass(1_000);
    let after = world.plan();
    assert_eq!(after.moves, []);
    assert!(after.before.most - after.before.least < 0.01, "{after:?}");
    assert_eq!(
        (after.before.most, after.before.least),
        (plan.after.most, plan.after.least)
    );
    // The largest gain first: those that take most.
    let demands = plan
        .moves
        .iter()
        .map(|one| world.record(&one.key).unwrap().demand);
    assert_eq!(demands.take(10).collect::<Vec<_>>(), [3; 10]);
}

#[test]
fn labels_types_and_policies_are_kept_to() {
    let mut world = World::new();
    let label = |value: &str| vec![("zone".to_owned(), value.to_owned())];
    world.join_with("a", 1_000, |node| node.labels = label("x"));
    for id in 0..10 {
        world.create(&key(id), |options| options.require = label("x"));
    }
    let other = |id: u32| maitred_protocol::ProcessKey::new("other", &id.to_string()).unwrap();
    let stays = |id: u32| maitred_protocol::ProcessKey::new("stays", &id.to_string()).unwrap();
    world.put_type(TypeSpec {
        name: stays(0).type_name,
        on_drain: OnDrain::Wait,
        ..player()
    });
    for id in 0..10 {
        world.create(&other(id), |_| {});
        world.create(&stays(id), |_| {});
    }
    world.set("a", &other(11));
    world.join_with("b", 1_000, |node| node.labels = label("y"));
    world.join_with("c", 1_000, |node| {
        node.labels = label("x");
        node.types = vec![other(0).type_name];
    });
    world.join("d", 1_000);
    world.cordon("d", true);
    let plan = world.plan();
    assert!(!plan.moves.is_empty());
    for one in &plan.moves {
        assert_eq!(
            (&one.key.type_name, one.from.as_str()),
            (&other(0).type_name, "a")
        );
        assert!(["b", "c"].contains(&one.to.as_str()));
        assert_ne!(one.key, other(11), "it cannot be created again");
    }
    assert_eq!(plan.moves.len(), 10);
}

#[test]
fn a_node_without_room_is_given_nothing() {
    let mut world = World::with(&["a"], 100);
    for id in 0..10 {
        world.create(&key(id), |options| options.demand = 10);
    }
    world.join("b", 9);
    assert_eq!(world.plan().moves, []);
}

#[test]
fn when_the_planned_node_is_gone_the_selector_decides() {
    let mut world = World::with(&["a"], 1_000);
    world.fill(0..40);
    world.join("b", 1_000);
    let plan = world.plan();
    assert_eq!(plan.moves.len(), 20);
    world.join("c", 1_000);
    world.cordon("b", true);
    world.rebalance(plan.moves.clone(), 1_000);
    world.pass(1_000);
    assert_eq!((world.on("a"), world.on("b"), world.on("c")), (20, 0, 20));
    for one in &plan.moves {
        let record = world.record(&one.key).unwrap();
        assert!(
            matches!(*record.why.chooser, Chooser::Fallback { .. }),
            "{record:?}"
        );
    }
    world.assert_running(0..40);
}

#[test]
fn a_node_that_is_full_by_then_is_not_overfilled() {
    let mut world = World::with(&["a"], 1_000);
    world.fill(0..100);
    world.join("b", 60);
    let plan = world.plan();
    assert!(!plan.moves.is_empty());
    world.create(&key("large"), |options| {
        options.demand = 60;
        options.group = Some("b".to_owned());
    });
    let large = world.record(&key("large")).unwrap().node.clone();
    assert_eq!(large.as_str(), "b");
    world.rebalance(plan.moves, 1_000);
    world.pass(1_000);
    // Nobody would take them: nothing was stopped.
    assert_eq!((world.on("a"), world.on("b"), world.pending()), (100, 1, 0));
    assert_eq!(world.status().moves_left, 0);
}

#[test]
fn moves_of_lives_that_are_over_are_void() {
    let mut world = World::with(&["a"], 1_000);
    world.fill(0..6);
    world.join("b", 1_000);
    let mut moves = world.plan().moves;
    assert_eq!(moves.len(), 3);
    let (gone, anew) = (moves[0].key.clone(), moves[2].key.clone());
    world.delete(&gone);
    moves[1].from = name("b");
    world.delete(&anew);
    world.cordon("b", true);
    world.create(&anew, |_| {});
    world.cordon("b", false);
    world.rebalance(moves, 1_000);
    world.pass(1_000);
    assert_eq!((world.on("a"), world.on("b")), (5, 0));
    assert_eq!(world.status().moves_left, 0);
}

#[test]
fn suspended_moves_take_up_no_rebalancing_and_hold_up_one() {
    let mut world = World::with(&["a"], 1_000);
    world.fill(0..100);
    world.join("b", 1_000);
    let plan = world.plan();
    world.rebalance(plan.moves.clone(), 10);
    world.pass(1_000);
    world.suspend(true);
    let moved = world.on("b");
    assert!((10..=12).contains(&moved), "{moved}");
    world.pass(2_000);
    assert_eq!(world.on("b"), moved);
    assert_eq!(world.status().moves_left, 50 - moved);
    let answer = world.rebalance(plan.moves, 10);
    assert!(
        matches!(&answer, Response::Rejected(Rejection::Conflict(text)) if text.contains("let them go on")),
        "{answer:?}"
    );
    world.suspend(false);
    world.pass(1_000);
    assert!(world.on("b") > moved);
    // A new leader knows of no rebalancing.
    world.restart();
    let moved = world.on("b");
    world.pass(2_000);
    assert_eq!((world.on("b"), world.status().moves_left), (moved, 0));
    world.assert_running(0..100);
}

#[test]
fn a_rebalancing_takes_the_place_of_the_one_before() {
    let mut world = lopsided();
    let plan = world.plan();
    world.rebalance(plan.moves.clone(), 1);
    world.pass(2_000);
    let few = plan.moves[100..110].to_vec();
    world.rebalance(few, 1_000);
    world.pass(1_000);
    let moved: u32 = counts(&world)[5..].iter().sum();
    assert!((12..=13).contains(&moved), "{moved}");
    assert_eq!(world.status().moves_left, 0);
}

#[test]
fn nothing_is_moved_that_would_only_turn_the_difference_round() {
    let mut world = World::with(&["a"], 100);
    for id in 0..2 {
        world.create(&key(id), |options| options.demand = 5);
    }
    world.join("b", 100);
    world.create(&key(2), |options| options.demand = 4);
    assert_eq!((world.on("a"), world.on("b")), (2, 1));
    assert_eq!(world.plan().moves, []);
}

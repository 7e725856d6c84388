//! Those that no node takes sleep until one may, and no longer.

use maitred_protocol::{Incarnation, ProcessKey, Request, Response, Waits};

use crate::world::{World, key, name, spec};

/// Three processes that have lost their node, and one node that has room for none.
fn asleep() -> World {
    let mut world = World::new(|_| {});
    world.join("a", 3);
    world.fill(0..3);
    world.join("b", 1);
    world.create(&key("own"), |_| {});
    world.lose(&["a"]);
    assert_eq!(world.pending(), 3);
    let asked = world.asked;
    world.pass(10_000);
    assert_eq!(world.asked, asked, "no polling");
    world
}

#[test]
fn a_process_that_goes_makes_room_for_one() {
    let mut world = asleep();
    world.delete(&key("own"));
    world.pass(60);
    assert_eq!(world.started(), ["0"]);
    let asked = world.asked;
    world.pass(10_000);
    assert_eq!(world.asked, asked);
}

#[test]
fn a_node_that_comes_takes_them() {
    let mut world = asleep();
    world.join("c", 2);
    world.pass(60);
    assert_eq!(world.started(), ["0", "1"]);
}

#[test]
fn a_node_that_is_uncordoned_or_grows_takes_them() {
    let mut world = asleep();
    world.cordon("b", true);
    let update = Request::UpdateNode {
        client: world.client,
        name: name("b"),
        epoch: world.epoch("b"),
        labels: None,
        capacity: Some(2),
        share: None,
    };
    world.done(update);
    world.pass(1_000);
    assert_eq!(world.pending(), 3, "it is cordoned");
    world.cordon("b", false);
    world.pass(60);
    assert_eq!(world.started(), ["0"]);
    let update = Request::UpdateNode {
        client: world.client,
        name: name("b"),
        epoch: world.epoch("b"),
        labels: None,
        capacity: Some(9),
        share: None,
    };
    world.done(update);
    world.pass(60);
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_node_that_is_suspect_no_more_takes_them() {
    let mut world = World::new(|_| {});
    world.join("a", 3);
    world.fill(0..3);
    world.join("b", 9);
    world.lose(&["a"]);
    assert_eq!(world.pending(), 0, "b took them");
    world.join("c", 3);
    world.cordon("b", true);
    for id in 10..13 {
        world.create(&key(id), |_| {});
    }
    world.cordon("b", false);
    // Both fall silent, and only c's lease runs out.
    world.game("c").dead = true;
    world.pass(250);
    world.game("b").dead = true;
    world.pass(800);
    world.game("b").dead = false;
    assert_eq!(world.pending(), 3, "b is suspect");
    world.pass(1_000);
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_lost_node_that_comes_back_may_take_its_own() {
    let mut world = World::new(|_| {});
    world.join("a", 3);
    world.fill(0..3);
    world.lose(&["a"]);
    assert_eq!(world.pending(), 3);
    world.join("a", 3);
    world.pass(60);
    assert_eq!(world.pending(), 0, "it failed them, and there is no other");
}

#[test]
fn those_that_fit_nowhere_do_not_hold_up_others() {
    let mut world = World::new(|_| {});
    world.put_type(spec("room"));
    let room = |id: u32| ProcessKey::new("room", &id.to_string()).unwrap();
    world.join("a", 10_000);
    for id in 0..100 {
        // Each unlike the others, and all more important.
        world.create(&key(id), |options| {
            options.demand = 50 + id;
            options.priority = 9;
        });
    }
    for id in 0..3 {
        world.create(&room(id), |_| {});
    }
    world.lose(&["a"]);
    assert_eq!(world.pending(), 103);
    world.join("b", 40);
    world.pass(200);
    assert!((0..3).all(|id| world.runs(&room(id))));
    assert_eq!(world.pending(), 100);
    assert_eq!(world.on("b"), 3);
}

#[test]
fn churn_in_a_full_group_costs_little_and_loses_nothing() {
    let mut world = World::new(|_| {});
    world.join("a", 500);
    world.fill(0..500);
    world.join("b", 200);
    world.fill(500..700);
    world.lose(&["a"]);
    assert_eq!(world.pending(), 500);
    let asked = world.asked;
    for id in 500..600 {
        world.delete(&key(id));
        world.pass(5);
    }
    // Half a second: eleven passes, of 32 and a few more each.
    let asked = world.asked - asked;
    assert!((100..=900).contains(&asked), "{asked}");
    world.pass(200);
    assert_eq!((world.on("b"), world.pending()), (200, 400));
    let first = (0..500).map(key).filter(|key| world.runs(key)).count();
    assert_eq!(first, 100);
}

#[test]
fn what_a_selector_refuses_is_offered_to_it_again_after_a_while() {
    let mut world = World::new(|_| {});
    world.join("a", 100);
    world.fill(0..100);
    world.join("b", 100);
    world.picky = true;
    world.lose(&["a"]);
    assert_eq!(world.pending(), 100);
    assert!(matches!(world.waits(&key(5)), Waits::NoNode { .. }));
    world.pass(4_000);
    assert_eq!(world.asked, 100);
    world.pass(4_000);
    assert_eq!(world.asked, 200, "all of them, once more");
    world.picky = false;
    world.pass(5_000);
    assert_eq!(world.pending(), 0);
}

#[test]
fn those_that_are_deleted_while_they_wait_are_gone() {
    let mut world = asleep();
    world.delete(&key("1"));
    world.join("c", 9);
    world.pass(60);
    assert_eq!(world.started(), ["0", "2"]);
    assert_eq!(world.record(&key("1")), None);
    let lives = world.starts.iter().map(|start| world.record(&start.key));
    assert!(
        lives
            .flatten()
            .all(|record| record.incarnation > Incarnation(0))
    );
}

#[test]
fn room_that_appears_while_a_decision_is_made_is_not_missed() {
    let mut world = World::new(|_| {});
    world.join("a", 3);
    world.fill(0..3);
    world.hold_select = true;
    world.lose(&["a"]);
    world.join("b", 9);
    world.tell_decisions();
    world.pass(60);
    assert_eq!(world.pending(), 0);
}

#[test]
fn one_that_is_deleted_while_it_is_decided_gives_its_token_back() {
    let mut world = World::new(|config| config.recreate_per_second = 2);
    world.join("a", 4);
    world.fill(0..4);
    world.join("b", 9);
    world.hold_select = true;
    world.lose(&["a"]);
    world.delete(&key(0));
    world.delete(&key(1));
    world.tell_decisions();
    world.pass(60);
    assert_eq!(world.started(), ["2", "3"]);
}

#[test]
fn room_for_one_does_not_wake_them_all() {
    let mut world = World::new(|_| {});
    world.join("a", 500);
    world.fill(0..500);
    world.join("b", 1);
    world.create(&key("own"), |_| {});
    world.lose(&["a"]);
    let asked = world.asked;
    world.delete(&key("own"));
    world.pass(10_000);
    assert_eq!((world.on("b"), world.pending()), (1, 499));
    assert_eq!(
        world.asked - asked,
        32,
        "the first few, until one finds no room"
    );
}

#[test]
fn what_a_plan_would_take_is_not_taken() {
    let mut world = World::new(|_| {});
    world.join("a", 1);
    let create = match world.create_of(&key(1), |_| {}) {
        Request::CreateProcess(_, create) => create,
        other => panic!("{other:?}"),
    };
    // Both come in one turn.
    let plan = world.send(Request::Plan(create.clone()));
    let client = world.client;
    let create = world.send(Request::CreateProcess(client, create));
    world.run();
    match world.answered(plan) {
        Some(Response::Planned(plan)) => assert_eq!(plan.node, Some(name("a"))),
        other => panic!("{other:?}"),
    }
    let created = world.answered(create);
    assert!(
        matches!(created, Some(Response::Created { .. })),
        "{created:?}"
    );
}

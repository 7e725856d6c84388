//! Order, tokens, and how evenly the nodes that are left are filled.

use crate::world::{World, key};

#[test]
fn the_more_important_come_first_then_those_that_wait_longer_then_by_key() {
    let mut world = World::new(|config| config.recreate_per_second = 1);
    world.join("a", 10);
    for (id, priority) in [("1", 0), ("2", 5), ("3", -3), ("4", 5)] {
        world.create(&key(id), |options| options.priority = priority);
    }
    world.join("b", 100);
    world.cordon("b", true);
    world.join("x", 1);
    world.create(&key("0"), |options| options.priority = 5);
    world.cordon("b", false);
    world.game("a").dead = true;
    world.pass(400);
    world.lose(&["x"]);
    world.pass(6_000);
    // 0 was lost after 2, which had taken the only token, and 4, which waited for the next.
    assert_eq!(world.started(), ["2", "4", "0", "1", "3"]);
}

#[test]
fn the_group_s_tokens_are_kept_to_and_come_back_with_time() {
    let mut world = World::new(|config| config.recreate_per_second = 100);
    world.join("a", 1_000);
    world.fill(0..350);
    world.join("b", 1_000);
    world.lose(&["a"]);
    world.pass(4_000);
    assert_eq!(world.pending(), 0);
    let first_ms = world.starts[0].at_ms;
    for (count, start) in (1_u64..).zip(&world.starts) {
        let allowed = 100 + (start.at_ms - first_ms) / 10;
        assert!(count <= allowed, "{count} by {} ms", start.at_ms - first_ms);
    }
    let last_ms = world.starts.last().unwrap().at_ms - first_ms;
    assert!((2_450..=2_600).contains(&last_ms), "{last_ms}");
}

#[test]
fn a_node_s_tokens_are_kept_to_and_nobody_else_s_are_spent_on_waiting_for_them() {
    let mut world = World::new(|config| {
        config.recreate_per_node_per_second = 50;
        config.recreate_per_second = 310;
    });
    world.join("a", 1_000);
    world.fill(0..300);
    world.join("b", 1_000);
    world.join("c", 1_000);
    world.lose(&["a"]);
    world.pass(4_000);
    assert_eq!(world.pending(), 0);
    let first_ms = world.starts[0].at_ms;
    for node in ["b", "c"] {
        let starts = world.starts.iter().filter(|start| start.node == node);
        for (count, start) in (1_u64..).zip(starts) {
            let allowed = 50 + (start.at_ms - first_ms) / 20;
            assert!(count <= allowed, "{count} by {} ms", start.at_ms - first_ms);
        }
        assert_eq!(world.on(node), 150);
    }
    let last_ms = world.starts.last().unwrap().at_ms - first_ms;
    assert!((1_950..=2_150).contains(&last_ms), "{last_ms}");
}

#[test]
fn creates_of_clients_need_no_token() {
    let mut world = World::new(|config| {
        config.recreate_per_second = 1;
        config.recreate_per_node_per_second = 1;
    });
    world.join("a", 1_000);
    world.fill(0..200);
    assert_eq!(world.on("a"), 200);
}

#[test]
fn ten_thousand_of_one_node_are_spread_over_the_others() {
    let mut world = World::new(|config| config.recreate_per_node_per_second = 10_000);
    world.join("a", 10_000);
    world.fill(0..10_000);
    let others = ["b", "c", "d", "e", "f", "g", "h", "i", "j"];
    for node in others {
        world.join(node, 1_200);
    }
    world.lose(&["a"]);
    assert_eq!(world.pending(), 0, "at once: a second's tokens are there");
    let most = others.iter().map(|node| world.on(node)).max();
    assert_eq!(most, Some(10_000_u32.div_ceil(9)), "no herd");
    assert!(world.asked_at_once <= 1_024);
    assert_eq!(world.asked, 10_000, "each was decided once");
}

#[test]
fn capacity_is_never_exceeded_and_the_rest_waits() {
    let mut world = World::new(|config| config.recreate_per_node_per_second = 10_000);
    world.join("a", 3_000);
    world.fill(0..3_000);
    for node in ["b", "c"] {
        world.join(node, 1_000);
    }
    world.lose(&["a"]);
    world.pass(1_000);
    assert_eq!((world.on("b"), world.on("c")), (1_000, 1_000));
    assert_eq!(world.pending(), 1_000);
    let asked = world.asked;
    world.pass(20_000);
    assert_eq!(world.asked, asked, "nobody asks again for nothing");
    world.join("d", 1_000);
    assert_eq!((world.on("d"), world.pending()), (1_000, 0));
}

#[test]
fn what_waits_to_be_created_again_is_no_create_under_way() {
    let mut world = World::new(|config| config.creates_max = 4);
    world.join("a", 9);
    for id in 0..9 {
        world.create(&key(id), |_| {});
    }
    world.suspend(true);
    world.lose(&["a"]);
    world.join("b", 99);
    assert_eq!(world.pending(), 9);
    world.create(&key("new"), |_| {});
    assert!(world.runs(&key("new")));
    world.restart();
    world.create(&key("newer"), |_| {});
    world.suspend(false);
    world.pass(100);
    world.create(&key("newest"), |_| {});
    assert_eq!(world.on("b"), 12);
}

#[test]
fn the_more_important_come_first_though_their_node_is_back() {
    let mut world = World::new(|config| config.recreate_per_node_per_second = 20);
    world.join("a", 1_000);
    for id in 0..400 {
        world.create(&key(id), |options| options.priority = id);
    }
    world.join("b", 1_000);
    world.join("c", 1_000);
    world.lose(&["a"]);
    world.join("a", 1_000);
    world.pass(30_000);
    assert_eq!(world.pending(), 0);
    let ids: Vec<u32> = world
        .started()
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
    assert_eq!(ids.len(), 400);
    // Those that are decided together may pass each other.
    for (at, id) in ids.iter().enumerate() {
        let before = 399 - at as u32;
        assert!(id.abs_diff(before) <= 32, "the {at}th was {id}: {ids:?}");
    }
}

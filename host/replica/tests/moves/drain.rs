//! Drains: by policy, at a rate, until a deadline.

use maitred_protocol::{OnDrain, OnNodeLost, ProcessState, Switch, TypeSpec};

use crate::world::{World, key, player};

const HOUR_MS: u32 = 3_600_000;

fn on_drain(on_drain: OnDrain) -> TypeSpec {
    TypeSpec {
        on_drain,
        ..player()
    }
}

#[test]
fn a_drain_moves_everything_and_each_is_stopped_before_it_starts_again() {
    let mut world = World::with(&["a", "b", "c"], 1_000);
    world.fill(0..30);
    assert_eq!((world.on("a"), world.on("b"), world.on("c")), (10, 10, 10));
    let moved: Vec<_> = world.games["a"].running.keys().cloned().collect();
    world.diary.clear();
    world.drain("a", 1_000, HOUR_MS);
    world.pass(500);
    assert_eq!((world.on("a"), world.on("b"), world.on("c")), (0, 15, 15));
    world.assert_running(0..30);
    for key in moved {
        let mut of_key = world
            .diary
            .iter()
            .filter(|line| line.contains(&format!("{key} ")));
        assert_eq!(*of_key.next().unwrap(), format!("stop {key} on a"));
        assert!(of_key.next().unwrap().starts_with("start"), "{key}");
        assert_eq!(of_key.next(), None, "{key} was moved once");
        let record = world.record(&key).unwrap();
        assert_eq!(record.attempt, 2);
        assert!(record.failures().is_empty());
    }
}

#[test]
fn a_drain_keeps_to_its_rate() {
    let mut world = World::with(&["a"], 1_000);
    world.fill(0..100);
    world.join("b", 1_000);
    world.drain("a", 10, HOUR_MS);
    for second in 1..=5 {
        world.pass(1_000);
        let moved = 100 - world.on("a");
        let expected = second * 10;
        assert!(
            (expected..=expected + 2).contains(&moved),
            "{moved} in {second} s"
        );
    }
}

#[test]
fn at_most_64_moves_are_under_way_and_a_silent_node_holds_up_no_other() {
    let mut world = World::with(&["a"], 1_000);
    world.fill(0..200);
    world.join("b", 1_000);
    world.join("c", 1_000);
    world.games.get_mut("a").unwrap().slow_stops = true;
    world.drain("a", 10_000, HOUR_MS);
    world.pass(2_000);
    assert_eq!((world.on("a"), world.pending()), (136, 64));
    for id in 200..210 {
        world.create(&key(id), |_| {});
    }
    world.drain("b", 10_000, HOUR_MS);
    assert!(world.on("b") > 0);
    world.pass(1_000);
    assert!(world.on("b") > 0, "all 64 are taken");
    world.pass(12_000);
    assert_eq!(
        world.on("b"),
        0,
        "the silent ones count for their own drain only"
    );
    assert_eq!((world.on("a"), world.pending()), (136, 64));
    world.go_on("a");
    world.pass(2_000);
    assert_eq!((world.on("a"), world.on("c"), world.pending()), (0, 210, 0));
    world.assert_running(0..210);
}

#[test]
fn processes_that_wait_are_left_until_the_deadline_and_moved_then() {
    let mut world = World::with(&["a"], 1_000);
    world.put_type(on_drain(OnDrain::Wait));
    world.fill(0..20);
    world.join("b", 1_000);
    world.drain("a", 1_000, 10_000);
    // However the wall clock is set meanwhile.
    world.now.wall_ms -= 3_000_000;
    world.pass(9_800);
    assert_eq!(world.on("a"), 20);
    world.pass(1_000);
    assert_eq!((world.on("a"), world.on("b")), (0, 20));
    world.assert_running(0..20);
}

#[test]
fn a_leader_whose_clock_is_late_waits_no_longer_than_was_asked_for() {
    let mut world = World::with(&["a"], 1_000);
    world.put_type(on_drain(OnDrain::Wait));
    world.fill(0..20);
    world.join("b", 1_000);
    world.drain("a", 1_000, 10_000);
    world.now.wall_ms -= 3_000_000;
    world.restart();
    world.pass(9_800);
    assert_eq!(world.on("a"), 20);
    world.pass(1_000);
    assert_eq!((world.on("a"), world.on("b")), (0, 20));
}

#[test]
fn processes_of_a_type_that_is_stopped_are_gone() {
    let mut world = World::with(&["a"], 1_000);
    world.put_type(on_drain(OnDrain::Stop));
    world.fill(0..20);
    world.join("b", 1_000);
    world.drain("a", 1_000, HOUR_MS);
    world.pass(500);
    assert_eq!((world.on("a"), world.on("b"), world.pending()), (0, 0, 0));
    assert!(world.record(&key(1)).is_none());
    assert!(world.games["a"].running.is_empty());
}

#[test]
fn processes_of_the_nodes_own_are_left_to_end_until_the_deadline() {
    let mut world = World::with(&["a", "b"], 1_000);
    world.set("a", &key("own"));
    world.drain("a", 1_000, 5_000);
    world.pass(4_500);
    assert_eq!(world.on("a"), 1);
    world.pass(1_000);
    assert!(world.record(&key("own")).is_none());
    assert!(world.games["a"].running.is_empty());
    // What the node registers after that leaves it too.
    world.set("a", &key("late"));
    world.pass(1_500);
    assert!(world.record(&key("late")).is_none());
}

#[test]
fn a_starting_process_is_left_to_start_and_then_moved() {
    let mut world = World::with(&["a"], 1_000);
    world.create(&key(1), |_| {});
    world.games.get_mut("a").unwrap().slow_spawns = true;
    world.ask_later(&key(2));
    world.join("b", 1_000);
    world.drain("a", 1_000, HOUR_MS);
    world.pass(1_000);
    let starting = world.record(&key(2)).unwrap();
    assert_eq!(
        (starting.node.as_str(), starting.state),
        ("a", ProcessState::Starting)
    );
    assert_eq!(world.on("a"), 1);
    world.go_on("a");
    world.pass(500);
    assert_eq!((world.on("a"), world.on("b")), (0, 2));
    world.assert_running(1..3);
}

#[test]
fn a_create_that_a_deadline_takes_off_keeps_its_attempts() {
    let mut world = World::with(&["a"], 1_000);
    world.games.get_mut("a").unwrap().slow_spawns = true;
    let mut spec = player();
    spec.attempts = 1;
    world.put_type(spec);
    world.ask_later(&key(1));
    world.join("b", 1_000);
    world.drain("a", 1_000, 2_000);
    world.pass(3_500);
    assert_eq!((world.on("a"), world.on("b")), (0, 1));
    world.assert_running(1..2);
}

#[test]
fn a_drain_that_is_ended_leaves_the_rest_where_it_is() {
    for uncordon in [false, true] {
        let mut world = World::with(&["a"], 1_000);
        world.fill(0..100);
        world.join("b", 1_000);
        world.drain("a", 10, HOUR_MS);
        world.pass(1_000);
        if uncordon {
            world.cordon("a", false);
        } else {
            world.end_drain("a");
        }
        let left = world.on("a");
        assert!((85..95).contains(&left), "{left}");
        world.pass(3_000);
        assert_eq!(world.on("a"), left);
        assert_eq!(world.pending(), 0);
        world.assert_running(0..100);
    }
}

#[test]
fn a_new_leader_goes_on_with_a_drain() {
    let mut world = World::with(&["a"], 1_000);
    world.fill(0..100);
    world.join("b", 1_000);
    world.games.get_mut("a").unwrap().slow_stops = true;
    world.drain("a", 20, HOUR_MS);
    world.pass(1_000);
    assert!(world.pending() >= 20);
    world.restart();
    world.go_on("a");
    world.pass(6_000);
    assert_eq!((world.on("a"), world.on("b"), world.pending()), (0, 100, 0));
    world.assert_running(0..100);
}

#[test]
fn nothing_is_stopped_while_no_node_would_take_it() {
    let mut world = World::with(&["a"], 100);
    world.fill(0..40);
    world.join("b", 10);
    world.drain("a", 10_000, HOUR_MS);
    world.pass(3_000);
    // Only what fits was stopped; nothing waits without a node.
    assert_eq!((world.on("a"), world.on("b"), world.pending()), (30, 10, 0));
    world.assert_running(0..40);
    world.join("c", 25);
    world.pass(500);
    assert_eq!((world.on("a"), world.on("c"), world.pending()), (5, 25, 0));
    let on_b = world.games["b"].running.keys().next().unwrap().clone();
    world.delete(&on_b);
    world.pass(500);
    assert_eq!((world.on("a"), world.on("b")), (4, 10));
}

#[test]
fn what_no_node_would_take_at_the_deadline_is_taken_off_and_waits() {
    let mut world = World::with(&["a"], 100);
    world.put_type(TypeSpec {
        on_node_lost: OnNodeLost::Recreate,
        ..player()
    });
    world.fill(0..10);
    world.join("b", 4);
    world.drain("a", 1_000, 3_000);
    world.pass(2_500);
    assert_eq!((world.on("a"), world.on("b")), (6, 4));
    world.pass(2_000);
    assert_eq!((world.on("a"), world.on("b"), world.pending()), (0, 4, 6));
    assert!(world.games["a"].running.is_empty());
    world.join("c", 100);
    world.pass(5_000);
    assert_eq!((world.on("c"), world.pending()), (6, 0));
    world.assert_running(0..10);
}

#[test]
fn a_kind_that_fits_nowhere_does_not_hold_up_others() {
    let mut world = World::with(&["a"], 1_000);
    for id in 0..70 {
        world.create(&key(id), |options| {
            options.demand = 9 - u32::from(id >= 60) * 8
        });
    }
    world.join("b", 8);
    world.drain("a", 1_000, HOUR_MS);
    world.pass(1_000);
    assert_eq!(world.on("b"), 8, "of those that take one unit");
    assert_eq!(world.pending(), 0);
}

#[test]
fn suspended_moves_go_on_when_they_may() {
    let mut world = World::with(&["a"], 1_000);
    world.fill(0..50);
    world.join("b", 1_000);
    world.suspend(true);
    world.drain("a", 1_000, 2_000);
    world.pass(4_000);
    assert_eq!(world.on("a"), 50);
    assert!(world.replica().registry().is_suspended(Switch::Moves));
    world.suspend(false);
    world.pass(1_000);
    assert_eq!((world.on("a"), world.on("b")), (0, 50));
    world.assert_running(0..50);
}

#[test]
fn a_node_that_dies_while_it_is_drained_loses_nothing() {
    let mut world = World::with(&["a"], 1_000);
    world.put_type(TypeSpec {
        on_node_lost: OnNodeLost::Recreate,
        ..player()
    });
    world.fill(0..100);
    world.join("b", 1_000);
    world.drain("a", 20, HOUR_MS);
    world.pass(1_000);
    assert!(world.on("b") > 10);
    world.games.get_mut("a").unwrap().dead = true;
    world.games.get_mut("a").unwrap().running.clear();
    world.pass(30_000);
    assert_eq!((world.on("a"), world.on("b"), world.pending()), (0, 100, 0));
    world.assert_running(0..100);
}

#[test]
fn nothing_is_stopped_while_it_would_not_be_started_again() {
    let mut world = World::with(&["a"], 1_000);
    world.fill(0..20);
    world.join("b", 1_000);
    world.hold_up(Switch::Recreation, true);
    world.drain("a", 1_000, 10_000);
    world.pass(5_000);
    assert_eq!((world.on("a"), world.pending()), (20, 0));
    world.hold_up(Switch::Recreation, false);
    world.pass(2_000);
    assert_eq!((world.on("a"), world.on("b")), (0, 20));
    world.assert_running(0..20);
}

#[test]
fn a_drained_node_that_registers_anew_is_emptied_too() {
    let mut world = World::with(&["a"], 1_000);
    world.fill(0..20);
    world.join("b", 1_000);
    world.suspend(true);
    world.drain("a", 1_000, HOUR_MS);
    let runs = world.games["a"].running.clone();
    world.join_with("a", 1_000, |node| {
        node.inventory = runs.clone().into_iter().collect();
        node.instance = 1;
    });
    world.games.get_mut("a").unwrap().running = runs;
    world.pass(1_000);
    assert_eq!(world.on("a"), 20);
    world.suspend(false);
    world.pass(1_000);
    assert_eq!((world.on("a"), world.on("b")), (0, 20));
    world.assert_running(0..20);
}

#[test]
fn a_move_that_fails_on_its_new_node_goes_to_another() {
    let mut world = World::with(&["a"], 1_000);
    world.fill(0..10);
    world.join("b", 1_000);
    world.join("c", 1_000);
    world.refuses.insert("b".to_owned());
    world.drain("a", 1_000, HOUR_MS);
    world.pass(10_000);
    assert_eq!((world.on("a"), world.on("c"), world.pending()), (0, 10, 0));
    world.assert_running(0..10);
}

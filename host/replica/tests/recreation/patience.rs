//! Back-off, and when a process is given up.

use maitred_protocol::{Request, Response, Waits};

use crate::world::{World, key, spec};

/// A process that has lost its node, and a node that does not start it.
fn refused(change: impl FnOnce(&mut maitred_protocol::TypeSpec)) -> World {
    let mut world = World::new(|_| {});
    let mut player = spec("player");
    player.back_off_ms = 100;
    change(&mut player);
    world.put_type(player);
    world.join("a", 9);
    world.fill(1..2);
    world.join("b", 9);
    world.game("b").refuses = true;
    world.lose(&["a"]);
    world
}

fn gaps_ms(world: &World) -> Vec<u64> {
    let starts = world.starts.windows(2);
    starts.map(|pair| pair[1].at_ms - pair[0].at_ms).collect()
}

#[test]
fn each_pause_is_twice_as_long_and_up_to_a_quarter_more() {
    let mut world = refused(|_| {});
    world.pass(4_000);
    let gaps = gaps_ms(&world);
    assert!(gaps.len() >= 4, "{gaps:?}");
    for (gap, least) in gaps.iter().zip([100, 200, 400, 800]) {
        assert!((least..=least * 5 / 4 + 1).contains(gap), "{gaps:?}");
    }
    world.pass(120_000);
    let gaps = gaps_ms(&world);
    assert!(gaps.iter().all(|gap| *gap <= 37_501), "{gaps:?}");
    // What it waits for is said, and it ends when the node starts it.
    assert!(matches!(world.waits(&key(1)), Waits::BackOff(1..=37_500)));
    world.game("b").refuses = false;
    world.pass(38_000);
    assert!(world.runs(&key(1)));
    // It ran: the next time begins anew.
    world.starts.clear();
    world.join("c", 9);
    world.game("c").refuses = true;
    world.lose(&["b"]);
    world.pass(300);
    let gaps = gaps_ms(&world);
    assert!((100..=126).contains(&gaps[0]), "{gaps:?}");
}

#[test]
fn a_new_leader_does_not_begin_the_pauses_anew() {
    let mut world = refused(|_| {});
    world.pass(2_000);
    let before = world.starts.len();
    assert!(before >= 4);
    world.restart();
    world.pass(300);
    assert_eq!(
        world.starts.len(),
        before,
        "it pauses after so many failures"
    );
    world.pass(4_000);
    assert!(world.starts.len() > before);
}

#[test]
fn attempts_in_a_row_end_it() {
    let mut world = refused(|player| player.recreate_attempts = 3);
    world.pass(2_000);
    assert_eq!(world.starts.len(), 3);
    assert_eq!(world.record(&key(1)), None, "given up");
    assert!(world.list(0).is_empty());
    // Its key is free.
    world.game("b").refuses = false;
    world.create(&key(1), |_| {});
}

#[test]
fn more_attempts_than_the_record_keeps_are_counted() {
    let mut world = refused(|player| {
        player.recreate_attempts = 20;
        player.back_off_ms = 1;
    });
    world.pass(600_000);
    assert_eq!(world.starts.len(), 20);
    assert_eq!(world.record(&key(1)), None);
}

#[test]
fn time_without_a_node_ends_it_under_whichever_leader() {
    let mut world = World::new(|_| {});
    world.put_type(maitred_protocol::TypeSpec {
        pending_deadline_ms: 5_000,
        ..spec("player")
    });
    world.join("a", 9);
    world.fill(1..3);
    world.lose(&["a"]);
    world.pass(2_000);
    let left_ms = world.list(0)[0].left_ms.unwrap();
    assert!((2_800..=3_000).contains(&left_ms), "{left_ms}");
    world.restart();
    world.pass(2_700);
    assert_eq!(world.pending(), 2);
    world.pass(400);
    assert_eq!(world.pending(), 0);
    assert_eq!(world.record(&key(1)), None);
}

#[test]
fn a_type_that_loses_its_patience_gives_up_what_waits() {
    let mut world = refused(|_| {});
    world.pass(1_000);
    world.put_type(maitred_protocol::TypeSpec {
        recreate_attempts: 1,
        ..spec("player")
    });
    world.run();
    assert_eq!(world.record(&key(1)), None);
}

#[test]
fn a_node_found_in_time_ends_the_wait() {
    let mut world = World::new(|_| {});
    world.put_type(maitred_protocol::TypeSpec {
        pending_deadline_ms: 2_000,
        ..spec("player")
    });
    world.join("a", 9);
    world.fill(1..2);
    world.lose(&["a"]);
    world.join("b", 9);
    world.pass(5_000);
    assert!(world.runs(&key(1)));
}

#[test]
fn whoever_waits_for_one_that_is_given_up_is_told() {
    let mut world = refused(|player| player.recreate_attempts = 3);
    let create = maitred_protocol::CreateProcess {
        key: key(1),
        args: Vec::new(),
        selector: None,
        callback: None,
        options: maitred_protocol::CreateOptions::default(),
    };
    let create = Request::CreateProcess(world.client, Box::new(create));
    let waits = world.send(create);
    world.pass(2_000);
    let Some(Response::Rejected(no)) = world.answered(waits) else {
        panic!("no rejection");
    };
    let text = no.to_string();
    assert!(text.contains("given up"), "{text}");
}

#[test]
fn a_node_s_own_words_do_not_make_a_failure_a_move() {
    let mut world = refused(|player| player.recreate_attempts = 3);
    assert_eq!(world.starts.len(), 1);
    world.game("b").says = Some("moved: to another shard");
    world.pass(2_000);
    assert_eq!(world.starts.len(), 3);
    let gaps = gaps_ms(&world);
    assert!((100..=126).contains(&gaps[0]), "{gaps:?}");
    assert!(world.record(&key(1)).is_none(), "it is given up");
}

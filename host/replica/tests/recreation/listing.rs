//! What each pending process waits for, as operators see it.

use maitred_protocol::{
    NodeName, RefusalReason, Request, Response, Restart, TypeSpec, Waits, limits as wire,
};

use crate::world::{World, key, name, spec};

#[test]
fn a_held_key_says_where_and_for_how_long() {
    let mut world = World::new(|_| {});
    world.put_type(TypeSpec {
        restart: Restart::Safe,
        ..spec("player")
    });
    world.join("a", 9);
    let epoch = world.epoch("a");
    world.fill(1..2);
    world.join("b", 9);
    world.lose(&["a"]);
    let item = world.list(0).remove(0);
    let Waits::Held {
        node,
        epoch: of,
        lost,
        strict,
        left_ms,
    } = &item.waits
    else {
        panic!("{item:?}");
    };
    assert_eq!(
        (node, *of, *lost, *strict),
        (&name("a"), epoch, true, false)
    );
    assert!((300..=510).contains(&left_ms.unwrap()), "{left_ms:?}");
    assert_eq!(item.cause, "its node's lease ran out");
    assert_eq!(item.left_ms, None);
    world.pass(520);
    assert_eq!(world.pending(), 0, "the bound has passed");
}

#[test]
fn a_strict_type_waits_for_proof() {
    let mut world = World::new(|_| {});
    world.put_type(TypeSpec {
        restart: Restart::Strict,
        ..spec("player")
    });
    world.join("a", 9);
    world.fill(1..2);
    world.join("b", 9);
    world.lose(&["a"]);
    world.pass(60_000);
    let waits = world.waits(&key(1));
    let Waits::Held {
        strict, left_ms, ..
    } = waits
    else {
        panic!("{waits:?}");
    };
    assert_eq!((strict, left_ms), (true, None));
    let dead = Request::ConfirmDead {
        client: world.client,
        name: name("a"),
        epoch: None,
    };
    world.done(dead);
    assert!(world.runs(&key(1)));
}

#[test]
fn those_that_wait_for_a_token_know_their_place() {
    let mut world = World::new(|config| config.recreate_per_second = 1);
    world.join("a", 9);
    for id in 0..5 {
        world.create(&key(id), |options| options.priority = id);
    }
    world.join("b", 9);
    world.lose(&["a"]);
    let places: Vec<_> = world.list(0).into_iter().map(|item| item.waits).collect();
    // 4 has taken the only token.
    let turns = [
        Waits::Turn(3),
        Waits::Turn(2),
        Waits::Turn(1),
        Waits::Turn(0),
    ];
    assert_eq!(places, turns);
}

#[test]
fn no_node_says_why_of_each() {
    let mut world = World::new(|config| config.recreate_per_node_per_second = 1);
    world.join("a", 20);
    world.create(&key("big"), |options| options.demand = 8);
    for id in 0..3 {
        world.create(&key(id), |_| {});
    }
    world.join("b", 5);
    world.join("c", 5);
    world.cordon("c", true);
    world.lose(&["a"]);
    let reasons = |waits: Waits| match waits {
        Waits::NoNode { refusals, more } => {
            assert_eq!(more, 0);
            refusals
                .into_iter()
                .map(|refusal| (refusal.node, refusal.reason))
                .collect()
        }
        other => panic!("{other:?}"),
    };
    let big: Vec<(NodeName, RefusalReason)> = reasons(world.waits(&key("big")));
    let left = |waits: &RefusalReason| match waits {
        RefusalReason::Capacity { left, demand: 8 } => *left,
        other => panic!("{other:?}"),
    };
    assert!(left(&big[0].1) <= 5);
    assert_eq!(big[1], (name("c"), RefusalReason::Cordoned));
    let small: Vec<(NodeName, RefusalReason)> = reasons(world.waits(&key(2)));
    assert_eq!(small[0], (name("b"), RefusalReason::Budget));
    world.pass(3_000);
    assert_eq!(
        world.pending(),
        1,
        "the tokens came, room for the big one did not"
    );
}

#[test]
fn pages_are_in_order_complete_and_fit_a_frame() {
    let mut world = World::new(|config| config.mass_loss_percent = 100);
    world.join("a", 3_000);
    world.fill(0..2_500);
    let nodes: Vec<String> = (0..250).map(|at| format!("{at:0>60}")).collect();
    for node in &nodes {
        world.join(node, 1);
        world.cordon(node, true);
    }
    world.lose(&["a"]);
    for limit in [0, 1, 700] {
        let mut listed = Vec::new();
        let (mut after, mut pages) = (None, 0);
        // With a limit of one, a few will do.
        while pages < 20 {
            let page = world.ask(Request::ListPending { after, limit });
            maitred_protocol::codec::encode(1, &page, &mut Vec::new()).unwrap();
            let Response::Pending { items, next } = page else {
                panic!("no page");
            };
            assert!(limit == 0 || items.len() <= limit as usize);
            for item in &items {
                let Waits::NoNode { refusals, more } = &item.waits else {
                    panic!("{item:?}");
                };
                assert!(!refusals.is_empty());
                assert_eq!(refusals.len() + *more as usize, 250);
                if limit == 1 {
                    assert_eq!(refusals.len(), wire::REFUSALS_MAX);
                }
            }
            listed.extend(items.into_iter().map(|item| item.record.key));
            pages += 1;
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert!(listed.is_sorted());
        assert_eq!(listed.len(), if limit == 1 { 20 } else { 2_500 });
    }
}

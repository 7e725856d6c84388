//! Creates that wait because their selector has nothing for them now.

use maitred_protocol::Response;
use maitred_registry::decide::{Offer, Verdict};

use crate::world::{World, key};

fn first(offer: &Offer<'_>) -> Verdict {
    Verdict::Choose(offer.slots[0])
}

#[test]
fn what_a_node_brings_along_is_not_decided_again() {
    let mut world = World::with(&["a", "b"], 100);
    world.says = Some(|offer| match offer.request.attempt {
        1 => first(offer),
        _ => Verdict::Wait(60_000),
    });
    world.refuses.insert("a".to_owned());
    let create = world.create_of(&key(1), |options| options.deadline_ms = 30_000);
    let create = world.send(create);
    world.pass(200);
    assert!(
        world.answered(create).is_none(),
        "it waits for its selector"
    );
    // It was started there all the same, says its node, and so it is that life that goes on: one of
    // those that wait would have another one decided.
    world.refuses.clear();
    world.says = None;
    let life = (key(1), world.record(&key(1)).unwrap().incarnation);
    world.join_with("a", 100, |register| register.inventory = vec![life]);
    world.pass(200);
    match world.answered(create) {
        Some(Response::Created { record, .. }) => assert_eq!(record.node.as_str(), "a"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.diary, ["start player/1 on a"]);
}

#[test]
fn a_create_that_waits_goes_on_when_nobody_is_there_to_choose() {
    let mut world = World::with(&["a"], 100);
    world.says = Some(|_| Verdict::Wait(100));
    let create = world.create_of(&key(1), |options| options.deadline_ms = 30_000);
    let create = world.send(create);
    world.pass(300);
    world.cordon("a", true);
    world.pass(1_000);
    assert!(world.answered(create).is_none());
    world.says = None;
    world.cordon("a", false);
    world.pass(100);
    let answer = world.answered(create);
    assert!(
        matches!(answer, Some(Response::Created { .. })),
        "{answer:?}"
    );
}

#[test]
fn what_is_refused_for_its_own_past_keeps_no_other_asleep() {
    let mut world = World::with(&["a", "b"], 100);
    world.says = Some(|offer| match offer.request.key.id.as_str() {
        "1" if offer.request.attempt == 1 => first(offer),
        _ => Verdict::Wait(60_000),
    });
    world.refuses.insert("a".to_owned());
    world.ask_later(&key(1));
    world.pass(200);
    for id in 2..41 {
        world.ask_later(&key(id));
    }
    world.cordon("b", true);
    world.cordon("a", true);
    world.pass(1_000);
    assert_eq!(world.running(), 0);
    world.says = None;
    world.refuses.clear();
    world.cordon("a", false);
    world.pass(1_000);
    // The first in turn is not started where it failed before.
    world.assert_running(2..41);
    assert_eq!(world.running(), 39);
}

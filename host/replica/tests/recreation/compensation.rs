//! Lives that a spawn had begun and that are given up: the callback is told, so that it can undo what
//! else it did.

use maitred_protocol::{CreateParty, CreateProcess, Hook, PartyRule, Request, Response};

use crate::world::{World, key};

/// What the callback was told: which life, on which node, why.
fn told(world: &World) -> Vec<(String, u64, String, String)> {
    let told = world.compensations.iter().map(|one| {
        let (id, life) = (one.key.id.to_string(), one.incarnation.0);
        (id, life, one.node.to_string(), one.reason.clone())
    });
    told.collect()
}

fn world(nodes: &[&str]) -> World {
    let mut world = World::new(|_| {});
    world.hooks(1, &[Hook::Compensate]);
    for node in nodes {
        world.join(node, 9);
        world.game(node).refuses = true;
    }
    world
}

#[test]
fn every_attempt_that_fails_is_compensated_once() {
    let mut world = world(&["a", "b"]);
    let create = world.create_of(&key(1), |options| {
        options.attempts = 3;
        options.back_off_ms = 10;
    });
    let ticket = world.send(create);
    world.run();
    assert!(world.compensations.is_empty(), "nothing is given up yet");
    world.pass(1_000);
    let answer = world.answered(ticket);
    let Some(Response::Rejected(maitred_protocol::Rejection::SpawnFailed(attempts))) = answer
    else {
        panic!("{answer:?}");
    };
    let expected: Vec<_> = attempts
        .iter()
        .map(|attempt| {
            let life = attempt.incarnation.0;
            let node = attempt.node.to_string();
            ("1".to_owned(), life, node, "it would not start".to_owned())
        })
        .collect();
    assert!(expected.len() >= 2, "{expected:?}");
    assert_eq!(told(&world), expected);
    let numbers: Vec<u32> = world.compensations.iter().map(|one| one.attempt).collect();
    assert_eq!(numbers, (1..=numbers.len() as u32).collect::<Vec<_>>());
}

#[test]
fn nothing_is_compensated_that_runs_or_whose_callback_does_not_want_it() {
    let mut world = world(&["a", "b"]);
    world.game("a").refuses = false;
    world.game("b").refuses = false;
    world.fill(1..4);
    world.delete(&key(1));
    world.lose(&["a"]);
    world.pass(1_000);
    assert!(world.compensations.is_empty());

    world.hooks(2, &[Hook::Exit]);
    world.game("b").refuses = true;
    let create = world.create_of(&key(9), |options| options.attempts = 1);
    world.send(create);
    world.pass(1_000);
    assert!(world.record(&key(9)).is_none());
    assert!(world.compensations.is_empty());
}

#[test]
fn a_create_that_is_deleted_or_late_while_it_starts_is_compensated() {
    let mut world = world(&["a"]);
    // It answers nothing.
    world.game("a").dead = true;
    for (id, deadline_ms) in [(1, 60_000), (2, 200)] {
        let create = world.create_of(&key(id), |options| options.deadline_ms = deadline_ms);
        world.send(create);
    }
    world.run();
    let life = |world: &World, id: u32| world.record(&key(id)).unwrap().incarnation.0;
    let (deleted, late) = (life(&world, 1), life(&world, 2));
    world.delete(&key(1));
    world.pass(300);
    let on = |id: &str, life, why: &str| (id.to_owned(), life, "a".to_owned(), why.to_owned());
    assert_eq!(
        told(&world),
        [
            on("1", deleted, "its create was undone"),
            on("2", late, "its create ran out of time"),
        ]
    );
}

#[test]
fn a_life_that_was_starting_on_a_node_that_is_lost_is_compensated() {
    let mut world = world(&["a"]);
    world.game("a").dead = true;
    let create = world.create_of(&key(1), |options| options.deadline_ms = 60_000);
    world.send(create);
    world.run();
    let life = world.record(&key(1)).unwrap().incarnation.0;
    world.lose(&["a"]);
    let why = "its node's lease ran out".to_owned();
    assert_eq!(told(&world), [("1".to_owned(), life, "a".to_owned(), why)]);
}

#[test]
fn a_new_leader_compensates_what_is_on_record_again() {
    let mut world = world(&["a"]);
    let create = world.create_of(&key(1), |options| {
        options.deadline_ms = 600_000;
        options.attempts = 5;
        options.back_off_ms = 10;
    });
    world.send(create);
    world.run();
    world.join("b", 9);
    world.game("b").dead = true;
    world.pass(50);
    let first = told(&world);
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(world.record(&key(1)).unwrap().node.as_str(), "b");
    world.compensations.clear();
    world.restart();
    assert_eq!(told(&world), first);
}

#[test]
fn what_ran_is_not_compensated_when_its_next_start_fails_but_that_is() {
    let mut world = world(&["a", "b"]);
    world.game("a").refuses = false;
    world.join("c", 9);
    world.cordon("b", true);
    world.cordon("c", true);
    world.fill(1..2);
    world.cordon("b", false);
    world.lose(&["a"]);
    world.pass(30);
    let first = told(&world);
    assert!(!first.is_empty());
    assert!(first.iter().all(|told| told.2 == "b"), "{first:?}");
    world.compensations.clear();
    world.restart();
    let again = told(&world);
    assert!(again.starts_with(&first), "{again:?}");
    assert!(again.iter().all(|told| told.2 == "b"), "{again:?}");
}

#[test]
fn members_of_a_party_that_had_started_are_compensated_with_the_others() {
    let mut world = world(&["a", "b"]);
    world.game("a").refuses = false;
    let members = [1, 2].map(|id| {
        let request = world.create_of(&key(id), |options| {
            options.attempts = 1;
            options.deadline_ms = 5_000;
        });
        match request {
            Request::CreateProcess(_, create) => *create,
            other => panic!("{other:?}"),
        }
    });
    let party: Vec<CreateProcess> = members.into();
    let client = world.client;
    let ticket = world.send(Request::CreateParty(
        client,
        Box::new(CreateParty {
            group: "raid".to_owned(),
            rule: PartyRule::Apart,
            members: party,
        }),
    ));
    world.pass(1_000);
    let answer = world.answered(ticket);
    assert!(matches!(answer, Some(Response::Rejected(_))), "{answer:?}");
    let mut nodes: Vec<String> = told(&world).into_iter().map(|told| told.2).collect();
    nodes.sort();
    assert_eq!(nodes, ["a", "b"]);
}

//! Sessions that end: by a lease that ran out, by leaving, by proof.

use std::slice::from_ref;

use maitred_protocol::{NodeEpoch, ProcessState, Rejection};
use maitred_registry::{Change, Command, Event, Outcome, Stale};

use crate::world::{World, comer, dust, node, player, rejection, room, vault};

#[test]
fn an_expiry_holds_all_that_may_go_on_and_says_what_is_waited_for() {
    let mut world = World::new();
    world.up("a");
    world.up("b");
    let safe = world.running(&room("1"), "a");
    let starting = world.starting(&room("2"), "a");
    let strict = world.running(&vault("1"), "a");
    let own = world.own(&player("1"), "a");
    world.running(&dust("1"), "a");
    let elsewhere = world.running(&room("3"), "b");
    world.time_ms = 7_000;
    let epoch = world.expire("a");
    for life in [&safe, &starting, &strict, &own] {
        assert_eq!(world.holds(&life.0), [(life.1, epoch)]);
    }
    assert!(!world.is_held(&elsewhere.0) && !world.is_held(&dust("1")));
    assert_eq!(world.registry.held_counts(epoch), (3, 1));
    let types: Vec<_> = world.registry.strict_types(epoch).into_iter().collect();
    assert_eq!(types, [&strict.0.type_name]);
    let lost: Vec<_> = world.registry.lost().collect();
    let [(of, lost)] = lost[..] else {
        panic!("{lost:?}");
    };
    assert_eq!(
        (of, lost.lost_ms, lost.kill_bound_ms),
        (epoch, 7_000, 1_000)
    );
    assert_eq!((lost.name.as_str(), &*lost.address), ("a", "a:7000"));
    assert_eq!(*lost.labels, [("zone".to_owned(), "a".to_owned())]);
    assert_eq!(world.registry.losses_ms().collect::<Vec<_>>(), [7_000]);
    // One that the node registered itself is forgotten with it, and no node gets its key yet.
    assert!(world.registry.process(&own.0).is_none());
    assert!(matches!(world.set(&own.0, "b"), Outcome::Held(_)));
    assert_eq!(world.record(&starting.0).state, ProcessState::Pending);
}

#[test]
fn an_expiry_of_another_session_changes_nothing() {
    let mut world = World::new();
    let first = world.up("a");
    let second = world.register(comer("a", 2)).0;
    world.running(&room("1"), "a");
    let digest = world.registry.digest();
    let name = node("a");
    let outcome = world.apply(Command::Expire { name, epoch: first });
    let current = second.0;
    let what = "node epoch".to_owned();
    assert_eq!(*rejection(&outcome), Rejection::Fenced { what, current });
    assert!(world.events.is_empty());
    assert_ne!(world.registry.digest(), digest, "but for the index");
    assert_eq!(world.record(&room("1")).state, ProcessState::Running);
}

#[test]
fn the_kill_bound_frees_what_needs_no_proof() {
    let mut world = World::new();
    world.up("a");
    world.up("b");
    let safe = world.running(&room("1"), "a");
    let strict = world.running(&vault("1"), "a");
    let epoch = world.expire("a");
    world.kill_bound_passed(epoch);
    assert_eq!(world.freed(), from_ref(&safe.0));
    assert!(matches!(world.reassign(&safe, "b"), Outcome::Reserved(_)));
    assert_eq!(world.reassign(&strict, "b"), Outcome::Stale(Stale::Held));
    assert_eq!(world.registry.held_counts(epoch), (0, 1));
    assert!(world.registry.lost_session(epoch).is_some());
    world.kill_bound_passed(epoch);
    assert_eq!(world.freed(), []);
    assert!(matches!(
        world.confirm_dead("a", Some(epoch)),
        Outcome::Done(_)
    ));
    assert_eq!(world.freed(), from_ref(&strict.0));
    assert!(world.registry.lost_session(epoch).is_none());
    assert_eq!(world.registry.holding().count(), 0);
    assert!(matches!(world.reassign(&strict, "b"), Outcome::Reserved(_)));
}

#[test]
fn a_kill_bound_of_a_session_that_lives_frees_nothing() {
    let mut world = World::new();
    let epoch = world.up("a");
    let life = world.running(&room("1"), "a");
    world.del(&life.0, None, false);
    for epoch in [epoch, NodeEpoch(99)] {
        world.kill_bound_passed(epoch);
        assert_eq!(world.freed(), []);
    }
    assert!(world.is_held(&life.0));
}

#[test]
fn stops_that_were_not_answered_are_lost_with_their_node() {
    let mut world = World::new();
    world.up("a");
    let life = world.own(&player("1"), "a");
    world.del(&life.0, None, false);
    let strict = world.running(&vault("1"), "a");
    world.del(&strict.0, None, false);
    let again = world.own(&player("1"), "a");
    // Nothing but the lives that are over already, and one beside such a one.
    let epoch = world.expire("a");
    let both = [(life.1, epoch), (again.1, epoch)];
    assert_eq!(world.holds(&life.0), both);
    assert_eq!(world.registry.held_counts(epoch), (2, 1));
    // An answer that was under way frees as ever.
    world.released(&[&life]);
    assert_eq!(world.freed(), []);
    world.kill_bound_passed(epoch);
    assert_eq!(world.freed(), [life.0]);
    assert!(world.is_held(&strict.0));
}

#[test]
fn a_node_without_anything_is_lost_without_a_trace() {
    let mut world = World::new();
    world.up("a");
    world.expire("a");
    assert_eq!(world.registry.lost().count(), 0);
    assert_eq!(world.registry.losses_ms().len(), 1, "the breaker counts it");
}

#[test]
fn a_node_that_leaves_holds_nothing() {
    let mut world = World::new();
    world.up("a");
    world.up("b");
    let deleted = world.running(&vault("1"), "a");
    world.del(&deleted.0, None, false);
    let life = world.running(&room("1"), "a");
    let (name, epoch) = (node("a"), world.epoch("a"));
    world.done(Command::DeregisterNode { name, epoch });
    assert_eq!(world.freed(), [deleted.0]);
    assert_eq!(world.registry.held(), 0);
    assert_eq!(world.registry.losses_ms().len(), 0);
    assert!(matches!(world.reassign(&life, "b"), Outcome::Reserved(_)));
}

#[test]
fn a_live_node_that_is_confirmed_dead_ends_at_once() {
    let mut world = World::new();
    let epoch = world.up("a");
    world.up("b");
    let life = world.running(&vault("1"), "a");
    let deleted = world.running(&vault("2"), "a");
    world.del(&deleted.0, None, false);
    assert!(matches!(world.confirm_dead("a", None), Outcome::Done(_)));
    assert!(world.events.contains(&Event::NodeDown(node("a"), epoch)));
    assert_eq!(world.freed(), [deleted.0]);
    assert_eq!(world.registry.lost().count(), 0);
    assert_eq!(world.registry.losses_ms().len(), 0);
    assert!(matches!(world.reassign(&life, "b"), Outcome::Reserved(_)));
}

#[test]
fn only_the_session_that_is_named_is_confirmed_dead() {
    let mut world = World::new();
    let live = world.up("a");
    let life = world.running(&vault("1"), "a");
    let other = NodeEpoch(live.0 + 1);
    for (name, epoch) in [("a", Some(other)), ("nobody", None), ("nobody", Some(live))] {
        let outcome = world.confirm_dead(name, epoch);
        assert!(matches!(rejection(&outcome), Rejection::NotFound(_)));
        assert_eq!(world.record(&life.0).state, ProcessState::Running);
    }
    world.expire("a");
    let outcome = world.confirm_dead("a", Some(other));
    assert!(matches!(rejection(&outcome), Rejection::NotFound(_)));
    assert!(world.is_held(&life.0));
    // The name is enough when no session is named.
    assert!(matches!(world.confirm_dead("a", None), Outcome::Done(_)));
    assert!(!world.is_held(&life.0));
    let outcome = world.confirm_dead("a", None);
    assert!(matches!(rejection(&outcome), Rejection::NotFound(_)));
}

#[test]
fn proof_for_some_types_frees_only_those() {
    let mut world = World::new();
    world.put_type(crate::world::spec(
        "bank",
        maitred_protocol::Restart::Strict,
    ));
    world.up("a");
    let bank = maitred_protocol::ProcessKey::new("bank", "1").unwrap();
    let (vault, bank) = (world.running(&vault("1"), "a"), world.running(&bank, "a"));
    let safe = world.running(&room("1"), "a");
    let epoch = world.expire("a");
    let outcome = world.confirm_dead_of("a", Some(epoch), &["bank"]);
    assert!(matches!(outcome, Outcome::Done(_)));
    assert_eq!(world.freed(), [bank.0]);
    assert!(world.is_held(&vault.0) && world.is_held(&safe.0));
    let types: Vec<_> = world.registry.strict_types(epoch).into_iter().collect();
    assert_eq!(types, [&vault.0.type_name]);
}

#[test]
fn proof_for_some_types_does_not_end_a_session_that_lives() {
    let mut world = World::new();
    let epoch = world.up("a");
    let life = world.running(&vault("1"), "a");
    let outcome = world.confirm_dead_of("a", Some(epoch), &["vault"]);
    assert!(matches!(rejection(&outcome), Rejection::NotFound(_)));
    assert_eq!(world.record(&life.0).state, ProcessState::Running);
}

#[test]
fn what_is_freed_is_made_pending_or_removed_first() {
    let mut world = World::new();
    world.up("a");
    let life = world.running(&vault("1"), "a");
    world.expire("a");
    let pending = world.events.iter().any(
        |event| matches!(event, Event::Process(Change::Pending, record) if record.key() == life.0),
    );
    assert!(pending);
}

#[test]
fn a_kill_bound_only_grows_and_is_the_one_that_is_waited_for() {
    let mut world = World::new();
    let epoch = world.up("a");
    world.running(&room("1"), "a");
    let raise = |epoch, kill_bound_ms| Command::RaiseKillBound {
        name: node("a"),
        epoch,
        kill_bound_ms,
    };
    world.done(raise(epoch, 4_000));
    assert_eq!(world.events, [Event::NodeChanged(node("a"))]);
    let revision = world.registry.node(&node("a")).unwrap().revision;
    assert_eq!(revision.0, world.registry.applied());
    world.done(raise(epoch, 2_000));
    assert_eq!(world.events, []);
    assert_eq!(world.registry.node(&node("a")).unwrap().revision, revision);
    let outcome = world.apply(raise(NodeEpoch(epoch.0 + 1), 9_000));
    assert!(matches!(rejection(&outcome), Rejection::Fenced { .. }));
    world.expire("a");
    let lost = world.registry.lost_session(epoch).unwrap();
    assert_eq!(lost.kill_bound_ms, 4_000);
}

#[test]
fn what_was_measured_of_a_process_outlives_its_session() {
    let mut world = World::new();
    let epoch = world.up("a");
    world.done(Command::RaiseKillBound {
        name: node("a"),
        epoch,
        kill_bound_ms: 4_000,
    });
    let mut again = comer("a", 1);
    again.last_epoch = Some(epoch);
    world.register(again);
    let bound = |world: &World| world.registry.node(&node("a")).unwrap().kill_bound_ms;
    assert_eq!(bound(&world), 4_000);
    // Another process may be another program.
    world.register(comer("a", 2));
    assert_eq!(bound(&world), 1_000);
}

#[test]
fn losses_are_remembered_up_to_a_limit() {
    let mut world = World::new();
    for n in 0..1_030 {
        world.time_ms = 10_000 + n;
        let name = format!("n{n}");
        world.up(&name);
        world.expire(&name);
    }
    let losses: Vec<_> = world.registry.losses_ms().collect();
    assert_eq!(losses.len(), 1_024);
    assert_eq!((losses[0], losses[1_023]), (10_006, 11_029));
}

#[test]
fn a_node_that_comes_and_goes_is_one_loss_and_none_while_it_is_there() {
    let mut world = World::new();
    for n in 0..5 {
        world.time_ms = 10_000 + n;
        world.up("a");
        assert_eq!(world.registry.losses_ms().len(), 0);
        world.expire("a");
        assert_eq!(world.registry.losses_ms().collect::<Vec<_>>(), [10_000 + n]);
    }
}

//! Names that register again: after a loss, beside another process, after a restore.

use maitred_protocol::{Incarnation, NodeEpoch, ProcessState, Rejection, Restart, Verdict};
use maitred_registry::{Command, Outcome, Stale};

use crate::world::{
    Life, World, comer, dust, inventory, node, player, rejection, room, spec, vault,
};

fn back(instance: u64, last: Option<NodeEpoch>, lives: &[&Life]) -> maitred_protocol::RegisterNode {
    let mut comer = comer("a", instance);
    comer.last_epoch = last;
    comer.inventory = inventory(lives);
    comer
}

#[test]
fn a_name_that_registers_anew_proves_that_its_lost_session_is_over() {
    let mut world = World::new();
    world.up("a");
    let (safe, strict) = (
        world.running(&room("1"), "a"),
        world.running(&vault("1"), "a"),
    );
    let lost = world.expire("a");
    let (_, verdicts) = world.register(back(2, None, &[]));
    assert_eq!(verdicts, []);
    assert_eq!(world.freed(), [safe.0, strict.0]);
    assert!(world.registry.lost_session(lost).is_none());
    assert_eq!(world.registry.held(), 0);
}

#[test]
fn what_a_node_that_was_lost_still_runs_is_stopped_before_its_key_is_free() {
    let mut world = World::new();
    world.up("a");
    world.up("b");
    let (safe, strict) = (
        world.running(&room("1"), "a"),
        world.running(&vault("1"), "a"),
    );
    let gone = world.running(&room("2"), "a");
    let own = world.own(&player("1"), "a");
    let lost = world.expire("a");
    let named = [&own, &safe, &strict];
    let (epoch, verdicts) = world.register(back(1, Some(lost), &named));
    assert_eq!(verdicts, [Verdict::Stop; 3]);
    assert_eq!(world.freed(), std::slice::from_ref(&gone.0));
    let lives = [own, safe.clone(), strict.clone()];
    let told: Vec<_> = lives.iter().map(|life| (epoch, life.clone())).collect();
    assert_eq!(world.lingering(), told);
    assert_eq!(world.holds(&safe.0), [(safe.1, epoch)]);
    assert_eq!(world.registry.lost().count(), 0);
    // The kill bound of the lost session is nothing to the new one.
    world.kill_bound_passed(lost);
    world.kill_bound_passed(epoch);
    assert_eq!(world.reassign(&safe, "b"), Outcome::Stale(Stale::Held));
    world.released(&[&safe]);
    assert!(matches!(world.reassign(&safe, "b"), Outcome::Reserved(_)));
    // As strict as it was.
    world.expire("a");
    world.kill_bound_passed(epoch);
    assert!(world.is_held(&strict.0) && !world.is_held(&player("1")));
}

#[test]
fn what_a_node_names_though_its_hold_is_over_is_held_again() {
    let mut world = World::new();
    world.up("a");
    world.up("b");
    let (waiting, forgotten) = (world.running(&room("1"), "a"), world.own(&player("1"), "a"));
    let (moved, fast) = (
        world.running(&room("2"), "a"),
        world.running(&dust("1"), "a"),
    );
    let lost = world.expire("a");
    // The node broke its promise: the bound has passed, and it still runs them.
    world.kill_bound_passed(lost);
    assert!(matches!(world.reassign(&moved, "b"), Outcome::Reserved(_)));
    let named = [&waiting, &forgotten, &moved, &fast];
    let (epoch, verdicts) = world.register(back(1, Some(lost), &named));
    assert_eq!(verdicts, [Verdict::Stop; 4]);
    let told = [waiting.clone(), forgotten.clone(), moved.clone()];
    let told: Vec<_> = told.into_iter().map(|life| (epoch, life)).collect();
    assert_eq!(world.lingering(), told);
    assert_eq!(world.reassign(&waiting, "b"), Outcome::Stale(Stale::Held));
    assert!(matches!(world.set(&forgotten.0, "b"), Outcome::Held(_)));
    assert!(!world.is_held(&fast.0));
    world.released(&[&waiting, &forgotten, &moved]);
    assert_eq!(world.registry.held(), 0);
    assert!(matches!(
        world.reassign(&waiting, "b"),
        Outcome::Reserved(_)
    ));
}

#[test]
fn a_life_that_is_another_nodes_is_not_held_by_whoever_names_it() {
    let mut world = World::new();
    world.up("b");
    let life = world.running(&room("1"), "b");
    let yet_to_come = (room("2"), Incarnation(1_000));
    let (_, verdicts) = world.register(back(1, None, &[&life, &yet_to_come]));
    assert_eq!(verdicts, [Verdict::Stop; 2]);
    assert_eq!(world.registry.held(), 0);
    // Its own node's hold is its own.
    let epoch = world.expire("b");
    assert_eq!(world.holds(&life.0), [(life.1, epoch)]);
}

#[test]
fn a_node_keeps_what_it_still_runs_and_loses_what_it_does_not() {
    let mut world = World::new();
    let first = world.up("a");
    let (kept, starting) = (
        world.running(&room("1"), "a"),
        world.starting(&room("2"), "a"),
    );
    let (gone, strict) = (
        world.running(&room("3"), "a"),
        world.running(&vault("1"), "a"),
    );
    // Named twice is no more than named once.
    let named = [&kept, &kept, &starting];
    let (epoch, verdicts) = world.register(back(1, Some(first), &named));
    assert_eq!(verdicts, [Verdict::Keep; 3]);
    assert_eq!(world.registry.held(), 0, "it says that the others are over");
    for life in [&kept, &starting] {
        assert_eq!(world.record(&life.0).epoch, epoch);
        assert_eq!(world.record(&life.0).incarnation, life.1);
    }
    for life in [&gone, &strict] {
        assert_eq!(world.record(&life.0).state, ProcessState::Pending);
    }
    assert_eq!(world.registry.node(&node("a")).unwrap().processes(), 2);
}

#[test]
fn stops_that_were_not_answered_go_on_in_the_new_session() {
    let mut world = World::new();
    let first = world.up("a");
    let key = player("1");
    let (ending, other) = (world.own(&key, "a"), world.own(&player("2"), "a"));
    world.del(&key, None, false);
    world.del(&other.0, None, false);
    let newer = world.own(&key, "a");
    let (epoch, verdicts) = world.register(back(1, Some(first), &[&newer, &ending, &ending]));
    assert_eq!(verdicts, [Verdict::Keep, Verdict::Stop, Verdict::Stop]);
    assert_eq!(world.lingering(), [(epoch, ending.clone())]);
    assert_eq!(world.freed(), [other.0]);
    assert_eq!(world.holds(&key), [(ending.1, epoch)]);
    // And on, into the next.
    let (epoch, _) = world.register(back(1, Some(epoch), &[&newer, &ending]));
    assert_eq!(world.holds(&key), [(ending.1, epoch)]);
    let (_, _) = world.register(back(1, Some(epoch), &[&newer]));
    assert_eq!(world.freed(), [key]);
}

#[test]
fn a_type_that_has_become_fast_has_nothing_new_held() {
    let mut world = World::new();
    world.up("a");
    let life = world.running(&room("1"), "a");
    let lost = world.expire("a");
    world.kill_bound_passed(lost);
    world.put_type(spec("room", Restart::Fast));
    let (_, verdicts) = world.register(back(1, Some(lost), &[&life]));
    assert_eq!(verdicts, [Verdict::Stop]);
    assert!(!world.is_held(&life.0));
}

#[test]
fn the_older_of_two_processes_of_a_name_gives_way() {
    let mut world = World::new();
    let first = world.register(comer("a", 1)).0;
    let second = world.register(comer("a", 2)).0;
    let digest = |world: &World| world.registry.digest();
    let life = world.running(&room("1"), "a");
    let before = world.registry.node(&node("a")).unwrap().facts.clone();
    let outcome = world.apply(Command::RegisterNode(Box::new(back(
        1,
        Some(first),
        &[&life],
    ))));
    let (name, epoch) = (node("a"), second);
    assert_eq!(*rejection(&outcome), Rejection::Superseded { name, epoch });
    assert!(world.events.is_empty());
    assert_eq!(world.registry.node(&node("a")).unwrap().facts, before);
    assert_eq!(world.record(&life.0).epoch, second);
    assert_eq!(world.reloaded().digest(), digest(&world));
    // The newer one may register again, even when it never heard of its session.
    let third = world.register(back(2, None, &[&life])).0;
    let fourth = world.register(back(2, Some(second), &[&life])).0;
    assert!(third < fourth);
    assert_eq!(world.record(&life.0).epoch, fourth);
    // A process that begins is newer than all that are there.
    world.register(back(3, None, &[]));
    let outcome = world.apply(Command::RegisterNode(Box::new(back(2, Some(fourth), &[]))));
    assert!(matches!(rejection(&outcome), Rejection::Superseded { .. }));
}

#[test]
fn the_older_process_of_a_name_proves_nothing_of_the_newer() {
    let mut world = World::new();
    let first = world.register(comer("a", 1)).0;
    world.register(comer("a", 2));
    let (safe, strict) = (
        world.running(&room("1"), "a"),
        world.running(&vault("1"), "a"),
    );
    let lost = world.expire("a");
    // The newer one is cut off. That the older one is there again does not mean that it is dead.
    let older = world.register(back(1, Some(first), &[])).0;
    assert_eq!(world.freed(), []);
    assert_eq!(world.holds(&strict.0), [(strict.1, lost)]);
    assert!(world.registry.lost_session(lost).is_some());
    world.kill_bound_passed(lost);
    assert_eq!(world.freed(), [safe.0]);
    // Nor does it mean that when it registers again; what a process that begins says does.
    world.register(back(1, Some(older), &[]));
    assert_eq!(world.freed(), []);
    world.register(back(3, None, &[]));
    assert_eq!(world.freed(), [strict.0]);
}

#[test]
fn a_process_whose_session_was_lost_before_it_heard_of_it_proves_it_over() {
    let mut world = World::new();
    world.register(comer("a", 1));
    let life = world.starting(&vault("1"), "a");
    world.expire("a");
    world.register(back(1, Some(NodeEpoch(1)), &[]));
    assert_eq!(world.freed(), [life.0]);
}

fn restored() -> (World, NodeEpoch, Life) {
    let mut world = World::new();
    let epoch = world.up("a");
    let life = world.running(&room("1"), "a");
    world.registry.rebase(1_000_000).unwrap();
    (world, epoch, life)
}

#[test]
fn lives_that_began_in_a_lost_history_may_be_adopted() {
    let (mut world, _, known) = restored();
    world.up("b");
    let taken = world.own(&player("taken"), "b");
    let held = world.own(&player("held"), "b");
    world.del(&held.0, None, false);
    let lost = NodeEpoch(5_000);
    let at = |key| (key, Incarnation(6_000));
    let (free, taken, held) = (at(player("1")), at(taken.0), at(held.0));
    let older = (player("old"), Incarnation(known.1.0));
    let newer = (player("new"), Incarnation(1_000_000));
    let named = [&known, &free, &taken, &held, &older, &newer];
    let (epoch, verdicts) = world.register(back(1, Some(lost), &named));
    let (keep, stop) = (Verdict::Keep, Verdict::Stop);
    assert_eq!(verdicts, [keep, Verdict::Adopt, stop, stop, stop, stop]);
    assert!(!world.is_held(&free.0));
    let life = world.own(&free.0, "a");
    assert!(life.1.0 > 1_000_000);
    assert_eq!(world.record(&free.0).epoch, epoch);
}

#[test]
fn of_two_lives_of_a_key_the_newer_one_is_adopted() {
    let (mut world, _, _) = restored();
    let (old, new) = (
        (player("1"), Incarnation(600)),
        (player("1"), Incarnation(700)),
    );
    let (epoch, verdicts) = world.register(back(1, None, &[&old, &new, &old]));
    let stop = Verdict::Stop;
    assert_eq!(verdicts, [stop, Verdict::Adopt, stop]);
    assert_eq!(world.holds(&old.0), [(old.1, epoch)]);
    world.own(&new.0, "a");
    world.released(&[&old]);
}

#[test]
fn a_life_that_a_restore_has_forgotten_takes_the_place_of_the_one_that_it_has_not() {
    let mut world = World::new();
    world.up("a");
    let old = world.own(&player("1"), "a");
    let wanted = world.running(&room("1"), "a");
    world.registry.rebase(1_000_000).unwrap();
    let new = (old.0.clone(), Incarnation(600));
    let moved = (wanted.0.clone(), Incarnation(700));
    let (epoch, verdicts) = world.register(back(2, None, &[&new, &moved]));
    assert_eq!(verdicts, [Verdict::Adopt, Verdict::Stop]);
    assert!(world.registry.process(&old.0).is_none());
    world.own(&new.0, "a");
    // That one is wanted, and gets a node anew once it has been stopped.
    assert_eq!(world.record(&wanted.0).state, ProcessState::Pending);
    assert_eq!(world.holds(&wanted.0), [(moved.1, epoch)]);
}

#[test]
fn nothing_is_forgotten_without_a_restore() {
    let mut world = World::new();
    let life = (player("1"), Incarnation(3));
    let (_, verdicts) = world.register(back(1, None, &[&life]));
    assert_eq!(verdicts, [Verdict::Stop]);
    let applied = world.registry.applied();
    world.registry.rebase(500).unwrap();
    let forgotten = |world: &World, index| world.registry.is_forgotten(index);
    assert!(!forgotten(&world, applied) && forgotten(&world, applied + 1));
    assert!(forgotten(&world, 499) && !forgotten(&world, 501));
}

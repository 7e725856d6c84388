//! Processes that end by themselves: forgotten, or pending until their callback was asked; and what is
//! counted of it.

use maitred_protocol::{Digest, Hook, ModuleKind, ModuleName, ProcessState};
use maitred_registry::{Command, EndedBy, Ends, Outcome, PushModule};

use crate::world::{Life, World, node, player, room};

fn exits(world: &mut World, (key, incarnation): &Life, ask: bool) -> Outcome {
    world.apply(Command::Exited {
        key: key.clone(),
        incarnation: *incarnation,
        reason: "crash".to_owned(),
        ask,
    })
}

/// Has a pending process run on a node, and says which life that is.
fn again(world: &mut World, life: &Life, name: &str) -> Life {
    let outcome = world.reassign(life, name);
    let Outcome::Reserved(record) = outcome else {
        panic!("{outcome:?}");
    };
    let life = (life.0.clone(), record.incarnation);
    world.confirm(&life);
    life
}

fn ends(world: &World, life: &Life) -> Ends {
    world.record(&life.0).spec.as_ref().unwrap().ends
}

#[test]
fn an_exit_is_forgotten_or_waits_for_advice_and_holds_nothing_either_way() {
    for ask in [false, true] {
        let mut world = World::new();
        world.up("a");
        let life = world.running(&room("1"), "a");
        assert!(matches!(exits(&mut world, &life, ask), Outcome::Done(_)));
        assert!(!world.is_held(&life.0));
        assert_eq!(world.ended(), std::slice::from_ref(&life));
        assert_eq!(world.registry.node(&node("a")).unwrap().used, 0);
        let record = world.registry.process(&life.0);
        assert_eq!(record.is_some(), ask);
        if let Some(record) = record {
            assert_eq!(record.state, ProcessState::Pending);
            assert_eq!(record.ended_by(), Some(EndedBy::Exit));
            assert_eq!(record.failures()[0].cause, "crash");
        }
    }
}

#[test]
fn what_is_told_twice_or_another_way_too_changes_nothing() {
    let mut world = World::new();
    world.up("a");
    let life = world.running(&room("1"), "a");
    exits(&mut world, &life, true);
    let before = world.record(&life.0).clone();
    assert!(matches!(exits(&mut world, &life, true), Outcome::Done(_)));
    assert!(matches!(exits(&mut world, &life, false), Outcome::Done(_)));
    let outcome = world.del(&life.0, Some(life.1), true);
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    assert!(world.events.is_empty());
    assert_eq!(*world.record(&life.0), before);
    // Whoever wants it gone has it gone.
    world.del(&life.0, None, false);
    assert!(world.registry.process(&life.0).is_none());
    let none = exits(&mut world, &life, true);
    assert!(matches!(none, Outcome::Rejected(_)), "{none:?}");
}

#[test]
fn creates_under_way_older_lives_and_a_nodes_own_processes_are_not_asked_about() {
    let mut world = World::new();
    world.up("a");
    let starting = world.starting(&room("1"), "a");
    exits(&mut world, &starting, true);
    assert!(world.registry.process(&starting.0).is_none());
    let own = world.own(&player("1"), "a");
    exits(&mut world, &own, true);
    assert!(world.registry.process(&own.0).is_none());
    let old = world.running(&room("2"), "a");
    exits(&mut world, &old, true);
    let new = again(&mut world, &old, "a");
    let fenced = exits(&mut world, &old, true);
    assert!(matches!(fenced, Outcome::Rejected(_)), "{fenced:?}");
    assert_eq!(world.record(&new.0).state, ProcessState::Running);
}

#[test]
fn ends_alike_are_counted_until_one_comes_after_more_than_a_minute() {
    let mut world = World::new();
    for name in ["a", "b"] {
        world.up(name);
    }
    let mut life = world.running(&room("1"), "a");
    for (lasted_ms, times) in [(5, 1), (60_000, 2), (60_001, 1), (0, 2)] {
        world.time_ms += lasted_ms;
        exits(&mut world, &life, true);
        let now = ends(&world, &life);
        assert_eq!((now.times, now.open), (times, true), "{lasted_ms}");
        assert_eq!(world.time_ms - now.ran_ms, lasted_ms);
        life = again(&mut world, &life, "a");
        assert!(!ends(&world, &life).open);
    }
    // A lost node is another kind of end.
    world.expire("a");
    let lost = ends(&world, &life);
    assert_eq!((lost.by, lost.times), (Some(EndedBy::NodeLost), 1));
    world.confirm_dead("a", None);
    let life = again(&mut world, &life, "b");
    exits(&mut world, &life, true);
    assert_eq!(ends(&world, &life).times, 1);
}

#[test]
fn it_is_asked_once_an_end_however_often_the_next_start_fails_and_not_of_a_move() {
    let mut world = World::new();
    world.up("a");
    let life = world.running(&room("1"), "a");
    exits(&mut world, &life, true);
    let Outcome::Reserved(record) = world.reassign(&life, "a") else {
        panic!("{:?}", world.events);
    };
    let next = (life.0.clone(), record.incarnation);
    world.unplace(&next, true);
    assert_eq!(world.record(&life.0).ended_by(), None);
    assert_eq!(ends(&world, &next).times, 1);
    let runs = again(&mut world, &next, "a");
    world.unplace(&runs, true);
    assert_eq!(world.record(&life.0).ended_by(), None);
    assert_eq!(ends(&world, &runs).times, 0, "it was moved");
}

#[test]
fn a_record_that_waits_for_advice_comes_back_from_a_snapshot() {
    let mut world = World::new();
    world.up("a");
    for id in ["1", "2"] {
        let life = world.running(&room(id), "a");
        exits(&mut world, &life, true);
    }
    let after = world.reloaded();
    assert_eq!(after.digest(), world.registry.digest());
    let record = after.process(&room("2")).unwrap();
    assert_eq!(record.ended_by(), Some(EndedBy::Exit));
    assert_eq!(record.spec, world.record(&room("2")).spec);
}

#[test]
fn only_hooks_of_the_active_version_are_wanted() {
    let mut world = World::new();
    let name = ModuleName::new("start").unwrap();
    let wants = |world: &World, hook| world.registry.callback_wants(&name, hook);
    for (version, hooks) in [(1, vec![Hook::Exit]), (2, vec![Hook::Compensate])] {
        world.apply(Command::PushModule(Box::new(PushModule {
            name: name.clone(),
            kind: ModuleKind::Callback,
            digest: Digest([version as u8; 32]),
            bytes: 1,
            title: "start 1".to_owned(),
            features: Vec::new(),
            world: "callback".to_owned(),
            abi: "0.2.0".to_owned(),
            hooks,
            signature: None,
            is_trusted: false,
        })));
        assert!(!wants(&world, Hook::Exit) || version == 2);
        if version == 1 {
            world.apply(Command::ActivateModule {
                name: name.clone(),
                version,
                config: None,
                percent: 100,
                types: Vec::new(),
                guard: String::new(),
            });
            assert!(wants(&world, Hook::Exit));
        }
    }
    assert!(wants(&world, Hook::Exit) && !wants(&world, Hook::Compensate));
    assert!(!wants(&world, Hook::NodeLost));
}

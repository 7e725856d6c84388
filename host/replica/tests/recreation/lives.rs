//! Lives that may still go on although their process is pending: who may say that they do not.

use maitred_protocol::{ModuleName, Restart, TypeSpec};

use crate::world::{World, key, spec};

fn strict(fence: Option<&str>) -> TypeSpec {
    TypeSpec {
        restart: Restart::Strict,
        fence: fence.map(|name| ModuleName::new(name).unwrap()),
        ..spec("player")
    }
}

#[test]
fn a_process_of_the_same_name_says_nothing_about_the_life_of_another() {
    let mut world = World::new(|_| {});
    world.put_type(strict(None));
    world.join("a", 9);
    let first = world.epoch("a");
    world.join_as("a", 9, (2, None));
    world.fill(1..2);
    world.lose(&["a"]);
    assert!(world.replica().registry().is_held(&key(1)));
    // The one that was superseded, and has not heard of it: the other may run on.
    world.join_as("a", 9, (1, Some(first)));
    assert!(world.replica().registry().is_held(&key(1)));
    world.restart();
    assert!(world.replica().registry().is_held(&key(1)));
    world.delete(&key(1));
    assert!(world.replica().registry().is_held(&key(1)));
    // A third that begins is proof.
    world.join_as("a", 9, (3, None));
    assert!(!world.replica().registry().is_held(&key(1)));
}

#[test]
fn a_fence_that_a_type_is_given_late_is_asked_at_once() {
    let mut world = World::new(|_| {});
    world.put_type(strict(None));
    world.join("a", 9);
    world.fill(1..2);
    world.lose(&["a"]);
    assert!(world.examined.is_empty());
    world.put_type(strict(Some("witness")));
    assert_eq!(world.examined, ["witness"]);
    // It is being asked already.
    world.put_type(strict(Some("witness")));
    assert_eq!(world.examined, ["witness"]);
    world.put_type(strict(Some("oracle")));
    assert_eq!(world.examined, ["witness", "oracle"]);
}

//! The state as a whole: snapshots, digests, rebasing, sessions that close, and levels of entries.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

use std::convert::Infallible;

use maitred_protocol::{
    ClientId, Drain, HostName, NodeEpoch, NodeName, ProcessKey, RegisterNode, Rejection, RequestId,
    Revision, SetProcess, Switch, TypeName, TypeSpec,
};
use maitred_registry::{Command, Entry, EntryError, Loader, Outcome, RebaseError, Registry};

const CLIENT: ClientId = ClientId(1);

fn entry(sequence: u64, command: Command) -> Entry {
    let client = CLIENT;
    Entry {
        time_ms: 1_000,
        request: (sequence > 0).then_some(RequestId { client, sequence }),
        command,
    }
}

/// Applies a command at the next index, as a request when `sequence` is not 0.
fn apply(registry: &mut Registry, sequence: u64, command: Command) -> Outcome {
    let index = registry.applied() + 1;
    registry.apply(index, entry(sequence, command), &mut Vec::new())
}

fn put(host: u64, name: &str, instance: u64, replaces: Option<u64>) -> Command {
    Command::PutMember {
        host,
        name: HostName::new(name).unwrap(),
        address: format!("{name}:1"),
        instance,
        replaces,
    }
}

fn set(id: u64) -> Command {
    Command::SetProcess(Box::new(SetProcess {
        key: ProcessKey::new("player", &id.to_string()).unwrap(),
        node: NodeName::new("eu-1").unwrap(),
        epoch: NodeEpoch(2),
        pid: format!("pid-{id}"),
        share: vec![7; 3],
        incarnation: None,
    }))
}

/// A state with a session, a node, so many processes, two members and level 2.
fn filled(processes: u64) -> Registry {
    let mut registry = Registry::founded(&[1]);
    apply(&mut registry, 0, Command::OpenSession);
    let register = RegisterNode {
        name: NodeName::new("eu-1").unwrap(),
        types: Vec::new(),
        address: "10.0.0.1:7000".to_owned(),
        labels: Vec::new(),
        capacity: 1_000_000,
        share: Vec::new(),
        ttl_ms: 3_000,
        inventory: Vec::new(),
        kill_bound_ms: 1_000,
        instance: 1,
        last_epoch: None,
    };
    apply(&mut registry, 0, Command::RegisterNode(Box::new(register)));
    apply(&mut registry, 0, put(1, "a", 11, None));
    apply(&mut registry, 1, put(0, "a", 22, Some(1)));
    apply(&mut registry, 0, Command::SetLevel(2));
    for id in 1..=processes {
        let outcome = apply(&mut registry, 1 + id, set(id));
        assert!(matches!(outcome, Outcome::Process(_)), "{outcome:?}");
    }
    registry
}

fn chunks(registry: &Registry) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    let encoded = registry.snapshot().encode(|chunk| {
        chunks.push(chunk);
        Ok::<(), Infallible>(())
    });
    encoded.unwrap();
    chunks
}

fn reloaded(registry: &Registry) -> Registry {
    let mut loader = Loader::new();
    for chunk in chunks(registry) {
        loader.chunk(&chunk).unwrap();
    }
    loader.finish().unwrap()
}

#[test]
fn members_and_level_come_back_from_a_snapshot() {
    let registry = filled(3);
    let loaded = reloaded(&registry);
    assert_eq!(loaded.members().len(), 2);
    assert_eq!(loaded.members(), registry.members());
    assert_eq!(loaded.level(), 2);
    assert_eq!(loaded.digest(), registry.digest());
}

#[test]
fn a_remembered_join_is_still_remembered_after_a_snapshot() {
    let mut loaded = reloaded(&filled(0));
    let before = loaded.members().clone();
    // The same request: whatever it asks for now, it gets the number of then.
    let again = apply(&mut loaded, 1, put(0, "b", 33, None));
    assert_eq!(again, Outcome::Member(4));
    assert_eq!(*loaded.members(), before);
}

#[test]
fn a_snapshot_from_before_there_were_members_has_none_and_level_1() {
    let registry = Registry::new();
    let plain = chunks(&registry).len();
    let loaded = reloaded(&registry);
    assert!(loaded.members().is_empty());
    assert_eq!(loaded.level(), 1);
    assert_eq!(loaded.digest(), registry.digest());
    let mut with = Registry::founded(&[1]);
    apply(&mut with, 0, put(1, "a", 11, None));
    assert_eq!(chunks(&with).len(), plain + 1, "the members");
    apply(&mut with, 0, Command::SetLevel(2));
    assert_eq!(chunks(&with).len(), plain + 2, "and the level");
}

#[test]
fn a_digest_outlives_a_snapshot_and_what_is_applied_after_it() {
    let mut registry = filled(300);
    // Removed ones leave holes in the table that a loaded one does not have.
    for id in (1..=300).step_by(3) {
        let key = ProcessKey::new("player", &id.to_string()).unwrap();
        let incarnation = None;
        apply(
            &mut registry,
            1_000 + id,
            Command::DelProcess {
                key,
                incarnation,
                ended: false,
            },
        );
    }
    let mut loaded = reloaded(&registry);
    assert_eq!(loaded.digest(), registry.digest());
    for id in [1, 500, 20] {
        for registry in [&mut registry, &mut loaded] {
            apply(registry, 2_000 + id, set(id));
        }
        assert_eq!(loaded.digest(), registry.digest());
    }
}

#[test]
fn a_digest_sees_every_part_of_the_state() {
    let spec = TypeSpec::new(TypeName::new("room").unwrap());
    let node = NodeName::new("eu-1").unwrap();
    let (epoch, other) = (NodeEpoch(2), ClientId(99));
    let suspend = |what| Command::Suspend {
        what,
        suspended: true,
    };
    let first = ProcessKey::new("player", "1").unwrap();
    let incarnation = filled(2).process(&first).map(|record| record.incarnation);
    let delete = |ended| Command::DelProcess {
        key: first.clone(),
        incarnation,
        ended,
    };
    // All at the same index, time and request: what differs is what they did.
    let commands = [
        Command::CloseSession(other),
        Command::CloseSession(CLIENT),
        Command::OpenSession,
        Command::SetLevel(3),
        Command::RemoveMember(1),
        put(0, "b", 33, None),
        put(0, "c", 33, None),
        put(0, "b", 44, None),
        put(1, "b", 11, None),
        put(0, "b", 33, Some(4)),
        put(4, "a", 22, None),
        set(1),
        set(2),
        set(3),
        Command::PutType(Box::new(spec)),
        Command::CordonNode {
            name: node.clone(),
            cordoned: true,
        },
        Command::DrainNode {
            name: node.clone(),
            drain: Some(Drain {
                deadline_ms: 60_000,
                per_second: 10,
            }),
        },
        suspend(Switch::Moves),
        suspend(Switch::Recreation),
        Command::RaiseKillBound {
            name: node.clone(),
            epoch,
            kill_bound_ms: 2_000,
        },
        delete(false),
        delete(true),
        // Both remove the node and its processes; one leaves holds, a lost session and a loss.
        Command::DeregisterNode {
            name: node.clone(),
            epoch,
        },
        Command::Expire { name: node, epoch },
    ];
    let digests: std::collections::BTreeSet<_> = commands
        .iter()
        .map(|command| {
            let mut registry = filled(2);
            apply(&mut registry, 0, command.clone());
            registry.digest()
        })
        .collect();
    // An unknown session, and a member as it is already: these two change nothing, and are one.
    assert_eq!(digests.len(), commands.len() - 1);
    let mut asked = filled(2);
    apply(&mut asked, 50, Command::CloseSession(other));
    assert!(!digests.contains(&asked.digest()), "a remembered outcome");
}

#[test]
fn rebasing_keeps_all_but_members_and_level() {
    let mut registry = filled(3);
    let applied = registry.applied();
    let key = ProcessKey::new("player", "2").unwrap();
    let record = registry.process(&key).cloned();
    assert!(record.is_some());
    registry.rebase(1_000_000).unwrap();
    assert_eq!(registry.applied(), 1_000_000);
    assert_eq!(registry.process(&key).cloned(), record);
    assert_eq!(registry.counts().running, 3);
    // Nobody who joined before belongs to it now: it is a new cluster's.
    assert_eq!(registry.members(), Registry::founded(&[1]).members());
    assert_eq!(registry.level(), 1);
    // Sessions too: a retry is still one.
    let again = apply(&mut registry, 4, set(9));
    assert!(matches!(again, Outcome::Process(of) if &*of.id == "3"));
    // What is made from now on is newer than whatever was made before.
    let outcome = apply(&mut registry, 50, set(9));
    let Outcome::Process(new) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(new.revision, Revision(1_000_002));
    assert!(new.incarnation.0 > applied);
    assert_eq!(reloaded(&registry).digest(), registry.digest());
}

#[test]
fn rebasing_never_goes_back() {
    let mut registry = filled(3);
    let (applied, digest) = (registry.applied(), registry.digest());
    for index in [0, applied - 1, applied] {
        let refused = registry.rebase(index);
        assert_eq!(refused, Err(RebaseError { applied, index }));
    }
    assert_eq!(registry.digest(), digest);
    registry.rebase(applied + 1).unwrap();
}

#[test]
fn a_closed_session_is_forgotten() {
    let mut registry = filled(1);
    let sessions = registry.sessions();
    let closed = apply(&mut registry, 0, Command::CloseSession(CLIENT));
    assert_eq!(closed, Outcome::Done(Revision(registry.applied())));
    assert_eq!(registry.sessions(), sessions - 1);
    assert_eq!(apply(&mut registry, 2, set(1)), Outcome::NoSession);
    // Closing what is closed, or never was, is done too.
    for client in [CLIENT, ClientId(77)] {
        let closed = apply(&mut registry, 0, Command::CloseSession(client));
        assert_eq!(closed, Outcome::Done(Revision(registry.applied())));
    }
    assert_eq!(registry.sessions(), sessions - 1);
}

#[test]
fn a_session_that_closes_itself_leaves_no_outcome() {
    let mut registry = filled(1);
    let closed = apply(&mut registry, 60, Command::CloseSession(CLIENT));
    assert_eq!(closed, Outcome::Done(Revision(registry.applied())));
    let again = apply(&mut registry, 60, Command::CloseSession(CLIENT));
    assert_eq!(again, Outcome::NoSession);
}

#[test]
fn an_entry_says_the_level_of_its_command() {
    let commands = [
        (Command::OpenSession, 1),
        (put(0, "b", 33, Some(1)), 1),
        (Command::RemoveMember(3), 1),
        (Command::SetLevel(2), 1),
        (Command::CloseSession(CLIENT), 2),
    ];
    for (command, level) in commands {
        assert_eq!(command.level(), level);
        let entry = entry(1, command);
        let mut bytes = entry.encode();
        assert_eq!(u16::from(bytes[0]), level);
        for level_max in 0..4 {
            let read = Entry::decode(&bytes, level_max);
            if level_max < level {
                assert_eq!(read, Err(EntryError::Version(level as u8)));
            } else {
                assert_eq!(read.unwrap(), entry);
            }
        }
        // A command does not pass for one of another level.
        bytes[0] = 3 - bytes[0];
        let read = Entry::decode(&bytes, 2);
        assert!(matches!(read, Err(EntryError::Damaged(_))), "{read:?}");
    }
    assert!(matches!(Entry::decode(&[], 2), Err(EntryError::Damaged(_))));
    let newer = Entry::decode(&[9, 1, 2, 3], 2);
    assert_eq!(newer, Err(EntryError::Version(9)));
}

#[test]
fn a_rejected_member_is_rejected_again_for_the_same_request() {
    let mut registry = filled(0);
    let first = apply(&mut registry, 5, put(0, "a", 33, None));
    let Outcome::Rejected(rejection) = &first else {
        panic!("{first:?}");
    };
    assert!(matches!(**rejection, Rejection::Conflict(_)));
    let again = apply(&mut reloaded(&registry), 5, put(0, "free", 33, None));
    assert_eq!(again, first);
}

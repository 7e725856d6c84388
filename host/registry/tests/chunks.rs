//! A snapshot's chunks stay small, whatever there is much of: what is stored or sent takes 64 MiB each.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

use std::convert::Infallible;

use maitred_protocol::{
    Chooser, ClientId, CreateOptions, Incarnation, ModuleName, NodeEpoch, NodeName, PartyRule,
    ProcessKey, RegisterNode, RequestId, Why, limits,
};
use maitred_registry::{Command, Entry, Known, Loader, Outcome, Place, Registry, Reserve};

const CLIENT: ClientId = ClientId(1);

/// What a chunk may have: the aim, and one item at the bounds of the wire.
const CHUNK_BYTES_MAX: usize = (4 << 20) + limits::FRAME_BYTES_MAX + (64 << 10);

fn apply(registry: &mut Registry, sequence: u64, command: Command) -> Outcome {
    let client = CLIENT;
    let entry = Entry {
        time_ms: 1_000,
        request: (sequence > 0).then_some(RequestId { client, sequence }),
        command,
    };
    let index = registry.applied() + 1;
    registry.apply(index, entry, &mut Vec::new())
}

fn node(number: usize) -> RegisterNode {
    RegisterNode {
        name: NodeName::new(format!("node-{number}")).unwrap(),
        types: Vec::new(),
        address: "10.0.0.1:7000".to_owned(),
        labels: Vec::new(),
        capacity: limits::CAPACITY_MAX,
        share: Vec::new(),
        ttl_ms: 3_000,
        inventory: Vec::new(),
        kill_bound_ms: 1_000,
        instance: 1,
        last_epoch: None,
    }
}

fn register(registry: &mut Registry, node: RegisterNode) -> NodeEpoch {
    match apply(registry, 0, Command::RegisterNode(Box::new(node))) {
        Outcome::Registered { epoch, .. } => epoch,
        other => panic!("{other:?}"),
    }
}

/// With a long id.
fn key(party: u64, member: usize) -> ProcessKey {
    ProcessKey::new("player", &format!("{party:0>200}-{member:0>50}")).unwrap()
}

fn member(key: ProcessKey, epoch: NodeEpoch, args: Vec<u8>) -> Reserve {
    Reserve {
        key,
        args,
        selector: ModuleName::new("spread").unwrap(),
        callback: ModuleName::new("start").unwrap(),
        options: CreateOptions::default(),
        deadline_at_ms: 9_000,
        place: Place {
            node: NodeName::new("node-0").unwrap(),
            epoch,
            activated: None,
            why: Why {
                chooser: Chooser::Node,
                seed: 1,
                micros: 1,
                candidates: 1,
            },
        },
    }
}

/// Reserves a party, as a request.
fn reserve(registry: &mut Registry, sequence: u64, members: Vec<Reserve>) -> Vec<Incarnation> {
    let rule = PartyRule::Any;
    match apply(registry, sequence, Command::ReserveParty { rule, members }) {
        Outcome::PartyReserved(records) => {
            let lives = records.iter().map(|record| record.incarnation);
            lives.collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Encodes it, looks at the chunks, and loads them.
fn check(registry: &Registry) -> Registry {
    let mut loader = Loader::new();
    let encoded = registry.snapshot().encode(|chunk| {
        let bytes = chunk.len();
        assert!(bytes <= CHUNK_BYTES_MAX, "a chunk of {bytes} bytes");
        loader.chunk(&chunk).unwrap();
        Ok::<(), Infallible>(())
    });
    encoded.unwrap();
    let loaded = loader.finish().unwrap();
    assert_eq!(loaded.digest(), registry.digest());
    loaded
}

#[test]
fn a_session_that_creates_large_parties_is_stored_in_parts() {
    let mut registry = Registry::new();
    apply(&mut registry, 0, Command::OpenSession);
    let epoch = register(&mut registry, node(0));
    for party in 1..=12 {
        let args = |at| vec![at as u8; 60 << 10];
        let members = (0..16).map(|at| member(key(party, at), epoch, args(at)));
        let lives = reserve(&mut registry, party, members.collect());
        for (at, incarnation) in lives.into_iter().enumerate() {
            let confirm = Command::Confirm {
                key: key(party, at),
                incarnation,
                pid: "1".to_owned(),
                share: Vec::new(),
            };
            apply(&mut registry, 0, confirm);
        }
        for at in 0..16 {
            // What is left is the outcome.
            let delete = Command::DelProcess {
                key: key(party, at),
                incarnation: None,
                ended: false,
            };
            apply(&mut registry, 0, delete);
        }
    }
    let loaded = check(&registry);
    for sequence in 1..=12 {
        let client = CLIENT;
        match loaded.known(RequestId { client, sequence }) {
            Known::Done(Outcome::Party(records)) => assert_eq!(records.len(), 16),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nodes_and_parties_are_stored_in_parts() {
    let mut registry = Registry::new();
    apply(&mut registry, 0, Command::OpenSession);
    let epoch = register(&mut registry, node(0));
    for number in 1..=400 {
        let long = |part: usize| format!("{part:0256}");
        let labels = (0..limits::LABELS_MAX).map(|part| (long(part), long(number)));
        let large = RegisterNode {
            labels: labels.collect(),
            ..node(number)
        };
        register(&mut registry, large);
    }
    for party in 1..=300 {
        let members = (0..limits::PARTY_MAX).map(|at| member(key(party, at), epoch, Vec::new()));
        reserve(&mut registry, party, members.collect());
    }
    check(&registry);
}

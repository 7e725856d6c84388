//! What the loss of a node costs: its expiry, and what frees the keys of its processes.
//!
//! `cargo bench -p maitred-registry --bench lost`

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop here"
)]

mod support;

use std::convert::Infallible;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use maitred_protocol::{
    CreateOptions, Incarnation, ModuleName, NodeEpoch, NodeName, OnNodeLost, ProcessKey, TypeName,
    TypeSpec, Why,
};
use maitred_registry::{Command, Entry, Loader, Place, Registry, Reserve};
use support::{BEGUN, begun, set_process};

const PROCESSES: u64 = 10_000;

fn apply(registry: &mut Registry, command: Command) -> usize {
    let entry = Entry {
        time_ms: 1_700_000_000_000,
        request: None,
        command,
    };
    let mut events = Vec::with_capacity(PROCESSES as usize + 8);
    registry.apply(registry.applied() + 1, entry, &mut events);
    events.len()
}

fn node() -> NodeName {
    NodeName::new("eu-1").unwrap()
}

/// Processes that their node registered: they are forgotten with it.
fn forgotten() -> Registry {
    let mut registry = begun();
    for id in 0..PROCESSES {
        registry.apply(BEGUN + 1 + id, set_process(id, None), &mut Vec::new());
    }
    registry
}

/// Processes that were created, and are created again.
fn wanted() -> Registry {
    let mut registry = begun();
    let spec = TypeSpec {
        on_node_lost: OnNodeLost::Recreate,
        ..TypeSpec::new(TypeName::new("player").unwrap())
    };
    apply(&mut registry, Command::PutType(Box::new(spec)));
    for id in 0..PROCESSES {
        create(&mut registry, &id.to_string());
    }
    registry
}

fn create(registry: &mut Registry, id: &str) {
    let key = ProcessKey::new("player", id).unwrap();
    let module = |name: &str| ModuleName::new(name).unwrap();
    let why = Why {
        chooser: maitred_protocol::Chooser::Node,
        seed: 0,
        micros: 0,
        candidates: 1,
    };
    let place = Place {
        node: node(),
        epoch: NodeEpoch(BEGUN),
        activated: None,
        why,
    };
    let reserve = Reserve {
        key: key.clone(),
        args: vec![7; 64],
        selector: module("least-loaded"),
        callback: module("start"),
        options: CreateOptions::default(),
        deadline_at_ms: 1_700_000_010_000,
        place,
    };
    apply(registry, Command::Reserve(Box::new(reserve)));
    let confirm = Command::Confirm {
        key,
        incarnation: Incarnation(registry.applied()),
        pid: format!("pid-{id}"),
        share: vec![7; 64],
    };
    apply(registry, confirm);
}

fn expire() -> Command {
    Command::Expire {
        name: node(),
        epoch: NodeEpoch(BEGUN),
    }
}

/// A copy that shares nothing.
fn copy(registry: &Registry) -> Registry {
    let mut loader = Loader::new();
    let encoded = registry.snapshot().encode(|chunk| {
        loader.chunk(&chunk).unwrap();
        Ok::<(), Infallible>(())
    });
    encoded.unwrap();
    loader.finish().unwrap()
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lost");
    group.sample_size(20);
    let mut run = |name: &str, from: &Registry, command: &dyn Fn() -> Command| {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || (copy(from), command()),
                |(mut registry, command)| {
                    let events = apply(&mut registry, command);
                    assert!(events >= PROCESSES as usize);
                    registry
                },
                BatchSize::PerIteration,
            );
        });
    };
    let forgotten = forgotten();
    run("expire 10,000 that are forgotten", &forgotten, &expire);
    let mut wanted = wanted();
    run("expire 10,000 that are wanted", &wanted, &expire);
    let lives: Vec<_> = wanted
        .processes_of(&node(), NodeEpoch(BEGUN))
        .map(|record| (record.key(), record.incarnation))
        .collect();
    apply(&mut wanted, expire());
    let passed = || Command::KillBoundPassed(NodeEpoch(BEGUN));
    run("a kill bound passes, 10,000 held", &wanted, &passed);
    let released = || Command::Released(lives.clone());
    run("10,000 answers in one entry", &wanted, &released);
    group.bench_function("take a snapshot, 10,000 held", |bencher| {
        bencher.iter(|| wanted.snapshot());
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

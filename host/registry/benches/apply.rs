//! What the replicated state costs: applying entries, looking up, and taking a snapshot.
//!
//! `cargo bench -p maitred-registry`

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop here"
)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use maitred_protocol::{
    ClientId, NodeEpoch, NodeName, ProcessKey, RegisterNode, RequestId, SetProcess,
};
use maitred_registry::{Command, Entry, Registry};

fn entry(request: Option<RequestId>, command: Command) -> Entry {
    Entry {
        time_ms: 1_700_000_000_000,
        request,
        command,
    }
}

fn set(id: u64) -> Entry {
    let set = SetProcess {
        key: ProcessKey::new("player", &id.to_string()).unwrap(),
        node: NodeName::new("eu-1").unwrap(),
        epoch: NodeEpoch(2),
        pid: format!("pid-{id}"),
        share: vec![7; 64],
        incarnation: None,
    };
    let request = RequestId {
        client: ClientId(1),
        sequence: id,
    };
    entry(Some(request), Command::SetProcess(Box::new(set)))
}

/// A registry with one node and so many processes on it.
fn filled(processes: u64) -> Registry {
    let mut registry = Registry::new();
    let mut events = Vec::new();
    registry.apply(1, entry(None, Command::OpenSession), &mut events);
    let register = RegisterNode {
        name: NodeName::new("eu-1").unwrap(),
        types: Vec::new(),
        address: "10.0.0.1:7000".to_owned(),
        labels: Vec::new(),
        capacity: 1_000_000,
        share: Vec::new(),
        ttl_ms: 3_000,
        inventory: Vec::new(),
    };
    registry.apply(
        2,
        entry(None, Command::RegisterNode(Box::new(register))),
        &mut events,
    );
    for id in 0..processes {
        registry.apply(3 + id, set(id), &mut events);
        events.clear();
    }
    registry
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("registry");
    let bytes = set(1).encode();
    group.bench_function("decode an entry", |bencher| {
        bencher.iter(|| Entry::decode(black_box(&bytes), 1).unwrap());
    });
    let one = set(1);
    group.bench_function("encode an entry", |bencher| {
        bencher.iter(|| black_box(&one).encode())
    });
    for size in [1_000_u64, 100_000] {
        let mut registry = filled(size);
        let mut next = size;
        let mut events = Vec::new();
        group.bench_function(format!("apply set_process, {size} there"), |bencher| {
            bencher.iter_batched(
                || {
                    next += 1;
                    (next + 10, set(next))
                },
                |(index, entry)| {
                    events.clear();
                    registry.apply(index, entry, &mut events)
                },
                BatchSize::SmallInput,
            );
        });
        let key = ProcessKey::new("player", "500").unwrap();
        group.bench_function(format!("get, {size} there"), |bencher| {
            bencher.iter(|| registry.process(black_box(&key)).is_some());
        });
        group.bench_function(format!("take a snapshot, {size} there"), |bencher| {
            bencher.iter(|| registry.snapshot());
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

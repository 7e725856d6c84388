//! What the replicated state costs: applying entries, looking up, and taking a snapshot.
//!
//! `cargo bench -p maitred-registry`

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop here"
)]

mod support;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use maitred_protocol::{ClientId, ProcessKey, RequestId};
use maitred_registry::{Entry, Registry};
use support::{BEGUN, begun, set_process};

/// As a client asks for it, which may ask again.
fn set(id: u64) -> Entry {
    let request = RequestId {
        client: ClientId(1),
        sequence: id,
    };
    set_process(id, Some(request))
}

/// A registry with one node and so many processes on it.
fn filled(processes: u64) -> Registry {
    let mut registry = begun();
    let mut events = Vec::new();
    for id in 0..processes {
        registry.apply(BEGUN + 1 + id, set(id), &mut events);
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

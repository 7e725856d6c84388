//! What recording the inputs of decisions costs, and playing them back.
//!
//! `cargo bench -p maitred-registry --bench inputs`

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop here"
)]

#[path = "../tests/inputs/cluster.rs"]
mod cluster;

use std::hint::black_box;

use cluster::{Cluster, Policy, module, run};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use maitred_registry::inputs::{Player, Recorder, Start};

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inputs");
    let (module, mut policy) = (module("spread", 3), Policy::new(1.0));
    for (nodes, jobs) in [(100, 1), (100, 32), (10_000, 1), (10_000, 32)] {
        let mut cluster = Cluster::new(nodes);
        cluster.settle(1_000);
        let mut recorder = Recorder::default();
        // As batches come: time passes, then one is decided.
        let mut next = || {
            cluster.pass(jobs as u64 * 1_000);
            let batch = cluster.batch(&module, jobs);
            let outcomes = run(&batch, &mut policy);
            for slot in outcomes.iter().filter_map(|outcome| outcome.chosen) {
                cluster.place(slot as usize);
            }
            (batch, outcomes)
        };
        group.bench_function(format!("record {jobs} with {nodes} nodes"), |bencher| {
            bencher.iter_batched(
                &mut next,
                |(batch, outcomes)| {
                    let frame = recorder.frame(&batch, &outcomes, Start::Delta).unwrap();
                    (frame, batch, outcomes)
                },
                BatchSize::PerIteration,
            );
        });
        let (batch, outcomes) = next();
        group.bench_function(format!("a keyframe of {nodes} nodes, {jobs}"), |bencher| {
            bencher.iter(|| {
                recorder
                    .frame(black_box(&batch), &outcomes, Start::Keyframe)
                    .unwrap()
            });
        });
        let keyframe = recorder.frame(&batch, &outcomes, Start::Keyframe).unwrap();
        let (batch, outcomes) = next();
        let delta = recorder.frame(&batch, &outcomes, Start::Delta).unwrap();
        group.bench_function(format!("play {jobs} with {nodes} nodes"), |bencher| {
            bencher.iter_batched(
                || {
                    let mut player = Player::default();
                    player.next(&keyframe).unwrap();
                    player
                },
                |mut player| (player.next(&delta).unwrap(), player),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = bench
}
criterion_main!(benches);

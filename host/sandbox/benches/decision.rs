//! One placement decision over 10, 100 and 1,000 nodes: filter, offer, choose, check and trace;
//! natively, and in the sandbox with the standard selectors, on a lane in batches of 64 (so the
//! hand-over between threads is shared, as it is under load), with a shadow behind it, with their
//! inputs recorded, and in a rehearsal. And one spawn by the standard callback on a node that answers at once.

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use maitred_protocol::{Incarnation, ModuleKind, NodeName, ProcessKey};
use maitred_registry::decide::{
    Answer, Choose, Decision, ModuleRef, Offer, SelectBatch, Verdict, decide,
};
use maitred_registry::feature::{Ask, Feature, Manifest};
use maitred_registry::inputs::{Outcome, Recorder, Start};
use maitred_sandbox::{
    BoxFuture, CallbackJob, Callbacks, Lanes, Limits, NodeFailure, NodePort, Placement, Process,
    Rehearsal, Shadows, SpawnRequest, Started,
};
use support::{batch, bench, fleet, jobs, module, prebuilt};

const BATCH: u64 = 64;

/// The lowest first column, on this side of the border.
struct Lowest(Manifest);

impl Choose for Lowest {
    fn manifest(&self) -> &Manifest {
        &self.0
    }

    fn choose(&mut self, offer: Offer<'_>) -> Result<Answer, String> {
        let rows = offer.slots.iter().zip(offer.features);
        let lowest = rows.min_by(|a, b| a.1.total_cmp(b.1));
        Ok(lowest
            .map_or(Verdict::None, |(slot, _)| Verdict::Choose(*slot))
            .into())
    }
}

fn lowest(ask: Ask) -> Lowest {
    Lowest(Manifest {
        title: "native".to_owned(),
        features: vec![Feature::Processes],
        terms: Vec::new(),
        ask,
    })
}

fn native(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("native");
    let selector = Ok(module("native", b"", "{}"));
    for (name, ask) in [
        ("lowest-8", Ask::Lowest(Feature::Processes, 8)),
        ("all", Ask::All),
    ] {
        let mut chooser = lowest(ask);
        for nodes in [10, 100, 1_000] {
            let jobs = jobs(1, 1);
            let mut fleet = Arc::new(fleet(nodes, 1));
            group.bench_function(BenchmarkId::new(name, nodes), |bencher| {
                bencher.iter(|| {
                    let decision =
                        decide(&mut fleet, &jobs[0], &selector, Ok(&mut chooser), 1, || 0);
                    // The fleet would fill up.
                    if let Some(slot) = decision.trace.chosen {
                        Arc::make_mut(&mut fleet).live[slot as usize].used = 0;
                    }
                    black_box(decision)
                });
            });
        }
    }
}

/// Enough batches for so many decisions, over fleets that do not fill up.
fn batches(
    rounds: u64,
    module: &ModuleRef,
    nodes: u32,
    shadow: Option<&ModuleRef>,
) -> Vec<SelectBatch> {
    // What nodes said of themselves is shared, as it is between the batches of a host.
    let mut base = fleet(nodes, 1);
    base.live.iter_mut().for_each(|live| live.used = 0);
    let one = |_| SelectBatch {
        shadow: shadow.cloned(),
        ..batch(module, base.clone(), jobs(BATCH, 1))
    };
    (0..rounds.div_ceil(BATCH)).map(one).collect()
}

/// How long `rounds` of these decisions take.
fn timed(lanes: &Lanes, batches: Vec<SelectBatch>, rounds: u64) -> Duration {
    let submit = |batch, sender: mpsc::Sender<_>| {
        lanes.submit(batch, move |decided| {
            sender.send(decided).expect("the bench waits");
        });
    };
    timed_with(submit, batches, rounds)
}

fn timed_with(
    submit: impl Fn(SelectBatch, mpsc::Sender<Vec<Decision>>),
    batches: Vec<SelectBatch>,
    rounds: u64,
) -> Duration {
    let decided = batches.len() as u64 * BATCH;
    let begun = Instant::now();
    for batch in batches {
        let (sender, decisions) = mpsc::channel();
        submit(batch, sender);
        black_box(decisions.recv().expect("every batch is answered"));
    }
    // Batches are whole; scale to what was asked for.
    begun.elapsed().mul_f64(rounds as f64 / decided as f64)
}

fn in_wasm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wasm");
    let bench = bench(Limits::default());
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    for name in ["least-loaded", "two-choices", "rendezvous"] {
        let module = bench.load(name, ModuleKind::Selector, &prebuilt(name), "{}");
        for nodes in [10, 100, 1_000] {
            group.bench_function(BenchmarkId::new(name, nodes), |bencher| {
                bencher.iter_custom(|rounds| {
                    timed(&lanes, batches(rounds, &module, nodes, None), rounds)
                });
            });
        }
    }
    let fallbacks: u64 = lanes
        .counters()
        .iter()
        .map(|one| one.fallbacks.total())
        .sum();
    assert_eq!(fallbacks, 0, "what was measured is the fallback");
}

/// What a decision costs in a rehearsal: an instance of its own, and two calls of it with fuel being
/// counted.
fn rehearsed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rehearsal");
    let bench = bench(Limits::default());
    for name in ["least-loaded", "rendezvous"] {
        let guest = prebuilt(name);
        let rehearsal = Rehearsal::new(&bench.sandbox, module(name, &guest, "{}"), &guest);
        let rehearsal = rehearsal.expect("a standard module");
        for nodes in [10, 1_000] {
            let (jobs, fleet) = (jobs(1, 1), Arc::new(fleet(nodes, 1)));
            group.bench_function(BenchmarkId::new(name, nodes), |bencher| {
                bencher.iter(|| {
                    let rehearsed = rehearsal.consider(&fleet, &jobs[0], 1);
                    assert!(rehearsed.failed.is_none());
                    rehearsed
                });
            });
        }
    }
}

/// The same lanes with a shadow behind them, which follows as well as it can: what is measured is
/// what the lane pays.
fn shadowed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shadowed");
    let bench = bench(Limits::default());
    let guest = prebuilt("two-choices");
    let module = bench.load("two-choices", ModuleKind::Selector, &guest, "{}");
    let shadows = Shadows::new(Arc::clone(&bench.sandbox), move |_| Some(guest.clone()));
    let lanes = Lanes::with_shadows(Arc::clone(&bench.sandbox), shadows);
    for nodes in [10, 100, 1_000] {
        group.bench_function(BenchmarkId::new("two-choices", nodes), |bencher| {
            bencher.iter_custom(|rounds| {
                let batches = batches(rounds, &module, nodes, Some(&module));
                timed(&lanes, batches, rounds)
            });
        });
    }
}

/// The same lanes with their inputs recorded as a host does it, but for the disk: a thread behind them
/// encodes what it can, and the rest is dropped. What is measured is what the lane pays.
fn recorded(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recorded");
    let bench = bench(Limits::default());
    let guest = prebuilt("two-choices");
    let module = bench.load("two-choices", ModuleKind::Selector, &guest, "{}");
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let (keep, kept) = mpsc::sync_channel::<(SelectBatch, Arc<[Outcome]>)>(256);
    std::thread::spawn(move || {
        let mut recorder = Recorder::default();
        for (batch, outcomes) in kept {
            let frame = recorder.frame(&batch, &outcomes, Start::Delta);
            black_box(frame.expect("a batch like any other"));
        }
    });
    let submit = |batch, sender: mpsc::Sender<_>| {
        let keep = keep.clone();
        let done = move |decided| sender.send(decided).expect("the bench waits");
        lanes.submit_recorded(batch, done, move |batch, outcomes| {
            // A full queue drops it, as in a host.
            let _ = keep.try_send((batch, outcomes));
        });
    };
    for nodes in [10, 100, 1_000] {
        group.bench_function(BenchmarkId::new("two-choices", nodes), |bencher| {
            bencher.iter_custom(|rounds| {
                timed_with(submit, batches(rounds, &module, nodes, None), rounds)
            });
        });
    }
}

/// A node that answers at once.
struct Ready;

impl NodePort for Ready {
    fn start(
        &self,
        _: Vec<u8>,
        _: Duration,
        _: u32,
    ) -> BoxFuture<'_, Result<Started, NodeFailure>> {
        Box::pin(std::future::ready(Ok(Started {
            pid: "17".to_owned(),
            share: Vec::new(),
        })))
    }

    fn stop(&self, _: Duration) -> BoxFuture<'_, Result<(), NodeFailure>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn lookup(&self, _: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        Box::pin(std::future::ready(None))
    }
}

fn spawn(criterion: &mut Criterion) {
    let bench = bench(Limits::default());
    let module = bench.load("start", ModuleKind::Callback, &prebuilt("start"), "{}");
    let callbacks = Callbacks::new(Arc::clone(&bench.sandbox));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let port: Arc<dyn NodePort> = Arc::new(Ready);
    let job = CallbackJob {
        module,
        request: SpawnRequest {
            key: ProcessKey::new("player", "p1").expect("a good key"),
            args: vec![7; 64],
            group: None,
            requester: None,
            previous: None,
            demand: 1,
            priority: 0,
            attempt: 1,
            seed: 1,
            time_s: 1_700_000_000,
        },
        placement: Placement {
            node: NodeName::new("node-1").expect("a good name"),
            address: "10.0.0.1:7000".to_owned(),
            incarnation: Incarnation(42),
        },
        deadline: Instant::now() + Duration::from_secs(3_600),
    };
    criterion.bench_function("spawn/start", |bencher| {
        bencher.iter(|| {
            let started = runtime.block_on(callbacks.spawn(job.clone(), Arc::clone(&port)));
            assert!(started.is_ok());
        });
    });
}

criterion_group!(
    benches, native, in_wasm, shadowed, recorded, rehearsed, spawn
);
criterion_main!(benches);

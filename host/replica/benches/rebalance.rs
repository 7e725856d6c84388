//! What a plan of moves costs the replica: 10,000 nodes, a million processes.
//!
//! `cargo bench -p maitred-replica`

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop here"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use maitred_protocol::{
    Chooser, CreateOptions, Incarnation, ModuleName, NodeEpoch, NodeName, OnDrain, ProcessKey,
    RebalanceAsk, RebalancePlan, RegisterNode, Request, Response, TypeName, TypeSpec, Why,
};
use maitred_registry::{Command, Entry, Place, Registry, Reserve};
use maitred_replica::{Config, Effect, Input, Now, Recovered, RecoveredSnapshot, Replica, Ticket};
use raft::eraftpb::ConfState;

const NODES: u32 = 10_000;

const NOW: Now = Now {
    mono_us: 1_000_000,
    wall_ms: 1_000,
};

struct Builder {
    registry: Registry,
    index: u64,
}

impl Builder {
    fn apply(&mut self, command: Command) -> u64 {
        self.index += 1;
        let entry = Entry {
            time_ms: 1,
            request: None,
            command,
        };
        self.registry.apply(self.index, entry, &mut Vec::new());
        self.index
    }

    fn register(&mut self, name: NodeName) -> NodeEpoch {
        let register = RegisterNode {
            name,
            types: Vec::new(),
            address: String::new(),
            labels: Vec::new(),
            capacity: 1_000,
            share: Vec::new(),
            ttl_ms: 60_000,
            inventory: Vec::new(),
            kill_bound_ms: 1_000,
            instance: 1,
            last_epoch: None,
        };
        NodeEpoch(self.apply(Command::RegisterNode(Box::new(register))))
    }

    fn run(&mut self, key: &ProcessKey, node: &NodeName, epoch: NodeEpoch) {
        let place = Place {
            node: node.clone(),
            epoch,
            activated: None,
            why: Why {
                chooser: Chooser::Rebalance,
                seed: 0,
                micros: 0,
                candidates: 1,
            },
        };
        let reserve = Reserve {
            key: key.clone(),
            args: Vec::new(),
            selector: ModuleName::new("least-loaded").unwrap(),
            callback: ModuleName::new("start").unwrap(),
            options: CreateOptions::default(),
            deadline_at_ms: 1_000_000,
            place,
        };
        let incarnation = Incarnation(self.apply(Command::Reserve(Box::new(reserve))));
        self.apply(Command::Confirm {
            key: key.clone(),
            incarnation,
            pid: String::new(),
            share: Vec::new(),
        });
    }
}

/// A leader whose nodes have so many processes each, by the node's number.
fn leader(processes: impl Fn(u32) -> u32, on_drain: OnDrain) -> Replica {
    let mut builder = Builder {
        registry: Registry::founded(&[1]),
        index: 0,
    };
    builder.apply(Command::PutType(Box::new(TypeSpec {
        on_drain,
        ..TypeSpec::new(TypeName::new("player").unwrap())
    })));
    for number in 0..NODES {
        let name = NodeName::new(format!("node-{number}")).unwrap();
        let epoch = builder.register(name.clone());
        for process in 0..processes(number) {
            let id = format!("{process}-{number}");
            builder.run(&ProcessKey::new("player", &id).unwrap(), &name, epoch);
        }
    }
    let snapshot = RecoveredSnapshot {
        index: builder.index,
        term: 1,
        conf_state: ConfState::from((vec![1], vec![])),
        registry: builder.registry,
    };
    let recovered = Recovered {
        start_index: builder.index,
        start_term: 1,
        snapshot: Some(snapshot),
        ..Recovered::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut replica = Replica::new(Config::new(1), recovered, NOW, &logger).unwrap();
    settle(&mut replica);
    replica
}

/// Writes are durable at once. The last plan that was answered.
fn settle(replica: &mut Replica) -> Option<Box<RebalancePlan>> {
    let mut plan = None;
    let mut effects = Vec::new();
    loop {
        replica.effects(NOW, &mut effects);
        if effects.is_empty() {
            return plan;
        }
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist(persist) => replica.step(NOW, Input::Persisted(persist.number)),
                Effect::Reply(_, answer) => match answer.into_response() {
                    Response::Rebalance(made) => plan = Some(made),
                    other => panic!("{other:?}"),
                },
                _ => {}
            }
        }
    }
}

fn plan(replica: &mut Replica) -> Box<RebalancePlan> {
    let request = Request::PlanRebalance(RebalanceAsk::default());
    let input = Input::Request {
        ticket: Ticket(1),
        sequence: 1,
        request,
    };
    replica.step(NOW, input);
    settle(replica).unwrap()
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan of 10,000 nodes and 1,000,000 processes");
    group.sample_size(10);
    let mut even = leader(|_| 100, OnDrain::Move);
    assert_eq!(plan(&mut even).moves, []);
    group.bench_function("even", |bencher| bencher.iter(|| plan(&mut even)));
    drop(even);
    let half = |number: u32| if number.is_multiple_of(2) { 200 } else { 0 };
    let mut halves = leader(half, OnDrain::Move);
    assert_eq!(plan(&mut halves).moves.len(), 2_000);
    group.bench_function("half of them empty", |bencher| {
        bencher.iter(|| plan(&mut halves));
    });
    drop(halves);
    // The bound on what is looked at is reached: nothing of it may be moved.
    let mut stuck = leader(half, OnDrain::Wait);
    assert_eq!(plan(&mut stuck).moves, []);
    group.bench_function("nothing may be moved", |bencher| {
        bencher.iter(|| plan(&mut stuck));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

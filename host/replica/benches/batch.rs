//! What the replica pays for a batch of decisions before anybody decides: the nodes' figures, with only
//! what the selector asks for, and with all that a later replay may.
//!
//! `cargo bench -p maitred-replica --bench batch`

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should stop here"
)]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use maitred_protocol::{
    CreateOptions, CreateProcess, KeepAlive, Load, NodeEpoch, NodeName, ProcessKey, RegisterNode,
    Request,
};
use maitred_registry::{Command, Entry, Registry};
use maitred_replica::{Config, Effect, Input, Now, Recovered, RecoveredSnapshot, Replica, Ticket};
use raft::eraftpb::ConfState;

const NOW: Now = Now {
    mono_us: 1_000_000,
    wall_ms: 1_000,
};

fn registry(nodes: u32) -> Registry {
    let mut registry = Registry::new();
    for number in 1..=nodes {
        let register = RegisterNode {
            name: NodeName::new(format!("node-{number:05}")).unwrap(),
            types: Vec::new(),
            address: String::new(),
            labels: vec![("zone".to_owned(), "west".to_owned())],
            capacity: 1_000,
            share: Vec::new(),
            ttl_ms: 60_000,
            inventory: Vec::new(),
            kill_bound_ms: 1_000,
            instance: 1,
            last_epoch: None,
        };
        let entry = Entry {
            time_ms: 1,
            request: None,
            command: Command::RegisterNode(Box::new(register)),
        };
        registry.apply(number.into(), entry, &mut Vec::new());
    }
    registry
}

fn turn(replica: &mut Replica) -> Vec<Effect> {
    let mut effects = Vec::new();
    loop {
        let mut more = Vec::new();
        replica.effects(NOW, &mut more);
        let mut goes_on = false;
        for effect in more {
            if let Effect::Persist(persist) = &effect {
                replica.step(NOW, Input::Persisted(persist.number));
                goes_on = true;
            }
            effects.push(effect);
        }
        if !goes_on {
            return effects;
        }
    }
}

/// A leader of so many nodes, all of which have reported their load.
fn leader(nodes: u32, record_inputs: bool) -> Replica {
    let registry = registry(nodes);
    let index = registry.applied();
    let conf_state = ConfState {
        voters: vec![1],
        ..ConfState::default()
    };
    let recovered = Recovered {
        start_index: index,
        start_term: 1,
        snapshot: Some(RecoveredSnapshot {
            index,
            term: 1,
            conf_state,
            registry,
        }),
        ..Recovered::default()
    };
    let config = Config {
        record_inputs,
        ..Config::new(1)
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut replica = Replica::new(config, recovered, NOW, &logger).unwrap();
    turn(&mut replica);
    for number in 1..=u64::from(nodes) {
        let load = Load {
            cpu: 0.5,
            memory_free_mib: 1_000,
            counters: vec![("seats".to_owned(), 3.0), ("rooms".to_owned(), 1.0)],
        };
        let keep_alive = KeepAlive {
            epoch: NodeEpoch(number),
            sequence: 1,
            load: Some(load),
            stop_ms: 0,
        };
        replica.step(
            NOW,
            Input::KeepAlive {
                link: 0,
                keep_alive,
                at_us: NOW.mono_us,
            },
        );
    }
    turn(&mut replica);
    replica
}

fn plan(number: u32) -> Request {
    Request::Plan(Box::new(CreateProcess {
        key: ProcessKey::new("player", &number.to_string()).unwrap(),
        args: Vec::new(),
        selector: None,
        callback: None,
        options: CreateOptions {
            group: Some(format!("party-{number}")),
            ..CreateOptions::default()
        },
    }))
}

/// A batch of so many, handed out and forgotten.
fn batch(replica: &mut Replica, jobs: u32) -> usize {
    for number in 0..jobs {
        let request = plan(number);
        let (ticket, sequence) = (Ticket(number.into()), 0);
        replica.step(
            NOW,
            Input::Request {
                ticket,
                sequence,
                request,
            },
        );
    }
    let mut decided = 0;
    for effect in turn(replica) {
        if let Effect::Select { lane, batch } = effect {
            decided += batch.jobs.len();
            let decisions = Vec::new();
            replica.step(NOW, Input::Selected { lane, decisions });
        }
    }
    decided
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    group.sample_size(20);
    for nodes in [100, 10_000] {
        for jobs in [1, 64] {
            for (record_inputs, name) in [(false, "asked"), (true, "all")] {
                let mut replica = leader(nodes, record_inputs);
                assert_eq!(batch(&mut replica, jobs), jobs as usize);
                let id = BenchmarkId::new(name, format!("{nodes}-nodes-{jobs}-jobs"));
                group.bench_function(id, |bencher| {
                    bencher.iter(|| batch(&mut replica, jobs));
                });
            }
        }
    }
}

criterion_group!(benches, batches);
criterion_main!(benches);

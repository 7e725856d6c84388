//! Callbacks and the nodes that they wait for: what the node answered arrives, waiting costs
//! nothing, computing is bounded, and an instance that failed is not met again.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::future::{pending, ready};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maitred_protocol::{Incarnation, ModuleKind, NodeName, ProcessKey};
use maitred_registry::decide::ModuleRef;
use maitred_sandbox::{
    BoxFuture, CallbackJob, Callbacks, Limits, NodeFailure, NodePort, Placement, Process,
    SpawnFailure, SpawnRequest, Started,
};
use support::guests::{Parts, START, spin, start};
use support::{Bench, bench, patient, prebuilt};
use tokio::sync::Semaphore;

/// A node that answers as the test wants.
struct Node {
    answer: Answer,
    payloads: Mutex<Vec<Vec<u8>>>,
    lookups: AtomicU64,
}

enum Answer {
    Now(Result<Started, NodeFailure>),
    After(Duration),
    /// When the test lets it.
    Gate(Arc<Semaphore>),
    Never,
}

fn node(answer: Answer) -> Arc<Node> {
    Arc::new(Node {
        answer,
        payloads: Mutex::default(),
        lookups: AtomicU64::new(0),
    })
}

fn started() -> Started {
    Started {
        pid: "17".to_owned(),
        share: vec![1, 2, 3],
    }
}

impl NodePort for Node {
    fn start(
        &self,
        payload: Vec<u8>,
        _: Duration,
        _: u32,
    ) -> BoxFuture<'_, Result<Started, NodeFailure>> {
        self.payloads.lock().unwrap().push(payload);
        match &self.answer {
            Answer::Now(answer) => Box::pin(ready(answer.clone())),
            Answer::After(wait) => Box::pin(async {
                tokio::time::sleep(*wait).await;
                Ok(started())
            }),
            Answer::Gate(gate) => Box::pin(async {
                gate.acquire().await.unwrap().forget();
                Ok(started())
            }),
            Answer::Never => Box::pin(pending()),
        }
    }

    fn stop(&self, _: Duration) -> BoxFuture<'_, Result<(), NodeFailure>> {
        Box::pin(ready(Ok(())))
    }

    fn lookup(&self, _: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        self.lookups.fetch_add(1, Relaxed);
        Box::pin(ready(Some(Process {
            node: "node-1".to_owned(),
            address: "10.0.0.1:7000".to_owned(),
            pid: "pid".to_owned(),
            share: Vec::new(),
            incarnation: Incarnation(5),
            running: true,
        })))
    }
}

fn job(module: &ModuleRef, seed: u32, within: Duration) -> CallbackJob {
    CallbackJob {
        module: module.clone(),
        request: SpawnRequest {
            key: ProcessKey::new("player", "p1").unwrap(),
            args: b"map=3".to_vec(),
            group: None,
            requester: Some(NodeName::new("node-9").unwrap()),
            previous: None,
            demand: 1,
            priority: 0,
            attempt: 1,
            seed,
            time_s: 1_700_000_000,
        },
        placement: Placement {
            node: NodeName::new("node-1").unwrap(),
            address: "10.0.0.1:7000".to_owned(),
            incarnation: Incarnation(42),
        },
        deadline: Instant::now() + within,
    }
}

const LONG: Duration = Duration::from_secs(60);

/// A callback that does `what` when the seed is 13, and otherwise starts the process.
fn unlucky(what: &str) -> Vec<u8> {
    let body = format!(
        "(if (i32.eq (i32.load offset=72 (local.get $args)) (i32.const 13)) (then {what})) {}",
        start(600_000)
    );
    Parts {
        imports: START,
        body,
        ..Parts::default()
    }
    .callback()
}

fn callbacks(bench: &Bench, guest: &[u8]) -> (Callbacks, ModuleRef) {
    let module = bench.load("starter", ModuleKind::Callback, guest, "{}");
    (Callbacks::new(Arc::clone(&bench.sandbox)), module)
}

/// What a guest that meets its bad luck costs; the next spawn is fine.
async fn bad_luck(what: &str, limits: Limits) -> String {
    let bench = bench(limits);
    let (callbacks, module) = callbacks(&bench, &unlucky(what));
    let node = node(Answer::Now(Ok(started())));
    for seed in [12, 13, 14] {
        let answer = callbacks
            .spawn(job(&module, seed, LONG), node.clone())
            .await;
        if seed == 13 {
            let Err(SpawnFailure::Elsewhere(reason)) = answer else {
                panic!("{answer:?}")
            };
            assert_eq!(
                callbacks.spawn(job(&module, 14, LONG), node.clone()).await,
                Ok(started())
            );
            return reason;
        }
        assert_eq!(answer, Ok(started()));
    }
    unreachable!("seed 13 returns")
}

#[tokio::test]
async fn what_the_node_answers_arrives() {
    let bench = bench(patient());
    let (callbacks, module) = callbacks(&bench, &prebuilt("start"));
    for (answer, expected) in [
        (Ok(started()), Ok(started())),
        (Err(NodeFailure::Busy("full".to_owned())), Err("busy: full")),
        (
            Err(NodeFailure::Failed("no map".to_owned())),
            Err("failed: no map"),
        ),
        (
            Err(NodeFailure::NoAnswer("lost".to_owned())),
            Err("no answer: lost"),
        ),
    ] {
        let node = node(Answer::Now(answer));
        let got = callbacks.spawn(job(&module, 1, LONG), node.clone()).await;
        assert_eq!(
            got,
            expected.map_err(|reason| SpawnFailure::Elsewhere(reason.to_owned()))
        );
        assert_eq!(*node.payloads.lock().unwrap(), [b"map=3"]);
    }
    let counters = callbacks.counters().remove(0);
    assert_eq!(
        (counters.calls, counters.refused, counters.failed),
        (4, 3, 0)
    );
}

#[tokio::test]
async fn a_node_that_never_answers_costs_the_deadline_and_no_more() {
    let bench = bench(patient());
    let (callbacks, module) = callbacks(&bench, &prebuilt("start"));
    let answer = callbacks
        .spawn(
            job(&module, 1, Duration::from_millis(300)),
            node(Answer::Never),
        )
        .await;
    let Err(SpawnFailure::Elsewhere(reason)) = answer else {
        panic!("{answer:?}")
    };
    assert!(
        reason.starts_with("no answer: no answer within"),
        "{reason}"
    );
    // The deadline that the callback itself gave is kept as well.
    let guest = Parts {
        imports: START,
        body: start(20),
        ..Parts::default()
    }
    .callback();
    let module = bench.load("hasty", ModuleKind::Callback, &guest, "{}");
    let answer = callbacks
        .spawn(job(&module, 1, LONG), node(Answer::Never))
        .await;
    assert_eq!(
        answer,
        Err(SpawnFailure::Elsewhere("no answer within 20 ms".to_owned()))
    );
}

#[tokio::test]
async fn computing_is_cut_and_waiting_is_not_counted() {
    let limits = || Limits {
        spawn_ms: 100,
        ..patient()
    };
    let reason = bad_luck("(loop $ever (br $ever))", limits()).await;
    assert_eq!(
        reason,
        "callback starter@3 spawn computed for more than 100 ms (limit spawn_ms)"
    );
    // Waits for three times what it may compute, between two short computations.
    let bench = bench(limits());
    let guest = Parts {
        imports: START,
        body: format!(
            "{} {} {} (return)",
            spin(1_000),
            start(600_000),
            spin(1_000)
        ),
        ..Parts::default()
    };
    let (callbacks, module) = callbacks(&bench, &guest.callback());
    let begun = Instant::now();
    let answer = callbacks
        .spawn(
            job(&module, 1, LONG),
            node(Answer::After(Duration::from_millis(300))),
        )
        .await;
    assert_eq!(answer, Ok(started()));
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_callback_that_computes_does_not_hold_the_runtime() {
    // One thread: a spawn that computes for its 500 ms must let another one pass.
    let bench = bench(Limits {
        spawn_ms: 500,
        ..patient()
    });
    let (callbacks, module) = callbacks(&bench, &unlucky("(loop $ever (br $ever))"));
    let node = node(Answer::Now(Ok(started())));
    let endless = tokio::spawn(callbacks.spawn(job(&module, 13, LONG), node.clone()));
    while callbacks.counters().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        callbacks.spawn(job(&module, 1, LONG), node).await,
        Ok(started())
    );
    assert!(!endless.is_finished());
    assert!(matches!(
        endless.await.unwrap(),
        Err(SpawnFailure::Elsewhere(_))
    ));
    assert_eq!(callbacks.counters()[0].timeouts, 1);
}

#[tokio::test]
async fn a_callback_that_fails_is_named_and_replaced() {
    assert_eq!(
        bad_luck("unreachable", patient()).await,
        "callback starter@3 trapped: wasm trap: wasm `unreachable` instruction executed"
    );
    // A share beyond what a record holds, made up by the callback.
    let share = "(i32.store8 (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1028) (i32.const 0)) (i32.store (i32.const 1032) (i32.const 6))
        (i32.store (i32.const 1036) (i32.const 0)) (i32.store (i32.const 1040) (i32.const 5000)) (return (i32.const 1024))";
    assert_eq!(
        bad_luck(share, patient()).await,
        "callback starter@3 answered a share of 5000 bytes, of at most 4096"
    );
    // A payload beyond what a node takes is the node's failure, and the callback may go on.
    let payload = "(call $start (i32.const 0) (i32.const 65537) (i32.const 1000) (i32.const 1024))
        (if (i32.ne (i32.load8_u (i32.const 1028)) (i32.const 1)) (then unreachable))
        (i32.store8 (i32.const 1028) (i32.const 0)) (return (i32.const 1024))";
    let large = Parts {
        memory: "2",
        imports: START,
        body: format!("{payload} {}", start(1)),
        ..Parts::default()
    };
    let bench = bench(patient());
    let (callbacks, module) = callbacks(&bench, &large.callback());
    let answer = callbacks
        .spawn(job(&module, 1, LONG), node(Answer::Now(Ok(started()))))
        .await;
    assert_eq!(
        answer,
        Err(SpawnFailure::Elsewhere(
            "the payload has 65537 bytes, of at most 65536".to_owned()
        ))
    );
}

#[tokio::test]
async fn a_fiber_ends_at_its_stack_and_an_instance_at_its_memory() {
    let deeper = |parts: Parts| {
        let body = format!(
            "(if (i32.eq (i32.load offset=72 (local.get $args)) (i32.const 13)) (then (call $worse))) {}",
            start(1_000)
        );
        Parts {
            imports: START,
            body,
            ..parts
        }
        .callback()
    };
    let recursion = Parts {
        items: "(func $worse (call $worse))".to_owned(),
        ..Parts::default()
    };
    let allocation = Parts {
        items: "(func $worse (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)".to_owned(),
        ..Parts::default()
    };
    for (parts, limit) in [
        (recursion, "(limit stack_bytes)"),
        (allocation, "(limit memory_bytes)"),
    ] {
        let bench = bench(patient());
        let (callbacks, module) = callbacks(&bench, &deeper(parts));
        let node = node(Answer::Now(Ok(started())));
        for _ in 0..3 {
            let answer = callbacks.spawn(job(&module, 13, LONG), node.clone()).await;
            assert!(
                matches!(&answer, Err(SpawnFailure::Elsewhere(reason)) if reason.contains(limit)),
                "{answer:?}"
            );
            assert_eq!(
                callbacks.spawn(job(&module, 1, LONG), node.clone()).await,
                Ok(started())
            );
        }
    }
}

#[tokio::test]
async fn a_module_that_is_not_loaded_goes_elsewhere() {
    let bench = bench(patient());
    let callbacks = Callbacks::new(Arc::clone(&bench.sandbox));
    let module = support::module("starter", b"unknown", "{}");
    let answer = callbacks
        .spawn(job(&module, 1, LONG), node(Answer::Never))
        .await;
    assert_eq!(
        answer,
        Err(SpawnFailure::Elsewhere(
            "callback starter@3 is not loaded on this host".to_owned()
        ))
    );
}

#[tokio::test]
async fn look_ups_are_sixteen_a_spawn() {
    let imports = r#"(import "maitred:policy/node@0.2.0" "start" (func $start (param i32 i32 i32 i32)))
        (import "maitred:policy/records@0.2.0" "get" (func $get (param i32 i32 i32 i32 i32)))"#;
    let get = "(call $get (i32.load (local.get $args)) (i32.load offset=4 (local.get $args))
        (i32.load offset=8 (local.get $args)) (i32.load offset=12 (local.get $args)) (i32.const 2048))";
    // 16 are found, the 17th is not.
    let body = format!(
        "{} (if (i32.ne (i32.load8_u (i32.const 2048)) (i32.const 1)) (then unreachable))
         {get} (if (i32.ne (i32.load8_u (i32.const 2048)) (i32.const 0)) (then unreachable)) {}",
        get.repeat(16),
        start(1_000)
    );
    let bench = bench(patient());
    let (callbacks, module) = callbacks(
        &bench,
        &Parts {
            imports,
            body,
            ..Parts::default()
        }
        .callback(),
    );
    let node = node(Answer::Now(Ok(started())));
    for round in 1..=2 {
        assert_eq!(
            callbacks.spawn(job(&module, 1, LONG), node.clone()).await,
            Ok(started())
        );
        assert_eq!(node.lookups.load(Relaxed), 16 * round);
    }
}

#[tokio::test]
async fn a_callback_whose_spawns_wait_leaves_room_for_the_others() {
    let bench = bench(Limits {
        callback_instances: 4,
        ..patient()
    });
    let (callbacks, slow) = callbacks(&bench, &unlucky("unreachable"));
    let good = bench.load("good", ModuleKind::Callback, &prebuilt("start"), "{}");
    let never = node(Answer::Never);
    let waiting =
        [(); 4].map(|()| tokio::spawn(callbacks.spawn(job(&slow, 1, LONG), never.clone())));
    while never.payloads.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let spawn = callbacks.spawn(job(&good, 1, LONG), node(Answer::Now(Ok(started()))));
    let answer = tokio::time::timeout(Duration::from_secs(1), spawn).await;
    assert_eq!(answer, Ok(Ok(started())));
    assert_eq!(never.payloads.lock().unwrap().len(), 2);
    waiting.iter().for_each(|one| one.abort());
}

#[tokio::test]
async fn instances_are_limited_and_shared() {
    let bench = bench(Limits {
        callback_instances: 2,
        ..patient()
    });
    let (callbacks, module) = callbacks(&bench, &prebuilt("start"));
    let gate = Arc::new(Semaphore::new(0));
    let held = node(Answer::Gate(Arc::clone(&gate)));
    let running = tokio::spawn(callbacks.spawn(job(&module, 1, LONG), held.clone()));
    while held.payloads.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    // A second one of the same callback waits: until its deadline, or until one is free.
    let late = callbacks
        .spawn(
            job(&module, 1, Duration::from_millis(50)),
            node(Answer::Now(Ok(started()))),
        )
        .await;
    let Err(SpawnFailure::Elsewhere(reason)) = late else {
        panic!("{late:?}")
    };
    assert!(reason.contains("(limit callback_instances)"), "{reason}");
    gate.add_permits(1);
    assert_eq!(running.await.unwrap(), Ok(started()));
    // Two instances lie idle, which is all there may be: another module's spawn takes the place of one.
    let node = node(Answer::Now(Ok(started())));
    for name in ["second", "third"] {
        let other = unlucky(&format!("unreachable (; {name} ;)"));
        let other = bench.load(name, ModuleKind::Callback, &other, "{}");
        let answer = callbacks.spawn(job(&other, 1, LONG), node.clone()).await;
        assert_eq!(answer, Ok(started()));
    }
    // A spawn that is abandoned half-way gives its place back.
    for _ in 0..4 {
        let abandoned = callbacks.spawn(job(&module, 1, LONG), self::node(Answer::Never));
        assert!(
            tokio::time::timeout(Duration::from_millis(20), abandoned)
                .await
                .is_err()
        );
    }
    assert_eq!(
        callbacks.spawn(job(&module, 1, LONG), node).await,
        Ok(started())
    );
}

//! What a callback may do besides one start: tries, stops and pauses, and its hooks.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maitred_protocol::{Incarnation, ModuleKind, NodeName, ProcessKey};
use maitred_registry::decide::ModuleRef;
use maitred_sandbox::{
    Advice, BoxFuture, CallbackJob, Callbacks, Ended, EndedJob, Limits, NodeFailure, NodePort,
    Placement, Process, RecordsPort, SpawnFailure, SpawnRequest, Started,
};
use support::guests::{GET, Parts, START, start};
use support::{Bench, bench, patient};

/// What the node was told, in order.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Start(u32),
    Stop,
    Lookup,
}

/// A node that is busy so many times, then starts; or never answers; or is the host's own bug.
#[derive(Default)]
struct Node {
    busy: u32,
    mute: bool,
    panics: bool,
    told: Mutex<Vec<Told>>,
}

impl Node {
    fn busy(times: u32) -> Arc<Self> {
        Arc::new(Self {
            busy: times,
            ..Self::default()
        })
    }

    fn tell(&self, told: Told) -> usize {
        assert!(!self.panics, "on purpose");
        let mut all = self.told.lock().unwrap();
        all.push(told);
        all.len()
    }
}

impl NodePort for Node {
    fn start(
        &self,
        _: Vec<u8>,
        within: Duration,
        attempt: u32,
    ) -> BoxFuture<'_, Result<Started, NodeFailure>> {
        let calls = self.tell(Told::Start(attempt)) as u32;
        if self.mute {
            return Box::pin(async move {
                tokio::time::sleep(2 * within).await;
                Err(NodeFailure::Failed("too late".to_owned()))
            });
        }
        Box::pin(ready(if calls <= self.busy {
            Err(NodeFailure::Busy("full".to_owned()))
        } else {
            Ok(Started {
                pid: "17".to_owned(),
                share: Vec::new(),
            })
        }))
    }

    fn stop(&self, _: Duration) -> BoxFuture<'_, Result<(), NodeFailure>> {
        self.tell(Told::Stop);
        Box::pin(ready(Ok(())))
    }

    fn lookup(&self, _: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        Box::pin(ready(None))
    }
}

impl RecordsPort for Node {
    fn lookup(&self, _: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        self.tell(Told::Lookup);
        Box::pin(ready(None))
    }
}

const STOP: &str = r#"(import "maitred:policy/node@0.2.0" "stop" (func $stop (param i32 i32)))"#;
const PAUSE: &str = r#"(import "maitred:policy/node@0.2.0" "pause" (func $pause (param i32)))"#;

const LONG: Duration = Duration::from_secs(60);

fn job(module: &ModuleRef, within: Duration) -> CallbackJob {
    CallbackJob {
        module: module.clone(),
        request: SpawnRequest {
            key: ProcessKey::new("player", "p1").unwrap(),
            args: b"map=3".to_vec(),
            group: None,
            requester: None,
            previous: Some(NodeName::new("node-7").unwrap()),
            demand: 1,
            priority: 0,
            attempt: 1,
            seed: 1,
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

fn callbacks(bench: &Bench, parts: &Parts) -> (Callbacks, ModuleRef) {
    let module = bench.load("starter", ModuleKind::Callback, &parts.callback(), "{}");
    (Callbacks::new(Arc::clone(&bench.sandbox)), module)
}

fn leaked(text: String) -> &'static str {
    text.leak()
}

/// Starts until the node does, `times` at most; the last answer is the callback's.
fn persistent(times: u32) -> Parts {
    let body = format!(
        "(loop $again
           (call $start (i32.const 0) (i32.const 6) (i32.const 60000) (i32.const 1024))
           (local.set $n (i32.add (local.get $n) (i32.const 1)))
           (br_if $again (i32.and (i32.load8_u (i32.const 1024)) (i32.lt_u (local.get $n) (i32.const {times})))))
         (if (i32.load8_u (i32.const 1024)) (then (i32.store8 (i32.const 1028) (i32.const 0))))
         (i32.const 1024)"
    );
    Parts {
        imports: START,
        body,
        ..Parts::default()
    }
}

#[tokio::test]
async fn a_refused_start_may_be_tried_again_sixteen_times() {
    let bench = bench(patient());
    let (callbacks, module) = callbacks(&bench, &persistent(20));
    let node = Node::busy(3);
    let started = callbacks.spawn(job(&module, LONG), node.clone()).await;
    assert_eq!(started.unwrap().pid, "17");
    let tries = |count| (1..=count).map(Told::Start).collect::<Vec<_>>();
    assert_eq!(*node.told.lock().unwrap(), tries(4));
    // The next spawn begins with the first try.
    let node = Node::busy(99);
    let refused = callbacks.spawn(job(&module, LONG), node.clone()).await;
    let reason = "the node refused all 16 tries of this spawn".to_owned();
    assert_eq!(refused, Err(SpawnFailure::Elsewhere(reason)));
    assert_eq!(*node.told.lock().unwrap(), tries(16));
}

#[tokio::test]
async fn a_start_without_an_answer_is_asked_for_again_under_its_number() {
    let bench = bench(patient());
    let mut parts = persistent(3);
    parts.body = parts.body.replace("(i32.const 60000)", "(i32.const 5)");
    let (callbacks, module) = callbacks(&bench, &parts);
    let node = Arc::new(Node {
        mute: true,
        ..Node::default()
    });
    let refused = callbacks.spawn(job(&module, LONG), node.clone()).await;
    let reason = "no answer within 5 ms".to_owned();
    assert_eq!(refused, Err(SpawnFailure::Elsewhere(reason)));
    assert_eq!(*node.told.lock().unwrap(), [1, 1, 1].map(Told::Start));
}

#[tokio::test]
async fn a_start_can_be_undone() {
    let bench = bench(patient());
    // Starts, stops, and gives up with the reason "tester".
    let body = "(call $start (i32.const 0) (i32.const 6) (i32.const 1000) (i32.const 1024))
         (call $stop (i32.const 1000) (i32.const 2048))
         (if (i32.load8_u (i32.const 2048)) (then unreachable))
         (i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 1))
         (i32.store (i32.const 1032) (i32.const 0)) (i32.store (i32.const 1036) (i32.const 6)) (i32.const 1024)";
    let parts = Parts {
        imports: leaked(format!("{START} {STOP}")),
        body: body.to_owned(),
        ..Parts::default()
    };
    let (callbacks, module) = callbacks(&bench, &parts);
    let node = Node::busy(0);
    let answer = callbacks.spawn(job(&module, LONG), node.clone()).await;
    assert_eq!(answer, Err(SpawnFailure::GiveUp("tester".to_owned())));
    assert_eq!(*node.told.lock().unwrap(), [Told::Start(1), Told::Stop]);
}

#[tokio::test]
async fn a_pause_is_no_computing_and_ends_with_the_deadline() {
    let bench = bench(Limits {
        spawn_ms: 100,
        ..patient()
    });
    let pausing = |ms: u32| Parts {
        imports: leaked(format!("{START} {PAUSE}")),
        body: format!("(call $pause (i32.const {ms})) {}", start(60_000)),
        ..Parts::default()
    };
    let (callbacks, module) = callbacks(&bench, &pausing(300));
    let begun = Instant::now();
    let answer = callbacks.spawn(job(&module, LONG), Node::busy(0)).await;
    assert!(
        answer.is_ok() && begun.elapsed() >= Duration::from_millis(300),
        "{answer:?}"
    );
    let guest = pausing(10_000).callback();
    let module = bench.load("lazy", ModuleKind::Callback, &guest, "{}");
    let begun = Instant::now();
    let answer = callbacks
        .spawn(job(&module, Duration::from_millis(50)), Node::busy(0))
        .await;
    let reason = "the create's deadline has passed".to_owned();
    assert_eq!(answer, Err(SpawnFailure::Elsewhere(reason)));
    assert!(begun.elapsed() < Duration::from_secs(9));
}

/// A callback with all three hooks.
fn hooked(hooks: [&str; 3]) -> Parts {
    Parts {
        imports: leaked(format!("{START} {GET} {PAUSE}")),
        items: r#"(data (i32.const 600) "\00\01\02")"#.to_owned(),
        describe: "(i32.store (i32.const 336) (i32.const 600)) (i32.store (i32.const 340) (i32.const 3)) (i32.const 320)".to_owned(),
        body: start(1_000),
        hooks: hooks.map(str::to_owned),
        ..Parts::default()
    }
}

/// An advice, by its number and its words.
fn advice(case: u32, a: &str, b: &str) -> String {
    format!(
        "(i32.store8 (i32.const 1600) (i32.const {case})) (i32.store (i32.const 1604) {a})
         (i32.store (i32.const 1608) {b}) (i32.const 1600)"
    )
}

fn ended(module: &ModuleRef) -> EndedJob {
    EndedJob {
        module: module.clone(),
        ended: Ended {
            key: ProcessKey::new("player", "p1").unwrap(),
            group: Some("party".to_owned()),
            node: NodeName::new("node-1").unwrap(),
            incarnation: Incarnation(42),
            reason: "out of memory".to_owned(),
            times: 250,
            lasted_ms: 7_000,
            seed: 1,
            time_s: 1_700_000_000,
        },
        deadline: Instant::now() + LONG,
    }
}

#[tokio::test]
async fn hooks_advise_from_what_they_are_told() {
    let bench = bench(patient());
    let number = "(i32.const 0)";
    // The layout of `ended`: `times` is at 52, after five texts and the group.
    let times = "(i32.load offset=52 (local.get $args))";
    for (body, expected) in [
        (advice(0, number, number), Advice::Usual),
        (advice(1, number, number), Advice::Here),
        (advice(2, number, number), Advice::Elsewhere),
        (advice(3, times, number), Advice::BackOff(250)),
        (
            advice(
                4,
                "(i32.load offset=44 (local.get $args))",
                "(i32.load offset=48 (local.get $args))",
            ),
            Advice::GiveUp("out of memory".to_owned()),
        ),
    ] {
        let bad = advice(3, "(i32.const 9)", number);
        let (callbacks, module) = callbacks(&bench, &hooked(["", &body, &bad]));
        let advised = callbacks.on_node_lost(ended(&module), Node::busy(0)).await;
        assert_eq!(advised, Ok(expected));
        let advised = callbacks.on_exit(ended(&module), Node::busy(0)).await;
        let error = advised.unwrap_err();
        assert_eq!(
            error,
            "callback starter@3 advised to wait 9 ms, of 10 to 600000"
        );
    }
}

#[tokio::test]
async fn a_hook_that_is_not_named_is_not_called() {
    let bench = bench(patient());
    let mute = Parts {
        hooks: ["unreachable"; 3].map(str::to_owned),
        imports: START,
        body: start(1_000),
        ..Parts::default()
    };
    let (callbacks, module) = callbacks(&bench, &mute);
    let node = Node::busy(0);
    let lost = callbacks.on_node_lost(ended(&module), node.clone()).await;
    let exit = callbacks.on_exit(ended(&module), node.clone()).await;
    assert_eq!((lost, exit), (Ok(Advice::Usual), Ok(Advice::Usual)));
    let undone = callbacks
        .compensate(job(&module, LONG), "late".to_owned(), node)
        .await;
    assert_eq!(undone, Ok(()));
    assert_eq!(callbacks.counters()[0].failed, 0);
}

#[tokio::test]
async fn compensation_may_look_up_and_start_nothing() {
    let bench = bench(patient());
    // Looks its process up, and finds that it can start nothing: `failed` is 1.
    let compensate = "(call $get (i32.load (local.get $args)) (i32.load offset=4 (local.get $args))
           (i32.load offset=8 (local.get $args)) (i32.load offset=12 (local.get $args)) (i32.const 2048))
         (call $start (i32.const 0) (i32.const 6) (i32.const 1000) (i32.const 1024))
         (if (i32.ne (i32.load8_u (i32.const 1028)) (i32.const 1)) (then unreachable))
         ;; The reason comes last, after the placement.
         (if (i32.ne (i32.load offset=108 (local.get $args)) (i32.const 4)) (then unreachable))";
    let usual = advice(0, "(i32.const 0)", "(i32.const 0)");
    let (callbacks, module) = callbacks(&bench, &hooked([compensate, &usual, &usual]));
    let node = Node::busy(0);
    let undone = callbacks.compensate(job(&module, LONG), "late".to_owned(), node.clone());
    assert_eq!(undone.await, Ok(()));
    assert_eq!(*node.told.lock().unwrap(), [Told::Lookup]);
}

#[tokio::test]
async fn a_hook_does_not_pause() {
    let bench = bench(patient());
    let usual = advice(0, "(i32.const 0)", "(i32.const 0)");
    let pausing = "(call $pause (i32.const 10000))";
    let asked = format!("{pausing} {usual}");
    let (callbacks, module) = callbacks(&bench, &hooked([pausing, &asked, &asked]));
    let node = Node::busy(0);
    let begun = Instant::now();
    let lost = callbacks.on_node_lost(ended(&module), node.clone()).await;
    let exit = callbacks.on_exit(ended(&module), node.clone()).await;
    assert_eq!((lost, exit), (Ok(Advice::Usual), Ok(Advice::Usual)));
    let undone = callbacks.compensate(job(&module, LONG), "late".to_owned(), node);
    assert_eq!(undone.await, Ok(()));
    assert!(begun.elapsed() < Duration::from_secs(9));
}

#[tokio::test]
async fn a_panic_of_the_host_is_an_answer_and_costs_one_instance() {
    let bench = bench(Limits {
        callback_instances: 1,
        ..patient()
    });
    let look_up = "(call $get (i32.load (local.get $args)) (i32.load offset=4 (local.get $args))
           (i32.load offset=8 (local.get $args)) (i32.load offset=12 (local.get $args)) (i32.const 2048))";
    let usual = advice(0, "(i32.const 0)", "(i32.const 0)");
    let asked = format!("{look_up} {usual}");
    let (callbacks, module) = callbacks(&bench, &hooked([look_up, &asked, &asked]));
    let bad = Arc::new(Node {
        panics: true,
        ..Node::default()
    });
    let bug = "callback starter@3 made the sandbox fail, which is a bug; the log says more";
    let spawned = callbacks.spawn(job(&module, LONG), bad.clone()).await;
    assert_eq!(spawned, Err(SpawnFailure::Elsewhere(bug.to_owned())));
    let lost = callbacks.on_node_lost(ended(&module), bad.clone()).await;
    assert_eq!(lost, Err(bug.to_owned()));
    let undone = callbacks.compensate(job(&module, LONG), "late".to_owned(), bad);
    assert_eq!(undone.await, Err(bug.to_owned()));
    let counters = callbacks.counters().remove(0);
    assert_eq!((counters.calls, counters.failed), (3, 3));
    let started = callbacks.spawn(job(&module, LONG), Node::busy(0)).await;
    assert_eq!(started.unwrap().pid, "17");
}

#[tokio::test]
async fn a_hook_that_fails_is_counted_and_advises_nothing() {
    let bench = bench(Limits {
        spawn_ms: 50,
        ..patient()
    });
    let usual = advice(0, "(i32.const 0)", "(i32.const 0)");
    let endless = "(loop $ever (br $ever)) unreachable";
    let (callbacks, module) = callbacks(&bench, &hooked(["unreachable", endless, &usual]));
    let node = Node::busy(0);
    let lost = callbacks.on_node_lost(ended(&module), node.clone()).await;
    assert_eq!(
        lost.unwrap_err(),
        "callback starter@3 on-node-lost computed for more than 50 ms (limit spawn_ms)"
    );
    let undone = callbacks.compensate(job(&module, LONG), "late".to_owned(), node.clone());
    let reason = undone.await.unwrap_err();
    assert!(reason.starts_with("callback starter@3 trapped"), "{reason}");
    let exit = callbacks.on_exit(ended(&module), node.clone()).await;
    assert_eq!(exit, Ok(Advice::Usual));
    let counters = callbacks.counters().remove(0);
    assert_eq!(
        (counters.calls, counters.failed, counters.timeouts),
        (3, 1, 1)
    );
    assert!(callbacks.spawn(job(&module, LONG), node).await.is_ok());
}

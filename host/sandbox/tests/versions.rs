//! Components of the WIT 0.1.0, built by the SDK of that time: they are accepted, and decide, start
//! and examine as they did, beside those of today.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maitred_protocol::{Incarnation, ModuleKind, NodeEpoch, NodeName, ProcessKey};
use maitred_registry::decide::ModuleRef;
use maitred_sandbox::{
    Advice, BoxFuture, CallbackJob, Callbacks, Ended, EndedJob, FenceJob, Fences, Lanes, LostNode,
    NodeFailure, NodePort, Placement, Process, RecordsPort, Rehearsal, SpawnFailure, SpawnRequest,
    Started, Verdict,
};
use support::guests::component;
use support::{batch, bench, cause, decided, fleet, jobs, module, old, patient};

const GUESTS: [(&str, ModuleKind); 4] = [
    ("least-loaded", ModuleKind::Selector),
    ("spread", ModuleKind::Selector),
    ("start", ModuleKind::Callback),
    ("witness", ModuleKind::Fence),
];

/// A node that is busy the first time that it is told of a try, and says so again to the same one.
#[derive(Default)]
struct Busy(Mutex<Vec<u32>>);

impl NodePort for Busy {
    fn start(
        &self,
        _: Vec<u8>,
        _: Duration,
        attempt: u32,
    ) -> BoxFuture<'_, Result<Started, NodeFailure>> {
        self.0.lock().unwrap().push(attempt);
        Box::pin(ready(if attempt == 1 {
            Err(NodeFailure::Busy("full".to_owned()))
        } else {
            Ok(Started {
                pid: "17".to_owned(),
                share: Vec::new(),
            })
        }))
    }

    fn stop(&self, _: Duration) -> BoxFuture<'_, Result<(), NodeFailure>> {
        Box::pin(ready(Ok(())))
    }

    fn lookup(&self, _: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        Box::pin(ready(None))
    }
}

struct Ready;

impl NodePort for Ready {
    fn start(
        &self,
        payload: Vec<u8>,
        _: Duration,
        attempt: u32,
    ) -> BoxFuture<'_, Result<Started, NodeFailure>> {
        assert_eq!((payload.as_slice(), attempt), (&b"map=3"[..], 1));
        Box::pin(ready(Ok(Started {
            pid: "17".to_owned(),
            share: vec![1],
        })))
    }

    fn stop(&self, _: Duration) -> BoxFuture<'_, Result<(), NodeFailure>> {
        Box::pin(ready(Ok(())))
    }

    fn lookup(&self, _: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        Box::pin(ready(None))
    }
}

impl RecordsPort for Ready {
    fn lookup(&self, _: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        Box::pin(ready(None))
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn they_are_accepted_and_say_what_they_are() {
    let bench = bench(patient());
    for (name, kind) in GUESTS {
        let guest = old(name);
        let inspected = bench.sandbox.inspect(kind, &guest, |_| ()).unwrap();
        assert!(inspected.title.starts_with(name), "{inspected:?}");
        assert_eq!(
            (inspected.abi.as_str(), inspected.notes.len()),
            ("0.1.0", 0)
        );
        assert!(inspected.hooks.is_empty() && inspected.terms.is_empty());
        // Every configuration will do that it can be described with.
        let module = bench.load(name, kind, &guest, "{}");
        bench.sandbox.validate(&module.digest, "{}").unwrap();
    }
}

#[test]
fn a_selector_decides_as_it_did() {
    let bench = bench(patient());
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let module = bench.load("old", ModuleKind::Selector, &old("least-loaded"), "{}");
    let mut level = fleet(4, 1);
    level
        .live
        .iter_mut()
        .for_each(|live| (live.processes, live.used) = (5, 5));
    let decisions = decided(&lanes, batch(&module, level, jobs(8, 1)));
    let mut per_node = [0; 4];
    for decision in &decisions {
        assert_eq!(cause(decision), None);
        per_node[decision.trace.chosen.unwrap() as usize] += 1;
    }
    assert_eq!(per_node, [2; 4]);
}

#[test]
fn a_selector_is_rehearsed() {
    let bench = bench(patient());
    let guest = old("spread");
    let rehearsal = Rehearsal::new(&bench.sandbox, module("old", &guest, "{}"), &guest).unwrap();
    let fleet = Arc::new(fleet(20, 3));
    let one = rehearsal.consider(&fleet, &jobs(1, 7)[0], 1_700_000_000);
    assert!(
        one.fuel > 0 && one.steady && one.failed.is_none(),
        "{one:?}"
    );
}

fn job(module: &ModuleRef) -> CallbackJob {
    CallbackJob {
        module: module.clone(),
        request: SpawnRequest {
            key: ProcessKey::new("player", "p1").unwrap(),
            args: b"map=3".to_vec(),
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
            node: NodeName::new("node-1").unwrap(),
            address: "10.0.0.1:7000".to_owned(),
            incarnation: Incarnation(42),
        },
        deadline: soon(),
    }
}

/// A callback of 0.1 that starts so often, and answers what it is answered last.
fn starting(times: u32) -> Vec<u8> {
    let core = format!(
        r#"(module
          (import "maitred:policy/node@0.1.0" "start" (func $start (param i32 i32 i32 i32)))
          (memory (export "memory") 1)
          (global $next (mut i32) (i32.const 4096))
          (data (i32.const 16) "old1.0")
          (data (i32.const 32) "\10\00\00\00\03\00\00\00\13\00\00\00\03\00\00\00")
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
            (global.set $next (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
          (func (export "maitred:policy/callback@0.1.0#describe") (result i32) (i32.const 32))
          (func (export "maitred:policy/callback@0.1.0#spawn") (param i32) (result i32)
            (local $left i32)
            (local.set $left (i32.const {times}))
            (loop $again
              (call $start (i32.const 16) (i32.const 6) (i32.const 1000) (i32.const 1024))
              (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (if (i32.load8_u (i32.const 1024)) (then (i32.store8 (i32.const 1028) (i32.const 0))))
            (global.set $next (i32.const 4096))
            (i32.const 1024)))"#
    );
    let wit = include_str!("../../../wit/0.1.0/policy.wit");
    component(&core, wit, "callback-module")
}

#[tokio::test]
async fn a_callback_that_starts_again_hears_the_first_answer_again() {
    const TIMES: u32 = 20;
    let bench = bench(patient());
    let callbacks = Callbacks::new(Arc::clone(&bench.sandbox));
    let module = bench.load("old", ModuleKind::Callback, &starting(TIMES), "{}");
    let node = Arc::<Busy>::default();
    let refused = callbacks.spawn(job(&module), node.clone()).await;
    assert_eq!(refused, Err(SpawnFailure::Elsewhere("full".to_owned())));
    assert_eq!(*node.0.lock().unwrap(), [1; TIMES as usize]);
}

#[tokio::test]
async fn a_callback_starts_and_has_no_hooks() {
    let bench = bench(patient());
    let callbacks = Callbacks::new(Arc::clone(&bench.sandbox));
    let module = bench.load("old", ModuleKind::Callback, &old("start"), "{}");
    let job = job(&module);
    let started = callbacks.spawn(job.clone(), Arc::new(Ready)).await.unwrap();
    assert_eq!((started.pid.as_str(), started.share), ("17", vec![1]));
    let undone = callbacks.compensate(job, "given up".to_owned(), Arc::new(Ready));
    assert_eq!(undone.await, Ok(()));
    let ended = Ended {
        key: ProcessKey::new("player", "p1").unwrap(),
        group: None,
        node: NodeName::new("node-1").unwrap(),
        incarnation: Incarnation(42),
        reason: String::new(),
        times: 1,
        lasted_ms: 5,
        seed: 1,
        time_s: 1_700_000_000,
    };
    let job = EndedJob {
        module,
        ended,
        deadline: soon(),
    };
    let lost = callbacks.on_node_lost(job.clone(), Arc::new(Ready)).await;
    let exit = callbacks.on_exit(job, Arc::new(Ready)).await;
    assert_eq!((lost, exit), (Ok(Advice::Usual), Ok(Advice::Usual)));
}

#[tokio::test]
async fn a_fence_knows_nothing_without_a_witness() {
    let bench = bench(patient());
    let fences = Fences::new(Arc::clone(&bench.sandbox));
    let module = bench.load("old", ModuleKind::Fence, &old("witness"), "{}");
    let job = FenceJob {
        module,
        lost: LostNode {
            node: NodeName::new("node-1").unwrap(),
            epoch: NodeEpoch(7),
            address: "10.0.0.1:7000".to_owned(),
            labels: vec![("zone".to_owned(), "north".to_owned())],
            lost_for_ms: 3_000,
            attempt: 1,
            seed: 1,
            time_s: 1_700_000_000,
        },
        deadline: soon(),
    };
    let verdict = fences.examine(job, Arc::new(Ready)).await.unwrap();
    assert!(
        matches!(verdict, Verdict::AliveOrUnknown { .. }),
        "{verdict:?}"
    );
}

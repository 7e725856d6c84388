//! Components of the WIT 0.1.0, built by the SDK of that time: they are accepted, and decide, start
//! and examine as they did, beside those of today.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{Incarnation, ModuleKind, NodeEpoch, NodeName, ProcessKey};
use maitred_sandbox::{
    Advice, BoxFuture, CallbackJob, Callbacks, Ended, EndedJob, FenceJob, Fences, Lanes, LostNode,
    NodeFailure, NodePort, Placement, Process, RecordsPort, Rehearsal, SpawnRequest, Started,
    Verdict,
};
use support::{batch, bench, cause, decided, fleet, jobs, module, old, patient};

const GUESTS: [(&str, ModuleKind); 4] = [
    ("least-loaded", ModuleKind::Selector),
    ("spread", ModuleKind::Selector),
    ("start", ModuleKind::Callback),
    ("witness", ModuleKind::Fence),
];

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

#[tokio::test]
async fn a_callback_starts_and_has_no_hooks() {
    let bench = bench(patient());
    let callbacks = Callbacks::new(Arc::clone(&bench.sandbox));
    let module = bench.load("old", ModuleKind::Callback, &old("start"), "{}");
    let job = CallbackJob {
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
    };
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

//! Fences and the records that they read: verdicts arrive, whatever fails proves nothing, and an
//! instance that failed is not met again.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::future::{pending, ready};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maitred_protocol::{Incarnation, ModuleKind, NodeEpoch, NodeName, ProcessKey};
use maitred_registry::decide::ModuleRef;
use maitred_sandbox::{
    BoxFuture, FenceJob, Fences, Inspected, Limits, LostNode, ModuleError, Process, RecordsPort,
    Stage, Verdict,
};
use support::guests::{GET, Parts, START, dead, policy, unknown};
use support::{Bench, bench, patient, prebuilt};
use tokio::sync::Semaphore;

/// A registry that answers as the test wants, and keeps what it was asked.
struct Records {
    answer: Answer,
    asked: Mutex<Vec<ProcessKey>>,
}

enum Answer {
    Now(Option<Process>),
    /// When the test lets it.
    Gate(Semaphore),
    Never,
}

impl RecordsPort for Records {
    fn lookup(&self, key: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        self.asked.lock().unwrap().push(key);
        match &self.answer {
            Answer::Now(answer) => Box::pin(ready(answer.clone())),
            Answer::Gate(gate) => Box::pin(async {
                gate.acquire().await.unwrap().forget();
                None
            }),
            Answer::Never => Box::pin(pending()),
        }
    }
}

fn records(answer: Answer) -> Arc<Records> {
    Arc::new(Records {
        answer,
        asked: Mutex::default(),
    })
}

fn nothing() -> Arc<Records> {
    records(Answer::Now(None))
}

/// What a watcher has registered.
fn registered(share: &[u8]) -> Process {
    Process {
        node: "watcher".to_owned(),
        address: "10.0.0.9:7000".to_owned(),
        pid: "1".to_owned(),
        share: share.to_vec(),
        incarnation: Incarnation(5),
        running: true,
    }
}

fn job(module: &ModuleRef, seed: u32, within: Duration) -> FenceJob {
    FenceJob {
        module: module.clone(),
        lost: LostNode {
            node: NodeName::new("node-1").unwrap(),
            epoch: NodeEpoch(u64::MAX - 1),
            address: "10.0.0.1:7000".to_owned(),
            labels: vec![
                ("zone".to_owned(), "north".to_owned()),
                ("rack".to_owned(), "r7".to_owned()),
            ],
            lost_for_ms: 3_000,
            attempt: 200,
            seed,
            time_s: 1_700_000_000,
        },
        deadline: Instant::now() + within,
    }
}

const LONG: Duration = Duration::from_secs(60);

const UNKNOWN: Result<Verdict, String> = Ok(Verdict::AliveOrUnknown { retry_ms: 100 });

fn fences(bench: &Bench, guest: &[u8]) -> (Fences, ModuleRef) {
    let module = bench.load("watcher", ModuleKind::Fence, guest, "{}");
    (Fences::new(Arc::clone(&bench.sandbox)), module)
}

/// What a fence of this body answers.
async fn answered(body: &str) -> Result<Verdict, String> {
    let bench = bench(patient());
    let (fences, module) = fences(&bench, &Parts::body(body).fence());
    fences.examine(job(&module, 1, LONG), nothing()).await
}

/// A fence that does `what` when the seed is 13, and otherwise knows nothing.
fn unlucky(what: &str) -> Parts {
    Parts::body(&format!(
        "(if (i32.eq (local.get $seed) (i32.const 13)) (then {what})) {}",
        unknown("(i32.const 100)")
    ))
}

/// How a fence that meets its bad luck reads; the next examination is fine.
async fn bad_luck(what: &str, limits: Limits) -> String {
    let bench = bench(limits);
    let (fences, module) = fences(&bench, &unlucky(what).fence());
    let examine = |seed| fences.examine(job(&module, seed, LONG), nothing());
    assert_eq!(examine(12).await, UNKNOWN);
    let reason = examine(13).await.unwrap_err();
    assert_eq!(examine(14).await, UNKNOWN);
    let counters = fences.counters().remove(0);
    assert_eq!(
        (
            counters.calls,
            counters.failed + counters.timeouts + counters.refused
        ),
        (3, 1)
    );
    reason
}

#[tokio::test]
async fn witness_believes_a_watcher_and_nothing_else() {
    let bench = bench(patient());
    let (fences, module) = fences(&bench, &prebuilt("witness"));
    let unknown = Verdict::AliveOrUnknown { retry_ms: 1_000 };
    for (record, expected) in [
        (
            Some(registered(b"dead 18446744073709551614")),
            Verdict::Dead(
                "fence/node-1, registered by watcher, says: dead 18446744073709551614".to_owned(),
            ),
        ),
        (
            Some(registered(b"dead 18446744073709551613")),
            unknown.clone(),
        ),
        (Some(registered(b"dead \xff")), unknown.clone()),
        (None, unknown),
    ] {
        let records = records(Answer::Now(record));
        let got = fences.examine(job(&module, 1, LONG), records.clone()).await;
        assert_eq!(got, Ok(expected));
        assert_eq!(
            *records.asked.lock().unwrap(),
            [ProcessKey::new("fence", "node-1").unwrap()]
        );
    }
    let counters = fences.counters().remove(0);
    assert_eq!(
        (counters.calls, counters.refused, counters.failed),
        (4, 0, 0)
    );

    let configured = ModuleRef {
        config: r#"{"retry_ms": 250, "type": "watch"}"#.into(),
        ..module.clone()
    };
    let records = nothing();
    let answer = fences
        .examine(job(&configured, 1, LONG), records.clone())
        .await;
    assert_eq!(answer, Ok(Verdict::AliveOrUnknown { retry_ms: 250 }));
    assert_eq!(
        *records.asked.lock().unwrap(),
        [ProcessKey::new("watch", "node-1").unwrap()]
    );
    let wrong = ModuleRef {
        config: r#"{"retry_ms": 5}"#.into(),
        ..module
    };
    assert_eq!(
        fences.examine(job(&wrong, 1, LONG), nothing()).await,
        Err(
            "fence watcher@3 answered an error: configuration: `retry_ms` has to be a whole number from 100 to 60000"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn a_fence_is_told_everything_about_the_node() {
    let label = |offset: u32| {
        (
            format!("(i32.load offset={offset} (local.get $labels))"),
            format!("(i32.load offset={} (local.get $labels))", offset + 4),
        )
    };
    let texts = ["node", "epoch", "address"].map(|name| {
        (
            format!("(local.get ${name})"),
            format!("(local.get ${name}_len)"),
        )
    });
    let texts = texts.into_iter().chain([0, 8, 16, 24].map(label));
    let expected = [
        "node-1",
        "18446744073709551614",
        "10.0.0.1:7000",
        "zone",
        "north",
        "rack",
        "r7",
    ];
    for ((at, bytes), text) in texts.zip(expected) {
        assert_eq!(
            answered(&dead(&at, &bytes)).await,
            Ok(Verdict::Dead(text.to_owned()))
        );
    }
    for (name, retry_ms) in [("lost_for", 3_000), ("attempt", 200)] {
        assert_eq!(
            answered(&unknown(&format!("(local.get ${name})"))).await,
            Ok(Verdict::AliveOrUnknown { retry_ms })
        );
    }
    let time = answered(&unknown("(local.get $time)")).await.unwrap_err();
    assert!(time.contains("in 1700000000 ms"), "{time}");
    let labels = unknown("(i32.mul (local.get $labels_len) (i32.const 100))");
    assert_eq!(
        answered(&labels).await,
        Ok(Verdict::AliveOrUnknown { retry_ms: 200 })
    );
}

#[tokio::test]
async fn a_fence_that_hangs_is_cut() {
    let limits = Limits {
        examine_ms: 100,
        ..patient()
    };
    assert_eq!(
        bad_luck("(loop $ever (br $ever))", limits).await,
        "fence watcher@3 examine computed for more than 100 ms (limit examine_ms)"
    );
}

#[tokio::test]
async fn a_fence_that_hangs_does_not_hold_the_runtime() {
    // One thread: an examination that computes for its 500 ms must let another one pass.
    let bench = bench(patient());
    let (fences, module) = fences(&bench, &unlucky("(loop $ever (br $ever))").fence());
    let endless = tokio::spawn(fences.examine(job(&module, 13, LONG), nothing()));
    while fences.counters().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        fences.examine(job(&module, 1, LONG), nothing()).await,
        UNKNOWN
    );
    assert!(!endless.is_finished());
    assert!(endless.await.unwrap().is_err());
    assert_eq!(fences.counters()[0].timeouts, 1);
}

#[tokio::test]
async fn a_fence_that_fails_proves_nothing() {
    for (what, reason) in [
        (
            "unreachable".to_owned(),
            "trapped: wasm trap: wasm `unreachable` instruction executed",
        ),
        (
            format!("(return {})", unknown("(i32.const 99)")),
            "asked to be asked again in 99 ms, of 100 to 60000",
        ),
        (
            format!("(return {})", unknown("(i32.const 60001)")),
            "asked to be asked again in 60001 ms, of 100 to 60000",
        ),
        (
            format!("(return {})", unknown("(i32.const -1)")),
            "asked to be asked again in 4294967295 ms, of 100 to 60000",
        ),
        (
            format!("(return {})", dead("(i32.const 0)", "(i32.const 513)")),
            "answered a proof of 513 bytes, of at most 512",
        ),
        (
            // `err("tester")`.
            "(i32.store (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 0))
             (i32.store (i32.const 1032) (i32.const 6)) (return (i32.const 1024))"
                .to_owned(),
            "answered an error: tester",
        ),
    ] {
        assert_eq!(
            bad_luck(&what, patient()).await,
            format!("fence watcher@3 {reason}")
        );
    }
    // A proof of 512 bytes is one; bytes that are no text are none.
    let longest = dead("(i32.const 0)", "(i32.const 512)");
    let verdict = answered(&longest).await;
    assert!(matches!(verdict, Ok(Verdict::Dead(proof)) if proof.len() == 512));
    let no_text = "(i32.store8 (i32.const 2000) (i32.const 255))";
    let no_text = format!(
        "{no_text} (return {})",
        dead("(i32.const 2000)", "(i32.const 1)")
    );
    let reason = bad_luck(&no_text, patient()).await;
    assert!(
        reason.starts_with("fence watcher@3 failed: ") && reason.contains("utf-8"),
        "{reason}"
    );
}

#[tokio::test]
async fn look_ups_are_sixteen_an_examination() {
    let get = "(call $get (local.get $node) (local.get $node_len) (local.get $node) (local.get $node_len) (i32.const 2048))";
    let expect = |found: u32| {
        format!(
            "(if (i32.ne (i32.load8_u (i32.const 2048)) (i32.const {found})) (then unreachable))"
        )
    };
    // 16 are found, the 17th is not.
    let guest = Parts {
        imports: GET,
        ..Parts::body(&format!(
            "{} {} {get} {} {}",
            get.repeat(16),
            expect(1),
            expect(0),
            unknown("(i32.const 100)")
        ))
    };
    let bench = bench(patient());
    let (fences, module) = fences(&bench, &guest.fence());
    let records = records(Answer::Now(Some(registered(b"x"))));
    for round in 1..=2 {
        let answer = fences.examine(job(&module, 1, LONG), records.clone()).await;
        assert_eq!(answer, UNKNOWN);
        assert_eq!(records.asked.lock().unwrap().len(), 16 * round);
    }
}

#[tokio::test]
async fn a_registry_that_never_answers_costs_the_deadline_and_no_more() {
    let bench = bench(patient());
    let (fences, module) = fences(&bench, &prebuilt("witness"));
    let within = Duration::from_millis(300);
    let begun = Instant::now();
    let answer = fences.examine(job(&module, 1, within), records(Answer::Never));
    assert_eq!(
        answer.await,
        Ok(Verdict::AliveOrUnknown { retry_ms: 1_000 })
    );
    let took = begun.elapsed();
    assert!(within <= took && took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test]
async fn instances_are_limited() {
    let bench = bench(Limits {
        fence_instances: 1,
        ..patient()
    });
    let (fences, module) = fences(&bench, &prebuilt("witness"));
    let gate = records(Answer::Gate(Semaphore::new(0)));
    let running = tokio::spawn(fences.examine(job(&module, 1, LONG), gate.clone()));
    while gate.asked.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let late = fences.examine(job(&module, 1, Duration::from_millis(50)), nothing());
    assert_eq!(
        late.await,
        Err(
            "fence watcher@3 waited for an instance until the deadline (limit fence_instances)"
                .to_owned()
        )
    );
    let Answer::Gate(held) = &gate.answer else {
        unreachable!("it is a gate")
    };
    held.add_permits(1);
    let unknown = Ok(Verdict::AliveOrUnknown { retry_ms: 1_000 });
    assert_eq!(running.await.unwrap(), unknown);
    // An examination that is abandoned half-way gives its place back.
    for _ in 0..2 {
        let abandoned = fences.examine(job(&module, 1, LONG), records(Answer::Never));
        let waited = tokio::time::timeout(Duration::from_millis(20), abandoned);
        assert!(waited.await.is_err());
    }
    assert_eq!(
        fences.examine(job(&module, 1, LONG), nothing()).await,
        unknown
    );
}

#[tokio::test]
async fn only_a_loaded_fence_is_asked() {
    let bench = bench(patient());
    let fences = Fences::new(Arc::clone(&bench.sandbox));
    let unknown = support::module("watcher", b"unknown", "{}");
    let callback = bench.load("start", ModuleKind::Callback, &prebuilt("start"), "{}");
    for (module, name) in [(unknown, "watcher"), (callback, "start")] {
        assert_eq!(
            fences.examine(job(&module, 1, LONG), nothing()).await,
            Err(format!("fence {name}@3 is not loaded on this host"))
        );
    }
}

fn inspect(parts: &Parts, limits: Limits) -> Result<Inspected, ModuleError> {
    bench(limits)
        .sandbox
        .inspect(ModuleKind::Fence, &parts.fence(), |_| ())
}

#[test]
fn an_upload_is_tried() {
    let good = inspect(&unlucky(""), patient()).unwrap();
    assert_eq!(
        (good.title.as_str(), good.features, good.notes),
        ("tester 1.0", Vec::new(), Vec::new())
    );
    // What calls everything dead is accepted, and its author told.
    let liar = Parts::body(&dead("(i32.const 0)", "(i32.const 6)"));
    let notes = inspect(&liar, patient()).unwrap().notes;
    assert!(
        notes.len() == 2 && notes[0].contains("called a made-up node dead (tester)"),
        "{notes:?}"
    );
    let refused = |body: &str, limits: Limits| {
        let ModuleError { stage, reason } = inspect(&Parts::body(body), limits).unwrap_err();
        assert_eq!(stage, Stage::Trying);
        reason
    };
    let limits = Limits {
        examine_ms: 50,
        ..patient()
    };
    assert_eq!(
        refused("(loop $ever (br $ever)) unreachable", limits),
        "with no record to be found, it examine computed for more than 50 ms (limit examine_ms)"
    );
    assert!(refused("unreachable", patient()).contains("it trapped"));
    assert!(refused(&unknown("(i32.const 0)"), patient()).contains("in 0 ms, of 100 to 60000"));
    let long = dead("(i32.const 0)", "(i32.const 1000)");
    assert!(refused(&long, patient()).contains("a proof of 1000 bytes"));
}

#[test]
fn a_fence_may_not_start_anything() {
    let wit = policy().replace(
        "    export fence;\n",
        "    import node;\n    export fence;\n",
    );
    let curious = Parts {
        imports: START,
        ..unlucky("")
    };
    let inspected =
        bench(patient())
            .sandbox
            .inspect(ModuleKind::Fence, &curious.fence_of(&wit), |_| ());
    let ModuleError { stage, reason } = inspected.unwrap_err();
    assert_eq!(stage, Stage::CheckingTheWorld);
    assert_eq!(
        reason,
        "it imports maitred:policy/node@0.2.0, which a fence is not offered"
    );
}

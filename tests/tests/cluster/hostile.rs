//! Hostile selectors for one type, while others create: who leads stays, nothing fails, and the other
//! type's creates do not wait for them.
//!
//! Each guest behaves itself in the trial of its upload. What the creates of the other type cost is
//! printed beside a calm run of the same test, and not judged: machines that run tests are busy.

use std::time::{Duration, Instant};

use maitred_client::{Client, NodeHandle, NodeHandler, SpawnError, SpawnRequest, Spawned};
use maitred_protocol::{Chooser, Incarnation, ModuleKind, ModuleName, ProcessKey};

use crate::group::{Group, Options, seed};
use crate::guests::{FIRST, Parts, choose, spin};

/// Creates of each type in a run, and callers of each.
const CREATES: usize = 1_500;
const CALLERS: usize = 8;

/// In a guest: this is no trial, whose type is called `trial`.
const IN_EARNEST: &str = "(i32.ne (i32.load offset=4 (local.get $args)) (i32.const 5))";

fn in_earnest(what: &str) -> Vec<u8> {
    let body = format!("(if {IN_EARNEST} (then {what})) {}", choose(FIRST));
    Parts::body(&body).selector()
}

/// Starts everything at once.
struct Willing;

impl NodeHandler for Willing {
    async fn spawn(&self, _: SpawnRequest) -> Result<Spawned, SpawnError> {
        Ok(Spawned {
            pid: "1".to_owned(),
            share: Vec::new(),
        })
    }

    async fn stop(&self, _: ProcessKey, _: Incarnation) {}
}

/// What the creates of one type came to.
struct Took {
    times: Vec<Duration>,
    /// Of those that the fallback placed, and why.
    causes: Vec<String>,
}

impl Took {
    fn quantile(&self, permille: usize) -> Duration {
        self.times[(self.times.len() - 1) * permille / 1_000]
    }
}

/// Creates processes of a type, as many callers side by side; each must succeed.
async fn create(client: &Client, kind: &str, run: &str, selector: Option<&ModuleName>) -> Took {
    let callers = (0..CALLERS).map(|caller| {
        let (client, selector) = (client.clone(), selector.cloned());
        let (kind, run) = (kind.to_owned(), run.to_owned());
        tokio::spawn(async move {
            let mut took = Vec::new();
            for number in (caller..CREATES).step_by(CALLERS) {
                let key = ProcessKey::new(&kind, &format!("{run}-{number}")).unwrap();
                let mut create = client.create(key.clone());
                if let Some(selector) = &selector {
                    create = create.selector(selector.clone());
                }
                let begun = Instant::now();
                let created = create.send().await;
                let created = created.unwrap_or_else(|error| panic!("{key}: {error}"));
                let cause = match created.record.why.chooser {
                    Chooser::Fallback { cause, .. } => Some(cause),
                    _ => None,
                };
                took.push((begun.elapsed(), cause));
            }
            took
        })
    });
    let mut took = Took {
        times: Vec::new(),
        causes: Vec::new(),
    };
    for caller in callers.collect::<Vec<_>>() {
        for (time, cause) in caller.await.unwrap() {
            took.times.push(time);
            took.causes.extend(cause);
        }
    }
    took.times.sort_unstable();
    took
}

/// Both types at once, the second one with a selector of its own; says what it took.
async fn run(client: &Client, name: &str, selector: Option<&ModuleName>) -> (Took, Took) {
    let (calm, other) = tokio::join!(
        create(client, "calm", name, None),
        create(client, "hostile", name, selector)
    );
    for (kind, took) in [("calm", &calm), ("hostile", &other)] {
        println!(
            "{name:>8}: {kind:<8} p50 {:>9.1?} p99 {:>9.1?} max {:>9.1?}, {} of {CREATES} by the fallback",
            took.quantile(500),
            took.quantile(990),
            took.quantile(1_000),
            took.causes.len()
        );
    }
    (calm, other)
}

async fn nodes(client: &Client) -> Vec<NodeHandle> {
    let mut nodes = Vec::new();
    for name in ["n1", "n2", "n3"] {
        let node = client.node(name).address("127.0.0.1:1").capacity(1_000_000);
        nodes.push(node.start(Willing).await.unwrap());
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_selector_of_one_type_holds_up_no_other_and_no_leader() {
    let group = Group::start(seed(), Options::default()).await;
    let client = group.client().await;
    let _nodes = nodes(&client).await;
    // Connections, instances and files are warm when it counts.
    run(&client, "warm-up", None).await;
    let (leader, before) = group.whole(&client).await;
    run(&client, "calm", None).await;
    let slow = format!("(local.set $n (i32.const 0)) {}", spin(4_000_000));
    for (name, guest, says) in [
        (
            "endless",
            in_earnest("(loop $ever (br $ever))"),
            "select computed for more than 5 ms (limit select_ms)",
        ),
        ("trapping", in_earnest("unreachable"), "trapped: "),
        // Within its limits: no breaker keeps it from taking what it can.
        ("slow", in_earnest(&slow), ""),
    ] {
        let module: ModuleName = name.parse().unwrap();
        let push = client.push_module(&module, ModuleKind::Selector, &guest, |_| ());
        push.await.unwrap_or_else(|error| panic!("{error}"));
        client.activate(&module).send().await.unwrap();
        let (calm, other) = run(&client, name, Some(&module)).await;
        assert_eq!(calm.causes, Vec::<String>::new());
        if !says.is_empty() {
            assert_eq!(other.causes.len(), CREATES, "each was made by the fallback");
            let named = other.causes.iter().any(|cause| cause.contains(says));
            assert!(named, "{:?}", other.causes.first());
        }
        let (leads, after) = group.whole(&client).await;
        assert_eq!(
            (leads, after[leads].term),
            (leader, before[leader].term),
            "{name}"
        );
    }
    run(&client, "after", None).await;
}

//! The host is killed with SIGKILL at random moments under load, again and again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maitred_client::{Client, Error};
use maitred_protocol::{Incarnation, ListProcesses, ProcessKey, ProcessState};
use maitred_registry::random::Random;

use crate::host::Host;
use crate::nodes::{self, Shared};

const KILLS: usize = 50;
const CREATORS: u64 = 16;

/// What the creators were told.
#[derive(Debug, Default)]
struct Told {
    /// Creates that were acknowledged and never deleted.
    kept: BTreeMap<ProcessKey, Incarnation>,
    /// Deletes that were acknowledged.
    deleted: Vec<(ProcessKey, Incarnation)>,
    /// Creates that ended otherwise, which none should.
    failed: Vec<String>,
    ended: u64,
}

/// Creates processes one after the other, deletes every third, until told to stop.
async fn creator(
    client: Client,
    number: u64,
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicU64>,
) {
    let mut turn = 0_u64;
    while !stop.load(Relaxed) {
        turn += 1;
        let key = ProcessKey::new("player", &format!("{number}-{turn}")).unwrap();
        begun.fetch_add(1, Relaxed);
        let outcome = client
            .create(key.clone())
            .deadline(Duration::from_secs(60))
            .send()
            .await;
        let mut life = None;
        {
            let mut told = told.lock().unwrap();
            told.ended += 1;
            match outcome {
                Ok(created) => {
                    told.kept.insert(key.clone(), created.record.incarnation);
                    life = Some(created.record.incarnation);
                }
                Err(error) => told.failed.push(format!("{key}: {error}")),
            }
        }
        if let Some(life) = life
            && turn.is_multiple_of(3)
        {
            told.lock().unwrap().kept.remove(&key);
            match client.del(&key, Some(life)).await {
                Ok(_) => told.lock().unwrap().deleted.push((key, life)),
                // The change may have been made: then nothing can be said of the key.
                Err(Error::Unknown { .. } | Error::Unavailable { .. }) => {}
                Err(error) => told.lock().unwrap().failed.push(format!("{key}: {error}")),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_acknowledged_create_is_lost_and_no_key_runs_twice() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| std::process::id().into());
    println!("SEED={seed} replays the moments of the kills");
    let mut random = Random::new(seed);
    let mut host = Host::start().await;
    let truth = Shared::default();
    let nodes = nodes::start(&host, 3, &truth).await;
    let told = Arc::new(Mutex::new(Told::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(AtomicU64::new(0));
    let client = host.client().await;
    let creators: Vec<_> = (0..CREATORS)
        .map(|number| {
            let (told, stop, begun) = (Arc::clone(&told), Arc::clone(&stop), Arc::clone(&begun));
            tokio::spawn(creator(client.clone(), number, told, stop, begun))
        })
        .collect();

    for kill in 0..KILLS {
        // Every second kill may come at any moment, while the host starts too; the others wait
        // until the load flows again, or most lives would be too short to promise anything.
        if kill % 2 == 0 {
            advance(&told, 30, &host).await;
        }
        // The moment is the point.
        tokio::time::sleep(Duration::from_millis(u64::from(random.below(300)))).await;
        host.kill();
        host.spawn();
    }
    host.serves().await;
    advance(&told, 100, &host).await;
    stop.store(true, Relaxed);
    for creator in creators {
        creator.await.unwrap();
    }
    settle(&client, &host).await;
    let told = std::mem::take(&mut *told.lock().unwrap());
    check(&client, &told, &truth, begun.load(Relaxed)).await;
    for node in nodes {
        node.kill();
    }
}

/// Waits until so many more creates have ended.
async fn advance(told: &Mutex<Told>, more: u64, host: &Host) {
    let goal = told.lock().unwrap().ended + more;
    let waiting = Instant::now();
    while told.lock().unwrap().ended < goal {
        let late = waiting.elapsed() > Duration::from_secs(60);
        assert!(!late, "the load stands still\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until nothing is starting or pending any more.
async fn settle(client: &Client, host: &Host) {
    let waiting = Instant::now();
    loop {
        let status = client.status().await.unwrap();
        if status.starting + status.pending == 0 {
            return;
        }
        assert!(
            waiting.elapsed() < Duration::from_secs(60),
            "{status:?}\n{}",
            host.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn check(client: &Client, told: &Told, truth: &Shared, begun: u64) {
    assert_eq!(
        told.failed,
        Vec::<String>::new(),
        "no create fails for a restart"
    );
    assert_eq!(told.ended, begun, "every create ended");
    let records = client.list_all(ListProcesses::default()).await.unwrap();
    let by_key: BTreeMap<_, _> = records
        .iter()
        .map(|record| (record.key.clone(), record))
        .collect();
    assert_eq!(by_key.len(), records.len(), "a key is listed twice");
    for (key, life) in &told.kept {
        let record = by_key
            .get(key)
            .unwrap_or_else(|| panic!("{key} was acknowledged and is gone"));
        assert_eq!(
            record.incarnation, *life,
            "{key} has another incarnation than was acknowledged"
        );
        assert_eq!(record.state, ProcessState::Running, "{key}");
    }
    for (key, life) in &told.deleted {
        assert!(
            by_key
                .get(key)
                .is_none_or(|record| record.incarnation > *life),
            "{key} is back"
        );
    }
    // Stops are on their way to the nodes for a moment after the last delete.
    let waiting = Instant::now();
    loop {
        let truth = truth.lock().unwrap();
        assert_eq!(truth.breaches, Vec::<String>::new());
        let on_nodes = truth.running();
        let in_registry: BTreeMap<_, _> = records
            .iter()
            .map(|r| (r.key.clone(), (r.incarnation, r.node.clone())))
            .collect();
        if on_nodes == in_registry {
            println!(
                "{} creates, {} starts, {} records",
                told.ended,
                truth.started,
                records.len()
            );
            return;
        }
        let differ = |a: &BTreeMap<ProcessKey, _>, b: &BTreeMap<ProcessKey, _>| {
            a.keys()
                .filter(|key| !b.contains_key(*key))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert!(
            waiting.elapsed() < Duration::from_secs(30),
            "only on nodes: {:?}; only in the registry: {:?}",
            differ(&on_nodes, &in_registry),
            differ(&in_registry, &on_nodes)
        );
        drop(truth);
        std::thread::sleep(Duration::from_millis(50));
    }
}

//! How even creates are spread that many clients make at once, and that no node gets more than it can
//! take.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maitred_client::{Client, Error, NodeHandle, NodeHandler, SpawnError, SpawnRequest, Spawned};
use maitred_protocol::{
    Incarnation, ModuleName, ProcessKey, RefusalReason, Rejection, TypeName, TypeSpec,
};

use crate::group::PATIENCE;
use crate::host::Host;

const CLIENTS: usize = 32;
/// Creates of a client side by side.
const LANES: usize = 4;

/// Lives on each node, by the nodes' own count.
type Counts = Arc<Mutex<BTreeMap<String, usize>>>;

struct Game {
    name: String,
    counts: Counts,
}

impl NodeHandler for Game {
    async fn spawn(&self, _: SpawnRequest) -> Result<Spawned, SpawnError> {
        *self.counts.lock().unwrap().get_mut(&self.name).unwrap() += 1;
        Ok(Spawned {
            pid: "1".to_owned(),
            share: Vec::new(),
        })
    }

    async fn stop(&self, _: ProcessKey, _: Incarnation) {
        *self.counts.lock().unwrap().get_mut(&self.name).unwrap() -= 1;
    }
}

/// Starts that many nodes.
async fn nodes(client: &Client, count: usize, capacity: u32, counts: &Counts) -> Vec<NodeHandle> {
    let starts = (0..count).map(|number| {
        let (client, counts) = (client.clone(), Arc::clone(counts));
        tokio::spawn(async move {
            let name = format!("node-{number}");
            counts.lock().unwrap().insert(name.clone(), 0);
            let node = client
                .node(&name)
                .capacity(capacity)
                .ttl(Duration::from_secs(60));
            node.start(Game { name, counts }).await.unwrap()
        })
    });
    let mut nodes = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        nodes.push(start.await.unwrap());
    }
    nodes
}

/// Creates that many processes of a type, by all clients at once.
async fn create(clients: &[Client], kind: &'static str, count: usize) {
    let begun = Instant::now();
    let lanes = clients.len() * LANES;
    let creators = (0..lanes).map(|lane| {
        let client = clients[lane % clients.len()].clone();
        tokio::spawn(async move {
            for number in (lane..count).step_by(lanes) {
                let key = ProcessKey::new(kind, &number.to_string()).unwrap();
                let made = client.create(key).deadline(PATIENCE).send().await;
                assert!(made.unwrap().created);
            }
        })
    });
    for creator in creators.collect::<Vec<_>>() {
        creator.await.unwrap();
    }
    println!("{count} creates took {:.1?}", begun.elapsed());
}

async fn clients(host: &Host) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(host.client().await);
    }
    clients
}

async fn put_type(client: &Client, kind: &str, selector: &str) {
    let spec = TypeSpec {
        selector: ModuleName::new(selector).unwrap(),
        ..TypeSpec::new(TypeName::new(kind).unwrap())
    };
    client.put_type(spec).await.unwrap();
}

/// How far the fullest node is above the average, by the nodes' own count; all are there.
fn above(counts: &Counts, total: usize) -> f64 {
    let counts = counts.lock().unwrap();
    assert_eq!(counts.values().sum::<usize>(), total);
    let most = counts.values().max().copied().unwrap();
    most as f64 - total as f64 / counts.len() as f64
}

/// Creates by each selector: `CREATES`, or as many as take a few seconds. With 100,000 it is as even, and
/// takes a minute.
fn creates() -> usize {
    let given = std::env::var("CREATES").ok();
    given.map_or(10_000, |given| given.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn creates_of_many_clients_at_once_are_spread_evenly() {
    const NODES: usize = 100;
    let each = creates();
    let host = Host::start().await;
    let clients = clients(&host).await;
    let counts = Counts::default();
    let nodes = nodes(&clients[0], NODES, 10_000, &counts).await;
    put_type(&clients[0], "least", "least-loaded").await;
    put_type(&clients[0], "two", "two-choices").await;
    create(&clients, "least", each).await;
    let least = above(&counts, each);
    create(&clients, "two", each).await;
    let two = above(&counts, 2 * each);
    println!("above the average: {least} by least-loaded, {two} by two-choices");
    assert!(least <= 1.0, "{least}");
    assert!(two <= 3.0, "{two}");
    nodes.iter().for_each(NodeHandle::kill);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_there_is_room_for_is_placed_and_nothing_beyond() {
    const NODES: usize = 34;
    const CAPACITY: u32 = 300;
    const ROOM: usize = NODES * CAPACITY as usize;
    let host = Host::start().await;
    let clients = clients(&host).await;
    let counts = Counts::default();
    let nodes = nodes(&clients[0], NODES, CAPACITY, &counts).await;
    create(&clients, "room", ROOM).await;
    assert_eq!(
        above(&counts, ROOM),
        0.0,
        "every node is full and none overfull"
    );

    let key = ProcessKey::new("room", "one too many").unwrap();
    let error = clients[0].create(key).send().await.unwrap_err();
    let Error::Rejected(Rejection::NoPlacement { refusals, more, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(
        (refusals.len(), *more),
        (NODES, 0),
        "a reason for each node"
    );
    for refusal in refusals {
        let full = RefusalReason::Capacity { left: 0, demand: 1 };
        assert_eq!(refusal.reason, full, "{}", refusal.node);
    }
    assert_eq!(above(&counts, ROOM), 0.0);
    nodes.iter().for_each(NodeHandle::kill);
}

//! Users and nodes of a group at work.
//!
//! In the end nothing may be left half done, the nodes must run what the registry says, and the
//! history must be linearizable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use maitred_client::{Client, NodeHandle, ReadFrom};
use maitred_protocol::{ListProcesses, ProcessRecord, ProcessState};
use maitred_registry::random::Random;
use maitred_tests::linear::Limit;

use super::diary::{Diary, key};
use super::game::{self, Run, SharedBook};
use super::{Group, LOOK, PATIENCE};

const CALLERS: u64 = 6;
const NODES: usize = 3;

/// Users and nodes at work.
pub(crate) struct Load {
    diary: Arc<Diary>,
    book: SharedBook,
    nodes: Vec<NodeHandle>,
    clients: [Client; 2],
    callers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Sets users to work whose requests may take so long.
    pub(crate) async fn start(group: &Group, seed: u64, deadline: Duration) -> Self {
        let book = SharedBook::default();
        let client = group.client().await;
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            nodes.push(game::start(&client, &format!("node-{number}"), &book).await);
        }
        let diary = Arc::new(Diary::new(deadline));
        let clients = [
            group.client_within(deadline).await,
            group.client_within(deadline).await,
        ];
        let mut random = Random::new(seed);
        let callers = (1..=CALLERS).map(|caller| {
            let client = clients[usize::try_from(caller % 2).unwrap()].clone();
            let (diary, random) = (Arc::clone(&diary), Random::new(random.next_u64()));
            tokio::spawn(async move { diary.caller(client, caller, random).await })
        });
        let callers = callers.collect();
        Self {
            diary,
            book,
            nodes,
            clients,
            callers,
        }
    }

    /// Waits until so many more changes have been acknowledged.
    pub(crate) async fn advance(&self, more: u64) {
        let acknowledged = || self.diary.acknowledged.load(Relaxed);
        let goal = acknowledged() + more;
        let begun = Instant::now();
        while acknowledged() < goal {
            let late = begun.elapsed() > PATIENCE;
            assert!(!late, "the load stands still: {:#?}", self.failed());
            let ended = self
                .callers
                .iter()
                .any(tokio::task::JoinHandle::is_finished);
            assert!(!ended, "a caller has ended");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Creates that many processes, many at a time.
    pub(crate) async fn fill(&self, batch: usize, count: usize) {
        const SIDE_BY_SIDE: usize = 32;
        let lanes = (0..SIDE_BY_SIDE).map(|lane| {
            let (diary, client) = (Arc::clone(&self.diary), self.clients[lane % 2].clone());
            tokio::spawn(async move {
                for number in (lane..count).step_by(SIDE_BY_SIDE) {
                    let key = key(&format!("fill-{batch}-{number}"));
                    if let Some(life) = diary.create(&client, CALLERS + 1, &key).await {
                        diary.told.lock().unwrap().kept.insert(key, life);
                    }
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.unwrap();
        }
    }

    /// A create by somebody who comes just now; how long after `since` it was acknowledged.
    pub(crate) async fn next_write(&self, name: &str, since: Instant) -> Duration {
        let key = key(name);
        let made = self.diary.create(&self.clients[0], 0, &key).await;
        let took = since.elapsed();
        let life = made.unwrap_or_else(|| panic!("{key} was not created: {:#?}", self.failed()));
        self.diary.told.lock().unwrap().kept.insert(key, life);
        took
    }

    /// What had no definite answer, or one that nobody should get.
    pub(crate) fn failed(&self) -> Vec<String> {
        self.diary.told.lock().unwrap().failed.clone()
    }

    /// Ends the load, and waits until everything that was begun has ended; then all must be as it was
    /// said. What failed, for tests in which nothing may.
    pub(crate) async fn end(mut self, group: &Group) -> Vec<String> {
        self.diary.stop.store(true, Relaxed);
        for caller in std::mem::take(&mut self.callers) {
            let ended = tokio::time::timeout(PATIENCE, caller).await;
            ended.expect("every request ends").unwrap();
        }
        let client = group.client().await;
        self.settle(&client).await;
        let records = client.list_all(ListProcesses::default()).await.unwrap();
        self.check_records(&records);
        self.check_nodes(&records).await;
        self.look_again(&client).await;
        let history = self.diary.history.lock().unwrap();
        let verdict = history.check(Limit::default());
        verdict.assert();
        history.check_lives().unwrap();
        let told = self.diary.told.lock().unwrap();
        println!(
            "{} changes acknowledged, the slowest after {:.1?}; {} processes; {verdict}; {} failed: {:#?}",
            self.diary.acknowledged.load(Relaxed),
            told.slowest,
            records.len(),
            told.failed.len(),
            told.failed.iter().take(10).collect::<Vec<_>>(),
        );
        self.nodes.iter().for_each(NodeHandle::kill);
        told.failed.clone()
    }

    /// Waits until nothing is starting or pending any more.
    async fn settle(&self, client: &Client) {
        let begun = Instant::now();
        loop {
            let status = client.status().await.unwrap();
            if status.role == "leader" && status.starting + status.pending == 0 {
                return;
            }
            let late = begun.elapsed() > PATIENCE;
            assert!(!late, "creates do not end: {status:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    fn check_records(&self, records: &[ProcessRecord]) {
        let by_key: BTreeMap<_, _> = records.iter().map(|record| (&record.key, record)).collect();
        assert_eq!(by_key.len(), records.len(), "a key is listed twice");
        let told = self.diary.told.lock().unwrap();
        for (key, life) in &told.kept {
            let record = by_key.get(key);
            let record = record.unwrap_or_else(|| panic!("{key} was acknowledged and is gone"));
            assert_eq!(record.incarnation, *life, "{key} has another life");
            assert_eq!(record.state, ProcessState::Running, "{key}");
        }
        for (key, life) in &told.deleted {
            let back = by_key.get(key).is_some_and(|one| one.incarnation <= *life);
            assert!(!back, "{key} was deleted and is back");
        }
    }

    /// Waits until the nodes run what is recorded: stops are on their way for a moment.
    async fn check_nodes(&self, records: &[ProcessRecord]) {
        let recorded: Vec<_> = records
            .iter()
            .map(|one| (one.key.clone(), one.node.to_string(), one.incarnation))
            .collect();
        let begun = Instant::now();
        loop {
            let running = {
                let book = self.book.lock().unwrap();
                assert_eq!(book.breaches, Vec::<String>::new());
                book.running()
            };
            if running == recorded {
                return;
            }
            let only = |these: &[Run], those: &[Run]| {
                let alone = these.iter().filter(|one| !those.contains(one));
                alone.cloned().collect::<Vec<Run>>()
            };
            assert!(
                begun.elapsed() < PATIENCE,
                "only on nodes: {:?}; only in the registry: {:?}",
                only(&running, &recorded),
                only(&recorded, &running)
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// One more look at the keys that were fought over last, by nobody's and by any host's word.
    async fn look_again(&self, client: &Client) {
        for key in self.diary.hot_keys() {
            self.diary.get(client, 0, &key).await;
            let any = client.read_from(ReadFrom::Any);
            self.diary.get(&any, 0, &key).await;
        }
    }
}

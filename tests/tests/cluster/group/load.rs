//! Users of a group: they create, look up, change and delete, and write down what they were told.
//!
//! Half of what they do is with keys of their own, of which nothing may be lost; half is with few keys
//! that they all fight over. In the end nothing may be left half done, the nodes must run what
//! the registry says, and the history must be linearizable.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maitred_client::{Client, Error, NodeHandle, ReadFrom};
use maitred_protocol::{
    Incarnation, ListProcesses, ProcessKey, ProcessRecord, ProcessState, Rejection, SetProcess,
};
use maitred_registry::random::Random;
use maitred_tests::linear::{Answer, CallId, History, Limit, Verb, process::Sight};

use super::game::{self, Run, SharedBook};
use super::{Group, LOOK, PATIENCE};

const CALLERS: u64 = 6;
const NODES: usize = 3;
/// Keys that are fought over at a time, and turns until they are others: a search through a long
/// history of one key is long.
const HOT_KEYS: u32 = 4;
const HOT_TURNS: u64 = 200;
/// Between two turns of a caller.
const PACE: Duration = Duration::from_millis(10);

/// What the callers were told, beyond the history.
#[derive(Debug, Default)]
struct Told {
    /// Creates of own keys that were acknowledged and of which no delete was asked.
    kept: BTreeMap<ProcessKey, Incarnation>,
    /// Deletes of them that were acknowledged.
    deleted: Vec<(ProcessKey, Incarnation)>,
    /// What had no definite answer, or one that nobody should get.
    failed: Vec<String>,
    /// Times that changes took, by user's time.
    slowest: Duration,
}

/// What all callers share.
pub(crate) struct Diary {
    began: Instant,
    history: Mutex<History>,
    told: Mutex<Told>,
    stop: AtomicBool,
    turns: AtomicU64,
    /// Changes that were acknowledged.
    acknowledged: AtomicU64,
    deadline: Duration,
}

fn key(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

fn sight(record: &ProcessRecord) -> Sight {
    let running = record.state == ProcessState::Running;
    Sight {
        incarnation: record.incarnation.0,
        running: running.then(|| record.pid.as_str().into()),
    }
}

impl Diary {
    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    fn ask(&self, caller: u64, key: &ProcessKey, verb: Verb) -> CallId {
        let now_us = self.now_us();
        let mut history = self.history.lock().unwrap();
        history.invoke(now_us, caller, key.clone(), verb)
    }

    fn answered(&self, call: CallId, answer: Answer) {
        let now_us = self.now_us();
        self.history.lock().unwrap().answer(call, now_us, answer);
    }

    /// What every verb may be answered. `what` is for people.
    fn refused(&self, call: CallId, what: &str, error: &Error, begun: Instant) {
        let bad = |why: &str| {
            let took = begun.elapsed();
            let at = self.began.elapsed();
            let text = format!("{what}: {why}, after {took:.1?} at {at:.1?}: {error}");
            self.told.lock().unwrap().failed.push(text);
        };
        match error {
            Error::Rejected(Rejection::AlreadyExists(record)) => {
                self.answered(call, Answer::Found(sight(record)));
            }
            Error::Rejected(Rejection::Fenced { what, current }) if what == "incarnation" => {
                self.answered(call, Answer::Fenced(*current));
            }
            Error::Rejected(Rejection::NotFound(_)) => self.answered(call, Answer::Missing),
            Error::Rejected(why) => {
                // A start that is undone by somebody's delete is nobody's failure; time is.
                if !matches!(why, Rejection::Fenced { .. } | Rejection::Conflict(_)) {
                    bad("refused");
                }
                self.answered(call, Answer::Refused);
            }
            Error::Unavailable { .. } => {
                bad("nothing done");
                self.history.lock().unwrap().retract(call);
            }
            Error::Unknown { .. } => bad("unknown"),
            Error::Fatal(_) => panic!("{what}: {error}"),
        }
    }

    fn acknowledged(&self, begun: Instant) {
        self.acknowledged.fetch_add(1, Relaxed);
        let mut told = self.told.lock().unwrap();
        told.slowest = told.slowest.max(begun.elapsed());
    }

    /// Creates a process; its life, if it is this call's.
    pub(crate) async fn create(
        &self,
        client: &Client,
        caller: u64,
        key: &ProcessKey,
    ) -> Option<Incarnation> {
        let call = self.ask(caller, key, Verb::Create);
        let begun = Instant::now();
        let create = client.create(key.clone()).deadline(self.deadline);
        match create.send().await {
            Ok(made) if made.created => {
                self.answered(call, Answer::Created(sight(&made.record)));
                self.acknowledged(begun);
                Some(made.record.incarnation)
            }
            Ok(found) => {
                self.answered(call, Answer::Found(sight(&found.record)));
                None
            }
            Err(error) => {
                self.refused(call, &format!("create {key}"), &error, begun);
                None
            }
        }
    }

    async fn get(&self, client: &Client, caller: u64, key: &ProcessKey) -> Option<ProcessRecord> {
        let call = self.ask(caller, key, Verb::Get);
        let begun = Instant::now();
        match client.get(key).await {
            Ok(found) => {
                self.answered(call, Answer::Found(sight(&found.record)));
                Some(found.record)
            }
            Err(error) => {
                self.refused(call, &format!("get {key}"), &error, begun);
                None
            }
        }
    }

    async fn set(&self, client: &Client, caller: u64, record: ProcessRecord, pid: String) {
        let (key, life) = (record.key, record.incarnation);
        let call = self.ask(caller, &key, Verb::Set(Some(life.0), pid.clone()));
        let begun = Instant::now();
        let set = SetProcess {
            key: key.clone(),
            node: record.node,
            epoch: record.node_epoch,
            pid,
            share: Vec::new(),
            incarnation: Some(life),
        };
        match client.set(set).await {
            Ok(found) => {
                self.answered(call, Answer::Set(found.record.incarnation.0));
                self.acknowledged(begun);
            }
            Err(error) => self.refused(call, &format!("set {key}"), &error, begun),
        }
    }

    /// Whether it was acknowledged.
    async fn delete(
        &self,
        client: &Client,
        caller: u64,
        key: &ProcessKey,
        only: Option<Incarnation>,
    ) -> bool {
        let call = self.ask(caller, key, Verb::Delete(only.map(|only| only.0)));
        let begun = Instant::now();
        match client.del(key, only).await {
            Ok(_) => {
                self.answered(call, Answer::Deleted);
                self.acknowledged(begun);
                true
            }
            Err(error) => {
                self.refused(call, &format!("delete {key}"), &error, begun);
                false
            }
        }
    }

    /// A key that nobody else has: created, and every third deleted again.
    async fn own_turn(&self, client: &Client, caller: u64, turn: u64) {
        let key = key(&format!("own-{caller}-{turn}"));
        let Some(life) = self.create(client, caller, &key).await else {
            return;
        };
        if !turn.is_multiple_of(3) {
            self.told.lock().unwrap().kept.insert(key, life);
        } else if self.delete(client, caller, &key, Some(life)).await {
            self.told.lock().unwrap().deleted.push((key, life));
        }
    }

    async fn hot_turn(&self, clients: &[Client; 2], caller: u64, turn: u64, random: &mut Random) {
        let [client, any] = clients;
        let key = key(&format!("hot-{}-{}", turn / HOT_TURNS, random.below(HOT_KEYS)));
        let reader = if random.below(2) == 0 { client } else { any };
        match random.below(6) {
            0 | 1 => {
                self.create(client, caller, &key).await;
            }
            2 | 3 => {
                self.get(reader, caller, &key).await;
            }
            4 => {
                let found = self.get(reader, caller, &key).await;
                let running = found.filter(|record| record.state == ProcessState::Running);
                if let Some(record) = running {
                    self.set(client, caller, record, format!("set-{turn}")).await;
                }
            }
            _ => {
                self.delete(client, caller, &key, None).await;
            }
        }
    }

    async fn caller(&self, client: Client, caller: u64, mut random: Random) {
        // The second asks any host for what it only looks up.
        let clients = [client.clone(), client.read_from(ReadFrom::Any)];
        while !self.stop.load(Relaxed) {
            let turn = self.turns.fetch_add(1, Relaxed);
            if random.below(2) == 0 {
                self.own_turn(&client, caller, turn).await;
            } else {
                self.hot_turn(&clients, caller, turn, &mut random).await;
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

/// Users and nodes at work.
pub(crate) struct Load {
    pub(crate) diary: Arc<Diary>,
    pub(crate) book: SharedBook,
    pub(crate) nodes: Vec<NodeHandle>,
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
        let diary = Arc::new(Diary {
            began: Instant::now(),
            history: Mutex::default(),
            told: Mutex::default(),
            stop: AtomicBool::new(false),
            turns: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            deadline,
        });
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
            let ended = self.callers.iter().any(tokio::task::JoinHandle::is_finished);
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
        let round = self.diary.turns.load(Relaxed) / HOT_TURNS;
        for number in 0..HOT_KEYS {
            let key = key(&format!("hot-{round}-{number}"));
            self.diary.get(client, 0, &key).await;
            let any = client.read_from(ReadFrom::Any);
            self.diary.get(&any, 0, &key).await;
        }
    }
}

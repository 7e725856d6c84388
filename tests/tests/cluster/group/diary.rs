//! What users of a group did and what they were told, as it happens.
//!
//! Half of their turns are with keys of their own, of which nothing may be lost; half with few keys
//! that they all fight over. Everything that they ask goes into one history, by one clock.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use maitred_client::{Client, Error, ReadFrom};
use maitred_protocol::{
    Incarnation, ProcessKey, ProcessRecord, ProcessState, Rejection, SetProcess,
};
use maitred_registry::random::Random;
use maitred_tests::linear::{Answer, CallId, History, Verb, process::Sight};

/// Keys that are fought over at a time, and turns until they are others: a search through a long
/// history of one key is long.
const HOT_KEYS: u32 = 4;
const HOT_TURNS: u64 = 200;
/// Between two turns of a caller.
const PACE: Duration = Duration::from_millis(20);

/// What the callers were told, beyond the history.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Creates of own keys that were acknowledged and of which no delete was asked.
    pub(super) kept: BTreeMap<ProcessKey, Incarnation>,
    /// Deletes of them that were acknowledged.
    pub(super) deleted: Vec<(ProcessKey, Incarnation)>,
    /// What had no definite answer, or one that nobody should get.
    pub(super) failed: Vec<String>,
    /// Times that changes took, by user's time.
    pub(super) slowest: Duration,
}

/// What all callers share.
pub(super) struct Diary {
    began: Instant,
    pub(super) history: Mutex<History>,
    pub(super) told: Mutex<Told>,
    pub(super) stop: AtomicBool,
    pub(super) turns: AtomicU64,
    /// Changes that were acknowledged.
    pub(super) acknowledged: AtomicU64,
    deadline: Duration,
}

pub(super) fn key(id: &str) -> ProcessKey {
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
    /// An empty one, for requests that may take so long.
    pub(super) fn new(deadline: Duration) -> Self {
        Self {
            began: Instant::now(),
            history: Mutex::default(),
            told: Mutex::default(),
            stop: AtomicBool::new(false),
            turns: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            deadline,
        }
    }

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
            Error::Rejected(Rejection::NoPlacement { refusals, .. }) => {
                bad(&format!("no node, for {refusals:?}"));
                self.answered(call, Answer::Refused);
            }
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
    pub(super) async fn create(
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

    pub(super) async fn get(
        &self,
        client: &Client,
        caller: u64,
        key: &ProcessKey,
    ) -> Option<ProcessRecord> {
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
        let key = key(&format!(
            "hot-{}-{}",
            turn / HOT_TURNS,
            random.below(HOT_KEYS)
        ));
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
                    self.set(client, caller, record, format!("set-{turn}"))
                        .await;
                }
            }
            _ => {
                self.delete(client, caller, &key, None).await;
            }
        }
    }

    /// Goes on until the load ends.
    pub(super) async fn caller(&self, client: Client, caller: u64, mut random: Random) {
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
    /// The keys that are fought over now.
    pub(super) fn hot_keys(&self) -> Vec<ProcessKey> {
        let round = self.turns.load(Relaxed) / HOT_TURNS;
        let numbers = 0..HOT_KEYS;
        numbers
            .map(|number| key(&format!("hot-{round}-{number}")))
            .collect()
    }
}

//! Game nodes of a group, with the ground truth of what runs where.
//!
//! Under partitions a node may still be told to start an older life, by a leader that is no longer
//! one, while a newer life is started elsewhere; the registry has it stopped again. So what must
//! never be is asked node by node, and what must be in the end is compared with the registry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maitred_client::{Client, NodeHandle, NodeHandler, SpawnError, SpawnRequest, Spawned};
use maitred_protocol::{Incarnation, ProcessKey};

/// A life of a process, and the node that it is on.
pub(crate) type Run = (ProcessKey, String, Incarnation);

/// What the nodes really run.
#[derive(Debug, Default)]
pub(crate) struct Book {
    running: BTreeMap<(ProcessKey, String), Incarnation>,
    highest: BTreeMap<(ProcessKey, String), Incarnation>,
    makers: BTreeMap<(ProcessKey, Incarnation), String>,
    pub(crate) breaches: Vec<String>,
}

impl Book {
    fn start(&mut self, node: &str, key: ProcessKey, life: Incarnation) {
        let mut breach = |text: String| self.breaches.push(format!("{node}: {key}: {text}"));
        let here = (key.clone(), node.to_owned());
        if let Some(highest) = self.highest.get(&here)
            && *highest >= life
        {
            breach(format!("incarnation {life} after {highest}"));
        }
        if let Some(other) = self.running.get(&here) {
            breach(format!("{life} started while {other} runs"));
        }
        let maker = self.makers.insert((key.clone(), life), node.to_owned());
        if let Some(maker) = maker {
            breach(format!("{life} was started by {maker} already"));
        }
        self.highest.insert(here.clone(), life);
        self.running.insert(here, life);
    }

    fn stop(&mut self, node: &str, key: ProcessKey, life: Incarnation) {
        let here = (key, node.to_owned());
        if self.running.get(&here) == Some(&life) {
            self.running.remove(&here);
        }
    }

    /// What runs, in the order of the keys.
    pub(crate) fn running(&self) -> Vec<Run> {
        let running = self.running.iter();
        running
            .map(|((key, node), life)| (key.clone(), node.clone(), *life))
            .collect()
    }
}

pub(crate) type SharedBook = Arc<Mutex<Book>>;

struct Game {
    name: String,
    book: SharedBook,
}

impl NodeHandler for Game {
    async fn spawn(&self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        let life = request.incarnation;
        let mut book = self.book.lock().unwrap();
        book.start(&self.name, request.key, life);
        Ok(Spawned {
            pid: format!("{}-{life}", self.name),
            share: Vec::new(),
        })
    }

    async fn stop(&self, key: ProcessKey, incarnation: Incarnation) {
        let mut book = self.book.lock().unwrap();
        book.stop(&self.name, key, incarnation);
    }

    fn lease_lost(&self) {
        let mut book = self.book.lock().unwrap();
        let text = format!(
            "{}: its lease is lost, though it never went away",
            self.name
        );
        book.breaches.push(text);
    }
}

/// Starts a node of plenty of capacity, whose lease is longer than any fault here.
pub(crate) async fn start(client: &Client, name: &str, book: &SharedBook) -> NodeHandle {
    let game = Game {
        name: name.to_owned(),
        book: Arc::clone(book),
    };
    let node = client
        .node(name)
        .types(["player"])
        .address("127.0.0.1:1")
        .capacity(1_000_000)
        .ttl(Duration::from_secs(60));
    node.start(game).await.unwrap()
}

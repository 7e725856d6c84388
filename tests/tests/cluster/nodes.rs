//! Game nodes on the real client, with the ground truth of what runs where.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maitred_client::{NodeHandle, NodeHandler, SpawnError, SpawnRequest, Spawned};
use maitred_protocol::{Incarnation, NodeName, ProcessKey};

use crate::host::Host;

/// What all the nodes of a test really run, and every breach that they saw.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    running: BTreeMap<ProcessKey, (Incarnation, String)>,
    highest: BTreeMap<ProcessKey, Incarnation>,
    pub(crate) breaches: Vec<String>,
    pub(crate) started: u64,
}

pub(crate) type Shared = Arc<Mutex<Truth>>;

#[derive(Clone)]
pub(crate) struct Game {
    name: String,
    truth: Shared,
}

impl NodeHandler for Game {
    async fn spawn(&self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        let mut truth = self.truth.lock().unwrap();
        let SpawnRequest {
            key, incarnation, ..
        } = request;
        if let Some((other, node)) = truth.running.get(&key) {
            // An older life that was only just cancelled may still be on its way out elsewhere; a
            // newer one, or this one again, must never be.
            if *other >= incarnation {
                let text = format!(
                    "{key}: {incarnation} started on {} while {other} runs on {node}",
                    self.name
                );
                truth.breaches.push(text);
            }
        }
        if let Some(highest) = truth.highest.get(&key)
            && *highest >= incarnation
        {
            let text = format!("{key}: incarnation {incarnation} after {highest}");
            truth.breaches.push(text);
        }
        truth.highest.insert(key.clone(), incarnation);
        truth.running.insert(key, (incarnation, self.name.clone()));
        truth.started += 1;
        Ok(Spawned {
            pid: format!("{}-{incarnation}", self.name),
            share: Vec::new(),
        })
    }

    async fn stop(&self, key: ProcessKey, incarnation: Incarnation) {
        let mut truth = self.truth.lock().unwrap();
        if truth
            .running
            .get(&key)
            .is_some_and(|(life, _)| *life == incarnation)
        {
            truth.running.remove(&key);
        }
    }
}

impl Truth {
    /// What runs, by key.
    pub(crate) fn running(&self) -> BTreeMap<ProcessKey, (Incarnation, NodeName)> {
        let running = self.running.iter();
        running
            .map(|(key, (life, node))| (key.clone(), (*life, NodeName::new(node.clone()).unwrap())))
            .collect()
    }
}

/// Starts so many nodes, of plenty of capacity, with a lease that outlives a restart of the host.
pub(crate) async fn start(host: &Host, count: usize, truth: &Shared) -> Vec<NodeHandle> {
    let client = host.client().await;
    let mut nodes = Vec::new();
    for number in 1..=count {
        let name = format!("node-{number}");
        let game = Game {
            name: name.clone(),
            truth: Arc::clone(truth),
        };
        let builder = client
            .node(&name)
            .types(["player"])
            .address("127.0.0.1:1")
            .capacity(1_000_000)
            .ttl(Duration::from_secs(60));
        nodes.push(
            builder
                .start(game)
                .await
                .unwrap_or_else(|error| panic!("{error}\n{}", host.log())),
        );
    }
    nodes
}

//! A node that is being described, and how it is started.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::limits::INVENTORY_MAX;
use maitred_protocol::{NodeName, RegisterNode, Request, TypeName};
use tokio::sync::oneshot;

use crate::builder::Settings;
use crate::error::{Error, Fatal};
use crate::node::{NodeHandle, NodeHandler};
use crate::node_thread::{self, Setup};
use crate::pool::dice;
use crate::verbs::NO_SESSION;
use crate::watchdog::Watchdog;

/// A node that is being described.
#[derive(Debug, Clone)]
#[must_use]
pub struct NodeBuilder {
    settings: Arc<Settings>,
    name: String,
    types: Vec<String>,
    address: String,
    labels: Vec<(String, String)>,
    capacity: u32,
    share: Vec<u8>,
    ttl: Duration,
    kill_bound: Duration,
    watchdog: Watchdog,
}

impl NodeBuilder {
    pub(crate) fn new(settings: Arc<Settings>, name: String) -> Self {
        Self {
            settings,
            name,
            types: Vec::new(),
            address: String::new(),
            labels: Vec::new(),
            capacity: 1_000,
            share: Vec::new(),
            ttl: Duration::from_secs(3),
            kill_bound: Duration::from_secs(1),
            watchdog: Watchdog::default(),
        }
    }

    /// The types it hosts, at most 256; all of them unless said.
    pub fn types(mut self, types: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let types = types.into_iter().map(|name| name.as_ref().to_owned());
        self.types.extend(types);
        self
    }

    /// Where its processes can be reached, at most 256 bytes; for callers, as the game likes it.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }

    /// Adds a label; at most 32 of them.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((key.into(), value.into()));
        self
    }

    /// Adds labels.
    pub fn labels(mut self, labels: impl IntoIterator<Item = (String, String)>) -> Self {
        self.labels.extend(labels);
        self
    }

    /// Units of capacity, 1 to 1,000,000; 1,000 unless said. A process takes 1 unit, or as many as
    /// its create demands.
    ///
    /// Whatever the units: a node has at most 20,000 processes, or as many as it can name in
    /// 960 KiB when it reconnects (some 14,000 with ids of 36 bytes). When it has them it answers
    /// further starts with [`SpawnError::Busy`]; so that hosts do not even ask, let capacity and
    /// demands stop it before that.
    pub fn capacity(mut self, units: u32) -> Self {
        self.capacity = units;
        self
    }

    /// What others are to know of it, at most 4 KiB.
    pub fn share(mut self, share: impl Into<Vec<u8>>) -> Self {
        self.share = share.into();
        self
    }

    /// Its lease, 1 to 60 s; 3 s unless said. A node that cannot renew it stops its processes.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Longest that it takes to stop all that it runs, at most 60 s; 1 s unless said. It is part of
    /// the promise that no key has two lives at a time: so long after the lease the registry believes
    /// that what ran here is gone. The node measures its stops, and one that takes longer raises the
    /// bound in the registry, but not what [`NodeBuilder::watchdog`] goes by.
    pub fn kill_bound(mut self, bound: Duration) -> Self {
        self.kill_bound = bound;
        self
    }

    /// What is done when something still runs a kill bound after the lease has ended; nothing unless
    /// said.
    pub fn watchdog(mut self, watchdog: Watchdog) -> Self {
        self.watchdog = watchdog;
        self
    }

    fn describe(&self) -> Result<RegisterNode, Error> {
        let types = self.types.iter().map(TypeName::new);
        let node = RegisterNode {
            name: NodeName::new(self.name.as_str())?,
            types: types.collect::<Result<_, _>>()?,
            address: self.address.clone(),
            labels: self.labels.clone(),
            capacity: self.capacity,
            share: self.share.clone(),
            ttl_ms: u32::try_from(self.ttl.as_millis()).unwrap_or(u32::MAX),
            inventory: Vec::new(),
            kill_bound_ms: u32::try_from(self.kill_bound.as_millis()).unwrap_or(u32::MAX),
            instance: dice().max(1),
            last_epoch: None,
        };
        let request = Request::RegisterNode(NO_SESSION, Box::new(node.clone()));
        request.check().map_err(Fatal::from)?;
        if usize::try_from(self.capacity).is_ok_and(|units| units > INVENTORY_MAX) {
            tracing::info!(
                node = %node.name, capacity = self.capacity,
                "a node has at most 20,000 processes; with demands of 1 it will be busy before its capacity is used"
            );
        }
        Ok(node)
    }

    /// Registers the node and keeps it registered, on a thread and connections of its own; Ok once
    /// it is registered. An older session of the name is superseded.
    ///
    /// # Errors
    /// [`Error`]; the node is not registered then, and nothing is left running. When the future is
    /// dropped early the node leaves again by itself.
    pub async fn start<H: NodeHandler>(self, handler: H) -> Result<NodeHandle, Error> {
        let node = self.describe()?;
        let (ready, started) = oneshot::channel();
        let setup = Setup {
            settings: self.settings,
            node,
            handler: Arc::new(handler),
            game: tokio::runtime::Handle::current(),
            watchdog: self.watchdog,
            ready,
        };
        let thread = std::thread::Builder::new().name("maitred-node".to_owned());
        let spawned = thread.spawn(move || node_thread::run(setup));
        spawned.map_err(|error| Fatal::Thread(error.to_string()))?;
        let shared = started.await.map_err(|_| Error::closed())??;
        Ok(NodeHandle::new(shared))
    }
}

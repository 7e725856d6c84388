//! A game node: what the game implements, how it is started, and what it can do with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maitred_protocol::limits::INVENTORY_MAX;
use maitred_protocol::{
    Incarnation, Load, NodeEpoch, NodeName, ProcessKey, ProcessRecord, RegisterNode, Rejection,
    Request, Response, SetProcess, TypeName,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::agent::{Agent, Input, SpawnError, Spawned};
use crate::builder::Settings;
use crate::call::{Caller, wrong_answer};
use crate::clock::Clock;
use crate::error::{Cause, Error, Fatal};
use crate::node_thread::{self, Setup};
use crate::verbs::NO_SESSION;

/// Longest that [`NodeHandle::shutdown`] waits for processes to stop and the session to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// What a node is asked to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnRequest {
    /// Type and id.
    pub key: ProcessKey,
    /// Which life of it: a fencing token that only grows, for example for writes to a storage.
    pub incarnation: Incarnation,
    /// What the spawn callback passed; at most 64 KiB.
    pub payload: Vec<u8>,
    /// After this nobody waits for the answer.
    pub deadline: Duration,
}

/// What the game does. `spawn` and `stop` run on the tokio runtime that started the node, many at a
/// time; of one key only one at a time.
pub trait NodeHandler: Send + Sync + 'static {
    /// Starts a process. Called at most once per incarnation. While it has not returned, its key
    /// cannot be started or stopped here, so it should mind the deadline.
    fn spawn(
        &self,
        request: SpawnRequest,
    ) -> impl Future<Output = Result<Spawned, SpawnError>> + Send;

    /// Stops a process, and returns when it has stopped. It may have just ended by itself.
    fn stop(&self, key: ProcessKey, incarnation: Incarnation) -> impl Future<Output = ()> + Send;

    /// The lease is lost: the registry may give the processes to others from now on. `stop` of each
    /// follows. Runs on the node's own thread even when the game's runtime is stuck, so it is the
    /// place to cut what must not go on; it must not block.
    fn lease_lost(&self) {}

    /// How the node is; asked with every keep-alive. Runs on the node's own thread and must not
    /// block.
    fn load(&self) -> Option<Load> {
        None
    }
}

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
            ttl: Duration::from_secs(10),
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

    /// Its lease, 1 to 60 s; 10 s unless said. A node that cannot renew it stops its processes.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
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
            ready,
        };
        let thread = std::thread::Builder::new().name("maitred-node".to_owned());
        let spawned = thread.spawn(move || node_thread::run(setup));
        spawned.map_err(|error| Fatal::Thread(error.to_string()))?;
        let shared = started.await.map_err(|_| Error::closed())??;
        Ok(NodeHandle(Arc::new(Guard(shared))))
    }
}

/// What the node's thread and its handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: NodeName,
    pub(crate) clock: Clock,
    pub(crate) agent: Mutex<Agent>,
    pub(crate) caller: Caller,
    /// A copy of the agent's, for a look without a lock; 0: no lease.
    pub(crate) lease_until_us: AtomicU64,
    pub(crate) request_timeout: Duration,
    /// Unbounded, since every process has a few inputs at most.
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
    pub(crate) killed: Notify,
    pub(crate) ended: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn agent(&self) -> MutexGuard<'_, Agent> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.inputs.send(Input::Shutdown);
    }
}

/// A running node. Cheap to clone; when the last clone is dropped the node shuts down by itself.
#[derive(Debug, Clone)]
pub struct NodeHandle(Arc<Guard>);

impl NodeHandle {
    fn shared(&self) -> &Shared {
        &self.0.0
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.shared().name
    }

    #[cfg(test)]
    pub(crate) async fn connected(&self, hosts: &[u64], leader: Option<u64>) {
        self.shared().caller.pool.until(hosts, leader).await;
    }

    /// Its session; none while it is not registered.
    #[must_use]
    pub fn epoch(&self) -> Option<NodeEpoch> {
        self.shared().agent().epoch()
    }

    /// Whether the lease holds at this moment: a microsecond's look at the clock, without a lock.
    #[must_use]
    pub fn lease_ok(&self) -> bool {
        let until_us = self.shared().lease_until_us.load(Ordering::Acquire);
        self.shared().clock.now_us() < until_us
    }

    /// The processes that run here, in the order of their keys.
    #[must_use]
    pub fn processes(&self) -> Vec<(ProcessKey, Incarnation)> {
        let agent = self.shared().agent();
        agent
            .running()
            .map(|(key, life)| (key.clone(), life))
            .collect()
    }

    /// Registers a process that the game has started by itself, or updates one of this node.
    ///
    /// # Errors
    /// [`Error`]; of [`Error::Rejected`] mostly that the key is taken, or that the node has as many
    /// processes as it can have (see [`NodeBuilder::capacity`]).
    pub async fn set(
        &self,
        key: ProcessKey,
        pid: impl Into<String>,
        share: Vec<u8>,
    ) -> Result<ProcessRecord, Error> {
        let shared = self.shared();
        let pid = pid.into();
        let (epoch, incarnation, full, enrolments) = {
            let agent = shared.agent();
            let full = agent.has_no_room_for(&key);
            let incarnation = agent.running_incarnation(&key);
            (agent.epoch(), incarnation, full, agent.enrolments())
        };
        if let Some(full) = full {
            return Err(Error::Rejected(Rejection::Conflict(full.to_owned())));
        }
        let cause = Cause::NotRegistered;
        let epoch = epoch.ok_or(Error::Unavailable { cause })?;
        let set = SetProcess {
            key: key.clone(),
            node: shared.name.clone(),
            epoch,
            pid: pid.clone(),
            share: share.clone(),
            incarnation,
        };
        let request = Request::SetProcess(NO_SESSION, Box::new(set));
        let answer = shared.caller.call(request, shared.request_timeout).await?;
        let Response::Process { record, .. } = answer else {
            return Err(wrong_answer("a process"));
        };
        let owned = Input::Owned(epoch, key, record.incarnation, Spawned { pid, share });
        let _ = shared.inputs.send(owned);
        if shared.agent().enrolments() != enrolments {
            // The answer may be an old one, asked for again of another host, and the process deleted
            // since: when the node attached, this one was not in its inventory.
            let _ = shared.inputs.send(Input::Reconcile);
        }
        Ok(*record)
    }

    /// Says that a process has ended by itself: its record is removed, in the background and with
    /// as many tries as it takes.
    pub fn exited(&self, key: ProcessKey, incarnation: Incarnation) {
        let _ = self.shared().inputs.send(Input::Exited(key, incarnation));
    }

    /// Stops all processes, ends the session, and waits for that, for up to 15 s.
    pub async fn shutdown(&self) {
        let mut ended = self.shared().ended.subscribe();
        let _ = self.shared().inputs.send(Input::Shutdown);
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, ended.wait_for(|ended| *ended)).await;
    }

    /// Lets go of everything as a crash would: nobody is told, nothing is stopped. For
    /// demonstrations and tests.
    pub fn kill(&self) {
        self.shared().killed.notify_one();
    }
}

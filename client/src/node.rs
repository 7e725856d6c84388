//! A game node: what the game implements, and what it can do with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maitred_protocol::{
    Incarnation, Load, NodeEpoch, NodeName, ProcessKey, ProcessRecord, Rejection, Request,
    Response, SetProcess,
};
use tokio::sync::{Notify, mpsc, watch};

use crate::agent::{Agent, Input, SpawnError, Spawned};
use crate::call::{Caller, wrong_answer};
use crate::clock::Clock;
use crate::error::{Cause, Error};
use crate::verbs::NO_SESSION;
use crate::watchdog::Watch;

/// Longest that [`NodeHandle::shutdown`] waits for the session to end, after processes have stopped.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Starts a process. Called once per incarnation; again only when it has failed, and the spawn
    /// callback tries the same node once more: then with what the callback passes this time. While it
    /// has not returned, its key cannot be started or stopped here, so it should mind the deadline.
    /// When it fails, nothing of the process may be left; when it panics, `stop` is called.
    fn spawn(
        &self,
        request: SpawnRequest,
    ) -> impl Future<Output = Result<Spawned, SpawnError>> + Send;

    /// Stops a process, and returns when it has stopped: its key may be given to another node then, and
    /// not before. It may have just ended by itself. When it panics it is called again.
    fn stop(&self, key: ProcessKey, incarnation: Incarnation) -> impl Future<Output = ()> + Send;

    /// The lease is lost: the registry may give the processes to others from now on. `stop` of each
    /// follows. Runs on the node's own thread even when the game's runtime is stuck, so it is the
    /// place to cut what must not go on; it must not block.
    fn lease_lost(&self) {}

    /// The registry was restored from a snapshot that is older than the process, which has been
    /// registered anew: `new` is its incarnation from now on, for storages too, and what `stop` will
    /// name. Runs on the node's own thread and must not block.
    fn adopted(&self, key: ProcessKey, old: Incarnation, new: Incarnation) {
        let _ = (key, old, new);
    }

    /// How the node is; asked with every keep-alive. Runs on the node's own thread and must not
    /// block.
    fn load(&self) -> Option<Load> {
        None
    }
}

/// What the node's thread and its handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: NodeName,
    pub(crate) clock: Arc<Clock>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) agent: Mutex<Agent>,
    pub(crate) caller: Caller,
    /// A copy of the agent's, for a look without a lock; 0: no lease.
    pub(crate) lease_until_us: AtomicU64,
    pub(crate) request_timeout: Duration,
    /// Longest that stopping everything is waited for.
    pub(crate) stop_grace: Duration,
    /// Unbounded, since every process has a few inputs at most.
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
    pub(crate) killed: Notify,
    /// How it ended, once it has.
    pub(crate) ended: watch::Sender<Option<Result<(), Error>>>,
}

impl Shared {
    pub(crate) fn agent(&self) -> MutexGuard<'_, Agent> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a life that was to be started still is.
    pub(crate) fn may_begin(&self, key: &ProcessKey, incarnation: Incarnation) -> bool {
        let agent = self.agent();
        self.clock.now_us() < agent.lease_until_us() && agent.is_starting(key, incarnation)
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
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Guard(shared)))
    }

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
        let told = shared.inputs.send(owned);
        if told.is_err() || shared.agent().has_left() {
            // Its session has ended, and its record with it.
            return Err(Error::closed());
        }
        if shared.agent().enrolments() != enrolments {
            // The answer may be an old one, asked for again of another host, and the process deleted
            // since: when the node attached, this one was not in its inventory.
            let _ = shared.inputs.send(Input::Reconcile);
        }
        Ok(*record)
    }

    /// Says that a process has ended by itself and is to be forgotten: its record is removed, in the
    /// background and with as many tries as it takes.
    pub fn exited(&self, key: ProcessKey, incarnation: Incarnation) {
        let _ = self.shared().inputs.send(Input::Exited(key, incarnation));
    }

    /// The same, but what becomes of it is up to the callback that started it, when that has the hook
    /// `exit`: it may be started again, here or elsewhere, at once or later, under a new incarnation.
    /// Without that hook it is forgotten. `reason` is for the callback and for people, and cut at 512
    /// bytes.
    pub fn exited_because(
        &self,
        key: ProcessKey,
        incarnation: Incarnation,
        reason: impl Into<String>,
    ) {
        let input = Input::ExitedBecause(key, incarnation, reason.into());
        let _ = self.shared().inputs.send(input);
    }

    /// Stops all processes, ends the session, and waits for that, for up to 15 s, or 10 s and the kill
    /// bound when that is longer than 5 s. When something does not stop the session is left to run out,
    /// so that nothing of it is given to others too early.
    pub async fn shutdown(&self) {
        let _ = self.shared().inputs.send(Input::Shutdown);
        let timeout = self.shared().stop_grace + LEAVE_TIMEOUT;
        let _ = tokio::time::timeout(timeout, self.ended()).await;
    }

    /// Waits for the node's end: Ok when this program ended it.
    ///
    /// # Errors
    /// [`Rejection::Superseded`] when another process has registered the name, so that this node has
    /// stopped everything and does not come back.
    pub async fn ended(&self) -> Result<(), Error> {
        let mut ended = self.shared().ended.subscribe();
        let how = ended.wait_for(Option::is_some).await;
        let how = how.ok().and_then(|how| how.clone());
        how.unwrap_or(Err(Error::closed()))
    }

    /// Lets go of everything as a crash would: nobody is told, nothing is stopped. For
    /// demonstrations and tests.
    pub fn kill(&self) {
        self.shared().killed.notify_one();
    }
}

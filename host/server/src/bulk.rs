//! Whatever is large, and calls between hosts: snapshots, modules, evidence, recorded inputs, joining.
//!
//! All of it goes over connections of its own and at a bounded rate, so that Raft's messages never
//! wait behind it. This is the part that the rest of the host talks to: who the other hosts are, how
//! one of them is called, and whose calls are answered.
//!
//! Holds: a member may ask for everything, anybody else only to join; nothing that comes from
//! another host is used before its digest was compared.

mod blobs;
pub(crate) mod dial;
mod evidence;
mod fetch;
mod fetch_error;
mod inputs;
mod majority;
mod pool;
mod rate;
mod ready;
mod save;
mod serve;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use maitred_protocol::{
    MemberRecord, MemberRole, Members, PeerHello, PeerRefusal, PeerRequest, PeerResponse, Request,
    Response,
};
use maitred_replica::Peer;
use maitred_storage::Snapshots;
use maitred_transport::{Connection, Endpoint};
use tokio::sync::{Semaphore, watch};

use crate::decision_store::DecisionStore;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::module_service::Modules;
use crate::peers::Myself;
use crate::router::Router;

use fetch::Fetching;
pub(crate) use fetch::Offered;
use pool::{InUse, Pool};
use rate::Rate;
use wire::{Body, CallError};

/// Calls of other hosts that are answered at a time.
const CALLS_MAX: usize = 128;
/// Modules that are made ready for other hosts at a time; further ones wait.
const LOADING_MAX: usize = 2;
/// Files and modules that are sent at a time; further ones wait.
const SENDING_MAX: usize = 8;
/// Longest that the end of the host waits for a file that is being received.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Snapshots, and files of recorded inputs, for clients at a time.
const SAVES_MAX: usize = 2;

/// What the bulk part works with.
pub(crate) struct Parts {
    pub(crate) me: Myself,
    pub(crate) endpoint: Endpoint,
    /// Bytes a second that are sent at most; 0 for no limit.
    pub(crate) bytes_per_s: u64,
    pub(crate) snapshots: Snapshots,
    pub(crate) modules: Arc<Modules>,
    pub(crate) router: Arc<Router>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether this host talks to a caller: asked anew for every call.
    pub(crate) judge: Judge,
    /// True once the host shuts down.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Whether a host is one that may call.
pub(crate) type Judge = Box<dyn Fn(&PeerHello) -> Result<(), PeerRefusal> + Send + Sync>;

#[derive(Debug, Default)]
struct Directory {
    peers: Vec<Peer>,
    /// What others have said of hosts that this one has not heard of otherwise.
    hints: Vec<(u64, String)>,
    leader: Option<u64>,
    leader_address: Option<String>,
}

impl Directory {
    /// Where hosts are, those that are known best first.
    fn addresses(&self) -> impl Iterator<Item = (u64, &str)> {
        let peers = self.peers.iter();
        let peers = peers.map(|peer| (peer.host, peer.address.as_str()));
        let hints = self.hints.iter();
        let hints = hints.map(|(host, address)| (*host, address.as_str()));
        let leader = self.leader.zip(self.leader_address.as_deref());
        let all = peers.chain(leader).chain(hints);
        all.filter(|(_, address)| !address.is_empty())
    }
}

/// See the module's text.
pub(crate) struct Bulk {
    me: Myself,
    pool: Pool,
    rate: Rate,
    snapshots: Snapshots,
    modules: Arc<Modules>,
    router: Arc<Router>,
    inbox: Arc<Inbox>,
    metrics: Arc<Metrics>,
    judge: Judge,
    stopping: watch::Receiver<bool>,
    directory: RwLock<Directory>,
    /// Permits for [`CALLS_MAX`].
    calls: Semaphore,
    /// Permits for [`LOADING_MAX`].
    loading: Semaphore,
    /// Permits for [`SENDING_MAX`].
    sending: Semaphore,
    /// Permits for [`SAVES_MAX`].
    saves: Semaphore,
    /// The snapshot that is being fetched.
    fetching: Mutex<Option<Fetching>>,
    /// Held while a file is being received.
    receiving: Arc<tokio::sync::Mutex<()>>,
    /// The index of the last snapshot that was read whole before it was sent.
    verified: tokio::sync::Mutex<u64>,
    decisions: OnceLock<Weak<DecisionStore>>,
}

impl Bulk {
    /// Must be called within the runtime that is to carry the calls.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let modules = Arc::clone(&parts.modules);
        let bulk = Arc::new(Self {
            me: parts.me,
            pool: Pool::new(parts.endpoint),
            rate: Rate::new(parts.bytes_per_s),
            snapshots: parts.snapshots,
            modules: parts.modules,
            router: parts.router,
            inbox: parts.inbox,
            metrics: parts.metrics,
            judge: parts.judge,
            stopping: parts.stopping,
            directory: RwLock::default(),
            calls: Semaphore::new(CALLS_MAX),
            loading: Semaphore::new(LOADING_MAX),
            sending: Semaphore::new(SENDING_MAX),
            saves: Semaphore::new(SAVES_MAX),
            fetching: Mutex::default(),
            receiving: Arc::default(),
            verified: tokio::sync::Mutex::new(0),
            decisions: OnceLock::new(),
        });
        modules.fetch_with(tokio::runtime::Handle::current(), Arc::downgrade(&bulk));
        bulk
    }

    /// Where evidence is kept. Held weakly: it ends with the replica's thread.
    pub(crate) fn set_decisions(&self, decisions: &Arc<DecisionStore>) {
        // Set once, when the threads start.
        let _ = self.decisions.set(Arc::downgrade(decisions));
    }

    /// These are the other hosts, as this one has applied it.
    pub(crate) fn set_peers(&self, peers: Vec<Peer>) {
        let mut directory = self.directory_mut();
        directory.peers = peers;
        self.pool
            .keep(|host| directory.addresses().any(|(known, _)| known == host));
    }

    /// Others have said where hosts are: for as long as this one has not applied it, and so that it
    /// can fetch the snapshot that says so.
    pub(crate) fn hint(&self, members: &[MemberRecord]) {
        let others = members.iter().filter(|member| member.host != self.me.host);
        let hints = others.map(|member| (member.host, member.address.clone()));
        self.directory_mut().hints = hints.collect();
    }

    /// This one leads, or nobody: it is asked first.
    pub(crate) fn set_leader(&self, host: Option<u64>, address: Option<String>) {
        let mut directory = self.directory_mut();
        (directory.leader, directory.leader_address) = (host, address);
    }

    fn directory(&self) -> std::sync::RwLockReadGuard<'_, Directory> {
        self.directory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn directory_mut(&self) -> std::sync::RwLockWriteGuard<'_, Directory> {
        self.directory
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The other hosts that can be called, the leader first.
    fn others(&self) -> Vec<u64> {
        let directory = self.directory();
        let hosts = directory.addresses().map(|(host, _)| host);
        // What is hinted at is for when there is nobody else.
        let known = |host: &u64| {
            directory.peers.is_empty() || directory.peers.iter().any(|peer| peer.host == *host)
        };
        let mut others: Vec<u64> = hosts
            .filter(|host| *host != self.me.host && known(host))
            .collect();
        others.sort_by_key(|host| (Some(*host) != directory.leader, *host));
        others.dedup();
        others
    }

    async fn line(&self, host: u64) -> Result<(Connection, InUse), CallError> {
        let address = {
            let directory = self.directory();
            let mut addresses = directory.addresses();
            let found = addresses.find(|(known, _)| *known == host);
            found.map(|(_, address)| address.to_owned())
        };
        let address = address.ok_or(CallError::Unknown)?;
        Ok(self.pool.line(&self.me, host, &address).await?)
    }

    /// Asks another host. `within` does not count the time to connect, which has a limit of its own.
    ///
    /// # Errors
    /// [`CallError`]; answers that say no are answers.
    pub(crate) async fn call(
        &self,
        host: u64,
        request: &PeerRequest,
        within: Duration,
    ) -> Result<PeerResponse, CallError> {
        Metrics::count(&self.metrics.peer_calls);
        let called = async {
            let (connection, _in_use) = self.line(host).await?;
            wire::call(&connection, request, within).await
        };
        self.counted(called.await)
    }

    /// As [`Bulk::call`], for what is answered with raw bytes.
    async fn call_for_bytes(
        &self,
        host: u64,
        request: &PeerRequest,
        within: Duration,
    ) -> Result<Body, CallError> {
        Metrics::count(&self.metrics.peer_calls);
        let called = async {
            let (connection, in_use) = self.line(host).await?;
            let mut body = wire::call_for_bytes(&connection, request, within).await?;
            body.in_use = Some(in_use);
            Ok(body)
        };
        self.counted(called.await)
    }

    fn counted<T>(&self, called: Result<T, CallError>) -> Result<T, CallError> {
        if called.is_err() {
            Metrics::count(&self.metrics.peer_calls_failed);
        }
        called
    }

    /// The members as this host's replica sees them.
    async fn members(&self) -> Result<Box<Members>, Box<Response>> {
        let answer = self.router.request(0, Request::ListMembers).await;
        match answer.into_response() {
            Response::Members(members) => Ok(members),
            other => Err(Box::new(other)),
        }
    }

    /// Once the host shuts down: waits until nothing is written into its directory any more, for a
    /// moment at most.
    pub(crate) async fn ended(&self) {
        let _ = tokio::time::timeout(END_TIMEOUT, self.receiving.lock()).await;
    }

    /// Waits until the host shuts down.
    async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // An error means that its sender is gone, which is the end too.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

/// Whether a member counts for a majority. One that is leaving may still vote.
fn votes(role: MemberRole) -> bool {
    match role {
        MemberRole::Voter | MemberRole::Leaving => true,
        MemberRole::Joining | MemberRole::Learner => false,
    }
}

/// Runs something that blocks, where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| "it was broken off; this host's log says more".to_owned())
}

impl std::fmt::Debug for Bulk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bulk")
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

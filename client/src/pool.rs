//! Warm connections to all hosts: one task an address keeps its connection up, calls choose, and
//! the members are learned (`pool/learn.rs`).
//!
//! Holds: a lost connection is called again after 50 ms to 5 s, doubled and jittered; who is asked
//! is decided in `pool/hosts.rs`; what is under way with a deposed leader is given back soon after
//! its successor is known, so that it can be asked there.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maitred_protocol::Notice;
use maitred_transport::{CloseCode, Endpoint, LinkError};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::conn::{Conn, NodeEvents};
use crate::dial::dial;
use crate::error::{Cause, Error};

mod hosts;
mod learn;

use hosts::Hosts;
pub(crate) use hosts::Route;

/// Wait before a lost host is called again, at first and at most.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest that one call to one address may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// The same when the host was there a moment ago.
const DIAL_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// A connection that lived this long was good: the next call comes soon.
const STABLE: Duration = Duration::from_secs(1);
/// Longest that an address rests whose host is connected otherwise, or has left.
const REST_MAX: Duration = Duration::from_secs(60);
/// How long a deposed leader may go on with what it was asked.
const DEPOSED_GRACE: Duration = Duration::from_millis(50);
/// Request ids of the pool's own begin here; those of sessions never come so far.
const OWN_IDS: u64 = 1 << 63;

/// A random wait between the half and the whole of `wait`, so that many clients do not come at once.
pub(crate) fn jittered(wait: Duration) -> Duration {
    wait / 2 + (wait / 2).mul_f64((dice() >> 11) as f64 / (1_u64 << 53) as f64)
}

/// A random number.
pub(crate) fn dice() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The hosts, and the connections to them.
#[derive(Debug)]
pub(crate) struct Pool {
    hosts: Mutex<Hosts<Arc<Conn>>>,
    /// By way.
    tasks: Mutex<HashMap<u64, AbortHandle>>,
    closed: AtomicBool,
    changed: watch::Sender<()>,
    /// The members may have changed.
    learn: Notify,
    own_ids: AtomicU64,
    port: Endpoint,
    build: String,
    node: Option<NodeEvents>,
}

/// A host or address that is called.
#[derive(Debug)]
pub(crate) struct Called {
    /// Its number, if known.
    pub(crate) host: Option<u64>,
    pub(crate) endpoint: String,
    /// Its connection, or why there is none.
    pub(crate) conn: Result<Arc<Conn>, Error>,
}

/// Ends the tasks and the port when the last user is gone.
#[derive(Debug)]
pub(crate) struct Tasks {
    learner: AbortHandle,
    pool: Arc<Pool>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.close();
    }
}

impl Tasks {
    pub(crate) fn close(&self) {
        self.pool.closed.store(true, Ordering::Relaxed);
        self.pool
            .port
            .close(CloseCode::Done, "the client was closed");
        self.learner.abort();
        let tasks: Vec<_> = self.pool.tasks().drain().collect();
        tasks.iter().for_each(|(_, task)| task.abort());
        let mut conns = Vec::new();
        for way in self.pool.lock().ways.values_mut() {
            conns.extend(way.conn.take());
        }
        for conn in conns {
            conn.end(LinkError::Local);
        }
        self.pool.changed.send_replace(());
    }

    pub(crate) async fn wait_idle(&self, within: Duration) {
        let _ = timeout(within, self.pool.port.wait_idle()).await;
    }
}

impl Pool {
    /// Starts calling every endpoint. `node` hears of commands, keep-alives and leaders.
    pub(crate) fn start(
        port: Endpoint,
        endpoints: &[String],
        build: &str,
        node: Option<&NodeEvents>,
    ) -> (Arc<Self>, Tasks) {
        let pool = Arc::new(Self {
            hosts: Mutex::new(Hosts::new(endpoints)),
            tasks: Mutex::default(),
            closed: AtomicBool::new(false),
            changed: watch::Sender::new(()),
            learn: Notify::new(),
            own_ids: AtomicU64::new(OWN_IDS),
            port,
            build: build.to_owned(),
            node: node.cloned(),
        });
        let called = |(id, way): (&u64, &hosts::Way<_>)| (*id, way.endpoint.clone());
        let seeds: Vec<_> = pool.lock().ways.iter().map(called).collect();
        for (id, endpoint) in seeds {
            pool.call(id, endpoint);
        }
        let learner = tokio::spawn(learn::keep_learning(Arc::clone(&pool))).abort_handle();
        let tasks = Tasks {
            learner,
            pool: Arc::clone(&pool),
        };
        (pool, tasks)
    }

    fn lock(&self) -> MutexGuard<'_, Hosts<Arc<Conn>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<u64, AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(self: &Arc<Self>, id: u64, endpoint: String) {
        let mut tasks = self.tasks();
        if !self.closed.load(Ordering::Relaxed) {
            let task = tokio::spawn(keep_up(Arc::clone(self), id, endpoint));
            tasks.insert(id, task.abort_handle());
        }
    }

    /// A connection, and the way that it belongs to; waits for one until `deadline`. `avoid` is
    /// taken only when there is no other.
    pub(crate) async fn pick(
        &self,
        route: Route,
        avoid: Option<u64>,
        deadline: Instant,
    ) -> Result<(u64, Arc<Conn>), Error> {
        if let Some(found) = self.lock().choose(route, avoid) {
            return Ok(found);
        }
        let mut changed = self.changed.subscribe();
        loop {
            if self.closed.load(Ordering::Relaxed) {
                return Err(Error::closed());
            }
            if let Some(found) = self.lock().choose(route, avoid) {
                return Ok(found);
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(self.error());
            }
        }
    }

    /// As [`Pool::pick`], but ends at once when no host will ever have one.
    pub(crate) async fn first(&self, deadline: Instant) -> Result<(), Error> {
        let mut changed = self.changed.subscribe();
        loop {
            if self.connected().is_some() {
                return Ok(());
            }
            let hopeless = {
                let hosts = self.lock();
                hosts
                    .seeds()
                    .all(|way| matches!(way.error, Some(Error::Fatal(_))))
            };
            if hopeless || timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(self.error());
            }
        }
    }

    /// The connection to the leader if one is known, or else any.
    pub(crate) fn connected(&self) -> Option<Arc<Conn>> {
        let found = self.lock().choose(Route::Leader, None);
        found.map(|(_, conn)| conn)
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        self.lock().leader()
    }

    /// A connection to exactly this host.
    pub(crate) fn conn_to(&self, host: u64) -> Option<Arc<Conn>> {
        self.lock().conn_to(host)
    }

    /// Every host or address that is called. First calls that are still under way are waited for
    /// until `deadline`.
    pub(crate) async fn called(&self, deadline: Instant) -> Vec<Called> {
        let mut changed = self.changed.subscribe();
        while self.lock().calls() && !self.closed.load(Ordering::Relaxed) {
            if timeout_at(deadline, changed.changed()).await.is_err() {
                break;
            }
        }
        self.all()
    }

    /// Every host or address that is called.
    fn all(&self) -> Vec<Called> {
        let hosts = self.lock();
        let called = hosts.ways.iter().filter(|(id, _)| !hosts.rests(**id));
        let each = called.map(|(_, way)| {
            let lost = || way.error.clone().unwrap_or(Error::link(LinkError::Lost));
            let conn = way.conn.clone().ok_or_else(lost);
            Called {
                host: way.number,
                endpoint: way.endpoint.clone(),
                conn,
            }
        });
        each.collect()
    }

    /// Waits until exactly these hosts are connected and this one leads.
    #[cfg(test)]
    pub(crate) async fn until(&self, connected: &[u64], leader: Option<u64>) {
        let mut changed = self.changed.subscribe();
        loop {
            let all = self.all().into_iter().filter(|called| called.conn.is_ok());
            let mut numbers: Vec<_> = all.filter_map(|called| called.host).collect();
            numbers.sort_unstable();
            if numbers == connected && self.leader() == leader {
                return;
            }
            changed.changed().await.unwrap();
        }
    }

    pub(crate) fn own_id(&self) -> u64 {
        self.own_ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Why there is no connection: what the first seed says that has something to say.
    fn error(&self) -> Error {
        let hosts = self.lock();
        let said = hosts.seeds().find_map(|way| way.error.clone());
        said.unwrap_or(Error::Unavailable {
            cause: Cause::Link(LinkError::Lost),
        })
    }

    /// The host at `way` does not lead; the one at `leader`, or else another one, may.
    pub(crate) fn refused(&self, way: u64, leader: Option<&str>) {
        if !self.lock().refused(way, leader) {
            self.learn.notify_one();
        }
    }

    /// Waits, but not longer than until a leader can be asked that is not at `way`.
    pub(crate) async fn pause(&self, way: u64, pause: Duration) {
        let mut changed = self.changed.subscribe();
        let elsewhere = async {
            while !self.lock().leader_is_elsewhere(way) {
                if changed.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        let _ = timeout(pause, elsewhere).await;
    }

    /// Host `from` says who leads.
    fn heard(&self, from: u64, host: Option<u64>, term: u64) {
        let (deposed, unknown) = {
            let mut hosts = self.lock();
            if !hosts.heard(from, host, term) {
                return;
            }
            (hosts.deposed(), !hosts.knows_leader())
        };
        tracing::debug!(from, leader = host, term, "a host says who leads");
        if unknown {
            self.learn.notify_one();
        }
        self.changed.send_replace(());
        if let Some(conn) = deposed {
            let waiting = conn.waiting();
            tokio::spawn(async move {
                sleep(DEPOSED_GRACE).await;
                conn.give_back(&waiting);
            });
        }
    }
}

async fn keep_up(pool: Arc<Pool>, id: u64, endpoint: String) {
    let mut wait = RECONNECT_MIN;
    loop {
        rest(&pool, id).await;
        let leader = pool.lock().leader();
        // A handshake that began while the host was away sends again ever more rarely: at first a new
        // one is better, later patience.
        let within = (wait * 10).clamp(DIAL_TIMEOUT_MIN, DIAL_TIMEOUT);
        let dialled = tokio::select! {
            dialled = dial(&pool.port, &endpoint, &pool.build, within) => dialled,
            () = elected(&pool, id, leader) => {
                wait = RECONNECT_MIN;
                continue;
            }
        };
        match dialled {
            Ok((conn, reader)) => {
                let conn = Arc::new(conn);
                let since = Instant::now();
                let (number, remote) = (conn.welcome.host, conn.connection.remote_address());
                let used = pool.lock().connected(id, number, remote, Arc::clone(&conn));
                tracing::debug!(endpoint, host = number, used, "connected");
                pool.changed.send_replace(());
                pool.learn.notify_one();
                if !used {
                    conn.end(LinkError::Local);
                    continue;
                }
                let heard = |notice| {
                    let Notice::Leader { host, term, .. } = notice;
                    pool.heard(number, host, term);
                };
                conn.run(reader, pool.node.clone(), heard).await;
                pool.lock().lost(id, Error::link(conn.ended()));
                if since.elapsed() >= STABLE {
                    wait = RECONNECT_MIN;
                }
            }
            Err(error) => {
                tracing::debug!(endpoint, %error, "cannot connect");
                pool.lock().lost(id, error);
            }
        }
        pool.changed.send_replace(());
        tokio::select! {
            () = sleep(jittered(wait)) => wait = (wait * 2).min(RECONNECT_MAX),
            () = elected(&pool, id, leader) => wait = RECONNECT_MIN,
        }
    }
}

/// Waits until the host at the way `id` leads, which did not when `before` did: whatever way to it
/// was tried is worth a fresh start.
async fn elected(pool: &Pool, id: u64, before: Option<u64>) {
    let mut changed = pool.changed.subscribe();
    loop {
        {
            let hosts = pool.lock();
            if hosts.leader() != before && hosts.leads(id) {
                return;
            }
        }
        if changed.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Waits for as long as the way is better left alone.
async fn rest(pool: &Pool, id: u64) {
    let mut changed = pool.changed.subscribe();
    let awake = async {
        while pool.lock().rests(id) {
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    if timeout(jittered(REST_MAX), awake).await.is_err() {
        pool.lock().look_again(id);
    }
}

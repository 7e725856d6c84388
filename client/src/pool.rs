//! Warm connections to all hosts: one task a host keeps its connection up, and calls choose.
//!
//! Holds: a lost connection is called again after 50 ms to 5 s, doubled and jittered; the host that
//! last said it leads, or answered, is asked first.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maitred_transport::{CloseCode, Endpoint, LinkError};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::conn::{Conn, NodeEvents};
use crate::dial::dial;
use crate::error::{Cause, Error};

/// Wait before a lost host is called again, at first and at most.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest that one call to one address may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that lived this long was good: the next call comes soon.
const STABLE: Duration = Duration::from_secs(1);

/// A random wait between the half and the whole of `wait`, so that many clients do not come at once.
pub(crate) fn jittered(wait: Duration) -> Duration {
    let dice = RandomState::new().build_hasher().finish();
    wait / 2 + (wait / 2).mul_f64((dice >> 11) as f64 / (1_u64 << 53) as f64)
}

#[derive(Debug, Default)]
struct Link {
    conn: Option<Arc<Conn>>,
    /// Why there is none.
    error: Option<Error>,
}

#[derive(Debug)]
struct Host {
    endpoint: String,
    link: Mutex<Link>,
}

impl Host {
    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hosts, and the connections to them.
#[derive(Debug)]
pub(crate) struct Pool {
    hosts: Vec<Host>,
    preferred: AtomicUsize,
    closed: AtomicBool,
    changed: watch::Sender<()>,
}

/// Ends the tasks and the port when the last user is gone.
#[derive(Debug)]
pub(crate) struct Tasks {
    port: Endpoint,
    tasks: Vec<AbortHandle>,
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
        self.port.close(CloseCode::Done, "the client was closed");
        self.tasks.iter().for_each(AbortHandle::abort);
        for host in &self.pool.hosts {
            let conn = host.lock().conn.take();
            if let Some(conn) = conn {
                conn.end(LinkError::Local);
            }
        }
        self.pool.changed.send_replace(());
    }

    pub(crate) async fn wait_idle(&self, within: Duration) {
        let _ = tokio::time::timeout(within, self.port.wait_idle()).await;
    }
}

impl Pool {
    /// Starts calling every endpoint. `node` hears of commands and keep-alives.
    pub(crate) fn start(
        port: Endpoint,
        endpoints: &[String],
        build: &str,
        node: Option<&NodeEvents>,
    ) -> (Arc<Self>, Tasks) {
        let host = |endpoint: &String| Host {
            endpoint: endpoint.clone(),
            link: Mutex::default(),
        };
        let pool = Arc::new(Self {
            hosts: endpoints.iter().map(host).collect(),
            preferred: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            changed: watch::Sender::new(()),
        });
        let keep = |index| {
            let (pool, port, build) = (Arc::clone(&pool), port.clone(), build.to_owned());
            let task = keep_up(pool, index, port, build, node.cloned());
            tokio::spawn(task).abort_handle()
        };
        let tasks = (0..endpoints.len()).map(keep).collect();
        let tasks = Tasks {
            port,
            tasks,
            pool: Arc::clone(&pool),
        };
        (pool, tasks)
    }

    /// A connection, the preferred host's if it has one; waits for one until `deadline`.
    pub(crate) async fn pick(&self, deadline: Instant) -> Result<(usize, Arc<Conn>), Error> {
        if let Some(found) = self.find() {
            return Ok(found);
        }
        let mut changed = self.changed.subscribe();
        loop {
            if self.closed.load(Ordering::Relaxed) {
                return Err(Error::closed());
            }
            if let Some(found) = self.find() {
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
            if self.find().is_some() {
                return Ok(());
            }
            let hopeless = |host: &Host| matches!(host.lock().error, Some(Error::Fatal(_)));
            if self.hosts.iter().all(hopeless)
                || timeout_at(deadline, changed.changed()).await.is_err()
            {
                return Err(self.error());
            }
        }
    }

    fn find(&self) -> Option<(usize, Arc<Conn>)> {
        let count = self.hosts.len();
        let first = self.preferred.load(Ordering::Relaxed);
        (0..count).find_map(|step| {
            let index = (first + step) % count;
            let conn = self.hosts.get(index)?.lock().conn.clone()?;
            Some((index, conn))
        })
    }

    pub(crate) fn connected(&self) -> Option<Arc<Conn>> {
        self.find().map(|(_, conn)| conn)
    }

    /// Why there is no connection: what the first host says that has something to say.
    fn error(&self) -> Error {
        let said = self.hosts.iter().find_map(|host| host.lock().error.clone());
        said.unwrap_or(Error::Unavailable {
            cause: Cause::Link(LinkError::Lost),
        })
    }

    /// The host at `index` does not lead; the one at `leader`, or else the next one, may.
    pub(crate) fn prefer_another(&self, index: usize, leader: Option<&str>) {
        let named = self.hosts.iter().position(|host| {
            let link = host.lock();
            leader.is_some_and(|leader| {
                let conn = link.conn.as_ref();
                let remote = conn.map(|conn| conn.connection.remote_address());
                let canonical = remote.map(|at| (at.ip().to_canonical(), at.port()).into());
                host.endpoint == leader
                    || canonical.is_some_and(|at: std::net::SocketAddr| at.to_string() == leader)
            })
        });
        let next = named.unwrap_or((index + 1) % self.hosts.len());
        // Unless another caller has moved on already.
        let order = Ordering::Relaxed;
        let _ = self.preferred.compare_exchange(index, next, order, order);
    }

    fn set(&self, index: usize, conn: Option<Arc<Conn>>, error: Option<Error>) {
        if let Some(host) = self.hosts.get(index) {
            *host.lock() = Link { conn, error };
        }
        self.changed.send_replace(());
    }
}

async fn keep_up(
    pool: Arc<Pool>,
    index: usize,
    port: Endpoint,
    build: String,
    node: Option<NodeEvents>,
) {
    let mut wait = RECONNECT_MIN;
    loop {
        let endpoint = pool.hosts[index].endpoint.as_str();
        match dial(&port, endpoint, &build, DIAL_TIMEOUT).await {
            Ok((conn, reader)) => {
                let conn = Arc::new(conn);
                let since = Instant::now();
                tracing::debug!(endpoint, host = conn.welcome.host, "connected");
                pool.set(index, Some(Arc::clone(&conn)), None);
                conn.run(reader, node.clone()).await;
                pool.set(index, None, Some(Error::link(conn.ended())));
                if since.elapsed() >= STABLE {
                    wait = RECONNECT_MIN;
                }
            }
            Err(error) => {
                tracing::debug!(endpoint, %error, "cannot connect");
                pool.set(index, None, Some(error));
            }
        }
        tokio::time::sleep(jittered(wait)).await;
        wait = (wait * 2).min(RECONNECT_MAX);
    }
}

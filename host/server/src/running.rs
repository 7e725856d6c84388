//! A host that runs, until it is told to end or has to.
//!
//! The end, in this order: no new connections; the replica answers what waits, takes nothing new and
//! hands leadership over; the answers are flushed; connections are closed; the replica's thread ends,
//! then the log's, after its last write, then the others; the directory's lock is released.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use maitred_protocol::ClusterId;
use maitred_replica::Input;
use maitred_storage::HostIdentity;
use maitred_transport::{Alpn, CloseCode, Endpoint, Handler};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::critical::Alarm;
use crate::error::Failed;
use crate::host::Host;
use crate::{client_service, http, peer_service, standard_modules};

/// How a start found the host's place in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Began {
    /// It founded a cluster.
    Founded,
    /// A cluster let it in.
    Joined,
    /// Its data directory knew.
    Known,
}

/// A host that runs. Dropping it without [`Running::shutdown`] cuts everything off, as a crash
/// would: what was acknowledged is safe.
pub struct Running {
    pub(crate) host: Arc<Host>,
    pub(crate) endpoint: Endpoint,
    pub(crate) local_addr: SocketAddr,
    pub(crate) http_addr: Option<SocketAddr>,
    pub(crate) began: Began,
    pub(crate) known: HostIdentity,
    pub(crate) advertised: String,
    /// Longest that handing leadership over may take.
    pub(crate) hand_over: Duration,
    /// Ends the accept loop.
    pub(crate) accept: watch::Sender<bool>,
    pub(crate) served: Option<tokio::task::JoinHandle<()>>,
    pub(crate) log_stopping: Arc<AtomicBool>,
    /// In the order in which they end.
    pub(crate) threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts to serve.
    pub(crate) fn start_tasks(
        &mut self,
        endpoint: Endpoint,
        http: Option<TcpListener>,
        install: bool,
    ) {
        let host = &self.host;
        tokio::spawn(standard_modules::make_ready(Arc::clone(host), install));
        if let Some(listener) = http {
            tokio::spawn(http::serve(Arc::clone(host), listener));
        }
        let serving = Arc::clone(host);
        let handler = move |connection| client_service::serve(Arc::clone(&serving), connection);
        let serving = Arc::clone(host);
        let peers = move |connection| peer_service::serve(Arc::clone(&serving), connection);
        let handlers: Vec<(Alpn, Arc<dyn Handler>)> = vec![
            (Alpn::Client, Arc::new(handler)),
            (Alpn::Peer, Arc::new(peers)),
        ];
        let mut accept = self.accept.subscribe();
        // A little longer than the handlers give themselves.
        let drain = host.patience.max(self.hand_over) + Duration::from_secs(1);
        let failing = endpoint.clone();
        self.served = Some(tokio::spawn(async move {
            let shutdown = async {
                // An error is the sender's end, which is a shutdown too.
                let _ = accept.wait_for(|accept| !accept).await;
            };
            maitred_transport::serve(&endpoint, handlers, shutdown, drain).await;
        }));
        let alarm = host.alarm.clone();
        let stopping = host.stopping.subscribe();
        tokio::spawn(cut_off_on_alarm(alarm, stopping, failing));
    }

    /// The host's number in its cluster; never 0.
    #[must_use]
    pub fn host(&self) -> u64 {
        self.known.host
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.known.name.as_str()
    }

    /// The cluster that it belongs to.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.known.cluster
    }

    /// How it came to belong to it.
    #[must_use]
    pub fn began(&self) -> Began {
        self.began
    }

    /// Where it tells others that it is reached, as `HOST:PORT`.
    #[must_use]
    pub fn advertised(&self) -> &str {
        &self.advertised
    }

    /// Who leads as far as this host knows: number, and address if that is known.
    #[must_use]
    pub fn leader(&self) -> Option<(u64, Option<String>)> {
        let leader = self.host.leader.borrow();
        leader.host.map(|host| (host, leader.address.clone()))
    }

    /// The UDP address that the host listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The TCP address of `/metrics`, `/livez` and `/readyz`, if they are served.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Waits until the host serves: it is a member of a group with a leader, has applied everything
    /// that was committed when it found that out, and the active modules are loaded. One that leads
    /// has installed the standard modules too, if it is to.
    ///
    /// # Errors
    /// [`Failed`] when it stopped instead.
    pub async fn ready(&self) -> Result<(), Failed> {
        let mut ready = self.host.ready.subscribe();
        tokio::select! {
            failed = self.host.alarm.wait() => Err(failed),
            // The sender lives in the host.
            _ = ready.wait_for(|ready| *ready) => Ok(()),
        }
    }

    /// Waits until the host had to stop by itself: a disk that lost a write, a thread that died.
    /// Whoever runs it should exit with an error then.
    pub async fn failed(&self) -> Failed {
        self.host.alarm.wait().await
    }

    /// Ends the host in order. When this returns, the data directory is free again.
    ///
    /// # Errors
    /// [`Failed`] when the host had to stop before or meanwhile.
    pub async fn shutdown(mut self) -> Result<(), Failed> {
        tracing::info!("the host shuts down");
        self.accept.send_replace(false);
        self.host.inbox.push(Input::Shutdown);
        self.host.stopping.send_replace(true);
        self.host.sandbox.stop_compiling();
        self.led_by_others().await;
        self.host.peers.end();
        self.host.handed_over.send_replace(true);
        if let Some(served) = self.served.take() {
            // It ends within its drain; a panic of it has nothing more to tell.
            let _ = served.await;
        }
        self.end_threads();
        self.host.bulk.ended().await;
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // Its panic has raised the alarm.
                let _ = thread.join();
            }
        });
        let _ = joined.await;
        match self.host.alarm.raised() {
            Some(failed) => Err(failed),
            None => Ok(()),
        }
    }

    /// Gives the replica the time to hand leadership over, if it leads and there is somebody.
    async fn led_by_others(&self) {
        let host = &self.host;
        if host.peers.links_up() == 0 {
            return;
        }
        let mut leader = host.leader.subscribe();
        // Not before another one leads: it may need this host's vote.
        let led = leader.wait_for(|leader| leader.host.is_some_and(|led| led != host.number));
        tokio::select! {
            _ = tokio::time::timeout(self.hand_over, led) => {}
            _ = host.alarm.wait() => {}
        }
    }

    /// Tells all threads to end, in whatever order they can.
    fn end_threads(&self) {
        // The replica before the log: it must not find that gone.
        self.host.inbox.close();
        self.log_stopping.store(true, Ordering::Relaxed);
        self.host.runner.stop_all();
        self.host.examiner.stop_all();
        self.host.modules.close();
        self.host.router.end();
        self.host.peers.end();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.host.stopping.send_replace(true);
        self.host.handed_over.send_replace(true);
        if let Some(served) = self.served.take() {
            served.abort();
            self.endpoint
                .close(CloseCode::ShuttingDown, "the host has ended");
        }
        self.end_threads();
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

/// A host that broke must not look alive.
async fn cut_off_on_alarm(alarm: Alarm, mut stopping: watch::Receiver<bool>, endpoint: Endpoint) {
    tokio::select! {
        failed = alarm.wait() => endpoint.close(CloseCode::ShuttingDown, &failed.to_string()),
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

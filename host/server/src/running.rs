//! A host that runs, until it is told to end or has to.
//!
//! The end, in this order: no new connections; the replica answers what waits and takes nothing new;
//! the answers are flushed; connections are closed; the replica's thread ends, then the log's, after
//! its last write, then the others; the directory's lock is released.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use maitred_replica::Input;
use maitred_transport::{Alpn, CloseCode, Endpoint, Handler};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::critical::Alarm;
use crate::error::Failed;
use crate::host::Host;
use crate::{client_service, http, standard_modules};

/// A host that runs. Dropping it without [`Running::shutdown`] cuts everything off, as a crash
/// would: what was acknowledged is safe.
pub struct Running {
    pub(crate) host: Arc<Host>,
    pub(crate) endpoint: Endpoint,
    pub(crate) local_addr: SocketAddr,
    pub(crate) http_addr: Option<SocketAddr>,
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
        let handlers: Vec<(Alpn, Arc<dyn Handler>)> = vec![(Alpn::Client, Arc::new(handler))];
        let mut accept = self.accept.subscribe();
        // A little longer than the handlers give themselves.
        let drain = host.patience + Duration::from_secs(1);
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

    /// The UDP address that clients reach the host at.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The TCP address of `/metrics`, `/livez` and `/readyz`, if they are served.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Waits until the host leads its group and the standard modules are active, if it has them.
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
        if let Some(served) = self.served.take() {
            // It ends within its drain; a panic of it has nothing more to tell.
            let _ = served.await;
        }
        self.end_threads();
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

    /// Tells all threads to end, in whatever order they can.
    fn end_threads(&self) {
        // The replica before the log: it must not find that gone.
        self.host.inbox.close();
        self.log_stopping.store(true, Ordering::Relaxed);
        self.host.runner.stop_all();
        self.host.modules.close();
        self.host.router.end();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.host.stopping.send_replace(true);
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

//! A host from start to end.
//!
//! Start: validate, identity, data directory (lock, log, snapshot), sandbox, ports, then threads: a
//! host that cannot start leaves nothing running. End, in this order: no new connections; the replica
//! answers what waits and takes nothing new; the answers are flushed; connections are closed; the
//! replica's thread ends, then the log's, after its last write, then the others; the directory's lock
//! is released.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use maitred_replica::{Input, Recovered, Replica};
use maitred_sandbox::{Callbacks, CompilerCommand, Lanes, Sandbox, SandboxConfig};
use maitred_storage::SpaceMonitor;
use maitred_transport::{Alpn, BindError, CloseCode, Endpoint, Handler, Identity, Limits};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::boot::{self, Opened};
use crate::callback_runner::Runner;
use crate::config::ServerConfig;
use crate::critical::Alarm;
use crate::decision_store::decision_store;
use crate::error::{Failed, StartError};
use crate::host::{Host, INSPECTIONS_MAX, UPLOADS_MAX};
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::module_service::Modules;
use crate::nodes::Nodes;
use crate::replica_loop::ReplicaLoop;
use crate::router::Router;
use crate::snapshot_thread::SnapshotWriter;
use crate::storage_thread::LogWriter;
use crate::{client_service, clock, http, node_service, slog_bridge, standard_modules};

/// The argument that makes the host's own program compile a module.
const COMPILE: &str = "internal-compile";

/// Starts hosts.
#[derive(Debug, Clone, Copy)]
pub struct Server;

/// A host that runs. Dropping it without [`Running::shutdown`] cuts everything off, as a crash
/// would: what was acknowledged is safe.
pub struct Running {
    host: Arc<Host>,
    endpoint: Endpoint,
    local_addr: SocketAddr,
    http_addr: Option<SocketAddr>,
    /// Ends the accept loop.
    accept: watch::Sender<bool>,
    served: Option<tokio::task::JoinHandle<()>>,
    log_stopping: Arc<AtomicBool>,
    /// In the order in which they end.
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts a host. Must be called within a tokio runtime, which then carries it; one with several
    /// threads, if speed matters.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way and what to do; nothing is left running then.
    pub async fn start(config: ServerConfig) -> Result<Running, StartError> {
        config.validate()?;
        let identity = match &config.identity {
            Some(identity) => identity.clone(),
            None => Identity::from_files(&config.tls.ca, &config.tls.cert, &config.tls.key)?,
        };
        let compiler = match config.compiler.clone() {
            Some(compiler) => compiler,
            None => CompilerCommand {
                program: std::env::current_exe().map_err(StartError::Program)?,
                args: vec![COMPILE.into()],
            },
        };
        let config = Arc::new(config);
        let opening = Arc::clone(&config);
        let (opened, replica, sandbox) = blocking(move || {
            let (opened, recovered) = boot::open(&opening)?;
            let replica = replica(&opening, recovered)?;
            let sandbox = Sandbox::new(SandboxConfig {
                limits: opening.guest_limits(),
                cache_dir: opened.dir.compiled(),
                compiler,
            })?;
            Ok((opened, replica, sandbox))
        })
        .await?;
        let limits = Limits {
            connections_max: config.connections_max,
            ..Limits::default()
        };
        let endpoint = Endpoint::server(config.listen, &identity, &[Alpn::Client], limits)?;
        let http = match config.http {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        launch(&config, opened, replica, sandbox, endpoint, http)
    }
}

async fn blocking<T, F>(work: F) -> Result<T, StartError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StartError> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StartError::Broken(error.to_string()))?
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| StartError::Http { address, source })
}

fn replica_config(config: &ServerConfig) -> maitred_replica::Config {
    maitred_replica::Config {
        build: config.build.clone(),
        // The standard library seeds its hashers from the system; that is chance enough for
        // elections and placements.
        seed: RandomState::new().hash_one(clock::mono_us()),
        snapshot_entries: config.snapshot.entries,
        snapshot_bytes: config.snapshot.bytes,
        ..maitred_replica::Config::new(config.host)
    }
}

fn replica(config: &ServerConfig, recovered: Recovered) -> Result<Replica, StartError> {
    let logger = slog_bridge::logger();
    Ok(Replica::new(
        replica_config(config),
        recovered,
        clock::now(),
        &logger,
    )?)
}

fn make_host(
    config: &ServerConfig,
    opened: &Opened,
    sandbox: Arc<Sandbox>,
    disk_full: &Arc<AtomicBool>,
) -> Host {
    let metrics = Arc::new(Metrics::default());
    let inbox = Arc::new(Inbox::default());
    let router = Arc::new(Router::new(Arc::clone(&inbox)));
    let nodes = Arc::new(Nodes::new(Arc::clone(&metrics)));
    let modules = Arc::new(Modules::new(Arc::clone(&sandbox), opened.blobs.clone()));
    let callbacks = Callbacks::new(Arc::clone(&sandbox));
    let runner = Runner::new(&inbox, &router, &nodes, &modules, callbacks, &metrics);
    Host {
        build: config.build.clone(),
        number: config.host,
        upload_bytes: config.upload_bytes(),
        patience: Duration::from_millis(config.shutdown_ms),
        started: Instant::now(),
        alarm: Alarm::new(),
        metrics,
        inbox,
        router,
        nodes,
        modules,
        runner,
        lanes: Lanes::new(Arc::clone(&sandbox)),
        sandbox,
        blobs: opened.blobs.clone(),
        uploads: Semaphore::new(UPLOADS_MAX),
        inspections: Semaphore::new(INSPECTIONS_MAX),
        ready: watch::Sender::new(false),
        stopping: watch::Sender::new(false),
        disk_full: Arc::clone(disk_full),
    }
}

fn launch(
    config: &ServerConfig,
    opened: Opened,
    replica: Replica,
    sandbox: Arc<Sandbox>,
    endpoint: Endpoint,
    http: Option<TcpListener>,
) -> Result<Running, StartError> {
    let disk_full = Arc::new(AtomicBool::new(false));
    let host = Arc::new(make_host(config, &opened, sandbox, &disk_full));
    let address = config.listen;
    let local_addr = endpoint.local_addr();
    let local_addr = local_addr.map_err(|source| BindError::Socket { address, source })?;
    let http_addr = http
        .as_ref()
        .and_then(|listener| listener.local_addr().ok());
    let mut running = Running {
        host: Arc::clone(&host),
        endpoint: endpoint.clone(),
        local_addr,
        http_addr,
        accept: watch::Sender::new(true),
        served: None,
        log_stopping: Arc::new(AtomicBool::new(false)),
        threads: Vec::new(),
    };
    let space = opened.dir.space_monitor(config.space_limits());
    running.start_threads(
        opened,
        replica,
        (space, disk_full),
        replica_config(config).tick_us,
    )?;
    running.start_tasks(endpoint, http, config.standard_modules);
    tracing::info!(host = config.host, %local_addr, "the host serves");
    Ok(running)
}

impl Running {
    /// Dropping `self` after an error ends what was started.
    fn start_threads(
        &mut self,
        opened: Opened,
        replica: Replica,
        (space, disk_full): (SpaceMonitor, Arc<AtomicBool>),
        tick_us: u64,
    ) -> Result<(), StartError> {
        let host = &self.host;
        let alarm = &host.alarm;
        let inbox = &host.inbox;
        let metrics = &host.metrics;
        let (log, log_jobs) = channel();
        let (snapshots, snapshot_jobs) = channel();
        let router = Arc::clone(&host.router);
        let (decisions, keeper) = decision_store(opened.decisions, router, Arc::clone(metrics));
        let (acks, ack_turns) = mpsc::channel(node_service::ACK_TURNS_MAX);
        tokio::spawn(node_service::acknowledge(Arc::clone(host), ack_turns));
        let replica_loop = ReplicaLoop {
            host: Arc::clone(host),
            replica,
            tick_us,
            log,
            snapshots,
            decisions,
            acks,
            runs: 0,
        };
        let log_writer = LogWriter {
            log: opened.log,
            jobs: log_jobs,
            space,
            inbox: Arc::clone(inbox),
            metrics: Arc::clone(metrics),
            alarm: alarm.clone(),
            disk_full,
            stopping: Arc::clone(&self.log_stopping),
        };
        let snapshot_writer = SnapshotWriter {
            snapshots: opened.snapshots,
            jobs: snapshot_jobs,
            inbox: Arc::clone(inbox),
            metrics: Arc::clone(metrics),
        };
        let modules = Arc::clone(&host.modules);
        // Whoever writes holds the lock, so that it is free only when the last one has ended.
        let dir = Arc::new(opened.dir);
        let (log_dir, snapshot_dir, decision_dir) = (Arc::clone(&dir), Arc::clone(&dir), dir);
        let threads = [
            alarm.thread("replica", move || replica_loop.run()),
            alarm.thread("log", move || {
                let ended = log_writer.run();
                drop(log_dir);
                ended
            }),
            alarm.thread(
                "snapshots",
                ends(move || {
                    snapshot_writer.run();
                    drop(snapshot_dir);
                }),
            ),
            alarm.thread(
                "decisions",
                ends(move || {
                    keeper.run();
                    drop(decision_dir);
                }),
            ),
            alarm.thread("modules", ends(move || modules.run())),
        ];
        for thread in threads {
            self.threads.push(thread.map_err(StartError::Thread)?);
        }
        Ok(())
    }

    fn start_tasks(&mut self, endpoint: Endpoint, http: Option<TcpListener>, install: bool) {
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
        self.log_stopping.store(true, Ordering::Relaxed);
        self.host.runner.stop_all();
        self.host.inbox.close();
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

/// A thread whose end is no reason to stop the host; its panic is.
fn ends(
    run: impl FnOnce() + Send + 'static,
) -> impl FnOnce() -> Result<(), String> + Send + 'static {
    move || {
        run();
        Ok(())
    }
}

/// A host that broke must not look alive.
async fn cut_off_on_alarm(alarm: Alarm, mut stopping: watch::Receiver<bool>, endpoint: Endpoint) {
    tokio::select! {
        failed = alarm.wait() => endpoint.close(CloseCode::ShuttingDown, &failed.to_string()),
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

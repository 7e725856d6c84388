//! How a host starts: validate, identity, data directory (lock, log, snapshot), sandbox, ports, then
//! threads and tasks. A host that cannot start leaves nothing running.

use std::collections::hash_map::RandomState;
use std::future::pending;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_replica::{Recovered, Replica};
use maitred_sandbox::{Callbacks, CompilerCommand, Lanes, Sandbox, SandboxConfig};
use maitred_transport::{Alpn, BindError, Endpoint, Identity, Limits};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, watch};

use crate::boot::{self, Opened};
use crate::callback_runner::Runner;
use crate::config::ServerConfig;
use crate::critical::Alarm;
use crate::error::StartError;
use crate::host::{Host, INSPECTIONS_MAX, UPLOADS_MAX};
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::module_service::Modules;
use crate::nodes::Nodes;
use crate::router::Router;
use crate::running::Running;
use crate::{clock, slog_bridge, threads};

/// The argument that makes the host's own program compile a module.
const COMPILE: &str = "internal-compile";

/// Longest that a host's call of itself may take.
const SELF_CALL: Duration = Duration::from_secs(5);

/// Starts hosts.
#[derive(Debug, Clone, Copy)]
pub struct Server;

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
        accepted(&identity).await?;
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

/// Calls the host's own certificate, on a port of the loopback interface: whoever starts a host with
/// one that nobody accepts is to hear of it now, and not from every client.
async fn accepted(identity: &Identity) -> Result<(), StartError> {
    let limits = Limits::default();
    let here = (Ipv4Addr::LOCALHOST, 0).into();
    let host = Endpoint::server(here, identity, &[Alpn::Client], limits)?;
    let local_addr = host.local_addr();
    let address = local_addr.map_err(|source| BindError::Socket {
        address: here,
        source,
    })?;
    let caller = Endpoint::client(identity)?;
    let serving = maitred_transport::serve(&host, Vec::new(), pending(), Duration::ZERO);
    let called = tokio::select! {
        called = caller.connect(address, Alpn::Client, SELF_CALL) => called,
        () = serving => return Ok(()),
    };
    match called {
        Err(error) if error.is_fatal() => Err(StartError::Certificate(error)),
        // Anything else is not the certificate's fault, and no reason not to start.
        _ => Ok(()),
    }
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

fn make_host(config: &ServerConfig, opened: &Opened, sandbox: Arc<Sandbox>) -> Host {
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
        uploads: Semaphore::new(UPLOADS_MAX),
        inspections: Semaphore::new(INSPECTIONS_MAX),
        activations: Mutex::new(()),
        ready: watch::Sender::new(false),
        stopping: watch::Sender::new(false),
        disk_full: Arc::default(),
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
    let host = Arc::new(make_host(config, &opened, sandbox));
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
        log_stopping: Arc::default(),
        threads: Vec::new(),
    };
    let started = threads::start(config, &host, opened, replica, &running.log_stopping);
    // Dropping `running` ends those that were started.
    running.threads = started.map_err(StartError::Thread)?;
    running.start_tasks(endpoint, http, config.standard_modules);
    tracing::info!(host = config.host, %local_addr, "the host serves");
    Ok(running)
}

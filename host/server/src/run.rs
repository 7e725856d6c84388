//! How a host starts: validate, certificate, data directory (lock, identity), port, a place in the
//! cluster, log and snapshot, sandbox, then threads and tasks. A host that cannot start leaves nothing
//! running.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{Join, MemberRecord, PeerHello, Purpose};
use maitred_replica::{Recovered, Replica};
use maitred_sandbox::{Callbacks, CompilerCommand, Fences, Lanes, Sandbox, SandboxConfig, Shadows};
use maitred_storage::{DataDir, HostIdentity};
use maitred_transport::{Alpn, BindError, Endpoint, Identity, Limits};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::boot::{self, Opened};
use crate::bulk::{Bulk, Parts};
use crate::by_name::ByName;
use crate::callback_runner::Runner;
use crate::config::ServerConfig;
use crate::critical::Alarm;
use crate::error::StartError;
use crate::fence_runner::Examiner;
use crate::guard_watch::Guards;
use crate::host::{Host, INSPECTIONS_MAX, Leader, UPLOADS_MAX};
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::module_service::Modules;
use crate::nodes::Nodes;
use crate::peers::{Myself, Peers};
use crate::replay::Replays;
use crate::router::Router;
use crate::running::{Began, Running};
use crate::trust::Trust;
use crate::{clock, guard_watch, join, slog_bridge, threads};

/// The argument that makes the host's own program compile a module.
const COMPILE: &str = "internal-compile";

/// Longest that a host's call of itself may take.
const SELF_CALL: Duration = Duration::from_secs(5);

/// Starts hosts.
#[derive(Debug, Clone, Copy)]
pub struct Server;

impl Server {
    /// Starts a host. One that is to join a cluster asks its seeds until they let it in, however long
    /// that takes; dropping the future leaves nothing running. Must be called within a tokio runtime, which then carries it; one with several
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
        let trust = blocking(move || Ok(Trust::open(&opening)?)).await?;
        let opening = Arc::clone(&config);
        let (dir, began) = blocking(move || boot::open_dir(&opening)).await?;
        let limits = Limits {
            connections_max: config.connections_max,
            ..Limits::default()
        };
        let alpns = [Alpn::Client, Alpn::Peer];
        let endpoint = Endpoint::server(config.listen, &identity, &alpns, limits)?;
        let local_addr = endpoint.local_addr();
        let local_addr = local_addr.map_err(|source| BindError::Socket {
            address: config.listen,
            source,
        })?;
        let http = match config.http {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let advertised = config.advertised(local_addr);
        let (dir, members) = place(&config, dir, &endpoint, &advertised).await?;
        let known = dir.identity().clone();
        let settings = maitred_replica::Config {
            address: advertised,
            seed: clock::random(),
            ..config.replica(known.host, known.name.clone(), known.instance)
        };
        let opening = Arc::clone(&config);
        let taken = settings.clone();
        let (opened, replica, sandbox) = blocking(move || {
            let (opened, recovered) = boot::open(&opening, dir)?;
            let replica = replica(taken, recovered)?;
            let sandbox = Sandbox::new(SandboxConfig {
                limits: opening.guest_limits(),
                cache_dir: opened.dir.compiled(),
                compiler,
            })?;
            Ok((opened, replica, sandbox))
        })
        .await?;
        let start = Start {
            began,
            known,
            settings,
            members,
            identity,
            trust,
            endpoint,
            local_addr,
            http,
        };
        launch(&config, start, opened, replica, sandbox)
    }
}

/// What is settled before the threads start.
struct Start {
    began: Began,
    known: HostIdentity,
    settings: maitred_replica::Config,
    /// Everybody, as the cluster said when it let this host in.
    members: Vec<MemberRecord>,
    identity: Identity,
    trust: Trust,
    endpoint: Endpoint,
    local_addr: SocketAddr,
    http: Option<TcpListener>,
}

/// Makes sure that the host has a number: whoever has none asks the seeds for one, and writes it down.
async fn place(
    config: &ServerConfig,
    mut dir: DataDir,
    endpoint: &Endpoint,
    advertised: &str,
) -> Result<(DataDir, Vec<MemberRecord>), StartError> {
    let known = dir.identity().clone();
    if known.is_joined() {
        return Ok((dir, Vec::new()));
    }
    if known.name != config.host_name()? {
        let dir = config.data_dir.clone();
        let name = known.name;
        return Err(StartError::OtherName { dir, name });
    }
    let asked = Join {
        host: 0,
        name: known.name.clone(),
        address: advertised.to_owned(),
        instance: known.instance,
        level_max: config.level_max,
    };
    let hello = PeerHello {
        cluster: None,
        host: 0,
        instance: known.instance,
        to: 0,
        build: config.build.clone(),
        level_max: config.level_max,
        purpose: Purpose::Bulk,
    };
    let joined = match join::join(endpoint, &hello, &asked, &config.join).await {
        Ok(joined) => joined,
        Err(refused) => {
            let forgotten = blocking(move || {
                boot::forget(dir);
                Ok(())
            });
            forgotten.await?;
            return Err(refused);
        }
    };
    let identity = HostIdentity {
        cluster: joined.cluster,
        host: joined.host,
        ..known
    };
    let cluster = joined.cluster;
    tracing::info!(host = joined.host, %cluster, "the cluster has let this host in");
    let written = blocking(move || {
        dir.set_identity(&identity)?;
        Ok(dir)
    });
    Ok((written.await?, joined.members))
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

fn replica(settings: maitred_replica::Config, recovered: Recovered) -> Result<Replica, StartError> {
    let logger = slog_bridge::logger();
    Ok(Replica::new(settings, recovered, clock::now(), &logger)?)
}

fn make_host(
    config: &ServerConfig,
    start: &mut Start,
    opened: &Opened,
    sandbox: Arc<Sandbox>,
) -> Host {
    let metrics = Arc::new(Metrics::default());
    let inbox = Arc::new(Inbox::default());
    let router = Arc::new(Router::new(Arc::clone(&inbox)));
    let nodes = Arc::new(Nodes::new(Arc::clone(&inbox), Arc::clone(&metrics)));
    let modules = Modules::new(
        Arc::clone(&sandbox),
        opened.blobs.clone(),
        std::mem::take(&mut start.trust),
        Arc::clone(&metrics),
    );
    let modules = Arc::new(modules);
    let shadowed = Arc::clone(&modules);
    let shadows = Shadows::new(Arc::clone(&sandbox), move |digest| {
        shadowed.bytes_of_wished(digest)
    });
    let callbacks = Callbacks::new(Arc::clone(&sandbox));
    let runner = Runner::new(&inbox, &router, &nodes, &modules, callbacks, &metrics);
    let fences = Fences::new(Arc::clone(&sandbox));
    let examiner = Examiner::new(&inbox, &router, &modules, fences, &metrics);
    let stopping = watch::Sender::new(false);
    let known = &start.known;
    let me = Myself {
        cluster: known.cluster,
        host: known.host,
        instance: known.instance,
        build: config.build.clone(),
        level_max: config.level_max,
    };
    let (endpoint, identity) = (start.endpoint.clone(), start.identity.clone());
    let peers = Arc::new(Peers::new(me.clone(), endpoint, identity, &inbox, &metrics));
    let judging = Arc::clone(&peers);
    let bulk = Bulk::new(Parts {
        me,
        judge: Box::new(move |hello| judging.judge(hello)),
        endpoint: start.endpoint.clone(),
        bytes_per_s: config.bulk_bytes_per_s,
        snapshots: opened.snapshots.clone(),
        modules: Arc::clone(&modules),
        router: Arc::clone(&router),
        inbox: Arc::clone(&inbox),
        metrics: Arc::clone(&metrics),
        stopping: stopping.subscribe(),
    });
    let replays = Replays::new(&sandbox, &modules, &router, &metrics, stopping.subscribe());
    Host {
        build: config.build.clone(),
        number: known.host,
        upload_bytes: config.upload_bytes(),
        patience: Duration::from_millis(config.shutdown_ms),
        started: Instant::now(),
        alarm: Alarm::new(),
        peers,
        bulk,
        leader: watch::Sender::new(Leader::default()),
        metrics,
        inbox,
        router,
        nodes,
        modules,
        runner,
        examiner,
        lanes: Lanes::with_shadows(Arc::clone(&sandbox), Arc::clone(&shadows)),
        shadows,
        guards: Guards::default(),
        replays: Arc::new(replays),
        sandbox,
        uploads: Semaphore::new(UPLOADS_MAX),
        inspections: Semaphore::new(INSPECTIONS_MAX),
        activations: ByName::new(1),
        ready: watch::Sender::new(false),
        stopping,
        handed_over: watch::Sender::new(false),
        disk_full: Arc::default(),
    }
}

fn launch(
    config: &ServerConfig,
    mut start: Start,
    opened: Opened,
    replica: Replica,
    sandbox: Arc<Sandbox>,
) -> Result<Running, StartError> {
    let host = Arc::new(make_host(config, &mut start, &opened, sandbox));
    host.peers.hint(&start.members);
    host.bulk.hint(&start.members);
    let Start {
        began,
        known,
        settings,
        endpoint,
        local_addr,
        http,
        ..
    } = start;
    let http_addr = http
        .as_ref()
        .and_then(|listener| listener.local_addr().ok());
    let announced = settings.join();
    let mut running = Running {
        host: Arc::clone(&host),
        endpoint: endpoint.clone(),
        local_addr,
        http_addr,
        began,
        known,
        advertised: settings.address.clone(),
        hand_over: Duration::from_micros(2 * settings.election_ticks as u64 * settings.tick_us),
        accept: watch::Sender::new(true),
        served: None,
        log_stopping: Arc::default(),
        threads: Vec::new(),
    };
    let ticking = settings.tick_us;
    let started = threads::start(
        config,
        &host,
        opened,
        replica,
        ticking,
        &running.log_stopping,
    );
    // Dropping `running` ends those that were started.
    running.threads = started.map_err(StartError::Thread)?;
    running.start_tasks(endpoint, http, config.standard_modules);
    tokio::spawn(guard_watch::run(Arc::clone(&host)));
    tokio::spawn(join::announce(
        Arc::clone(&host),
        announced,
        config.join.clone(),
    ));
    let (name, advertised) = (&running.known.name, &running.advertised);
    tracing::info!(host = host.number, %name, %local_addr, %advertised, "the host serves");
    Ok(running)
}

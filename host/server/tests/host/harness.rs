//! A group of one host in a temporary directory, clients, and a node that starts what it is told to.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use maitred_client::protocol::{Incarnation, ProcessKey};
use maitred_client::{Client, NodeHandle, NodeHandler, SpawnError, SpawnRequest, Spawned};
use maitred_server::{CompilerCommand, GuestConfig, Running, Server, ServerConfig, StartError};
use maitred_transport::{Alpn, Authority, Connection, Endpoint, Identity, IssueKind};
use tempfile::TempDir;

/// Longest that anything in a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Group {
    authority: Authority,
    dir: TempDir,
}

impl Group {
    pub(crate) fn new() -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        Self {
            authority: Authority::generate("test group").unwrap(),
            dir: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn config(&self) -> ServerConfig {
        let identity = self.authority.identity("host", IssueKind::Host, 1).unwrap();
        ServerConfig {
            data_dir: self.data_dir(),
            name: "first".to_owned(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            identity: Some(identity),
            compiler: Some(CompilerCommand {
                program: env!("CARGO_BIN_EXE_maitred-server-compile").into(),
                args: Vec::new(),
            }),
            ..ServerConfig::default()
        }
    }

    /// Settings of a further host without modules, that asks this one to let it in.
    pub(crate) fn joining(&self, name: &str, seed: &Running) -> ServerConfig {
        ServerConfig {
            data_dir: self.dir.path().join(name),
            name: name.to_owned(),
            join: vec![seed.local_addr().to_string()],
            ..self.bare()
        }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A host that leads and has its standard modules.
    pub(crate) async fn start(&self) -> Running {
        let running = self.try_start().await.unwrap();
        within(running.ready()).await.unwrap();
        running
    }

    /// Settings of a host without modules, that leaves address space for others in this process.
    pub(crate) fn bare(&self) -> ServerConfig {
        ServerConfig {
            standard_modules: false,
            guests: GuestConfig {
                callback_instances: 4,
                modules: 4,
                ..GuestConfig::default()
            },
            ..self.config()
        }
    }

    /// A host without modules: quicker.
    pub(crate) async fn start_bare(&self) -> Running {
        let running = Server::start(self.bare()).await.unwrap();
        within(running.ready()).await.unwrap();
        running
    }

    pub(crate) async fn try_start(&self) -> Result<Running, StartError> {
        Server::start(self.config()).await
    }

    /// Another certificate of the group.
    pub(crate) fn identity(&self, kind: IssueKind) -> Identity {
        self.authority.identity("another", kind, 1).unwrap()
    }

    pub(crate) fn client_identity(&self) -> Identity {
        self.authority
            .identity("client", IssueKind::Client, 1)
            .unwrap()
    }

    pub(crate) async fn client(&self, running: &Running) -> Client {
        let builder = Client::builder()
            .endpoint(running.local_addr().to_string())
            .identity(self.client_identity());
        builder.connect().await.unwrap()
    }

    /// A bare connection, for what a client would not send.
    pub(crate) async fn connect(&self, address: SocketAddr) -> (Endpoint, Connection) {
        call(&self.client_identity(), address, Alpn::Client).await
    }

    /// A bare connection, for what a host would not send.
    pub(crate) async fn connect_as_peer(&self, address: SocketAddr) -> (Endpoint, Connection) {
        call(&self.identity(IssueKind::Host), address, Alpn::Peer).await
    }
}

/// How many standard modules there are.
pub(crate) fn standard_modules() -> usize {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../selectors/prebuilt");
    let names = std::fs::read_dir(dir).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".wasm")).count()
}

async fn call(identity: &Identity, address: SocketAddr, alpn: Alpn) -> (Endpoint, Connection) {
    let endpoint = Endpoint::client(identity).unwrap();
    let connection = endpoint.connect(address, alpn, PATIENCE).await;
    (endpoint, connection.unwrap())
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it took too long")
}

pub(crate) fn key(text: &str) -> ProcessKey {
    text.parse().unwrap()
}

/// What was said, in order; shared by clones.
type Heard<T> = Arc<Mutex<Vec<T>>>;

/// Starts everything; remembers what it was told.
#[derive(Clone, Default)]
pub(crate) struct Starter {
    pub(crate) started: Heard<(ProcessKey, Vec<u8>)>,
    pub(crate) stopped: Heard<ProcessKey>,
    /// What it answers instead of starting.
    pub(crate) refuses: Option<SpawnError>,
}

impl NodeHandler for Starter {
    async fn spawn(&self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        if let Some(refusal) = &self.refuses {
            return Err(refusal.clone());
        }
        let pid = format!("pid of {}", request.key.id);
        self.started
            .lock()
            .unwrap()
            .push((request.key, request.payload.clone()));
        Ok(Spawned {
            pid,
            share: request.payload,
        })
    }

    async fn stop(&self, key: ProcessKey, _: Incarnation) {
        self.stopped.lock().unwrap().push(key);
    }
}

pub(crate) async fn node(client: &Client, name: &str, handler: Starter) -> NodeHandle {
    let builder = client.node(name).address("10.0.0.1:7777").capacity(1_000);
    within(builder.start(handler)).await.unwrap()
}

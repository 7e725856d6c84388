//! Bulk parts on the loopback interface: real QUIC, real files, and other hosts that lie.
//!
//! A [`Side`] is one host's bulk part with a directory of its own and without a replica: what it would
//! ask of that, the test answers. A [`Fake`] is a host that does what the test says.

mod blobs;
mod calls;
mod fake;
mod snapshots;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use maitred_protocol::{
    ClusterId, HostName, MemberRecord, MemberRole, Members, PeerGreeting, PeerHello, Request,
    Response,
};
use maitred_registry::Registry;
use maitred_registry::command::{Command, Entry};
use maitred_replica::{Answer, Input, Peer};
use maitred_sandbox::{CompilerCommand, Sandbox, SandboxConfig};
use maitred_storage::{Blobs, DataDir, HostIdentity, SnapshotMeta, Snapshots};
use maitred_transport::{
    Alpn, Authority, Connection, Endpoint, FrameReader, Handler, Identity, IssueKind, Limits,
};
use tempfile::TempDir;
use tokio::sync::watch;

use super::{Bulk, Parts, wire};
use crate::inbox::{Inbox, Taken};
use crate::metrics::Metrics;
use crate::module_service::Modules;
use crate::peers::Myself;
use crate::replay::Replays;
use crate::router::{Answers, Router};
use crate::snapshot_thread::SCHEMA;
use crate::trust::Trust;

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
const CLUSTER: ClusterId = ClusterId([7; 16]);

async fn within<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.expect("it took too long")
}

async fn until(mut done: impl FnMut() -> bool) {
    within(async {
        while !done() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// The certificates of a group.
struct Group(Authority);

impl Group {
    fn new() -> Self {
        Self(Authority::generate("test group").unwrap())
    }

    fn identity(&self) -> Identity {
        self.0.identity("host", IssueKind::Host, 1).unwrap()
    }

    /// A port on which `handler` takes care of hosts.
    fn listen(&self, handler: impl Handler) -> (Endpoint, SocketAddr) {
        let endpoint = self.endpoint();
        let address = endpoint.local_addr().unwrap();
        let serving = endpoint.clone();
        let handlers: Vec<(Alpn, Arc<dyn Handler>)> = vec![(Alpn::Peer, Arc::new(handler))];
        tokio::spawn(async move {
            let forever = std::future::pending();
            maitred_transport::serve(&serving, handlers, forever, Duration::ZERO).await;
        });
        (endpoint, address)
    }

    fn endpoint(&self) -> Endpoint {
        let here = (Ipv4Addr::LOCALHOST, 0).into();
        Endpoint::server(here, &self.identity(), &[Alpn::Peer], Limits::default()).unwrap()
    }
}

/// Greets whoever calls as host `number`.
async fn welcome(connection: &Connection, number: u64) -> PeerHello {
    let (mut send, receive) = connection.accept_bi().await.unwrap();
    let mut reader = FrameReader::new(receive);
    let (_, hello) = reader.message::<PeerHello>().await.unwrap().unwrap();
    let welcome = PeerGreeting::Welcome {
        cluster: CLUSTER,
        host: number,
        build: "test".to_owned(),
        level_max: 1,
    };
    wire::send(&mut send, 0, &welcome).await.unwrap();
    let _ = send.finish();
    hello
}

/// Room for a module or two: there are many sides in one process.
fn few() -> maitred_sandbox::Limits {
    maitred_sandbox::Limits {
        callback_instances: 1,
        modules: 1,
        ..maitred_sandbox::Limits::default()
    }
}

/// One host's bulk part.
struct Side {
    number: u64,
    bulk: Arc<Bulk>,
    metrics: Arc<Metrics>,
    modules: Arc<Modules>,
    snapshots: Snapshots,
    blobs: Blobs,
    inbox: Arc<Inbox>,
    router: Arc<Router>,
    replays: Arc<Replays>,
    address: SocketAddr,
    /// Kept: dropping it means the end.
    stopping: watch::Sender<bool>,
    _root: TempDir,
    dir: DataDir,
}

impl Side {
    fn new(group: &Group, number: u64) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let root = TempDir::new().unwrap();
        let name = HostName::new(format!("host-{number}")).unwrap();
        let identity = HostIdentity {
            cluster: CLUSTER,
            host: number,
            instance: number * 100,
            name,
        };
        let dir = DataDir::create(root.path().join("data"), &identity).unwrap();
        let (snapshots, blobs) = (Snapshots::open(&dir).unwrap(), Blobs::open(&dir).unwrap());
        let sandbox = Sandbox::new(SandboxConfig {
            limits: few(),
            cache_dir: dir.compiled(),
            compiler: CompilerCommand {
                program: "nothing-is-compiled-here".into(),
                args: Vec::new(),
            },
        })
        .unwrap();
        let (metrics, inbox) = (Arc::new(Metrics::default()), Arc::new(Inbox::default()));
        let (trust, counting) = (Trust::default(), Arc::clone(&metrics));
        let modules = Modules::new(Arc::clone(&sandbox), blobs.clone(), trust, counting);
        let modules = Arc::new(modules);
        let router = Arc::new(Router::new(Arc::clone(&inbox)));
        let stopping = watch::Sender::new(false);
        let ending = stopping.subscribe();
        let replays = Replays::new(&sandbox, &modules, &router, &metrics, ending);
        let endpoint = group.endpoint();
        let address = endpoint.local_addr().unwrap();
        let bulk = Bulk::new(Parts {
            me: Myself {
                cluster: CLUSTER,
                host: number,
                instance: number * 100,
                build: "test".to_owned(),
                level_max: 1,
            },
            endpoint: endpoint.clone(),
            bytes_per_s: 0,
            snapshots: snapshots.clone(),
            modules: Arc::clone(&modules),
            router: Arc::clone(&router),
            inbox: Arc::clone(&inbox),
            metrics: Arc::clone(&metrics),
            judge: Box::new(|_| Ok(())),
            stopping: stopping.subscribe(),
        });
        let serving = Arc::clone(&bulk);
        let handler = move |connection: Connection| {
            let serving = Arc::clone(&serving);
            async move {
                let hello = welcome(&connection, number).await;
                serving.serve(connection, &hello).await;
            }
        };
        let handlers: Vec<(Alpn, Arc<dyn Handler>)> = vec![(Alpn::Peer, Arc::new(handler))];
        tokio::spawn(async move {
            let forever = std::future::pending();
            maitred_transport::serve(&endpoint, handlers, forever, Duration::ZERO).await;
        });
        Self {
            number,
            bulk,
            metrics,
            modules,
            snapshots,
            blobs,
            inbox,
            router,
            replays: Arc::new(replays),
            address,
            stopping,
            _root: root,
            dir,
        }
    }

    fn peer(&self) -> Peer {
        peer(self.number, self.address)
    }

    /// Answers what this side asks its replica, until the other half is dropped: with `answer`, or
    /// with a group of these members, all voters.
    fn replica(
        &self,
        members: &[u64],
        answer: impl Fn(&Input) -> Option<Response> + Send + 'static,
    ) -> std::sync::mpsc::Receiver<Input> {
        let (inbox, router) = (Arc::clone(&self.inbox), Arc::clone(&self.router));
        let (seen, inputs) = std::sync::mpsc::channel();
        let members = Response::Members(Box::new(Members {
            items: members.iter().map(|host| member(*host)).collect(),
            leader: Some(self.number),
            term: 1,
            commit: 1,
            level: 2,
        }));
        std::thread::spawn(move || {
            let mut taken = Taken::default();
            while inbox.take(&mut taken, PATIENCE) {
                for input in taken.inputs.drain(..) {
                    let response = match &input {
                        Input::Request {
                            request: Request::ListMembers,
                            ..
                        } => Some(members.clone()),
                        other => answer(other),
                    };
                    let ticket = match &input {
                        Input::Request { ticket, .. }
                        | Input::Join { ticket, .. }
                        | Input::TakeSnapshot(ticket) => Some(*ticket),
                        _ => None,
                    };
                    if let (Some(ticket), Some(response)) = (ticket, response) {
                        let mut answers = Answers::default();
                        answers.add(ticket, Answer::Other(Box::new(response)));
                        router.deliver(&mut answers);
                    }
                    if seen.send(input).is_err() {
                        return;
                    }
                }
            }
        });
        inputs
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
        self.inbox.close();
    }
}

fn peer(host: u64, address: SocketAddr) -> Peer {
    Peer {
        host,
        address: address.to_string(),
        instance: host * 100,
    }
}

fn member(host: u64) -> MemberRecord {
    MemberRecord {
        host,
        name: HostName::new(format!("host-{host}")).unwrap(),
        address: String::new(),
        role: MemberRole::Voter,
        replaces: None,
        arrived: true,
        progress: None,
    }
}

/// A state with something in it, as of this index.
fn registry(index: u64) -> Registry {
    let mut registry = Registry::new();
    let entry = Entry {
        request: None,
        time_ms: 1_000,
        command: Command::OpenSession,
    };
    registry.apply(index, entry, &mut Vec::new());
    registry
}

/// Writes the snapshot of a state down.
fn save(snapshots: &Snapshots, registry: &Registry, term: u64) {
    let state = registry.snapshot();
    let meta = SnapshotMeta {
        index: state.index(),
        term,
        schema: SCHEMA,
        ..SnapshotMeta::default()
    };
    let mut chunks = Vec::new();
    let encoded: Result<(), ()> = state.encode(|chunk| {
        chunks.push(chunk);
        Ok(())
    });
    encoded.unwrap();
    snapshots.save(&meta, chunks).unwrap();
}

//! The accept loop: admits handshakes, and hands each connection to the handler of its protocol.
//!
//! Order of a shutdown: no new connections; handlers get `drain` to end by themselves; those left
//! are dropped; every connection is closed as shutting down; the other sides are told.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connecting, Connection, Incoming};
use tokio::task::JoinSet;

use crate::admit::{Admission, Caller, Verdict};
use crate::endpoint::Endpoint;
use crate::link::{CloseCode, LinkError, close};
use crate::tls::Alpn;

/// A boxed future that any thread may run.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Longest that a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest to wait for the other sides of a closed endpoint.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes care of connections of one protocol. Any `Fn(Connection) -> Future` is one.
pub trait Handler: Send + Sync + 'static {
    /// Takes care of one connection until it ends.
    fn handle(&self, connection: Connection) -> BoxFuture<'static, ()>;
}

impl<F, T> Handler for F
where
    F: Fn(Connection) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    fn handle(&self, connection: Connection) -> BoxFuture<'static, ()> {
        Box::pin(self(connection))
    }
}

type Handlers = Arc<HashMap<Alpn, Arc<dyn Handler>>>;

/// Takes connections until `shutdown` completes, then gives handlers `drain` to end.
/// A protocol that was named to [`Endpoint::server`] and has no handler here is closed at once.
pub async fn serve(
    endpoint: &Endpoint,
    handlers: Vec<(Alpn, Arc<dyn Handler>)>,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) {
    let handlers: Handlers = Arc::new(handlers.into_iter().collect());
    let handshakes = Arc::new(AtomicUsize::new(0));
    let mut admission = Admission::new(endpoint.limits);
    let mut running = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            incoming = endpoint.inner.accept() => {
                let Some(incoming) = incoming else { break };
                let Some(connecting) = admit(endpoint, &mut admission, &handshakes, incoming)
                else { continue };
                let pending = Pending::new(&handshakes);
                running.spawn(run(connecting, pending, Arc::clone(&handlers)));
            }
            Some(ended) = running.join_next(), if !running.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's handler died");
                }
            }
        }
    }
    endpoint.inner.set_server_config(None);
    let drained = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, drained).await.is_err() {
        tracing::info!(left = running.len(), "connections are cut at shutdown");
    }
    // Before the handlers go: a connection that is dropped would say that nothing more is wanted.
    endpoint.close(CloseCode::ShuttingDown, "the host is shutting down");
    running.abort_all();
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
}

/// Counts a handshake for as long as it lives.
struct Pending(Arc<AtomicUsize>);

impl Pending {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn admit(
    endpoint: &Endpoint,
    admission: &mut Admission,
    handshakes: &AtomicUsize,
    incoming: Incoming,
) -> Option<Connecting> {
    let caller = Caller {
        source: incoming.remote_address().ip(),
        validated: incoming.remote_address_validated(),
        handshakes: handshakes.load(Ordering::Relaxed),
        connections: endpoint.open_connections(),
    };
    match admission.decide(caller, Instant::now()) {
        Verdict::Accept => match incoming.accept() {
            Ok(connecting) => return Some(connecting),
            Err(error) => {
                let error = LinkError::from(error);
                tracing::debug!(source = %caller.source, %error, "a call came to nothing");
            }
        },
        Verdict::Retry => {
            if let Err(error) = incoming.retry() {
                error.into_incoming().refuse();
            }
        }
        Verdict::Refuse => {
            tracing::debug!(source = %caller.source, "a call was refused: too many");
            incoming.refuse();
        }
    }
    None
}

async fn run(connecting: Connecting, pending: Pending, handlers: Handlers) {
    let source = connecting.remote_address();
    let connection = match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            match LinkError::from(error) {
                // A command that has its answer does not wait for the hosts that it has not met yet.
                error @ (LinkError::WentAway | LinkError::Lost | LinkError::Local) => {
                    tracing::debug!(%source, %error, "a call came to nothing");
                }
                error => tracing::info!(%source, %error, "a handshake failed"),
            }
            return;
        }
        Err(_) => {
            tracing::debug!(%source, "a handshake took too long");
            return;
        }
    };
    drop(pending);
    match alpn(&connection).and_then(|alpn| handlers.get(&alpn)) {
        Some(handler) => handler.handle(connection).await,
        None => close(
            &connection,
            CloseCode::Protocol,
            "nobody serves this protocol here",
        ),
    }
}

fn alpn(connection: &Connection) -> Option<Alpn> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>();
    Alpn::from_bytes(&data.ok()?.protocol?)
}

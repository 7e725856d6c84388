//! What a callback and a fence may ask of the host within a call: the chosen node, and look-ups.
//! Whoever runs callbacks brings a [`NodePort`], whoever runs fences a [`RecordsPort`]; the
//! deadlines and bounds of `wit/policy.wit` are kept here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{Incarnation, ProcessKey, limits as wire};
use maitred_registry::decide::cut;
use tokio::time::timeout;

use crate::bindings::callback::maitred::policy::{node, records};
use crate::guest::Guest;
use crate::limits::LOOKUPS_MAX;

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a node answered to a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// What the node calls the process; at most 256 bytes.
    pub pid: String,
    /// What the node wants callers of the process to know; at most 4 KiB.
    pub share: Vec<u8>,
}

/// Why a node did not start a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeFailure {
    /// Not now.
    Busy(String),
    /// The start went wrong.
    Failed(String),
    /// Whether the process runs is not known.
    NoAnswer(String),
}

/// A process, as a callback or a fence may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The node's name.
    pub node: String,
    /// Where the node can be reached.
    pub address: String,
    /// Empty while the process is starting.
    pub pid: String,
    /// What the node shares about it.
    pub share: Vec<u8>,
    /// This life of the key.
    pub incarnation: Incarnation,
    /// Whether it is running already.
    pub running: bool,
}

/// The way to the node that was chosen, for one spawn.
pub trait NodePort: Send + Sync + 'static {
    /// Tells the node to start the process with `payload` (at most 64 KiB). After `within` the
    /// answer no longer counts: the future is dropped, and the callback told `NoAnswer`.
    fn start(
        &self,
        payload: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'_, Result<Started, NodeFailure>>;

    /// Looks a process up; at most 16 times a spawn.
    fn lookup(&self, key: ProcessKey) -> BoxFuture<'_, Option<Process>>;
}

/// The registry as a fence may read it, for one examination.
pub trait RecordsPort: Send + Sync + 'static {
    /// Looks a process up; at most 16 times an examination. After the job's deadline the answer no
    /// longer counts: the future is dropped, and the fence told that there is no such process.
    fn lookup(&self, key: ProcessKey) -> BoxFuture<'_, Option<Process>>;
}

/// What there is to ask, by the kind of module.
#[derive(Clone)]
pub(crate) enum Port {
    Node(Arc<dyn NodePort>),
    Records(Arc<dyn RecordsPort>),
}

/// What a call may still ask.
pub(crate) struct Call {
    port: Port,
    deadline: Instant,
    lookups_left: u32,
}

impl Call {
    pub(crate) fn new(port: Port, deadline: Instant) -> Self {
        Self {
            port,
            deadline,
            lookups_left: LOOKUPS_MAX,
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn lookup(&self, key: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        match &self.port {
            Port::Node(port) => port.lookup(key),
            Port::Records(port) => port.lookup(key),
        }
    }
}

impl node::Host for Guest {
    async fn start(
        &mut self,
        payload: Vec<u8>,
        deadline_ms: u32,
    ) -> Result<node::Started, node::Failure> {
        let Some((call, port)) = self.call.as_ref().and_then(|call| match &call.port {
            Port::Node(port) => Some((call, port)),
            Port::Records(_) => None,
        }) else {
            return Err(node::Failure::Failed(
                "node.start can be called within spawn only".to_owned(),
            ));
        };
        if payload.len() > wire::ARGS_BYTES_MAX {
            let (got, most) = (payload.len(), wire::ARGS_BYTES_MAX);
            return Err(node::Failure::Failed(format!(
                "the payload has {got} bytes, of at most {most}"
            )));
        }
        let left = call.left();
        if left.is_zero() {
            return Err(node::Failure::NoAnswer(
                "the create's deadline has passed".to_owned(),
            ));
        }
        let within = left.min(Duration::from_millis(u64::from(
            deadline_ms.clamp(1, wire::DEADLINE_MS_MAX),
        )));
        match timeout(within, port.start(payload, within)).await {
            Ok(Ok(Started { pid, share })) => Ok(node::Started { pid, share }),
            Ok(Err(NodeFailure::Busy(reason))) => Err(node::Failure::Busy(cut(reason))),
            Ok(Err(NodeFailure::Failed(reason))) => Err(node::Failure::Failed(cut(reason))),
            Ok(Err(NodeFailure::NoAnswer(reason))) => Err(node::Failure::NoAnswer(cut(reason))),
            Err(_) => Err(node::Failure::NoAnswer(format!(
                "no answer within {} ms",
                within.as_millis()
            ))),
        }
    }
}

impl records::Host for Guest {
    async fn get(&mut self, process_type: String, id: String) -> Option<records::Process> {
        let call = self.call.as_mut()?;
        call.lookups_left = call.lookups_left.checked_sub(1)?;
        let key = ProcessKey::new(&process_type, &id).ok()?;
        let found = timeout(call.left(), call.lookup(key)).await.ok()??;
        let Process {
            node,
            address,
            pid,
            share,
            incarnation,
            running,
        } = found;
        Some(records::Process {
            node,
            address,
            pid,
            share,
            incarnation: incarnation.0.to_string(),
            running,
        })
    }
}

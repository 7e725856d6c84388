//! What a callback and a fence may ask of the host within a call: the chosen node, and look-ups.
//! Whoever runs callbacks brings a [`NodePort`], whoever runs fences a [`RecordsPort`]; the
//! deadlines and bounds of `wit/policy.wit` are kept here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{Incarnation, ProcessKey, limits as wire};
use maitred_registry::decide::cut;
use tokio::time::{sleep, timeout};

use crate::bindings::callback::maitred::policy::{node, records};
use crate::guest::Guest;
use crate::limits::{LOOKUPS_MAX, PAUSE_MS, TRIES_MAX};

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
    ///
    /// `attempt` is 1 to 16: a start that the node refused (busy, failed) may be tried again under
    /// the next number, one that was not answered is asked for again under the same.
    fn start(
        &self,
        payload: Vec<u8>,
        within: Duration,
        attempt: u32,
    ) -> BoxFuture<'_, Result<Started, NodeFailure>>;

    /// Tells the node that this incarnation must not run, and waits until it says so, or `within`
    /// has passed, as for a start. The node refuses every later start of the incarnation.
    fn stop(&self, within: Duration) -> BoxFuture<'_, Result<(), NodeFailure>>;

    /// Looks a process up; at most 16 times a spawn.
    fn lookup(&self, key: ProcessKey) -> BoxFuture<'_, Option<Process>>;
}

/// The registry as a fence, or a hook of a callback, may read it, for one call.
pub trait RecordsPort: Send + Sync + 'static {
    /// Looks a process up; at most 16 times a call. After the job's deadline the answer no longer
    /// counts: the future is dropped, and the guest told that there is no such process.
    fn lookup(&self, key: ProcessKey) -> BoxFuture<'_, Option<Process>>;
}

/// What there is to ask, by the kind of call.
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
    /// Starts that the node refused, and that may be tried again.
    refused: u32,
}

impl Call {
    pub(crate) fn new(port: Port, deadline: Instant) -> Self {
        Self {
            port,
            deadline,
            lookups_left: LOOKUPS_MAX,
            refused: 0,
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// What the guest may wait for the node, of what it wants to.
    fn within(&self, deadline_ms: u32) -> Result<Duration, NodeFailure> {
        let left = self.left();
        if left.is_zero() {
            let reason = "the create's deadline has passed".to_owned();
            return Err(NodeFailure::NoAnswer(reason));
        }
        let wanted = u64::from(deadline_ms.clamp(1, wire::DEADLINE_MS_MAX));
        Ok(left.min(Duration::from_millis(wanted)))
    }

    fn lookup(&self, key: ProcessKey) -> BoxFuture<'_, Option<Process>> {
        match &self.port {
            Port::Node(port) => port.lookup(key),
            Port::Records(port) => port.lookup(key),
        }
    }
}

/// Waits for a node's answer, and cuts its reasons.
async fn answered<T>(
    within: Duration,
    asked: BoxFuture<'_, Result<T, NodeFailure>>,
) -> Result<T, NodeFailure> {
    match timeout(within, asked).await {
        Ok(answer) => answer.map_err(|failure| match failure {
            NodeFailure::Busy(reason) => NodeFailure::Busy(cut(reason)),
            NodeFailure::Failed(reason) => NodeFailure::Failed(cut(reason)),
            NodeFailure::NoAnswer(reason) => NodeFailure::NoAnswer(cut(reason)),
        }),
        Err(_) => Err(NodeFailure::NoAnswer(format!(
            "no answer within {} ms",
            within.as_millis()
        ))),
    }
}

impl Guest {
    /// The call under way and its node, within `spawn`.
    fn spawning(&mut self, what: &str) -> Result<(&mut Call, Arc<dyn NodePort>), NodeFailure> {
        let found = self.call.as_mut().and_then(|call| match &call.port {
            Port::Node(port) => {
                let port = Arc::clone(port);
                Some((call, port))
            }
            Port::Records(_) => None,
        });
        let only = || format!("{what} can be called within spawn only");
        found.ok_or_else(|| NodeFailure::Failed(only()))
    }

    /// `node.start`. Where `again`, what the node refused is tried anew; else it says again what it
    /// said first.
    pub(crate) async fn start_process(
        &mut self,
        payload: Vec<u8>,
        deadline_ms: u32,
        again: bool,
    ) -> Result<Started, NodeFailure> {
        let (call, port) = self.spawning("node.start")?;
        if payload.len() > wire::ARGS_BYTES_MAX {
            let (got, most) = (payload.len(), wire::ARGS_BYTES_MAX);
            let reason = format!("the payload has {got} bytes, of at most {most}");
            return Err(NodeFailure::Failed(reason));
        }
        if call.refused >= TRIES_MAX {
            let reason = format!("the node refused all {TRIES_MAX} tries of this spawn");
            return Err(NodeFailure::Failed(reason));
        }
        let within = call.within(deadline_ms)?;
        let attempt = call.refused + 1;
        let answer = answered(within, port.start(payload, within, attempt)).await;
        if again && matches!(answer, Err(NodeFailure::Busy(_) | NodeFailure::Failed(_))) {
            call.refused += 1;
        }
        answer
    }

    /// `node.stop`.
    pub(crate) async fn stop_process(&mut self, deadline_ms: u32) -> Result<(), NodeFailure> {
        let (call, port) = self.spawning("node.stop")?;
        let within = call.within(deadline_ms)?;
        answered(within, port.stop(within)).await
    }

    /// `node.pause`: a fiber that sleeps computes nothing. It is for tries, so hooks, which others wait
    /// for, do not sleep.
    pub(crate) async fn pause_for(&mut self, milliseconds: u32) {
        let Ok((call, _)) = self.spawning("node.pause") else {
            return;
        };
        let wanted = milliseconds.clamp(*PAUSE_MS.start(), *PAUSE_MS.end());
        sleep(call.left().min(Duration::from_millis(u64::from(wanted)))).await;
    }

    /// `records.get`.
    pub(crate) async fn look_up(&mut self, process_type: &str, id: &str) -> Option<Process> {
        let call = self.call.as_mut()?;
        call.lookups_left = call.lookups_left.checked_sub(1)?;
        let key = ProcessKey::new(process_type, id).ok()?;
        timeout(call.left(), call.lookup(key)).await.ok()?
    }
}

fn failure(failure: NodeFailure) -> node::Failure {
    match failure {
        NodeFailure::Busy(reason) => node::Failure::Busy(reason),
        NodeFailure::Failed(reason) => node::Failure::Failed(reason),
        NodeFailure::NoAnswer(reason) => node::Failure::NoAnswer(reason),
    }
}

impl node::Host for Guest {
    async fn start(
        &mut self,
        payload: Vec<u8>,
        deadline_ms: u32,
    ) -> Result<node::Started, node::Failure> {
        let started = self.start_process(payload, deadline_ms, true).await;
        started
            .map_err(failure)
            .map(|Started { pid, share }| node::Started { pid, share })
    }

    async fn stop(&mut self, deadline_ms: u32) -> Result<(), node::Failure> {
        self.stop_process(deadline_ms).await.map_err(failure)
    }

    async fn pause(&mut self, milliseconds: u32) {
        self.pause_for(milliseconds).await;
    }
}

impl records::Host for Guest {
    async fn get(&mut self, process_type: String, id: String) -> Option<records::Process> {
        let found = self.look_up(&process_type, &id).await?;
        Some(records::Process {
            node: found.node,
            address: found.address,
            pid: found.pid,
            share: found.share,
            incarnation: found.incarnation.0.to_string(),
            running: found.running,
        })
    }
}

//! Every verb as a typed method.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::limits::NAME_BYTES_MAX;
use maitred_protocol::{
    CreateProcess, Explanation, Incarnation, ListProcesses, NodeEpoch, NodeName, NodeRecord, Plan,
    ProcessKey, ProcessRecord, Request, Response, Revision, SetProcess, Status, TypeName, TypeSpec,
    Welcome,
};

use crate::builder::{Builder, Settings};
use crate::call::{Caller, wrong_answer};
use crate::create::Create;
use crate::error::Error;
use crate::node_builder::NodeBuilder;
use crate::pool::{Route, Tasks};

/// The session goes into a request when it is sent.
pub(crate) const NO_SESSION: maitred_protocol::ClientId = maitred_protocol::ClientId(0);
/// What a create may take longer here than its own deadline says: the way there and back.
pub(crate) const CREATE_SLACK: Duration = Duration::from_secs(5);
/// Longest to wait for hosts to hear that this client goes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest to wait for the end of the session.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_millis(500);

/// The answer to a create.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The process.
    pub record: ProcessRecord,
    /// False when it was there before, or another create made it.
    pub created: bool,
}

/// A process that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The process.
    pub record: ProcessRecord,
    /// The state that was read.
    pub revision: Revision,
}

/// A page of processes.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// In the order of type and id.
    pub items: Vec<ProcessRecord>,
    /// The `after` of the next page, when there is one.
    pub next: Option<ProcessKey>,
    /// The state that was read.
    pub revision: Revision,
}

/// Who is asked what only reads. The answer is linearizable either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadFrom {
    /// The leader, which answers soonest.
    #[default]
    Leader,
    /// All hosts in turn, which spreads the work; each asks the leader how far it must be.
    Any,
}

impl From<ReadFrom> for Route {
    fn from(from: ReadFrom) -> Self {
        match from {
            ReadFrom::Leader => Self::Leader,
            ReadFrom::Any => Self::Any,
        }
    }
}

/// Talks to a group. Cheap to clone; all clones share connections and session.
///
/// Every method may fail with any [`Error`]; a deterministic no of the registry is
/// [`Error::Rejected`]. Changes are carried out at most once, however often they are retried.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
    reads: ReadFrom,
}

#[derive(Debug)]
struct Inner {
    settings: Arc<Settings>,
    caller: Caller,
    tasks: Tasks,
}

macro_rules! answer {
    ($call:expr, $expected:literal, $pattern:pat => $value:expr) => {
        match $call.await? {
            $pattern => Ok($value),
            _ => Err(wrong_answer($expected)),
        }
    };
}
pub(crate) use answer;

/// Asks for page after page.
macro_rules! pages {
    ($client:ident.$ask:ident, $request:ident, $response:ident, $expected:literal) => {{
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let asked = $client.$ask(Request::$request { after });
            let (items, next) = answer!(asked, $expected,
                Response::$response { items, next } => (items, next))?;
            all.extend(items);
            match next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }};
}
pub(crate) use pages;

impl Client {
    /// How a client is made.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(settings: Arc<Settings>, caller: Caller, tasks: Tasks) -> Self {
        let inner = Inner {
            settings,
            caller,
            tasks,
        };
        Self {
            inner: Arc::new(inner),
            reads: ReadFrom::default(),
        }
    }

    /// A clone whose looks (`get`, `list`, `explain` and the like) are answered by those hosts.
    #[must_use]
    pub fn read_from(&self, reads: ReadFrom) -> Self {
        let inner = Arc::clone(&self.inner);
        Self { inner, reads }
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.inner.settings
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.inner.caller
    }

    pub(crate) async fn call(&self, request: Request) -> Result<Response, Error> {
        let timeout = self.inner.settings.request_timeout;
        self.inner.caller.call(request, timeout).await
    }

    /// Whom [`Client::read_from`] says to ask.
    pub(crate) fn route(&self) -> Route {
        self.reads.into()
    }

    /// Asks what changes nothing, as [`Client::read_from`] says.
    pub(crate) async fn read(&self, request: Request) -> Result<Response, Error> {
        let timeout = self.inner.settings.request_timeout;
        let answer = self.inner.caller.call_on(self.route(), request, timeout);
        answer.await.map(|(response, _)| response)
    }

    /// Begins a create; see [`Create`].
    pub fn create(&self, key: ProcessKey) -> Create {
        Create::new(self.clone(), key)
    }

    /// Creates a process. Waits for as long as the create's own deadline and 5 s, or for the
    /// builder's `create_timeout` when it has none.
    pub async fn create_process(&self, create: CreateProcess) -> Result<Created, Error> {
        let timeout = match create.options.deadline_ms {
            0 => self.inner.settings.create_timeout,
            deadline_ms => Duration::from_millis(deadline_ms.into()) + CREATE_SLACK,
        };
        let request = Request::CreateProcess(NO_SESSION, Box::new(create));
        answer!(self.inner.caller.call(request, timeout), "a created process",
            Response::Created { record, created } => Created { record: *record, created })
    }

    /// Looks a process up, linearizably.
    pub async fn get(&self, key: &ProcessKey) -> Result<Found, Error> {
        self.look_up(key, false).await
    }

    /// Looks a process up in the host's own, possibly old, view.
    pub async fn get_stale(&self, key: &ProcessKey) -> Result<Found, Error> {
        self.look_up(key, true).await
    }

    async fn look_up(&self, key: &ProcessKey, stale: bool) -> Result<Found, Error> {
        let key = key.clone();
        found(self.read(Request::GetProcess { key, stale }).await?)
    }

    /// Registers a process that its node runs itself, or updates one. Nodes use
    /// [`crate::NodeHandle::set`].
    pub async fn set(&self, set: SetProcess) -> Result<Found, Error> {
        let request = Request::SetProcess(NO_SESSION, Box::new(set));
        found(self.call(request).await?)
    }

    /// Removes a process; only the given life of it, if one is given.
    pub async fn del(
        &self,
        key: &ProcessKey,
        incarnation: Option<Incarnation>,
    ) -> Result<Revision, Error> {
        self.done(Request::DelProcess {
            client: NO_SESSION,
            key: key.clone(),
            incarnation,
            ended: false,
        })
        .await
    }

    /// One page of processes.
    pub async fn list(&self, list: ListProcesses) -> Result<Page, Error> {
        answer!(self.read(Request::ListProcesses(Box::new(list))), "processes",
            Response::Processes { items, next, revision } => Page { items, next, revision })
    }

    /// All pages, from `list.after` on. They are read one after the other, so together they are
    /// not the state of one moment; and they are all kept in memory.
    pub async fn list_all(&self, mut list: ListProcesses) -> Result<Vec<ProcessRecord>, Error> {
        let mut all = Vec::new();
        loop {
            let page = self.list(list.clone()).await?;
            all.extend(page.items);
            match page.next {
                Some(next) => list.after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Why a process is where it is.
    pub async fn explain(&self, key: &ProcessKey) -> Result<Explanation, Error> {
        self.explained(key, None).await
    }

    /// The same, and what became of `node` in that decision.
    pub async fn explain_why_not(
        &self,
        key: &ProcessKey,
        node: &NodeName,
    ) -> Result<Explanation, Error> {
        self.explained(key, Some(node.clone())).await
    }

    async fn explained(
        &self,
        key: &ProcessKey,
        why_not: Option<NodeName>,
    ) -> Result<Explanation, Error> {
        let key = key.clone();
        answer!(self.read(Request::Explain { key, why_not }), "an explanation",
            Response::Explained(explanation) => *explanation)
    }

    /// What a create would do; nothing is changed.
    pub async fn plan(&self, create: CreateProcess) -> Result<Plan, Error> {
        answer!(self.call(Request::Plan(Box::new(create))), "a plan",
            Response::Planned(plan) => *plan)
    }

    /// Begins to run a game node under `name` (letters, digits, `.`, `_`, `-`; 1 to 64); see
    /// [`NodeBuilder`]. It gets connections and a thread of its own.
    pub fn node(&self, name: &str) -> NodeBuilder {
        // A longer name is refused at the start; no need to keep all of it until then.
        let name = name.chars().take(NAME_BYTES_MAX + 1).collect();
        NodeBuilder::new(Arc::clone(&self.inner.settings), name)
    }

    /// All nodes, page by page, so that one that comes meanwhile may be missing. The leader is asked,
    /// whatever [`ReadFrom`] says: only it knows leases and loads.
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>, Error> {
        pages!(self.call, ListNodes, Nodes, "nodes")
    }

    /// One node; asked like [`Client::nodes`].
    pub async fn get_node(&self, name: &NodeName) -> Result<NodeRecord, Error> {
        answer!(self.call(Request::GetNode(name.clone())), "a node",
            Response::Node(node) => *node)
    }

    /// Stops (true) or allows (false) new processes on a node.
    pub async fn cordon(&self, name: &NodeName, cordoned: bool) -> Result<Revision, Error> {
        self.done(Request::CordonNode {
            client: NO_SESSION,
            name: name.clone(),
            cordoned,
        })
        .await
    }

    /// Changes what a node said of itself; none keeps a field.
    pub async fn update_node(
        &self,
        name: &NodeName,
        epoch: NodeEpoch,
        labels: Option<Vec<(String, String)>>,
        capacity: Option<u32>,
        share: Option<Vec<u8>>,
    ) -> Result<Revision, Error> {
        self.done(Request::UpdateNode {
            client: NO_SESSION,
            name: name.clone(),
            epoch,
            labels,
            capacity,
            share,
        })
        .await
    }

    /// Ends a node's session; its processes are dealt with as when it is lost.
    pub async fn deregister_node(
        &self,
        name: &NodeName,
        epoch: NodeEpoch,
    ) -> Result<Revision, Error> {
        self.done(Request::DeregisterNode {
            client: NO_SESSION,
            name: name.clone(),
            epoch,
        })
        .await
    }

    /// Sets a type's defaults.
    pub async fn put_type(&self, spec: TypeSpec) -> Result<TypeSpec, Error> {
        answer!(self.call(Request::PutType(NO_SESSION, Box::new(spec))), "a type",
            Response::Type(spec) => *spec)
    }

    /// One type's defaults.
    pub async fn get_type(&self, name: &TypeName) -> Result<TypeSpec, Error> {
        answer!(self.read(Request::GetType(name.clone())), "a type",
            Response::Type(spec) => *spec)
    }

    /// All types that have been described: page by page, so that one that comes meanwhile may be missing.
    pub async fn types(&self) -> Result<Vec<TypeSpec>, Error> {
        pages!(self.read, ListTypes, Types, "types")
    }

    /// How the host in use is: the leader when one is known.
    pub async fn status(&self) -> Result<Status, Error> {
        answer!(self.call(Request::Status), "its status", Response::Status(status) => *status)
    }

    /// The greeting of the host in use; none while there is no connection.
    #[must_use]
    pub fn welcome(&self) -> Option<Welcome> {
        let conn = self.inner.caller.pool.connected()?;
        Some(conn.welcome.clone())
    }

    /// Ends all connections at once, for all clones, and tells the hosts (for up to 1.5 s). Requests
    /// under way fail. The last clone also ends the session. Dropping that does the same without
    /// waiting, and leaves the session to be forgotten in time.
    pub async fn close(self) {
        if Arc::strong_count(&self.inner) == 1 {
            self.inner.caller.close_session(SESSION_TIMEOUT).await;
        }
        self.inner.tasks.close();
        self.inner.tasks.wait_idle(CLOSE_TIMEOUT).await;
    }

    pub(crate) async fn done(&self, request: Request) -> Result<Revision, Error> {
        answer!(self.call(request), "a revision", Response::Done(revision) => revision)
    }
}

fn found(response: Response) -> Result<Found, Error> {
    match response {
        Response::Process { record, revision } => Ok(Found {
            record: *record,
            revision,
        }),
        _ => Err(wrong_answer("a process")),
    }
}

//! Every answer of the client wire.
//!
//! A no has one of three natures, and its type says which: a [`Rejection`] is deterministic and
//! will be the same next time; [`Unavailable`] may be tried again as it is, since nothing was done;
//! [`Response::Unknown`] means that the change may or may not have been made, and asking again with
//! the same request id is safe.

use rkyv::{Archive, Deserialize, Serialize};

use crate::comparison::Comparison;
use crate::failover::{LostNode, PendingProcess, RebalancePlan};
use crate::id::{
    ClientId, Incarnation, ModuleName, NodeEpoch, NodeName, ProcessKey, Revision, TypeName,
};
use crate::member::{MemberRecord, Members};
use crate::module::{Findings, ModuleEvent, ModuleRecord};
use crate::record::{Evidence, Explanation, NodeRecord, ProcessRecord, Refusal, Status, TypeSpec};

/// A try of a create that did not succeed.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Where.
    pub node: NodeName,
    /// Under which incarnation.
    pub incarnation: Incarnation,
    /// What went wrong, at most 512 bytes.
    pub cause: String,
}

/// A deterministic no.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// A field is out of bounds.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{0} not found")]
    NotFound(String),
    /// The key is taken.
    #[error("{} already exists on node {}", .0.key, .0.node)]
    AlreadyExists(Box<ProcessRecord>),
    /// Another life of the process, or another session of the node, is the current one.
    #[error("fenced: the current {what} is {current}")]
    Fenced {
        /// `incarnation` or `node epoch`.
        what: String,
        /// The current one; 0 when there is none.
        current: u64,
    },
    /// No node will do.
    #[error("no node can take the process")]
    NoPlacement {
        /// Why, node by node; at most 200.
        refusals: Vec<Refusal>,
        /// Nodes beyond those.
        more: u32,
        /// The selector that refused the candidates there were, if there were any.
        selector: Option<ModuleName>,
    },
    /// Every attempt failed, or the callback gave up.
    #[error("the process could not be started: {} attempts failed", .0.len())]
    SpawnFailed(Vec<Attempt>),
    /// Time ran out; the create has been undone.
    #[error("the deadline passed; the create has been undone")]
    Deadline(Vec<Attempt>),
    /// What was asked does not go with what there is.
    #[error("{0}")]
    Conflict(String),
    /// An uploaded module is not acceptable.
    #[error("module rejected while {stage}: {reason}")]
    Module {
        /// What was being done: `receiving`, `scanning`, `checking the world`, `compiling`,
        /// `instantiating`, `describing`, `trying`.
        stage: String,
        /// What is wrong and what to do; names the limit when one was hit.
        reason: String,
    },
    /// The selector says that the process must not be created.
    #[error("rejected by selector {selector}: {reason} (code {code})")]
    BySelector {
        /// Which.
        selector: ModuleName,
        /// Its number for the reason.
        code: u32,
        /// For people.
        reason: String,
    },
    /// A member of a party could not be created, so none was.
    #[error("the party was not created, because of {key}: {reason}")]
    Party {
        /// Which member.
        key: ProcessKey,
        /// Why, for people; at most 512 bytes.
        reason: String,
    },
    /// Another process has registered the node's name since this one did: of the two, this is the
    /// older. It must stop what it runs and not register again.
    #[error(
        "node {name} has been registered by another process since, as session {epoch}; start it under a name of its own"
    )]
    Superseded {
        /// The name.
        name: NodeName,
        /// The session of the other.
        epoch: NodeEpoch,
    },
}

/// A retryable no: nothing was done.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Another host leads.
    #[error("this host does not lead the group")]
    NotLeader {
        /// Its address, when known.
        leader: Option<String>,
    },
    /// Too much is under way; what is too much.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// The host is shutting down.
    #[error("the host is shutting down")]
    ShuttingDown,
    /// The disk is full: creates are shed; reads, keep-alives and deletes go on.
    #[error("the host's disk is nearly full: {0}")]
    DiskFull(String),
    /// The client's session is not known (any more): open a new one.
    #[error("the client session is not known; open a new one")]
    NoSession,
    /// An earlier life of the key may still go on; where, and what would prove that it does not.
    #[error("an earlier life of the process may still go on: {0}")]
    Held(String),
}

/// What a node must do with a process of its inventory.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the registered one.
    Keep,
    /// It is not, or no longer: stop it.
    Stop,
    /// The registry cannot know of it, because it was restored from a snapshot that is older: the
    /// node may register it anew, and stops it if its key is taken.
    Adopt,
}

/// What a create would do.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Plan {
    /// The node that would be chosen; none when none would do.
    pub node: Option<NodeName>,
    /// Those that would be tried next when that one could not take it, best first; at most
    /// [`RANKED_MAX`](crate::limits::RANKED_MAX) less one, none unless the selector ranks.
    pub then: Vec<NodeName>,
    /// What the decision would be made from.
    pub evidence: Evidence,
    /// The state that it was made on.
    pub revision: Revision,
}

/// An answer.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Response {
    /// To `OpenSession`.
    Session(ClientId),
    /// To `CreateProcess`.
    Created {
        /// The process.
        record: Box<ProcessRecord>,
        /// False when it was there before (or another create made it).
        created: bool,
    },
    /// To `GetProcess` and `SetProcess`.
    Process {
        /// The process.
        record: Box<ProcessRecord>,
        /// The state that was read.
        revision: Revision,
    },
    /// To a change that answers nothing else.
    Done(Revision),
    /// To `ListProcesses`.
    Processes {
        /// A page.
        items: Vec<ProcessRecord>,
        /// Where the next page begins, when there is one.
        next: Option<ProcessKey>,
        /// The state that was read.
        revision: Revision,
    },
    /// To `RegisterNode` and `AttachNode`.
    Registered {
        /// The session.
        epoch: NodeEpoch,
        /// One for each process of the inventory, in its order.
        verdicts: Vec<Verdict>,
    },
    /// To `GetNode`.
    Node(Box<NodeRecord>),
    /// To `ListNodes`.
    Nodes {
        /// A page: as many as fit a frame.
        items: Vec<NodeRecord>,
        /// After which one the next page begins, when there is one.
        next: Option<NodeName>,
    },
    /// To an upload: the module, the version that it became, and what the host found out about it.
    Pushed(Box<ModuleRecord>, u32, Box<Findings>),
    /// To `GetModule`, `ActivateModule` and `RollbackModule`.
    Module(Box<ModuleRecord>),
    /// To `ListModules`.
    Modules {
        /// A page: as many as fit a frame.
        items: Vec<ModuleRecord>,
        /// After which one the next page begins, when there is one.
        next: Option<ModuleName>,
    },
    /// To `GetType` and `PutType`.
    Type(Box<TypeSpec>),
    /// To `ListTypes`.
    Types {
        /// A page: as many as fit a frame.
        items: Vec<TypeSpec>,
        /// After which one the next page begins, when there is one.
        next: Option<TypeName>,
    },
    /// To `Explain`.
    Explained(Box<Explanation>),
    /// To `Plan`.
    Planned(Box<Plan>),
    /// To `Status`.
    Status(Box<Status>),
    /// A deterministic no.
    Rejected(Rejection),
    /// A retryable no.
    Unavailable(Unavailable),
    /// The change may or may not have been made. Ask again with the same request id, and look if
    /// the answer is the same.
    Unknown(String),
    /// To `AddMember` and `ReplaceMember`.
    Member(Box<MemberRecord>),
    /// To `ListMembers`.
    Members(Box<Members>),
    /// To `ListPending`.
    Pending {
        /// A page, in the order of type and id.
        items: Vec<PendingProcess>,
        /// Where the next page begins, when there is one.
        next: Option<ProcessKey>,
    },
    /// To `ListLost`, in the order of their sessions.
    Lost(Vec<LostNode>),
    /// To `PlanRebalance`.
    Rebalance(Box<RebalancePlan>),
    /// To `CreateParty`: the processes, in the order of the request; whether this request made them.
    Party(Vec<ProcessRecord>, bool),
    /// To `ModuleHistory`.
    ModuleHistory(Vec<ModuleEvent>),
    /// To `CompareModule` and `ReplayModule`.
    Comparison(Box<Comparison>),
}

//! Every request of the client wire, in one enum. Their bounds are in [`crate::bounds`].

use rkyv::{Archive, Deserialize, Serialize};

use crate::failover::{Drain, Move, RebalanceAsk, Switch};
use crate::id::{
    ClientId, Digest, HostName, Incarnation, ModuleName, NodeEpoch, NodeName, ProcessKey, Revision,
    TypeName,
};
use crate::module::{ModuleKind, Signature};
use crate::record::{ProcessState, TypeSpec};

/// What to do when the key of a create is taken.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OnConflict {
    /// Answer with the existing record; one that is starting is waited for.
    #[default]
    Return,
    /// Answer `already_exists` at once.
    Fail,
    /// Wait until the key is free, then create; until the deadline.
    Wait,
}

/// How a create is to be carried out. Zero and none mean the type's default.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct CreateOptions {
    /// What to do when the key is taken.
    pub on_conflict: OnConflict,
    /// Milliseconds that it may take, at most 600,000; 0 for the type's default.
    pub deadline_ms: u32,
    /// Nodes to try, at most 16; 0 for the type's default.
    pub attempts: u8,
    /// Milliseconds before the second attempt, doubled for each further one; 0 for the default.
    pub back_off_ms: u32,
    /// A party, at most 256 bytes.
    pub group: Option<String>,
    /// Labels that the node must have, at most 32.
    pub require: Vec<(String, String)>,
    /// Units of capacity that it takes; 0 counts as 1.
    pub demand: u32,
    /// -1,000 to 1,000; larger is more important.
    pub priority: i32,
    /// The node that asks, when one does.
    pub requester: Option<NodeName>,
    /// Milliseconds to each value of a label (a region, a zone), as the caller measured them; at most
    /// 32. Selectors see them as the feature `latency:KEY`.
    pub latencies: Vec<(String, u32)>,
}

/// Reserve a key, choose a node, start the process there, record it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CreateProcess {
    /// Type and id.
    pub key: ProcessKey,
    /// For the process, at most 64 KiB.
    pub args: Vec<u8>,
    /// Instead of the type's selector.
    pub selector: Option<ModuleName>,
    /// Instead of the type's callback.
    pub callback: Option<ModuleName>,
    /// How.
    pub options: CreateOptions,
}

/// How the members of a party are to be placed with regard to each other.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum PartyRule {
    /// As the selector likes.
    #[default]
    Any,
    /// All on one node.
    Together,
    /// Each on a node of its own.
    Apart,
    /// So many on a node at most, 1 to 64.
    AtMost(u8),
}

/// Reserves all keys of a party in one entry, or none; then starts all of them, or undoes it. Each
/// member is placed by its own selector, or that one's canary, and sees those placed before it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CreateParty {
    /// Its name, 1 to 256 bytes: the group of all its members.
    pub group: String,
    /// How they are to be placed.
    pub rule: PartyRule,
    /// 1 to 64, with different keys. Of their options, `on_conflict` must be `fail` or `return`, and
    /// the first one's deadline is that of all.
    pub members: Vec<CreateProcess>,
}

/// A node registers a process that it runs itself, or updates one of its own.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SetProcess {
    /// Type and id.
    pub key: ProcessKey,
    /// The node.
    pub node: NodeName,
    /// Its session.
    pub epoch: NodeEpoch,
    /// What the node calls it; at most 256 bytes.
    pub pid: String,
    /// What callers are to know; at most 4 KiB.
    pub share: Vec<u8>,
    /// The life that is updated; none registers a new one (or updates the node's own).
    pub incarnation: Option<Incarnation>,
}

/// A page of processes, in the order of type and id.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
pub struct ListProcesses {
    /// Only of this type.
    pub type_name: Option<TypeName>,
    /// Only ids that begin so; needs a type.
    pub id_prefix: Option<String>,
    /// Only on this node.
    pub node: Option<NodeName>,
    /// Only in this state.
    pub state: Option<ProcessState>,
    /// Only after this one: the `next` of the page before.
    pub after: Option<ProcessKey>,
    /// Items, 1 to 1,000; 0 for 1,000.
    pub limit: u32,
}

/// Announces a node.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct RegisterNode {
    /// Its name.
    pub name: NodeName,
    /// The types it hosts, at most 256; empty for all.
    pub types: Vec<TypeName>,
    /// Where its processes can be reached, at most 256 bytes.
    pub address: String,
    /// At most 32 key and value pairs.
    pub labels: Vec<(String, String)>,
    /// Units of capacity, 1 to 1,000,000.
    pub capacity: u32,
    /// What others are to know; at most 4 KiB.
    pub share: Vec<u8>,
    /// Milliseconds of its lease, 1,000 to 60,000.
    pub ttl_ms: u32,
    /// What it runs already, from an earlier session; at most 20,000.
    pub inventory: Vec<(ProcessKey, Incarnation)>,
    /// Milliseconds that it takes at most to stop all that it runs, 0 to 60,000. Part of the promise
    /// that a key of [`crate::Restart::Safe`] has one life at a time.
    pub kill_bound_ms: u32,
    /// A number of the process that registers, drawn when it begins; not 0.
    pub instance: u64,
    /// The last session that this very process had; none when it registers for the first time.
    pub last_epoch: Option<NodeEpoch>,
}

/// Announces an upload: the first frame of a stream of its own. `bytes` raw bytes follow.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The session, for the idempotency key (the frame carries the sequence).
    pub client: ClientId,
    /// The name to push under.
    pub name: ModuleName,
    /// The world that it is to fit.
    pub kind: ModuleKind,
    /// Bytes that follow.
    pub bytes: u64,
    /// Their blake3 hash.
    pub digest: Digest,
    /// Who vouches for it.
    pub signature: Option<Signature>,
}

/// How far an upload is; sent while it goes on.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadStage {
    /// Bytes received so far.
    Received(u64),
    /// Looking for compile bombs, foreign imports and the right world.
    Scanning,
    /// Compiling, in a process of its own.
    Compiling,
    /// Instantiating and trying it out.
    Trying,
    /// Writing it down and replicating its entry.
    Recording,
    /// So many of so many hosts that vote have it on disk and ready to run.
    Spreading(u32, u32),
}

/// Asks for a snapshot: the first frame of a stream of its own.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SaveSnapshot {
    /// Whether a snapshot that the host has already will do; else it takes a new one.
    pub newest_kept: bool,
}

/// The answer to [`SaveSnapshot`].
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum SavedSnapshot {
    /// So many raw bytes follow: the snapshot's file.
    File {
        /// The last index that it contains.
        index: u64,
        /// How many follow.
        bytes: u64,
        /// Their blake3 hash.
        digest: Digest,
    },
    /// It cannot be had; why, and what to do.
    Unavailable(String),
}

/// Everything that a client may ask on its control stream.
///
/// A request that changes something carries its session; with the frame's request id that makes
/// the idempotency key, and a retry with the same one returns the first outcome.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Request {
    /// Opens a session; the answer is its id. The only change that needs none.
    OpenSession,
    /// See [`CreateProcess`].
    CreateProcess(ClientId, Box<CreateProcess>),
    /// Looks a process up, linearizably; `stale` allows the host's own possibly old view.
    GetProcess {
        /// Which.
        key: ProcessKey,
        /// Whether an old answer will do; it says its revision.
        stale: bool,
    },
    /// See [`SetProcess`].
    SetProcess(ClientId, Box<SetProcess>),
    /// Removes a process, and stops it if it still runs.
    DelProcess {
        /// The session.
        client: ClientId,
        /// Which.
        key: ProcessKey,
        /// Only this life of it.
        incarnation: Option<Incarnation>,
        /// That life has ended already: its node says so.
        ended: bool,
    },
    /// See [`ListProcesses`].
    ListProcesses(Box<ListProcesses>),
    /// See [`RegisterNode`]. Supersedes an older session of the name. The connection that asks
    /// becomes the one that the node is commanded through.
    RegisterNode(ClientId, Box<RegisterNode>),
    /// Takes a live session over to this connection, after a reconnect.
    AttachNode {
        /// The node.
        name: NodeName,
        /// Its session.
        epoch: NodeEpoch,
        /// What it runs; at most 20,000.
        inventory: Vec<(ProcessKey, Incarnation)>,
    },
    /// Changes what a node said of itself.
    UpdateNode {
        /// The session of the client.
        client: ClientId,
        /// The node.
        name: NodeName,
        /// Its session.
        epoch: NodeEpoch,
        /// Instead of its labels.
        labels: Option<Vec<(String, String)>>,
        /// Instead of its capacity.
        capacity: Option<u32>,
        /// Instead of its share.
        share: Option<Vec<u8>>,
    },
    /// Ends a node's session at once; its processes are dealt with as when it is lost.
    DeregisterNode {
        /// The session of the client.
        client: ClientId,
        /// The node.
        name: NodeName,
        /// Its session.
        epoch: NodeEpoch,
    },
    /// Stops or allows new processes on a node.
    CordonNode {
        /// The session of the client.
        client: ClientId,
        /// The node.
        name: NodeName,
        /// True: no new processes.
        cordoned: bool,
    },
    /// One node.
    GetNode(NodeName),
    /// A page of nodes, in the order of their names.
    ListNodes {
        /// Only after this one: the `next` of the page before.
        after: Option<NodeName>,
    },
    /// Makes a version decide.
    ActivateModule {
        /// The session.
        client: ClientId,
        /// Which module.
        name: ModuleName,
        /// Which version; 0 for the newest.
        version: u32,
        /// Its configuration, JSON of at most 64 KiB; none keeps the active one.
        config: Option<String>,
        /// The share of the ids that it decides for, 1 to 100. Below 100, or with types, it is a canary
        /// beside the active version.
        percent: u8,
        /// Only for these types, at most 64; empty for all.
        types: Vec<TypeName>,
        /// What takes it back by itself, at most 256 bytes, as in `failures>0 || p99>200us`; empty for
        /// nothing.
        guard: String,
    },
    /// Takes back what was activated then, and refused when that decides no more; of none, the canary or
    /// what is active. What was active before decides again, with the configuration that it had.
    RollbackModule(ClientId, ModuleName, Option<Revision>),
    /// Forgets a version that is not active; version 0: the whole module, when no version is.
    RemoveModule(ClientId, ModuleName, u32),
    /// One module.
    GetModule(ModuleName),
    /// A page of modules, in the order of their names.
    ListModules {
        /// Only after this one: the `next` of the page before.
        after: Option<ModuleName>,
    },
    /// Sets a type's defaults.
    PutType(ClientId, Box<TypeSpec>),
    /// One type's defaults.
    GetType(TypeName),
    /// A page of the types that have been described, in the order of their names.
    ListTypes {
        /// Only after this one: the `next` of the page before.
        after: Option<TypeName>,
    },
    /// Why a process is where it is.
    Explain {
        /// Which.
        key: ProcessKey,
        /// And why not on this node.
        why_not: Option<NodeName>,
    },
    /// What a create would do; nothing is changed.
    Plan(Box<CreateProcess>),
    /// How the host is.
    Status,
    // From here on in the order in which they came: the number of a variant is part of the wire.
    /// Announces a host that is to belong to the cluster: it becomes a learner, and by itself a
    /// voter when it has caught up. The same name and address again answer the same member.
    AddMember {
        /// The session.
        client: ClientId,
        /// Its name.
        name: HostName,
        /// Where it will be reached: `HOST:PORT`, 1 to 256 bytes.
        address: String,
    },
    /// Announces a host that takes the place (and the name) of a member: when the new one has caught
    /// up, one change of the group lets it in and the old one out.
    ReplaceMember {
        /// The session.
        client: ClientId,
        /// The member that is to go.
        host: u64,
        /// Where the new one will be reached; none for the old one's address.
        address: Option<String>,
    },
    /// Takes a host out of the cluster. Refused when those that are left could not commit.
    RemoveMember {
        /// The session.
        client: ClientId,
        /// Which.
        host: u64,
    },
    /// Hands leadership over; to the host that has most of the log when none is named. Answered
    /// when another host leads.
    TransferLeader {
        /// To whom.
        to: Option<u64>,
    },
    /// The hosts of the cluster, as the host that is asked sees them; any may be asked, and no leader
    /// is needed.
    ListMembers,
    /// Ends a session: its outcomes are forgotten. A courtesy of clients that end; not an error when
    /// it is not known.
    CloseSession(ClientId),
    /// Empties a node by its types' [`crate::OnDrain`], and cordons it; or ends a drain, and leaves
    /// the node cordoned. Asked again it sets the deadline and the rate anew.
    DrainNode {
        /// The session.
        client: ClientId,
        /// The node.
        name: NodeName,
        /// How; none ends the drain.
        drain: Option<Drain>,
    },
    /// An operator's word that a node is dead and nothing that it ran goes on. A live session of it
    /// ends.
    ConfirmDead {
        /// The session.
        client: ClientId,
        /// The node.
        name: NodeName,
        /// Only this session of it; none for all until now.
        epoch: Option<NodeEpoch>,
    },
    /// A page of pending processes and of what each waits for. Only the leader knows.
    ListPending {
        /// Only after this one: the `next` of the page before.
        after: Option<ProcessKey>,
        /// Items, 1 to 1,000; 0 for 1,000.
        limit: u32,
    },
    /// Sessions that were lost and of which something may still go on.
    ListLost,
    /// Moves that would make the nodes more even; nothing is changed. Only the leader answers.
    PlanRebalance(RebalanceAsk),
    /// Makes moves of a plan, one after the other, in the background; those that are void by then are
    /// left out. Answered when they are taken up. Only the leader answers.
    Rebalance {
        /// The moves, 1 to 2,000.
        moves: Vec<Move>,
        /// How many in a second, 1 to 10,000.
        per_second: u32,
    },
    /// Holds something up, or lets it go on.
    Suspend {
        /// The session.
        client: ClientId,
        /// What.
        what: Switch,
        /// Whether it is held up from now on.
        suspended: bool,
    },
    /// See [`CreateParty`]. Answered with `Party`.
    CreateParty(ClientId, Box<CreateParty>),
    /// A process has ended by itself: its node says so. What becomes of it is the advice of its
    /// callback, if that wants to be asked; else it is forgotten.
    ProcessExited {
        /// The session.
        client: ClientId,
        /// Which.
        key: ProcessKey,
        /// The life that has ended.
        incarnation: Incarnation,
        /// For people and for the callback, at most 512 bytes.
        reason: String,
    },
    /// Runs a version beside the active one, or does so no more.
    ShadowModule {
        /// The session.
        client: ClientId,
        /// Which module.
        name: ModuleName,
        /// Which version (0 for the newest) and its configuration (none for the active one's); none
        /// ends the shadow.
        shadow: Option<(u32, Option<String>)>,
    },
    /// What was done with a module, newest last; at most 64 lines.
    ModuleHistory(ModuleName),
    /// How the shadow of a module does beside its active version. Only the leader knows.
    CompareModule(ModuleName),
    /// Makes recorded decisions of a module again with a version of it. Only the host that is asked
    /// answers, from what it recorded while it led.
    ReplayModule {
        /// Which module's decisions.
        name: ModuleName,
        /// The version that is tried; 0 for the newest.
        version: u32,
        /// Its configuration; none for the one that each decision was made with.
        config: Option<String>,
        /// How many of the newest decisions, 1 to 1,000,000.
        last: u32,
    },
}

/// Asks for recorded inputs of decisions: the first frame of a stream of its own.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SaveInputs {
    /// Only those of this module.
    pub name: Option<ModuleName>,
    /// How many of the newest decisions, 1 to 1,000,000.
    pub last: u32,
}

/// The answer to [`SaveInputs`].
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum SavedInputs {
    /// So many raw bytes follow: a file of recorded inputs.
    File {
        /// The decisions in it.
        decisions: u64,
        /// How many bytes follow.
        bytes: u64,
        /// Their blake3 hash.
        digest: Digest,
    },
    /// It cannot be had; why, and what to do.
    Unavailable(String),
}

/// The place of the session in a request that changes something, for both kinds of borrow.
macro_rules! session_of {
    ($request:expr) => {
        match $request {
            Request::CreateProcess(client, _)
            | Request::CloseSession(client)
            | Request::AddMember { client, .. }
            | Request::ReplaceMember { client, .. }
            | Request::RemoveMember { client, .. }
            | Request::SetProcess(client, _)
            | Request::DelProcess { client, .. }
            | Request::RegisterNode(client, _)
            | Request::UpdateNode { client, .. }
            | Request::DeregisterNode { client, .. }
            | Request::CordonNode { client, .. }
            | Request::DrainNode { client, .. }
            | Request::ConfirmDead { client, .. }
            | Request::Suspend { client, .. }
            | Request::ActivateModule { client, .. }
            | Request::RollbackModule(client, ..)
            | Request::CreateParty(client, _)
            | Request::ProcessExited { client, .. }
            | Request::ShadowModule { client, .. }
            | Request::RemoveModule(client, ..)
            | Request::PutType(client, _) => Some(client),
            Request::OpenSession
            | Request::GetProcess { .. }
            | Request::ListProcesses(_)
            | Request::AttachNode { .. }
            | Request::GetNode(_)
            | Request::ListNodes { .. }
            | Request::GetModule(_)
            | Request::ListModules { .. }
            | Request::GetType(_)
            | Request::ListTypes { .. }
            | Request::Explain { .. }
            | Request::ModuleHistory(_)
            | Request::CompareModule(_)
            | Request::ReplayModule { .. }
            | Request::Plan(_)
            | Request::TransferLeader { .. }
            | Request::ListMembers
            | Request::ListPending { .. }
            | Request::ListLost
            | Request::PlanRebalance(_)
            | Request::Rebalance { .. }
            | Request::Status => None,
        }
    };
}

impl Request {
    /// Whether it goes through the log.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.client().is_some() || matches!(self, Self::OpenSession)
    }

    /// The place of the session of a request that changes something.
    pub fn client_mut(&mut self) -> Option<&mut ClientId> {
        session_of!(self)
    }

    /// The session of a request that changes something.
    #[must_use]
    pub fn client(&self) -> Option<ClientId> {
        session_of!(self).copied()
    }
}

//! The door out: everything that a replica can ask for.

use std::sync::Arc;

use maitred_protocol::{
    Digest, Incarnation, KeepAliveAck, ModuleKind, ModuleName, NodeEpoch, NodeName, ProcessKey,
    ProcessRecord, Response, Revision, Signature,
};
use maitred_registry::candidates::NodeFacts;
use maitred_registry::decide::{LaneId, ModuleRef, SelectBatch, Trace};
use maitred_registry::{EndedBy, Event, Record, Snapshot, Spec};
use raft::eraftpb::{ConfState, Entry, HardState, Message};

use crate::input::Ticket;

/// What must be durable. Whatever depends on it leaves only after [`crate::Input::Persisted`].
#[derive(Debug)]
pub struct Persist {
    /// Comes back when it is done; they only grow.
    pub number: u64,
    /// The log begins anew after this index and term: everything that it held is gone, because a
    /// snapshot that contains more was installed.
    pub reset: Option<(u64, u64)>,
    /// To be appended; a suffix of the log that conflicts is overwritten.
    pub entries: Vec<Entry>,
    /// To be replaced.
    pub hard_state: Option<HardState>,
    /// To be sent when all of it is durable, and not before: what they promise is in it.
    pub release: Vec<Message>,
}

impl Persist {
    /// Whether there is anything to write; if not, it only waits for those before it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reset.is_none() && self.entries.is_empty() && self.hard_state.is_none()
    }
}

/// A host to be connected with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub host: u64,
    /// Where it is; empty while that is not known.
    pub address: String,
    /// What its data directory proves itself with; 0 while it has not come.
    pub instance: u64,
}

/// A spawn to be carried out by the callback.
#[derive(Debug, Clone)]
pub struct SpawnJob {
    /// Which process.
    pub key: ProcessKey,
    /// Which life.
    pub incarnation: Incarnation,
    /// What it was created with.
    pub spec: Arc<Spec>,
    /// 1 for the first.
    pub attempt: u32,
    /// Where it goes.
    pub node: Arc<NodeFacts>,
    /// The leader's term, which nodes compare.
    pub term: u64,
    /// The callback that is active, or why there is none.
    pub callback: Result<ModuleRef, String>,
    /// The seed of the placement.
    pub seed: u32,
    /// Milliseconds left of the create's deadline, or a time-out for a re-creation.
    pub within_ms: u32,
}

/// A life that is given up after its spawn had begun.
#[derive(Debug, Clone)]
pub struct Compensation {
    /// Which process.
    pub key: ProcessKey,
    /// Which life.
    pub incarnation: Incarnation,
    /// What it was created with.
    pub spec: Arc<Spec>,
    /// 1 for the first.
    pub attempt: u32,
    /// Where it went.
    pub node: NodeName,
    /// Where that was reached; empty when that is not known any more.
    pub address: String,
    /// The seed of the placement.
    pub seed: u32,
    /// The callback that is active.
    pub callback: ModuleRef,
    /// Why it is given up, for the callback; at most 512 bytes.
    pub reason: String,
}

/// A life that has ended, and whose callback is asked what becomes of the process.
#[derive(Debug, Clone)]
pub struct Question {
    /// Which process.
    pub key: ProcessKey,
    /// Which life.
    pub incarnation: Incarnation,
    /// How it has ended.
    pub by: EndedBy,
    /// The party of the process.
    pub group: Option<String>,
    /// Where it ran.
    pub node: NodeName,
    /// What its node said; empty when that was lost. At most 512 bytes.
    pub reason: String,
    /// How often it has ended like this in a row.
    pub times: u32,
    /// Milliseconds that it lasted.
    pub lasted_ms: u32,
    /// The source of chance.
    pub seed: u32,
    /// The callback that is active.
    pub callback: ModuleRef,
    /// Milliseconds for the answer.
    pub within_ms: u32,
}

/// A lost node that a fence module is asked about.
#[derive(Debug, Clone)]
pub struct Examination {
    /// The session that was lost.
    pub epoch: NodeEpoch,
    /// The node's name.
    pub name: NodeName,
    /// Where it was reached.
    pub address: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Milliseconds since it was lost.
    pub lost_for_ms: u32,
    /// 1 for the first.
    pub attempt: u32,
    /// The source of chance.
    pub seed: u32,
    /// Milliseconds for the answer.
    pub within_ms: u32,
    /// The module's name.
    pub fence: ModuleName,
    /// The version that is active, or why there is none.
    pub module: Result<ModuleRef, String>,
}

/// A snapshot to be written.
#[derive(Debug)]
pub struct TakeSnapshot {
    /// The state, to be encoded elsewhere.
    pub state: Snapshot,
    /// The last index that it contains.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The group's members at that index.
    pub conf_state: ConfState,
}

/// Something to be done.
#[derive(Debug)]
pub enum Effect {
    /// Make this durable, then say [`crate::Input::Persisted`]. In order.
    Persist(Persist),
    /// Answer whoever holds the ticket. Every ticket is answered exactly once.
    Reply(Ticket, Answer),
    /// Decide, then say [`crate::Input::Selected`] with the lane's name. No further batch of the lane
    /// comes before that.
    Select {
        /// The lane: the selector that the creates name, or its canary.
        lane: LaneId,
        /// What is to be decided.
        batch: SelectBatch,
    },
    /// Start a process, then say [`crate::Input::Spawned`]. The same incarnation may come again,
    /// after a restart or when its node has a new session; a run that is under way is replaced.
    Spawn(Box<SpawnJob>),
    /// Give up a spawn that is under way, if there is one, and tell the node's session that this
    /// incarnation must not run: a tombstone. When the node answers `Stopped`, say
    /// [`crate::Input::Stopped`]. Kept for as long as the session lives; it may come again.
    Stop {
        /// The node.
        node: NodeName,
        /// Its session.
        epoch: NodeEpoch,
        /// The leader's term.
        term: u64,
        /// Which process.
        key: ProcessKey,
        /// Which life.
        incarnation: Incarnation,
    },
    /// Run the callback's hook `compensate`, at least once. The life is over: a spawn of it that is still
    /// under way here is given up first, and has ended before the hook runs. It may come again.
    Compensate(Box<Compensation>),
    /// Ask the callback, then say [`crate::Input::Advised`], whatever comes of that.
    Advise(Box<Question>),
    /// A callback answers nothing in time, and is not asked for a while: what is usual happens to those
    /// that wait for it. To be told to the operator.
    Unasked {
        /// Which.
        callback: ModuleName,
        /// For how many milliseconds.
        pause_ms: u32,
        /// How many wait for it now.
        waiting: usize,
    },
    /// Ask a fence module, then say [`crate::Input::Examined`].
    Examine(Box<Examination>),
    /// Make these ready; all others may be unloaded. With each comes who signed it.
    Modules(Vec<(ModuleName, ModuleKind, Digest, Option<Signature>)>),
    /// Answer a keep-alive.
    KeepAliveAck {
        /// Where to.
        link: u64,
        /// The answer.
        ack: KeepAliveAck,
    },
    /// Keep what a placement was made from.
    Record(Incarnation, Arc<Trace>),
    /// Answer an `Explain`: the process, its evidence if it is still kept, and what became of the node
    /// that was asked about, if one was ([`maitred_registry::decide::why_not`]).
    Explain(Ticket, Box<ProcessRecord>, Option<NodeName>),
    /// Write a snapshot, then say [`crate::Input::SnapshotSaved`].
    Snapshot(Box<TakeSnapshot>),
    /// Send these to the hosts that they are for. Any of them may be lost.
    Send(Vec<Message>),
    /// These are the other hosts: connect with them, and with nobody else. Comes when it changes.
    Peers(Vec<Peer>),
    /// Another host leads, or none, or this one does. Comes when it changes. A host that has
    /// stopped leading gives up its spawns.
    Leader {
        /// Its number.
        host: Option<u64>,
        /// Its address, when known.
        address: Option<String>,
        /// The Raft term.
        term: u64,
        /// Whether this host leads and serves.
        serving: bool,
    },
    /// This host is no longer a member: it should say so, and end.
    Removed,
    /// The state was replaced by a snapshot that contains everything up to this revision.
    Restored(Revision),
    /// This host's log has lost entries that it had acknowledged: it must not take part any more. It
    /// should say so, and end; its data directory is of no use.
    Lost {
        /// The last entry of its log.
        last: u64,
        /// What the leader knows it to have had.
        commit: u64,
    },
    /// This host's program cannot carry out what the group has agreed upon: it should say so, and
    /// end.
    TooOld {
        /// The entry that it cannot read.
        index: u64,
        /// Why.
        why: String,
    },
    /// Cut the log through this index.
    Compact(u64),
    /// What changed, in order, with the revision of the last of them. For watchers.
    Events(Revision, Vec<Event>),
}

/// An answer, in a form that is cheap to make; [`Answer::into_response`] spells it out on whatever
/// thread has the time.
#[derive(Debug)]
pub enum Answer {
    /// To a create.
    Created {
        /// The process.
        record: Arc<Record>,
        /// Its node, while that has the same session.
        node: Option<Arc<NodeFacts>>,
        /// Whether this request made it.
        created: bool,
    },
    /// To a get or a set.
    Process {
        /// The process.
        record: Arc<Record>,
        /// Its node, while that has the same session.
        node: Option<Arc<NodeFacts>>,
        /// The state that was read.
        revision: Revision,
    },
    /// To a list.
    Page {
        /// The processes, each with its node.
        items: Vec<(Arc<Record>, Option<Arc<NodeFacts>>)>,
        /// Where the next page begins.
        next: Option<ProcessKey>,
        /// The state that was read.
        revision: Revision,
    },
    /// To a party.
    Party {
        /// Its members, each with its node.
        members: Vec<(Arc<Record>, Option<Arc<NodeFacts>>)>,
        /// Whether this request made them.
        created: bool,
    },
    /// To anything else.
    Other(Box<Response>),
}

fn wire(record: &Record, node: Option<&Arc<NodeFacts>>) -> ProcessRecord {
    record.to_wire(node.map_or("", |node| &node.address))
}

impl Answer {
    /// As the client will see it.
    #[must_use]
    pub fn into_response(self) -> Response {
        match self {
            Self::Created {
                record,
                node,
                created,
            } => Response::Created {
                record: Box::new(wire(&record, node.as_ref())),
                created,
            },
            Self::Process {
                record,
                node,
                revision,
            } => Response::Process {
                record: Box::new(wire(&record, node.as_ref())),
                revision,
            },
            Self::Page {
                items,
                next,
                revision,
            } => {
                let items = items
                    .iter()
                    .map(|(record, node)| wire(record, node.as_ref()));
                Response::Processes {
                    items: items.collect(),
                    next,
                    revision,
                }
            }
            Self::Party { members, created } => {
                let members = members.iter();
                let records = members.map(|(record, node)| wire(record, node.as_ref()));
                Response::Party(records.collect(), created)
            }
            Self::Other(response) => *response,
        }
    }
}

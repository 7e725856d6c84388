//! What applying an entry came to, and what others are told about it.

use std::sync::Arc;

use maitred_protocol::{
    ClientId, Incarnation, ModuleName, ModuleRecord, NodeEpoch, NodeName, ProcessKey, Rejection,
    RequestId, Revision, Switch, TypeSpec, Verdict,
};

use crate::process::Record;

/// What applying an entry came to. Cheap to clone: everything large is shared.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A session was opened.
    Session(ClientId),
    /// A process has been created (or had been by someone else).
    Created {
        /// The process.
        record: Arc<Record>,
        /// Whether this request made it.
        created: bool,
    },
    /// A process was registered or updated.
    Process(Arc<Record>),
    /// Something was done that has no other answer.
    Done(Revision),
    /// A node was registered.
    Registered {
        /// Its session.
        epoch: NodeEpoch,
        /// One for each process of its inventory.
        verdicts: Arc<[Verdict]>,
    },
    /// A module was pushed; the version it became.
    Pushed(Arc<ModuleRecord>, u32),
    /// A module was changed.
    Module(Arc<ModuleRecord>),
    /// A type was changed.
    Type(Arc<TypeSpec>),
    /// A host is a member under this number.
    Member(u64),
    /// A deterministic no.
    Rejected(Arc<Rejection>),
    /// The saga goes on: a process is reserved, and not yet running.
    Reserved(Arc<Record>),
    /// A party was created: its members, in order.
    Party(Arc<[Arc<Record>]>),
    /// The same, of all members of a party, in their order.
    PartyReserved(Arc<[Arc<Record>]>),
    /// The decision was overtaken; decide again.
    Stale(Stale),
    /// An earlier life of the key may still go on; where.
    Held(String),
    /// The request may have been carried out, and is no longer remembered.
    Forgotten,
    /// The request's session is not known.
    NoSession,
}

impl Outcome {
    /// A no.
    #[must_use]
    pub fn rejected(rejection: Rejection) -> Self {
        Self::Rejected(Arc::new(rejection))
    }

    /// There is no such thing.
    #[must_use]
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::rejected(Rejection::NotFound(what.into()))
    }

    /// Whether it answers the request for good, so that a retry must get the same.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Reserved(_)
                | Self::PartyReserved(_)
                | Self::Stale(_)
                | Self::Held(_)
                | Self::Forgotten
                | Self::NoSession
                | Self::Session(_)
        )
    }
}

/// What overtook a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// The key has been taken.
    KeyTaken,
    /// The node's session has ended, it is cordoned, or it has too little capacity left.
    Node,
    /// Another version of the selector is active.
    Selector,
    /// The process has gone on to another incarnation, or is gone.
    Incarnation,
    /// An earlier life of the key may still go on.
    Held,
}

/// What happened to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was given to a node.
    Reserved,
    /// It runs.
    Running,
    /// Its pid or share changed, or its node's session.
    Updated,
    /// It needs another node.
    Pending,
    /// It is gone.
    Removed,
}

/// Something that happened, in order, for the saga and for watchers.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// To a process: how it is now, or was when it was removed.
    Process(Change, Arc<Record>),
    /// A life of a process has ended on a node that may still run it.
    Ended(Arc<Record>),
    /// A node that has registered anew still runs a life that is over.
    Linger {
        /// The node.
        node: NodeName,
        /// Its session.
        epoch: NodeEpoch,
        /// Which process.
        key: ProcessKey,
        /// Which life.
        incarnation: Incarnation,
    },
    /// A party is settled or undone.
    Party {
        /// The index of its reservation.
        index: u64,
        /// Who asked for it.
        request: Option<RequestId>,
        /// What came of it.
        outcome: Outcome,
    },
    /// No earlier life of the key goes on any more.
    Released(ProcessKey),
    /// An operator has held something up, or let it go on.
    Switched(Switch),
    /// A node registered; an older session of the name ended.
    NodeUp {
        /// Its name.
        name: NodeName,
        /// Its session.
        epoch: NodeEpoch,
        /// The session that it supersedes.
        superseded: Option<NodeEpoch>,
    },
    /// A node changed, or was cordoned.
    NodeChanged(NodeName),
    /// A node's session ended.
    NodeDown(NodeName, NodeEpoch),
    /// A module was pushed, activated, rolled back or removed.
    Module(ModuleName),
    /// The members or the level changed.
    Members,
}

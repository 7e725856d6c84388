//! What the log may carry: decisions, never questions.
//!
//! An entry is a version byte and an rkyv archive. The types of a released version are frozen: a
//! change of shape is a new version with a `From` the old one. Apply never looks at a clock: the
//! proposer's time travels in the entry.

use maitred_protocol::{
    CreateOptions, Digest, Incarnation, ModuleKind, ModuleName, NodeEpoch, NodeName, ProcessKey,
    Refusal, RegisterNode, RequestId, SetProcess, TypeSpec, Why,
};
use rkyv::api::high::{HighDeserializer, to_bytes_in};
use rkyv::rancor;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::{Archive, Deserialize, Serialize};

/// The version that this program writes.
pub const VERSION: u8 = 1;

/// How deeply an archived entry may nest.
const DEPTH_MAX: usize = 16;

/// One log entry.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Entry {
    /// Milliseconds since 1970 by the proposer's clock.
    pub time_ms: u64,
    /// The client's idempotency key, when a client asked.
    pub request: Option<RequestId>,
    /// What is to happen.
    pub command: Command,
}

/// A process is given to a node.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Reserve {
    /// Which process.
    pub key: ProcessKey,
    /// For the process.
    pub args: Vec<u8>,
    /// The selector that was asked.
    pub selector: ModuleName,
    /// The callback that will start it.
    pub callback: ModuleName,
    /// With the type's defaults filled in.
    pub options: CreateOptions,
    /// When the create gives up, in milliseconds since 1970.
    pub deadline_at_ms: u64,
    /// Where it goes.
    pub place: Place,
}

/// A decision, as far as apply must check it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Place {
    /// The node that was chosen.
    pub node: NodeName,
    /// Its session; the decision is void once that has ended.
    pub epoch: NodeEpoch,
    /// The index at which the module that decided was activated; the decision is void once
    /// another one is active. None when no module decided.
    pub activated: Option<u64>,
    /// Why.
    pub why: Why,
}

/// Why a create is given up.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum AbortCause {
    /// Its attempts are used up, or the callback gave up.
    SpawnFailed,
    /// Its deadline passed.
    Deadline,
    /// No other node would do.
    NoPlacement {
        /// Why, node by node.
        refusals: Vec<Refusal>,
        /// Nodes beyond those.
        more: u32,
        /// The selector that refused, when there were candidates.
        selector: Option<ModuleName>,
    },
}

/// What an entry makes happen.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Command {
    /// Opens a client session.
    OpenSession,
    /// A create has found its node.
    Reserve(Box<Reserve>),
    /// A process that could not be started, or lost its node, has found another.
    Reassign {
        /// Which process.
        key: ProcessKey,
        /// The life that failed.
        incarnation: Incarnation,
        /// How it failed; none when that is on record already.
        cause: Option<String>,
        /// Where it goes now.
        place: Place,
    },
    /// The node has started it.
    Confirm {
        /// Which process.
        key: ProcessKey,
        /// Which life.
        incarnation: Incarnation,
        /// What the node calls it.
        pid: String,
        /// What callers are to know.
        share: Vec<u8>,
    },
    /// The create is undone.
    Abort {
        /// Which process.
        key: ProcessKey,
        /// Which life.
        incarnation: Incarnation,
        /// How its last attempt failed; none when that is on record already.
        failure: Option<String>,
        /// Why it is given up.
        cause: AbortCause,
    },
    /// A process that was running has to be started again elsewhere.
    Unplace {
        /// Which process.
        key: ProcessKey,
        /// Which life.
        incarnation: Incarnation,
        /// How it failed.
        cause: String,
    },
    /// A node registers or updates a process of its own.
    SetProcess(Box<SetProcess>),
    /// A process is removed.
    DelProcess {
        /// Which.
        key: ProcessKey,
        /// Only this life.
        incarnation: Option<Incarnation>,
    },
    /// Processes that a node no longer has, though it should.
    Missing {
        /// The node.
        node: NodeName,
        /// Its session.
        epoch: NodeEpoch,
        /// Which.
        processes: Vec<(ProcessKey, Incarnation)>,
    },
    /// A node registers.
    RegisterNode(Box<RegisterNode>),
    /// A node changes what it said of itself.
    UpdateNode {
        /// The node.
        name: NodeName,
        /// Its session.
        epoch: NodeEpoch,
        /// Its new labels.
        labels: Option<Vec<(String, String)>>,
        /// Its new capacity.
        capacity: Option<u32>,
        /// Its new share.
        share: Option<Vec<u8>>,
    },
    /// A node's session ends: it said so.
    DeregisterNode {
        /// The node.
        name: NodeName,
        /// Its session.
        epoch: NodeEpoch,
    },
    /// A node's session ends: its lease ran out. Void when another session is the current one.
    Expire {
        /// The node.
        name: NodeName,
        /// Its session.
        epoch: NodeEpoch,
    },
    /// A node takes no new processes, or does again.
    CordonNode {
        /// The node.
        name: NodeName,
        /// Whether it is cordoned.
        cordoned: bool,
    },
    /// A module that was validated and stored is known from now on.
    PushModule {
        /// Its name.
        name: ModuleName,
        /// What it is for.
        kind: ModuleKind,
        /// The identity of its bytes.
        digest: Digest,
        /// How many there are.
        bytes: u64,
        /// What it calls itself.
        title: String,
        /// The features it wants.
        features: Vec<String>,
    },
    /// A version decides from now on.
    ActivateModule {
        /// Which module.
        name: ModuleName,
        /// Which version; 0 for the newest.
        version: u32,
        /// Its configuration; none keeps the active one.
        config: Option<String>,
    },
    /// The version before decides again.
    RollbackModule(ModuleName),
    /// A version is forgotten.
    RemoveModule(ModuleName, u32),
    /// A type's defaults.
    PutType(Box<TypeSpec>),
}

/// Bytes of the log that are not an entry of this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Written by another version.
    #[error(
        "log entry of version {0}; this program reads version {VERSION}: start the newer program on this data"
    )]
    Version(u8),
    /// Not an entry at all.
    #[error("log entry is damaged: {0}")]
    Damaged(String),
}

impl Entry {
    /// The bytes that go into the log.
    ///
    /// # Panics
    /// Never: the serializer writes to memory and the types hold nothing that it refuses.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        bytes.push(VERSION);
        to_bytes_in::<_, rancor::Error>(self, bytes).expect("serializing to memory")
    }

    /// Reads what [`Entry::encode`] wrote.
    ///
    /// # Errors
    /// [`EntryError`] when the bytes are of another version or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        match bytes.split_first() {
            Some((&VERSION, archive)) => decode_archive::<Self>(archive),
            Some((&version, _)) => Err(EntryError::Version(version)),
            None => Err(EntryError::Damaged("it is empty".to_owned())),
        }
    }
}

/// Validates an archive with a depth limit, and reads it.
pub(crate) fn decode_archive<T>(archive: &[u8]) -> Result<T, EntryError>
where
    T: Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rancor::Strategy<ArchiveValidator<'a>, rancor::Error>>
        + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    let damaged = |error: rancor::Error| EntryError::Damaged(error.to_string());
    let depth = std::num::NonZeroUsize::new(DEPTH_MAX);
    let mut validator = ArchiveValidator::with_max_depth(archive, depth);
    let archived =
        rkyv::api::access_with_context::<T::Archived, _, rancor::Error>(archive, &mut validator)
            .map_err(damaged)?;
    rkyv::deserialize::<T, rancor::Error>(archived).map_err(damaged)
}

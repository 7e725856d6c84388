//! What the log may carry: decisions, never questions.
//!
//! An entry is a version byte and an rkyv archive. The version is the level of its command: a group
//! uses a level only once all its hosts know it. The types of a released level are frozen, and so is
//! the size of the largest command: what is added later is boxed when it is larger. Apply never looks at a clock: the
//! proposer's time travels in the entry.

use maitred_protocol::{
    ClientId, CreateOptions, Digest, Drain, Hook, HostName, Incarnation, ModuleKind, ModuleName,
    NodeEpoch, NodeName, PartyRule, ProcessKey, Refusal, RegisterNode, RequestId, SetProcess,
    Signature, Switch, TypeName, TypeSpec, Why,
};
use rkyv::api::high::{HighDeserializer, to_bytes_in};
use rkyv::rancor;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::{Archive, Deserialize, Serialize};

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
    /// The selector says that it must not be created.
    BySelector {
        /// Which.
        selector: ModuleName,
        /// Its number for the reason.
        code: u32,
        /// For people.
        reason: String,
    },
}

/// A module that was validated, and that most hosts hold ready.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct PushModule {
    /// Its name.
    pub name: ModuleName,
    /// What it is for.
    pub kind: ModuleKind,
    /// The identity of its bytes.
    pub digest: Digest,
    /// How many there are.
    pub bytes: u64,
    /// What it calls itself.
    pub title: String,
    /// The features it wants.
    pub features: Vec<String>,
    /// The interface that it exports.
    pub world: String,
    /// The version of `maitred:policy` that it was built against.
    pub abi: String,
    /// What a callback wants to be asked besides.
    pub hooks: Vec<Hook>,
    /// Who signed it.
    pub signature: Option<Signature>,
    /// Whether the host that took it runs only what is signed, and this is by one of its keys: such a
    /// signature takes the place of any other.
    pub is_trusted: bool,
}

/// What an entry makes happen.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Command {
    /// Opens a client session.
    OpenSession,
    /// A create has found its node.
    Reserve(Box<Reserve>),
    /// A process that could not be started, or lost its node, has found another. What failed is known
    /// not to run.
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
        /// Its node has said that it does not run.
        over: bool,
    },
    /// A process is taken off its node, to be started again elsewhere.
    Unplace {
        /// Which process.
        key: ProcessKey,
        /// Which life.
        incarnation: Incarnation,
        /// How it failed, or why it is moved.
        cause: String,
        /// Its node has said that it does not run.
        over: bool,
    },
    /// A node registers or updates a process of its own.
    SetProcess(Box<SetProcess>),
    /// A process is removed.
    DelProcess {
        /// Which.
        key: ProcessKey,
        /// Only this life.
        incarnation: Option<Incarnation>,
        /// That life has ended already: its node says so.
        ended: bool,
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
    PushModule(Box<PushModule>),
    /// A version decides from now on.
    ActivateModule {
        /// Which module.
        name: ModuleName,
        /// Which version; 0 for the newest.
        version: u32,
        /// Its configuration; none keeps the active one.
        config: Option<String>,
        /// The share of the ids that it decides for, 1 to 100.
        percent: u8,
        /// Only for these types; empty for all.
        types: Vec<TypeName>,
        /// What takes it back by itself; empty for nothing.
        guard: String,
    },
    /// The canary decides no more; or, where there is none, the version before decides again.
    RollbackModule {
        /// Which module.
        name: ModuleName,
        /// Only what was activated at this index: what a guard has watched.
        activated: Option<u64>,
        /// Why, when nobody asked for it; at most 512 bytes.
        cause: Option<String>,
    },
    /// A version is forgotten.
    RemoveModule(ModuleName, u32),
    /// A type's defaults.
    PutType(Box<TypeSpec>),
    /// A host is to be a member, or says anew where it is.
    PutMember {
        /// Its number; 0 for a new one, which is the entry's index.
        host: u64,
        /// Its name.
        name: HostName,
        /// Where it is reached: `HOST:PORT`.
        address: String,
        /// What its data directory proves itself with; 0 when the host has not come yet.
        instance: u64,
        /// The member that it takes the place of.
        replaces: Option<u64>,
    },
    /// A host is to be a member no longer.
    RemoveMember(u64),
    /// The group may use commands of this level from now on.
    SetLevel(u16),
    /// A client needs its session no longer. Level 2.
    CloseSession(ClientId),
    /// Nodes have said that these lives, which were over already, do not go on.
    Released(Vec<(ProcessKey, Incarnation)>),
    /// What a lost node takes at most to stop what it runs has passed since.
    KillBoundPassed(NodeEpoch),
    /// A node takes longer than it said to stop what it runs.
    RaiseKillBound {
        /// The node.
        name: NodeName,
        /// Its session.
        epoch: NodeEpoch,
        /// Milliseconds; a smaller number than is known changes nothing.
        kill_bound_ms: u32,
    },
    /// A node is dead, and nothing that it ran goes on.
    ConfirmDead {
        /// The node.
        name: NodeName,
        /// Only this session of it.
        epoch: Option<NodeEpoch>,
        /// Only for the keys of these types, if any are named.
        types: Vec<TypeName>,
        /// Who says so, for people; at most 512 bytes.
        proof: String,
    },
    /// A node is to be emptied; or, with none, no longer.
    DrainNode {
        /// The node.
        name: NodeName,
        /// How.
        drain: Option<Drain>,
    },
    /// A process that has lost its node is not started again: its attempts or its time are used up.
    GiveUp {
        /// Which process.
        key: ProcessKey,
        /// Which life.
        incarnation: Incarnation,
    },
    /// An operator holds something up, or lets it go on.
    Suspend {
        /// What.
        what: Switch,
        /// Whether it is held up.
        suspended: bool,
    },
    /// A version runs beside the active one, or does so no more.
    ShadowModule {
        /// Which module.
        name: ModuleName,
        /// Which version (0 for the newest), and its configuration (none for the active one's); none
        /// ends the shadow.
        shadow: Option<(u32, Option<String>)>,
    },
    /// All members of a party have found their nodes: all keys are reserved, or none.
    ReserveParty {
        /// How they are placed with regard to each other.
        rule: PartyRule,
        /// The members.
        members: Vec<Reserve>,
    },
    /// The time of a party is over: the index of its reservation.
    EndParty(u64),
    /// A process has ended by itself; its key is free, or waits for another life of it.
    Exited {
        /// Which process.
        key: ProcessKey,
        /// The life that has ended.
        incarnation: Incarnation,
        /// For people and for the callback, at most 512 bytes.
        reason: String,
        /// Whether its callback is asked what becomes of it: it is pending until then.
        ask: bool,
    },
}

impl Command {
    /// The level that a group must have reached before this may be proposed in it.
    #[must_use]
    pub fn level(&self) -> u16 {
        u16::from(self.version())
    }

    fn version(&self) -> u8 {
        match self {
            Self::CloseSession(_) => 2,
            _ => 1,
        }
    }
}

/// Bytes of the log that are not an entry of this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Of a level that this program does not know, or was told not to use.
    #[error(
        "log entry of level {0}, which this program does not know or may not use: start the newer program on this data, or without --level-max"
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
        bytes.push(self.command.version());
        to_bytes_in::<_, rancor::Error>(self, bytes).expect("serializing to memory")
    }

    /// Reads what [`Entry::encode`] wrote, if its level is at most `level_max`.
    ///
    /// # Errors
    /// [`EntryError::Version`] when the level is higher, [`EntryError::Damaged`] when the bytes are
    /// no entry.
    pub fn decode(bytes: &[u8], level_max: u16) -> Result<Self, EntryError> {
        let (version, archive) = match bytes.split_first() {
            Some((version, archive)) => (*version, archive),
            None => return Err(EntryError::Damaged("it is empty".to_owned())),
        };
        if u16::from(version) > level_max {
            return Err(EntryError::Version(version));
        }
        let entry = decode_archive::<Self>(archive)?;
        // Or a command could pass for one of a lower level.
        if entry.command.version() != version {
            let level = entry.command.level();
            return Err(EntryError::Damaged(format!(
                "it says level {version} and its command is of level {level}"
            )));
        }
        Ok(entry)
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

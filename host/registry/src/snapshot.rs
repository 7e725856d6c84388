//! The state to chunks of bytes and back, through mirror types that are this format's own.
//!
//! A snapshot is a cheap clone that is encoded elsewhere, while the state moves on. Each chunk is a
//! version byte and an rkyv archive; a chunk stands for itself, so that they can be written, sent
//! and checked one by one. In-memory types are free to change: only the mirrors are frozen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maitred_protocol::{
    Attempt, Chooser, ClientId, CreateOptions, Incarnation, ModuleKind, ModuleName, ModuleRecord,
    ModuleVersion, NodeEpoch, NodeName, ProcessId, ProcessKey, ProcessState, Rejection, RequestId,
    Revision, TypeName, TypeSpec, Verdict,
};
use rkyv::api::high::to_bytes_in;
use rkyv::rancor;
use rkyv::{Archive, Deserialize, Serialize};

use crate::Registry;
use crate::candidates::NodeFacts;
use crate::command::{EntryError, decode_archive};
use crate::index::Shard;
use crate::module::{Active, Module};
use crate::node::Node;
use crate::outcome::Outcome;
use crate::process::{CompactWhy, Record, Spec};
use crate::session::{Session, Sessions};

/// The version that this program writes.
const VERSION: u8 = 1;

/// Records in one chunk.
const CHUNK_RECORDS: usize = 4_096;

/// Bytes of arguments, shares and causes in one chunk, give or take one record's.
const CHUNK_BYTES: usize = 4 << 20;

/// The state at one index, detached from what comes after.
#[derive(Debug)]
pub struct Snapshot {
    index: u64,
    time_ms: u64,
    fleet_revision: u64,
    shards: Vec<Arc<Shard>>,
    nodes: Vec<NodeMirror>,
    cordoned: BTreeSet<NodeName>,
    modules: BTreeMap<ModuleName, Module>,
    types: BTreeMap<TypeName, Arc<TypeSpec>>,
    sessions: Sessions,
}

/// A chunk is not one of this program's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Another version wrote it.
    #[error(
        "snapshot chunk of version {0}; this program reads version {VERSION}: start the newer program on this data"
    )]
    Version(u8),
    /// It is damaged.
    #[error("snapshot chunk is damaged: {0}")]
    Damaged(String),
    /// Chunks are missing.
    #[error("the snapshot ends too early")]
    Incomplete,
}

#[derive(Archive, Serialize, Deserialize)]
enum Chunk {
    Head {
        index: u64,
        time_ms: u64,
        fleet_revision: u64,
        swept: ClientId,
    },
    Choosers(Vec<Chooser>),
    Nodes(Vec<NodeMirror>),
    Cordoned(Vec<NodeName>),
    Modules(Vec<ModuleMirror>),
    Types(Vec<TypeSpec>),
    Records(Vec<RecordMirror>),
    Sessions(Vec<SessionMirror>),
    End {
        records: u64,
    },
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
struct NodeMirror {
    name: NodeName,
    epoch: NodeEpoch,
    types: Vec<TypeName>,
    address: String,
    labels: Vec<(String, String)>,
    capacity: u32,
    share: Vec<u8>,
    ttl_ms: u32,
    revision: Revision,
}

#[derive(Archive, Serialize, Deserialize)]
struct ModuleMirror {
    name: ModuleName,
    kind: ModuleKind,
    versions: Vec<ModuleVersion>,
    last_version: u32,
    active: Option<(u32, String, u64)>,
    history: Vec<(u32, String)>,
    revision: Revision,
}

#[derive(Archive, Serialize, Deserialize)]
struct SpecMirror {
    args: Vec<u8>,
    selector: ModuleName,
    callback: ModuleName,
    options: CreateOptions,
    deadline_at_ms: u64,
    request: Option<RequestId>,
    failures: Vec<Attempt>,
    confirmed: bool,
}

#[derive(Archive, Serialize, Deserialize)]
struct RecordMirror {
    key: ProcessKey,
    state: ProcessState,
    node: NodeName,
    epoch: NodeEpoch,
    incarnation: Incarnation,
    revision: Revision,
    created_ms: u64,
    attempt: u32,
    demand: u32,
    pid: String,
    share: Vec<u8>,
    spec: Option<SpecMirror>,
    chooser: u32,
    seed: u32,
    micros: u32,
    candidates: u32,
}

#[derive(Archive, Serialize, Deserialize)]
enum OutcomeMirror {
    Created(Box<RecordMirror>, bool),
    Process(Box<RecordMirror>),
    Done(Revision),
    Registered(NodeEpoch, Vec<Verdict>),
    Pushed(Box<ModuleRecord>, u32),
    Module(Box<ModuleRecord>),
    Type(Box<TypeSpec>),
    Rejected(Box<Rejection>),
}

#[derive(Archive, Serialize, Deserialize)]
struct SessionMirror {
    client: ClientId,
    forgotten_below: u64,
    last_index: u64,
    outcomes: Vec<(u64, u64, OutcomeMirror)>,
}

/// Numbers the choosers, which many records share.
#[derive(Default)]
struct ChooserTable {
    list: Vec<Chooser>,
    numbers: hashbrown::HashMap<*const Chooser, u32>,
}

impl ChooserTable {
    fn number(&mut self, chooser: &Arc<Chooser>) -> u32 {
        *self.numbers.entry(Arc::as_ptr(chooser)).or_insert_with(|| {
            let same = self.list.iter().rposition(|have| have == &**chooser);
            same.unwrap_or_else(|| {
                self.list.push((**chooser).clone());
                self.list.len() - 1
            }) as u32
        })
    }
}

impl Registry {
    /// The state as it is now, detached: costs some reference counts and the small tables.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            index: self.applied,
            time_ms: self.time_ms,
            fleet_revision: self.fleet_revision,
            shards: self.processes.shards(),
            // Not the nodes themselves: their indices are as large as the process table.
            nodes: self.nodes.values().map(NodeMirror::from).collect(),
            cordoned: self.cordoned.clone(),
            modules: self.modules.clone(),
            types: self.types.clone(),
            sessions: self.sessions.clone(),
        }
    }
}

impl Snapshot {
    /// The index of the last entry that it contains.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Encodes it, chunk by chunk, into `sink`.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn encode<E>(&self, mut sink: impl FnMut(Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let mut put = |chunk: &Chunk| sink(encode_chunk(chunk));
        let mut choosers = ChooserTable::default();
        put(&Chunk::Head {
            index: self.index,
            time_ms: self.time_ms,
            fleet_revision: self.fleet_revision,
            swept: self.sessions.swept,
        })?;
        put(&Chunk::Nodes(self.nodes.clone()))?;
        put(&Chunk::Cordoned(self.cordoned.iter().cloned().collect()))?;
        put(&Chunk::Modules(
            self.modules.iter().map(ModuleMirror::from).collect(),
        ))?;
        put(&Chunk::Types(
            self.types.values().map(|spec| (**spec).clone()).collect(),
        ))?;
        let mut known = 0;
        let mut count = 0;
        for shard in &self.shards {
            // The order within a shard is the table's own; loading does not depend on it.
            let mut records = shard.iter().peekable();
            while records.peek().is_some() {
                let mut room = CHUNK_BYTES;
                let mut chunk = Vec::new();
                while chunk.len() < CHUNK_RECORDS
                    && room > 0
                    && let Some(record) = records.next()
                {
                    room = room.saturating_sub(weight(record));
                    chunk.push(RecordMirror::new(record, &mut choosers));
                }
                put_choosers(&mut put, &choosers, &mut known)?;
                count += chunk.len() as u64;
                put(&Chunk::Records(chunk))?;
            }
        }
        for (client, session) in &self.sessions.all {
            let mirror = SessionMirror::new(*client, session, &mut choosers);
            put_choosers(&mut put, &choosers, &mut known)?;
            put(&Chunk::Sessions(vec![mirror]))?;
        }
        put(&Chunk::End { records: count })
    }
}

/// Bytes of a record that can be many.
fn weight(record: &Record) -> usize {
    let spec = record.spec.as_deref();
    record.share.len() + spec.map_or(0, |spec| spec.args.len() + spec.failures.len() * 512)
}

fn put_choosers<E>(
    put: &mut impl FnMut(&Chunk) -> Result<(), E>,
    choosers: &ChooserTable,
    known: &mut usize,
) -> Result<(), E> {
    if *known < choosers.list.len() {
        put(&Chunk::Choosers(choosers.list[*known..].to_vec()))?;
        *known = choosers.list.len();
    }
    Ok(())
}

fn encode_chunk(chunk: &Chunk) -> Vec<u8> {
    let bytes = vec![VERSION];
    to_bytes_in::<_, rancor::Error>(chunk, bytes).expect("serializing to memory")
}

impl From<&Node> for NodeMirror {
    fn from(node: &Node) -> Self {
        let facts = &*node.facts;
        Self {
            name: facts.name.clone(),
            epoch: facts.epoch,
            types: facts.types.clone(),
            address: facts.address.clone(),
            labels: facts.labels.clone(),
            capacity: facts.capacity,
            share: node.share.to_vec(),
            ttl_ms: node.ttl_ms,
            revision: node.revision,
        }
    }
}

impl From<NodeMirror> for Node {
    fn from(mirror: NodeMirror) -> Self {
        Self {
            name: Arc::new(mirror.name.clone()),
            facts: Arc::new(NodeFacts {
                name: mirror.name,
                epoch: mirror.epoch,
                types: mirror.types,
                address: mirror.address,
                labels: mirror.labels,
                capacity: mirror.capacity,
            }),
            share: mirror.share.into(),
            ttl_ms: mirror.ttl_ms,
            revision: mirror.revision,
            used: 0,
            of_type: BTreeMap::new(),
            of_group: BTreeMap::new(),
            keys: BTreeSet::new(),
        }
    }
}

impl From<(&ModuleName, &Module)> for ModuleMirror {
    fn from((name, module): (&ModuleName, &Module)) -> Self {
        let active = module.active.as_ref();
        Self {
            name: name.clone(),
            kind: module.kind,
            versions: module.versions.clone(),
            last_version: module.last_version,
            active: active.map(|active| (active.version, active.config.to_string(), active.at)),
            history: module
                .history
                .iter()
                .map(|(v, config)| (*v, config.to_string()))
                .collect(),
            revision: module.revision,
        }
    }
}

impl From<ModuleMirror> for Module {
    fn from(mirror: ModuleMirror) -> Self {
        let active = mirror.active;
        Self {
            kind: mirror.kind,
            versions: mirror.versions,
            last_version: mirror.last_version,
            active: active.map(|(version, config, at)| Active {
                version,
                config: config.into(),
                at,
            }),
            history: mirror
                .history
                .into_iter()
                .map(|(v, config)| (v, config.into()))
                .collect(),
            revision: mirror.revision,
        }
    }
}

impl RecordMirror {
    fn new(record: &Record, choosers: &mut ChooserTable) -> Self {
        Self {
            key: record.key(),
            state: record.state,
            node: (*record.node).clone(),
            epoch: record.epoch,
            incarnation: record.incarnation,
            revision: record.revision,
            created_ms: record.created_ms,
            attempt: record.attempt,
            demand: record.demand,
            pid: record.pid.to_string(),
            share: record.share.to_vec(),
            spec: record.spec.as_deref().map(SpecMirror::from),
            chooser: choosers.number(&record.why.chooser),
            seed: record.why.seed,
            micros: record.why.micros,
            candidates: record.why.candidates,
        }
    }
}

impl From<&Spec> for SpecMirror {
    fn from(spec: &Spec) -> Self {
        Self {
            args: spec.args.to_vec(),
            selector: spec.selector.clone(),
            callback: spec.callback.clone(),
            options: spec.options.clone(),
            deadline_at_ms: spec.deadline_at_ms,
            request: spec.request,
            failures: spec.failures.clone(),
            confirmed: spec.confirmed,
        }
    }
}

impl From<SpecMirror> for Spec {
    fn from(mirror: SpecMirror) -> Self {
        Self {
            args: mirror.args.into(),
            selector: mirror.selector,
            callback: mirror.callback,
            options: mirror.options,
            deadline_at_ms: mirror.deadline_at_ms,
            request: mirror.request,
            failures: mirror.failures,
            confirmed: mirror.confirmed,
        }
    }
}

impl SessionMirror {
    fn new(client: ClientId, session: &Session, choosers: &mut ChooserTable) -> Self {
        let outcomes = session
            .outcomes
            .iter()
            .filter_map(|(sequence, (index, outcome))| {
                Some((*sequence, *index, OutcomeMirror::new(outcome, choosers)?))
            });
        Self {
            client,
            forgotten_below: session.forgotten_below,
            last_index: session.last_index,
            outcomes: outcomes.collect(),
        }
    }
}

impl OutcomeMirror {
    /// None for outcomes that are never remembered.
    fn new(outcome: &Outcome, choosers: &mut ChooserTable) -> Option<Self> {
        Some(match outcome {
            Outcome::Created { record, created } => {
                Self::Created(Box::new(RecordMirror::new(record, choosers)), *created)
            }
            Outcome::Process(record) => {
                Self::Process(Box::new(RecordMirror::new(record, choosers)))
            }
            Outcome::Done(revision) => Self::Done(*revision),
            Outcome::Registered { epoch, verdicts } => Self::Registered(*epoch, verdicts.to_vec()),
            Outcome::Pushed(module, version) => {
                Self::Pushed(Box::new((**module).clone()), *version)
            }
            Outcome::Module(module) => Self::Module(Box::new((**module).clone())),
            Outcome::Type(spec) => Self::Type(Box::new((**spec).clone())),
            Outcome::Rejected(rejection) => Self::Rejected(Box::new((**rejection).clone())),
            Outcome::Session(_)
            | Outcome::Reserved(_)
            | Outcome::Stale(_)
            | Outcome::Forgotten
            | Outcome::NoSession => return None,
        })
    }
}

/// Builds a registry from chunks.
#[derive(Debug)]
pub struct Loader {
    registry: Registry,
    choosers: Vec<Arc<Chooser>>,
    names: BTreeMap<TypeName, Arc<TypeName>>,
    records: u64,
    complete: bool,
}

impl Default for Loader {
    fn default() -> Self {
        Self::new()
    }
}

impl Loader {
    /// Nothing loaded yet.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let (choosers, names) = (Vec::new(), BTreeMap::new());
        Self {
            registry,
            choosers,
            names,
            records: 0,
            complete: false,
        }
    }

    /// Takes one chunk, in the order in which they were made.
    ///
    /// # Errors
    /// [`SnapshotError`] when it is not a chunk of this version, or damaged.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let chunk = match bytes.split_first() {
            Some((&VERSION, archive)) => decode_archive::<Chunk>(archive),
            Some((&version, _)) => return Err(SnapshotError::Version(version)),
            None => return Err(SnapshotError::Damaged("it is empty".to_owned())),
        };
        let chunk = chunk.map_err(|error| match error {
            EntryError::Version(version) => SnapshotError::Version(version),
            EntryError::Damaged(text) => SnapshotError::Damaged(text),
        })?;
        self.take(chunk)
    }

    fn take(&mut self, chunk: Chunk) -> Result<(), SnapshotError> {
        let registry = &mut self.registry;
        match chunk {
            Chunk::Head {
                index,
                time_ms,
                fleet_revision,
                swept,
            } => {
                registry.applied = index;
                registry.time_ms = time_ms;
                registry.fleet_revision = fleet_revision;
                registry.sessions.swept = swept;
            }
            Chunk::Choosers(more) => self.choosers.extend(more.into_iter().map(Arc::new)),
            Chunk::Nodes(nodes) => {
                for node in nodes {
                    registry.nodes.insert(node.name.clone(), node.into());
                }
            }
            Chunk::Cordoned(names) => registry.cordoned.extend(names),
            Chunk::Modules(modules) => {
                for module in modules {
                    registry.modules.insert(module.name.clone(), module.into());
                }
            }
            Chunk::Types(types) => {
                for spec in types {
                    registry.types.insert(spec.name.clone(), Arc::new(spec));
                }
            }
            Chunk::Records(records) => {
                for mirror in records {
                    let record = Arc::new(self.record(mirror)?);
                    let registry = &mut self.registry;
                    if record.is_placed()
                        && let Some(node) = registry.nodes.get_mut(&*record.node)
                        && node.epoch() == record.epoch
                    {
                        node.add(&record);
                    }
                    registry.processes.put(record);
                    self.records += 1;
                }
            }
            Chunk::Sessions(sessions) => {
                for mirror in sessions {
                    self.session(mirror)?;
                }
            }
            Chunk::End { records } if records == self.records => self.complete = true,
            Chunk::End { .. } => return Err(SnapshotError::Incomplete),
        }
        Ok(())
    }

    fn session(&mut self, mirror: SessionMirror) -> Result<(), SnapshotError> {
        let mut outcomes = BTreeMap::new();
        for (sequence, index, outcome) in mirror.outcomes {
            outcomes.insert(sequence, (index, self.outcome(outcome)?));
        }
        let session = Session {
            outcomes,
            forgotten_below: mirror.forgotten_below,
            last_index: mirror.last_index,
        };
        self.registry
            .sessions
            .all
            .insert(mirror.client, Arc::new(session));
        Ok(())
    }

    fn outcome(&mut self, mirror: OutcomeMirror) -> Result<Outcome, SnapshotError> {
        Ok(match mirror {
            OutcomeMirror::Created(record, created) => Outcome::Created {
                record: self.shared_record(*record)?,
                created,
            },
            OutcomeMirror::Process(record) => Outcome::Process(self.shared_record(*record)?),
            OutcomeMirror::Done(revision) => Outcome::Done(revision),
            OutcomeMirror::Registered(epoch, verdicts) => Outcome::Registered {
                epoch,
                verdicts: verdicts.into(),
            },
            OutcomeMirror::Pushed(module, version) => Outcome::Pushed(module.into(), version),
            OutcomeMirror::Module(module) => Outcome::Module(module.into()),
            OutcomeMirror::Type(spec) => Outcome::Type(spec.into()),
            OutcomeMirror::Rejected(rejection) => Outcome::Rejected(rejection.into()),
        })
    }

    /// The record of an outcome: the one in the table, when that has not changed since.
    fn shared_record(&mut self, mirror: RecordMirror) -> Result<Arc<Record>, SnapshotError> {
        let record = self.record(mirror)?;
        let same = self
            .registry
            .processes
            .get(record.type_name.as_str(), &record.id);
        match same {
            Some(same) if **same == record => Ok(Arc::clone(same)),
            _ => Ok(Arc::new(record)),
        }
    }

    fn record(&mut self, mirror: RecordMirror) -> Result<Record, SnapshotError> {
        let id: &ProcessId = &mirror.key.id;
        let chooser = self.choosers.get(mirror.chooser as usize).cloned();
        let chooser =
            chooser.ok_or_else(|| SnapshotError::Damaged("a chooser is missing".to_owned()))?;
        let type_name = mirror.key.type_name.clone();
        let type_name = self
            .names
            .entry(type_name.clone())
            .or_insert_with(|| Arc::new(type_name));
        let node = self
            .registry
            .nodes
            .get(&mirror.node)
            .map(|node| Arc::clone(&node.name));
        Ok(Record {
            type_name: Arc::clone(type_name),
            id: id.as_str().into(),
            state: mirror.state,
            node: node.unwrap_or_else(|| Arc::new(mirror.node)),
            epoch: mirror.epoch,
            incarnation: mirror.incarnation,
            revision: mirror.revision,
            created_ms: mirror.created_ms,
            attempt: mirror.attempt,
            demand: mirror.demand,
            pid: mirror.pid.into(),
            share: mirror.share.into(),
            spec: mirror.spec.map(|spec| Arc::new(spec.into())),
            why: CompactWhy {
                chooser,
                seed: mirror.seed,
                micros: mirror.micros,
                candidates: mirror.candidates,
            },
        })
    }

    /// The registry, when every chunk was there.
    ///
    /// # Errors
    /// [`SnapshotError::Incomplete`] otherwise.
    pub fn finish(self) -> Result<Registry, SnapshotError> {
        if self.complete {
            Ok(self.registry)
        } else {
            Err(SnapshotError::Incomplete)
        }
    }
}

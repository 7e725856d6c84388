//! The state to chunks of bytes and back, through mirror types that are this format's own.
//!
//! A snapshot is a cheap clone that is encoded elsewhere, while the state moves on. Each chunk is a
//! version byte and an rkyv archive; a chunk stands for itself, so that they can be written, sent
//! and checked one by one. In-memory types are free to change: only the mirrors are frozen.

mod digest;
mod failover;
mod load;
mod mirror;
pub(crate) mod weight;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maitred_protocol::{ClientId, DrainState, ModuleName, NodeEpoch, NodeName, TypeName, TypeSpec};
use rkyv::api::high::to_bytes_in;
use rkyv::rancor;

use failover::{FailoverMirror, HoldMirror, LostMirror};
pub use load::Loader;
use mirror::{
    AtOutcome, ChooserTable, Chunk, MemberMirror, ModuleMirror, NodeMirror, OutcomeMirror,
    PartyMirror, RecordMirror, SessionMirror,
};

use crate::Registry;
use crate::drain::Failover;
use crate::holds::Holders;
use crate::index::Shard;
use crate::lost::Lost;
use crate::member::Member;
use crate::module::Module;
use crate::outcome::Outcome;
use crate::party::Party;
use crate::process::Record;
use crate::session::{Session, Sessions};

/// The version that this program writes.
const VERSION: u8 = 1;

/// Records in one chunk.
const CHUNK_RECORDS: usize = 4_096;

/// Bytes in one chunk as [`weight`] counts them, give or take one item's: what is stored or sent
/// takes chunks of at most 64 MiB.
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
    drains: BTreeMap<NodeName, DrainState>,
    holds: Holders,
    lost: BTreeMap<NodeEpoch, Lost>,
    parties: BTreeMap<u64, Party>,
    failover: Failover,
    modules: BTreeMap<ModuleName, Module>,
    types: BTreeMap<TypeName, Arc<TypeSpec>>,
    sessions: Sessions,
    members: BTreeMap<u64, Member>,
    level: u16,
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
            drains: self.drains.clone(),
            holds: self.holds.by_session.clone(),
            lost: self.holds.lost.clone(),
            parties: self.parties.clone(),
            failover: self.failover.clone(),
            modules: self.modules.clone(),
            types: self.types.clone(),
            sessions: self.sessions.clone(),
            members: self.members.clone(),
            level: self.level,
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
        cut(
            self.nodes.iter(),
            |node| weight::of_node(node),
            |nodes| put(&Chunk::Nodes(nodes.into_iter().cloned().collect())),
        )?;
        put(&Chunk::Cordoned(self.cordoned.iter().cloned().collect()))?;
        let modules = self.modules.iter().map(ModuleMirror::from);
        cut(modules, weight::of_module, |modules| {
            put(&Chunk::Modules(modules))
        })?;
        put(&Chunk::Types(
            self.types.values().map(|spec| (**spec).clone()).collect(),
        ))?;
        put(&Chunk::Drains(
            self.drains
                .iter()
                .map(|(name, state)| (name.clone(), *state))
                .collect(),
        ))?;
        put(&Chunk::Failover(FailoverMirror::from(&self.failover)))?;
        let (holds, lost) = (HoldMirror::all(&self.holds), LostMirror::all(&self.lost));
        if !self.holds.is_empty() {
            cut(holds, |_| 0, |holds| put(&Chunk::Holds(holds)))?;
        }
        cut(lost, weight::of_lost, |lost| put(&Chunk::Lost(lost)))?;
        let parties = self.parties.iter().map(PartyMirror::from);
        cut(parties, weight::of_party, |parties| {
            put(&Chunk::Parties(parties))
        })?;
        // A state without them is written as ever, so that a program from before them can read it.
        if !self.members.is_empty() {
            let members = self.members.iter().map(MemberMirror::from).collect();
            put(&Chunk::Members(members))?;
        }
        if self.level != 1 {
            put(&Chunk::Level(self.level))?;
        }
        let mut known = 0;
        let mut count = 0;
        for shard in self.shards.iter().filter(|shard| !shard.is_empty()) {
            // The order within a shard is the table's own; loading does not depend on it.
            let weight = |record: &&Arc<Record>| weight::of_record(record);
            cut(shard.iter(), weight, |records| {
                let records = records.into_iter();
                let records = records.map(|record| RecordMirror::new(record, &mut choosers));
                let records: Vec<_> = records.collect();
                put_choosers(&mut put, &choosers, &mut known)?;
                count += records.len() as u64;
                put(&Chunk::Records(records))
            })?;
        }
        for (client, session) in &self.sessions.all {
            // As many chunks as its outcomes need; mostly the first.
            let mut begun = false;
            let weight = |(_, (_, outcome)): &(_, &(_, Outcome))| weight::of_outcome(outcome);
            cut(session.outcomes.iter(), weight, |outcomes| {
                let outcomes = OutcomeMirror::all(outcomes, &mut choosers);
                put_choosers(&mut put, &choosers, &mut known)?;
                put(&match std::mem::replace(&mut begun, true) {
                    false => sessions(*client, session, outcomes),
                    true => Chunk::Outcomes(*client, outcomes),
                })
            })?;
        }
        put(&Chunk::End { records: count })
    }
}

/// Cuts items into parts that fit a chunk each; nothing is a part without any.
fn cut<T, E>(
    items: impl Iterator<Item = T>,
    weight: impl Fn(&T) -> usize,
    mut put: impl FnMut(Vec<T>) -> Result<(), E>,
) -> Result<(), E> {
    let mut items = items.peekable();
    loop {
        let mut room = CHUNK_BYTES;
        let mut part = Vec::new();
        while part.len() < CHUNK_RECORDS
            && room > 0
            && let Some(item) = items.next()
        {
            room = room.saturating_sub(weight(&item));
            part.push(item);
        }
        put(part)?;
        if items.peek().is_none() {
            return Ok(());
        }
    }
}

fn sessions(client: ClientId, session: &Session, outcomes: Vec<AtOutcome>) -> Chunk {
    Chunk::Sessions(vec![SessionMirror::new(client, session, outcomes)])
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

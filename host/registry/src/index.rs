//! The process table: a hash map in shards, and an ordered index of each type.
//!
//! This is the only file that may walk a map in no order, and what it does then (cloning, counting)
//! does not depend on the order. Shards are shared with snapshots: a write to a shard that a
//! snapshot still holds copies that shard first, so taking a snapshot costs 64 reference counts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use maitred_protocol::{ProcessState, TypeName};

use crate::process::Record;

/// How many shards: a copy of one, with a million records in all, takes well under a millisecond.
const SHARDS: usize = 64;

/// A part of the table.
pub(crate) type Shard = HashTable<Arc<Record>>;

/// How many processes are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Running.
    pub running: u64,
    /// Starting.
    pub starting: u64,
    /// Without a node.
    pub pending: u64,
}

impl Counts {
    fn of(&mut self, state: ProcessState) -> &mut u64 {
        match state {
            ProcessState::Running => &mut self.running,
            ProcessState::Starting => &mut self.starting,
            ProcessState::Pending => &mut self.pending,
        }
    }
}

/// All processes.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    shards: Vec<Arc<Shard>>,
    by_type: BTreeMap<Arc<TypeName>, BTreeSet<Arc<str>>>,
    /// Those that are starting or pending: what a new leader must take up again.
    unsettled: BTreeSet<(Arc<TypeName>, Arc<str>)>,
    counts: Counts,
}

/// FxHash's step over eight bytes at a time. Fixed, so that the table is the same on every host; ids are
/// chosen by authenticated clients, so flooding a bucket is not an outsider's attack.
pub(crate) fn hash(type_name: &str, id: &str) -> u64 {
    const K: u64 = 0x517C_C1B7_2722_0A95;
    let mut state = 0_u64;
    let mut step = |word: u64| state = (state.rotate_left(5) ^ word).wrapping_mul(K);
    for text in [type_name, id] {
        let mut chunks = text.as_bytes().chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            step(u64::from_le_bytes(word));
        }
        let mut word = [0; 8];
        let rest = chunks.remainder();
        word[..rest.len()].copy_from_slice(rest);
        step(u64::from_le_bytes(word) ^ ((text.len() as u64) << 56));
    }
    // The finish of MurmurHash3: every bit of the ids reaches every bit of the hash.
    state = (state ^ (state >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    state = (state ^ (state >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    state ^ (state >> 33)
}

/// The shard of a hash. Its bits are none of those that the table itself looks at (the lowest for
/// the bucket, the highest seven for the tag), or the records of a shard would crowd together.
fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

fn hash_of(record: &Arc<Record>) -> u64 {
    hash(record.type_name.as_str(), &record.id)
}

impl Processes {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Arc::new(Shard::new())).collect();
        Self {
            shards,
            ..Self::default()
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The shards as they are now, for a snapshot.
    pub(crate) fn shards(&self) -> Vec<Arc<Shard>> {
        self.shards.clone()
    }

    pub(crate) fn get(&self, type_name: &str, id: &str) -> Option<&Arc<Record>> {
        let hash = hash(type_name, id);
        self.shards[shard_of(hash)].find(hash, |record| {
            *record.id == *id && record.type_name.as_str() == type_name
        })
    }

    /// The shared name of a type, so that records do not each hold their own.
    pub(crate) fn type_name(&self, name: &TypeName) -> Arc<TypeName> {
        self.by_type
            .get_key_value(name)
            .map_or_else(|| Arc::new(name.clone()), |(name, _)| Arc::clone(name))
    }

    /// Puts a record in; the one that it replaces comes back.
    pub(crate) fn put(&mut self, record: Arc<Record>) -> Option<Arc<Record>> {
        let hash = hash_of(&record);
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        let same = |have: &Arc<Record>| have.id == record.id && have.type_name == record.type_name;
        *self.counts.of(record.state) += 1;
        let settled = record.state == ProcessState::Running;
        let old = match shard.entry(hash, same, hash_of) {
            Entry::Occupied(mut entry) => {
                let old = std::mem::replace(entry.get_mut(), Arc::clone(&record));
                *self.counts.of(old.state) -= 1;
                Some(old)
            }
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(&record));
                let ids = self
                    .by_type
                    .entry(Arc::clone(&record.type_name))
                    .or_default();
                ids.insert(Arc::clone(&record.id));
                None
            }
        };
        let was_settled = old
            .as_ref()
            .is_none_or(|old| old.state == ProcessState::Running);
        match (was_settled, settled) {
            (true, false) => {
                self.unsettled
                    .insert((Arc::clone(&record.type_name), Arc::clone(&record.id)));
            }
            (false, true) => {
                self.unsettled
                    .remove(&(Arc::clone(&record.type_name), Arc::clone(&record.id)));
            }
            _ => {}
        }
        old
    }

    pub(crate) fn remove(&mut self, record: &Record) -> bool {
        let hash = hash(record.type_name.as_str(), &record.id);
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        let same = |have: &Arc<Record>| have.id == record.id && have.type_name == record.type_name;
        let Ok(entry) = shard.find_entry(hash, same) else {
            return false;
        };
        let (old, _) = entry.remove();
        *self.counts.of(old.state) -= 1;
        if old.state != ProcessState::Running {
            self.unsettled
                .remove(&(Arc::clone(&old.type_name), Arc::clone(&old.id)));
        }
        if let Some(ids) = self.by_type.get_mut(&old.type_name) {
            ids.remove(&old.id);
            if ids.is_empty() {
                self.by_type.remove(&old.type_name);
            }
        }
        true
    }

    /// Those that are starting or pending, in order.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.unsettled
            .iter()
            .filter_map(|(type_name, id)| self.get(type_name.as_str(), id))
    }

    /// The same, after this one.
    pub(crate) fn unsettled_after(
        &self,
        (type_name, id): (&TypeName, &str),
    ) -> impl Iterator<Item = &Arc<Record>> {
        let after = (Arc::new(type_name.clone()), Arc::from(id));
        self.unsettled
            .range((Bound::Excluded(after), Bound::Unbounded))
            .filter_map(|(type_name, id)| self.get(type_name.as_str(), id))
    }

    /// Records in the order of type and id, after `after`, of one type or of all.
    pub(crate) fn range<'a>(
        &'a self,
        type_name: Option<&'a TypeName>,
        after: Option<(&'a TypeName, &'a str)>,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Record>> {
        let first = match (type_name, after) {
            (Some(name), _) | (None, Some((name, _))) => Bound::Included(name),
            (None, None) => Bound::Unbounded,
        };
        let types = self
            .by_type
            .range::<TypeName, _>((first, Bound::Unbounded))
            .take_while(move |(name, _)| type_name.is_none_or(|only| only == &***name));
        types.flat_map(move |(name, ids)| {
            let from = match after {
                Some((of, id)) if *of == **name && id >= prefix => Bound::Excluded(id),
                _ => Bound::Included(prefix),
            };
            ids.range::<str, _>((from, Bound::Unbounded))
                .take_while(move |id| id.starts_with(prefix))
                .filter_map(move |id| self.get(name.as_str(), id))
        })
    }
}

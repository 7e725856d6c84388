//! Holds: lives that are over in the registry and may still go on on their node.
//!
//! A key with a hold is given to no other node, so that it has one life at a time. A hold ends when
//! its node says that the life is over, when the kill bound of a lost node has passed, or when the
//! node is proven dead. What is decided here is who holds what; which sessions are lost is in
//! [`crate::lost`], and how long a bound takes is measured by the leader, since nothing here reads a
//! clock. A hold is as strict as its type was when the life ended.
//!
//! **Invariants.** `by_key` and `by_session` hold the same lives, and each once. A session in `lost`
//! has a hold. `by_key` is walked by nobody, so that its order is no part of the state.
//! (Chubby's lock-delay, with the delay owned by the node that is to stop: Burrows, "The Chubby lock
//! service", OSDI 2006, section 2.4.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use maitred_protocol::{
    Incarnation, NodeEpoch, NodeName, ProcessId, ProcessKey, Restart, Revision, TypeName,
};

use crate::Registry;
use crate::index::hash;
use crate::lost::Lost;
use crate::outcome::{Event, Outcome};
use crate::process::Record;

pub(crate) type Key = (Arc<TypeName>, Arc<str>);

/// A life that may still go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Which life.
    pub incarnation: Incarnation,
    /// Where.
    pub node: Arc<NodeName>,
    /// In which session.
    pub epoch: NodeEpoch,
    /// Whether the kill bound is not enough.
    pub strict: bool,
}

/// The held lives of one session, and whether each is strict.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) node: Arc<NodeName>,
    pub(crate) lives: BTreeMap<(Key, Incarnation), bool>,
}

/// All holds, by the session that they are of. Each is shared with snapshots until it changes.
pub(crate) type Holders = BTreeMap<NodeEpoch, Arc<Holder>>;

#[derive(Debug)]
struct Held {
    key: Key,
    /// In the order of their incarnations; never empty.
    lives: Vec<Hold>,
}

/// All holds.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    by_key: HashTable<Held>,
    pub(crate) by_session: Holders,
    pub(crate) lost: BTreeMap<NodeEpoch, Lost>,
}

fn hash_of((type_name, id): &Key) -> u64 {
    hash(type_name.as_str(), id)
}

/// Puts a life under its key, unless it is there.
fn put(by_key: &mut HashTable<Held>, key: &Key, hold: Hold) -> bool {
    let is_same = |have: &Held| have.key == *key;
    let entry = by_key
        .entry(hash_of(key), is_same, |held| hash_of(&held.key))
        .or_insert_with(|| Held {
            key: key.clone(),
            lives: Vec::with_capacity(1),
        });
    let lives = &mut entry.into_mut().lives;
    let at = lives.partition_point(|have| have.incarnation < hold.incarnation);
    let is_new = lives
        .get(at)
        .is_none_or(|have| have.incarnation != hold.incarnation);
    if is_new {
        lives.insert(at, hold);
    }
    is_new
}

impl Holds {
    /// Says whether the life was not held already.
    pub(crate) fn add(&mut self, key: Key, hold: Hold) -> bool {
        let (life, strict) = ((key.clone(), hold.incarnation), hold.strict);
        let (node, epoch) = (Arc::clone(&hold.node), hold.epoch);
        let is_new = put(&mut self.by_key, &key, hold);
        if is_new {
            let holder = self.by_session.entry(epoch).or_insert_with(|| {
                let lives = BTreeMap::new();
                Arc::new(Holder { node, lives })
            });
            Arc::make_mut(holder).lives.insert(life, strict);
        }
        is_new
    }

    /// The lives of a session that ends, in their order; many at once.
    pub(crate) fn add_all(
        &mut self,
        (node, epoch): (&Arc<NodeName>, NodeEpoch),
        mut lives: Vec<((Key, Incarnation), bool)>,
    ) {
        self.by_key.reserve(lives.len(), |held| hash_of(&held.key));
        lives.retain(|((key, incarnation), strict)| {
            let hold = Hold {
                incarnation: *incarnation,
                node: Arc::clone(node),
                epoch,
                strict: *strict,
            };
            put(&mut self.by_key, key, hold)
        });
        if let Some(holder) = self.by_session.get_mut(&epoch) {
            Arc::make_mut(holder).lives.extend(lives);
        } else if !lives.is_empty() {
            // A map that is made of what is in order already compares little.
            let lives = lives.into_iter().collect();
            let node = Arc::clone(node);
            self.by_session
                .insert(epoch, Arc::new(Holder { node, lives }));
        }
    }

    fn of(&self, type_name: &TypeName, id: &str) -> &[Hold] {
        if self.by_key.is_empty() {
            return &[];
        }
        let is_same = |held: &Held| *held.key.1 == *id && *held.key.0 == *type_name;
        let held = self.by_key.find(hash(type_name.as_str(), id), is_same);
        held.map_or(&[], |held| &held.lives)
    }

    /// Takes one life off its key; and says whether it was the last.
    fn take_off_key(&mut self, key: &Key, incarnation: Incarnation) -> Option<(Hold, bool)> {
        let is_same = |held: &Held| held.key == *key;
        let Entry::Occupied(mut entry) = self
            .by_key
            .entry(hash_of(key), is_same, |held| hash_of(&held.key))
        else {
            return None;
        };
        let lives = &mut entry.get_mut().lives;
        let at = lives
            .iter()
            .position(|hold| hold.incarnation == incarnation)?;
        let hold = lives.remove(at);
        let is_last = lives.is_empty();
        if is_last {
            entry.remove();
        }
        Some((hold, is_last))
    }

    /// Takes one life away; and says whether it was the last of its key.
    pub(crate) fn take(&mut self, key: Key, incarnation: Incarnation) -> Option<(Hold, bool)> {
        let (hold, is_last) = self.take_off_key(&key, incarnation)?;
        if let Some(holder) = self.by_session.get_mut(&hold.epoch) {
            let holder = Arc::make_mut(holder);
            holder.lives.remove(&(key, incarnation));
            if holder.lives.is_empty() {
                self.forget(hold.epoch);
            }
        }
        Some((hold, is_last))
    }

    /// Takes all lives of a session away that `may` be, given their type and whether they are strict;
    /// and says which keys are free by that, in their order.
    pub(crate) fn take_all(
        &mut self,
        epoch: NodeEpoch,
        may: impl Fn(&TypeName, bool) -> bool,
    ) -> Vec<Key> {
        let Some(holder) = self.by_session.get_mut(&epoch) else {
            return Vec::new();
        };
        let holder = Arc::make_mut(holder);
        let (gone, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut holder.lives)
            .into_iter()
            .partition(|((key, _), strict)| may(&key.0, *strict));
        holder.lives = rest.into_iter().collect();
        if holder.lives.is_empty() {
            self.forget(epoch);
        }
        let mut free = Vec::with_capacity(gone.len());
        for ((key, incarnation), _) in gone {
            if let Some((_, true)) = self.take_off_key(&key, incarnation) {
                free.push(key);
            }
        }
        free
    }

    fn forget(&mut self, epoch: NodeEpoch) {
        self.by_session.remove(&epoch);
        self.lost.remove(&epoch);
    }

    /// What is known of a session that was lost, if it has holds.
    pub(crate) fn lose(&mut self, epoch: NodeEpoch, lost: Lost) {
        if self.by_session.contains_key(&epoch) {
            self.lost.insert(epoch, lost);
        }
    }

    pub(crate) fn lives_of(
        &self,
        epoch: NodeEpoch,
    ) -> impl Iterator<Item = (&Key, Incarnation, bool)> {
        let holder = self.by_session.get(&epoch);
        let lives = holder.into_iter().flat_map(|holder| &holder.lives);
        lives.map(|((key, incarnation), strict)| (key, *incarnation, *strict))
    }
}

/// A key as others see it.
pub(crate) fn wire(key: &Key) -> ProcessKey {
    ProcessKey {
        type_name: (*key.0).clone(),
        id: ProcessId::new(&*key.1).expect("was an id before"),
    }
}

impl Registry {
    /// The lives that keep a key from being given to a node, in the order of their incarnations;
    /// empty when nothing does.
    #[must_use]
    pub fn holds(&self, key: &ProcessKey) -> &[Hold] {
        self.holds.of(&key.type_name, key.id.as_str())
    }

    /// Whether a key may be given to no node.
    #[must_use]
    pub fn is_held(&self, key: &ProcessKey) -> bool {
        !self.holds(key).is_empty()
    }

    /// Keys that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.holds.by_key.len()
    }

    /// How many lives of a session are held.
    #[must_use]
    pub fn held_by_count(&self, epoch: NodeEpoch) -> u32 {
        let holder = self.holds.by_session.get(&epoch);
        holder.map_or(0, |holder| holder.lives.len() as u32)
    }

    /// The held lives of a session, in the order of their keys.
    pub fn held_by(&self, epoch: NodeEpoch) -> impl Iterator<Item = (ProcessKey, Incarnation)> {
        let lives = self.holds.lives_of(epoch);
        lives.map(|(key, incarnation, _)| (wire(key), incarnation))
    }

    /// Sessions that have holds, lost ones included, in their order.
    pub fn holding(&self) -> impl Iterator<Item = NodeEpoch> {
        self.holds.by_session.keys().copied()
    }

    /// How many lives of a session wait for its kill bound, and how many for proof.
    #[must_use]
    pub fn held_counts(&self, epoch: NodeEpoch) -> (u32, u32) {
        let lives = self.holds.lives_of(epoch);
        lives.fold((0, 0), |(safe, strict), life| match life {
            (_, _, false) => (safe + 1, strict),
            (_, _, true) => (safe, strict + 1),
        })
    }

    /// The types whose keys wait for proof that a session is dead, each once.
    pub fn strict_types(&self, epoch: NodeEpoch) -> BTreeSet<&TypeName> {
        let lives = self.holds.lives_of(epoch);
        let strict = lives.filter(|(_, _, strict)| *strict);
        strict.map(|(key, ..)| &*key.0).collect()
    }

    /// Whether the kill bound is not enough for what ends now of a type; none when nothing is waited
    /// for.
    pub(crate) fn is_strict(&self, type_name: &TypeName) -> Option<bool> {
        let described = self.described_type(type_name);
        match described.map_or(Restart::default(), |spec| spec.restart) {
            Restart::Fast => None,
            Restart::Safe => Some(false),
            Restart::Strict => Some(true),
        }
    }

    /// A life is over here, and its node has not said so. Says whether that is held: not of a type
    /// that never waits, and not twice.
    pub(crate) fn hold(
        &mut self,
        key: Key,
        incarnation: Incarnation,
        (node, epoch): (Arc<NodeName>, NodeEpoch),
    ) -> bool {
        let Some(strict) = self.is_strict(&key.0) else {
            return false;
        };
        let hold = Hold {
            incarnation,
            node,
            epoch,
            strict,
        };
        self.holds.add(key, hold)
    }

    /// The life of a record is over here, and its node has not said so.
    pub(crate) fn hold_record(&mut self, record: &Record) {
        let key = (Arc::clone(&record.type_name), Arc::clone(&record.id));
        let of = (Arc::clone(&record.node), record.epoch);
        self.hold(key, record.incarnation, of);
    }

    /// Whether a node's own registration must wait: something holds the key but its own session.
    pub(crate) fn is_held_elsewhere(&self, key: &ProcessKey, epoch: NodeEpoch) -> bool {
        self.holds(key).iter().any(|hold| hold.epoch != epoch)
    }

    pub(crate) fn release_one(
        &mut self,
        key: Key,
        incarnation: Incarnation,
        events: &mut Vec<Event>,
    ) {
        if let Some((_, true)) = self.holds.take(key.clone(), incarnation) {
            events.push(Event::Released(wire(&key)));
        }
    }

    /// Frees what a session holds, as far as `may` says so of a type, and of whether it needs proof.
    pub(crate) fn release_session(
        &mut self,
        epoch: NodeEpoch,
        may: impl Fn(&TypeName, bool) -> bool,
        events: &mut Vec<Event>,
    ) {
        let free = self.holds.take_all(epoch, may);
        events.extend(free.iter().map(|key| Event::Released(wire(key))));
    }

    /// Nodes have said that these lives are over.
    pub(crate) fn released(
        &mut self,
        index: u64,
        lives: &[(ProcessKey, Incarnation)],
        events: &mut Vec<Event>,
    ) -> Outcome {
        for (key, incarnation) in lives {
            let key = (Arc::new(key.type_name.clone()), Arc::from(key.id.as_str()));
            self.release_one(key, *incarnation, events);
        }
        Outcome::Done(Revision(index))
    }
}

//! **Properties: entries with the same index and term are the same; a committed entry never changes;
//! the state is the same wherever the same was applied.**
//!
//! For each machine the log is followed as the replica has it written. What a turn applies is compared
//! with what anybody applied at that index before. States are compared by their digest, at some indices,
//! at every snapshot and after every installation.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use maitred_protocol::{
    Incarnation, NodeEpoch, NodeName, OnNodeLost, ProcessKey, Restart, TypeName,
};
use maitred_registry::{Command, Entry, Record, Registry};
use maitred_replica::{LEVEL_MAX, Persist, Recovered};
use raft::eraftpb::{Entry as RaftEntry, EntryType};

use super::parties::Made;
use crate::sim::cover::Cover;
use crate::sim::game::Life;

/// States are compared at every so many indices.
const COMPARE_EVERY: u64 = 8;

/// What an entry is, as far as checkers care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A node's session ends for want of keep-alives.
    Expire(NodeName, NodeEpoch),
    /// A node's session ends because it says so.
    Leave(NodeEpoch),
    /// A node, or this session of it, is said to be dead.
    Dead(NodeName, Option<NodeEpoch>),
    /// A process of this instance registers.
    Register(NodeName, u64),
    /// A node lacks these.
    Missing(NodeEpoch, Vec<Life>),
    /// A process is taken off its node.
    Unplace {
        /// Which.
        life: Life,
        /// Whether its node has said that it does not run.
        over: bool,
        /// Why.
        cause: String,
    },
    /// A create is given up.
    Abort {
        /// Which.
        life: Life,
        /// As above.
        over: bool,
    },
    /// A process is removed.
    Delete {
        /// Which.
        key: ProcessKey,
        /// Only this life of it.
        only: Option<Incarnation>,
        /// Whether that has ended already.
        ended: bool,
        /// Whether a client or node has asked; if not, a drain stops it.
        asked: bool,
    },
    /// A process that has lost its node is given up.
    GiveUp,
    /// A process has ended by itself.
    Exited(Life),
    /// The keys of a party are reserved, unless something has overtaken that.
    Party(Made),
    /// Nodes have said that these are over.
    Released(Vec<Life>),
    /// The kill bound of a session has passed.
    KillBound(NodeEpoch),
    /// What a type is like.
    Type {
        /// Its name.
        name: TypeName,
        /// Whether its processes are created again.
        recreate: bool,
        /// Whether proof is needed.
        strict: bool,
    },
    /// Anything else.
    Other,
}

impl Kind {
    /// Whether processes may go with it that no client has deleted.
    fn loses(&self) -> bool {
        matches!(
            self,
            Self::Expire(..)
                | Self::Leave(_)
                | Self::Dead(..)
                | Self::Register(..)
                | Self::Missing(..)
                | Self::Unplace { .. }
                | Self::GiveUp
                | Self::Exited(_)
                | Self::Delete { asked: false, .. }
                | Self::Delete { ended: true, .. }
        )
    }
}

#[derive(Debug)]
struct Seen {
    hash: u64,
    at_us: u64,
    kind: Kind,
}

/// A machine's log.
#[derive(Debug, Default)]
struct Shadow {
    start: u64,
    terms: Vec<u64>,
    applied: u64,
    compare: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Agreement {
    logs: BTreeMap<usize, Shadow>,
    seen: BTreeMap<(u64, u64), Seen>,
    committed: BTreeMap<u64, u64>,
    digests: BTreeMap<u64, [u8; 32]>,
}

fn hash_of(entry: &RaftEntry) -> u64 {
    let mut hasher = DefaultHasher::new();
    (entry.entry_type == EntryType::EntryNormal).hash(&mut hasher);
    entry.data.hash(&mut hasher);
    hasher.finish()
}

fn kind_of(entry: &RaftEntry) -> Kind {
    if entry.entry_type != EntryType::EntryNormal || entry.data.is_empty() {
        return Kind::Other;
    }
    let Ok(entry) = Entry::decode(&entry.data, LEVEL_MAX) else {
        return Kind::Other;
    };
    let asked = entry.request.is_some();
    match entry.command {
        Command::Expire { name, epoch } => Kind::Expire(name, epoch),
        Command::DeregisterNode { epoch, .. } => Kind::Leave(epoch),
        Command::ConfirmDead { name, epoch, .. } => Kind::Dead(name, epoch),
        Command::RegisterNode(register) => Kind::Register(register.name, register.instance),
        Command::Missing {
            epoch, processes, ..
        } => Kind::Missing(epoch, processes),
        Command::Unplace {
            key,
            incarnation,
            cause,
            over,
        } => Kind::Unplace {
            life: (key, incarnation),
            over,
            cause,
        },
        Command::Abort {
            key,
            incarnation,
            over,
            ..
        } => Kind::Abort {
            life: (key, incarnation),
            over,
        },
        Command::DelProcess {
            key,
            incarnation,
            ended,
        } => Kind::Delete {
            key,
            only: incarnation,
            ended,
            asked,
        },
        Command::GiveUp { .. } => Kind::GiveUp,
        Command::Exited {
            key, incarnation, ..
        } => Kind::Exited((key, incarnation)),
        Command::ReserveParty { rule, members } => Kind::Party(Made {
            request: entry.request,
            rule,
            keys: members.into_iter().map(|member| member.key).collect(),
        }),
        Command::Released(lives) => Kind::Released(lives),
        Command::KillBoundPassed(epoch) => Kind::KillBound(epoch),
        Command::PutType(spec) => Kind::Type {
            recreate: spec.on_node_lost == OnNodeLost::Recreate,
            strict: spec.restart == Restart::Strict,
            name: spec.name,
        },
        _ => Kind::Other,
    }
}

impl Agreement {
    fn see(&mut self, now_us: u64, entry: &RaftEntry) -> Result<Option<Kind>, String> {
        let (at, hash) = ((entry.index, entry.term), hash_of(entry));
        if let Some(seen) = self.seen.get(&at) {
            if seen.hash != hash {
                return Err(format!(
                    "entry {} of term {} is not the same everywhere",
                    at.0, at.1
                ));
            }
            return Ok(None);
        }
        let kind = kind_of(entry);
        let seen = Seen {
            hash,
            at_us: now_us,
            kind: kind.clone(),
        };
        self.seen.insert(at, seen);
        Ok(Some(kind))
    }

    /// A process starts from what is durable.
    pub fn started(&mut self, machine: usize, recovered: &Recovered) {
        let snapshot = recovered.snapshot.as_ref();
        let shadow = Shadow {
            start: recovered.start_index,
            terms: recovered.entries.iter().map(|entry| entry.term).collect(),
            applied: snapshot.map_or(0, |snapshot| snapshot.index),
            compare: true,
        };
        self.logs.insert(machine, shadow);
    }

    /// The term of an entry in a machine's log, if it is there.
    pub fn term_at(&self, machine: usize, index: u64) -> Option<u64> {
        let shadow = self.logs.get(&machine)?;
        let at = index.checked_sub(shadow.start + 1)?;
        shadow.terms.get(at as usize).copied()
    }

    /// A state was replaced.
    pub fn restored(&mut self, machine: usize) {
        if let Some(shadow) = self.logs.get_mut(&machine) {
            shadow.compare = true;
        }
    }

    /// A replica has this written. Gives what entries are that nobody had before.
    ///
    /// # Errors
    /// An entry is not what it was elsewhere, or a committed one is overwritten.
    pub fn written(
        &mut self,
        now_us: u64,
        machine: usize,
        persist: &Persist,
    ) -> Result<Vec<Kind>, String> {
        let shadow = self.logs.entry(machine).or_default();
        if let Some((index, _)) = persist.reset {
            shadow.start = index;
            shadow.terms.clear();
        }
        if let Some(first) = persist.entries.first() {
            let Some(at) = first.index.checked_sub(shadow.start + 1) else {
                return Err(format!(
                    "entry {} is written below the log's beginning",
                    first.index
                ));
            };
            if at as usize > shadow.terms.len() {
                return Err(format!("entry {} is written after a gap", first.index));
            }
            if first.index <= shadow.applied {
                return Err(format!(
                    "entry {} is overwritten though {} were applied",
                    first.index, shadow.applied
                ));
            }
            shadow.terms.truncate(at as usize);
            shadow
                .terms
                .extend(persist.entries.iter().map(|entry| entry.term));
        }
        let mut fresh = Vec::new();
        for entry in &persist.entries {
            fresh.extend(self.see(now_us, entry)?);
        }
        Ok(fresh)
    }

    /// A replica's state has moved on. Gives what nobody had applied before.
    ///
    /// # Errors
    /// Another entry was applied at an index, or the state is another.
    pub fn applied(
        &mut self,
        machine: usize,
        registry: &Registry,
        cover: &mut Cover,
    ) -> Result<Vec<(u64, Kind)>, String> {
        let mut fresh = Vec::new();
        let Some(shadow) = self.logs.get_mut(&machine) else {
            return Ok(fresh);
        };
        let to = registry.applied();
        if to < shadow.applied {
            return Err(format!(
                "machine {machine} goes back from {} to {to}",
                shadow.applied
            ));
        }
        if to == shadow.applied && !shadow.compare {
            return Ok(fresh);
        }
        for index in shadow.applied.max(shadow.start) + 1..=to {
            let at = (index - shadow.start - 1) as usize;
            let Some(term) = shadow.terms.get(at).copied() else {
                return Err(format!(
                    "machine {machine} applies {index}, which it does not have"
                ));
            };
            match self.committed.get(&index) {
                Some(known) if *known == term => {}
                Some(known) => {
                    return Err(format!(
                        "entry {index} was committed in term {known}, and machine {machine} applies one of term {term}"
                    ));
                }
                None => {
                    self.committed.insert(index, term);
                    cover.count("entry committed");
                    let seen = self.seen.get(&(index, term));
                    fresh.extend(seen.map(|seen| (index, seen.kind.clone())));
                }
            }
        }
        shadow.applied = to;
        let compare = std::mem::take(&mut shadow.compare) || to.is_multiple_of(COMPARE_EVERY);
        if compare && to > 0 {
            cover.count("state compared");
            self.state(to, registry)?;
        }
        Ok(fresh)
    }

    /// A state after this index.
    ///
    /// # Errors
    /// It was another elsewhere.
    pub fn state(&mut self, index: u64, registry: &Registry) -> Result<(), String> {
        if registry.applied() != index {
            return Err(format!(
                "a state of {index} says that it is of {}",
                registry.applied()
            ));
        }
        let digest = registry.digest();
        let known = *self.digests.entry(index).or_insert(digest);
        if known == digest {
            return Ok(());
        }
        Err(format!(
            "two hosts have different states after entry {index}"
        ))
    }

    /// The entry that a machine has applied at an index, if it is known.
    pub fn applied_at(&self, machine: usize, index: u64) -> Option<&Kind> {
        let committed = self.committed.get(&index).copied();
        let term = committed.or_else(|| self.term_at(machine, index))?;
        self.seen.get(&(index, term)).map(|seen| &seen.kind)
    }

    /// What is known of an index, in all terms.
    pub fn kinds(&self, index: u64) -> Vec<&Kind> {
        let of_index = self.seen.range((index, 0)..=(index, u64::MAX));
        of_index.map(|(_, seen)| &seen.kind).collect()
    }

    /// Since when a process that was lost at this index may have been, and whether with its node.
    pub fn loss(&self, index: u64, _record: &Record, now_us: u64) -> (u64, bool) {
        let of_index = self.seen.range((index, 0)..=(index, u64::MAX));
        let mut since = now_us;
        let mut by_node = false;
        for (_, seen) in of_index {
            since = since.min(seen.at_us);
            by_node |= seen.kind.loses();
        }
        (since, by_node)
    }
}

//! Processes that no node would take: they sleep until that may have changed.
//!
//! Those that are alike for the native filter (type, selector, labels, demand) sleep together: when
//! one finds all nodes refused ([`Trace::refuses_all`]), so would the others; and when tokens are all
//! that keeps it from one, the next of those are its own. When capacity appears a pass begins: of each
//! kind the first few are tried, more and more while all of them find a node, none any more when one
//! finds all nodes refused. A kind that its selector refuses is gone through to its end, since a
//! selector may like the next one better. Passes, and the steps of one that meets refusals, are at
//! least 50 ms apart, so that churn in a full group costs little.
//!
//! **Invariant.** Every sleeper is tried after each time that capacity appeared, or one like it that
//! comes before it was tried then and found all nodes refused.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use maitred_protocol::{ModuleName, TypeName};
use maitred_registry::decide::Trace;

use super::Turn;

/// Microseconds between two tries to wake sleepers, at least.
pub(crate) const WAKE_US_MIN: u64 = 50_000;

/// How many of a kind are tried first.
const SHARE_MIN: usize = 32;

/// What the native filter looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) type_name: TypeName,
    pub(crate) selector: ModuleName,
    pub(crate) require: Vec<(String, String)>,
    pub(crate) demand: u32,
}

#[derive(Debug)]
struct Dormitory {
    turns: BTreeSet<Turn>,
    /// The latest decision of one of them.
    trace: Arc<Trace>,
}

/// A walk through the sleepers.
#[derive(Debug)]
struct Pass {
    /// Where it goes on, in each kind that it has not done with.
    at: BTreeMap<Arc<Kind>, Option<Turn>>,
    /// How many of a kind the next step tries.
    share: usize,
    /// Of the last step: how many have no answer yet, and whether one was refused.
    out: usize,
    refused: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Sleepers {
    kinds: BTreeMap<Arc<Kind>, Dormitory>,
    /// When the next pass is to begin.
    wake_us: Option<u64>,
    stepped_us: u64,
    pass: Option<Pass>,
}

impl Sleepers {
    pub(crate) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Puts one to sleep. Its kind comes back, to find it by.
    pub(crate) fn add(&mut self, kind: Kind, turn: Turn, trace: &Arc<Trace>) -> Arc<Kind> {
        let known = self.kinds.get_key_value(&kind);
        let kind = known.map_or_else(|| Arc::new(kind), |(kind, _)| Arc::clone(kind));
        let dormitory = self.kinds.entry(Arc::clone(&kind));
        let dormitory = dormitory.or_insert_with(|| Dormitory {
            turns: BTreeSet::new(),
            trace: Arc::clone(trace),
        });
        dormitory.trace = Arc::clone(trace);
        dormitory.turns.insert(turn);
        kind
    }

    pub(crate) fn remove(&mut self, kind: &Kind, turn: &Turn) {
        if let Some(dormitory) = self.kinds.get_mut(kind) {
            dormitory.turns.remove(turn);
            if dormitory.turns.is_empty() {
                self.kinds.remove(kind);
            }
        }
    }

    /// The latest decision of a kind.
    pub(crate) fn trace(&self, kind: &Kind) -> Option<&Arc<Trace>> {
        self.kinds.get(kind).map(|dormitory| &dormitory.trace)
    }

    /// What one of this kind would be told, when that is known without asking: all nodes refused the
    /// last one, and nothing has changed since.
    pub(crate) fn refusal(&self, kind: &Kind) -> Option<Arc<Trace>> {
        let quiet = self.wake_us.is_none() && self.pass.is_none();
        let trace = self.trace(kind).filter(|_| quiet)?;
        trace.refuses_all().then(|| Arc::clone(trace))
    }

    /// They are to be tried again at this time.
    pub(crate) fn wake(&mut self, at_us: u64) {
        if !self.is_empty() {
            let at_us = at_us.max(self.stepped_us + WAKE_US_MIN);
            self.wake_us = Some(self.wake_us.map_or(at_us, |wake_us| wake_us.min(at_us)));
        }
    }

    /// Whom to try now, at most `most`; they are asleep no more.
    pub(crate) fn step(&mut self, now_us: u64, most: usize) -> Vec<Turn> {
        if self.next_us().is_none_or(|next_us| next_us > now_us) {
            return Vec::new();
        }
        let kinds = &self.kinds;
        let pass = self.pass.get_or_insert_with(|| {
            self.wake_us = None;
            Pass {
                at: kinds.keys().map(|kind| (Arc::clone(kind), None)).collect(),
                share: SHARE_MIN / 2,
                out: 0,
                refused: false,
            }
        });
        pass.share = if pass.refused {
            SHARE_MIN
        } else {
            (2 * pass.share).min(most)
        };
        self.stepped_us = now_us;
        let chosen = pass.choose(kinds, most);
        pass.refused = false;
        pass.out = chosen.len();
        for (kind, turn) in &chosen {
            pass.at.insert(Arc::clone(kind), Some(turn.clone()));
        }
        if chosen.is_empty() {
            self.pass = None;
        }
        for (kind, turn) in &chosen {
            self.remove(kind, turn);
        }
        chosen.into_iter().map(|(_, turn)| turn).collect()
    }

    /// What has become of one that was tried.
    pub(crate) fn answered(&mut self, refused_by_all: Option<&Kind>, refused: bool) {
        if let Some(pass) = &mut self.pass {
            pass.out = pass.out.saturating_sub(1);
            pass.refused |= refused;
            if let Some(kind) = refused_by_all {
                pass.at.remove(kind);
            }
        }
    }

    /// When `step` has something to do.
    pub(crate) fn next_us(&self) -> Option<u64> {
        match &self.pass {
            Some(pass) if pass.out > 0 => None,
            Some(pass) if pass.refused => Some(self.stepped_us + WAKE_US_MIN),
            Some(_) => Some(self.stepped_us),
            None => self.wake_us,
        }
    }
}

impl Pass {
    /// The next of each kind, those before others first; kinds that have none left are done with.
    fn choose(
        &mut self,
        kinds: &BTreeMap<Arc<Kind>, Dormitory>,
        most: usize,
    ) -> Vec<(Arc<Kind>, Turn)> {
        let next = |kind: &Arc<Kind>, after: &Option<Turn>, share: usize| -> Vec<Turn> {
            let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let turns = kinds.get(kind).map(|dormitory| &dormitory.turns);
            let turns = turns
                .into_iter()
                .flat_map(|turns| turns.range((from, Bound::Unbounded)));
            turns.take(share).cloned().collect()
        };
        self.at
            .retain(|kind, after| !next(kind, after, 1).is_empty());
        let mut first: Vec<_> = self.at.iter().collect();
        first.sort_by_cached_key(|(kind, after)| next(kind, after, 1).pop());
        let mut chosen = Vec::new();
        for (kind, after) in first {
            let share = self.share.min(most - chosen.len());
            let turns = next(kind, after, share).into_iter();
            chosen.extend(turns.map(|turn| (Arc::clone(kind), turn)));
            if chosen.len() >= most {
                break;
            }
        }
        chosen
    }
}

//! What a decision was made from: kept in a form that costs little to make, and spelled out when
//! somebody asks.

use std::sync::Arc;

use maitred_protocol::{Answered, Candidate, Evidence, Refusal, RefusalReason, Why, limits};

use crate::candidates::{NodeFacts, Refused, SelectRequest, Slot};
use crate::decide::ModuleRef;

/// What a decision was made from, in a form that costs little to make; [`Trace::evidence`] spells
/// it out.
#[derive(Debug)]
pub struct Trace {
    /// The nodes at that moment.
    pub facts: Arc<[Arc<NodeFacts>]>,
    /// The request.
    pub request: Arc<SelectRequest>,
    /// Who chose.
    pub why: Why,
    /// The module that was asked, for apply's check that it is still the active one.
    pub selector: Option<ModuleRef>,
    /// Names of the features.
    pub features: Vec<String>,
    /// The candidates, in the order in which they were offered.
    pub slots: Vec<Slot>,
    /// Their features, row by row.
    pub values: Vec<f32>,
    /// Milliseconds since the last load report of each; NaN when there is none.
    pub ages: Vec<f32>,
    /// What the selector answered.
    pub answered: Answered,
    /// Names of its score terms.
    pub terms: Vec<String>,
    /// The nodes that it scored, best first.
    pub scored: Vec<Slot>,
    /// One value for each term, row by row.
    pub scores: Vec<f32>,
    /// Those that were not offered.
    pub refused: Vec<(Slot, Refused)>,
    /// The one that was chosen.
    pub chosen: Option<Slot>,
    /// Seconds since 1970.
    pub time_s: u32,
}

impl Trace {
    /// Names instead of slots.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        let (refusals, refusals_more) = self.refusals();
        let width = self.features.len();
        let candidates = self.slots.iter().enumerate().map(|(row, &slot)| Candidate {
            node: self.facts[slot as usize].name.clone(),
            values: self.values[row * width..(row + 1) * width].to_vec(),
            chosen: self.chosen == Some(slot),
            load_age_ms: self.ages[row],
            scores: self.scores_of(slot),
        });
        Evidence {
            why: self.why.clone(),
            features: self.features.clone(),
            candidates: candidates.collect(),
            refusals,
            refusals_more,
            decided_ms: u64::from(self.time_s) * 1_000,
            filtered: self.filtered(),
            terms: self.terms.clone(),
            answered: self.answered.clone(),
        }
    }

    fn scores_of(&self, slot: Slot) -> Vec<f32> {
        let width = self.terms.len();
        let row = self.scored.iter().position(|&scored| scored == slot);
        row.map_or_else(Vec::new, |row| {
            self.scores[row * width..(row + 1) * width].to_vec()
        })
    }

    /// How many nodes each filter took out, most first.
    fn filtered(&self) -> Vec<(String, u32)> {
        let mut counts: Vec<(&str, u32)> = Vec::new();
        for (_, refused) in &self.refused {
            let filter = refused.filter();
            match counts.iter_mut().find(|(have, _)| *have == filter) {
                Some((_, count)) => *count += 1,
                None => counts.push((filter, 1)),
            }
        }
        counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let counts = counts.into_iter();
        counts
            .map(|(name, count)| (name.to_owned(), count))
            .collect()
    }

    /// The refusals, at most [`limits::REFUSALS_MAX`], and how many there are beyond those.
    #[must_use]
    pub fn refusals(&self) -> (Vec<Refusal>, u32) {
        let declined = self.chosen.is_none();
        let refusals = self
            .refused
            .iter()
            .map(|&(slot, refused)| (slot, self.reason(refused)));
        let not_chosen = self
            .slots
            .iter()
            .filter(|_| declined)
            .map(|&slot| (slot, RefusalReason::NotChosen));
        let mut all = refusals.chain(not_chosen).map(|(slot, reason)| Refusal {
            node: self.facts[slot as usize].name.clone(),
            reason,
        });
        let named: Vec<Refusal> = all.by_ref().take(limits::REFUSALS_MAX).collect();
        let total = self.refused.len() + if declined { self.slots.len() } else { 0 };
        let more = total - named.len();
        (named, more as u32)
    }

    fn reason(&self, refused: Refused) -> RefusalReason {
        match refused {
            Refused::Cordoned => RefusalReason::Cordoned,
            Refused::Suspect => RefusalReason::Suspect,
            Refused::TypeNotHosted => RefusalReason::TypeNotHosted,
            Refused::Label(index) => {
                let (key, value) = self.request.require[index as usize].clone();
                RefusalReason::Label { key, value }
            }
            Refused::Capacity(left) => RefusalReason::Capacity {
                left,
                demand: self.request.demand,
            },
            Refused::FailedBefore => RefusalReason::FailedBefore,
            Refused::Damped(left_ms) => RefusalReason::Damped(left_ms),
            Refused::Budget => RefusalReason::Budget,
            Refused::Party => RefusalReason::Party,
        }
    }
}

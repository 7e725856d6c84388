//! What a decision was made from: kept in a form that costs little to make, and spelled out when
//! somebody asks.

use std::sync::Arc;

use maitred_protocol::{
    Answered, Candidate, Evidence, NodeName, Refusal, RefusalReason, Why, WhyNot, limits,
};

use crate::candidates::{NodeFacts, Refused, SelectRequest, Slot};
use crate::decide::ModuleRef;

/// What a decision was made from, in a form that costs little to make; [`Trace::evidence`] spells
/// it out.
#[derive(Debug, Clone)]
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
    /// Whether anybody was there to choose from.
    #[must_use]
    pub fn was_offered(&self) -> bool {
        self.why.candidates > 0
    }

    /// Whether no node would take another one like it either: all were refused, and none for a reason
    /// that is this one's alone (the nodes that failed it, the rule of its party).
    #[must_use]
    pub fn refuses_all(&self) -> bool {
        let private = |why: &Refused| matches!(why, Refused::FailedBefore | Refused::Party);
        !self.was_offered() && !self.refused.iter().any(|(_, why)| private(why))
    }

    /// The same decision, taken to another of the nodes that it ranked; none when that is none of its
    /// nodes.
    #[must_use]
    pub fn taken_to(&self, node: &NodeName, request: Arc<SelectRequest>) -> Option<Self> {
        let chosen = Some(self.slot_of(node)?);
        Some(Self {
            chosen,
            request,
            ..self.clone()
        })
    }

    fn slot_of(&self, node: &NodeName) -> Option<Slot> {
        let mut facts = self.facts.iter();
        facts
            .position(|facts| facts.name == *node)
            .map(|slot| slot as Slot)
    }

    /// What became of a node, however many there were.
    #[must_use]
    pub fn why_not(&self, node: &NodeName) -> WhyNot {
        let Some(slot) = self.slot_of(node) else {
            return WhyNot::Unknown;
        };
        if self.chosen == Some(slot) {
            return WhyNot::Chosen;
        }
        let mut refused = self.refused.iter();
        if let Some((_, why)) = refused.find(|(refused, _)| *refused == slot) {
            return WhyNot::Refused(self.reason(*why));
        }
        if !self.all_offered() && !self.slots.contains(&slot) {
            return WhyNot::NotSampled;
        }
        let rank = self.scored.iter().position(|scored| *scored == slot);
        WhyNot::Offered(rank.map(|rank| rank as u32 + 1))
    }

    /// Whether all that passed the filter were offered. A scanner's candidates are not kept.
    fn all_offered(&self) -> bool {
        self.why.candidates as usize + self.refused.len() == self.facts.len()
    }

    /// Those that were offered.
    fn offered(&self) -> Vec<Slot> {
        if !self.was_offered() || !self.all_offered() {
            return self.slots.clone();
        }
        let mut refused = self.refused.iter().map(|(slot, _)| *slot).peekable();
        let all = 0..self.facts.len() as Slot;
        all.filter(|slot| refused.next_if_eq(slot).is_none())
            .collect()
    }

    /// Names instead of slots; of the refusals, at most [`limits::REFUSALS_MAX`]. The nodes that were
    /// scored come first.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.evidence_with(limits::REFUSALS_MAX)
    }

    /// The same with so many refusals.
    #[must_use]
    pub fn evidence_with(&self, refusals_max: usize) -> Evidence {
        let (refusals, refusals_more) = self.refusals_to(refusals_max);
        let width = self.features.len();
        // Best first, so that the order tells their ranks.
        let mut rows: Vec<(usize, Slot)> = self.slots.iter().copied().enumerate().collect();
        if !self.scored.is_empty() {
            let rank = |slot: Slot| self.scored.iter().position(|scored| *scored == slot);
            rows.sort_by_key(|&(_, slot)| rank(slot).unwrap_or(usize::MAX));
        }
        let candidates = rows.into_iter().map(|(row, slot)| Candidate {
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
        self.refusals_to(limits::REFUSALS_MAX)
    }

    fn refusals_to(&self, refusals_max: usize) -> (Vec<Refusal>, u32) {
        let declined = match self.chosen {
            None => self.offered(),
            Some(_) => Vec::new(),
        };
        let refusals = self
            .refused
            .iter()
            .map(|&(slot, refused)| (slot, self.reason(refused)));
        let not_chosen = declined.iter();
        let not_chosen = not_chosen.map(|&slot| (slot, RefusalReason::NotChosen));
        let mut all = refusals.chain(not_chosen).map(|(slot, reason)| Refusal {
            node: self.facts[slot as usize].name.clone(),
            reason,
        });
        let named: Vec<Refusal> = all.by_ref().take(refusals_max).collect();
        let total = self.refused.len() + declined.len();
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
                demand: match &self.request.party {
                    // There is room for this one, and not for those that must come with it.
                    Some(party) if left >= self.request.demand => party.rest,
                    _ => self.request.demand,
                },
            },
            Refused::FailedBefore => RefusalReason::FailedBefore,
            Refused::Damped(left_ms) => RefusalReason::Damped(left_ms),
            Refused::Budget => RefusalReason::Budget,
            Refused::Party => RefusalReason::Party,
        }
    }
}

/// What became of a node, as far as the evidence still says.
#[must_use]
pub fn why_not(evidence: &Evidence, node: &NodeName) -> WhyNot {
    let mut candidates = evidence.candidates.iter();
    if let Some(row) = candidates.position(|candidate| candidate.node == *node) {
        let candidate = &evidence.candidates[row];
        let scored = !candidate.scores.is_empty();
        return match candidate.chosen {
            true => WhyNot::Chosen,
            // Those that were scored come first, best first.
            false => WhyNot::Offered(scored.then_some(row as u32 + 1)),
        };
    }
    let mut refusals = evidence.refusals.iter();
    match refusals.find(|refusal| refusal.node == *node) {
        Some(refusal) if refusal.reason == RefusalReason::NotChosen => WhyNot::Offered(None),
        Some(refusal) => WhyNot::Refused(refusal.reason.clone()),
        None => WhyNot::Unknown,
    }
}

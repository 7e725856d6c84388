//! How choosing policies answer: short ways to make the generated [`Answer`].
//!
//! It decides the spelling only; what an answer means is in `wit/policy.wit`, interface `answers`.

use crate::{Answer, Rejection, Scores, Slot, Verdict};

/// Nodes that an answer may rank.
pub const RANKED_MAX: usize = 8;
/// Nodes that an answer may give scores of.
pub const SCORED_MAX: usize = 5;
/// Terms that a policy may score by.
pub const TERMS_MAX: usize = 8;
/// Milliseconds for which a policy may ask to be asked again.
pub const WAIT_MS: std::ops::RangeInclusive<u32> = 10..=60_000;

impl Answer {
    /// The process goes to this node.
    #[must_use]
    pub fn choose(slot: Slot) -> Self {
        Verdict::Choose(slot).into()
    }

    /// No candidate will do: the create is answered `no_placement`.
    #[must_use]
    pub fn none() -> Self {
        Verdict::None.into()
    }

    /// The process goes to the first of these nodes that takes it, best first; those after the
    /// eighth are dropped. Without any it is [`Answer::none`], with one [`Answer::choose`].
    #[must_use]
    pub fn ranked(slots: impl IntoIterator<Item = Slot>) -> Self {
        let slots: Vec<Slot> = slots.into_iter().take(RANKED_MAX).collect();
        match slots.as_slice() {
            [] => Self::none(),
            [only] => Self::choose(*only),
            _ => Verdict::Ranked(slots).into(),
        }
    }

    /// The process must not be created: the create is answered `rejected_by_selector` with a number
    /// of the policy's own for programs and a reason (at most 512 bytes) for people.
    #[must_use]
    pub fn reject(code: u32, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Verdict::Reject(Rejection { code, reason }).into()
    }

    /// Nothing will do now: to be asked again when a node comes or room is made, and at the latest
    /// after `milliseconds` (10 to 60,000).
    #[must_use]
    pub fn wait(milliseconds: u32) -> Self {
        Verdict::Wait(milliseconds).into()
    }

    /// The same answer with the terms that the best nodes were scored by; [`crate::compose`] makes
    /// them.
    #[must_use]
    pub fn with_scores(self, scores: Scores) -> Self {
        Self { scores, ..self }
    }
}

impl Scores {
    /// No node was scored.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            slots: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        let scores = Scores::none();
        Self { verdict, scores }
    }
}

impl From<Slot> for Answer {
    fn from(slot: Slot) -> Self {
        Self::choose(slot)
    }
}

impl From<Option<Slot>> for Answer {
    fn from(slot: Option<Slot>) -> Self {
        slot.map_or_else(Self::none, Self::choose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ranking_keeps_its_bounds() {
        assert_eq!(Answer::ranked([]), Answer::none());
        assert_eq!(Answer::ranked([7]), Answer::choose(7));
        assert_eq!(
            Answer::ranked(0..9).verdict,
            Verdict::Ranked((0..8).collect())
        );
        assert_eq!(Answer::from(None), Answer::none());
        assert_eq!(Answer::from(Some(3)), Answer::from(3));
    }
}

//! What a node remembers of lives that are over, so that none of them begins again: but for one whose
//! start came to nothing, when it is asked for once more, as a later try.
//!
//! Bounded: at least the newest 10,000 and everything of the last ten minutes are kept (a create
//! cannot last longer), never more than 262,144. When one is dropped, its incarnation becomes the
//! floor: below it every start of an unknown key is refused. Incarnations grow over all keys, so
//! that is always safe, and refuses only starts that are older than any create still under way.

use std::collections::{HashMap, VecDeque};

use maitred_protocol::{Incarnation, NodeAnswer, ProcessKey};

/// Kept whatever their age.
pub(crate) const KEPT_MIN: usize = 10_000;
/// Kept at most, whatever their age.
pub(crate) const KEPT_MAX: usize = 262_144;
/// Kept for at least this long, short of [`KEPT_MAX`].
pub(crate) const KEPT_US: u64 = 600 * 1_000_000;

#[derive(Debug)]
struct Tomb {
    incarnation: Incarnation,
    /// What a repeated start of exactly this incarnation is told; fenced when there is nothing.
    answer: Option<NodeAnswer>,
    /// The highest try that has been told so; [`NO_MORE`] when no further one is wanted.
    tries: u32,
    at_us: u64,
}

/// The number of a try after which none comes.
const NO_MORE: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    tombs: HashMap<ProcessKey, Tomb>,
    /// Oldest first; an entry whose time is not its tomb's is of an older one, and void.
    order: VecDeque<(ProcessKey, u64)>,
    floor: Incarnation,
}

impl Tombstones {
    /// Notes that `incarnation` of `key`, and every lower one, is over for good.
    pub(crate) fn bury(&mut self, now_us: u64, key: &ProcessKey, incarnation: Incarnation) {
        self.note(now_us, key, incarnation, (None, NO_MORE));
    }

    /// Notes that `incarnation` of `key` is over, and every lower one for good; what its starts are
    /// told, up to this try. A no that says that nothing was begun is one for these tries only.
    pub(crate) fn bury_answered(
        &mut self,
        now_us: u64,
        key: &ProcessKey,
        incarnation: Incarnation,
        (answer, tries): (NodeAnswer, u32),
    ) {
        let is_no = matches!(answer, NodeAnswer::Busy(_) | NodeAnswer::Failed(_));
        let tries = if is_no { tries } else { NO_MORE };
        self.note(now_us, key, incarnation, (Some(answer), tries));
    }

    fn note(
        &mut self,
        now_us: u64,
        key: &ProcessKey,
        incarnation: Incarnation,
        (answer, tries): (Option<NodeAnswer>, u32),
    ) {
        let tomb = self.tombs.entry(key.clone()).or_insert(Tomb {
            incarnation,
            answer: None,
            tries: 0,
            at_us: now_us,
        });
        if incarnation < tomb.incarnation {
            return;
        }
        if incarnation > tomb.incarnation || answer.is_some() {
            tomb.answer = answer;
        }
        if incarnation > tomb.incarnation {
            tomb.tries = 0;
        }
        tomb.tries = tomb.tries.max(tries);
        (tomb.incarnation, tomb.at_us) = (incarnation, now_us);
        self.order.push_back((key.clone(), now_us));
        self.evict(now_us);
    }

    /// What a start of `incarnation` is told when that life is over; none when it is not, or when this
    /// is another try of one that never began.
    pub(crate) fn refusal(
        &self,
        key: &ProcessKey,
        incarnation: Incarnation,
        try_number: u32,
    ) -> Option<NodeAnswer> {
        match self.tombs.get(key) {
            Some(tomb) if incarnation == tomb.incarnation && try_number > tomb.tries => None,
            Some(tomb) if incarnation == tomb.incarnation => {
                Some(tomb.answer.clone().unwrap_or(NodeAnswer::Fenced))
            }
            Some(tomb) if incarnation < tomb.incarnation => Some(NodeAnswer::Fenced),
            Some(_) => None,
            None => (incarnation <= self.floor).then_some(NodeAnswer::Fenced),
        }
    }

    /// Whether exactly this life had begun, or was never to, when it ended; false when its start
    /// was answered with a no.
    pub(crate) fn has_run(&self, key: &ProcessKey, incarnation: Incarnation) -> bool {
        let tomb = self.tombs.get(key);
        tomb.is_some_and(|tomb| tomb.incarnation == incarnation && tomb.answer.is_none())
    }

    fn evict(&mut self, now_us: u64) {
        while let Some((key, at_us)) = self.order.front() {
            let current = self.tombs.get(key).filter(|tomb| tomb.at_us == *at_us);
            let old = at_us.saturating_add(KEPT_US) < now_us && self.tombs.len() > KEPT_MIN;
            match current {
                Some(_) if !old && self.order.len() <= KEPT_MAX => return,
                Some(tomb) => {
                    self.floor = self.floor.max(tomb.incarnation);
                    self.tombs.remove(key);
                }
                None => {}
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> ProcessKey {
        ProcessKey::new("p", &n.to_string()).unwrap()
    }

    #[test]
    fn young_ones_and_the_newest_are_kept_and_dropped_ones_leave_a_floor() {
        let mut tombs = Tombstones::default();
        let extra = 500;
        for n in 1..=KEPT_MIN as u64 + extra {
            tombs.bury(n, &key(n), Incarnation(n));
        }
        assert_eq!(tombs.tombs.len(), KEPT_MIN + extra as usize);
        // Ten minutes later the oldest may go, down to the number that is always kept.
        let later = KEPT_US * 2;
        tombs.bury(later, &key(0), Incarnation(20_000));
        assert_eq!(tombs.tombs.len(), KEPT_MIN);
        let gone = extra + 1;
        assert!(!tombs.tombs.contains_key(&key(gone)));
        assert_eq!(
            tombs.refusal(&key(gone), Incarnation(gone), 2),
            Some(NodeAnswer::Fenced)
        );
        assert_eq!(
            tombs.refusal(&key(99_999), Incarnation(gone), 2),
            Some(NodeAnswer::Fenced)
        );
        assert_eq!(tombs.refusal(&key(99_999), Incarnation(gone + 1), 1), None);
    }

    #[test]
    fn memory_is_bounded_even_when_all_are_young() {
        let mut tombs = Tombstones::default();
        for n in 1..=(KEPT_MAX as u64 + 1_000) {
            tombs.bury(n, &key(n % 50_000), Incarnation(n));
        }
        assert!(tombs.order.len() <= KEPT_MAX);
        assert_eq!(tombs.tombs.len(), 50_000);
    }
}

//! Timers of sagas: when to try again, and when to give up. The time is an argument.

use std::collections::BTreeSet;

use maitred_protocol::ProcessKey;

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// A saga's back-off is over. The number tells an old timer from the saga's present one.
    Retry(ProcessKey, u64),
    /// A create's deadline has passed.
    Deadline(ProcessKey, u64),
    /// So has that of a create that waits for its key to be free.
    Parked(ProcessKey),
}

/// All timers, by time.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    all: BTreeSet<(u64, Due)>,
}

impl Timers {
    pub(crate) fn set(&mut self, at_us: u64, due: Due) {
        self.all.insert((at_us, due));
    }

    /// Takes one out before it is due.
    pub(crate) fn cancel(&mut self, at_us: u64, due: Due) {
        self.all.remove(&(at_us, due));
    }

    pub(crate) fn next_us(&self) -> Option<u64> {
        self.all.first().map(|(at, _)| *at)
    }

    /// Takes the first that is due.
    pub(crate) fn pop(&mut self, now_us: u64) -> Option<Due> {
        if self.next_us()? > now_us {
            return None;
        }
        self.all.pop_first().map(|(_, due)| due)
    }
}

//! Timers of creates: when to try again, and when to give up. The time is an argument.
//!
//! **Invariant.** A timer is there for as long as something waits for it: whoever ends the wait
//! before its time cancels it, or creates that are long over would pile up until their deadlines.

use std::collections::BTreeMap;

use maitred_protocol::{ModuleName, NodeEpoch, ProcessKey};

use crate::input::Ticket;

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    /// A saga's back-off is over.
    Retry(ProcessKey),
    /// The deadline of the create that a saga carries out has passed.
    Deadline(ProcessKey),
    /// So has that of a create that waits: for another one of its key, or for its key to be free.
    Late(ProcessKey, Ticket),
    /// The kill bound of a lost session has passed.
    KillBound(NodeEpoch),
    /// A fence module is to be asked again about a lost session.
    Examine(NodeEpoch, ModuleName),
    /// Moves are to be looked at.
    Moves,
    /// A process that waits for a node is given up.
    GiveUp(ProcessKey),
    /// Some that wait for a node may go on.
    Recreate,
    /// Some creates whose selectors want to be asked again.
    Waiting,
    /// The deadline of a party has passed.
    Party(u64),
    /// A party that waits is to be decided anew.
    PartyAgain(u64),
    /// Some of the parties that wait.
    Parties,
}

/// One timer: its time, and a number that is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerId(u64, u64);

impl TimerId {
    /// When it is due, in microseconds.
    pub(crate) fn at_us(self) -> u64 {
        self.0
    }
}

/// All timers, by time.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    all: BTreeMap<TimerId, Due>,
    last: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at_us: u64, due: Due) -> TimerId {
        self.last += 1;
        let id = TimerId(at_us, self.last);
        self.all.insert(id, due);
        id
    }

    /// Takes one out before it is due.
    pub(crate) fn cancel(&mut self, id: Option<TimerId>) {
        if let Some(id) = id {
            self.all.remove(&id);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.all.clear();
    }

    pub(crate) fn next_us(&self) -> Option<u64> {
        self.all.first_key_value().map(|(id, _)| id.0)
    }

    /// Takes the first that is due.
    pub(crate) fn pop(&mut self, now_us: u64) -> Option<Due> {
        if self.next_us()? > now_us {
            return None;
        }
        self.all.pop_first().map(|(_, due)| due)
    }
}

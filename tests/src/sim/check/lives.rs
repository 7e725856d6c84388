//! **Property: the incarnations of a key only grow**, on every host, through crashes and snapshots; and
//! a life that has ended never comes back.

use std::collections::{BTreeMap, BTreeSet};

use maitred_protocol::ProcessKey;
use maitred_registry::{Change, Record};

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Lives {
    /// The last incarnation of each key that a machine's process told of, and whether it has ended.
    last: BTreeMap<usize, BTreeMap<ProcessKey, (u64, bool)>>,
    /// Losses that are known: key, incarnation, and whether it was to be started again.
    lost: BTreeSet<(ProcessKey, u64, bool)>,
}

impl Lives {
    /// A machine's process starts anew, or its state was replaced.
    pub fn forget(&mut self, machine: usize) {
        self.last.remove(&machine);
    }

    /// A process has changed.
    ///
    /// # Errors
    /// Its incarnation goes back, or has ended before.
    pub fn changed(
        &mut self,
        machine: usize,
        change: Change,
        record: &Record,
    ) -> Result<(), String> {
        let (key, incarnation) = (record.key(), record.incarnation.0);
        let last = self.last.entry(machine).or_default();
        let ended = change == Change::Removed;
        let before = last.insert(key.clone(), (incarnation, ended));
        match before {
            Some((before, _)) if incarnation < before => Err(format!(
                "machine {machine}: {key} goes back from incarnation {before} to {incarnation}"
            )),
            Some((before, true)) if incarnation == before => Err(format!(
                "machine {machine}: {key}@{incarnation} has ended, and is {change:?} again"
            )),
            _ => Ok(()),
        }
    }

    /// Whether a change is a loss that is new: true when it is started elsewhere.
    pub fn lost(&mut self, change: Change, record: &Record) -> Option<bool> {
        let moved = match change {
            Change::Pending => true,
            Change::Removed => false,
            _ => return None,
        };
        let life = (record.key(), record.incarnation.0, moved);
        self.lost.insert(life).then_some(moved)
    }
}

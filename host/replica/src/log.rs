//! The log in memory, behind Raft's `Storage` trait.
//!
//! **Invariants.** Indices are contiguous from `start + 1`. Raft reads what it has appended before
//! it is durable (it must, to replicate while the disk works); what is durable is storage's affair.
//! The length is bounded by compaction: twice the entries between two snapshots.

use std::cell::Cell;
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// Entries, and where they begin.
#[derive(Debug)]
pub(crate) struct Log {
    start: u64,
    start_term: u64,
    entries: VecDeque<Entry>,
    hard_state: HardState,
    conf_state: ConfState,
    bytes: u64,
    /// The newest snapshot that is on disk: index, term, and the group then.
    saved: Option<(u64, u64, ConfState)>,
    /// A peer needs a newer one than that.
    wanted: Cell<bool>,
}

impl Log {
    pub(crate) fn new(
        start: (u64, u64),
        entries: Vec<Entry>,
        hard_state: HardState,
        conf_state: ConfState,
    ) -> Self {
        let bytes = entries.iter().map(|entry| entry.data.len() as u64).sum();
        let (start, start_term) = start;
        Self {
            start,
            start_term,
            entries: entries.into(),
            hard_state,
            conf_state,
            bytes,
            saved: None,
            wanted: Cell::new(false),
        }
    }

    /// A snapshot has been written, or was found.
    pub(crate) fn set_saved(&mut self, index: u64, term: u64, conf_state: ConfState) {
        if self.saved.as_ref().is_none_or(|saved| saved.0 <= index) {
            self.saved = Some((index, term, conf_state));
        }
    }

    /// Whether a peer waits for a snapshot that is not there yet; asked once.
    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.take()
    }

    /// A snapshot takes the place of everything.
    pub(crate) fn reset(&mut self, (index, term): (u64, u64), conf_state: ConfState) {
        self.entries.clear();
        (self.start, self.start_term) = (index, term);
        self.conf_state = conf_state.clone();
        self.set_saved(index, term, conf_state);
    }

    pub(crate) fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// The entries, from the oldest on.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Everything through this index is gone.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Bytes of the entries after `index`.
    pub(crate) fn bytes_after(&self, index: u64) -> u64 {
        let skip = index.saturating_sub(self.start) as usize;
        let kept = self.entries.iter().skip(skip);
        kept.map(|entry| entry.data.len() as u64).sum()
    }

    pub(crate) fn last(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Bytes of entries ever appended; grows only.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Appends, first dropping what conflicts.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.start && first.index <= self.last() + 1,
            "raft appends at {} to a log of {}..={}",
            first.index,
            self.start + 1,
            self.last()
        );
        self.entries
            .truncate((first.index - self.start - 1) as usize);
        self.bytes += entries
            .iter()
            .map(|entry| entry.data.len() as u64)
            .sum::<u64>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets everything through `index`.
    pub(crate) fn compact(&mut self, index: u64) {
        if index <= self.start || index > self.last() {
            return;
        }
        self.start_term = self
            .entry(index)
            .map_or(self.start_term, |entry| entry.term);
        self.entries.drain(..(index - self.start) as usize);
        self.start = index;
    }

    fn entry(&self, index: u64) -> Option<&Entry> {
        let at = index.checked_sub(self.start + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.start {
            return Some(self.start_term);
        }
        self.entry(index).map(|entry| entry.term)
    }
}

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(
            self.hard_state.clone(),
            self.conf_state.clone(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.start {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let range = (low - self.start - 1) as usize..(high - self.start - 1) as usize;
        let mut room = max_size.into().unwrap_or(u64::MAX);
        let mut taken = Vec::new();
        for entry in self.entries.range(range) {
            let size = entry.data.len() as u64 + 16;
            // At least one, or a large entry would never be read.
            if size > room && !taken.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> Result<u64> {
        self.term_at(index)
            .ok_or(Error::Store(if index < self.start {
                StorageError::Compacted
            } else {
                StorageError::Unavailable
            }))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.start + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    /// Names the newest snapshot: its bytes are fetched from the disk. One that was taken before the
    /// peer belonged to the group would not be taken by it.
    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let knows = |conf: &ConfState| {
            let members = [&conf.voters, &conf.learners, &conf.voters_outgoing];
            members.iter().any(|members| members.contains(&to))
        };
        match &self.saved {
            Some((index, term, conf_state))
                if *index >= request_index.max(self.start) && knows(conf_state) =>
            {
                let mut snapshot = Snapshot::default();
                let metadata = snapshot.mut_metadata();
                (metadata.index, metadata.term) = (*index, *term);
                metadata.set_conf_state(conf_state.clone());
                Ok(snapshot)
            }
            _ => {
                self.wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        let data = vec![0; 10].into();
        Entry {
            index,
            term,
            data,
            ..Entry::default()
        }
    }

    fn log(last: u64) -> Log {
        let entries = (1..=last).map(|index| entry(index, 1)).collect();
        Log::new((0, 0), entries, HardState::default(), ConfState::default())
    }

    #[test]
    fn a_conflicting_suffix_is_replaced() {
        let mut log = log(5);
        log.append(&[entry(4, 2), entry(5, 2), entry(6, 2)]);
        let terms: Vec<_> = (0..=7).map(|index| log.term_at(index)).collect();
        assert_eq!(
            terms,
            [
                Some(0),
                Some(1),
                Some(1),
                Some(1),
                Some(2),
                Some(2),
                Some(2),
                None
            ]
        );
    }

    #[test]
    fn what_was_compacted_is_gone_but_its_last_term_is_known() {
        let mut log = log(5);
        log.compact(3);
        assert_eq!(log.first_index().unwrap(), 4);
        assert_eq!(log.term(3).unwrap(), 1);
        assert_eq!(log.term(2), Err(Error::Store(StorageError::Compacted)));
        let context = GetEntriesContext::empty(false);
        assert_eq!(log.entries(4, 6, None, context).unwrap().len(), 2);
        log.compact(2);
        log.compact(9);
        assert_eq!((log.first_index().unwrap(), log.last()), (4, 5));
    }

    #[test]
    fn a_size_limit_gives_at_least_one_entry() {
        let log = log(5);
        let read = |max: u64| {
            log.entries(1, 6, max, GetEntriesContext::empty(false))
                .unwrap()
                .len()
        };
        assert_eq!((read(0), read(60), read(u64::MAX)), (1, 2, 5));
    }
}

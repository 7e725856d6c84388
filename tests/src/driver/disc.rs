//! A disc in memory: a log, a hard state and the newest snapshot.

use maitred_registry::Loader;
use maitred_replica::{Input, Persist, Recovered, RecoveredSnapshot, TakeSnapshot};
use raft::eraftpb::{ConfState, Entry, HardState};

/// What is durable.
#[derive(Debug, Default, Clone)]
pub struct Disc {
    hard_state: HardState,
    entries: Vec<Entry>,
    start: (u64, u64),
    snapshot: Option<Saved>,
    /// Whether snapshots fail to be written.
    pub full: bool,
}

#[derive(Debug, Clone)]
struct Saved {
    index: u64,
    term: u64,
    conf_state: ConfState,
    chunks: Vec<Vec<u8>>,
}

impl Disc {
    /// The first and the last index of the log.
    #[must_use]
    pub fn log(&self) -> (u64, u64) {
        (self.start.0 + 1, self.start.0 + self.entries.len() as u64)
    }

    /// Loses the last entries, as a disc that lies would.
    pub fn lose_entries(&mut self, count: usize) {
        let left = self.entries.len().saturating_sub(count);
        self.entries.truncate(left);
    }

    pub(super) fn recovered(&self) -> Recovered {
        let snapshot = self.snapshot.as_ref().map(|saved| {
            let mut loader = Loader::new();
            for chunk in &saved.chunks {
                loader.chunk(chunk).expect("a chunk that was written");
            }
            RecoveredSnapshot {
                index: saved.index,
                term: saved.term,
                conf_state: saved.conf_state.clone(),
                registry: loader.finish().expect("all chunks are there"),
            }
        });
        Recovered {
            hard_state: self.hard_state.clone(),
            entries: self.entries.clone(),
            start_index: self.start.0,
            start_term: self.start.1,
            snapshot,
        }
    }

    pub(super) fn persist(&mut self, persist: Persist) -> u64 {
        if let Some(start) = persist.reset {
            self.start = start;
            self.entries.clear();
        }
        if let Some(first) = persist.entries.first() {
            let keep = (first.index - self.start.0 - 1) as usize;
            assert!(keep <= self.entries.len(), "the log has a gap");
            self.entries.truncate(keep);
            self.entries.extend(persist.entries);
        }
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        persist.number
    }

    pub(super) fn save_snapshot(&mut self, take: TakeSnapshot) -> Input {
        let floor = self.snapshot.as_ref().map_or(0, |saved| saved.index);
        if self.full {
            return Input::SnapshotSaved { index: None, floor };
        }
        let mut chunks = Vec::new();
        let encoded = take.state.encode(|chunk| {
            chunks.push(chunk);
            Ok::<(), std::convert::Infallible>(())
        });
        encoded.expect("writing to memory");
        let index = Some(take.index);
        self.snapshot = Some(Saved {
            index: take.index,
            term: take.term,
            conf_state: take.conf_state,
            chunks,
        });
        Input::SnapshotSaved { index, floor }
    }

    pub(super) fn compact(&mut self, index: u64) {
        let cut = index.saturating_sub(self.start.0) as usize;
        if let Some(last) = self.entries.drain(..cut).next_back() {
            self.start = (last.index, last.term);
        }
    }
}

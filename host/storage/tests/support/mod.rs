//! A data directory for a test, and entries that say which ones they are.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};

use maitred_storage::{DataDir, Log, LogOptions, RecoveredLog, StorageError};
use raft::eraftpb::{Entry, HardState};
use tempfile::TempDir;

/// A data directory that goes away with the test.
pub(crate) struct Place {
    root: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        drop(DataDir::create(root.path(), 1).unwrap());
        Self { root }
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn dir(&self) -> DataDir {
        DataDir::open(self.path()).unwrap()
    }

    pub(crate) fn try_log(
        &self,
        options: &LogOptions,
    ) -> Result<(Log, RecoveredLog), StorageError> {
        Log::open(&self.dir(), options)
    }

    pub(crate) fn log(&self) -> (Log, RecoveredLog) {
        self.try_log(&LogOptions::default()).unwrap()
    }

    /// The log's files, oldest first.
    pub(crate) fn log_files(&self) -> Vec<PathBuf> {
        let listed = std::fs::read_dir(self.path().join("raft")).unwrap();
        let mut files: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|end| end == "raftlog"));
        files.sort();
        files
    }
}

/// Entry `index` of `term`, with bytes that say which one it is.
pub(crate) fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let mut state = index ^ (term << 32) ^ 0x9e37_79b9_7f4a_7c15;
    let data: Vec<u8> = (0..bytes)
        .map(|_| {
            state = random(state);
            (state >> 32) as u8 | 1
        })
        .collect();
    Entry {
        index,
        term,
        data: data.into(),
        ..Entry::default()
    }
}

pub(crate) fn entries(
    indices: std::ops::RangeInclusive<u64>,
    term: u64,
    bytes: usize,
) -> Vec<Entry> {
    indices.map(|index| entry(index, term, bytes)).collect()
}

pub(crate) fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState {
        term,
        vote,
        commit,
        ..HardState::default()
    }
}

/// The next of a sequence that a seed determines (xorshift).
pub(crate) fn random(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}

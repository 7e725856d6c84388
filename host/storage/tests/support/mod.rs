//! A data directory for a test, and entries that say which ones they are.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};

use maitred_protocol::{ClusterId, HostName};
use maitred_storage::{
    DataDir, HostIdentity, Log, LogOptions, RecoveredLog, SnapshotMeta, Snapshots, StorageError,
};
use raft::eraftpb::{ConfState, Entry, HardState};
use tempfile::TempDir;

/// A data directory that goes away with the test.
pub(crate) struct Place {
    root: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        drop(DataDir::create(root.path(), &identity(1)).unwrap());
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

/// Copies the files of a folder, as a crash would find them.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// What a snapshot of a group of three is of.
pub(crate) fn meta(index: u64, term: u64) -> SnapshotMeta {
    SnapshotMeta {
        index,
        term,
        conf_state: ConfState {
            voters: vec![1, 2, 3],
            learners: vec![9],
            ..ConfState::default()
        },
        schema: 4,
    }
}

/// A snapshot's content, from which its index can be told.
pub(crate) fn chunks(index: u64) -> Vec<Vec<u8>> {
    (0..5_u8)
        .map(|n| vec![n ^ index as u8; 100 * usize::from(n)])
        .collect()
}

pub(crate) type Loaded = (SnapshotMeta, Vec<Vec<u8>>);

/// The newest snapshot with its chunks.
pub(crate) fn load(snapshots: &Snapshots, log_start: u64) -> Result<Option<Loaded>, StorageError> {
    let mut read = Vec::new();
    let meta = snapshots.latest(log_start, |chunk| {
        read.push(chunk.to_vec());
        Ok::<_, StorageError>(())
    })?;
    Ok(meta.map(|meta| (meta, read)))
}

/// A host of a cluster.
pub(crate) fn identity(host: u64) -> HostIdentity {
    HostIdentity {
        cluster: ClusterId([9; 16]),
        host,
        instance: 77,
        name: HostName::new("eu-1").unwrap(),
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

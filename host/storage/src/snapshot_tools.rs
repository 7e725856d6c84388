//! What is done with the file of a snapshot while no host runs: looking at it, and beginning a new
//! cluster from it.
//!
//! What holds: a file is verified whole before anything is made of it. A restored directory is new,
//! and belongs to one host, the only voter of a cluster of its own. Its log begins beyond anything
//! that the old cluster can have written, in index and in term, so that nothing of the old one is
//! ever taken for newer. A restore that failed leaves no data directory.
//!
//! It must not know what is in a chunk: the caller writes the state anew.

use std::path::Path;

use maitred_protocol::Digest;
use raft::eraftpb::{ConfState, HardState};

use crate::snapshot_file::{SnapshotMeta, SnapshotWriter, Snapshots};
use crate::snapshot_read::{SnapshotReader, Verified, verify};
use crate::{DataDir, HostIdentity, Log, LogOptions, LogStart, StorageError};

/// What a whole snapshot file is.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotInfo {
    /// The index and term it is at, the group's members there, and the version of its content.
    pub meta: SnapshotMeta,
    /// How many chunks it has.
    pub chunks: u64,
    /// How many bytes the file has.
    pub bytes: u64,
    /// The hash that it ends with, which was found to be right.
    pub digest: Digest,
}

/// What becomes of a snapshot that is restored.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Whose the new directory is: a joined host of a new cluster.
    pub identity: HostIdentity,
    /// How far the index is raised; above 0. To be more than the old cluster can have written since.
    pub index_bump: u64,
    /// How far the term is raised; above 0. As the index.
    pub term_bump: u64,
    /// The version of the chunks that are written.
    pub schema: u32,
}

/// Verifies a file to its last byte, and tells what it is.
///
/// # Errors
/// [`StorageError::SnapshotRefused`] when it is no snapshot, or a damaged one;
/// [`StorageError::FormatVersion`], [`StorageError::Io`].
pub fn inspect(file: &Path) -> Result<SnapshotInfo, StorageError> {
    let verified = verify(file).map_err(|error| match error {
        StorageError::SnapshotDamaged { file, what } => {
            StorageError::SnapshotRefused { file, what }
        }
        other => other,
    })?;
    let Verified {
        meta,
        chunks,
        digest,
    } = verified;
    let bytes = file
        .metadata()
        .map_err(StorageError::io("measure", file))?
        .len();
    Ok(SnapshotInfo {
        meta,
        chunks,
        bytes,
        digest,
    })
}

/// Makes a new data directory at `dir` from the snapshot in `file`. `rewrite` is given what the new
/// snapshot is of and the old one to read, and writes the chunks of the new one; whatever is in them
/// of the old index, members or cluster is its to change.
///
/// # Errors
/// As [`inspect`] and [`DataDir::create`]; [`StorageError::SnapshotRefused`] when the raised index
/// or term is out of range; [`StorageError::OutOfOrder`] when the identity is not that of a joined
/// host, or a bump is 0; what `rewrite` returns. Nothing is made then.
pub fn restore<E: From<StorageError>>(
    file: &Path,
    dir: &Path,
    options: &RestoreOptions,
    rewrite: impl FnOnce(&SnapshotMeta, &mut SnapshotReader, &mut SnapshotWriter) -> Result<(), E>,
) -> Result<SnapshotMeta, E> {
    let old = inspect(file)?.meta;
    let meta = raised(file, &old, options)?;
    DataDir::create_with(dir, &options.identity, |made| {
        let mut reader = SnapshotReader::open(file)?;
        let mut writer = Snapshots::open(made)?.begin(&meta)?;
        rewrite(&meta, &mut reader, &mut writer)?;
        writer.finish()?;
        let (mut log, _) = Log::open(made, &LogOptions::default())?;
        let start = LogStart {
            index: meta.index,
            term: meta.term,
        };
        log.reset(start, &HardState::default())?;
        Ok::<_, E>(())
    })?;
    Ok(meta)
}

fn raised(
    file: &Path,
    old: &SnapshotMeta,
    options: &RestoreOptions,
) -> Result<SnapshotMeta, StorageError> {
    let bumped = options.index_bump > 0 && options.term_bump > 0;
    if !bumped || !options.identity.is_joined() {
        let what = format!("a restore with {options:?}");
        return Err(StorageError::OutOfOrder(what));
    }
    let index = old.index.checked_add(options.index_bump);
    let term = old.term.checked_add(options.term_bump);
    // Room to go on from there.
    let in_range = |number: &u64| *number <= u64::MAX / 2;
    let (Some(index), Some(term)) = (index.filter(in_range), term.filter(in_range)) else {
        return Err(StorageError::SnapshotRefused {
            file: file.to_owned(),
            what: format!("index {} or term {} is too high", old.index, old.term),
        });
    };
    Ok(SnapshotMeta {
        index,
        term,
        conf_state: ConfState {
            voters: vec![options.identity.host],
            ..ConfState::default()
        },
        schema: options.schema,
    })
}

//! What can go wrong with a disk, told by what the operator can do about it.
//!
//! Every message names the file or directory and the remedy. A full disk is its own variant because
//! it is the one condition that a host survives: it sheds work and tries again. All others mean that
//! this host must not go on with this directory.

use std::io;
use std::path::{Path, PathBuf};

use maitred_protocol::Digest;

const REMEDY: &str = "restore this host from its peers (new empty data directory, joined under a \
                      new host id), or, without peers, from a backup of the directory";

/// Why a durable operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused. Check permissions, mounts and the disk.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The operation, as an infinitive.
        what: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is no room. Nothing was changed; the operation may be tried again when there is.
    #[error(
        "the disk of {} is full ({} MiB free); make room, or give the host a larger disk",
        path.display(),
        free >> 20
    )]
    DiskFull {
        /// Where room is missing.
        path: PathBuf,
        /// Bytes that were free; 0 when the system said "full" by itself.
        free: u64,
    },
    /// Another host runs on the directory.
    #[error(
        "data directory {} is in use by process {pid}; stop that host, or give this one a \
         directory of its own",
        dir.display()
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// The holder's process id; `unknown` when it did not write it down.
        pid: String,
    },
    /// There is no data directory.
    #[error("{} is not a data directory; create it first, or check the path", dir.display())]
    Missing {
        /// Where one was looked for.
        dir: PathBuf,
    },
    /// A data directory is there already, and was left as it is.
    #[error("{} is a data directory already; give an empty or absent directory", dir.display())]
    Exists {
        /// The data directory.
        dir: PathBuf,
    },
    /// The directory holds something else.
    #[error(
        "{} is not empty and is not a data directory (it holds {entry:?}); give an empty or absent \
         directory",
        dir.display()
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// Something in it that has no place in a data directory.
        entry: String,
    },
    /// Another version of the program wrote the directory.
    #[error(
        "{} says format {found:?}, this program reads format {reads}; run the version of the program \
         that wrote it, or let this host rejoin its group with an empty directory",
        file.display()
    )]
    FormatVersion {
        /// The file.
        file: PathBuf,
        /// The version that it names, or its unreadable text.
        found: String,
        /// The version that this program reads.
        reads: u32,
    },
    /// The file that says whose the directory is does not say it any more.
    #[error("{} is damaged; {REMEDY}", file.display())]
    IdentityDamaged {
        /// The file.
        file: PathBuf,
    },
    /// The log lost something that may have been acknowledged.
    #[error("the log is damaged: {} at byte {offset}: {what}; {REMEDY}", file.display())]
    LogDamaged {
        /// The log's file, or its directory when no single file is at fault.
        file: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A snapshot cannot be read, and no other one does.
    #[error("snapshot {} is damaged: {what}; {REMEDY}", file.display())]
    SnapshotDamaged {
        /// The snapshot's file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A snapshot that came from elsewhere is not what it should be. Nothing of it was taken.
    #[error("snapshot {} is refused: {what}; fetch it again, or use another copy", file.display())]
    SnapshotRefused {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The log begins after an index that no snapshot reaches.
    #[error(
        "the log begins after index {log_start} and {} has no snapshot that reaches it; {REMEDY}",
        dir.display()
    )]
    SnapshotMissing {
        /// Where snapshots are kept.
        dir: PathBuf,
        /// The index after which the log begins.
        log_start: u64,
    },
    /// A module's bytes changed on disk. Remove the file: it is fetched from a peer again.
    #[error("{} is damaged; remove it, it is then fetched from a peer or uploaded again", file.display())]
    BlobDamaged {
        /// The file.
        file: PathBuf,
    },
    /// Recorded inputs changed on disk. What the file has from there on is left out of a replay.
    #[error("{} is damaged at byte {offset}; the decisions recorded after that in it are left out", file.display())]
    InputsDamaged {
        /// The file.
        file: PathBuf,
        /// Where.
        offset: u64,
    },
    /// The bytes given are not those of the digest.
    #[error("the bytes have digest {got}, not {expected}; send them again")]
    DigestMismatch {
        /// What was promised.
        expected: Digest,
        /// What came.
        got: Digest,
    },
    /// Beyond a limit of this crate.
    #[error("{what} of {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The caller broke the order of the log or of a snapshot: a bug of this program.
    #[error("out of order: {0}; this is a bug, please report it")]
    OutOfOrder(String),
}

impl StorageError {
    /// Whether the operation may be tried again once there is room.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }

    /// Makes an error of `map_err`, sorting a full disk from the rest.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| {
            if means_full(&source) {
                Self::DiskFull { path, free: 0 }
            } else {
                Self::Io { what, path, source }
            }
        }
    }
}

/// Whether the system says that there is no room: the disk's, the quota's or the process's limit.
pub(crate) fn means_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

//! Why a snapshot was not fetched, told by whether asking again can help.

use maitred_registry::SnapshotError;
use maitred_storage::StorageError;

use super::wire::CallError;
use crate::snapshot_thread::SCHEMA;

/// Why a try came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The sender, or the way to it.
    #[error(transparent)]
    Call(#[from] CallError),
    /// What came is not what was announced, or this disk does not take it.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file is sound, and its content is not this program's.
    #[error(transparent)]
    Content(#[from] SnapshotError),
    /// Another version of the program wrote it.
    #[error(
        "it has content of version {0}, this program reads version {SCHEMA}: upgrade this host"
    )]
    Schema(u32),
    /// It is not the one that was announced.
    #[error("it is of index {index} and term {term}, which is not what was announced")]
    Another {
        /// What it says.
        index: u64,
        /// What it says.
        term: u64,
    },
    /// A part of this host was broken off.
    #[error("{0}")]
    Broken(String),
}

impl FetchError {
    /// Whether asking again cannot help.
    pub(super) fn is_final(&self) -> bool {
        match self {
            // It has a newer one by now, and says so through Raft.
            Self::Call(CallError::NotFound | CallError::Refused(_) | CallError::Unfit) => true,
            Self::Call(_) => false,
            Self::Storage(error) => !matches!(
                error,
                StorageError::SnapshotRefused { .. } | StorageError::DiskFull { .. }
            ),
            Self::Content(_) | Self::Schema(_) | Self::Another { .. } | Self::Broken(_) => true,
        }
    }

    /// Whether what came was wrong, and not the way that it came.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Storage(StorageError::SnapshotRefused { .. }))
    }
}

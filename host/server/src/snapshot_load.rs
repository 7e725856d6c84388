//! From the file of a snapshot to a registry in memory, for whoever has the file.
//!
//! Holds: content of another version is not tried. It must not know where the file came from, nor
//! what becomes of the registry.

use maitred_registry::{Loader, Registry, SnapshotError};
use maitred_storage::{SnapshotReader, StorageError};

use crate::snapshot_thread::SCHEMA;

/// Reads a snapshot to its end. Takes as much memory as a host with that state.
///
/// # Errors
/// What `other_version` makes of the content's version when it is another one than this program's;
/// what is wrong with the file or its content.
pub(crate) fn load<E: From<StorageError> + From<SnapshotError>>(
    reader: &mut SnapshotReader,
    other_version: impl FnOnce(u32) -> E,
) -> Result<Registry, E> {
    let found = reader.meta().schema;
    if found != SCHEMA {
        return Err(other_version(found));
    }
    let mut loader = Loader::new();
    for chunk in reader {
        loader.chunk(&chunk?)?;
    }
    Ok(loader.finish()?)
}

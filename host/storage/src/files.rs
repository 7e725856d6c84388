//! The few file operations that durability is made of.
//!
//! A file that appears under its final name is complete and durable: it was written under a
//! temporary name, synced, renamed, and its directory synced. Whoever opens a directory removes the
//! temporary files that a crash left.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::StorageError;

/// How the name of an unfinished file ends.
pub(crate) const TEMPORARY: &str = ".tmp";

/// The temporary name of `path`.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    PathBuf::from(name)
}

/// Makes names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(StorageError::io("sync", dir))
}

/// Gives a synced temporary file its final name, durably.
pub(crate) fn publish(temporary: &Path, path: &Path) -> Result<(), StorageError> {
    fs::rename(temporary, path).map_err(StorageError::io("rename", temporary))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Writes a whole small file: it is there with all its bytes, or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let unfinished = temporary(path);
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written {
        // The write failed and says so; a leftover is removed at the next start anyway.
        let _ = fs::remove_file(&unfinished);
        return Err(StorageError::io("write", &unfinished)(error));
    }
    publish(&unfinished, path)
}

/// Names of the files in `dir`.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, StorageError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(StorageError::io("list", dir))? {
        let entry = entry.map_err(StorageError::io("list", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// Bytes that the files in `dir` have.
pub(crate) fn total_bytes(dir: &Path) -> Result<u64, StorageError> {
    let sizes = names(dir)?.into_iter().map(|name| {
        let path = dir.join(name);
        let meta = path.metadata();
        meta.map(|meta| meta.len())
            .map_err(StorageError::io("measure", &path))
    });
    sizes.sum()
}

/// Removes a file, unless somebody else did.
pub(crate) fn remove(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(StorageError::io("remove", path)),
    }
}

/// Removes what crashes left unfinished in `dir`.
pub(crate) fn remove_temporary(dir: &Path) -> Result<(), StorageError> {
    for name in names(dir)? {
        if name.ends_with(TEMPORARY) {
            remove(&dir.join(name))?;
        }
    }
    Ok(())
}

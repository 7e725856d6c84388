//! Snapshots: chunks of opaque bytes in one file, of which two are kept.
//!
//! ```text
//! header   "MTRDSNAP", u32 format, u32 length of what follows without its checksum:
//!          u64 index, u64 term, u32 schema, conf state (eraftpb), then u32 crc32c of all before
//! chunk    u32 length, u32 crc32c, bytes; as many as there are
//! footer   u32 0xffff_ffff, u64 number of chunks, blake3 of everything before the hash
//! ```
//! Integers are little-endian. A file that has its final name is complete and synced. Loading
//! verifies the whole file before it gives out the first chunk, so a damaged one is never half
//! loaded. When the newest is damaged, the older one serves, provided that the log still leads on
//! from it: this is why the log is cut at [`Snapshots::compact_floor`] only.
//!
//! It must not know what is in a chunk.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use raft::eraftpb::ConfState;

use crate::snapshot_read::{SnapshotReader, encode_header, verify};
use crate::space::{Space, SpaceLimits, SpaceMonitor, SpaceProbe};
use crate::{DataDir, StorageError, files};

/// Bytes that a chunk may have.
pub const CHUNK_BYTES_MAX: usize = 64 << 20;
/// Bytes that a snapshot leaves to the log: one that does not fit must not take the log's last room.
pub const LEAVE_BYTES: u64 = 16 << 20;
/// How many snapshots are kept.
const KEPT: usize = 2;

const SUFFIX: &str = ".snap";
const DAMAGED: &str = ".damaged";
pub(crate) const FOOTER: u32 = u32::MAX;

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SnapshotMeta {
    /// The last entry that is in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// Members of the group at that entry.
    pub conf_state: ConfState,
    /// Version of the chunks' content, given back as it was.
    pub schema: u32,
}

/// The snapshots of a data directory. Clones are the same snapshots.
#[derive(Debug, Clone)]
pub struct Snapshots {
    pub(crate) dir: PathBuf,
}

impl Snapshots {
    /// Opens the store, and removes what a crash left unfinished.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn open(dir: &DataDir) -> Result<Self, StorageError> {
        let dir = dir.snap();
        files::remove_temporary(&dir)?;
        let opened = Self { dir };
        opened.remove_stale_parts()?;
        Ok(opened)
    }

    /// Writes a snapshot, durable when it returns, and removes all but the newest two.
    ///
    /// # Errors
    /// As [`Snapshots::begin`] and [`SnapshotWriter::chunk`].
    pub fn save(
        &self,
        meta: &SnapshotMeta,
        chunks: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<PathBuf, StorageError> {
        let mut writer = self.begin(meta)?;
        for chunk in chunks {
            writer.chunk(&chunk)?;
        }
        writer.finish()
    }

    /// Begins a snapshot that is written chunk by chunk. Two of one index at once must not happen.
    ///
    /// # Errors
    /// [`StorageError::OutOfOrder`] when a newer one is there, [`StorageError::DiskFull`],
    /// [`StorageError::Io`].
    pub fn begin(&self, meta: &SnapshotMeta) -> Result<SnapshotWriter, StorageError> {
        let newest = self.newest_index()?;
        if meta.index < newest || meta.index == 0 {
            return Err(StorageError::OutOfOrder(format!(
                "snapshot at index {} after one at {newest}",
                meta.index
            )));
        }
        let path = self.path(meta.index);
        let unfinished = files::temporary(&path);
        let file = File::create(&unfinished).map_err(StorageError::io("create", &unfinished))?;
        let limits = SpaceLimits {
            low_bytes: 0,
            low_percent: 0,
            full_bytes: LEAVE_BYTES,
        };
        let mut writer = SnapshotWriter {
            snapshots: self.clone(),
            path,
            unfinished,
            out: BufWriter::with_capacity(1 << 20, file),
            space: SpaceMonitor::new(&self.dir, SpaceProbe::default(), limits),
            hash: blake3::Hasher::new(),
            chunks: 0,
            published: false,
        };
        writer.put(&encode_header(meta)?)?;
        Ok(writer)
    }

    /// Reads the newest snapshot that is whole and that the log leads on from, chunk by chunk; none
    /// when there is no snapshot and the log needs none. `log_start` is [`crate::LogStart::index`].
    /// A damaged one is renamed `*.damaged`, for the operator to look at.
    ///
    /// # Errors
    /// [`StorageError::SnapshotDamaged`] when the newest is damaged and no older one serves,
    /// [`StorageError::SnapshotMissing`] when the log needs one, and what `on_chunk` returns.
    pub fn latest<E: From<StorageError>>(
        &self,
        log_start: u64,
        mut on_chunk: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Option<SnapshotMeta>, E> {
        let mut damage = None;
        for index in self.indices()?.into_iter().rev() {
            if index < log_start {
                break;
            }
            let path = self.path(index);
            match verify(&path) {
                Ok(_) => {
                    if damage.is_some() {
                        self.put_aside(index)?;
                    }
                    let mut reader = SnapshotReader::open(&path)?;
                    for chunk in &mut reader {
                        on_chunk(&chunk?)?;
                    }
                    return Ok(Some(reader.meta));
                }
                Err(error @ StorageError::SnapshotDamaged { .. }) => {
                    damage.get_or_insert(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        match damage {
            Some(error) => Err(error.into()),
            None if log_start > 0 => Err(StorageError::SnapshotMissing {
                dir: self.dir.clone(),
                log_start,
            }
            .into()),
            None => Ok(None),
        }
    }

    /// The snapshot at `index`, for sending it to a peer. It may be read to its end even when newer
    /// ones replace it meanwhile. None when there is no such one.
    ///
    /// # Errors
    /// [`StorageError::SnapshotDamaged`], [`StorageError::FormatVersion`], [`StorageError::Io`].
    pub fn read(&self, index: u64) -> Result<Option<SnapshotReader>, StorageError> {
        let path = self.path(index);
        if !path.exists() {
            return Ok(None);
        }
        SnapshotReader::open(&path).map(Some)
    }

    /// Index of the newest snapshot; 0 when there is none.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn newest_index(&self) -> Result<u64, StorageError> {
        Ok(self.indices()?.last().copied().unwrap_or(0))
    }

    /// Up to where the log may be cut: the index of the older of two snapshots; 0 with fewer.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn compact_floor(&self) -> Result<u64, StorageError> {
        let indices = self.indices()?;
        let older = indices
            .len()
            .checked_sub(KEPT)
            .and_then(|at| indices.get(at));
        Ok(older.copied().unwrap_or(0))
    }

    pub(crate) fn path(&self, index: u64) -> PathBuf {
        self.dir.join(format!("{index:020}{SUFFIX}"))
    }

    /// Ascending.
    fn indices(&self) -> Result<Vec<u64>, StorageError> {
        let names = files::names(&self.dir)?;
        let named = |name: &String| {
            let index = name.strip_suffix(SUFFIX)?.parse().ok()?;
            // A copy that a person named by hand is not ours to load, nor to remove.
            (self.dir.join(name) == self.path(index)).then_some(index)
        };
        Ok(names.iter().filter_map(named).collect())
    }

    /// Renames the snapshots above `index`, so that they no longer count.
    fn put_aside(&self, index: u64) -> Result<(), StorageError> {
        for above in self.indices()?.into_iter().filter(|&above| above > index) {
            let path = self.path(above);
            let aside = path.with_extension(format!("snap{DAMAGED}"));
            fs::rename(&path, aside).map_err(StorageError::io("rename", &path))?;
        }
        files::sync_dir(&self.dir)
    }

    /// Removes all but the newest two, and those put aside: there is a good one now.
    pub(crate) fn prune(&self) -> Result<(), StorageError> {
        let indices = self.indices()?;
        let old = indices.len().saturating_sub(KEPT);
        let mut doomed: Vec<PathBuf> = indices[..old].iter().map(|&i| self.path(i)).collect();
        let names = files::names(&self.dir)?;
        let aside = names.iter().filter(|name| name.ends_with(DAMAGED));
        doomed.extend(aside.map(|name| self.dir.join(name)));
        for path in doomed {
            files::remove(&path)?;
        }
        Ok(())
    }
}

/// A snapshot being written. Dropped before [`SnapshotWriter::finish`], it is removed.
#[derive(Debug)]
pub struct SnapshotWriter {
    snapshots: Snapshots,
    path: PathBuf,
    unfinished: PathBuf,
    out: BufWriter<File>,
    space: SpaceMonitor,
    hash: blake3::Hasher,
    chunks: u64,
    published: bool,
}

impl SnapshotWriter {
    /// Adds a chunk.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] beyond [`CHUNK_BYTES_MAX`], [`StorageError::DiskFull`],
    /// [`StorageError::Io`].
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(StorageError::TooLarge {
                what: "snapshot chunk",
                bytes: bytes.len() as u64,
                limit: CHUNK_BYTES_MAX as u64,
            });
        }
        self.space.wrote(bytes.len() as u64);
        if let Space::Full { free } = self.space.check()? {
            return Err(StorageError::DiskFull {
                path: self.snapshots.dir.clone(),
                free,
            });
        }
        self.put(&(bytes.len() as u32).to_le_bytes())?;
        self.put(&crc32c::crc32c(bytes).to_le_bytes())?;
        self.put(bytes)?;
        self.chunks += 1;
        Ok(())
    }

    /// Makes the snapshot durable under its name, and removes older ones.
    ///
    /// # Errors
    /// [`StorageError::DiskFull`], [`StorageError::Io`].
    pub fn finish(mut self) -> Result<PathBuf, StorageError> {
        self.put(&FOOTER.to_le_bytes())?;
        self.put(&self.chunks.to_le_bytes())?;
        let hash = self.hash.finalize();
        self.put(hash.as_bytes())?;
        self.out
            .flush()
            .and_then(|()| self.out.get_ref().sync_all())
            .map_err(StorageError::io("write", &self.unfinished))?;
        files::publish(&self.unfinished, &self.path)?;
        self.published = true;
        self.snapshots.prune()?;
        Ok(self.path.clone())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.hash.update(bytes);
        self.out
            .write_all(bytes)
            .map_err(StorageError::io("write", &self.unfinished))
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.published {
            // What stays is removed at the next start.
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

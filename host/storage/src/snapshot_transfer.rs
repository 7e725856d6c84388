//! The file of a snapshot on its way from one host to another.
//!
//! What holds: a file that was opened for sending stays readable, though newer ones replace it. What
//! is received grows in a part, `index-digest.part`, which outlives a lost connection and a restart;
//! it becomes a snapshot only when it is whole, is the one that was offered, and is durable. Bytes
//! are written where they belong, so the same ones twice do no harm, and a part that a power failure
//! left with holes is found by its hash.
//!
//! It must not know how the bytes travel, how fast, nor what is in a chunk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use maitred_protocol::Digest;
use maitred_protocol::limits::SNAPSHOT_BYTES_MAX;

use crate::snapshot_file::{LEAVE_BYTES, SnapshotMeta, Snapshots};
use crate::snapshot_read::{SnapshotReader, Verified, verify};
use crate::space::{Space, SpaceLimits, SpaceMonitor, SpaceProbe};
use crate::{StorageError, files};

const PART: &str = ".part";
const DIGEST_BYTES: u64 = 32;

/// What a part's name says: the index and the digest of what it is to become.
type Part = (u64, Digest);

/// Which file one host offers another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotOffer {
    /// The last entry that is in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// How many bytes the file has; at most [`SNAPSHOT_BYTES_MAX`].
    pub bytes: u64,
    /// The hash that the file ends with: the blake3 of everything before it.
    pub digest: Digest,
}

/// The file of a snapshot, open for sending.
#[derive(Debug)]
pub struct SnapshotFile {
    file: File,
    path: PathBuf,
    meta: SnapshotMeta,
    bytes: u64,
    digest: Digest,
}

impl SnapshotFile {
    /// What is to be said of it to the host that fetches it.
    #[must_use]
    pub fn offer(&self) -> SnapshotOffer {
        SnapshotOffer {
            index: self.meta.index,
            term: self.meta.term,
            bytes: self.bytes,
            digest: self.digest,
        }
    }

    /// What the snapshot is of.
    #[must_use]
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Reads from byte `offset` of the file on: as much as `buffer` takes, less at the end, nothing
    /// beyond it. What is read is not verified; the receiver does that.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        if offset >= self.bytes {
            return Ok(0);
        }
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StorageError::io("read", &self.path)(error)),
            }
        }
        Ok(filled)
    }
}

/// A snapshot that is being fetched. Dropped, its part stays, to go on with.
#[derive(Debug)]
pub struct SnapshotReceiver {
    snapshots: Snapshots,
    offer: SnapshotOffer,
    file: File,
    part: PathBuf,
    offset: u64,
    space: SpaceMonitor,
}

impl SnapshotReceiver {
    /// How many bytes are there: those from here on are wanted next.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether all bytes are there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.offset == self.offer.bytes
    }

    /// Adds the bytes that follow.
    ///
    /// # Errors
    /// [`StorageError::SnapshotRefused`] when they are more than were offered: the part is removed.
    /// [`StorageError::DiskFull`], [`StorageError::Io`]: the part stays.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let length = bytes.len() as u64;
        if length > self.offer.bytes - self.offset {
            let what = format!("more than the {} bytes that were offered", self.offer.bytes);
            return Err(self.refuse(what));
        }
        self.space.wrote(length);
        if let Space::Full { free } = self.space.check()? {
            return Err(StorageError::DiskFull {
                path: self.snapshots.dir.clone(),
                free,
            });
        }
        self.file
            .write_all_at(bytes, self.offset)
            .map_err(StorageError::io("write", &self.part))?;
        self.offset += length;
        Ok(())
    }

    /// Checks every byte, and makes the snapshot durable under its name; older ones are then removed.
    ///
    /// # Errors
    /// [`StorageError::SnapshotRefused`] when it was cut short or altered, is not what was offered,
    /// or a newer one is there meanwhile; [`StorageError::FormatVersion`] when another version wrote
    /// it: the part is removed. [`StorageError::DiskFull`], [`StorageError::Io`]: the part stays.
    pub fn finish(self) -> Result<SnapshotMeta, StorageError> {
        if !self.is_complete() {
            let (got, whole) = (self.offset, self.offer.bytes);
            return Err(self.refuse(format!("{got} of {whole} bytes came")));
        }
        if self.snapshots.newest_index()? > self.offer.index {
            return Err(self.refuse("a newer one is there".to_owned()));
        }
        self.file
            .sync_all()
            .map_err(StorageError::io("sync", &self.part))?;
        let Verified { meta, digest, .. } = match verify(&self.part) {
            Ok(verified) => verified,
            Err(StorageError::SnapshotDamaged { what, .. }) => return Err(self.refuse(what)),
            Err(error @ StorageError::FormatVersion { .. }) => {
                files::remove(&self.part)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let offer = &self.offer;
        if (meta.index, meta.term, digest) != (offer.index, offer.term, offer.digest) {
            return Err(self.refuse("it is not the one that was offered".to_owned()));
        }
        files::publish(&self.part, &self.snapshots.path(meta.index))?;
        self.snapshots.prune()?;
        Ok(meta)
    }

    fn refuse(&self, what: String) -> StorageError {
        if let Err(error) = files::remove(&self.part) {
            return error;
        }
        StorageError::SnapshotRefused {
            file: self.part.clone(),
            what,
        }
    }
}

impl Snapshots {
    /// Opens the file of the snapshot at `index`, for sending it; none when there is no such one.
    ///
    /// # Errors
    /// [`StorageError::SnapshotDamaged`], [`StorageError::FormatVersion`], [`StorageError::Io`].
    pub fn open_file(&self, index: u64) -> Result<Option<SnapshotFile>, StorageError> {
        let path = self.path(index);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("open", &path)(error)),
        };
        let again = file.try_clone().map_err(StorageError::io("open", &path))?;
        let meta = SnapshotReader::of(again, &path)?.meta;
        let bytes = file
            .metadata()
            .map_err(StorageError::io("measure", &path))?
            .len();
        let mut hash = [0; DIGEST_BYTES as usize];
        // The header, which was read, is longer than the hash.
        file.read_exact_at(&mut hash, bytes.saturating_sub(DIGEST_BYTES))
            .map_err(StorageError::io("read", &path))?;
        Ok(Some(SnapshotFile {
            file,
            path,
            meta,
            bytes,
            digest: Digest(hash),
        }))
    }

    /// Reads the whole snapshot at `index`: for a host whose copy another one refused.
    ///
    /// # Errors
    /// As [`Snapshots::open_file`].
    pub fn verify(&self, index: u64) -> Result<(), StorageError> {
        verify(&self.path(index)).map(drop)
    }

    /// What a former transfer left of the snapshot at `index`: its digest, and how many bytes.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn partial(&self, index: u64) -> Result<Option<(Digest, u64)>, StorageError> {
        for (name, part) in self.parts()? {
            if let Some((found, digest)) = part
                && found == index
            {
                let path = self.dir.join(name);
                let meta = path
                    .metadata()
                    .map_err(StorageError::io("measure", &path))?;
                return Ok(Some((digest, meta.len())));
            }
        }
        Ok(None)
    }

    /// Begins to fetch a snapshot, or goes on where the same one stopped. Parts of others are
    /// removed: one is fetched at a time.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] beyond [`SNAPSHOT_BYTES_MAX`]; [`StorageError::SnapshotRefused`]
    /// when a newer one is there; [`StorageError::DiskFull`], [`StorageError::Io`].
    pub fn receive(&self, offer: SnapshotOffer) -> Result<SnapshotReceiver, StorageError> {
        if offer.bytes > SNAPSHOT_BYTES_MAX {
            return Err(StorageError::TooLarge {
                what: "snapshot",
                bytes: offer.bytes,
                limit: SNAPSHOT_BYTES_MAX,
            });
        }
        let newest = self.newest_index()?;
        if offer.index < newest || offer.index == 0 {
            return Err(StorageError::SnapshotRefused {
                file: self.path(offer.index),
                what: format!("one at {newest} is there"),
            });
        }
        let mine = (offer.index, offer.digest);
        self.remove_parts(|part| part != Some(mine))?;
        let part = self.dir.join(part_name(offer.index, offer.digest));
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part);
        let file = opened.map_err(StorageError::io("open", &part))?;
        let measured = file.metadata();
        let mut offset = measured.map_err(StorageError::io("measure", &part))?.len();
        if offset > offer.bytes {
            file.set_len(0).map_err(StorageError::io("empty", &part))?;
            offset = 0;
        }
        let limits = SpaceLimits {
            low_bytes: 0,
            low_percent: 0,
            full_bytes: LEAVE_BYTES,
        };
        Ok(SnapshotReceiver {
            space: SpaceMonitor::new(&self.dir, SpaceProbe::default(), limits),
            snapshots: self.clone(),
            offer,
            file,
            part,
            offset,
        })
    }

    /// Removes parts that no transfer will go on with, as there is a snapshot as new.
    pub(crate) fn remove_stale_parts(&self) -> Result<(), StorageError> {
        let newest = self.newest_index()?;
        self.remove_parts(|part| part.is_none_or(|(index, _)| index <= newest))
    }

    fn remove_parts(&self, stale: impl Fn(Option<Part>) -> bool) -> Result<(), StorageError> {
        for (name, part) in self.parts()? {
            if stale(part) {
                files::remove(&self.dir.join(name))?;
            }
        }
        Ok(())
    }

    /// The names of all parts, and what they say.
    fn parts(&self) -> Result<Vec<(String, Option<Part>)>, StorageError> {
        let mut names = files::names(&self.dir)?;
        names.retain(|name| name.ends_with(PART));
        let read = |name: String| {
            let part = read_part_name(&name);
            (name, part)
        };
        Ok(names.into_iter().map(read).collect())
    }
}

fn part_name(index: u64, digest: Digest) -> String {
    format!("{index:020}-{digest}{PART}")
}

fn read_part_name(name: &str) -> Option<Part> {
    let (index, digits) = name.strip_suffix(PART)?.split_once('-')?;
    let mut digest = [0; DIGEST_BYTES as usize];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    let part = (index.parse().ok()?, Digest(digest));
    (part_name(part.0, part.1) == name).then_some(part)
}

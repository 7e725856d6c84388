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
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use protobuf::Message as _;
use raft::eraftpb::ConfState;

use crate::data_dir::FORMAT_VERSION;
use crate::{DataDir, StorageError, files};

/// Bytes that a chunk may have.
pub const CHUNK_BYTES_MAX: usize = 64 << 20;
/// Bytes that a header may have: index, term, schema and the members of the group.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// How many snapshots are kept.
const KEPT: usize = 2;

const MAGIC: &[u8; 8] = b"MTRDSNAP";
const SUFFIX: &str = ".snap";
const DAMAGED: &str = ".damaged";
const FOOTER: u32 = u32::MAX;

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
    dir: PathBuf,
}

impl Snapshots {
    /// Opens the store, and removes what a crash left unfinished.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn open(dir: &DataDir) -> Result<Self, StorageError> {
        let dir = dir.snap();
        files::remove_temporary(&dir)?;
        Ok(Self { dir })
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
        let mut writer = SnapshotWriter {
            snapshots: self.clone(),
            path,
            unfinished,
            out: BufWriter::with_capacity(1 << 20, file),
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
                Ok(()) => {
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

    fn path(&self, index: u64) -> PathBuf {
        self.dir.join(format!("{index:020}{SUFFIX}"))
    }

    /// Ascending.
    fn indices(&self) -> Result<Vec<u64>, StorageError> {
        let names = files::names(&self.dir)?;
        Ok(names
            .iter()
            .filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok())
            .collect())
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
    fn prune(&self) -> Result<(), StorageError> {
        let indices = self.indices()?;
        let old = indices.len().saturating_sub(KEPT);
        let mut doomed: Vec<PathBuf> = indices[..old].iter().map(|&i| self.path(i)).collect();
        let names = files::names(&self.dir)?;
        let aside = names.iter().filter(|name| name.ends_with(DAMAGED));
        doomed.extend(aside.map(|name| self.dir.join(name)));
        for path in doomed {
            fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
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

/// Reads a snapshot, chunk by chunk; an error ends it. Each chunk's checksum is verified, the
/// file's hash when the end is reached.
#[derive(Debug)]
pub struct SnapshotReader {
    input: Hashing,
    path: PathBuf,
    meta: SnapshotMeta,
    chunks: u64,
    done: bool,
}

impl SnapshotReader {
    fn open(path: &Path) -> Result<Self, StorageError> {
        let file = File::open(path).map_err(StorageError::io("open", path))?;
        let mut input = Hashing {
            inner: BufReader::with_capacity(1 << 20, file),
            hash: blake3::Hasher::new(),
        };
        let meta = decode_header(&mut input, path)?;
        Ok(Self {
            input,
            path: path.to_owned(),
            meta,
            chunks: 0,
            done: false,
        })
    }

    /// What the snapshot is of.
    #[must_use]
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, StorageError> {
        let path = &self.path;
        let length = u32::from_le_bytes(self.input.array(path)?);
        if length == FOOTER {
            return self.check_footer().map(|()| None);
        }
        if length as usize > CHUNK_BYTES_MAX {
            return Err(damaged(path, format!("a chunk of {length} bytes")));
        }
        let sum = u32::from_le_bytes(self.input.array(path)?);
        let chunk = self.input.bytes(length as usize, path)?;
        if crc32c::crc32c(&chunk) != sum {
            let what = format!("chunk {} does not match its checksum", self.chunks);
            return Err(damaged(path, what));
        }
        self.chunks += 1;
        Ok(Some(chunk))
    }

    fn check_footer(&mut self) -> Result<(), StorageError> {
        let path = &self.path;
        let chunks = u64::from_le_bytes(self.input.array(path)?);
        let hash = self.input.hash.finalize();
        let recorded: [u8; 32] = self.input.array(path)?;
        let more = self.input.inner.read(&mut [0]);
        let more = more.map_err(StorageError::io("read", path))?;
        if chunks != self.chunks || hash != recorded || more != 0 {
            return Err(damaged(path, "its hash does not match".to_owned()));
        }
        Ok(())
    }
}

impl Iterator for SnapshotReader {
    type Item = Result<Vec<u8>, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_chunk().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// A file, hashed as it is read.
#[derive(Debug)]
struct Hashing {
    inner: BufReader<File>,
    hash: blake3::Hasher,
}

impl Hashing {
    fn bytes(&mut self, length: usize, path: &Path) -> Result<Vec<u8>, StorageError> {
        // Not allocated in advance: a damaged length is found by the end of the file.
        let mut bytes = Vec::new();
        let read = (&mut self.inner)
            .take(length as u64)
            .read_to_end(&mut bytes);
        if read.map_err(StorageError::io("read", path))? < length {
            return Err(damaged(path, "it ends early".to_owned()));
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, path: &Path) -> Result<[u8; N], StorageError> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                damaged(path, "it ends early".to_owned())
            } else {
                StorageError::io("read", path)(error)
            }
        })?;
        self.hash.update(&bytes);
        Ok(bytes)
    }
}

/// Reads a snapshot to its end.
fn verify(path: &Path) -> Result<(), StorageError> {
    SnapshotReader::open(path)?.try_for_each(|chunk| chunk.map(drop))
}

fn damaged(path: &Path, what: String) -> StorageError {
    StorageError::SnapshotDamaged {
        file: path.to_owned(),
        what,
    }
}

fn encode_header(meta: &SnapshotMeta) -> Result<Vec<u8>, StorageError> {
    let members = meta.conf_state.write_to_bytes().unwrap_or_default();
    let length = 20 + members.len();
    if length > HEADER_BYTES_MAX {
        return Err(StorageError::TooLarge {
            what: "snapshot header",
            bytes: length as u64,
            limit: HEADER_BYTES_MAX as u64,
        });
    }
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    header.extend_from_slice(&(length as u32).to_le_bytes());
    header.extend_from_slice(&meta.index.to_le_bytes());
    header.extend_from_slice(&meta.term.to_le_bytes());
    header.extend_from_slice(&meta.schema.to_le_bytes());
    header.extend_from_slice(&members);
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    Ok(header)
}

fn decode_header(input: &mut Hashing, path: &Path) -> Result<SnapshotMeta, StorageError> {
    let bad = |what: &str| damaged(path, what.to_owned());
    let front: [u8; 16] = input.array(path)?;
    let (magic, numbers) = front.split_at(8);
    let (version, length) = numbers.split_at(4);
    if magic != MAGIC {
        return Err(bad("it is not a snapshot"));
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    let (version, length) = (number(version), number(length) as usize);
    if !(20..=HEADER_BYTES_MAX).contains(&length) {
        return Err(bad("its header has an impossible length"));
    }
    let body = input.bytes(length, path)?;
    let sum = u32::from_le_bytes(input.array(path)?);
    if crc32c::crc32c_append(crc32c::crc32c(&front), &body) != sum {
        return Err(bad("its header does not match its checksum"));
    }
    // After the checksum: only an intact header says that another version wrote it.
    if version != u64::from(FORMAT_VERSION) {
        return Err(StorageError::FormatVersion {
            file: path.to_owned(),
            found: version.to_string(),
        });
    }
    let (fixed, members) = body.split_at(20);
    let conf_state = ConfState::parse_from_bytes(members).map_err(|_| bad("bad conf state"))?;
    Ok(SnapshotMeta {
        index: number(&fixed[..8]),
        term: number(&fixed[8..16]),
        schema: number(&fixed[16..]) as u32,
        conf_state,
    })
}

//! The bytes of a snapshot's header, and reading one: nothing is believed before its checksum is.
//!
//! It must not know which snapshots are kept, nor what is in a chunk. The format is described in
//! [`crate::snapshot_file`].

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use maitred_protocol::Digest;
use protobuf::Message as _;
use raft::eraftpb::ConfState;

use crate::StorageError;
use crate::snapshot_file::{CHUNK_BYTES_MAX, FOOTER, SnapshotMeta};

/// Bytes that a header may have: index, term, schema and the members of the group.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// The format of the files that this program writes and reads.
const SNAPSHOT_FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"MTRDSNAP";

/// Reads a snapshot, chunk by chunk; an error ends it. Each chunk's checksum is verified, the
/// file's hash when the end is reached.
#[derive(Debug)]
pub struct SnapshotReader {
    input: Hashing,
    path: PathBuf,
    pub(crate) meta: SnapshotMeta,
    chunks: u64,
    /// Known at the end: the hash of everything before it, verified.
    pub(crate) digest: Option<Digest>,
    done: bool,
}

impl SnapshotReader {
    /// Opens the file of a snapshot, and reads its header. The chunks are read as they are asked for:
    /// what has come of them is certain only once the end has been reached without an error.
    ///
    /// # Errors
    /// [`StorageError::SnapshotDamaged`] when it is no snapshot, or its header is damaged;
    /// [`StorageError::FormatVersion`], [`StorageError::Io`].
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let file = File::open(path).map_err(StorageError::io("open", path))?;
        Self::of(file, path)
    }

    /// Reads `file`, which is at its beginning.
    pub(crate) fn of(file: File, path: &Path) -> Result<Self, StorageError> {
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
            digest: None,
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
        let hash = *self.input.hash.finalize().as_bytes();
        let recorded: [u8; 32] = self.input.array(path)?;
        let more = self.input.inner.read(&mut [0]);
        let more = more.map_err(StorageError::io("read", path))?;
        if chunks != self.chunks || hash != recorded || more != 0 {
            return Err(damaged(path, "its hash does not match".to_owned()));
        }
        self.digest = Some(Digest(hash));
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

/// What a whole snapshot file is.
pub(crate) struct Verified {
    pub(crate) meta: SnapshotMeta,
    pub(crate) chunks: u64,
    pub(crate) digest: Digest,
}

/// Reads a snapshot to its end.
pub(crate) fn verify(path: &Path) -> Result<Verified, StorageError> {
    let mut reader = SnapshotReader::open(path)?;
    reader.try_for_each(|chunk| chunk.map(drop))?;
    let digest = reader.digest;
    Ok(Verified {
        digest: digest.ok_or_else(|| damaged(path, "it has no end".to_owned()))?,
        chunks: reader.chunks,
        meta: reader.meta,
    })
}

fn damaged(path: &Path, what: String) -> StorageError {
    StorageError::SnapshotDamaged {
        file: path.to_owned(),
        what,
    }
}

pub(crate) fn encode_header(meta: &SnapshotMeta) -> Result<Vec<u8>, StorageError> {
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
    header.extend_from_slice(&SNAPSHOT_FORMAT.to_le_bytes());
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
    if version != u64::from(SNAPSHOT_FORMAT) {
        return Err(StorageError::FormatVersion {
            file: path.to_owned(),
            found: version.to_string(),
            reads: SNAPSHOT_FORMAT,
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

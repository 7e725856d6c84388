//! Verifies the log's files before the engine reads them, and decides what a broken record means.
//!
//! The engine by itself cuts its last file at the first broken record, whatever follows, and finds a
//! flipped bit in an entry only when the entry is read. Here every record of every file is checked
//! first. What is known about a crash decides the rest: the log has one writer, which writes a record
//! only once the one before is durable, into files that are new and read as zeros beyond their end.
//! So a crash can leave **one** incomplete record, the last one, and what is missing of it is absent
//! or reads as zeros, a sector or more of it, or everything from some byte on.
//!
//! - **Torn**: the broken record is the last one, and a part of it is missing in that way. Nobody was
//!   told that it is durable. It is cut off and reported.
//! - **Damaged**: anything else: a valid record follows, or all of its bytes are there and are wrong.
//!   It may have been acknowledged, and a replica that forgets what it acknowledged breaks the
//!   group's promises. Opening is refused; for the last record (where only the operator can know that
//!   no peer relied on it) there is an option to cut it all the same.
//!
//! What this cannot see: a file that was cut exactly between two records, and durable sectors at the
//! end that later became zeros.
//!
//! Format (raft-engine's version 2): a file header; records of `u64be length << 8` (the low
//! byte would name a compression, which we leave off), `u64be footer offset`, entries and their crc32, footer and its crc32 xor the file's
//! number. It must not know what entries mean.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use crate::{StorageError, files};

const FILE_MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
/// Magic, version, alignment.
const FILE_HEADER_BYTES: u64 = FILE_MAGIC.len() as u64 + 16;
const HEADER_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// A record ends with a checksum, so this many zeros at its end are missing bytes.
const ZEROS_AT_END: usize = 5;

/// A record that a crash left incomplete, and that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The log's file.
    pub file: PathBuf,
    /// Where the record began, in bytes.
    pub offset: u64,
    /// How many bytes of it had been written.
    pub bytes: u64,
}

/// Verifies all files of the log in `dir`, and cuts what a crash left incomplete.
///
/// # Errors
/// [`StorageError::LogDamaged`] when something that may have been acknowledged is lost.
pub(crate) fn verify(dir: &Path, accept_damaged_tail: bool) -> Result<Vec<TornTail>, StorageError> {
    let mut torn = Vec::new();
    for suffix in [".raftlog", ".rewrite"] {
        let mut names = files::names(dir)?;
        names.retain(|name| name.ends_with(suffix));
        let last = names.len().saturating_sub(1);
        for (at, name) in names.iter().enumerate() {
            let path = dir.join(name);
            let Some(number) = name.get(..16).and_then(|digits| digits.parse::<u64>().ok()) else {
                continue;
            };
            // The engine signs with the low half of the file's number.
            let mut scan = Scan::open(&path, number as u32)?;
            torn.extend(scan.settle(at == last, accept_damaged_tail)?);
        }
    }
    Ok(torn)
}

struct Scan<'a> {
    path: &'a Path,
    file: BufReader<File>,
    /// Where `file` stands.
    position: u64,
    size: u64,
    signature: u32,
}

impl<'a> Scan<'a> {
    fn open(path: &'a Path, signature: u32) -> Result<Self, StorageError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(StorageError::io("open", path))?;
        let size = file
            .metadata()
            .map_err(StorageError::io("read", path))?
            .len();
        Ok(Self {
            path,
            file: BufReader::with_capacity(1 << 20, file),
            position: 0,
            size,
            signature,
        })
    }

    /// Leaves the file with valid records only, or refuses.
    fn settle(&mut self, is_last: bool, accept: bool) -> Result<Option<TornTail>, StorageError> {
        let Some(offset) = self.first_broken()? else {
            return Ok(None);
        };
        let rest = self.read_at(offset, self.size - offset)?;
        let written = rest
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |at| at + 1);
        if written == 0 && offset >= FILE_HEADER_BYTES {
            // Room allocated in advance.
            self.cut(offset)?;
            return Ok(None);
        }
        let tail = TornTail {
            file: self.path.to_owned(),
            offset,
            bytes: written as u64,
        };
        if offset == 0 {
            // The header is synced before the first record is written.
            if is_last && (self.size < FILE_HEADER_BYTES || written == 0) {
                std::fs::remove_file(self.path).map_err(StorageError::io("remove", self.path))?;
                return Ok((written > 0).then_some(tail));
            }
            return Err(self.damaged(0, "the file's header is wrong"));
        }
        if !is_last {
            return Err(self.damaged(offset, "a record is broken, and newer files follow"));
        }
        // A checksum may end in zeros.
        let end = rest.len().min(written + CHECKSUM_BYTES);
        if self.valid_record_follows(&rest[..end]) {
            return Err(self.damaged(offset, "a record is broken, and valid ones follow"));
        }
        if accept || is_torn(&rest, written, offset, self.signature) {
            self.cut(offset)?;
            return Ok(Some(tail));
        }
        Err(self.damaged(
            offset,
            "the last record is complete and its checksum does not match, so no crash explains it",
        ))
    }

    /// Where the valid records end, unless at the end of the file.
    fn first_broken(&mut self) -> Result<Option<u64>, StorageError> {
        let head = self.read_at(0, FILE_HEADER_BYTES.min(self.size))?;
        // Version 2, no alignment: what this program has always told the engine to write.
        let expected = [FILE_MAGIC, &[0, 0, 0, 0, 0, 0, 0, 2], &[0; 8]].concat();
        if head != expected[..] {
            return Ok(Some(0));
        }
        let mut offset = head.len() as u64;
        while offset < self.size {
            let room = self.size - offset;
            let header = self.read_at(offset, room.min(HEADER_BYTES as u64))?;
            let Some(shape) = Shape::parse(&header).filter(|shape| shape.length as u64 <= room)
            else {
                return Ok(Some(offset));
            };
            let record = self.read_at(offset, shape.length as u64)?;
            if !shape.checks_out(&record, self.signature) {
                return Ok(Some(offset));
            }
            offset += shape.length as u64;
        }
        Ok(None)
    }

    fn valid_record_follows(&self, rest: &[u8]) -> bool {
        (1..rest.len()).any(|at| {
            let candidate = &rest[at..];
            Shape::parse(candidate).is_some_and(|shape| shape.checks_out(candidate, self.signature))
        })
    }

    fn read_at(&mut self, offset: u64, length: u64) -> Result<Vec<u8>, StorageError> {
        let mut bytes = vec![0; length as usize];
        let step = offset as i64 - self.position as i64;
        self.file
            .seek_relative(step)
            .and_then(|()| self.file.read_exact(&mut bytes))
            .map_err(StorageError::io("read", self.path))?;
        self.position = offset + length;
        Ok(bytes)
    }

    fn cut(&mut self, offset: u64) -> Result<(), StorageError> {
        let file = self.file.get_ref();
        file.set_len(offset)
            .and_then(|()| file.sync_all())
            .map_err(StorageError::io("truncate", self.path))
    }

    fn damaged(&self, offset: u64, what: &str) -> StorageError {
        StorageError::LogDamaged {
            file: self.path.to_owned(),
            offset,
            what: what.to_owned(),
        }
    }
}

/// What a record's header says.
#[derive(Debug, Clone, Copy)]
struct Shape {
    length: usize,
    footer: usize,
}

impl Shape {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let (footer, _) = rest.split_first_chunk::<8>()?;
        let length = u64::from_be_bytes(*length);
        let footer = usize::try_from(u64::from_be_bytes(*footer)).ok()?;
        let compressed = length & 0xff != 0;
        let length = usize::try_from(length >> 8).ok()?;
        let fits = footer >= HEADER_BYTES && length > footer.saturating_add(CHECKSUM_BYTES);
        (fits && !compressed).then_some(Self { length, footer })
    }

    /// Whether the record at the beginning of `bytes` is there and has the right checksums.
    fn checks_out(self, bytes: &[u8], signature: u32) -> bool {
        let Some(record) = bytes.get(..self.length) else {
            return false;
        };
        // The footer first: it is short, and bytes that merely look like a header end here.
        let (head, footer) = record.split_at(self.footer);
        let entries = &head[HEADER_BYTES..];
        checksum_matches(footer, signature) && (entries.is_empty() || checksum_matches(entries, 0))
    }
}

fn checksum_matches(block: &[u8], signature: u32) -> bool {
    block
        .split_last_chunk::<CHECKSUM_BYTES>()
        .is_some_and(|(content, sum)| {
            !content.is_empty() && crc32fast::hash(content) == u32::from_le_bytes(*sum) ^ signature
        })
}

/// Whether the broken record in `rest`, of which `written` bytes are not trailing zeros, misses a
/// part as a crash leaves it. `offset` is its place in the file.
fn is_torn(rest: &[u8], written: usize, offset: u64, signature: u32) -> bool {
    let Some(shape) = Shape::parse(rest) else {
        // The header itself must have a hole: at its beginning, or beyond a sector's edge.
        let header = &rest[..rest.len().min(HEADER_BYTES)];
        return header.len() < HEADER_BYTES || has_empty_sector(header, offset);
    };
    // If the record checks out with another length, the length is wrong and nothing is missing.
    let complete = (written..=rest.len().min(written + CHECKSUM_BYTES)).any(|length| {
        length > shape.footer && Shape { length, ..shape }.checks_out(rest, signature)
    });
    // It was the last thing in the file, so nothing can be beyond its end either.
    if complete || written > shape.length {
        return false;
    }
    match rest.get(..shape.length) {
        None => true,
        Some(record) => shape.length >= written + ZEROS_AT_END || has_empty_sector(record, offset),
    }
}

/// Whether the part of `bytes` in some sector of the file is all zeros.
fn has_empty_sector(bytes: &[u8], offset: u64) -> bool {
    let first = ((SECTOR_BYTES - offset % SECTOR_BYTES) as usize).min(bytes.len());
    let (head, tail) = bytes.split_at(first);
    std::iter::once(head)
        .chain(tail.chunks(SECTOR_BYTES as usize))
        .any(|part| part.iter().all(|&byte| byte == 0))
}

// The tests are with the log's, which damage files that it wrote.

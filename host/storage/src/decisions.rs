//! Evidence of decisions, by process and incarnation: what `explain` reads.
//!
//! A ring of files under a total size; the oldest file goes when a new one begins. Nothing is
//! synced: losing the last moments of evidence in a power cut costs an explanation, not a promise. A
//! damaged record ends its file, and what stood before it is kept.
//!
//! ```text
//! file     "MTRDDEC", u8 version
//! record   u32 length, u32 crc32c of what follows, u64 incarnation, u32 process, archive (rkyv)
//! ```
//! The members of a party are one entry and so have one incarnation, which is why the process is
//! part of the name: the crc32c of its type, a zero byte and its id. The version stands for the archived type: evidence of another version is dropped at opening.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use maitred_protocol::{Evidence, Incarnation, ProcessKey, limits::ARCHIVE_DEPTH_MAX};
use rkyv::rancor;
use rkyv::validation::archive::ArchiveValidator;

use crate::{DataDir, StorageError, files};

/// Bytes that one decision's evidence may have.
pub const EVIDENCE_BYTES_MAX: usize = 1 << 20;
/// Decisions that one file may have: 16 bytes of memory each.
pub const FILE_RECORDS_MAX: usize = 32_768;
/// Files that the total is divided among.
pub const FILES: u64 = 16;

const HEADER: &[u8; 8] = b"MTRDDEC\x02";
const RECORD_HEADER_BYTES: usize = 20;
const SUFFIX: &str = ".decisions";
/// Bytes gathered before the file is written.
const BUFFER_BYTES: usize = 64 << 10;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionOptions {
    /// Bytes of all files together; at least 16 MiB, so that a file holds the largest evidence.
    pub total_bytes: u64,
}

impl Default for DecisionOptions {
    fn default() -> Self {
        Self {
            total_bytes: 64 << 20,
        }
    }
}

/// The decisions of a data directory. One thread owns it.
#[derive(Debug)]
pub struct Decisions {
    dir: PathBuf,
    file_bytes: u64,
    /// Oldest first; the last one is written to. Never empty.
    segments: VecDeque<Segment>,
    /// What the last segment's file does not have yet.
    buffer: Vec<u8>,
}

/// The name of a decision: incarnation and process.
type Id = (u64, u32);

fn id(key: &ProcessKey, incarnation: Incarnation) -> Id {
    let process = crc32c::crc32c(key.type_name.as_str().as_bytes());
    let process = crc32c::crc32c_append(process, &[0]);
    let process = crc32c::crc32c_append(process, key.id.as_str().as_bytes());
    (incarnation.0, process)
}

#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    file: File,
    /// Bytes in the file.
    written: u64,
    /// Name and place of each record, ascending.
    index: Vec<(Id, u32)>,
}

impl Decisions {
    /// Opens the store, reading all of it once to find what is there.
    ///
    /// # Errors
    /// [`StorageError::Io`], [`StorageError::DiskFull`].
    pub fn open(dir: &DataDir, options: DecisionOptions) -> Result<Self, StorageError> {
        let dir = dir.decisions();
        let mut segments = VecDeque::new();
        for name in files::names(&dir)? {
            let number = name.strip_suffix(SUFFIX).and_then(|n| n.parse().ok());
            if let Some(number) = number {
                segments.push_back(Segment::open(&dir, number)?);
            }
        }
        let largest = (EVIDENCE_BYTES_MAX + RECORD_HEADER_BYTES + HEADER.len()) as u64;
        let mut store = Self {
            dir,
            file_bytes: (options.total_bytes / FILES).max(largest),
            segments,
            buffer: Vec::new(),
        };
        if store.segments.is_empty() {
            store.begin_segment()?;
        }
        store.drop_oldest()?;
        Ok(store)
    }

    /// Keeps the evidence of a decision. A second one of the same life replaces the first.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`]; [`StorageError::DiskFull`] and [`StorageError::Io`] cost the
    /// decisions that were not written yet, and nothing else.
    pub fn append(
        &mut self,
        key: &ProcessKey,
        incarnation: Incarnation,
        evidence: &Evidence,
    ) -> Result<(), StorageError> {
        let archive = rkyv::to_bytes::<rancor::Error>(evidence).ok();
        let Some(archive) = archive.filter(|archive| archive.len() <= EVIDENCE_BYTES_MAX) else {
            return Err(StorageError::TooLarge {
                what: "evidence",
                bytes: EVIDENCE_BYTES_MAX as u64 + 1,
                limit: EVIDENCE_BYTES_MAX as u64,
            });
        };
        let record = (RECORD_HEADER_BYTES + archive.len()) as u64;
        if self.last().index.len() >= FILE_RECORDS_MAX || self.end() + record > self.file_bytes {
            self.flush()?;
            self.begin_segment()?;
            self.drop_oldest()?;
        }
        let at = self.end() as u32;
        let id = id(key, incarnation);
        let (life, process) = (id.0.to_le_bytes(), id.1.to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&life), &process);
        let sum = crc32c::crc32c_append(sum, &archive);
        self.buffer
            .extend_from_slice(&(archive.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&sum.to_le_bytes());
        self.buffer.extend_from_slice(&life);
        self.buffer.extend_from_slice(&process);
        self.buffer.extend_from_slice(&archive);
        self.last_mut().insert(id, at);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// The evidence of a decision; none when there never was one, when it is gone, or damaged.
    ///
    /// # Errors
    /// [`StorageError::Io`], and what [`Decisions::flush`] returns.
    pub fn get(
        &mut self,
        key: &ProcessKey,
        incarnation: Incarnation,
    ) -> Result<Option<Evidence>, StorageError> {
        self.flush()?;
        let id = id(key, incarnation);
        for segment in self.segments.iter().rev() {
            if let Some(at) = segment.find(id) {
                return segment.read(id, at);
            }
        }
        Ok(None)
    }

    /// Hands what was gathered to the system.
    ///
    /// # Errors
    /// As [`Decisions::append`].
    pub fn flush(&mut self) -> Result<(), StorageError> {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            return Ok(());
        }
        let segment = self.last_mut();
        let written = segment.file.write_all_at(&buffer, segment.written);
        if let Err(error) = written {
            // What did not fit is forgotten: the next record goes to the same place.
            let end = segment.written as u32;
            segment.index.retain(|&(_, at)| at < end);
            return Err(StorageError::io("write", &segment.path)(error));
        }
        segment.written += buffer.len() as u64;
        // The allocation is used again.
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    /// The lowest incarnation that is kept.
    #[must_use]
    pub fn oldest(&self) -> Option<Incarnation> {
        let firsts = self.segments.iter().filter_map(|s| s.index.first());
        firsts
            .map(|&((incarnation, _), _)| Incarnation(incarnation))
            .min()
    }

    /// How many decisions are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.iter().map(|s| s.index.len()).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the next record goes.
    fn end(&self) -> u64 {
        self.last().written + self.buffer.len() as u64
    }

    fn last(&self) -> &Segment {
        self.segments.back().expect("there is always a segment")
    }

    fn last_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("there is always a segment")
    }

    fn begin_segment(&mut self) -> Result<(), StorageError> {
        let number = self.segments.back().map_or(1, |last| last.number + 1);
        self.segments.push_back(Segment::open(&self.dir, number)?);
        Ok(())
    }

    /// Keeps the total: so many files, none larger than its share.
    fn drop_oldest(&mut self) -> Result<(), StorageError> {
        while self.segments.len() as u64 > FILES {
            if let Some(oldest) = self.segments.pop_front() {
                let path = &oldest.path;
                fs::remove_file(path).map_err(StorageError::io("remove", path))?;
            }
        }
        Ok(())
    }
}

impl Drop for Decisions {
    fn drop(&mut self) {
        // Nobody is left to be told, and the evidence is not promised.
        let _ = self.flush();
    }
}

impl Segment {
    /// Opens or creates a file, finds its records, and cuts it at the first broken one.
    fn open(dir: &Path, number: u64) -> Result<Self, StorageError> {
        let path = dir.join(format!("{number:016}{SUFFIX}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StorageError::io("open", &path))?;
        let bytes = fs::read(&path).map_err(StorageError::io("read", &path))?;
        let mut segment = Self {
            number,
            path,
            file,
            written: HEADER.len() as u64,
            index: Vec::new(),
        };
        let intact = bytes.strip_prefix(HEADER).map(|records| {
            let mut rest = records;
            while let Some((id, archive)) = split_record(rest) {
                segment.insert(id, segment.written as u32);
                let length = RECORD_HEADER_BYTES + archive.len();
                segment.written += length as u64;
                rest = &rest[length..];
            }
        });
        let keep = if intact.is_some() { segment.written } else { 0 };
        segment
            .file
            .set_len(keep)
            .and_then(|()| segment.file.write_all_at(HEADER, 0))
            .map_err(StorageError::io("write", &segment.path))?;
        Ok(segment)
    }

    fn insert(&mut self, id: Id, at: u32) {
        // Nearly always the last place: incarnations grow.
        match self.index.binary_search_by_key(&id, |&(have, _)| have) {
            Ok(place) => self.index[place].1 = at,
            Err(place) => self.index.insert(place, (id, at)),
        }
    }

    fn find(&self, id: Id) -> Option<u32> {
        let place = self.index.binary_search_by_key(&id, |&(have, _)| have);
        place.ok().map(|place| self.index[place].1)
    }

    fn read(&self, id: Id, at: u32) -> Result<Option<Evidence>, StorageError> {
        let mut record = vec![0; RECORD_HEADER_BYTES];
        let failed = || StorageError::io("read", &self.path);
        self.file
            .read_exact_at(&mut record, u64::from(at))
            .map_err(failed())?;
        let Some(length) = archive_length(&record) else {
            return Ok(None);
        };
        record.resize(RECORD_HEADER_BYTES + length, 0);
        let (_, archive) = record.split_at_mut(RECORD_HEADER_BYTES);
        let from = u64::from(at) + RECORD_HEADER_BYTES as u64;
        if u64::from(at) + record_bytes(length) > self.written {
            return Ok(None);
        }
        self.file.read_exact_at(archive, from).map_err(failed())?;
        Ok(split_record(&record)
            .filter(|&(found, _)| found == id)
            .and_then(|(_, archive)| decode(archive)))
    }
}

fn record_bytes(archive: usize) -> u64 {
    (RECORD_HEADER_BYTES + archive) as u64
}

fn archive_length(record: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*record.first_chunk()?) as usize;
    (length <= EVIDENCE_BYTES_MAX).then_some(length)
}

/// The record at the beginning of `bytes`, if it is whole.
fn split_record(bytes: &[u8]) -> Option<(Id, &[u8])> {
    let length = archive_length(bytes)?;
    let sum = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
    let signed = bytes.get(8..RECORD_HEADER_BYTES + length)?;
    let (life, rest) = signed.split_first_chunk()?;
    let (process, archive) = rest.split_first_chunk()?;
    let id = (u64::from_le_bytes(*life), u32::from_le_bytes(*process));
    (crc32c::crc32c(signed) == sum).then_some((id, archive))
}

fn decode(archive: &[u8]) -> Option<Evidence> {
    let depth = std::num::NonZeroUsize::new(ARCHIVE_DEPTH_MAX);
    let mut validator = ArchiveValidator::with_max_depth(archive, depth);
    let archived = rkyv::api::access_with_context::<rkyv::Archived<Evidence>, _, rancor::Error>(
        archive,
        &mut validator,
    );
    rkyv::deserialize::<Evidence, rancor::Error>(archived.ok()?).ok()
}

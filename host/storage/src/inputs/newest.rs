//! Reading recorded inputs, while more are recorded: files that stay open, up to where they were.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::{FRAME_BYTES_MAX, HEADER, RECORD_HEADER_BYTES};
use crate::StorageError;

/// A frame as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFrame {
    /// What it was filed under.
    pub of: u64,
    /// The decisions in it.
    pub decisions: u32,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// The frames of the newest decisions, oldest first. After an error it goes on with the next file,
/// which begins with a keyframe.
#[derive(Debug)]
pub struct Newest {
    parts: VecDeque<Part>,
    /// The file that is being read, and where.
    current: Option<(PathBuf, Vec<u8>, usize)>,
    of: Option<u64>,
    older: u64,
    /// Decisions that the current file has yet.
    left: u64,
    lost: u64,
}

/// One file, as far as it was written.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    pub(super) bytes: u64,
    /// The decisions in it, of whom it is about.
    pub(super) decisions: u64,
}

impl Newest {
    pub(super) fn new(parts: VecDeque<Part>, of: Option<u64>, older: u64) -> Self {
        Self {
            parts,
            current: None,
            of,
            older,
            left: 0,
            lost: 0,
        }
    }

    /// Decisions (of the one that was asked for) that errors have cost, since this was last asked.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// How many older decisions (of the one that was asked for) come before the newest: files are
    /// given whole, as frames lean on each other. Called as `Newest::skip(&newest)`, as iterators have
    /// another one of that name.
    #[must_use]
    pub fn skip(&self) -> u64 {
        self.older
    }
}

impl Iterator for Newest {
    type Item = Result<StoredFrame, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((path, bytes, at)) = &mut self.current else {
                let part = self.parts.pop_front()?;
                let mut bytes = vec![0; part.bytes as usize];
                if let Err(error) = part.file.read_exact_at(&mut bytes, 0) {
                    self.lost += part.decisions;
                    return Some(Err(StorageError::io("read", &part.path)(error)));
                }
                self.current = Some((part.path, bytes, HEADER.len()));
                self.left = part.decisions;
                continue;
            };
            let rest = bytes.get(*at..).unwrap_or_default();
            if rest.is_empty() {
                self.current = None;
                continue;
            }
            if let Some((record, _)) = split_record(rest) {
                *at += RECORD_HEADER_BYTES + record.frame.len();
                if self.of.is_none_or(|of| of == record.of) {
                    self.left = self.left.saturating_sub(record.decisions.into());
                }
                return Some(Ok(StoredFrame {
                    of: record.of,
                    decisions: record.decisions,
                    frame: record.frame.to_vec(),
                }));
            }
            let error = StorageError::InputsDamaged {
                file: path.clone(),
                offset: *at as u64,
            };
            self.current = None;
            self.lost += self.left;
            return Some(Err(error));
        }
    }
}

pub(super) struct Record<'a> {
    pub(super) of: u64,
    pub(super) decisions: u32,
    pub(super) frame: &'a [u8],
}

/// The record at the beginning of `bytes`, if it is whole, and what comes after it.
pub(super) fn split_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return None;
    }
    let (summed, after) = rest.split_at_checked(RECORD_HEADER_BYTES - 8 + length)?;
    if crc32c::crc32c(summed) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (decisions, frame) = summed.split_first_chunk()?;
    let (of, frame) = frame.split_first_chunk()?;
    let record = Record {
        of: u64::from_le_bytes(*of),
        decisions: u32::from_le_bytes(*decisions),
        frame,
    };
    Some((record, after))
}

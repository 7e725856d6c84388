//! What the log needs of its engine: how it is set, what its errors mean, and reading it back whole.
//!
//! What holds: everything that [`read_back`] gives out is contiguous and was verified, and nothing
//! that must be there is missing. It must not know what is done with the entries.

use std::path::Path;

use raft::eraftpb::{Entry, HardState};
use raft_engine::env::FileSystem;
use raft_engine::{Config, Engine, MessageExt, ReadableSize, RecoveryMode, Version};

use crate::log::{LogStart, RecoveredLog, WRITE_BYTES_MAX};
use crate::{StorageError, error};

pub(crate) const HARD_STATE: &[u8] = b"hard-state";
pub(crate) const START: &[u8] = b"start";

/// Tells the engine what an entry is.
pub(crate) struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// Reads everything, and checks that nothing is missing.
pub(crate) fn read_back<F: FileSystem>(
    engine: &Engine<F>,
    region: u64,
    dir: &Path,
) -> Result<RecoveredLog, StorageError> {
    let start = match engine.get(region, START) {
        Some(text) => decode_start(&text).ok_or_else(|| lost(dir, "bad start".to_owned()))?,
        None => LogStart::default(),
    };
    let hard_state: Option<HardState> = engine
        .get_message(region, HARD_STATE)
        .map_err(|error| sort_error(error, dir))?;
    let mut entries = Vec::new();
    if let (Some(first), Some(last)) = (engine.first_index(region), engine.last_index(region)) {
        if first != start.index + 1 {
            let what = format!(
                "the log begins at entry {first}, not at {}: a file is missing",
                start.index + 1
            );
            return Err(lost(dir, what));
        }
        entries = fetch(engine, region, first..last + 1, dir)?;
        for (expected, entry) in (first..=last).zip(&entries) {
            if entry.index != expected {
                let got = entry.index;
                let what = format!("entry {got} stands where {expected} should");
                return Err(lost(dir, what));
            }
        }
        if entries.len() as u64 != last - first + 1 {
            let what = format!("entries of {first}..={last} are missing");
            return Err(lost(dir, what));
        }
    }
    if hard_state.is_none() && (!entries.is_empty() || start.index > 0) {
        let what = "there are entries and no hard state: a file is missing";
        return Err(lost(dir, what.to_owned()));
    }
    Ok(RecoveredLog {
        start,
        hard_state: hard_state.unwrap_or_default(),
        entries,
        torn: Vec::new(),
    })
}

/// Entries of `range`, read on a thread of its own: the engine caches what a thread read last by its
/// place in the log, not by the log, so a thread that had another log open would be given that one's.
fn fetch<F: FileSystem>(
    engine: &Engine<F>,
    region: u64,
    range: std::ops::Range<u64>,
    dir: &Path,
) -> Result<Vec<Entry>, StorageError> {
    let read = || {
        let mut entries = Vec::new();
        engine
            .fetch_entries_to::<Entries>(region, range.start, range.end, None, &mut entries)
            .map(|_| entries)
    };
    std::thread::scope(|scope| scope.spawn(read).join())
        .map_err(|_| lost(dir, "the engine gave up reading it".to_owned()))?
        .map_err(|error| sort_error(error, dir))
}

pub(crate) fn lost(dir: &Path, what: String) -> StorageError {
    StorageError::LogDamaged {
        file: dir.to_owned(),
        offset: 0,
        what,
    }
}

pub(crate) fn encode_start(start: LogStart) -> Vec<u8> {
    [start.index.to_le_bytes(), start.term.to_le_bytes()].concat()
}

fn decode_start(text: &[u8]) -> Option<LogStart> {
    let (index, term) = text.split_first_chunk::<8>()?;
    Some(LogStart {
        index: u64::from_le_bytes(*index),
        term: u64::from_le_bytes(term.try_into().ok()?),
    })
}

pub(crate) fn config(dir: &Path, target_file_bytes: u64) -> Result<Config, StorageError> {
    let Some(text) = dir.to_str() else {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not UTF-8");
        return Err(StorageError::io("open", dir)(source));
    };
    Ok(Config {
        dir: text.to_owned(),
        // Torn tails are cut before the engine looks, so whatever it still finds broken is damage.
        recovery_mode: RecoveryMode::AbsoluteConsistency,
        // The writer's thread is on every write's path; entries are small and often incompressible.
        batch_compression_threshold: ReadableSize(0),
        format_version: Version::V2,
        target_file_size: ReadableSize(target_file_bytes),
        purge_threshold: ReadableSize(target_file_bytes),
        // A recycled file holds old records where a new one reads as zeros: torn could no longer be
        // told from damaged.
        enable_log_recycle: false,
        ..Config::default()
    })
}

/// Sorts the engine's errors. Those of a write leave the engine as it was.
pub(crate) fn sort_error(error: raft_engine::Error, dir: &Path) -> StorageError {
    use raft_engine::Error as E;
    match error {
        E::Io(source) if error::means_full(&source) => StorageError::DiskFull {
            path: dir.to_owned(),
            free: 0,
        },
        E::Io(source) => StorageError::io("use the log in", dir)(source),
        // The engine says this only for a write that found no room, twice.
        E::TryAgain(_) => StorageError::DiskFull {
            path: dir.to_owned(),
            free: 0,
        },
        E::Full => StorageError::TooLarge {
            what: "one write to the log",
            bytes: u64::from(u32::MAX),
            limit: WRITE_BYTES_MAX,
        },
        other => StorageError::LogDamaged {
            file: dir.to_owned(),
            offset: 0,
            what: other.to_string(),
        },
    }
}

//! The Raft log: entries and the hard state, durable before [`Log::write`] returns.
//!
//! What holds:
//! - one write is one record and one `fdatasync`; after a crash it is there whole or not at all;
//! - entries are contiguous, from just after [`Log::start`] to [`Log::last_index`]; writing at or
//!   below the last index replaces everything from there on, as Raft's conflicts need;
//! - the hard state and the start are in the newest files, so old files hold dead entries only and
//!   are removed without being rewritten;
//! - opening reads everything back: what is given to the replica is what was acknowledged, or there
//!   is an error (`log_scan` says what a broken record means).
//!
//! **A failed fsync panics**, in the engine: the kernel may have dropped the pages, so nothing can be
//! retried. The thread that owns the log must take its process with it.
//!
//! Where it begins is moved in `log_cut`. It must not know what an entry's bytes mean.

use std::path::PathBuf;
use std::sync::Arc;

use protobuf::Message as _;
use raft::eraftpb::{Entry, HardState};
use raft_engine::env::{DefaultFileSystem, FileSystem};
use raft_engine::{Engine, LogBatch};

use crate::log_engine::{Entries, HARD_STATE};
use crate::log_scan::{self, TornTail};
use crate::space::{Space, SpaceLimits, SpaceMonitor};
use crate::{DataDir, StorageError, files, log_engine};

/// Bytes of entries that one write may have.
pub const WRITE_BYTES_MAX: u64 = 1 << 30;

/// How the log is kept.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The Raft group.
    pub group: u64,
    /// Size at which a file is closed and the next begun. Closing stalls one write by up to some
    /// 100 ms, so larger is rarer; dead entries keep up to two files on disk, so smaller is less room.
    pub target_file_bytes: u64,
    /// Cut a last record that is damaged in a way that no crash explains, instead of refusing. Only
    /// for an operator who knows that no peer relies on it, such as one with a single host.
    pub accept_damaged_tail: bool,
    /// When writes are refused for want of room.
    pub space: SpaceLimits,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            group: 0,
            target_file_bytes: 128 << 20,
            accept_damaged_tail: false,
            space: SpaceLimits::default(),
        }
    }
}

/// What is to be made durable together.
#[derive(Debug, Clone, Default)]
pub struct WriteTask {
    /// Contiguous; the first one follows or replaces what the log holds.
    pub entries: Vec<Entry>,
    /// The hard state, when it changed.
    pub hard_state: Option<HardState>,
}

/// The log begins after this entry, which a snapshot covers; both 0 at the very beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStart {
    /// Index of the last entry that the log no longer has.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// What the log held when it was opened.
#[derive(Debug, Clone, Default)]
pub struct RecoveredLog {
    /// After which entry it begins.
    pub start: LogStart,
    /// The last hard state written. Its commit may be below what a snapshot covers.
    pub hard_state: HardState,
    /// All entries, contiguous from `start.index + 1`.
    pub entries: Vec<Entry>,
    /// Records that a crash left incomplete and that were cut off; usually none, at most one.
    pub torn: Vec<TornTail>,
}

/// The Raft log of one group. `F` is where the engine's files are; anything but a test uses the default.
pub struct Log<F: FileSystem = DefaultFileSystem> {
    pub(crate) engine: Engine<F>,
    pub(crate) dir: PathBuf,
    pub(crate) region: u64,
    pub(crate) start: LogStart,
    pub(crate) last_index: u64,
    /// Where each term begins: index and term, ascending. Only those after `start` count.
    pub(crate) terms: Vec<(u64, u64)>,
    pub(crate) hard_state: HardState,
    space: SpaceMonitor,
}

impl Log {
    /// Opens the log of a data directory, verified and read back whole.
    ///
    /// # Errors
    /// [`StorageError::LogDamaged`] when acknowledged writes may be lost.
    pub fn open(dir: &DataDir, options: &LogOptions) -> Result<(Self, RecoveredLog), StorageError> {
        Self::open_on(dir, options, Arc::new(DefaultFileSystem))
    }
}

impl<F: FileSystem> Log<F> {
    /// [`Log::open`] on a file system of the caller's, which must keep its files in `dir.raft()`.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_on(
        dir: &DataDir,
        options: &LogOptions,
        file_system: Arc<F>,
    ) -> Result<(Self, RecoveredLog), StorageError> {
        let raft = dir.raft();
        let torn = log_scan::verify(&raft, options.accept_damaged_tail)?;
        // 0 is not used, so that a region is never mistaken for an unset one.
        let region = options.group + 1;
        let config = log_engine::config(&raft, options.target_file_bytes)?;
        let engine = Engine::open_with_file_system(config, file_system)
            .map_err(|error| log_engine::sort_error(error, &raft))?;
        let found = log_engine::read_back(&engine, region, &raft)?;
        let mut log = Self {
            engine,
            dir: raft,
            region,
            start: found.start,
            last_index: found.start.index + found.entries.len() as u64,
            terms: Vec::new(),
            hard_state: found.hard_state.clone(),
            space: dir.space_monitor(options.space),
        };
        log.note_terms(&found.entries);
        let recovered = RecoveredLog { torn, ..found };
        Ok((log, recovered))
    }

    /// Makes entries and a hard state durable, with one `fdatasync`.
    ///
    /// # Errors
    /// As [`Log::write_all`].
    pub fn write(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
    ) -> Result<(), StorageError> {
        self.write_runs(&[entries], hard_state)
    }

    /// Makes several tasks durable, in order, with one `fdatasync` for all of them.
    ///
    /// # Errors
    /// [`StorageError::DiskFull`]: nothing was written, and the same tasks may be written again once
    /// there is room; what waits for them must go on waiting. [`StorageError::OutOfOrder`] and
    /// [`StorageError::TooLarge`]: nothing was written, the caller has a bug. Anything else is fatal.
    ///
    /// # Panics
    /// When an fsync fails: see the head of the file.
    pub fn write_all(&mut self, tasks: &[WriteTask]) -> Result<(), StorageError> {
        let runs: Vec<&[Entry]> = tasks.iter().map(|task| task.entries.as_slice()).collect();
        let hard_state = tasks.iter().rev().find_map(|task| task.hard_state.as_ref());
        self.write_runs(&runs, hard_state)
    }

    fn write_runs(
        &mut self,
        runs: &[&[Entry]],
        hard_state: Option<&HardState>,
    ) -> Result<(), StorageError> {
        let (kept, last_index, bytes) = self.without_replaced(runs)?;
        if kept.is_empty() && hard_state.is_none() {
            return Ok(());
        }
        self.space.wrote(bytes);
        self.refuse_when_full()?;
        let mut batch = LogBatch::default();
        for run in &kept {
            self.in_batch(batch.add_entries::<Entries>(self.region, run))?;
        }
        if let Some(hard_state) = hard_state {
            self.in_batch(batch.put_message(self.region, HARD_STATE.to_vec(), hard_state))?;
        }
        self.commit(&mut batch)?;
        self.last_index = last_index;
        kept.iter().for_each(|run| self.note_terms(run));
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state.clone();
        }
        Ok(())
    }

    /// Checks the order of `runs`, and leaves out what a later run replaces. Also says where the log
    /// then ends, and how many bytes are to be written.
    fn without_replaced<'a>(
        &self,
        runs: &[&'a [Entry]],
    ) -> Result<(Vec<&'a [Entry]>, u64, u64), StorageError> {
        let mut kept: Vec<&'a [Entry]> = Vec::with_capacity(runs.len());
        let mut last_index = self.last_index;
        let mut bytes = 0_u64;
        for &run in runs {
            let Some(first) = run.first().map(|entry| entry.index) else {
                continue;
            };
            if first <= self.start.index || first > last_index + 1 {
                return Err(StorageError::OutOfOrder(format!(
                    "entry {first} written to a log of {}..={last_index}",
                    self.start.index + 1
                )));
            }
            for (expected, entry) in (first..).zip(run) {
                if entry.index != expected {
                    return Err(StorageError::OutOfOrder(format!(
                        "entry {} written where {expected} follows",
                        entry.index
                    )));
                }
                bytes += u64::from(entry.compute_size());
            }
            while let Some(before) = kept.pop() {
                let stays = before.partition_point(|entry| entry.index < first);
                if stays > 0 {
                    kept.push(&before[..stays]);
                    break;
                }
            }
            kept.push(run);
            last_index = first + run.len() as u64 - 1;
        }
        if bytes > WRITE_BYTES_MAX {
            return Err(StorageError::TooLarge {
                what: "one write to the log",
                bytes,
                limit: WRITE_BYTES_MAX,
            });
        }
        Ok((kept, last_index, bytes))
    }

    /// The term of the entry at `index`, if the log has it or begins after it.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if !(self.start.index..=self.last_index).contains(&index) {
            return None;
        }
        let after = self.terms.partition_point(|&(first, _)| first <= index);
        self.terms[..after].last().map(|&(_, term)| term)
    }

    /// After which entry the log begins.
    #[must_use]
    pub fn start(&self) -> LogStart {
        self.start
    }

    /// Index of the last entry; that of [`Log::start`] when there is none.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Bytes that the log's files take.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn bytes_on_disk(&self) -> Result<u64, StorageError> {
        files::total_bytes(&self.dir)
    }

    /// How much room there is for the log; cached, so it may be asked before every write.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    pub fn space(&mut self) -> Result<Space, StorageError> {
        self.space.check()
    }

    fn refuse_when_full(&mut self) -> Result<(), StorageError> {
        match self.space.check()? {
            Space::Full { free } => Err(StorageError::DiskFull {
                path: self.dir.clone(),
                free,
            }),
            Space::Ok | Space::Low { .. } => Ok(()),
        }
    }

    pub(crate) fn commit(&self, batch: &mut LogBatch) -> Result<(), StorageError> {
        // `true` is the fsync; `Engine::sync` of this version does nothing.
        let written = self.engine.write(batch, true);
        self.in_batch(written).map(drop)
    }

    pub(crate) fn in_batch<T>(&self, result: raft_engine::Result<T>) -> Result<T, StorageError> {
        result.map_err(|error| log_engine::sort_error(error, &self.dir))
    }

    /// Remembers the terms of entries that were written, so that the engine is not asked for them.
    fn note_terms(&mut self, run: &[Entry]) {
        let Some(first) = run.first() else { return };
        let stays = self.terms.partition_point(|&(at, _)| at < first.index);
        self.terms.truncate(stays);
        for entry in run {
            if self
                .terms
                .last()
                .is_none_or(|&(_, term)| term != entry.term)
            {
                self.terms.push((entry.index, entry.term));
            }
        }
    }
}

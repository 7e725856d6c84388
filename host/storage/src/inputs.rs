//! Recorded inputs of decisions, as frames that mean nothing here: what `replay` reads.
//!
//! A ring of files under a total size; the oldest goes when there is no room for a frame. Nothing is
//! synced: a power cut costs the last moments. A frame may lean on the ones before it, so that a file
//! begins with one that does not (a **keyframe**), and one comes after every loss: whoever appends is
//! told which kind to make, and cannot make it before.
//!
//! Recording never takes what the log may need: it stops while room is low, and begins again by itself.
//!
//! ```text
//! file     "MTRDINS", u8 version
//! record   u32 length of the frame, u32 crc32c of what follows, u32 decisions, u64 whose, frame
//! ```

mod newest;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use newest::{Newest, StoredFrame};

use crate::space::{Space, SpaceLimits, SpaceMonitor};
use crate::{DataDir, StorageError, files};

/// Bytes that one frame may have; of a small total, half of it.
pub const FRAME_BYTES_MAX: usize = 32 << 20;
/// Files that the total is divided among, about.
pub const FILES: u64 = 8;

const HEADER: &[u8; 8] = b"MTRDINS\x01";
const RECORD_HEADER_BYTES: usize = 20;
const SUFFIX: &str = ".inputs";
/// Bytes gathered before the file is written.
const BUFFER_BYTES: usize = 64 << 10;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputsOptions {
    /// Bytes of all files together; 0 to record nothing, and to remove what was recorded.
    pub total_bytes: u64,
    /// What counts as low room.
    pub space: SpaceLimits,
    /// How long it waits after it had to stop.
    pub retry_after: Duration,
}

impl Default for InputsOptions {
    fn default() -> Self {
        Self {
            total_bytes: 64 << 20,
            space: SpaceLimits::default(),
            retry_after: Duration::from_secs(5),
        }
    }
}

/// What became of a frame.
#[derive(Debug)]
pub enum Kept {
    /// It is recorded.
    Yes,
    /// It is recorded, the first one after a stop.
    Again,
    /// It is not, and nothing will be for a while, for this reason: worth a warning.
    Stopped(StorageError),
    /// It is not, as before.
    No,
}

/// The recorded inputs of a data directory. One thread owns it; what [`Inputs::newest`] gives may be
/// read on another one meanwhile.
#[derive(Debug)]
pub struct Inputs {
    dir: PathBuf,
    options: InputsOptions,
    monitor: SpaceMonitor,
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    /// What the last segment's file does not have yet, and the decisions of whom those are.
    buffer: Vec<u8>,
    gathered: Counts,
    /// Whether the next frame must be a keyframe.
    due: bool,
    stopped: Option<Instant>,
    /// Decisions that were gathered and that the disk did not take.
    lost: u64,
}

/// Decisions by whose they are.
#[derive(Debug, Clone, Default)]
struct Counts(Vec<(u64, u64)>);

impl Counts {
    fn add(&mut self, of: u64, decisions: u64) {
        match self.0.iter_mut().find(|(have, _)| *have == of) {
            Some((_, count)) => *count += decisions,
            None => self.0.push((of, decisions)),
        }
    }

    fn of(&self, of: Option<u64>) -> u64 {
        let those = self
            .0
            .iter()
            .filter(|(have, _)| of.is_none_or(|of| of == *have));
        those.map(|(_, count)| count).sum()
    }
}

#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    file: Arc<File>,
    /// Bytes in the file that count.
    written: u64,
    counts: Counts,
}

impl Inputs {
    /// Opens the store, reading all of it once to find what is there.
    ///
    /// # Errors
    /// [`StorageError::Io`], [`StorageError::DiskFull`].
    pub fn open(dir: &DataDir, options: InputsOptions) -> Result<Self, StorageError> {
        let mut inputs = Self {
            dir: dir.inputs(),
            options,
            monitor: dir.space_monitor(options.space),
            segments: VecDeque::new(),
            buffer: Vec::new(),
            gathered: Counts::default(),
            due: true,
            stopped: None,
            lost: 0,
        };
        for name in files::names(&inputs.dir)? {
            let number = name.strip_suffix(SUFFIX).and_then(|n| n.parse().ok());
            if let Some(number) = number
                && let Some(segment) = Segment::open(&inputs.dir, number)?
            {
                inputs.segments.push_back(segment);
            }
        }
        inputs.drop_oldest()?;
        Ok(inputs)
    }

    /// Records a frame of so many decisions, filed under `of`. `make` makes it, told whether it must
    /// be a keyframe; it is not called while recording has stopped.
    ///
    /// # Errors
    /// Those of `make`, and none other: what the disk says is in [`Kept`].
    pub fn append<E>(
        &mut self,
        of: u64,
        decisions: u32,
        make: impl FnOnce(bool) -> Result<Vec<u8>, E>,
    ) -> Result<Kept, E> {
        let waits = |since: Instant| since.elapsed() < self.options.retry_after;
        if self.options.total_bytes == 0 || self.stopped.is_some_and(waits) {
            return Ok(Kept::No);
        }
        if let Err(error) = self.make_room() {
            return Ok(self.stop(error));
        }
        let frame = make(self.due)?;
        Ok(match self.keep(of, decisions, &frame) {
            Err(error) => self.stop(error),
            Ok(()) if self.stopped.take().is_some() => Kept::Again,
            Ok(()) => Kept::Yes,
        })
    }

    /// Hands what was gathered to the system. When it does not take it, that is lost, and recording
    /// has stopped for a while: [`Kept::Stopped`], or [`Kept::No`] when it had before.
    pub fn flush(&mut self) -> Kept {
        match self.write_out() {
            Ok(()) => Kept::Yes,
            Err(error) => self.stop(error),
        }
    }

    /// Decisions of frames that were kept and then lost all the same, because the system did not take
    /// what was gathered; since this was last asked.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// The files that hold the newest decisions, of one or of all, as they are now: what is recorded
    /// or removed later does not change it. Flush before: what is gathered is not among them.
    #[must_use]
    pub fn newest(&self, decisions: u64, of: Option<u64>) -> Newest {
        let mut found = 0;
        let mut parts = VecDeque::new();
        for segment in self.segments.iter().rev() {
            if found >= decisions {
                break;
            }
            found += segment.counts.of(of);
            parts.push_front(newest::Part {
                path: segment.path.clone(),
                file: Arc::clone(&segment.file),
                bytes: segment.written,
                decisions: segment.counts.of(of),
            });
        }
        Newest::new(parts, of, found.saturating_sub(decisions))
    }

    /// How many decisions are kept, of one or of all.
    #[must_use]
    pub fn decisions(&self, of: Option<u64>) -> u64 {
        let written: u64 = self.segments.iter().map(|s| s.counts.of(of)).sum();
        written + self.gathered.of(of)
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let written: u64 = self.segments.iter().map(|segment| segment.written).sum();
        written + self.buffer.len() as u64
    }

    /// Says once that it has stopped. What was gathered may have been lost.
    fn stop(&mut self, error: StorageError) -> Kept {
        self.due = true;
        match self.stopped.replace(Instant::now()) {
            None => Kept::Stopped(error),
            Some(_) => Kept::No,
        }
    }

    /// A file that takes another frame, if the log can spare the room.
    fn make_room(&mut self) -> Result<(), StorageError> {
        if let Space::Low { free } | Space::Full { free } = self.monitor.check()? {
            let path = self.dir.clone();
            return Err(StorageError::DiskFull { path, free });
        }
        let full = self.options.total_bytes / FILES;
        let end = |last: &Segment| last.written + self.buffer.len() as u64;
        if self.segments.back().is_none_or(|last| end(last) >= full) {
            self.write_out()?;
            let number = self.segments.back().map_or(1, |last| last.number + 1);
            self.segments.push_back(Segment::create(&self.dir, number)?);
            self.due = true;
        }
        Ok(())
    }

    fn keep(&mut self, of: u64, decisions: u32, frame: &[u8]) -> Result<(), StorageError> {
        let limit = (self.options.total_bytes / 2).min(FRAME_BYTES_MAX as u64);
        let bytes = (RECORD_HEADER_BYTES + frame.len()) as u64;
        if bytes > limit {
            let what = "a frame of recorded inputs";
            return Err(StorageError::TooLarge { what, bytes, limit });
        }
        let (decided, whose) = (decisions.to_le_bytes(), of.to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&decided), &whose);
        let sum = crc32c::crc32c_append(sum, frame).to_le_bytes();
        let length = (frame.len() as u32).to_le_bytes();
        for part in [&length[..], &sum, &decided, &whose, frame] {
            self.buffer.extend_from_slice(part);
        }
        self.gathered.add(of, decisions.into());
        self.due = false;
        self.drop_oldest()?;
        if self.buffer.len() >= BUFFER_BYTES
            && let Err(error) = self.write_out()
        {
            // Of this frame the caller is told.
            self.lost -= u64::from(decisions);
            return Err(error);
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), StorageError> {
        let gathered = std::mem::take(&mut self.gathered);
        if self.buffer.is_empty() {
            return Ok(());
        }
        let Some(segment) = self.segments.back_mut() else {
            self.buffer.clear();
            return Ok(());
        };
        let written = segment.file.write_all_at(&self.buffer, segment.written);
        let bytes = self.buffer.len() as u64;
        self.buffer.clear();
        self.monitor.wrote(bytes);
        if let Err(error) = written {
            // What is there of it does not count, and gives its room back if it can.
            let _ = segment.file.set_len(segment.written);
            self.due = true;
            self.lost += gathered.of(None);
            return Err(StorageError::io("write", &segment.path)(error));
        }
        segment.written += bytes;
        for (of, decisions) in gathered.0 {
            segment.counts.add(of, decisions);
        }
        Ok(())
    }

    /// Keeps the total.
    fn drop_oldest(&mut self) -> Result<(), StorageError> {
        let total = self.options.total_bytes;
        while self.bytes() > total && (self.segments.len() > 1 || total == 0) {
            if let Some(oldest) = self.segments.pop_front() {
                files::remove(&oldest.path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        // Nobody is left to be told, and the inputs are not promised.
        let _ = self.write_out();
    }
}

impl Segment {
    fn create(dir: &Path, number: u64) -> Result<Self, StorageError> {
        let path = dir.join(format!("{number:016}{SUFFIX}"));
        let file = open(&path)?;
        // It may be left from a failed beginning.
        let begun = file.set_len(0).and_then(|()| file.write_all_at(HEADER, 0));
        if let Err(error) = begun {
            let _ = fs::remove_file(&path);
            return Err(StorageError::io("write", &path)(error));
        }
        Ok(Self {
            number,
            path,
            file: Arc::new(file),
            written: HEADER.len() as u64,
            counts: Counts::default(),
        })
    }

    /// Opens a file, counts what is in it, and cuts it at the first broken record; none when nothing
    /// is left then, or another version wrote it: it is removed.
    fn open(dir: &Path, number: u64) -> Result<Option<Self>, StorageError> {
        let path = dir.join(format!("{number:016}{SUFFIX}"));
        let file = open(&path)?;
        let bytes = fs::read(&path).map_err(StorageError::io("read", &path))?;
        let mut rest = bytes.strip_prefix(HEADER).unwrap_or_default();
        let mut counts = Counts::default();
        let mut written = HEADER.len();
        while let Some((record, after)) = newest::split_record(rest) {
            counts.add(record.of, record.decisions.into());
            written += RECORD_HEADER_BYTES + record.frame.len();
            rest = after;
        }
        if counts.0.is_empty() {
            files::remove(&path)?;
            return Ok(None);
        }
        if written < bytes.len() {
            file.set_len(written as u64)
                .map_err(StorageError::io("cut", &path))?;
        }
        Ok(Some(Self {
            number,
            path,
            file: Arc::new(file),
            written: written as u64,
            counts,
        }))
    }
}

fn open(path: &Path) -> Result<File, StorageError> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(StorageError::io("open", path))
}

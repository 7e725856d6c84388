//! How much room is left, asked before it runs out.
//!
//! Three answers: ok; low, when new work is shed; full, when only what frees room is written. The
//! answer is cached for [`CHECK_EVERY`] or [`CHECK_BYTES`] written, so asking costs nothing on the
//! log's path. The reserve below "full" is what compaction uses to free room.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::StorageError;

/// How long an answer counts.
pub const CHECK_EVERY: Duration = Duration::from_millis(100);
/// How many bytes may be written before the disk is asked again.
pub const CHECK_BYTES: u64 = 4 << 20;

/// When room counts as scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceLimits {
    /// Low below this many bytes.
    pub low_bytes: u64,
    /// Low below this part of the file system, in percent.
    pub low_percent: u8,
    /// Full below this many bytes.
    pub full_bytes: u64,
}

impl Default for SpaceLimits {
    fn default() -> Self {
        Self {
            low_bytes: 256 << 20,
            low_percent: 2,
            full_bytes: 32 << 20,
        }
    }
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Enough.
    Ok,
    /// Shed creates; everything else goes on.
    Low {
        /// Bytes left.
        free: u64,
    },
    /// Write nothing but what frees room.
    Full {
        /// Bytes left.
        free: u64,
    },
}

impl SpaceLimits {
    /// Judges `free` of `total` bytes.
    #[must_use]
    pub fn judge(&self, free: u64, total: u64) -> Space {
        let percent = u128::from(total) * u128::from(self.low_percent) / 100;
        if free < self.full_bytes {
            Space::Full { free }
        } else if free < self.low_bytes || u128::from(free) < percent {
            Space::Low { free }
        } else {
            Space::Ok
        }
    }
}

/// How room is measured: free bytes and all bytes of the file system that a directory is on. The
/// default asks the system; a program with a quota of its own may know better.
#[derive(Clone)]
pub struct SpaceProbe(Arc<Measure>);

type Measure = dyn Fn(&Path) -> io::Result<(u64, u64)> + Send + Sync;

impl SpaceProbe {
    /// Measures with `measure`.
    pub fn new(measure: impl Fn(&Path) -> io::Result<(u64, u64)> + Send + Sync + 'static) -> Self {
        Self(Arc::new(measure))
    }
}

impl Default for SpaceProbe {
    fn default() -> Self {
        Self::new(ask_system)
    }
}

impl fmt::Debug for SpaceProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpaceProbe")
    }
}

/// Watches one file system. Clones watch independently.
#[derive(Debug, Clone)]
pub struct SpaceMonitor {
    dir: PathBuf,
    probe: SpaceProbe,
    limits: SpaceLimits,
    asked: Option<(Instant, Space)>,
    wrote: u64,
}

impl SpaceMonitor {
    pub(crate) fn new(dir: &Path, probe: SpaceProbe, limits: SpaceLimits) -> Self {
        Self {
            dir: dir.to_owned(),
            probe,
            limits,
            asked: None,
            wrote: 0,
        }
    }

    /// Notes that `bytes` were written, so that a burst is noticed before the time is up.
    pub fn wrote(&mut self, bytes: u64) {
        self.wrote = self.wrote.saturating_add(bytes);
    }

    /// How much room there is.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    pub fn check(&mut self) -> Result<Space, StorageError> {
        if let Some((when, space)) = self.asked
            && when.elapsed() < CHECK_EVERY
            && self.wrote < CHECK_BYTES
        {
            return Ok(space);
        }
        let (free, total) =
            (self.probe.0)(&self.dir).map_err(StorageError::io("measure", &self.dir))?;
        let space = self.limits.judge(free, total);
        self.asked = Some((Instant::now(), space));
        self.wrote = 0;
        Ok(space)
    }
}

/// Bytes that this process may still use on the file system of `dir`, and the size of it.
pub(crate) fn free_and_total(dir: &Path) -> Result<(u64, u64), StorageError> {
    ask_system(dir).map_err(StorageError::io("measure", dir))
}

fn ask_system(dir: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok((
        stat.f_bavail.saturating_mul(stat.f_frsize),
        stat.f_blocks.saturating_mul(stat.f_frsize),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn low_by_bytes_or_by_part_and_full_below_the_reserve() {
        let limits = SpaceLimits::default();
        assert_eq!(limits.judge(GIB, 10 * GIB), Space::Ok);
        assert_eq!(limits.judge(GIB, 100 * GIB), Space::Low { free: GIB });
        let free = 100 << 20;
        assert_eq!(limits.judge(free, GIB), Space::Low { free });
        let free = 10 << 20;
        assert_eq!(limits.judge(free, GIB), Space::Full { free });
    }

    #[test]
    fn an_answer_is_cached_until_enough_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut monitor =
            SpaceMonitor::new(dir.path(), SpaceProbe::default(), SpaceLimits::default());
        let far = Instant::now() + Duration::from_secs(3600);
        let stale = Space::Full { free: 1 };
        monitor.asked = Some((far, stale));
        assert_eq!(monitor.check().unwrap(), stale);
        monitor.wrote(CHECK_BYTES);
        assert_ne!(monitor.check().unwrap(), stale);
    }
}

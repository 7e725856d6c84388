//! The clock that leases are measured with: it goes on while the machine sleeps.
//!
//! `Instant` stands still during a suspend on Linux, and a lease does not. `/proc/uptime` counts
//! suspends, in steps of 10 ms; the larger of the two is taken, so that this clock is never behind
//! and at most 10 ms ahead, which the lease's margin covers. Elsewhere, or without `/proc`, it is
//! `Instant` alone, and a machine that was suspended may notice the end of its lease late.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Microseconds since it was made; never goes back.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    uptime: Option<(File, u64)>,
    latest: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let uptime = File::open("/proc/uptime").ok();
        let uptime = uptime.and_then(|file| read_uptime(&file).map(|start| (file, start)));
        Self {
            start: Instant::now(),
            uptime,
            latest: AtomicU64::new(0),
        }
    }

    pub(crate) fn now_us(&self) -> u64 {
        let awake = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let boot = self.uptime.as_ref().and_then(|(file, start)| {
            let now = read_uptime(file)?;
            Some(now.saturating_sub(*start))
        });
        let now = awake.max(boot.unwrap_or(0));
        self.latest.fetch_max(now, Ordering::Relaxed).max(now)
    }
}

#[cfg(unix)]
fn read_uptime(file: &File) -> Option<u64> {
    use std::os::unix::fs::FileExt;
    let mut text = [0; 64];
    let count = file.read_at(&mut text, 0).ok()?;
    parse_uptime(text.get(..count)?)
}

#[cfg(not(unix))]
fn read_uptime(_: &File) -> Option<u64> {
    None
}

/// `12345.67 …` in seconds, to microseconds.
fn parse_uptime(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, hundredths) = text.split_ascii_whitespace().next()?.split_once('.')?;
    let seconds: u64 = seconds.parse().ok()?;
    let hundredths: u64 = hundredths.parse().ok()?;
    Some(seconds.checked_mul(1_000_000)? + hundredths.min(99) * 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_read_in_microseconds() {
        assert_eq!(parse_uptime(b"12345.67 999.99\n"), Some(12_345_670_000));
        assert_eq!(parse_uptime(b"0.05 0.00\n"), Some(50_000));
        assert_eq!(parse_uptime(b"nonsense"), None);
        assert_eq!(parse_uptime(b""), None);
    }

    #[test]
    fn it_never_goes_back() {
        let clock = Clock::new();
        let mut last = 0;
        for _ in 0..1_000 {
            let now = clock.now_us();
            assert!(now >= last);
            last = now;
        }
    }
}

//! What a person may kill and see come back: a host or a sample node of `dev`.
//!
//! Holds: what was killed is away until its time has come, and what could not come back is away
//! again for a while. It must not know what it is that comes and goes.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// Something, and whether it is there.
pub(crate) enum Presence<T, E> {
    Up(T),
    /// Killed; comes back then.
    Down(Instant),
    /// Starting again.
    Coming(JoinHandle<Result<T, E>>),
}

impl<T, E> Presence<T, E> {
    /// Away for so long.
    pub(crate) fn down(pause: Duration) -> Self {
        Self::Down(Instant::now() + pause)
    }

    /// It, when it is there.
    pub(crate) fn up(&self) -> Option<&T> {
        match self {
            Self::Up(it) => Some(it),
            Self::Down(_) | Self::Coming(_) => None,
        }
    }

    /// Seconds until it comes back; none when it is there.
    pub(crate) fn away(&self) -> Option<u64> {
        match self {
            Self::Up(_) => None,
            Self::Down(until) => {
                Some(until.saturating_duration_since(Instant::now()).as_secs() + 1)
            }
            Self::Coming(_) => Some(0),
        }
    }

    /// Whether its time to come back has come.
    pub(crate) fn is_due(&self) -> bool {
        matches!(self, Self::Down(until) if *until <= Instant::now())
    }

    /// Sees whether a return has ended. One that failed leaves it away for `pause`; why, if it said so.
    pub(crate) async fn returned(&mut self, pause: Duration) -> Option<E> {
        let Self::Coming(task) = self else {
            return None;
        };
        if !task.is_finished() {
            return None;
        }
        let (now, failed) = match task.await {
            Ok(Ok(it)) => (Self::Up(it), None),
            Ok(Err(error)) => (Self::down(pause), Some(error)),
            Err(_) => (Self::down(pause), None),
        };
        *self = now;
        failed
    }
}

//! The host's clocks and its dice: the only place of this crate that reads the time for the replica,
//! or makes up a number.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maitred_replica::Now;
use rustix::time::{ClockId, clock_gettime};

/// Microseconds of the boot-time clock: it never goes back, and counts while the machine sleeps, so
/// that a lease does not outlive a suspended laptop or a paused virtual machine.
pub(crate) fn mono_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// Milliseconds since 1970; 0 on a machine that believes to be before that.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Both at once.
pub(crate) fn now() -> Now {
    Now {
        mono_us: mono_us(),
        wall_ms: wall_ms(),
    }
}

/// A number that nobody can foresee; not 0. The standard library seeds its hashers from the system,
/// which is chance enough for identities, elections and pauses.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(mono_us()).max(1)
}

/// Half of a pause to all of it, by chance, so that those who wait for the same thing do not come
/// back together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let half = pause / 2;
    let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_micros(random() % span)
}

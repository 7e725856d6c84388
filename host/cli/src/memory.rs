//! One setting of the system's allocator, made before there is a second thread.
//!
//! glibc keeps small pieces that were freed in lists of their own, and joins all of them at once, under
//! the lock that every allocation needs, when something large is freed. After a snapshot of 1,000,000
//! records that stood everything still for 0.4 s; without those lists the longest pause is some 10 ms
//! (`cargo bench -p maitred-registry --bench snapshot`). The price is some 13 % of the changes a second
//! that three hosts in one process reach at 1,024 in flight.

/// Makes it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "mallopt has no safe form; it only must not run beside an allocation, and there is one thread yet"
)]
pub(crate) fn settle() {
    // A setting that is refused leaves things as they were.
    // SAFETY: called first in `main`, before any thread is started.
    unsafe { libc::mallopt(libc::M_MXFAST, 0) };
}

/// Other allocators have no such lists.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn settle() {}

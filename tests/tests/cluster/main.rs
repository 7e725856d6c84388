//! Real processes: hosts started from the built program, alone and in groups of three, game nodes on
//! the real client, kills, pauses, restarts, lost disks and bad networks.
//!
//! What only a kernel can show is shown here; what a seed can find is found elsewhere. The host is
//! the `maitred` program itself, found beside this test (and built, when it is not there).

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod bad_nodes;
mod disk_loss;
mod failover;
mod group;
#[path = "../../../host/sandbox/tests/support/guests.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the sandbox's tests use all of it"
)]
mod guests;
mod host;
mod hostile;
mod kill;
mod leader_kills;
mod levels;
mod nodes;
mod partitions;
mod pauses;
mod rolling;
mod snapshots;
mod strangers;
mod swap;

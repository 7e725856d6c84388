//! Real processes: a host started from the built program, game nodes on the real client, kills.
//!
//! What only a kernel can show is shown here; what a seed can find is found elsewhere. The host is
//! the `maitred` program itself, found beside this test (and built, when it is not there).

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod bad_nodes;
mod host;
mod kill;
mod nodes;
mod swap;

//! What must survive: each file damages, fills up or cuts short, and then looks at what is still there.
//!
//! Nothing here needs privileges, a file system of its own, or time to pass.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod damage;
mod data_dir;
mod decisions;
mod disk;
mod faulty_disk;
mod inputs;
mod install;
mod log;
mod snapshot;
mod snapshot_tools;
mod snapshot_transfer;
#[path = "../support/mod.rs"]
mod support;

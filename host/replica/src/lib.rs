//! One replica of the group: `step(input)`, then `effects`.
//!
//! This crate decides what a host does: whom it answers, what it proposes, when a process is
//! started again, when a node's lease has run out. It owns Raft and the registry, and nothing of
//! the outside: no clock (time is an argument), no socket, no file, no thread, no Wasm. The same
//! code runs in production and in a simulation.

mod admit;
mod admit_member;
mod advice;
mod apply;
mod attach;
mod compensation;
mod config;
mod consensus;
mod due;
mod effect;
mod guarding;
mod health;
mod holding;
mod input;
mod joined;
mod leading;
mod leases;
mod log;
mod membership;
mod moves;
mod party;
pub mod peer;
mod placing;
mod proposals;
mod reads;
mod recreation;
mod replica;
mod saga;
mod spawning;
mod standing;
mod start;
mod timer;
mod verdict;
mod waiting;

pub use config::{Config, LEVEL_MAX};
pub use effect::{
    Answer, Compensation, Effect, Examination, Peer, Persist, Question, SpawnJob, TakeSnapshot,
};
pub use input::{Advice, Disk, Input, Install, Now, Push, Spawned, Ticket, Verdict};
/// The simulator switches them on for both crates.
pub use maitred_registry::mutants;
pub use replica::Replica;
pub use start::{Recovered, RecoveredSnapshot, StartError};

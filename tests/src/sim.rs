//! A whole group, its nodes and its clients in one thread: one seed decides everything.
//!
//! Real are the replica, the registry, the leases and the client library's node agent. Simulated are the
//! clocks, the network, the disks, and the thin shells around the real parts. See `docs/SIMULATION.md`.
//!
//! Nothing here reads a clock, makes a thread within a run, or walks a map that has no order: the same
//! scenario gives the same run, event by event.

pub mod actor;
pub mod advice;
pub mod caller;
pub mod check;
pub mod client;
pub mod clock;
pub mod cover;
pub mod disk;
pub mod effects;
pub mod faults;
pub mod game;
pub mod guests;
pub mod host;
pub mod joining;
pub mod mutant;
pub mod network;
pub mod node;
pub mod operator;
pub mod ops;
pub mod own;
pub mod party;
pub mod plan;
pub mod queue;
pub mod run;
pub mod sessions;
pub mod shrink;
pub mod stage;
pub mod storage;
pub mod trace;
pub mod wire;
pub mod world;

pub use plan::Scenario;
pub use run::{Report, Sum, explain, run, run_many};
pub use world::Violation;

//! What is durable: the data directory, the Raft log, snapshots, modules' bytes, decisions and what
//! they were made from.
//!
//! This crate decides when bytes count as written, how they are found again after a crash, and what
//! is refused because it is damaged. What it acknowledged, it gives back or says that it cannot; it
//! never guesses. Everything is synchronous and is called from dedicated threads.
//!
//! It knows nothing of what the bytes mean: entries, snapshot chunks and modules are opaque. It must
//! never name a runtime, a socket, wasmtime, the registry or the replica.

pub mod blobs;
pub mod data_dir;
pub mod decisions;
pub mod error;
mod files;
mod identity;
pub mod inputs;
pub mod log;
mod log_cut;
mod log_engine;
mod log_scan;
pub mod snapshot_file;
mod snapshot_read;
pub mod snapshot_tools;
pub mod snapshot_transfer;
pub mod space;

pub use blobs::Blobs;
pub use data_dir::DataDir;
pub use decisions::{DecisionOptions, Decisions};
pub use error::StorageError;
pub use identity::{FORMAT_VERSION, HostIdentity};
pub use inputs::{Inputs, InputsOptions, Kept};
pub use log::{Log, LogOptions, LogStart, RecoveredLog, WriteTask};
pub use log_scan::TornTail;
pub use snapshot_file::{SnapshotMeta, SnapshotWriter, Snapshots};
pub use snapshot_read::SnapshotReader;
pub use snapshot_tools::{RestoreOptions, SnapshotInfo};
pub use snapshot_transfer::{SnapshotFile, SnapshotOffer, SnapshotReceiver};
pub use space::{Space, SpaceLimits, SpaceMonitor, SpaceProbe};

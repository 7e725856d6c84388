//! A host: the threads, the connections, and what passes between them.
//!
//! This crate wires the others together and decides little: who runs on which thread, what waits in
//! which bounded queue, in which order things start and end. The replica decides what is done, the
//! sandbox what a module may do, the storage what is durable, the transport how bytes travel. All
//! `select!` loops of a host are here, and nothing clever is.
//!
//! ```text
//! client_service --requests--> inbox --> replica_loop --answers--> router --> link --> client
//!                                ^            |
//!      lanes, callback_runner, --'            +--> storage_thread, snapshot_thread, decision_store,
//!      storage_thread, nodes                       lanes, callback_runner, nodes, module_service
//! ```

mod activate;
mod boot;
mod callback_runner;
mod client_service;
mod clock;
mod config;
mod critical;
mod decision_store;
mod error;
mod host;
mod http;
mod inbox;
mod link;
mod metrics;
mod module_service;
mod node_service;
mod nodes;
mod replica_loop;
mod router;
mod run;
mod running;
mod slog_bridge;
mod snapshot_thread;
mod standard_modules;
mod storage_thread;
mod threads;
mod upload;

pub use config::{ConfigError, DiskConfig, GuestConfig, ServerConfig, SnapshotConfig, TlsFiles};
pub use error::{Failed, StartError};
pub use maitred_sandbox::{CompilerCommand, compile_child};
pub use maitred_storage::SpaceProbe;
pub use maitred_transport::Identity;
pub use run::Server;
pub use running::Running;

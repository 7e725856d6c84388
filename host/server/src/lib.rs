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
//!      fence_runner, nodes,                        lanes, callback_runner, fence_runner, nodes,
//!      storage_thread, guard_watch,                module_service, peers (links to other hosts),
//!      peer_service (other hosts)                  bulk; lanes --decided--> recorder
//! ```

mod activate;
mod advice_runner;
mod boot;
mod bulk;
mod by_name;
mod callback_runner;
mod client_service;
mod clock;
mod cluster_config;
mod config;
mod critical;
mod decision_store;
mod error;
mod fence_runner;
mod guard_watch;
mod histogram;
mod host;
mod http;
mod inbox;
mod join;
mod journal;
mod lease_watch;
mod link;
mod metrics;
mod module_service;
mod node_service;
mod nodes;
mod peer_service;
mod peers;
mod recorder;
mod replay;
mod replica_loop;
mod router;
mod run;
mod running;
mod runs;
mod slog_bridge;
mod snapshot_load;
mod snapshot_thread;
pub mod snapshot_tool;
mod standard_modules;
mod storage_thread;
mod threads;
mod trust;
mod upload;
mod verdicts;

pub use cluster_config::{FailoverConfig, RaftTimes};
pub use config::{ConfigError, DiskConfig, GuestConfig, ServerConfig, SnapshotConfig, TlsFiles};
pub use error::{Failed, StartError};
pub use maitred_sandbox::{CompilerCommand, compile_child};
pub use maitred_storage::{HostIdentity, SpaceProbe};
pub use maitred_transport::Identity;
pub use run::Server;
pub use running::{Began, Running};

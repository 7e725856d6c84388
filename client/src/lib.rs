//! What a game node links: every verb of the registry as a typed method, and the node agent.
//!
//! This crate decides how requests are retried, when an outcome is unknown, how a node keeps its
//! lease and when it fences itself. It holds one connection a host, with many requests under way
//! on it. It reaches the network only through maitred-transport, and must never name Raft or
//! wasmtime. [`agent`] is pure: time is an argument, so that a simulator can drive it.

mod activation;
pub mod agent;
mod builder;
mod call;
mod clock;
mod conn;
mod create;
mod dial;
mod download;
mod error;
mod failover;
mod group;
mod modules;
mod node;
mod node_builder;
mod node_thread;
mod party;
mod pool;
mod silence;
mod snapshot;
mod tombstones;
mod trial;
mod verbs;
mod watchdog;

#[cfg(test)]
mod failover_tests;
#[cfg(test)]
mod fake_host;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod module_tests;
#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod request_tests;

pub use activation::Activation;
pub use agent::{SpawnError, Spawned};
pub use builder::Builder;
pub use create::Create;
pub use error::{Cause, Error, Fatal};
pub use failover::PendingPage;
pub use group::HostStatus;
pub use maitred_protocol as protocol;
pub use maitred_transport::Identity;
pub use modules::Pushed;
pub use node::{NodeHandle, NodeHandler, SpawnRequest};
pub use node_builder::NodeBuilder;
pub use party::{Party, PartyCreated};
pub use snapshot::SavedFile;
pub use trial::InputsFile;
pub use verbs::{Client, Created, Found, Page, ReadFrom};
pub use watchdog::Watchdog;

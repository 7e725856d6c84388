//! Why a host does not start, and why it stopped: in words for its operator.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use maitred_protocol::HostName;
use maitred_registry::SnapshotError;
use maitred_sandbox::SandboxError;
use maitred_storage::StorageError;
use maitred_transport::{BindError, LinkError, TlsError};

use crate::config::ConfigError;

/// Why a host does not start. Nothing was left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used: in use, of another version, damaged, not writable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The newest snapshot is sound as a file, and its content is not this program's.
    #[error(
        "the registry cannot be read from its snapshot: {0}; start the version of the program that wrote it"
    )]
    Snapshot(#[from] SnapshotError),
    /// The newest snapshot was written by another version.
    #[error(
        "the snapshot has content of version {found}, this program reads version {read}; start the version of the program that wrote it"
    )]
    SnapshotVersion {
        /// What the file says.
        found: u32,
        /// What this program reads.
        read: u32,
    },
    /// The log cannot be continued.
    #[error(transparent)]
    Replica(#[from] maitred_replica::StartError),
    /// The data directory is of a host that was being let into a cluster, and no host of it is named.
    #[error(
        "the host in {} has not been let into its cluster yet: start it with the join setting, as before", dir.display()
    )]
    NotJoined {
        /// The data directory.
        dir: PathBuf,
    },
    /// The data directory is of a host that was being let into a cluster under another name.
    #[error(
        "the data directory {} was made for a host named {name}, which has not been let into its cluster yet: start it with that name, or remove the directory", dir.display()
    )]
    OtherName {
        /// The data directory.
        dir: PathBuf,
        /// The name that it has.
        name: HostName,
    },
    /// The cluster does not let this host in, and will not.
    #[error("the cluster does not let this host in: {0}")]
    Join(String),
    /// This host and those of the cluster do not accept each other's certificates.
    #[error("this host and the cluster's do not accept each other's certificates: {0}")]
    Strangers(String),
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate is not one that anybody would accept of a host: of another kind, or expired.
    #[error("nobody could connect to this host: {0}")]
    Certificate(#[source] LinkError),
    /// The UDP port cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The TCP port for metrics cannot be opened.
    #[error("cannot open TCP {address} for metrics: {source}; choose another address for http")]
    Http {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Modules cannot be run.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// This program's own path is not known, so it cannot be started again to compile modules.
    #[error("this program's own path is not known ({0}); name a compiler in the configuration")]
    Program(#[source] io::Error),
    /// The system gives no more threads.
    #[error("a thread could not be started: {0}; raise the limit on threads")]
    Thread(#[source] io::Error),
    /// A part of the start itself panicked: a bug.
    #[error("the start was broken off: {0}; this is a bug, please report it")]
    Broken(String),
}

/// The host broke and serves nobody any more; its data is as safe as after a crash. Whoever runs it
/// should exit with an error, and start it again if that can help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the host had to stop: {what}")]
pub struct Failed {
    /// What broke, and what can be done.
    pub what: String,
    /// Whether starting it again can help; not when it was removed from its cluster, or its program
    /// is too old for it.
    pub restart: bool,
}

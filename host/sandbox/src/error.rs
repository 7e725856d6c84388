//! What can go wrong with the sandbox itself, and with a module. A failing decision is neither: it
//! falls back (`lane`).

use std::fmt;
use std::io;
use std::path::PathBuf;

use maitred_registry::decide::cut;

use crate::limits::REASON_BYTES_MAX;

/// The sandbox could not be set up: the host does not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The operator's limits contradict each other.
    #[error("the limit {limit} must be {bounds}")]
    Limit {
        /// Which.
        limit: &'static str,
        /// What it must be.
        bounds: &'static str,
    },
    /// The engine could not be made; mostly because address space could not be reserved.
    #[error(
        "the WebAssembly engine could not be set up (does a limit on address space apply, as with `ulimit -v`?): {0}"
    )]
    Engine(String),
    /// The directory for machine code cannot be used.
    #[error("the directory for compiled modules {} cannot be used: {source}", .path.display())]
    Cache {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory for machine code could be written by others, whose code would be run.
    #[error("the directory for compiled modules {} must belong to this user and be writable by no other (chmod 700)", .0.display())]
    CacheNotPrivate(PathBuf),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[source] io::Error),
}

/// What was being done with a module; the names are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Taking its bytes.
    Receiving,
    /// Reading them, looking for what would keep the compiler busy.
    Scanning,
    /// Comparing its imports and exports with the world.
    CheckingTheWorld,
    /// Compiling.
    Compiling,
    /// Making an instance.
    Instantiating,
    /// Calling `describe`.
    Describing,
    /// Calling `validate` with a configuration.
    Validating,
    /// Calling it with made-up nodes and records.
    Trying,
}

impl Stage {
    /// Its name in `Rejection::Module`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Scanning => "scanning",
            Self::CheckingTheWorld => "checking the world",
            Self::Compiling => "compiling",
            Self::Instantiating => "instantiating",
            Self::Describing => "describing",
            Self::Validating => "validating the configuration",
            Self::Trying => "trying",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A module is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("module rejected while {stage}: {reason}")]
pub struct ModuleError {
    /// What was being done.
    pub stage: Stage,
    /// What is wrong and what to do; names the limit when one was hit.
    pub reason: String,
}

impl ModuleError {
    pub(crate) fn new(stage: Stage, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        Self { stage, reason }
    }

    /// An import or export is of another type than the world's.
    pub(crate) fn of_world(error: wasmtime::Error) -> Self {
        Self::new(
            Stage::CheckingTheWorld,
            cut(format!("it differs from the world: {error:#}")),
        )
    }
}

//! What a policy may ask of its surroundings, as traits: the seam between policy and host.
//!
//! In a component the traits are the WIT's imports; in a unit test they are whatever the test says.
//! This file names neither: a policy compiles and runs the same on both sides.

use crate::{Level, Process, StartFailure, Started};

/// The interface `host`.
pub trait Host {
    /// Writes a line to the host's log under the module's name. At most 512 bytes are kept, and 16
    /// lines a call; the rest is dropped and counted.
    fn log(&self, level: Level, text: &str);

    /// The JSON text that this version was activated with, at most 64 KiB; `{}` when there is none.
    /// See [`crate::config`] for reading it.
    fn config(&self) -> String;
}

/// The interface `node`: the node that was chosen.
pub trait Node {
    /// Tells the node to start the process with `payload` (at most 64 KiB) and waits for its answer
    /// for `deadline_ms` milliseconds (1 to 600,000), cut to the deadline of the create.
    ///
    /// A node starts an incarnation at most once: a second call returns the first answer.
    ///
    /// # Errors
    /// `Busy` and `Failed` are the node's no; after `NoAnswer` nobody knows whether the process runs.
    fn start(&self, payload: &[u8], deadline_ms: u32) -> Result<Started, StartFailure>;
}

/// The interface `records`: read access to the registry.
pub trait Records {
    /// Looks a process up, at most 16 times a call. None when there is no such process, when the
    /// key is out of bounds, or when the limit is reached.
    fn get(&self, process_type: &str, id: &str) -> Option<Process>;
}

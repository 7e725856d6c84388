//! What a policy may ask of its surroundings, as traits: the seam between policy and host.
//!
//! In a component the traits are the WIT's imports; in a unit test they are whatever the test says.
//! This file names neither: a policy compiles and runs the same on both sides.

use crate::{Level, Process, Slot, StartFailure, Started};

/// The interface `host`.
pub trait Host {
    /// Writes a line to the host's log under the module's name. At most 512 bytes are kept, 16 lines
    /// a call, and 100 a second of the module; the rest is dropped and counted.
    fn log(&self, level: Level, text: &str);

    /// The JSON text that this version was activated with, at most 64 KiB; `{}` when there is none.
    /// See [`crate::config`] for reading it.
    fn config(&self) -> String;
}

/// The interface `nodes`: the whole fleet, for scanners. Answers are about the moment of the call of
/// `scan`. Each call crosses the border: ask for a column of many slots at once.
pub trait Nodes {
    /// The nodes that passed the host's filter, in order of their slots.
    fn passed(&self) -> Vec<Slot>;

    /// Those of them that carry all of these labels; at most 32 pairs.
    fn matching(&self, labels: &[(String, String)]) -> Vec<Slot>;

    /// One feature for each of `slots`, in that order; NaN for a slot that is none, and throughout
    /// for a feature that the scanner did not name.
    fn column(&self, feature: &str, slots: &[Slot]) -> Vec<f32>;

    /// Names of nodes, in the order of `slots` (at most 1,024); empty for a slot that is none.
    fn names(&self, slots: &[Slot]) -> Vec<String>;

    /// `count` of the nodes that passed (or all), drawn without replacement by `seed`.
    fn sample(&self, count: u32, seed: u32) -> Vec<Slot>;
}

/// The interface `node`: the node that was chosen.
pub trait Node {
    /// Tells the node to start the process with `payload` (at most 64 KiB) and waits for its answer
    /// for `deadline_ms` milliseconds (1 to 600,000), cut to the deadline of the create.
    ///
    /// A node starts an incarnation at most once: after a success a second call returns the first
    /// answer. After `Busy` or `Failed` it is another try on the same node, 16 at most a spawn.
    ///
    /// # Errors
    /// `Busy` and `Failed` are the node's no; after `NoAnswer` nobody knows whether the process runs.
    fn start(&self, payload: &[u8], deadline_ms: u32) -> Result<Started, StartFailure>;

    /// Undoes a start: this incarnation must not run, and the node refuses every later start of it.
    /// Waits `deadline_ms` milliseconds at most for the node to say so.
    ///
    /// # Errors
    /// After `NoAnswer` nobody knows whether the process runs.
    fn stop(&self, deadline_ms: u32) -> Result<(), StartFailure>;

    /// Waits for 1 to 10,000 milliseconds, cut to the create's deadline: a back-off between tries. Hooks
    /// do not wait.
    fn pause(&self, milliseconds: u32);
}

/// The interface `records`: read access to the registry.
pub trait Records {
    /// Looks a process up, at most 16 times a call. None when there is no such process, when the
    /// key is out of bounds, or when the limit is reached.
    fn get(&self, process_type: &str, id: &str) -> Option<Process>;
}

/// A host with another configuration: what `validate` shows to a policy.
pub(crate) struct Proposed<'a> {
    pub(crate) config: &'a str,
    pub(crate) host: &'a dyn Host,
}

impl Host for Proposed<'_> {
    fn log(&self, level: Level, text: &str) {
        self.host.log(level, text);
    }

    fn config(&self) -> String {
        self.config.to_owned()
    }
}

//! The trait that a callback implements.
//!
//! It decides what an author has to write, and nothing about how the call arrives: `glue` does.

use crate::{Host, Node, Placement, Records, Request, SpawnFailure, Started};

/// What a callback may reach during one spawn.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// Log and configuration.
    pub host: &'a dyn Host,
    /// The node that was chosen.
    pub node: &'a dyn Node,
    /// Other processes, as the registry knows them.
    pub records: &'a dyn Records,
}

/// A policy that carries out the start of a process on the node that was chosen.
/// [`export_callback!`](crate::export_callback) makes a component of it.
pub trait Callback: Default {
    /// For people, at most 64 bytes.
    const NAME: &'static str;
    /// For people, at most 64 bytes.
    const VERSION: &'static str;

    /// Takes what it needs from the configuration; called once for each instance, before all else.
    ///
    /// # Errors
    /// A sentence for the operator. Every spawn of the instance then gives up with it.
    fn configure(&mut self, _host: &dyn Host) -> Result<(), String> {
        Ok(())
    }

    /// Carries out the start. After a crash of the host it is called again for the same
    /// incarnation, so it must be idempotent for one incarnation, as [`Node::start`] is.
    ///
    /// # Errors
    /// `Elsewhere` to try another node while attempts and deadline allow it, `GiveUp` to end the
    /// create.
    fn spawn(
        &self,
        request: &Request,
        placement: &Placement,
        access: Access<'_>,
    ) -> Result<Started, SpawnFailure>;
}

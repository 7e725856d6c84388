//! The trait that a callback implements.
//!
//! It decides what an author has to write, and nothing about how the call arrives: `glue` does.

use crate::seam::Proposed;
use crate::{
    Advice, Ended, Hook, Host, Node, Placement, Records, Request, SpawnFailure, Started, config,
};

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
    /// The hooks that it wants; the host calls no other.
    const HOOKS: &'static [Hook] = &[];

    /// Takes what it needs from the configuration; called once for each instance, before all else.
    /// A policy that does not define it takes no configuration but `{}`.
    ///
    /// # Errors
    /// A sentence for the operator. Every spawn of the instance then gives up with it.
    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        config::nothing(&host.config())
    }

    /// Whether a configuration will do: what a fresh value makes of it in
    /// [`configure`](Self::configure), unless the policy says otherwise.
    ///
    /// # Errors
    /// A sentence for the operator, who is then refused.
    fn validate(config: &str, host: &dyn Host) -> Result<(), String> {
        Self::default().configure(&Proposed { config, host })
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

    /// A life that [`spawn`](Self::spawn) began, or may have begun, is given up, and the host has
    /// told the node to stop it; undoes what else `spawn` did. At least once for each such life, and
    /// only with [`Hook::Compensate`] in [`HOOKS`](Self::HOOKS).
    fn compensate(
        &self,
        _request: &Request,
        _placement: &Placement,
        _reason: &str,
        _host: &dyn Host,
        _records: &dyn Records,
    ) {
    }

    /// The node of a process was lost, and its type wants it created anew: only advice. With
    /// [`Hook::NodeLost`].
    fn on_node_lost(&self, _ended: &Ended, _host: &dyn Host, _records: &dyn Records) -> Advice {
        Advice::Usual
    }

    /// A process has ended by itself: only advice. With [`Hook::Exit`].
    fn on_exit(&self, _ended: &Ended, _host: &dyn Host, _records: &dyn Records) -> Advice {
        Advice::Usual
    }
}

//! The trait that a fence implements.
//!
//! It decides what an author has to write, and nothing about how the call arrives: `glue` does.

use crate::seam::Proposed;
use crate::{FenceVerdict, Host, LostNode, Records, config};

/// Milliseconds after which a fence may ask to be asked again.
pub const RETRY_MS: std::ops::RangeInclusive<u32> = 100..=60_000;

/// Bytes of a proof.
pub const PROOF_BYTES_MAX: usize = 512;

/// A policy that says whether a node whose lease has run out is really dead.
/// [`export_fence!`](crate::export_fence) makes a component of it.
///
/// What it says is believed: one that calls a node dead while its processes still run breaks
/// `restart = strict`. `Dead` needs evidence that cannot be wrong later; that nothing was heard of
/// the node is none.
pub trait Fence: Default {
    /// For people, at most 64 bytes.
    const NAME: &'static str;
    /// For people, at most 64 bytes.
    const VERSION: &'static str;

    /// Takes what it needs from the configuration; called once for each instance, before all else.
    /// A policy that does not define it takes no configuration but `{}`.
    ///
    /// # Errors
    /// A sentence for the operator. Every question to the instance is then answered with it.
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

    /// Looks for proof that this life of the node is over: `Dead` with the proof in words (at most
    /// 512 bytes), or `AliveOrUnknown` with the milliseconds (100 to 60,000) after which the host
    /// is to ask again.
    ///
    /// # Errors
    /// When the policy itself is broken; the host asks again, later each time.
    fn examine(
        &self,
        lost: &LostNode,
        host: &dyn Host,
        records: &dyn Records,
    ) -> Result<FenceVerdict, String>;
}

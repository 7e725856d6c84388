//! The trait that a selector implements.
//!
//! It decides what an author has to write, and nothing about how the call arrives: `glue` does.

use crate::{Ask, Candidates, Host, Lowest, Request, Slot};

/// A policy that chooses a node for a process. [`export_selector!`](crate::export_selector) makes a
/// component of it.
///
/// The host filters first (lease alive, not cordoned, hosts the type, labels, capacity left for the
/// demand, no earlier failed attempt) and checks the answer again afterwards.
pub trait Selector: Default {
    /// For people, at most 64 bytes.
    const NAME: &'static str;
    /// For people, at most 64 bytes.
    const VERSION: &'static str;
    /// The columns that [`select`](Self::select) gets, in this order, at most 32 of those that
    /// `selector.manifest` in `wit/policy.wit` lists.
    const FEATURES: &'static [&'static str] = &[];

    /// Takes what it needs from the configuration; called once for each instance, before all else.
    ///
    /// # Errors
    /// A sentence for the operator. Every decision of the instance is then answered with it, so
    /// that the host falls back and says so: a wrong configuration is never silently ignored.
    fn configure(&mut self, _host: &dyn Host) -> Result<(), String> {
        Ok(())
    }

    /// The columns, where they depend on the configuration; [`FEATURES`](Self::FEATURES) otherwise.
    fn features(&self) -> Vec<String> {
        Self::FEATURES.iter().map(|&name| name.to_owned()).collect()
    }

    /// Which candidates it wants to see; all of them (to the limit of 1,024) unless it says so.
    fn ask(&self) -> Ask {
        Ask::All
    }

    /// Chooses one of the candidates' slots, or none when no candidate will do.
    ///
    /// # Errors
    /// When the policy itself is broken: the host then uses its fallback for this decision.
    fn select(
        &self,
        request: &Request,
        candidates: Candidates<'_>,
        host: &dyn Host,
    ) -> Result<Option<Slot>, String>;
}

/// Asks for the `count` nodes (1 to 1,024) with the lowest value of `feature`, lowest first, ties
/// broken by the seed, unknown values last.
#[must_use]
pub fn lowest(feature: &str, count: u32) -> Ask {
    Ask::Lowest(Lowest {
        feature: feature.to_owned(),
        count,
    })
}

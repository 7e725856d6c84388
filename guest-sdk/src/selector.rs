//! The traits that choosing policies implement: [`Selector`], and [`Scanner`] for the whole fleet.
//!
//! It decides what an author has to write, and nothing about how the call arrives: `glue` does.

use crate::seam::Proposed;
use crate::{Answer, Ask, Candidates, Host, Lowest, Nodes, Request, config};

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
    /// Names of the terms that it scores by, in the order in which [`crate::compose`] gets them; at
    /// most 8 of at most 32 bytes. Without any, answers carry no scores and `explain` shows none.
    const TERMS: &'static [&'static str] = &[];

    /// Takes what it needs from the configuration; called once for each instance, before all else.
    /// A policy that does not define it takes no configuration but `{}`.
    ///
    /// # Errors
    /// A sentence for the operator. Every decision of the instance is then answered with it, so
    /// that the host falls back and says so: a wrong configuration is never silently ignored.
    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        config::nothing(&host.config())
    }

    /// Whether a configuration (JSON text of at most 64 KiB) will do. Asked before a version is
    /// activated with it: what a fresh value makes of it in [`configure`](Self::configure), unless
    /// the policy says otherwise.
    ///
    /// # Errors
    /// A sentence for the operator, who is then refused.
    fn validate(config: &str, host: &dyn Host) -> Result<(), String> {
        Self::default().configure(&Proposed { config, host })
    }

    /// The columns, where they depend on the configuration; [`FEATURES`](Self::FEATURES) otherwise.
    fn features(&self) -> Vec<String> {
        owned(Self::FEATURES)
    }

    /// Which candidates it wants to see; all of them (to the limit of 1,024) unless it says so.
    fn ask(&self) -> Ask {
        Ask::All
    }

    /// Chooses among the candidates' slots. `Ok(nodes.lowest(…).into())` for a plain choice; see
    /// [`Answer`] for the others.
    ///
    /// # Errors
    /// When the policy itself is broken: the host then uses its fallback for this decision.
    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        host: &dyn Host,
    ) -> Result<Answer, String>;
}

/// A policy that looks at the whole fleet to choose a node. A [`Selector`] is simpler and faster;
/// this is for policies that need more than 1,024 nodes, or other columns for every request.
/// [`export_scanner!`](crate::export_scanner) makes a component of it.
pub trait Scanner: Default {
    /// For people, at most 64 bytes.
    const NAME: &'static str;
    /// For people, at most 64 bytes.
    const VERSION: &'static str;
    /// The features that it may ask for with [`Nodes::column`]; at most 32.
    const FEATURES: &'static [&'static str] = &[];
    /// As in [`Selector::TERMS`].
    const TERMS: &'static [&'static str] = &[];

    /// As in [`Selector::configure`].
    ///
    /// # Errors
    /// A sentence for the operator. Every decision of the instance is then answered with it.
    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        config::nothing(&host.config())
    }

    /// As in [`Selector::validate`].
    ///
    /// # Errors
    /// A sentence for the operator, who is then refused.
    fn validate(config: &str, host: &dyn Host) -> Result<(), String> {
        Self::default().configure(&Proposed { config, host })
    }

    /// The features, where they depend on the configuration; [`FEATURES`](Self::FEATURES) otherwise.
    fn features(&self) -> Vec<String> {
        owned(Self::FEATURES)
    }

    /// Chooses among `nodes.passed()`, which is never empty here. [`Table`](crate::Table) fetches
    /// columns, over which everything works that works for a selector.
    ///
    /// # Errors
    /// When the policy itself is broken: the host then uses its fallback for this decision.
    fn scan(&self, request: &Request, nodes: &dyn Nodes, host: &dyn Host)
    -> Result<Answer, String>;
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

pub(crate) fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

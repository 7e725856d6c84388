//! One instance of a policy: configured once, or refused with the reason.
//!
//! The same instances run in a component and in the native harness, so that a unit test passes
//! through everything but the canonical ABI. Not for authors: only the macros of `export` and
//! [`crate::testing`] use it.

use crate::bindings::selector::exports::maitred::policy::selector::Candidates as Lists;
use crate::selector::owned;
use crate::{
    Access, Advice, Answer, Ask, Callback, CallbackManifest, Candidates, Ended, Fence,
    FenceManifest, FenceVerdict, Hook, Host, LostNode, Manifest, Nodes, Placement, Records,
    Request, Scanner, ScannerManifest, Scores, Selector, SpawnFailure, Started,
};

#[cfg(target_arch = "wasm32")]
pub use crate::imports::{HostImport, NodeImport, NodesImport, RecordsImport, log_panics};

/// A selector as one instance runs it.
pub struct SelectorInstance<S> {
    policy: Result<S, String>,
    columns: usize,
}

impl<S: Selector> SelectorInstance<S> {
    /// Makes and configures the policy.
    pub fn new(host: &dyn Host) -> Self {
        let mut policy = S::default();
        let policy = policy.configure(host).map(|()| policy);
        let columns = policy.as_ref().map_or(0, |policy| policy.features().len());
        Self { policy, columns }
    }

    /// `selector.describe`. A refused policy asks for as little as it can: one candidate, no column.
    pub fn describe(&self) -> Manifest {
        let (features, ask) = match &self.policy {
            Ok(policy) => (policy.features(), policy.ask()),
            Err(_) => (Vec::new(), Ask::Sample(1)),
        };
        Manifest {
            name: S::NAME.to_owned(),
            version: S::VERSION.to_owned(),
            features,
            terms: owned(S::TERMS),
            ask,
        }
    }

    /// `selector.select`.
    ///
    /// # Errors
    /// The policy's own, the reason why it refused its configuration, a list of the wrong length, or
    /// scores that do not fit `TERMS`.
    pub fn select(
        &self,
        request: &Request,
        lists: &Lists,
        host: &dyn Host,
    ) -> Result<Answer, String> {
        let policy = self.policy.as_ref().map_err(Clone::clone)?;
        let candidates = Candidates::new(&lists.slots, &lists.features, self.columns)?;
        let candidates = candidates.explained(!S::TERMS.is_empty());
        scored_by(S::TERMS, policy.select(request, candidates, host)?)
    }
}

/// A scanner as one instance runs it.
pub struct ScannerInstance<S>(Result<S, String>);

impl<S: Scanner> ScannerInstance<S> {
    /// Makes and configures the policy.
    pub fn new(host: &dyn Host) -> Self {
        let mut policy = S::default();
        Self(policy.configure(host).map(|()| policy))
    }

    /// `scanner.describe`.
    pub fn describe(&self) -> ScannerManifest {
        ScannerManifest {
            name: S::NAME.to_owned(),
            version: S::VERSION.to_owned(),
            features: self.0.as_ref().map_or_else(|_| Vec::new(), S::features),
            terms: owned(S::TERMS),
        }
    }

    /// `scanner.scan`.
    ///
    /// # Errors
    /// The policy's own, the reason why it refused its configuration, or scores that do not fit
    /// `TERMS`.
    pub fn scan(
        &self,
        request: &Request,
        nodes: &dyn Nodes,
        host: &dyn Host,
    ) -> Result<Answer, String> {
        let policy = self.0.as_ref().map_err(Clone::clone)?;
        scored_by(S::TERMS, policy.scan(request, nodes, host)?)
    }
}

/// The answer with the scores that `terms` name: none of them, or as many for each node. Inlined, so
/// that it is nothing for a policy without terms.
#[inline(always)]
fn scored_by(terms: &[&str], answer: Answer) -> Result<Answer, String> {
    if terms.is_empty() {
        return Ok(answer.with_scores(Scores::none()));
    }
    if answer.scores.values.len() == answer.scores.slots.len() * terms.len() {
        Ok(answer)
    } else {
        Err("the scores are not one for each of TERMS".to_owned())
    }
}

/// A callback as one instance runs it.
pub struct CallbackInstance<C>(Result<C, String>);

impl<C: Callback> CallbackInstance<C> {
    /// Makes and configures the policy.
    pub fn new(host: &dyn Host) -> Self {
        let mut policy = C::default();
        Self(policy.configure(host).map(|()| policy))
    }

    /// `callback.describe`.
    pub fn describe(&self) -> CallbackManifest {
        CallbackManifest {
            name: C::NAME.to_owned(),
            version: C::VERSION.to_owned(),
            hooks: C::HOOKS.to_vec(),
        }
    }

    /// `callback.spawn`.
    ///
    /// # Errors
    /// The policy's own; `GiveUp` when it refused its configuration, since no other node helps.
    pub fn spawn(
        &self,
        request: &Request,
        placement: &Placement,
        access: Access<'_>,
    ) -> Result<Started, SpawnFailure> {
        let policy = self
            .0
            .as_ref()
            .map_err(|reason| SpawnFailure::GiveUp(reason.clone()))?;
        policy.spawn(request, placement, access)
    }

    /// `callback.compensate`; nothing when the policy refused its configuration.
    pub fn compensate(
        &self,
        request: &Request,
        placement: &Placement,
        reason: &str,
        host: &dyn Host,
        records: &dyn Records,
    ) {
        if let Ok(policy) = &self.0 {
            policy.compensate(request, placement, reason, host, records);
        }
    }

    /// `callback.on-node-lost` or `callback.on-exit`; the usual when the policy refused its
    /// configuration.
    pub fn advise(
        &self,
        hook: Hook,
        ended: &Ended,
        host: &dyn Host,
        records: &dyn Records,
    ) -> Advice {
        match (&self.0, hook) {
            (Ok(policy), Hook::NodeLost) => policy.on_node_lost(ended, host, records),
            (Ok(policy), Hook::Exit) => policy.on_exit(ended, host, records),
            (Ok(_), Hook::Compensate) | (Err(_), _) => Advice::Usual,
        }
    }
}

/// A fence as one instance runs it.
pub struct FenceInstance<F>(Result<F, String>);

impl<F: Fence> FenceInstance<F> {
    /// Makes and configures the policy.
    pub fn new(host: &dyn Host) -> Self {
        let mut policy = F::default();
        Self(policy.configure(host).map(|()| policy))
    }

    /// `fence.describe`.
    pub fn describe(&self) -> FenceManifest {
        FenceManifest {
            name: F::NAME.to_owned(),
            version: F::VERSION.to_owned(),
        }
    }

    /// `fence.examine`.
    ///
    /// # Errors
    /// The policy's own, or the reason why it refused its configuration.
    pub fn examine(
        &self,
        lost: &LostNode,
        host: &dyn Host,
        records: &dyn Records,
    ) -> Result<FenceVerdict, String> {
        let policy = self.0.as_ref().map_err(Clone::clone)?;
        policy.examine(lost, host, records)
    }
}

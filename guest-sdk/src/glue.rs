//! One instance of a policy, and the macros that connect it to the generated bindings.
//!
//! The same [`SelectorInstance`], [`CallbackInstance`] and [`FenceInstance`] run in a component and
//! in the native harness, so that a unit test passes through everything but the canonical ABI. Not for authors:
//! only the macros and [`crate::testing`] use it.

use crate::bindings::selector::exports::maitred::policy::selector::Candidates as Lists;
use crate::{
    Access, Ask, Callback, CallbackManifest, Candidates, Fence, FenceManifest, Host, LostNode,
    Manifest, Placement, Records, Request, Selector, Slot, SpawnFailure, Started, Verdict,
};

#[cfg(target_arch = "wasm32")]
pub use crate::imports::{HostImport, NodeImport, RecordsImport, log_panics};

/// A selector as one instance runs it: configured, or refused with the reason.
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
            ask,
        }
    }

    /// `selector.select`.
    ///
    /// # Errors
    /// The policy's own, the reason why it refused its configuration, or a list of the wrong length.
    pub fn select(
        &self,
        request: &Request,
        lists: &Lists,
        host: &dyn Host,
    ) -> Result<Option<Slot>, String> {
        let policy = self.policy.as_ref().map_err(Clone::clone)?;
        let candidates = Candidates::new(&lists.slots, &lists.features, self.columns)?;
        policy.select(request, candidates, host)
    }
}

/// A callback as one instance runs it: configured, or refused with the reason.
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
}

/// A fence as one instance runs it: configured, or refused with the reason.
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
    ) -> Result<Verdict, String> {
        let policy = self.0.as_ref().map_err(Clone::clone)?;
        policy.examine(lost, host, records)
    }
}

/// Makes a component of the world `selector-module` of a type that is a [`Selector`]; once a crate.
///
/// Natively it expands to nothing, so that one test program can link many selectors.
#[macro_export]
macro_rules! export_selector {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::selector as bindings;
            use $crate::glue::{HostImport, SelectorInstance, log_panics};

            struct Module;

            ::std::thread_local! {
                static INSTANCE: SelectorInstance<$policy> = {
                    log_panics();
                    SelectorInstance::new(&HostImport)
                };
            }

            impl bindings::exports::maitred::policy::selector::Guest for Module {
                fn describe() -> $crate::Manifest {
                    INSTANCE.with(|instance| instance.describe())
                }

                fn select(
                    request: $crate::Request,
                    candidates: bindings::exports::maitred::policy::selector::Candidates,
                ) -> Result<Option<$crate::Slot>, String> {
                    INSTANCE.with(|instance| instance.select(&request, &candidates, &HostImport))
                }
            }

    bindings::export_selector_bindings!(Module with_types_in bindings);
        };
    };
}

/// Makes a component of the world `callback-module` of a type that is a [`Callback`]; once a crate.
///
/// Natively it expands to nothing, so that one test program can link many callbacks.
#[macro_export]
macro_rules! export_callback {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::callback as bindings;
            use $crate::glue::{
                CallbackInstance, HostImport, NodeImport, RecordsImport, log_panics,
            };

            struct Module;

            ::std::thread_local! {
                static INSTANCE: CallbackInstance<$policy> = {
                    log_panics();
                    CallbackInstance::new(&HostImport)
                };
            }

            impl bindings::exports::maitred::policy::callback::Guest for Module {
                fn describe() -> $crate::CallbackManifest {
                    INSTANCE.with(|instance| instance.describe())
                }

                fn spawn(
                    request: $crate::Request,
                    placement: $crate::Placement,
                ) -> Result<$crate::Started, $crate::SpawnFailure> {
                    let access = $crate::Access {
                        host: &HostImport,
                        node: &NodeImport,
                        records: &RecordsImport,
                    };
                    INSTANCE.with(|instance| instance.spawn(&request, &placement, access))
                }
            }

    bindings::export_callback_bindings!(Module with_types_in bindings);
        };
    };
}

/// Makes a component of the world `fence-module` of a type that is a [`Fence`]; once a crate.
///
/// Natively it expands to nothing, so that one test program can link many fences.
#[macro_export]
macro_rules! export_fence {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::fence as bindings;
            use $crate::glue::{FenceInstance, HostImport, RecordsImport, log_panics};

            struct Module;

            ::std::thread_local! {
                static INSTANCE: FenceInstance<$policy> = {
                    log_panics();
                    FenceInstance::new(&HostImport)
                };
            }

            impl bindings::exports::maitred::policy::fence::Guest for Module {
                fn describe() -> $crate::FenceManifest {
                    INSTANCE.with(|instance| instance.describe())
                }

                fn examine(lost: $crate::LostNode) -> Result<$crate::Verdict, String> {
                    INSTANCE.with(|instance| instance.examine(&lost, &HostImport, &RecordsImport))
                }
            }

    bindings::export_fence_bindings!(Module with_types_in bindings);
        };
    };
}

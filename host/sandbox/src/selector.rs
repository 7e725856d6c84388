//! One instance of a selector, on the thread that it was given to. It chooses; that the choice is
//! one of the candidates is checked by `decide`, and what follows from a failure is its owner's
//! business (`lane`, `inspect`): after a failed call an instance is not to be called again.

use std::sync::Arc;

use maitred_registry::candidates::Slot;
use maitred_registry::decide::{Choose, Offer, cut};
use maitred_registry::feature::Manifest;
use wasmtime::Store;

use crate::bindings::selector::exports::maitred::policy::selector::Candidates;
use crate::bindings::selector::{SelectorModule, SelectorModulePre};
use crate::convert;
use crate::error::{ModuleError, Stage};
use crate::guest::{self, Budget, Failure, Guest};
use crate::limits::{CALLS_MAX, Limits};
use crate::meter::Deadline;

/// How a selector failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    Trap,
    Timeout,
    /// It answered an error itself.
    Guest,
}

/// See the head of this file.
pub(crate) struct Selector {
    store: Store<Guest>,
    exports: SelectorModule,
    manifest: Manifest,
    limits: Arc<Limits>,
    calls: u32,
    /// Replaced when its memory is larger.
    memory_bytes_worn: usize,
    failed: Option<Failed>,
}

impl Selector {
    /// Makes an instance and asks what it wants to see.
    pub(crate) fn new(
        module: &SelectorModulePre<Guest>,
        limits: &Arc<Limits>,
        name: Arc<str>,
        config: Arc<str>,
    ) -> Result<Self, ModuleError> {
        let mut store = guest::store(module.engine(), limits, name, config);
        let budget = |what| Budget {
            what,
            ms: limits.describe_ms,
            limit: "describe_ms",
        };
        let fail = |store: &Store<Guest>, stage, what, error| {
            let Failure { reason, .. } = store.data().failure(&error, limits, budget(what));
            ModuleError::new(stage, reason)
        };
        store.epoch_deadline_callback(|mut guest| Ok(guest.data_mut().deadline.tick()));
        // Begun before instantiation: start functions run in it.
        begin(&mut store, limits.describe_ms);
        let instance = module
            .instance_pre()
            .instantiate(&mut store)
            .map_err(|error| fail(&store, Stage::Instantiating, "a start function", error))?;
        // Linking compares names and imports; the shapes of exports are compared only here.
        let exports = SelectorModule::new(&mut store, &instance).map_err(ModuleError::of_world)?;
        begin(&mut store, limits.describe_ms);
        let manifest = exports
            .maitred_policy_selector()
            .call_describe(&mut store)
            .map_err(|error| fail(&store, Stage::Describing, "describe", error))?;
        let manifest = convert::manifest(manifest)
            .map_err(|reason| ModuleError::new(Stage::Describing, reason))?;
        let memory_bytes_worn = worn_at(store.data().room.memory_bytes, limits);
        Ok(Self {
            store,
            exports,
            manifest,
            limits: Arc::clone(limits),
            calls: 0,
            memory_bytes_worn,
            failed: None,
        })
    }

    /// How the last call failed, if it did.
    pub(crate) fn failed(&self) -> Option<Failed> {
        self.failed
    }

    /// Whether it has been used enough.
    pub(crate) fn worn(&self) -> bool {
        self.calls >= CALLS_MAX || self.memory_bytes() > self.memory_bytes_worn
    }

    /// Bytes of all its memories.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().room.memory_bytes
    }

    /// Lines that it wanted to log and that were dropped, since this was last asked.
    pub(crate) fn take_lines_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.store.data_mut().lines_dropped)
    }
}

/// Begins a call that may compute for so many milliseconds.
fn begin(store: &mut Store<Guest>, budget_ms: u64) {
    let guest = store.data_mut();
    guest.begin();
    guest.deadline = Deadline::of_ms(budget_ms);
    store.set_epoch_deadline(1);
}

/// The memory at which an instance is replaced: half the limit; for one that began near it
/// (interpreters), half of what was left.
pub(crate) fn worn_at(born_bytes: usize, limits: &Limits) -> usize {
    let left = limits.memory_bytes.saturating_sub(born_bytes);
    (limits.memory_bytes / 2).max(born_bytes + left / 2)
}

impl Choose for Selector {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn choose(&mut self, offer: Offer<'_>) -> Result<Option<Slot>, String> {
        self.calls += 1;
        self.failed = None;
        begin(&mut self.store, self.limits.select_ms);
        let candidates = Candidates {
            slots: offer.slots,
            features: offer.features,
        };
        let selector = self.exports.maitred_policy_selector();
        match selector.call_select(&mut self.store, convert::request(&offer), candidates) {
            Ok(Ok(choice)) => Ok(choice),
            Ok(Err(text)) => {
                self.failed = Some(Failed::Guest);
                Err(cut(format!("answered an error: {text}")))
            }
            Err(error) => {
                let budget = Budget {
                    what: "select",
                    ms: self.limits.select_ms,
                    limit: "select_ms",
                };
                let Failure { timeout, reason } =
                    self.store.data().failure(&error, &self.limits, budget);
                self.failed = Some(if timeout {
                    Failed::Timeout
                } else {
                    Failed::Trap
                });
                Err(reason)
            }
        }
    }
}

//! One instance of a selector or a scanner, on the thread that it was given to. It chooses; that the
//! choice is one of the candidates is checked by `decide`, and what follows from a failure is its
//! owner's business (`lane`, `inspect`, `rehearsal`): after a failed call an instance is not to be
//! called again.

use std::sync::Arc;

use maitred_registry::decide::{Answer, Choose, Offer, cut};
use maitred_registry::feature::{Feature, Manifest};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use crate::bindings::scanner::exports::maitred::policy::scanner as scanner_wit;
use crate::bindings::scanner::{ScannerModule, ScannerModulePre};
use crate::bindings::selector::exports::maitred::policy::selector as selector_wit;
use crate::bindings::selector::{SelectorModule, SelectorModulePre};
use crate::convert::{self, Ask};
use crate::error::{ModuleError, Stage};
use crate::guest::{self, Budget, Failure, Guest};
use crate::limits::{CALLS_MAX, Limits};
use crate::meter::Deadline;
use crate::nodes::View;
use crate::v0_1;

/// How a selector failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// It trapped, or no instance of it could be made.
    Trap,
    /// It computed too long.
    Timeout,
    /// It answered what is no answer.
    BadAnswer,
    /// It answered an error itself.
    Error,
}

/// A selector or a scanner that is linked and only needs an instance.
#[derive(Clone)]
pub(crate) enum SelectorPre {
    Selector(SelectorModulePre<Guest>),
    Scanner(ScannerModulePre<Guest>),
    Old(v0_1::SelectorModulePre<Guest>),
}

/// The exports of one instance.
enum Exports {
    Selector(SelectorModule),
    Scanner(ScannerModule),
    Old(v0_1::SelectorModule),
}

impl SelectorPre {
    fn instance_pre(&self) -> &InstancePre<Guest> {
        match self {
            Self::Selector(module) => module.instance_pre(),
            Self::Scanner(module) => module.instance_pre(),
            Self::Old(module) => module.instance_pre(),
        }
    }

    fn exports(&self, store: &mut Store<Guest>, instance: &Instance) -> wasmtime::Result<Exports> {
        Ok(match self {
            Self::Selector(_) => Exports::Selector(SelectorModule::new(store, instance)?),
            Self::Scanner(_) => Exports::Scanner(ScannerModule::new(store, instance)?),
            Self::Old(_) => Exports::Old(v0_1::SelectorModule::new(store, instance)?),
        })
    }
}

impl Exports {
    fn describe(&self, store: &mut Store<Guest>) -> wasmtime::Result<Result<Manifest, String>> {
        let (title, features, terms, ask) = match self {
            Self::Old(selector) => return v0_1::describe(selector, store),
            Self::Selector(selector) => {
                let described = selector.maitred_policy_selector().call_describe(store)?;
                let ask = match described.ask {
                    selector_wit::Ask::All => Ask::All,
                    selector_wit::Ask::Sample(count) => Ask::Sample(count),
                    selector_wit::Ask::Lowest(selector_wit::Lowest { feature, count }) => {
                        Ask::Lowest(feature, count)
                    }
                };
                let title = (described.name, described.version);
                (title, described.features, described.terms, ask)
            }
            Self::Scanner(scanner) => {
                let scanner_wit::Manifest {
                    name,
                    version,
                    features,
                    terms,
                } = scanner.maitred_policy_scanner().call_describe(store)?;
                ((name, version), features, terms, Ask::Scan)
            }
        };
        Ok(convert::manifest(title, &features, terms, ask))
    }

    fn validate(
        &self,
        store: &mut Store<Guest>,
        config: &str,
    ) -> wasmtime::Result<Result<(), String>> {
        match self {
            Self::Selector(selector) => selector
                .maitred_policy_selector()
                .call_validate(store, config),
            Self::Scanner(scanner) => scanner
                .maitred_policy_scanner()
                .call_validate(store, config),
            Self::Old(_) => Ok(Ok(())),
        }
    }

    fn choose(
        &self,
        store: &mut Store<Guest>,
        offer: &Offer<'_>,
    ) -> wasmtime::Result<Result<Answer, String>> {
        let answer = match self {
            Self::Old(selector) => return v0_1::choose(selector, store, offer),
            Self::Selector(selector) => {
                let candidates = selector_wit::Candidates {
                    slots: offer.slots,
                    features: offer.features,
                };
                let selector = selector.maitred_policy_selector();
                selector.call_select(store, convert::request(offer), candidates)?
            }
            Self::Scanner(scanner) => {
                let scanner = scanner.maitred_policy_scanner();
                scanner.call_scan(store, convert::request(offer))?
            }
        };
        Ok(answer.map(convert::answer))
    }
}

/// See the head of this file.
pub(crate) struct Selector {
    store: Store<Guest>,
    exports: Exports,
    manifest: Manifest,
    /// Those of a scanner's manifest.
    scanned: Option<Arc<[Feature]>>,
    limits: Arc<Limits>,
    calls: u32,
    /// Replaced when its memory is larger.
    memory_bytes_worn: usize,
    failed: Option<Failed>,
}

impl Selector {
    /// Makes an instance and asks what it wants to see.
    pub(crate) fn new(
        module: &SelectorPre,
        limits: &Arc<Limits>,
        name: Arc<str>,
        config: Arc<str>,
    ) -> Result<Self, ModuleError> {
        let (mut store, exports) = instantiate(module, limits, name, config)?;
        begin(&mut store, limits, limits.describe_ms);
        let manifest = exports
            .describe(&mut store)
            .map_err(|error| failed(&store, limits, Stage::Describing, "describe", &error))?
            .map_err(|reason| ModuleError::new(Stage::Describing, reason))?;
        let memory_bytes_worn = worn_at(store.data().room.memory_bytes, limits);
        let scanned = matches!(exports, Exports::Scanner(_));
        Ok(Self {
            store,
            exports,
            scanned: scanned.then(|| manifest.features.clone().into()),
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

    /// Fuel that the last call took; none where fuel is not counted.
    pub(crate) fn fuel(&self) -> Option<u64> {
        let left = self.store.get_fuel().ok()?;
        Some(fuel(&self.limits, self.limits.select_ms).saturating_sub(left))
    }
}

/// Has a module judge a configuration, on an instance that has it and is used for nothing else.
pub(crate) fn validate(
    module: &SelectorPre,
    limits: &Arc<Limits>,
    name: Arc<str>,
    config: &Arc<str>,
) -> Result<Result<(), String>, ModuleError> {
    let (mut store, exports) = instantiate(module, limits, name, Arc::clone(config))?;
    begin(&mut store, limits, limits.describe_ms);
    let validated = exports.validate(&mut store, config);
    validated.map_err(|error| failed(&store, limits, Stage::Validating, "validate", &error))
}

fn instantiate(
    module: &SelectorPre,
    limits: &Arc<Limits>,
    name: Arc<str>,
    config: Arc<str>,
) -> Result<(Store<Guest>, Exports), ModuleError> {
    let pre = module.instance_pre();
    let mut store = guest::store(pre.engine(), limits, name, config);
    store.epoch_deadline_callback(|mut guest| Ok(guest.data_mut().deadline.tick()));
    // Begun before instantiation: start functions run in it.
    begin(&mut store, limits, limits.describe_ms);
    let instance = pre.instantiate(&mut store).map_err(|error| {
        failed(
            &store,
            limits,
            Stage::Instantiating,
            "a start function",
            &error,
        )
    })?;
    // Linking compares names and imports; the shapes of exports are compared only here.
    let exports = module
        .exports(&mut store, &instance)
        .map_err(ModuleError::of_world)?;
    Ok((store, exports))
}

/// How a call reads that is none of a decision.
fn failed(
    store: &Store<Guest>,
    limits: &Limits,
    stage: Stage,
    what: &'static str,
    error: &wasmtime::Error,
) -> ModuleError {
    let budget = Budget {
        what,
        ms: limits.describe_ms,
        limit: "describe_ms",
    };
    let Failure { reason, .. } = store.data().failure(error, limits, budget);
    ModuleError::new(stage, reason)
}

/// Begins a call that may compute for so many milliseconds: in fuel where that is counted, so that
/// it ends at the same instruction each time, and the clock goes on; else by the clock.
fn begin(store: &mut Store<Guest>, limits: &Limits, budget_ms: u64) {
    let metered = store.data().metered && store.set_fuel(fuel(limits, budget_ms)).is_ok();
    let guest = store.data_mut();
    guest.begin();
    if !metered {
        guest.deadline = Deadline::of_ms(budget_ms);
    }
    store.set_epoch_deadline(1);
}

/// The fuel that stands for so many milliseconds.
fn fuel(limits: &Limits, ms: u64) -> u64 {
    limits.fuel_per_ms.saturating_mul(ms)
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

    fn choose(&mut self, offer: Offer<'_>) -> Result<Answer, String> {
        self.calls += 1;
        self.failed = None;
        begin(&mut self.store, &self.limits, self.limits.select_ms);
        if let Some(features) = &self.scanned {
            self.store.data_mut().view = Some(View::new(&offer, features));
        }
        let answer = self.exports.choose(&mut self.store, &offer);
        self.store.data_mut().view = None;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(text)) => {
                self.failed = Some(Failed::Error);
                Err(cut(format!("answered an error: {text}")))
            }
            Err(error) => {
                let budget = Budget {
                    what: if self.scanned.is_some() {
                        "scan"
                    } else {
                        "select"
                    },
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

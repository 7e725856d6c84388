//! What a module goes through before it is accepted: size, scan and world, compilation, an instance
//! under limits, its manifest, and a trial with made-up nodes. The trial of what runs on fibers is in
//! `trial`.
//!
//! The trial refuses what would only ever fall back: a selector that traps, takes too long, or
//! chooses what it was not offered. An error that the policy answers is a note, because a policy
//! may want a configuration, which an upload does not have.

use std::sync::Arc;

use maitred_protocol::{Digest, ModuleKind, ProcessKey, UploadStage};
use maitred_registry::candidates::{SelectRequest, Slot};
use maitred_registry::decide::{Choose as _, Offer};
use maitred_registry::feature::Manifest;
use maitred_registry::random::Random;

use crate::bindings::selector::SelectorModulePre;
use crate::error::{ModuleError, Stage};
use crate::guest::Guest;
use crate::limits::Limits;
use crate::sandbox::{Loaded, Sandbox};
use crate::selector::{Failed, Selector};
use crate::trial;

/// Calls of the trial in which memory may not grow.
const TRIAL_CALLS: u32 = 200;

/// Calls before that: interpreters fill their caches.
const WARM_CALLS: u32 = 20;

/// A module that is acceptable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// What it calls itself.
    pub title: String,
    /// The features that it asks for; none but a selector's.
    pub features: Vec<String>,
    /// What its author should know, although it is accepted.
    pub notes: Vec<String>,
}

impl Sandbox {
    /// Puts a module through everything that an upload goes through. Blocks for as long as it
    /// compiles, so call it on a thread that may. `progress` hears each stage as it begins. The
    /// machine code is kept, so that loading the module next is quick.
    ///
    /// # Errors
    /// What was being done, what is wrong, and what to do about it.
    pub fn inspect(
        &self,
        kind: ModuleKind,
        bytes: &[u8],
        mut progress: impl FnMut(UploadStage),
    ) -> Result<Inspected, ModuleError> {
        let module = self.make(Digest::of(bytes), kind, bytes, &mut progress)?;
        progress(UploadStage::Trying);
        match module {
            Loaded::Selector(module) => try_selector(&module, &self.limits),
            Loaded::Callback(module) => trial::callback(&module, &self.limits),
            Loaded::Fence(module) => trial::fence(&module, &self.limits),
        }
    }
}

fn try_selector(
    module: &SelectorModulePre<Guest>,
    limits: &Arc<Limits>,
) -> Result<Inspected, ModuleError> {
    let make = || Selector::new(module, limits, "upload".into(), "{}".into());
    let mut trial = Trial {
        selector: make()?,
        notes: Vec::new(),
    };
    let manifest = trial.selector.manifest().clone();
    // One, few and many; values as they come, and not known at all.
    for (count, known) in [(1, true), (8, true), (64, true), (8, false)] {
        if !trial.decide(&manifest, count, known, 1, limits)? {
            trial.selector = make()?;
        }
    }
    for seed in 0..WARM_CALLS {
        if !trial.decide(&manifest, 8, true, seed, limits)? {
            trial.selector = make()?;
        }
    }
    let before = trial.selector.memory_bytes();
    for seed in 0..TRIAL_CALLS {
        if !trial.decide(&manifest, 8, true, seed, limits)? {
            // It answers errors: what it would do otherwise cannot be tried.
            break;
        }
    }
    let grown = trial.selector.memory_bytes().saturating_sub(before);
    if grown > limits.trial_growth_bytes {
        let most = limits.trial_growth_bytes;
        return Err(failed(format!(
            "its memory grew by {grown} bytes in {TRIAL_CALLS} decisions over 8 nodes, of at most {most} (limit trial_growth_bytes): it leaks"
        )));
    }
    let features = manifest.features.iter().map(ToString::to_string).collect();
    Ok(Inspected {
        title: manifest.title,
        features,
        notes: trial.notes,
    })
}

struct Trial {
    selector: Selector,
    notes: Vec<String>,
}

impl Trial {
    /// One decision; false when the policy answered an error, and the instance is to be replaced.
    fn decide(
        &mut self,
        manifest: &Manifest,
        count: u32,
        known: bool,
        seed: u32,
        limits: &Limits,
    ) -> Result<bool, ModuleError> {
        let mut random = Random::new(u64::from(seed));
        // Slots with gaps: an index is not a slot.
        let slots: Vec<Slot> = (0..count).map(|row| row * 3 + 2).collect();
        let values = slots.len() * manifest.features.len();
        let mut value = || {
            if known {
                random.below(100) as f32
            } else {
                f32::NAN
            }
        };
        let features: Vec<f32> = (0..values).map(|_| value()).collect();
        let request = trial_request()?;
        let offer = Offer {
            request: &request,
            seed,
            time_s: 1_700_000_000,
            slots: &slots,
            features: &features,
        };
        let case = || {
            format!(
                "over {count} nodes{}",
                if known {
                    ""
                } else {
                    " whose features are not known (NaN)"
                }
            )
        };
        match self.selector.choose(offer) {
            Ok(None) => Ok(true),
            Ok(Some(slot)) if slots.contains(&slot) => Ok(true),
            Ok(Some(slot)) => Err(failed(format!(
                "{}, it chose {slot}, which is not one of the slots that it was offered ({slots:?}): answer with one of candidates.slots, not with an index",
                case()
            ))),
            Err(reason) => match self.selector.failed() {
                Some(Failed::Guest) => {
                    if self.notes.is_empty() {
                        self.notes.push(format!(
                            "in the trial, without a configuration, {} it {reason}",
                            case()
                        ));
                    }
                    Ok(false)
                }
                Some(Failed::Timeout) => {
                    let ms = limits.select_ms;
                    Err(failed(format!(
                        "{}, it took longer than {ms} ms (limit select_ms)",
                        case()
                    )))
                }
                Some(Failed::Trap) | None => Err(failed(format!("{}, it {reason}", case()))),
            },
        }
    }
}

fn trial_request() -> Result<SelectRequest, ModuleError> {
    Ok(SelectRequest {
        key: trial_key()?,
        group: Some("party".to_owned()),
        requester: None,
        require: Vec::new(),
        demand: 1,
        priority: 0,
        attempt: 1,
        exclude: Vec::new(),
        again: false,
    })
}

pub(crate) fn trial_key() -> Result<ProcessKey, ModuleError> {
    ProcessKey::new("trial", "one").map_err(|error| failed(error.to_string()))
}

pub(crate) fn failed(reason: String) -> ModuleError {
    ModuleError::new(Stage::Trying, reason)
}

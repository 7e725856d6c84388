//! One placement decision: filter, offer, choose, check, and fall back when the choice is no good.
//!
//! This is the same for a Wasm selector, a native one and the simulator: whoever chooses is behind
//! [`Choose`]. A decision never fails because a chooser did; it fails only when no node will do.

use std::sync::Arc;

use maitred_protocol::{
    Candidate, Chooser, Digest, Evidence, Fallback, ModuleName, NodeEpoch, NodeName, Refusal,
    RefusalReason, Why, limits,
};

use crate::candidates::{Fleet, NodeFacts, Refused, SelectRequest, Slot};
use crate::fallback;
use crate::feature::Manifest;
use crate::random::Random;

/// Which version of which module decides, and with what configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModuleRef {
    /// The name it is uploaded under.
    pub name: ModuleName,
    /// Its version.
    pub version: u32,
    /// The identity of its bytes.
    pub digest: Digest,
    /// Its configuration, JSON.
    pub config: Arc<str>,
    /// The index of the activation, which apply checks again.
    pub activated: u64,
}

/// What a chooser is offered.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// What is to be placed.
    pub request: &'a SelectRequest,
    /// The seed of this decision.
    pub seed: u32,
    /// Seconds since 1970.
    pub time_s: u32,
    /// The candidates; never empty.
    pub slots: &'a [Slot],
    /// Their features, row by row.
    pub features: &'a [f32],
}

/// Whatever chooses among candidates.
pub trait Choose {
    /// What it wants to see.
    fn manifest(&self) -> &Manifest;

    /// One of the slots, or none when no candidate will do.
    ///
    /// # Errors
    /// How the chooser failed, for people. The caller falls back.
    fn choose(&mut self, offer: Offer<'_>) -> Result<Option<Slot>, String>;
}

/// A decision to be made.
#[derive(Debug, Clone)]
pub struct SelectJob {
    /// Comes back with the decision.
    pub id: u64,
    /// What is to be placed.
    pub request: Arc<SelectRequest>,
    /// What chooses when the selector cannot.
    pub fallback: Fallback,
    /// The source of chance.
    pub seed: u32,
}

/// Decisions to be made in one go: they see each other.
#[derive(Debug, Clone)]
pub struct SelectBatch {
    /// Who decides; none when no such module is active, which is a fallback too.
    pub selector: Result<ModuleRef, (ModuleName, String)>,
    /// The nodes.
    pub fleet: Fleet,
    /// Seconds since 1970.
    pub time_s: u32,
    /// What is to be decided, in order.
    pub jobs: Vec<SelectJob>,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The job's.
    pub id: u64,
    /// The node and its session; none when no node will do.
    pub node: Option<(NodeName, NodeEpoch)>,
    /// What it was made from.
    pub trace: Arc<Trace>,
}

/// What a decision was made from, in a form that costs little to make; [`Trace::evidence`] spells
/// it out.
#[derive(Debug)]
pub struct Trace {
    /// The nodes at that moment.
    pub facts: Arc<[Arc<NodeFacts>]>,
    /// The request.
    pub request: Arc<SelectRequest>,
    /// Who chose.
    pub why: Why,
    /// The module that was asked, for apply's check that it is still the active one.
    pub selector: Option<ModuleRef>,
    /// Names of the features.
    pub features: Vec<String>,
    /// The candidates, in the order in which they were offered.
    pub slots: Vec<Slot>,
    /// Their features, row by row.
    pub values: Vec<f32>,
    /// Those that were not offered.
    pub refused: Vec<(Slot, Refused)>,
    /// The one that was chosen.
    pub chosen: Option<Slot>,
    /// Seconds since 1970.
    pub time_s: u32,
}

impl Trace {
    /// Names instead of slots.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        let (refusals, refusals_more) = self.refusals();
        let width = self.features.len();
        let candidates = self.slots.iter().enumerate().map(|(row, &slot)| Candidate {
            node: self.facts[slot as usize].name.clone(),
            values: self.values[row * width..(row + 1) * width].to_vec(),
            chosen: self.chosen == Some(slot),
        });
        Evidence {
            why: self.why.clone(),
            features: self.features.clone(),
            candidates: candidates.collect(),
            refusals,
            refusals_more,
            decided_ms: u64::from(self.time_s) * 1_000,
        }
    }

    /// The refusals, at most [`limits::REFUSALS_MAX`], and how many there are beyond those.
    #[must_use]
    pub fn refusals(&self) -> (Vec<Refusal>, u32) {
        let declined = self.chosen.is_none();
        let refusals = self
            .refused
            .iter()
            .map(|&(slot, refused)| (slot, self.reason(refused)));
        let not_chosen = self
            .slots
            .iter()
            .filter(|_| declined)
            .map(|&slot| (slot, RefusalReason::NotChosen));
        let mut all = refusals.chain(not_chosen).map(|(slot, reason)| Refusal {
            node: self.facts[slot as usize].name.clone(),
            reason,
        });
        let named: Vec<Refusal> = all.by_ref().take(limits::REFUSALS_MAX).collect();
        let total = self.refused.len() + if declined { self.slots.len() } else { 0 };
        let more = total - named.len();
        (named, more as u32)
    }

    fn reason(&self, refused: Refused) -> RefusalReason {
        match refused {
            Refused::Cordoned => RefusalReason::Cordoned,
            Refused::Suspect => RefusalReason::Suspect,
            Refused::TypeNotHosted => RefusalReason::TypeNotHosted,
            Refused::Label(index) => {
                let (key, value) = self.request.require[index as usize].clone();
                RefusalReason::Label { key, value }
            }
            Refused::Capacity(left) => RefusalReason::Capacity {
                left,
                demand: self.request.demand,
            },
            Refused::FailedBefore => RefusalReason::FailedBefore,
        }
    }
}

/// Makes one decision and counts it into the fleet.
///
/// `chooser` is the selector, or how it could not be had; `micros` reads a stopwatch that the
/// caller starts (this crate has no clock) and is asked once, at the end.
pub fn decide(
    fleet: &mut Fleet,
    job: &SelectJob,
    selector: &Result<ModuleRef, (ModuleName, String)>,
    chooser: Result<&mut dyn Choose, String>,
    time_s: u32,
    micros: impl FnOnce() -> u32,
) -> Decision {
    let request = &*job.request;
    let (mut slots, refused) = fleet.filter(request);
    let mut random = Random::new(u64::from(job.seed));
    let mut features = Vec::new();
    let mut values = Vec::new();
    let mut failure = None;
    let mut chosen = None;
    if !slots.is_empty() {
        let passed = slots.clone();
        match chooser {
            Err(cause) => failure = Some(cause),
            Ok(chooser) => {
                let manifest = chooser.manifest();
                fleet.pick(&manifest.ask, &mut slots, request, &mut random);
                values = fleet.gather(&manifest.features, &slots, request);
                features = manifest.features.iter().map(ToString::to_string).collect();
                let offer = Offer {
                    request,
                    seed: job.seed,
                    time_s,
                    slots: &slots,
                    features: &values,
                };
                match chooser.choose(offer) {
                    Ok(Some(slot)) if slots.contains(&slot) => chosen = Some(slot),
                    Ok(Some(slot)) => {
                        failure = Some(format!("chose slot {slot}, which was not a candidate"));
                    }
                    Ok(None) => {}
                    Err(cause) => failure = Some(cause),
                }
            }
        }
        if failure.is_some() {
            chosen = Some(fallback::choose(
                job.fallback,
                fleet,
                &passed,
                request,
                &mut random,
            ));
        }
    }
    if let Some(slot) = chosen {
        fleet.take(slot, request);
    }
    let chooser = match (failure, selector) {
        (None, Ok(module)) => Chooser::Selector {
            name: module.name.clone(),
            version: module.version,
            digest: module.digest,
        },
        (cause, selector) => Chooser::Fallback {
            fallback: job.fallback,
            selector: Some(match selector {
                Ok(module) => module.name.clone(),
                Err((name, _)) => name.clone(),
            }),
            cause: cut(cause.unwrap_or_else(|| "no candidates".to_owned())),
        },
    };
    let why = Why {
        chooser,
        seed: job.seed,
        micros: micros(),
        candidates: slots.len() as u32,
    };
    let node = chosen.map(|slot| {
        let facts = &fleet.facts[slot as usize];
        (facts.name.clone(), facts.epoch)
    });
    let trace = Trace {
        facts: Arc::clone(&fleet.facts),
        request: Arc::clone(&job.request),
        why,
        selector: selector.as_ref().ok().cloned(),
        features,
        slots,
        values,
        refused,
        chosen,
        time_s,
    };
    Decision {
        id: job.id,
        node,
        trace: Arc::new(trace),
    }
}

/// Cuts a reason to the protocol's limit, at a character.
#[must_use]
pub fn cut(mut text: String) -> String {
    let mut end = limits::REASON_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

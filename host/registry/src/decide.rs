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
use crate::feature::{CANDIDATES_MAX, Feature, Manifest};
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
            Refused::Damped(left_ms) => RefusalReason::Damped(left_ms),
            Refused::Budget => RefusalReason::Budget,
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
            let (fallback, passed) = (job.fallback, &passed);
            let slot = fallback::choose(fallback, fleet, passed, request, &mut random);
            chosen = Some(slot);
            // What the fallback chose from is not what the selector was offered.
            slots.clone_from(passed);
            if slots.len() > CANDIDATES_MAX as usize {
                slots.truncate(CANDIDATES_MAX as usize - 1);
                slots.retain(|have| *have != slot);
                slots.push(slot);
            }
            features = vec![Feature::Processes.to_string()];
            values = fleet.gather(&[Feature::Processes], &slots, request);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::NodeLive;
    use crate::feature::Ask;
    use maitred_protocol::ProcessKey;

    struct Broken(Manifest);

    impl Choose for Broken {
        fn manifest(&self) -> &Manifest {
            &self.0
        }

        fn choose(&mut self, _: Offer<'_>) -> Result<Option<Slot>, String> {
            Err("broken".to_owned())
        }
    }

    fn fleet(processes: &[u32]) -> Fleet {
        let facts = (0..processes.len()).map(|n| {
            Arc::new(NodeFacts {
                name: NodeName::new(format!("n-{n}")).unwrap(),
                epoch: NodeEpoch(n as u64 + 1),
                types: Vec::new(),
                address: String::new(),
                labels: Vec::new(),
                capacity: 10_000,
            })
        });
        let live = processes.iter().map(|&processes| NodeLive {
            cordoned: false,
            suspect: false,
            damped_ms: 0,
            budget: u32::MAX,
            processes,
            in_flight: 0,
            used: processes,
            placed: [0; 3],
            cpu: f32::NAN,
            memory_free_mib: f32::NAN,
            load_age_ms: f32::NAN,
            name_hash: 0.0,
        });
        Fleet {
            facts: facts.collect(),
            live: live.collect(),
            of_type: Vec::new(),
            of_group: Vec::new(),
            counters: Vec::new(),
        }
    }

    #[test]
    fn the_evidence_of_a_fallback_holds_all_that_it_chose_from() {
        let request = SelectRequest {
            key: ProcessKey::new("player", "1").unwrap(),
            group: None,
            requester: None,
            require: Vec::new(),
            demand: 1,
            priority: 0,
            attempt: 1,
            exclude: vec![NodeName::new("n-2").unwrap()],
            again: false,
        };
        let module = ModuleRef {
            name: ModuleName::new("spread").unwrap(),
            version: 1,
            digest: Digest([0; 32]),
            config: "{}".into(),
            activated: 1,
        };
        for ask in [Ask::All, Ask::Sample(1), Ask::Lowest(Feature::Capacity, 1)] {
            for seed in 0..20 {
                let job = SelectJob {
                    id: 1,
                    request: Arc::new(request.clone()),
                    fallback: Fallback::LeastLoaded,
                    seed,
                };
                let manifest = Manifest {
                    title: String::new(),
                    features: Vec::new(),
                    ask: ask.clone(),
                };
                let mut broken = Broken(manifest);
                let mut fleet = fleet(&[5, 3, 0]);
                let module = Ok(module.clone());
                let decision = decide(&mut fleet, &job, &module, Ok(&mut broken), 0, || 1);
                let evidence = decision.trace.evidence();
                let seen: Vec<_> = evidence
                    .candidates
                    .iter()
                    .map(|c| (c.node.as_str(), c.values.clone(), c.chosen))
                    .collect();
                assert_eq!(seen, [("n-0", vec![5.0], false), ("n-1", vec![3.0], true)]);
                assert_eq!(evidence.why.candidates, 2);
                assert_eq!(evidence.refusals.len(), 1);
            }
        }
    }

    #[test]
    fn the_evidence_of_a_large_fleet_still_holds_the_one_that_was_chosen() {
        let mut processes = vec![9; 3_000];
        processes[2_500] = 1;
        let mut fleet = fleet(&processes);
        let request = SelectRequest {
            key: ProcessKey::new("player", "1").unwrap(),
            group: None,
            requester: None,
            require: Vec::new(),
            demand: 1,
            priority: 0,
            attempt: 1,
            exclude: Vec::new(),
            again: false,
        };
        let job = SelectJob {
            id: 1,
            request: Arc::new(request),
            fallback: Fallback::LeastLoaded,
            seed: 1,
        };
        let nobody = Err((ModuleName::new("gone").unwrap(), "gone".to_owned()));
        let decision = decide(&mut fleet, &job, &nobody, Err("gone".to_owned()), 0, || 1);
        let evidence = decision.trace.evidence();
        assert_eq!(evidence.candidates.len(), CANDIDATES_MAX as usize);
        assert_eq!(evidence.candidates.iter().filter(|c| c.chosen).count(), 1);
        assert_eq!(decision.node.unwrap().0.as_str(), "n-2500");
    }
}

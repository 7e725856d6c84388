//! One placement decision: filter, offer, choose, check, and fall back when the choice is no good.
//!
//! This is the same for a Wasm selector, a native one and the simulator: whoever chooses is behind
//! [`Choose`]. A decision never fails because a chooser did; it fails only when no node will do.

use std::sync::Arc;

use maitred_protocol::{
    Answered, Chooser, Digest, Fallback, ModuleName, NodeEpoch, NodeName, Why, config_hash, limits,
};

use crate::candidates::{Fleet, SelectRequest, Slot};
use crate::fallback;
use crate::feature::{Ask, CANDIDATES_MAX, Feature, Manifest, RANKED_MAX, SCORED_MAX, WAIT_MS};
use crate::random::Random;
pub use crate::trace::{Trace, why_not};

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
    /// The hash of that: [`maitred_protocol::config_hash`].
    pub config_hash: u64,
    /// Whether it decides for a share of the ids, beside the active version.
    pub canary: bool,
    /// The index of the activation, which apply checks again.
    pub activated: u64,
}

impl ModuleRef {
    /// A version that decides for all ids.
    #[must_use]
    pub fn new(
        name: ModuleName,
        version: u32,
        digest: Digest,
        config: Arc<str>,
        activated: u64,
    ) -> Self {
        Self {
            name,
            version,
            digest,
            config_hash: config_hash(&config),
            config,
            canary: false,
            activated,
        }
    }
}

/// The lane that decides for a job: one version's decisions are serial and see each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    /// The selector that the create names.
    pub module: ModuleName,
    /// Whether it is the lane of its canary.
    pub canary: bool,
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
    /// Their features, row by row; of a scanner, empty.
    pub features: &'a [f32],
    /// All nodes, for a scanner.
    pub fleet: &'a Arc<Fleet>,
}

/// What a chooser says.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// This node.
    Choose(Slot),
    /// No candidate will do.
    None,
    /// The first of these that will do, 1 to [`RANKED_MAX`].
    Ranked(Vec<Slot>),
    /// It must not be created.
    Reject {
        /// The chooser's number for the reason.
        code: u32,
        /// For people.
        reason: String,
    },
    /// Ask again, after so many milliseconds at the latest; see [`WAIT_MS`].
    Wait(u32),
}

/// What a chooser answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What becomes of the process.
    pub verdict: Verdict,
    /// The best nodes, at most [`SCORED_MAX`]; mostly none.
    pub scored: Vec<Slot>,
    /// The values of the manifest's terms for each of them, row by row.
    pub scores: Vec<f32>,
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            scored: Vec::new(),
            scores: Vec::new(),
        }
    }
}

/// Whatever chooses among candidates.
pub trait Choose {
    /// What it wants to see.
    fn manifest(&self) -> &Manifest;

    /// Chooses among the slots.
    ///
    /// # Errors
    /// How the chooser failed, for people. The caller falls back.
    fn choose(&mut self, offer: Offer<'_>) -> Result<Answer, String>;
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
    /// Who decides the same beside it, for comparison only.
    pub shadow: Option<ModuleRef>,
    /// The nodes. Whoever keeps a clone has them as they were before the batch.
    pub fleet: Arc<Fleet>,
    /// Seconds since 1970.
    pub time_s: u32,
    /// What is to be decided, in order.
    pub jobs: Vec<SelectJob>,
    /// Nothing comes of it: it is asked what would be decided. Such decisions do not see each other, and
    /// are neither counted, nor recorded, nor followed.
    pub dry: bool,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The job's.
    pub id: u64,
    /// The node and its session; none when no node will do.
    pub node: Option<(NodeName, NodeEpoch)>,
    /// Those to go on with when that one cannot take it or fails to start it, best first.
    pub then: Vec<(NodeName, NodeEpoch)>,
    /// What it was made from.
    pub trace: Arc<Trace>,
}

/// Makes one decision and counts it into the fleet.
///
/// `chooser` is the selector, or how it could not be had; `micros` reads a stopwatch that the
/// caller starts (this crate has no clock) and is asked once, at the end.
pub fn decide(
    fleet: &mut Arc<Fleet>,
    job: &SelectJob,
    selector: &Result<ModuleRef, (ModuleName, String)>,
    chooser: Result<&mut dyn Choose, String>,
    time_s: u32,
    micros: impl FnOnce() -> u32,
) -> Decision {
    let decision = consider(fleet, job, selector, chooser, time_s, micros);
    if let Some(slot) = decision.trace.chosen {
        Arc::make_mut(fleet).take(slot, &job.request);
    }
    decision
}

/// The same, without counting it: for whoever follows another version's decisions.
pub fn consider(
    fleet: &Arc<Fleet>,
    job: &SelectJob,
    selector: &Result<ModuleRef, (ModuleName, String)>,
    chooser: Result<&mut dyn Choose, String>,
    time_s: u32,
    micros: impl FnOnce() -> u32,
) -> Decision {
    let request = &*job.request;
    let (passed, refused) = fleet.filter(request);
    let mut random = Random::new(u64::from(job.seed));
    let mut choice = Choice::default();
    if !passed.is_empty() {
        let asked = chooser.and_then(|chooser| {
            ask(
                fleet,
                job,
                chooser,
                time_s,
                passed,
                &mut random,
                &mut choice,
            )
        });
        if let Err(cause) = asked {
            // Filtered again, since what passed was cut down for the selector: a copy would cost every
            // decision, and this one only those that fail.
            let (passed, _) = fleet.filter(request);
            choice = fall_back(fleet, job, passed, &mut random);
            choice.failure = Some(cause);
        }
    }
    let ages = choice.slots.iter();
    let ages = ages.map(|&slot| fleet.since_ms(fleet.live[slot as usize].load_at_us));
    let ages = ages.collect();
    let node = |slot: Slot| {
        let facts = &fleet.facts[slot as usize];
        (facts.name.clone(), facts.epoch)
    };
    let why = Why {
        chooser: chooser_of(choice.failure, selector, job.fallback),
        seed: job.seed,
        micros: micros(),
        candidates: choice.offered,
    };
    let trace = Trace {
        facts: Arc::clone(&fleet.facts),
        request: Arc::clone(&job.request),
        why,
        selector: selector.as_ref().ok().cloned(),
        features: choice.features,
        slots: choice.slots,
        values: choice.values,
        ages,
        refused,
        chosen: choice.chosen,
        answered: choice.answered,
        terms: choice.terms,
        scored: choice.scored,
        scores: choice.scores,
        time_s,
    };
    Decision {
        id: job.id,
        node: choice.chosen.map(node),
        then: choice.then.into_iter().map(node).collect(),
        trace: Arc::new(trace),
    }
}

/// What choosing came to.
#[derive(Default)]
struct Choice {
    chosen: Option<Slot>,
    then: Vec<Slot>,
    answered: Answered,
    /// Why the fallback chose.
    failure: Option<String>,
    /// How many nodes there were to choose from.
    offered: u32,
    features: Vec<String>,
    slots: Vec<Slot>,
    values: Vec<f32>,
    terms: Vec<String>,
    scored: Vec<Slot>,
    scores: Vec<f32>,
}

/// Asks the selector, and checks what it says.
fn ask(
    fleet: &Arc<Fleet>,
    job: &SelectJob,
    chooser: &mut dyn Choose,
    time_s: u32,
    passed: Vec<Slot>,
    random: &mut Random,
    choice: &mut Choice,
) -> Result<(), String> {
    let request = &*job.request;
    let manifest = chooser.manifest();
    let scans = manifest.ask == Ask::Scan;
    choice.slots = passed;
    fleet.pick(&manifest.ask, &mut choice.slots, request, random);
    if !scans {
        choice.values = fleet.gather(&manifest.features, &choice.slots, request);
    }
    choice.offered = choice.slots.len() as u32;
    let offer = Offer {
        request,
        seed: job.seed,
        time_s,
        slots: &choice.slots,
        features: &choice.values,
        fleet,
    };
    let answer = chooser.choose(offer)?;
    let manifest = chooser.manifest();
    check(&answer, &choice.slots, manifest.terms.len())?;
    choice.features = manifest.features.iter().map(ToString::to_string).collect();
    choice.terms.clone_from(&manifest.terms);
    let Answer {
        verdict,
        scored,
        scores,
    } = answer;
    (choice.scored, choice.scores) = (scored, scores);
    choice.answered = match verdict {
        Verdict::Choose(slot) => {
            choice.chosen = Some(slot);
            Answered::Chose
        }
        Verdict::Ranked(slots) => {
            choice.chosen = slots.first().copied();
            choice.then = slots[1..].to_vec();
            Answered::Ranked(slots.len() as u32)
        }
        Verdict::None => Answered::None,
        Verdict::Reject { code, reason } => {
            let reason = cut(reason);
            Answered::Rejected { code, reason }
        }
        Verdict::Wait(ms) => Answered::Wait(ms),
    };
    if scans {
        // It may have looked at any of them: only those that it spoke of are worth keeping.
        let named = choice
            .chosen
            .iter()
            .chain(&choice.then)
            .chain(&choice.scored);
        let mut slots: Vec<Slot> = named.copied().collect();
        slots.sort_unstable();
        slots.dedup();
        choice.values = fleet.gather(&manifest.features, &slots, request);
        choice.slots = slots;
    }
    Ok(())
}

/// Whether an answer is one, to an offer of these slots by a manifest of so many terms.
///
/// # Errors
/// What is wrong with it, as it reads after the module's name.
pub fn check(answer: &Answer, slots: &[Slot], terms: usize) -> Result<(), String> {
    let offered = |slot: &Slot| {
        if slots.contains(slot) {
            return Ok(());
        }
        Err(format!("chose slot {slot}, which was not a candidate"))
    };
    match &answer.verdict {
        Verdict::Choose(slot) => offered(slot)?,
        Verdict::Ranked(ranked) => {
            let count = ranked.len();
            if !(1..=RANKED_MAX).contains(&count) {
                return Err(format!("ranked {count} nodes, of 1 to {RANKED_MAX}"));
            }
            ranked.iter().try_for_each(offered)?;
            let twice = |(at, slot): (usize, &Slot)| ranked[..at].contains(slot);
            if ranked.iter().enumerate().any(twice) {
                return Err("ranked a node twice".to_owned());
            }
        }
        Verdict::Wait(ms) if !WAIT_MS.contains(ms) => {
            return Err(format!("wants to wait {ms} ms, of 10 to 60,000"));
        }
        Verdict::None | Verdict::Reject { .. } | Verdict::Wait(_) => {}
    }
    let scored = answer.scored.len();
    if scored > SCORED_MAX {
        return Err(format!("scored {scored} nodes, of at most {SCORED_MAX}"));
    }
    if answer.scores.len() != scored * terms {
        let got = answer.scores.len();
        return Err(format!(
            "gave {got} values for {scored} nodes and {terms} terms"
        ));
    }
    answer.scored.iter().try_for_each(offered)
}

/// Chooses without the selector.
fn fall_back(fleet: &Fleet, job: &SelectJob, mut slots: Vec<Slot>, random: &mut Random) -> Choice {
    let request = &*job.request;
    let slot = fallback::choose(job.fallback, fleet, &slots, request, random);
    if slots.len() > CANDIDATES_MAX as usize {
        slots.truncate(CANDIDATES_MAX as usize - 1);
        slots.retain(|have| *have != slot);
        slots.push(slot);
    }
    Choice {
        chosen: Some(slot),
        offered: slots.len() as u32,
        features: vec![Feature::Processes.to_string()],
        values: fleet.gather(&[Feature::Processes], &slots, request),
        slots,
        ..Choice::default()
    }
}

fn chooser_of(
    failure: Option<String>,
    selector: &Result<ModuleRef, (ModuleName, String)>,
    fallback: Fallback,
) -> Chooser {
    match (failure, selector) {
        (None, Ok(module)) => Chooser::Selector {
            name: module.name.clone(),
            version: module.version,
            digest: module.digest,
            config: module.config_hash,
            canary: module.canary,
        },
        (cause, selector) => Chooser::Fallback {
            fallback,
            selector: Some(match selector {
                Ok(module) => module.name.clone(),
                Err((name, _)) => name.clone(),
            }),
            cause: cut(cause.unwrap_or_else(|| "no candidates".to_owned())),
        },
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

//! The trial of selectors and scanners at upload: one node and many, values that are known and values
//! that are not, with a group and without; a thousand calls in which memory may not grow; and whether
//! an instance that has been used answers what a fresh one does.
//!
//! It refuses what traps, takes too long or answers nonsense. What it only notes: an error that the
//! policy answers, a time-out over more nodes than most fleets have, and answers that depend on the
//! calls before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{NodeEpoch, NodeName};
use maitred_registry::candidates::{Fleet, NEVER, NodeFacts, NodeLive, SelectRequest, Slot};
use maitred_registry::decide::{Answer, Choose as _, Offer, Verdict, check};
use maitred_registry::feature::{Ask, CANDIDATES_MAX, Manifest};
use maitred_registry::random::Random;

use crate::error::ModuleError;
use crate::inspect::{Tried, failed, trial_key};
use crate::limits::Limits;
use crate::rehearsal::same;
use crate::selector::{Failed, Selector, SelectorPre};

/// Calls of the trial in which memory may not grow.
const TRIAL_CALLS: u32 = 1_000;

/// Calls before that: interpreters fill their caches.
const WARM_CALLS: u32 = 20;

/// Nodes of most cases, and nodes up to which a time-out is refused.
const FEW: u32 = 8;
const MANY: u32 = 64;

/// Answers of a used instance that are compared with those of fresh ones.
const COMPARED: u32 = 8;

/// One thing that is asked.
#[derive(Debug, Clone, Copy)]
struct Case {
    nodes: u32,
    /// Whether values are known.
    known: bool,
    /// Whether the request names a group.
    group: bool,
    seed: u32,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = if self.nodes == 1 { "" } else { "s" };
        write!(f, "over {} node{s}", self.nodes)?;
        if !self.known {
            f.write_str(" whose features are not known (NaN)")?;
        }
        if !self.group {
            f.write_str(" and without a group")?;
        }
        Ok(())
    }
}

impl Case {
    fn of(nodes: u32, seed: u32) -> Self {
        Self {
            nodes,
            known: true,
            group: true,
            seed,
        }
    }
}

/// How a case went.
enum Went {
    Answered(Answer),
    /// It answered an error, or ran out of time over very many nodes: the instance is used up.
    Failed,
}

/// Tries a selector or a scanner.
pub(crate) fn selector(module: &SelectorPre, limits: &Arc<Limits>) -> Result<Tried, ModuleError> {
    let mut trial = Trial::new(module, limits)?;
    let most = match trial.manifest.ask {
        Ask::All | Ask::Scan => CANDIDATES_MAX,
        Ask::Sample(count) | Ask::Lowest(_, count) => count,
    };
    for nodes in [1, FEW, MANY, CANDIDATES_MAX] {
        // More than it asks for it is never offered.
        if nodes <= most || nodes == 1 {
            trial.ask(Case::of(nodes, 1))?;
        }
    }
    for (known, group) in [(false, true), (true, false)] {
        let few = Case::of(FEW.min(most), 1);
        trial.ask(Case {
            known,
            group,
            ..few
        })?;
    }
    trial.grows(FEW.min(most))?;
    trial.depends(FEW.min(most))?;
    let memory_bytes = trial.selector.memory_bytes();
    let Trial {
        manifest,
        notes,
        decision,
        ..
    } = trial;
    Ok(Tried {
        memory_bytes,
        decision,
        features: manifest.features.iter().map(ToString::to_string).collect(),
        title: manifest.title,
        terms: manifest.terms,
        hooks: Vec::new(),
        notes,
    })
}

struct Trial<'a> {
    module: &'a SelectorPre,
    limits: &'a Arc<Limits>,
    selector: Selector,
    manifest: Manifest,
    notes: Vec<String>,
    /// What all decisions took so far.
    deciding: Duration,
    /// See [`Tried::decision`].
    decision: (Duration, u32),
}

impl<'a> Trial<'a> {
    fn new(module: &'a SelectorPre, limits: &'a Arc<Limits>) -> Result<Self, ModuleError> {
        let selector = instance(module, limits)?;
        Ok(Self {
            module,
            limits,
            manifest: selector.manifest().clone(),
            selector,
            notes: Vec::new(),
            deciding: Duration::ZERO,
            decision: (Duration::ZERO, 0),
        })
    }

    /// One decision; the instance is replaced when it is used up.
    fn ask(&mut self, case: Case) -> Result<Went, ModuleError> {
        let went = self.choose(case)?;
        if matches!(went, Went::Failed) {
            self.selector = instance(self.module, self.limits)?;
        }
        Ok(went)
    }

    fn choose(&mut self, case: Case) -> Result<Went, ModuleError> {
        let (fleet, slots) = nodes(case)?;
        let request = request(case)?;
        let features = values(&self.manifest, case);
        let offer = Offer {
            request: &request,
            seed: case.seed,
            time_s: 1_700_000_000,
            slots: &slots,
            features: &features,
            fleet: &fleet,
        };
        let begun = Instant::now();
        let answer = self.selector.choose(offer);
        self.deciding += begun.elapsed();
        let reason = match answer {
            Ok(answer) => return checked(case, answer, &slots, self.manifest.terms.len()),
            Err(reason) => reason,
        };
        let ms = self.limits.select_ms;
        let late = format!("{case}, it took longer than {ms} ms (limit select_ms)");
        match self.selector.failed() {
            Some(Failed::Error) => {
                self.note(format!(
                    "in the trial, without a configuration, {case} it {reason}"
                ));
                Ok(Went::Failed)
            }
            Some(Failed::Timeout) if case.nodes > MANY => {
                self.note(format!("{late}: a fleet of that size is left to the fallback, unless it asks for fewer candidates"));
                Ok(Went::Failed)
            }
            Some(Failed::Timeout) => Err(failed(late)),
            Some(Failed::Trap | Failed::BadAnswer) | None => {
                Err(failed(format!("{case}, it {reason}")))
            }
        }
    }

    /// The first of a kind says enough.
    fn note(&mut self, note: String) {
        if self.notes.is_empty() {
            self.notes.push(note);
        }
    }

    /// Refuses a module that leaks.
    fn grows(&mut self, nodes: u32) -> Result<(), ModuleError> {
        for seed in 0..WARM_CALLS {
            self.ask(Case::of(nodes, seed))?;
        }
        let before = self.selector.memory_bytes();
        self.deciding = Duration::ZERO;
        for seed in 0..TRIAL_CALLS {
            if let Went::Failed = self.ask(Case::of(nodes, seed))? {
                // What it would do otherwise cannot be tried.
                return Ok(());
            }
        }
        self.decision = (self.deciding / TRIAL_CALLS, nodes);
        let grown = self.selector.memory_bytes().saturating_sub(before);
        let most = self.limits.trial_growth_bytes;
        if grown <= most {
            return Ok(());
        }
        Err(failed(format!(
            "its memory grew by {grown} bytes in {TRIAL_CALLS} decisions over {nodes} nodes, of at most {most} (limit trial_growth_bytes): it leaks"
        )))
    }

    /// Notes when an instance that has been used answers otherwise than a fresh one.
    fn depends(&mut self, nodes: u32) -> Result<(), ModuleError> {
        for seed in 0..COMPARED {
            let case = Case::of(nodes, seed * 7_919);
            let used = self.choose(case)?;
            let fresh = instance(self.module, self.limits)?;
            let used_up = std::mem::replace(&mut self.selector, fresh);
            let fresh = self.choose(case)?;
            let (Went::Answered(used), Went::Answered(fresh)) = (used, fresh) else {
                return Ok(());
            };
            if !same(&used, &fresh) {
                self.notes.push(format!(
                    "not deterministic: {case}, with seed {}, it answered {} after {TRIAL_CALLS} calls, and {} on a fresh instance; its decisions cannot be replayed",
                    case.seed,
                    spelled(&used),
                    spelled(&fresh)
                ));
                return Ok(());
            }
            self.selector = used_up;
        }
        Ok(())
    }
}

fn instance(module: &SelectorPre, limits: &Arc<Limits>) -> Result<Selector, ModuleError> {
    Selector::new(module, limits, "".into(), "{}".into())
}

fn checked(case: Case, answer: Answer, slots: &[Slot], terms: usize) -> Result<Went, ModuleError> {
    let Err(reason) = check(&answer, slots, terms) else {
        return Ok(Went::Answered(answer));
    };
    let hint = match &answer.verdict {
        Verdict::Choose(slot) if !slots.contains(slot) => {
            ": answer with one of candidates.slots, not with an index"
        }
        _ => "",
    };
    Err(failed(format!("{case}, it {reason}{hint}")))
}

fn spelled(answer: &Answer) -> String {
    let text = format!("{:?}", answer.verdict);
    text.chars().take(60).collect()
}

/// Slots with gaps: an index is not a slot. The nodes between them are cordoned.
fn nodes(case: Case) -> Result<(Arc<Fleet>, Vec<Slot>), ModuleError> {
    let mut random = Random::new(u64::from(case.seed));
    let slots: Vec<Slot> = (0..case.nodes).map(|row| row * 3 + 2).collect();
    let zones = ["north", "south", "west"];
    let facts: Result<Arc<[Arc<NodeFacts>]>, ModuleError> = (0..case.nodes * 3)
        .map(|slot| {
            let name = NodeName::new(format!("trial-{slot}"));
            let zone = zones[random.below(3) as usize].to_owned();
            Ok(Arc::new(NodeFacts {
                name: name.map_err(|error| failed(error.to_string()))?,
                epoch: NodeEpoch(u64::from(slot) + 1),
                types: Vec::new(),
                address: format!("trial-{slot}.invalid:1"),
                labels: if case.known {
                    vec![("zone".to_owned(), zone)]
                } else {
                    Vec::new()
                },
                capacity: 100,
                registered_ms: 1_600_000_000_000,
            }))
        })
        .collect();
    let facts = facts?;
    let live = facts.iter().enumerate().map(|(slot, facts)| {
        let processes = random.below(100);
        let reported = |value: u32| if case.known { value as f32 } else { f32::NAN };
        NodeLive {
            cordoned: slot % 3 != 2,
            processes,
            used: processes,
            placed: [0, 1, 2],
            cpu: reported(random.below(2)),
            memory_free_mib: reported(random.below(4_096)),
            load_at_us: if case.known { 1_000_000 } else { NEVER },
            name_hash: facts.name_hash(),
            ..NodeLive::BLANK
        }
    });
    let live = live.collect();
    let fleet = Fleet {
        now_us: 2_000_000,
        now_ms: 1_700_000_000_000,
        ..Fleet::new(facts, live)
    };
    Ok((Arc::new(fleet), slots))
}

/// What a selector is offered of them; a scanner looks itself.
fn values(manifest: &Manifest, case: Case) -> Vec<f32> {
    if manifest.ask == Ask::Scan {
        return Vec::new();
    }
    let mut random = Random::new(u64::from(case.seed));
    let mut value = || match case.known {
        true => random.below(100) as f32,
        false => f32::NAN,
    };
    let count = case.nodes as usize * manifest.features.len();
    (0..count).map(|_| value()).collect()
}

fn request(case: Case) -> Result<SelectRequest, ModuleError> {
    Ok(SelectRequest {
        group: case.group.then(|| "party".to_owned()),
        ..SelectRequest::new(trial_key()?)
    })
}

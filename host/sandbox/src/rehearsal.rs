//! What a version would decide, without deciding: for shadows, replays, explanations, and the tools
//! of whoever writes a module. It runs on an engine that counts fuel, within the same limits.
//!
//! What holds: the same module, nodes, job and time give the same decision and the same fuel, on
//! every host and in whatever order they come. Each rehearsal has an instance of its own, therefore,
//! and computing is limited in fuel. Time is no such thing: it is measured on a second call of the
//! same instance, because the first one pays for the instance being new, as no decision does.

use std::sync::Arc;
use std::time::Instant;

use maitred_protocol::{Chooser, ModuleKind, ModuleName};
use maitred_registry::candidates::Fleet;
use maitred_registry::decide::{
    Answer, Choose, Decision, ModuleRef, Offer, SelectJob, Verdict, consider,
};
use maitred_registry::feature::Manifest;

use crate::error::{ModuleError, Stage};
use crate::gate::Gate;
use crate::limits::Limits;
use crate::sandbox::{Loaded, Sandbox};
use crate::selector::{Failed, Selector, SelectorPre};

/// Lowers the priority of this thread, for good: for one that rehearses, so that lanes go first.
pub fn give_way() {
    if let Err(error) = rustix::process::nice(10) {
        tracing::debug!(%error, "a thread that rehearses keeps its priority");
    }
}

/// A selector or a scanner, with its configuration, that decides nothing.
pub struct Rehearsal {
    module: Result<ModuleRef, (ModuleName, String)>,
    selector: SelectorPre,
    manifest: Manifest,
    limits: Arc<Limits>,
    gate: Arc<Gate>,
    /// As instances want them.
    name: Arc<str>,
    config: Arc<str>,
}

/// What a rehearsal came to.
#[derive(Debug, Clone)]
pub struct Rehearsed {
    /// The decision; the fallback's, when the module failed.
    pub decision: Decision,
    /// Units of fuel that choosing took; 0 when the module was not asked, because there was nothing
    /// to choose from.
    pub fuel: u64,
    /// Nanoseconds that choosing took, fuel being counted (a tenth to a fifth more than without).
    pub nanos: u64,
    /// How the module failed, and that in words.
    pub failed: Option<(Failed, String)>,
    /// Whether a second call with the same arguments answered the same. False of a module that
    /// keeps something between calls: its decisions cannot be replayed.
    pub steady: bool,
}

impl Rehearsal {
    /// Makes a module ready: compiles it once more, for the engine that counts fuel. Blocks
    /// meanwhile. The bytes need not be loaded for decisions.
    ///
    /// # Errors
    /// As for [`Sandbox::inspect`], up to `describe`; and when it is no selector.
    pub fn new(
        sandbox: &Arc<Sandbox>,
        module: ModuleRef,
        bytes: &[u8],
    ) -> Result<Self, ModuleError> {
        let made = sandbox.make_rehearsed(module.digest, ModuleKind::Selector, bytes)?;
        let Loaded::Selector(selector) = made else {
            let reason = "only selectors and scanners can be rehearsed";
            return Err(ModuleError::new(Stage::CheckingTheWorld, reason));
        };
        let (name, config) = (module.name.as_str().into(), Arc::clone(&module.config));
        let limits = Arc::clone(&sandbox.limits);
        let gate = Arc::clone(&sandbox.rehearsals);
        let inside = gate.enter();
        let first = Selector::new(&selector, &limits, Arc::clone(&name), Arc::clone(&config))?;
        let manifest = first.manifest().clone();
        // Before the place is given back.
        drop(first);
        drop(inside);
        Ok(Self {
            manifest,
            module: Ok(module),
            selector,
            limits,
            gate,
            name,
            config,
        })
    }

    /// What it wants to see.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Which module it is.
    #[must_use]
    pub fn module(&self) -> Option<&ModuleRef> {
        self.module.as_ref().ok()
    }

    /// What it would decide, counted into the fleet.
    pub fn decide(&self, fleet: &mut Arc<Fleet>, job: &SelectJob, time_s: u32) -> Rehearsed {
        let rehearsed = self.consider(fleet, job, time_s);
        if let Some(slot) = rehearsed.decision.trace.chosen {
            Arc::make_mut(fleet).take(slot, &job.request);
        }
        rehearsed
    }

    /// What it would decide, leaving the fleet as it is: for whoever follows another version. Waits
    /// while as many others are under way as there may be.
    #[must_use]
    pub fn consider(&self, fleet: &Arc<Fleet>, job: &SelectJob, time_s: u32) -> Rehearsed {
        // Dropped after the instance.
        let _inside = self.gate.enter();
        let (name, config) = (Arc::clone(&self.name), Arc::clone(&self.config));
        let made = Selector::new(&self.selector, &self.limits, name, config);
        let (mut trial, cause) = match made {
            Ok(selector) => (Some(Trial::new(selector)), String::new()),
            Err(error) => (None, format!("no instance could be made: {error}")),
        };
        let chooser = match &mut trial {
            Some(trial) => Ok(trial as &mut dyn Choose),
            None => Err(cause),
        };
        let decision = consider(fleet, job, &self.module, chooser, time_s, || 0);
        let failed = match &decision.trace.why.chooser {
            Chooser::Fallback { cause, .. } => {
                let how = match &trial {
                    None => Failed::Trap,
                    Some(trial) => trial.selector.failed().unwrap_or(Failed::BadAnswer),
                };
                Some((how, cause.clone()))
            }
            _ => None,
        };
        let (fuel, nanos, steady) = trial.map_or((0, 0, true), |trial| {
            (trial.fuel, trial.nanos, trial.steady)
        });
        Rehearsed {
            decision,
            fuel,
            nanos,
            failed,
            steady,
        }
    }
}

/// An instance that is asked twice.
struct Trial {
    selector: Selector,
    fuel: u64,
    nanos: u64,
    steady: bool,
}

impl Trial {
    fn new(selector: Selector) -> Self {
        Self {
            selector,
            fuel: 0,
            nanos: 0,
            steady: true,
        }
    }

    fn timed(&mut self, offer: Offer<'_>) -> Result<Answer, String> {
        let begun = Instant::now();
        let answer = self.selector.choose(offer);
        self.nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        answer
    }
}

impl Choose for Trial {
    fn manifest(&self) -> &Manifest {
        self.selector.manifest()
    }

    fn choose(&mut self, offer: Offer<'_>) -> Result<Answer, String> {
        let answer = self.timed(offer);
        self.fuel = self.selector.fuel().unwrap_or(0);
        let answer = answer?;
        let cold = self.nanos;
        match self.timed(offer) {
            Ok(again) => self.steady = same(&answer, &again),
            Err(_) => (self.nanos, self.steady) = (cold, false),
        }
        Ok(answer)
    }
}

/// Whether two answers are the same to the bit: scores may be NaN.
pub(crate) fn same(one: &Answer, other: &Answer) -> bool {
    let bits = |answer: &Answer| -> Vec<u32> {
        let scores = answer.scores.iter();
        scores.map(|score| score.to_bits()).collect()
    };
    let said = |verdict: &Verdict| match verdict {
        // Texts are for people.
        Verdict::Reject { code, .. } => Verdict::Reject {
            code: *code,
            reason: String::new(),
        },
        verdict => verdict.clone(),
    };
    said(&one.verdict) == said(&other.verdict)
        && one.scored == other.scored
        && bits(one) == bits(other)
}

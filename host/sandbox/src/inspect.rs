//! What a module goes through before it is accepted: size, scan and world, compilation, an instance
//! under limits, its manifest, and a trial with made-up nodes: of selectors in `trial_select`, of what
//! runs on fibers in `trial`.
//!
//! A trial refuses what would only ever fall back. An error that the policy answers is a note, because
//! a policy may want a configuration, which an upload does not have.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{Digest, Findings, Hook, ModuleKind, ProcessKey, UploadStage};

use crate::error::{ModuleError, Stage};
use crate::limits::Limits;
use crate::sandbox::{self, Loaded, Sandbox};
use crate::scan::Scanned;
use crate::world::Fit;
use crate::{trial, trial_select};

/// A module that is acceptable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// What it calls itself.
    pub title: String,
    /// The interface that it exports: `selector`, `scanner`, `callback` or `fence`.
    pub world: String,
    /// The version of `maitred:policy` that it was built against.
    pub abi: String,
    /// The features that it asks for, or may; none but a selector's and a scanner's.
    pub features: Vec<String>,
    /// Names of its score terms.
    pub terms: Vec<String>,
    /// What a callback wants to be asked besides `spawn`.
    pub hooks: Vec<Hook>,
    /// What its author should know, although it is accepted.
    pub notes: Vec<String>,
    /// What the scan saw.
    pub scanned: Scanned,
    /// Until it could be run; next to nothing where its machine code had been kept.
    pub compile: Duration,
    /// Bytes of all memories of one instance, after the trial.
    pub memory_bytes: usize,
    /// The mean of the trial's decisions, and over how many nodes they were; 0 where none was made.
    pub decision: (Duration, u32),
}

impl Inspected {
    /// What its author is told, within the wire's bounds.
    #[must_use]
    pub fn findings(&self) -> Findings {
        let (decision, nodes) = self.decision;
        let mut findings = Findings {
            notes: Vec::new(),
            compile_ms: u32::try_from(self.compile.as_millis()).unwrap_or(u32::MAX),
            memory_bytes: self.memory_bytes as u64,
            decision_nanos: u64::try_from(decision.as_nanos()).unwrap_or(u64::MAX),
            nodes,
        };
        for note in &self.notes {
            findings.note(note.clone());
        }
        findings
    }
}

/// What a trial found.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    pub(crate) title: String,
    pub(crate) features: Vec<String>,
    pub(crate) terms: Vec<String>,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) notes: Vec<String>,
    /// Of the instance, at the end.
    pub(crate) memory_bytes: usize,
    /// See [`Inspected::decision`].
    pub(crate) decision: (Duration, u32),
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
        let mut compiling = Instant::now();
        let mut staged = |stage| {
            if stage == UploadStage::Compiling {
                compiling = Instant::now();
            }
            progress(stage);
        };
        let (module, fit, scanned) = self.make(Digest::of(bytes), kind, bytes, &mut staged)?;
        let compile = compiling.elapsed();
        progress(UploadStage::Trying);
        let mut tried = match &module {
            Loaded::Selector(module) => trial_select::selector(module, &self.limits),
            Loaded::Callback(module) => trial::callback(module, &self.limits),
            Loaded::Fence(module) => trial::fence(module, &self.limits),
        }?;
        tried.notes.extend(unconfigured(&module, &self.limits));
        Ok(tried.of(&fit, scanned, compile))
    }
}

/// What a module says of having no configuration.
fn unconfigured(module: &Loaded, limits: &Arc<Limits>) -> Option<String> {
    let reason = match sandbox::validate(module, limits, "{}") {
        Ok(judged) => judged.err()?,
        Err(error) => error.to_string(),
    };
    Some(format!(
        "it wants a configuration (activate it with --config): {{}} will not do: {reason}"
    ))
}

impl Tried {
    fn of(self, fit: &Fit, scanned: Scanned, compile: Duration) -> Inspected {
        Inspected {
            title: self.title,
            world: fit.interface.name().to_owned(),
            abi: fit.version.clone(),
            features: self.features,
            terms: self.terms,
            hooks: self.hooks,
            notes: self.notes,
            scanned,
            compile,
            memory_bytes: self.memory_bytes,
            decision: self.decision,
        }
    }
}

pub(crate) fn trial_key() -> Result<ProcessKey, ModuleError> {
    ProcessKey::new("trial", "one").map_err(|error| failed(error.to_string()))
}

pub(crate) fn failed(reason: String) -> ModuleError {
    ModuleError::new(Stage::Trying, reason)
}

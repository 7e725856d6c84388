//! What a module goes through before it is accepted: size, scan and world, compilation, an instance
//! under limits, its manifest, and a trial with made-up nodes: of selectors in `trial_select`, of what
//! runs on fibers in `trial`.
//!
//! A trial refuses what would only ever fall back. An error that the policy answers is a note, because
//! a policy may want a configuration, which an upload does not have.

use std::sync::Arc;

use maitred_protocol::{Digest, Hook, ModuleKind, ProcessKey, UploadStage};

use crate::error::{ModuleError, Stage};
use crate::limits::Limits;
use crate::sandbox::{self, Loaded, Sandbox};
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
}

/// What a trial found.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    pub(crate) title: String,
    pub(crate) features: Vec<String>,
    pub(crate) terms: Vec<String>,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) notes: Vec<String>,
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
        let (module, fit) = self.make(Digest::of(bytes), kind, bytes, &mut progress)?;
        progress(UploadStage::Trying);
        let mut tried = match &module {
            Loaded::Selector(module) => trial_select::selector(module, &self.limits),
            Loaded::Callback(module) => trial::callback(module, &self.limits),
            Loaded::Fence(module) => trial::fence(module, &self.limits),
        }?;
        tried.notes.extend(unconfigured(&module, &self.limits));
        Ok(tried.of(&fit))
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
    fn of(self, fit: &Fit) -> Inspected {
        Inspected {
            title: self.title,
            world: fit.interface.name().to_owned(),
            abi: fit.version.clone(),
            features: self.features,
            terms: self.terms,
            hooks: self.hooks,
            notes: self.notes,
        }
    }
}

pub(crate) fn trial_key() -> Result<ProcessKey, ModuleError> {
    ProcessKey::new("trial", "one").map_err(|error| failed(error.to_string()))
}

pub(crate) fn failed(reason: String) -> ModuleError {
    ModuleError::new(Stage::Trying, reason)
}

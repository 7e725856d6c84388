//! What the registry says of modules: which are to be ready, and which are known at all.

use hashbrown::HashSet;
use maitred_protocol::{Digest, ModuleKind, ModuleName, Signature};
use maitred_registry::Registry;

/// A module, as far as it matters to whoever makes it ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) kind: ModuleKind,
    pub(crate) digest: Digest,
    /// Who vouches for it.
    pub(crate) signature: Option<Signature>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    /// To be loaded: those that decide, and what is likely to decide next.
    pub(crate) ready: Vec<(ModuleName, Subject)>,
    /// Those of them that decide, for all or for a share of the ids, or that run in shadow.
    pub(crate) active: HashSet<Digest>,
    /// All versions of all modules.
    pub(crate) recorded: HashSet<Digest>,
}

impl Wish {
    /// With what the replica wants to be ready.
    pub(crate) fn of(
        registry: &Registry,
        ready: Vec<(ModuleName, ModuleKind, Digest, Option<Signature>)>,
    ) -> Self {
        let ready = ready.into_iter().map(|(name, kind, digest, signature)| {
            let subject = Subject {
                kind,
                digest,
                signature,
            };
            (name, subject)
        });
        let mut wish = Self {
            ready: ready.collect(),
            ..Self::default()
        };
        for (_, module) in registry.modules() {
            let active = module.active.as_ref().map(|active| active.version);
            let canary = module.canary.as_ref().map(|canary| canary.decides.version);
            let shadow = module.shadow.as_ref().map(|shadow| shadow.version);
            for version in &module.versions {
                wish.recorded.insert(version.digest);
                if [active, canary, shadow].contains(&Some(version.version)) {
                    wish.active.insert(version.digest);
                }
            }
        }
        wish
    }
}

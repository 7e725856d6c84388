//! Modules: names, versions, which one decides, and the way back.
//!
//! The registry knows digests; the bytes are files on the hosts. Activation is one entry, and its
//! index is what a decision is checked against. What changes a module is in [`change`].

pub(crate) mod change;
mod history;

use std::collections::VecDeque;
use std::sync::Arc;

use maitred_protocol::{
    CanaryRecord, Digest, ModuleEvent, ModuleKind, ModuleName, ModuleRecord, ModuleVersion,
    ProcessKey, Revision, ShadowRecord, TypeName, config_hash,
};

use crate::Registry;
use crate::decide::{LaneId, ModuleRef};
use crate::limits::DECLINED_MAX;
use crate::outcome::Outcome;

/// A version that runs: deciding, for all ids or for a share, or in shadow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    /// Which.
    pub version: u32,
    /// Its configuration.
    pub config: Arc<str>,
    /// The hash of that, kept because every batch of decisions names it.
    pub config_hash: u64,
    /// The number of that; 0 where there is none.
    pub config_version: u32,
    /// What takes it back by itself; empty for nothing.
    pub guard: String,
    /// When it was activated.
    pub at: u64,
}

/// A version that decides for a share of the ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// Which.
    pub decides: Active,
    /// The share, 1 to 100.
    pub percent: u8,
    /// Only for these types; empty for all.
    pub types: Vec<TypeName>,
}

impl Canary {
    /// Whether it decides for a process. Whoever is in stays in when the share grows.
    fn takes(&self, module: &ModuleName, key: &ProcessKey) -> bool {
        if !self.types.is_empty() && !self.types.contains(&key.type_name) {
            return false;
        }
        let mut hash = blake3::Hasher::new();
        for part in [module.as_str(), key.type_name.as_str(), key.id.as_str()] {
            hash.update(part.as_bytes());
            hash.update(&[0]);
        }
        let [a, b, c, d, ..] = *hash.finalize().as_bytes();
        u32::from_le_bytes([a, b, c, d]) % 100 < u32::from(self.percent)
    }
}

impl Active {
    pub(crate) fn new(
        version: u32,
        (config, config_version): (Arc<str>, u32),
        guard: String,
        at: u64,
    ) -> Self {
        Self {
            version,
            config_hash: config_hash(&config),
            config,
            config_version,
            guard,
            at,
        }
    }
}

/// Everything under one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// What it is for.
    pub kind: ModuleKind,
    /// Oldest first; numbers only grow.
    pub versions: Vec<ModuleVersion>,
    /// The highest number ever given, so that a removed version's is not used again.
    pub last_version: u32,
    /// The same, of configurations.
    pub last_config: u32,
    /// The version that decides.
    pub active: Option<Active>,
    /// The version that decides for a share of the ids.
    pub canary: Option<Canary>,
    /// The version that runs in shadow, beside the active one, and decides nothing.
    pub shadow: Option<Active>,
    /// What was active before, newest last: the way back.
    pub before: Vec<Active>,
    /// What decided, for all or for a share, and was taken from it since, or was removed; the newest last,
    /// at most [`crate::limits::DECLINED_MAX`]. Outlives the versions.
    pub declined: Vec<Digest>,
    /// What was done, newest last; at most [`crate::limits::HISTORY_MAX`].
    pub history: VecDeque<ModuleEvent>,
    /// When it last changed.
    pub revision: Revision,
}

impl Module {
    fn new(kind: ModuleKind, index: u64) -> Self {
        Self {
            kind,
            versions: Vec::new(),
            last_version: 0,
            last_config: 0,
            active: None,
            canary: None,
            shadow: None,
            before: Vec::new(),
            declined: Vec::new(),
            history: VecDeque::new(),
            revision: Revision(index),
        }
    }

    fn version(&self, version: u32) -> Option<&ModuleVersion> {
        self.versions.iter().find(|have| have.version == version)
    }

    /// The version that is meant: 0 is the newest.
    fn meant(&self, name: &ModuleName, version: u32) -> Result<u32, Outcome> {
        let newest = self.versions.last().map_or(0, |newest| newest.version);
        let version = if version == 0 { newest } else { version };
        match self.version(version) {
            Some(_) => Ok(version),
            None => Err(Outcome::not_found(format!(
                "version {version} of module {name}"
            ))),
        }
    }

    /// Whether what was activated at this index decides, for all or for a share.
    #[must_use]
    pub fn decides(&self, activated: u64) -> bool {
        let canary = self.canary.as_ref().map(|canary| canary.decides.at);
        let active = self.active.as_ref().map(|active| active.at);
        [active, canary].contains(&Some(activated))
    }

    /// The versions that decide, for all or for a share.
    fn deciding(&self) -> [Option<u32>; 2] {
        let canary = self.canary.as_ref().map(|canary| canary.decides.version);
        [self.active.as_ref().map(|active| active.version), canary]
    }

    /// Notes which of those versions decide no more: somebody took another instead.
    fn decline(&mut self, decided: [Option<u32>; 2]) {
        let deciding = self.deciding();
        let digest = |version: &u32| Some(self.version(*version)?.digest);
        let now: Vec<Digest> = deciding.iter().flatten().filter_map(digest).collect();
        let before: Vec<Digest> = decided.iter().flatten().filter_map(digest).collect();
        self.declined.retain(|digest| !now.contains(digest));
        for digest in before {
            if !now.contains(&digest) {
                self.decline_one(digest);
            }
        }
    }

    fn decline_one(&mut self, digest: Digest) {
        self.declined.retain(|have| *have != digest);
        self.declined.push(digest);
        if self.declined.len() > DECLINED_MAX {
            self.declined.remove(0);
        }
    }

    /// What a version does besides deciding for all, and how it is stopped.
    fn beside(&self, version: u32) -> Option<&'static str> {
        let canary = self.canary.as_ref().map(|canary| canary.decides.version);
        let shadow = self.shadow.as_ref().map(|shadow| shadow.version);
        if canary == Some(version) {
            return Some("decides for a share of the ids; roll it back");
        }
        (shadow == Some(version)).then_some("runs in shadow; stop that")
    }

    /// As others see it.
    #[must_use]
    pub fn to_wire(&self, name: &ModuleName) -> ModuleRecord {
        let active = self.active.as_ref();
        let canary = self.canary.as_ref().map(|canary| CanaryRecord {
            version: canary.decides.version,
            config: canary.decides.config.to_string(),
            config_version: canary.decides.config_version,
            percent: canary.percent,
            types: canary.types.clone(),
            guard: canary.decides.guard.clone(),
            activated: Revision(canary.decides.at),
        });
        let shadow = self.shadow.as_ref().map(|shadow| ShadowRecord {
            version: shadow.version,
            config: shadow.config.to_string(),
            since: Revision(shadow.at),
        });
        ModuleRecord {
            name: name.clone(),
            kind: self.kind,
            versions: self.versions.clone(),
            active: active.map(|active| active.version),
            previous: self.before.last().map(|before| before.version),
            config: active.map_or_else(|| "{}".to_owned(), |active| active.config.to_string()),
            config_version: active.map_or(0, |active| active.config_version),
            guard: active.map_or_else(String::new, |active| active.guard.clone()),
            canary,
            shadow,
            declined: self.declined.clone(),
            activated: Revision(active.map_or(0, |active| active.at)),
            revision: self.revision,
        }
    }
}

impl Registry {
    /// The version that decides under a name.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn active_module(&self, name: &ModuleName, kind: ModuleKind) -> Result<ModuleRef, String> {
        let module = self.module_of(name, kind)?;
        let active = module
            .active
            .as_ref()
            .ok_or_else(|| format!("no version of {name} is active"))?;
        Ok(reference(name, module, active, false))
    }

    /// Its canary, if there is one.
    #[must_use]
    pub fn canary_module(&self, name: &ModuleName) -> Option<ModuleRef> {
        let module = self.modules.get(name)?;
        let canary = module.canary.as_ref()?;
        Some(reference(name, module, &canary.decides, true))
    }

    /// The version that runs in shadow of a module, if one does.
    #[must_use]
    pub fn shadow_module(&self, name: &ModuleName) -> Option<ModuleRef> {
        let module = self.modules.get(name)?;
        Some(reference(name, module, module.shadow.as_ref()?, false))
    }

    /// Which lane decides for a process.
    #[must_use]
    pub fn lane_of(&self, selector: &ModuleName, key: &ProcessKey) -> LaneId {
        let canary = self
            .modules
            .get(selector)
            .and_then(|module| module.canary.as_ref());
        LaneId {
            module: selector.clone(),
            canary: canary.is_some_and(|canary| canary.takes(selector, key)),
        }
    }

    fn module_of(&self, name: &ModuleName, kind: ModuleKind) -> Result<&Module, String> {
        let module = self.modules.get(name);
        let module = module.ok_or_else(|| format!("there is no module {name}"))?;
        if module.kind != kind {
            return Err(format!("module {name} is not a {}", kind_name(kind)));
        }
        Ok(module)
    }
}

fn reference(name: &ModuleName, module: &Module, active: &Active, canary: bool) -> ModuleRef {
    let version = module.version(active.version);
    ModuleRef {
        name: name.clone(),
        version: active.version,
        digest: version.map(|version| version.digest).unwrap_or_default(),
        config: Arc::clone(&active.config),
        config_hash: active.config_hash,
        canary,
        activated: active.at,
    }
}

fn kind_name(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Selector => "selector",
        ModuleKind::Callback => "callback",
        ModuleKind::Fence => "fence",
    }
}

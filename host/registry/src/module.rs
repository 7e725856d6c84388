//! Modules: names, versions, which one decides, and the way back.
//!
//! The registry knows digests; the bytes are files on the hosts. Activation is one entry, and its
//! index is what a decision is checked against.

use std::sync::Arc;

use maitred_protocol::{
    Digest, ModuleKind, ModuleName, ModuleRecord, ModuleVersion, Rejection, Revision,
};

use crate::Registry;
use crate::decide::ModuleRef;
use crate::limits::{MODULES_MAX, ROLLBACKS_MAX, VERSIONS_MAX};
use crate::outcome::{Event, Outcome};

/// The version that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    /// Which.
    pub version: u32,
    /// Its configuration.
    pub config: Arc<str>,
    /// When it was activated.
    pub at: u64,
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
    /// The version that decides.
    pub active: Option<Active>,
    /// What was active before, newest last.
    pub history: Vec<(u32, Arc<str>)>,
    /// When it last changed.
    pub revision: Revision,
}

impl Module {
    fn version(&self, version: u32) -> Option<&ModuleVersion> {
        self.versions.iter().find(|have| have.version == version)
    }

    /// As others see it.
    #[must_use]
    pub fn to_wire(&self, name: &ModuleName) -> ModuleRecord {
        let active = self.active.as_ref();
        ModuleRecord {
            name: name.clone(),
            kind: self.kind,
            versions: self.versions.clone(),
            active: active.map(|active| active.version),
            previous: self.history.last().map(|(version, _)| *version),
            config: active.map_or_else(|| "{}".to_owned(), |active| active.config.to_string()),
            activated: Revision(active.map_or(0, |active| active.at)),
            revision: self.revision,
        }
    }
}

/// A module that is pushed.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) name: ModuleName,
    pub(crate) kind: ModuleKind,
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    pub(crate) title: String,
    pub(crate) features: Vec<String>,
}

fn conflict(text: String) -> Outcome {
    Outcome::rejected(Rejection::Conflict(text))
}

impl Registry {
    /// The module that decides under a name.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn active_module(&self, name: &ModuleName, kind: ModuleKind) -> Result<ModuleRef, String> {
        let Some(module) = self.modules.get(name) else {
            return Err(format!("there is no module {name}"));
        };
        if module.kind != kind {
            return Err(format!("module {name} is not a {}", kind_name(kind)));
        }
        let active = module
            .active
            .as_ref()
            .ok_or_else(|| format!("no version of {name} is active"))?;
        let version = module.version(active.version);
        let digest = version.map(|version| version.digest).unwrap_or_default();
        Ok(ModuleRef {
            name: name.clone(),
            version: active.version,
            digest,
            config: Arc::clone(&active.config),
            activated: active.at,
        })
    }

    pub(crate) fn push_module(
        &mut self,
        index: u64,
        time_ms: u64,
        push: Push,
        events: &mut Vec<Event>,
    ) -> Outcome {
        if !self.modules.contains_key(&push.name) && self.modules.len() >= MODULES_MAX {
            return conflict(format!(
                "there are {MODULES_MAX} modules already, which is the limit; remove one"
            ));
        }
        let module = self
            .modules
            .entry(push.name.clone())
            .or_insert_with(|| Module {
                kind: push.kind,
                versions: Vec::new(),
                last_version: 0,
                active: None,
                history: Vec::new(),
                revision: Revision(index),
            });
        if module.kind != push.kind {
            return conflict(format!(
                "module {} is a {}; push a {} under another name",
                push.name,
                kind_name(module.kind),
                kind_name(push.kind)
            ));
        }
        if let Some(same) = module
            .versions
            .iter()
            .find(|have| have.digest == push.digest)
        {
            return Outcome::Pushed(Arc::new(module.to_wire(&push.name)), same.version);
        }
        if module.versions.len() >= VERSIONS_MAX {
            return conflict(format!(
                "module {} has {VERSIONS_MAX} versions already, which is the limit; remove old ones",
                push.name
            ));
        }
        module.last_version += 1;
        let version = module.last_version;
        module.versions.push(ModuleVersion {
            version,
            digest: push.digest,
            bytes: push.bytes,
            title: push.title,
            features: push.features,
            pushed_ms: time_ms,
        });
        module.revision = Revision(index);
        let record = module.to_wire(&push.name);
        events.push(Event::Module(push.name));
        Outcome::Pushed(Arc::new(record), version)
    }

    pub(crate) fn activate_module(
        &mut self,
        index: u64,
        name: &ModuleName,
        version: u32,
        config: Option<String>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(module) = self.modules.get_mut(name) else {
            return Outcome::not_found(format!("module {name}"));
        };
        let newest = module.versions.last().map_or(0, |newest| newest.version);
        let version = if version == 0 { newest } else { version };
        if module.version(version).is_none() {
            return Outcome::not_found(format!("version {version} of module {name}"));
        }
        let config = match (config, &module.active) {
            (Some(config), _) => config.into(),
            (None, Some(old)) => Arc::clone(&old.config),
            (None, None) => "{}".into(),
        };
        let same = |old: &Active| old.version == version && old.config == config;
        if module.active.as_ref().is_some_and(same) {
            // Nothing changes, and the way back least of all: a script may say it twice.
            return Outcome::Module(Arc::new(module.to_wire(name)));
        }
        let old = module.active.take();
        if let Some(old) = old {
            module.history.push((old.version, old.config));
            if module.history.len() > ROLLBACKS_MAX {
                module.history.remove(0);
            }
        }
        module.active = Some(Active {
            version,
            config,
            at: index,
        });
        module.revision = Revision(index);
        let record = module.to_wire(name);
        events.push(Event::Module(name.clone()));
        Outcome::Module(Arc::new(record))
    }

    pub(crate) fn rollback_module(
        &mut self,
        index: u64,
        name: &ModuleName,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(module) = self.modules.get_mut(name) else {
            return Outcome::not_found(format!("module {name}"));
        };
        let Some((version, config)) = module.history.pop() else {
            return conflict(format!(
                "module {name} has no earlier version to go back to"
            ));
        };
        module.active = Some(Active {
            version,
            config,
            at: index,
        });
        module.revision = Revision(index);
        let record = module.to_wire(name);
        events.push(Event::Module(name.clone()));
        Outcome::Module(Arc::new(record))
    }

    pub(crate) fn remove_module(
        &mut self,
        index: u64,
        name: &ModuleName,
        version: u32,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(module) = self.modules.get_mut(name) else {
            return Outcome::not_found(format!("module {name}"));
        };
        let active = module.active.as_ref().map(|active| active.version);
        if version == 0 {
            if let Some(active) = active
                && let Some(user) = self
                    .types
                    .values()
                    .find(|spec| spec.selector == *name || spec.callback == *name)
            {
                return conflict(format!(
                    "module {name} is active (version {active}) and type {} uses it; give the type another one first",
                    user.name
                ));
            }
            self.modules.remove(name);
        } else {
            if active == Some(version) {
                return conflict(format!(
                    "version {version} of module {name} is active; activate another one first"
                ));
            }
            let before = module.versions.len();
            module.versions.retain(|have| have.version != version);
            if module.versions.len() == before {
                return Outcome::not_found(format!("version {version} of module {name}"));
            }
            module.history.retain(|(have, _)| *have != version);
            module.revision = Revision(index);
        }
        events.push(Event::Module(name.clone()));
        Outcome::Done(Revision(index))
    }
}

fn kind_name(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Selector => "selector",
        ModuleKind::Callback => "callback",
        ModuleKind::Fence => "fence",
    }
}

//! Modules: names, versions, which one decides, and the way back.
//!
//! The registry knows digests; the bytes are files on the hosts. Activation is one entry, and its
//! index is what a decision is checked against.

use std::collections::VecDeque;
use std::sync::Arc;

use maitred_protocol::{
    CanaryRecord, ModuleAction, ModuleEvent, ModuleKind, ModuleName, ModuleRecord, ModuleVersion,
    ProcessKey, Rejection, Revision, ShadowRecord, TypeName, config_hash,
};

use crate::Registry;
use crate::command::PushModule;
use crate::decide::{LaneId, ModuleRef, cut};
use crate::life::At;
use crate::limits::{HISTORY_MAX, MODULES_MAX, ROLLBACKS_MAX, VERSIONS_MAX};
use crate::outcome::{Event, Outcome};

/// A version that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    /// Which.
    pub version: u32,
    /// Its configuration.
    pub config: Arc<str>,
    /// The number of that.
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

/// A version that runs beside the active one, and decides nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    /// Which.
    pub version: u32,
    /// Its configuration.
    pub config: Arc<str>,
    /// Since when.
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
    /// The same, of configurations.
    pub last_config: u32,
    /// The version that decides.
    pub active: Option<Active>,
    /// The version that decides for a share of the ids.
    pub canary: Option<Canary>,
    /// The version that runs in shadow.
    pub shadow: Option<Shadow>,
    /// What was active before, newest last: the way back.
    pub before: Vec<Active>,
    /// What was done, newest last; at most [`HISTORY_MAX`].
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

    /// What a version does besides deciding for all, and how it is stopped.
    fn beside(&self, version: u32) -> Option<&'static str> {
        let canary = self.canary.as_ref().map(|canary| canary.decides.version);
        let shadow = self.shadow.as_ref().map(|shadow| shadow.version);
        if canary == Some(version) {
            return Some("decides for a share of the ids; roll it back");
        }
        (shadow == Some(version)).then_some("runs in shadow; stop that")
    }

    fn note(&mut self, at: At, event: Note<'_>) {
        let Note {
            action,
            version,
            config,
            percent,
            types,
            cause,
        } = event;
        self.history.push_back(ModuleEvent {
            revision: at.revision(),
            time_ms: at.time_ms,
            action,
            version,
            config_version: config.map_or(0, |(number, _)| number),
            config: config.map_or(0, |(_, text)| config_hash(text)),
            percent,
            types: types.to_vec(),
            cause,
        });
        if self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
        self.revision = at.revision();
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
            activated: Revision(active.map_or(0, |active| active.at)),
            revision: self.revision,
        }
    }
}

/// A line of the history, without what every line has.
struct Note<'a> {
    action: ModuleAction,
    version: u32,
    config: Option<(u32, &'a str)>,
    percent: u8,
    types: &'a [TypeName],
    cause: Option<String>,
}

impl<'a> Note<'a> {
    fn of(action: ModuleAction, version: u32) -> Self {
        Self {
            action,
            version,
            config: None,
            percent: 100,
            types: &[],
            cause: None,
        }
    }

    fn active(action: ModuleAction, active: &'a Active) -> Self {
        Self {
            config: Some((active.config_version, &active.config)),
            ..Self::of(action, active.version)
        }
    }
}

/// What an activation asks for.
#[derive(Debug)]
pub(crate) struct Activation {
    pub(crate) version: u32,
    pub(crate) config: Option<String>,
    pub(crate) percent: u8,
    pub(crate) types: Vec<TypeName>,
    pub(crate) guard: String,
}

fn conflict(text: String) -> Outcome {
    Outcome::rejected(Rejection::Conflict(text))
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
        let shadow = module.shadow.as_ref()?;
        let runs = Active {
            version: shadow.version,
            config: Arc::clone(&shadow.config),
            config_version: 0,
            guard: String::new(),
            at: shadow.at,
        };
        Some(reference(name, module, &runs, false))
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

    pub(crate) fn push_module(
        &mut self,
        at: At,
        push: PushModule,
        events: &mut Vec<Event>,
    ) -> Outcome {
        if !self.modules.contains_key(&push.name) && self.modules.len() >= MODULES_MAX {
            return conflict(format!(
                "there are {MODULES_MAX} modules already, which is the limit; remove one"
            ));
        }
        let fresh = || Module::new(push.kind, at.index);
        let module = self.modules.entry(push.name.clone()).or_insert_with(fresh);
        if module.kind != push.kind {
            return conflict(format!(
                "module {} is a {}; push a {} under another name",
                push.name,
                kind_name(module.kind),
                kind_name(push.kind)
            ));
        }
        let mut have = module.versions.iter();
        if let Some(same) = have.find(|have| have.digest == push.digest) {
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
            pushed_ms: at.time_ms,
            world: push.world,
            abi: push.abi,
            hooks: push.hooks,
            signature: push.signature,
        });
        module.note(at, Note::of(ModuleAction::Pushed, version));
        let record = module.to_wire(&push.name);
        events.push(Event::Module(push.name));
        Outcome::Pushed(Arc::new(record), version)
    }

    pub(crate) fn activate_module(
        &mut self,
        at: At,
        name: &ModuleName,
        ask: Activation,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(module) = self.modules.get_mut(name) else {
            return Outcome::not_found(format!("module {name}"));
        };
        let version = match module.meant(name, ask.version) {
            Ok(version) => version,
            Err(no) => return no,
        };
        let next = next_active(module, at, version, &ask);
        if ask.percent < 100 || !ask.types.is_empty() {
            if module.kind != ModuleKind::Selector {
                let kind = kind_name(module.kind);
                return conflict(format!(
                    "{name} is a {kind}, and only selectors decide for a share of the ids; activate it for all"
                ));
            }
            let Some(active) = &module.active else {
                return conflict(format!(
                    "no version of {name} is active, so none can decide for a share beside it; activate one for all first"
                ));
            };
            if (active.version, &active.config) == (next.version, &next.config) {
                return conflict(format!(
                    "version {version} of {name} decides for all ids already, with that configuration"
                ));
            }
            let note = Note {
                percent: ask.percent,
                types: &ask.types,
                ..Note::active(ModuleAction::CanaryStarted, &next)
            };
            module.last_config = module.last_config.max(next.config_version);
            module.note(at, note);
            module.canary = Some(Canary {
                decides: next,
                percent: ask.percent,
                types: ask.types,
            });
        } else {
            let old = module.active.as_ref();
            let is_same = old.is_some_and(|old| {
                (old.version, &old.config, &old.guard) == (next.version, &next.config, &next.guard)
            });
            if is_same && module.canary.is_none() {
                // Nothing changes, and the way back least of all: a script may say it twice.
                return Outcome::Module(Arc::new(module.to_wire(name)));
            }
            let reconfigured = old.is_some_and(|old| old.version == version);
            module.canary = None;
            if let Some(old) = module.active.take() {
                module.before.push(old);
                if module.before.len() > ROLLBACKS_MAX {
                    module.before.remove(0);
                }
            }
            let action = match reconfigured {
                true => ModuleAction::Configured,
                false => ModuleAction::Activated,
            };
            module.last_config = module.last_config.max(next.config_version);
            module.note(at, Note::active(action, &next));
            module.active = Some(next);
        }
        let record = module.to_wire(name);
        events.push(Event::Module(name.clone()));
        Outcome::Module(Arc::new(record))
    }

    pub(crate) fn rollback_module(
        &mut self,
        at: At,
        name: &ModuleName,
        activated: Option<u64>,
        cause: Option<String>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(module) = self.modules.get_mut(name) else {
            return Outcome::not_found(format!("module {name}"));
        };
        let canary = module.canary.as_ref().map(|canary| canary.decides.at);
        let active = module.active.as_ref().map(|active| active.at);
        let newest = canary.or(active);
        if activated.is_some() && activated != canary && activated != active {
            return conflict(format!("what was activated of {name} decides no more"));
        }
        // A guard of the active version leaves the canary alone.
        if newest == canary && (activated.is_none() || activated == canary) && canary.is_some() {
            module.canary = None;
        } else {
            let Some(mut back) = module.before.pop() else {
                return conflict(format!(
                    "module {name} has no earlier version to go back to"
                ));
            };
            back.at = at.index;
            module.active = Some(back);
        }
        let action = match cause {
            Some(_) => ModuleAction::AutoRolledBack,
            None => ModuleAction::RolledBack,
        };
        let decides = module.active.clone();
        let mut note = match &decides {
            Some(active) => Note::active(action, active),
            None => Note::of(action, 0),
        };
        note.cause = cause.map(cut);
        module.note(at, note);
        let record = module.to_wire(name);
        events.push(Event::Module(name.clone()));
        Outcome::Module(Arc::new(record))
    }

    pub(crate) fn put_shadow(
        &mut self,
        at: At,
        name: &ModuleName,
        shadow: Option<(u32, Option<String>)>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(module) = self.modules.get_mut(name) else {
            return Outcome::not_found(format!("module {name}"));
        };
        match shadow {
            Some(_) if module.kind != ModuleKind::Selector => {
                let kind = kind_name(module.kind);
                return conflict(format!("{name} is a {kind}; only selectors run in shadow"));
            }
            Some((version, config)) => {
                let version = match module.meant(name, version) {
                    Ok(version) => version,
                    Err(no) => return no,
                };
                let active = module.active.as_ref();
                let config = match (config, active) {
                    (Some(config), _) => config.into(),
                    (None, Some(active)) => Arc::clone(&active.config),
                    (None, None) => "{}".into(),
                };
                let number = match active {
                    Some(active) if active.config == config => active.config_version,
                    _ => 0,
                };
                let note = Note {
                    config: Some((number, &config)),
                    ..Note::of(ModuleAction::ShadowStarted, version)
                };
                module.note(at, note);
                module.shadow = Some(Shadow {
                    version,
                    config,
                    at: at.index,
                });
            }
            None => {
                let Some(old) = module.shadow.take() else {
                    return Outcome::Module(Arc::new(module.to_wire(name)));
                };
                module.note(at, Note::of(ModuleAction::ShadowStopped, old.version));
            }
        }
        let record = module.to_wire(name);
        events.push(Event::Module(name.clone()));
        Outcome::Module(Arc::new(record))
    }

    pub(crate) fn remove_module(
        &mut self,
        at: At,
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
            if let Some(what) = module.beside(version) {
                return conflict(format!("version {version} of module {name} {what} first"));
            }
            let before = module.versions.len();
            module.versions.retain(|have| have.version != version);
            if module.versions.len() == before {
                return Outcome::not_found(format!("version {version} of module {name}"));
            }
            module.before.retain(|before| before.version != version);
            module.note(at, Note::of(ModuleAction::Removed, version));
        }
        events.push(Event::Module(name.clone()));
        Outcome::Done(at.revision())
    }
}

fn reference(name: &ModuleName, module: &Module, active: &Active, canary: bool) -> ModuleRef {
    let version = module.version(active.version);
    ModuleRef {
        name: name.clone(),
        version: active.version,
        digest: version.map(|version| version.digest).unwrap_or_default(),
        config: Arc::clone(&active.config),
        config_hash: config_hash(&active.config),
        canary,
        activated: active.at,
    }
}

/// What would be active. Its configuration has the number of the same one that decides already, or a
/// new one.
fn next_active(module: &Module, at: At, version: u32, ask: &Activation) -> Active {
    let canary = module.canary.as_ref().map(|canary| &canary.decides);
    let old = module.active.as_ref();
    // To let a canary decide for all is to let it decide with its own configuration.
    let same = canary.filter(|canary| canary.version == version).or(old);
    let config: Arc<str> = match (&ask.config, same) {
        (Some(config), _) => config.as_str().into(),
        (None, Some(same)) => Arc::clone(&same.config),
        (None, None) => "{}".into(),
    };
    let mut known = [old, canary].into_iter().flatten();
    let known = known.find(|known| known.config == config);
    let next = module.last_config + 1;
    Active {
        version,
        config_version: known.map_or(next, |known| known.config_version),
        config,
        guard: ask.guard.clone(),
        at: at.index,
    }
}

fn kind_name(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Selector => "selector",
        ModuleKind::Callback => "callback",
        ModuleKind::Fence => "fence",
    }
}

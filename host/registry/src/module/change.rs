//! What changes a module: versions come and go, decide for all or for a share, run in shadow, and are
//! taken back.
//!
//! Each change is one entry and one line of the module's history. What cannot be done says why, and
//! changes nothing; neither does what is so already.

use std::sync::Arc;

use maitred_protocol::{ModuleAction, ModuleKind, ModuleName, ModuleVersion, Rejection, TypeName};

use super::history::Note;
use super::{Active, Canary, Module, kind_name};
use crate::Registry;
use crate::command::PushModule;
use crate::decide::cut;
use crate::life::At;
use crate::limits::{MODULES_MAX, ROLLBACKS_MAX, VERSIONS_MAX};
use crate::mutants;
use crate::outcome::{Event, Outcome};

impl Active {
    /// Whether it decides in the same way, though it may have been activated at another time.
    fn is_like(&self, other: &Self) -> bool {
        (self.version, &self.config, &self.guard) == (other.version, &other.config, &other.guard)
    }
}

impl Module {
    /// A version decides for a share of the ids from now on; says whether that is new.
    fn begin_canary(
        &mut self,
        at: At,
        name: &ModuleName,
        ask: Activation,
        next: Active,
    ) -> Result<bool, Outcome> {
        if self.kind != ModuleKind::Selector {
            let kind = kind_name(self.kind);
            return Err(conflict(format!(
                "{name} is a {kind}, and only selectors decide for a share of the ids; activate it for all"
            )));
        }
        let Some(active) = &self.active else {
            return Err(conflict(format!(
                "no version of {name} is active, so none can decide for a share beside it; activate one for all first"
            )));
        };
        let version = next.version;
        if (active.version, &active.config) == (version, &next.config) {
            return Err(conflict(format!(
                "version {version} of {name} decides for all ids already, with that configuration"
            )));
        }
        let old = self.canary.as_ref();
        let is_same = old.is_some_and(|old| {
            old.decides.is_like(&next) && (old.percent, &old.types) == (ask.percent, &ask.types)
        });
        if is_same {
            return Ok(false);
        }
        let note = Note {
            percent: ask.percent,
            types: &ask.types,
            ..Note::active(ModuleAction::CanaryStarted, &next)
        };
        self.last_config = self.last_config.max(next.config_version);
        self.note(at, note);
        self.canary = Some(Canary {
            decides: next,
            percent: ask.percent,
            types: ask.types,
        });
        Ok(true)
    }

    /// A version decides for all from now on; says whether that is new.
    fn take_over(&mut self, at: At, next: Active) -> bool {
        let old = self.active.as_ref();
        if old.is_some_and(|old| old.is_like(&next)) {
            // It decides already; a canary beside it ends.
            let ended = self.canary.take().is_some();
            if ended {
                self.note(at, Note::active(ModuleAction::Activated, &next));
            }
            return ended;
        }
        let action = match old.is_some_and(|old| old.version == next.version) {
            true => ModuleAction::Configured,
            false => ModuleAction::Activated,
        };
        self.canary = None;
        // Another rule for the same version and configuration is no step on the way back: a rule that takes
        // it back would only take itself off.
        let same = |old: &mut Active| (old.version, &old.config) != (next.version, &next.config);
        if let Some(old) = self.active.take_if(same) {
            self.before.push(old);
            if self.before.len() > ROLLBACKS_MAX {
                self.before.remove(0);
            }
        }
        self.last_config = self.last_config.max(next.config_version);
        self.note(at, Note::active(action, &next));
        self.active = Some(next);
        true
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
        let mut have = module.versions.iter_mut();
        if let Some(same) = have.find(|have| have.digest == push.digest) {
            let version = same.version;
            if push.signature.is_some() && same.signature != push.signature {
                // The same bytes, and now somebody vouches for them. Whoever did so before is not to be
                // replaced by just anybody: hosts may run them for that signature's sake only.
                if same.signature.is_some() && !push.is_trusted {
                    return conflict(format!(
                        "version {version} of module {} is signed with another key; only a host that runs signed modules alone (require_signed), and trusts yours, takes it instead",
                        push.name
                    ));
                }
                same.signature = push.signature;
                let mut note = Note::of(ModuleAction::Pushed, version);
                note.cause = Some("signed".to_owned());
                module.note(at, note);
                module.revision = at.revision();
                events.push(Event::Module(push.name.clone()));
            }
            return Outcome::Pushed(Arc::new(module.to_wire(&push.name)), version);
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
        let decided = module.deciding();
        let changed = if ask.percent < 100 || !ask.types.is_empty() {
            module.begin_canary(at, name, ask, next)
        } else {
            Ok(module.take_over(at, next))
        };
        match changed {
            Ok(true) => events.push(Event::Module(name.clone())),
            // A script may say it twice, and that must not spoil the way back.
            Ok(false) => {}
            Err(no) => return no,
        }
        module.decline(decided);
        Outcome::Module(Arc::new(module.to_wire(name)))
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
        let decided = module.deciding();
        // A guard of the active version leaves the canary alone.
        if newest == canary && (activated.is_none() || activated == canary) && canary.is_some() {
            if !mutants::on("rollback-keeps-canary") {
                module.canary = None;
            }
        } else {
            let Some(mut back) = module.before.pop() else {
                return conflict(format!(
                    "module {name} has no earlier version to go back to"
                ));
            };
            back.at = at.index;
            module.active = Some(back);
        }
        module.decline(decided);
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
                // The same one goes on with what it has been compared with.
                let old = module.shadow.as_ref();
                if old.is_some_and(|old| (old.version, &old.config) == (version, &config)) {
                    return Outcome::Module(Arc::new(module.to_wire(name)));
                }
                let number = match active {
                    Some(active) if active.config == config => active.config_version,
                    _ => 0,
                };
                let note = Note {
                    config: Some((number, &config)),
                    ..Note::of(ModuleAction::ShadowStarted, version)
                };
                module.note(at, note);
                let config = (config, number);
                module.shadow = Some(Active::new(version, config, String::new(), at.index));
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
            let mut versions = module.versions.iter();
            let Some(found) = versions.position(|have| have.version == version) else {
                return Outcome::not_found(format!("version {version} of module {name}"));
            };
            let removed = module.versions.remove(found);
            module.decline_one(removed.digest);
            module.before.retain(|before| before.version != version);
            module.note(at, Note::of(ModuleAction::Removed, version));
        }
        events.push(Event::Module(name.clone()));
        Outcome::Done(at.revision())
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
    let number = known.map_or(next, |known| known.config_version);
    Active::new(version, (config, number), ask.guard.clone(), at.index)
}

//! The rules of modules: canaries, shadows, the way back, and what is written down of it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

use maitred_protocol::{
    Digest, ModuleAction, ModuleKind, ModuleName, ModuleRecord, ProcessKey, Rejection, Response,
    Signature, TypeName, codec::encode, limits,
};
use maitred_registry::feature::FEATURES_MAX;
use maitred_registry::limits::{
    DECLINED_MAX, HISTORY_MAX, MODULES_MAX, ROLLBACKS_MAX, VERSIONS_MAX,
};
use maitred_registry::{Command, Entry, Event, Outcome, PushModule, Registry};

struct Modules {
    registry: Registry,
    events: Vec<Event>,
}

fn name() -> ModuleName {
    ModuleName::new("spread").unwrap()
}

fn activate(version: u32, percent: u8) -> Command {
    Command::ActivateModule {
        name: name(),
        version,
        config: None,
        percent,
        types: Vec::new(),
        guard: String::new(),
    }
}

fn configure(version: u32, percent: u8, config: &str) -> Command {
    Command::ActivateModule {
        name: name(),
        version,
        config: Some(config.to_owned()),
        percent,
        types: Vec::new(),
        guard: "traps>0".to_owned(),
    }
}

fn roll_back(activated: Option<u64>) -> Command {
    Command::RollbackModule {
        name: name(),
        activated,
        cause: activated.map(|_| "traps>0: 3".to_owned()),
    }
}

fn shadow(shadow: Option<(u32, Option<String>)>) -> Command {
    Command::ShadowModule {
        name: name(),
        shadow,
    }
}

fn key(id: usize) -> ProcessKey {
    ProcessKey::new("player", &format!("p-{id}")).unwrap()
}

fn push(name: &ModuleName, kind: ModuleKind, digest: Digest, features: usize) -> Command {
    let long = |at: usize| format!("label:{at:0>250}");
    Command::PushModule(Box::new(PushModule {
        name: name.clone(),
        kind,
        digest,
        bytes: 1,
        title: "t".repeat(limits::TEXT_BYTES_MAX),
        features: (0..features).map(long).collect(),
        world: "selector".to_owned(),
        abi: "0.2.0".to_owned(),
        hooks: Vec::new(),
        signature: None,
        is_trusted: false,
    }))
}

impl Modules {
    /// Three versions, none of which decides.
    fn pushed(kind: ModuleKind) -> Self {
        let mut modules = Self {
            registry: Registry::new(),
            events: Vec::new(),
        };
        for version in 1..=3_u8 {
            modules.apply(push(&name(), kind, Digest([version; 32]), 0));
        }
        modules
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.events.clear();
        let entry = Entry {
            time_ms: 1,
            request: None,
            command,
        };
        let index = self.registry.applied() + 1;
        self.registry.apply(index, entry, &mut self.events)
    }

    fn done(&mut self, command: Command) -> ModuleRecord {
        match self.apply(command) {
            Outcome::Module(record) => (*record).clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Must be refused for a conflict, and change nothing.
    fn refused(&mut self, command: Command) -> String {
        let before = self.registry.module(&name()).cloned();
        let outcome = self.apply(command);
        assert!(self.events.is_empty());
        assert_eq!(self.registry.module(&name()).cloned(), before);
        match outcome {
            Outcome::Rejected(no) => match &*no {
                Rejection::Conflict(text) => text.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// Those of the first so many ids for which the canary decides.
    fn in_canary(&self, ids: usize) -> Vec<usize> {
        let takes = |id: &usize| self.registry.lane_of(&name(), &key(*id)).canary;
        (0..ids).filter(takes).collect()
    }

    fn actions(&self) -> Vec<(ModuleAction, u32, u32)> {
        let module = self.registry.module(&name()).unwrap();
        let lines = module.history.iter();
        lines
            .map(|line| (line.action, line.version, line.config_version))
            .collect()
    }
}

#[test]
fn a_canary_decides_for_its_share_and_whoever_is_in_stays_in_when_it_grows() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    modules.done(activate(1, 100));
    assert!(modules.in_canary(1_000).is_empty());
    let mut before = Vec::new();
    for percent in [1, 5, 10, 25, 50, 75, 99] {
        modules.done(activate(2, percent));
        let now = modules.in_canary(20_000);
        assert!(before.iter().all(|id| now.binary_search(id).is_ok()));
        // Five standard deviations of a fair draw.
        let share = f64::from(percent) / 100.0;
        let off = (now.len() as f64 - 20_000.0 * share).abs();
        assert!(off <= 5.0 * (20_000.0 * share * (1.0 - share)).sqrt());
        before = now;
    }
    let canary = modules.registry.canary_module(&name()).unwrap();
    assert!(canary.canary && canary.version == 2);
    assert_ne!(
        canary.activated,
        modules
            .registry
            .active_module(&name(), ModuleKind::Selector)
            .unwrap()
            .activated
    );
}

#[test]
fn a_canary_of_types_takes_all_of_them_and_no_others() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    modules.done(activate(1, 100));
    let types = vec![TypeName::new("room").unwrap()];
    modules.done(Command::ActivateModule {
        name: name(),
        version: 2,
        config: None,
        percent: 100,
        types,
        guard: String::new(),
    });
    assert!(modules.in_canary(1_000).is_empty());
    let room = ProcessKey::new("room", "1").unwrap();
    assert!(modules.registry.lane_of(&name(), &room).canary);
}

#[test]
fn a_canary_that_decides_for_all_brings_its_configuration_and_the_way_back() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    modules.done(configure(1, 100, "{\"a\":1}"));
    modules.done(configure(2, 10, "{\"a\":2}"));
    let record = modules.done(activate(2, 100));
    assert_eq!((record.active, record.previous), (Some(2), Some(1)));
    assert_eq!(
        (record.config.as_str(), record.config_version),
        ("{\"a\":2}", 2)
    );
    assert!(record.canary.is_none());
    let record = modules.done(roll_back(None));
    assert_eq!((record.active, record.config_version), (Some(1), 1));
    assert_eq!((record.previous, record.guard.as_str()), (None, "traps>0"));
}

#[test]
fn a_rollback_ends_the_canary_first() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    modules.done(activate(1, 100));
    modules.done(activate(2, 100));
    modules.done(activate(3, 10));
    let record = modules.done(roll_back(None));
    assert_eq!((record.active, record.canary), (Some(2), None));
    let record = modules.done(roll_back(None));
    assert_eq!(record.active, Some(1));
    assert!(
        modules
            .refused(roll_back(None))
            .contains("no earlier version")
    );
}

#[test]
fn what_a_guard_has_watched_is_taken_back_and_nothing_else() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    modules.done(activate(1, 100));
    modules.done(activate(2, 100));
    let active = modules
        .registry
        .active_module(&name(), ModuleKind::Selector)
        .unwrap()
        .activated;
    modules.done(activate(3, 10));
    let canary = modules.registry.canary_module(&name()).unwrap().activated;
    // The active version's guard leaves the canary alone.
    let record = modules.done(roll_back(Some(active)));
    assert_eq!(
        (record.active, record.canary.unwrap().version),
        (Some(1), 3)
    );
    assert!(
        modules
            .refused(roll_back(Some(active)))
            .contains("decides no more")
    );
    let record = modules.done(roll_back(Some(canary)));
    assert_eq!((record.active, record.canary), (Some(1), None));
    assert!(
        modules
            .refused(roll_back(Some(canary)))
            .contains("decides no more")
    );
    let last = modules.registry.module(&name()).unwrap().history.back();
    let last = last.unwrap();
    assert_eq!(last.action, ModuleAction::AutoRolledBack);
    assert_eq!(last.cause.as_deref(), Some("traps>0: 3"));
}

#[test]
fn what_was_decided_against_is_remembered_for_as_long_as_it_is_so() {
    let declined = |modules: &Modules| -> Vec<u8> {
        let module = modules.registry.module(&name()).unwrap();
        module.declined.iter().map(|digest| digest.0[0]).collect()
    };
    let mut modules = Modules::pushed(ModuleKind::Selector);
    modules.done(activate(1, 100));
    modules.done(activate(2, 100));
    assert_eq!(declined(&modules), [1]);
    // Another version of somebody's own that was tried says nothing of the one that decides.
    modules.done(activate(3, 10));
    modules.done(roll_back(None));
    assert_eq!(declined(&modules), [1, 3]);
    // Away from it, by a rollback or by activating the one before, and never mind what comes after.
    for away in [roll_back(None), activate(1, 100)] {
        modules.done(activate(2, 100));
        assert!(!declined(&modules).contains(&2));
        modules.done(away);
        assert_eq!(declined(&modules), [3, 2]);
    }
    for turn in 0..HISTORY_MAX {
        modules.done(configure(1, 100, &format!("{{\"turn\":{turn}}}")));
    }
    let remove = |version| Command::RemoveModule(name(), version);
    modules.apply(remove(2));
    let record = modules.done(shadow(None));
    assert_eq!(record.declined, [Digest([3; 32]), Digest([2; 32])]);
    // The same bytes again are still declined; they are not once they decide.
    modules.apply(push(&name(), ModuleKind::Selector, Digest([2; 32]), 0));
    assert_eq!(declined(&modules), [3, 2]);
    modules.done(activate(0, 100));
    assert_eq!(declined(&modules), [3, 1]);
    for number in 100..100 + 2 * DECLINED_MAX as u8 {
        let digest = Digest([number; 32]);
        modules.apply(push(&name(), ModuleKind::Selector, digest, 0));
        let version = u32::from(number) - 95;
        modules.apply(remove(version));
    }
    assert_eq!(declined(&modules).len(), DECLINED_MAX);
    assert_eq!(declined(&modules).last(), Some(&227));
}

#[test]
fn what_is_so_already_is_not_done_again() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    modules.done(activate(1, 100));
    modules.done(activate(2, 10));
    let at = modules.registry.canary_module(&name()).unwrap().activated;
    modules.done(activate(2, 10));
    assert!(modules.events.is_empty());
    assert_eq!(
        modules.registry.canary_module(&name()).unwrap().activated,
        at
    );
    // The active version, for all: that ends the canary, and the way back is not to itself.
    let record = modules.done(activate(1, 100));
    assert_eq!(modules.events, [Event::Module(name())]);
    assert_eq!((record.active, record.previous), (Some(1), None));
    assert!(record.canary.is_none());
    modules.done(activate(1, 100));
    assert!(modules.events.is_empty());
}

#[test]
fn a_canary_needs_a_selector_beside_which_it_decides() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    assert!(
        modules
            .refused(activate(2, 10))
            .contains("activate one for all first")
    );
    modules.done(activate(2, 100));
    assert!(
        modules
            .refused(activate(2, 10))
            .contains("for all ids already")
    );
    let mut callbacks = Modules::pushed(ModuleKind::Callback);
    callbacks.done(activate(1, 100));
    assert!(
        callbacks
            .refused(activate(2, 10))
            .contains("only selectors")
    );
    assert!(
        callbacks
            .refused(shadow(Some((2, None))))
            .contains("only selectors")
    );
}

#[test]
fn versions_that_run_beside_the_active_one_are_not_removed() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    modules.done(activate(1, 100));
    modules.done(activate(2, 10));
    let record = modules.done(shadow(Some((0, None))));
    assert_eq!(record.shadow.unwrap().version, 3);
    let remove = |version| Command::RemoveModule(name(), version);
    assert!(modules.refused(remove(2)).contains("roll it back"));
    assert!(modules.refused(remove(3)).contains("stop that"));
    modules.done(shadow(None));
    modules.done(roll_back(None));
    for version in [2, 3] {
        assert!(matches!(modules.apply(remove(version)), Outcome::Done(_)));
    }
    assert!(modules.registry.shadow_module(&name()).is_none());
}

#[test]
fn configurations_are_counted_and_none_is_changed_in_place() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    modules.done(configure(1, 100, "{\"a\":1}"));
    modules.done(configure(1, 100, "{\"a\":2}"));
    // The same text as the active one's has its number.
    modules.done(configure(2, 100, "{\"a\":2}"));
    modules.done(configure(3, 10, "{\"a\":3}"));
    // A rollback brings the number back with the text; the next one is new all the same.
    modules.done(roll_back(None));
    modules.done(roll_back(None));
    modules.done(roll_back(None));
    modules.done(configure(1, 100, "{\"a\":4}"));
    let lines = modules.actions().split_off(3);
    assert_eq!(
        lines,
        [
            (ModuleAction::Activated, 1, 1),
            (ModuleAction::Configured, 1, 2),
            (ModuleAction::Activated, 2, 2),
            (ModuleAction::CanaryStarted, 3, 3),
            (ModuleAction::RolledBack, 2, 2),
            (ModuleAction::RolledBack, 1, 2),
            (ModuleAction::RolledBack, 1, 1),
            (ModuleAction::Configured, 1, 4),
        ]
    );
}

#[test]
fn the_history_and_the_way_back_are_bounded() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    for turn in 0..2 * HISTORY_MAX {
        modules.done(activate(1 + (turn % 2) as u32, 100));
    }
    let module = modules.registry.module(&name()).unwrap();
    assert_eq!(module.history.len(), HISTORY_MAX);
    assert_eq!(module.before.len(), ROLLBACKS_MAX);
    let newest = module.history.back().unwrap();
    assert_eq!(newest.revision.0, modules.registry.applied());
}

#[test]
fn another_rule_for_the_same_version_leaves_the_way_back_alone() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    modules.done(activate(1, 100));
    modules.done(activate(2, 100));
    let ruled = modules.done(configure(2, 100, "{}"));
    assert_eq!((ruled.active, ruled.guard.as_str()), (Some(2), "traps>0"));
    assert_eq!(ruled.previous, Some(1));
    let back = modules.done(roll_back(Some(ruled.activated.0)));
    assert_eq!((back.active, back.previous), (Some(1), None));
}

#[test]
fn the_same_bytes_with_a_signature_are_vouched_for_from_then_on() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    let signature = Signature {
        key: [7; 32],
        bytes: [8; 64],
    };
    let push = PushModule {
        name: name(),
        kind: ModuleKind::Selector,
        digest: Digest([2; 32]),
        bytes: 1,
        title: String::new(),
        features: Vec::new(),
        world: "selector".to_owned(),
        abi: "0.2.0".to_owned(),
        hooks: Vec::new(),
        signature: Some(signature),
        is_trusted: false,
    };
    match modules.apply(Command::PushModule(Box::new(push.clone()))) {
        Outcome::Pushed(record, 2) => assert_eq!(record.versions[1].signature, Some(signature)),
        other => panic!("{other:?}"),
    }
    assert_eq!(modules.events, [Event::Module(name())]);
    // Without one, what was vouched for stays so.
    let unsigned = PushModule {
        signature: None,
        ..push.clone()
    };
    match modules.apply(Command::PushModule(Box::new(unsigned))) {
        Outcome::Pushed(record, 2) => assert_eq!(record.versions[1].signature, Some(signature)),
        other => panic!("{other:?}"),
    }
    assert!(modules.events.is_empty());

    // Nor does it become another's, unless a host trusts that one.
    let theirs = Signature {
        key: [9; 32],
        bytes: [8; 64],
    };
    let signed = |is_trusted| PushModule {
        signature: Some(theirs),
        is_trusted,
        ..push.clone()
    };
    let conflict = modules.apply(Command::PushModule(Box::new(signed(false))));
    let why = format!("{conflict:?}");
    assert!(
        why.contains("Conflict") && why.contains("another key"),
        "{why}"
    );
    assert!(modules.events.is_empty());
    match modules.apply(Command::PushModule(Box::new(signed(true)))) {
        Outcome::Pushed(record, 2) => assert_eq!(record.versions[1].signature, Some(theirs)),
        other => panic!("{other:?}"),
    }
    let history = &modules.registry.module(&name()).unwrap().history;
    let signings = history
        .iter()
        .filter(|line| line.cause.as_deref() == Some("signed"));
    assert_eq!(signings.count(), 2);
}

/// Some that are as large as they may be, and as many small ones as there may be.
#[test]
fn all_modules_are_listed_in_pages_that_fit_a_frame() {
    let large = "c".repeat(limits::CONFIG_BYTES_MAX);
    for (count, versions, features, config, pages_max) in [
        (8, VERSIONS_MAX as u8, FEATURES_MAX, &*large, 8),
        (MODULES_MAX, 2, 1, "{}", 2),
    ] {
        let mut modules = Modules::pushed(ModuleKind::Selector);
        for number in 1..count {
            let name = ModuleName::new(format!("module-{number}")).unwrap();
            for version in 0..versions {
                let digest = Digest([version; 32]);
                let push = push(&name, ModuleKind::Selector, digest, features);
                modules.apply(push);
            }
            for version in [1, 2] {
                modules.done(Command::ActivateModule {
                    name: name.clone(),
                    version,
                    config: Some(config.to_owned()),
                    percent: if version == 1 { 100 } else { 50 },
                    types: Vec::new(),
                    guard: String::new(),
                });
            }
        }
        let (mut after, mut names, mut pages) = (None, Vec::new(), 0);
        loop {
            let (items, next) = modules.registry.list_modules(after.as_ref());
            names.extend(items.iter().map(|module| module.name.clone()));
            let page = Response::Modules {
                items,
                next: next.clone(),
            };
            encode(1, &page, &mut Vec::new()).unwrap();
            pages += 1;
            after = next;
            if after.is_none() {
                break;
            }
        }
        let all: Vec<_> = modules.registry.modules().map(|(name, _)| name).collect();
        assert_eq!(all.len(), count);
        assert!(names.iter().eq(all), "{names:?}");
        assert!(pages <= pages_max, "{pages} pages");
    }
}

#[test]
fn the_same_shadow_again_goes_on_as_it_is() {
    let mut modules = Modules::pushed(ModuleKind::Selector);
    modules.done(activate(1, 100));
    let begun = modules.done(shadow(Some((2, None))));
    let told = modules.registry.module(&name()).unwrap().history.len();
    assert_eq!(modules.done(shadow(Some((2, None)))), begun);
    assert!(modules.events.is_empty());
    let same = modules.done(shadow(Some((2, Some("{}".to_owned())))));
    assert_eq!(same, begun, "the configuration that it has");
    let module = modules.registry.module(&name()).unwrap();
    assert_eq!(module.history.len(), told);
    // Another configuration is another shadow.
    let other = modules.done(shadow(Some((2, Some("{\"a\":1}".to_owned())))));
    assert!(other.shadow.unwrap().since > begun.shadow.unwrap().since);
}

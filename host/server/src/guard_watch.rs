//! Watches what decides with a rule, and has it taken back when the rule comes true; and lets shadows
//! and lanes go that have ended.
//!
//! Only while this host leads, since only then do its lanes decide. A rule is judged by what its
//! version has done on this host since it was activated. The replica is told for as long as the rule
//! holds, and takes back only what still decides.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maitred_protocol::ModuleKind;
use maitred_registry::Registry;
use maitred_registry::decide::{LaneId, ModuleRef};
use maitred_registry::guard::Guard;
use maitred_replica::Input;
use maitred_sandbox::LaneCounters;
use tokio::time::MissedTickBehavior;

use crate::host::Host;
use crate::metrics::Metrics;

/// How often rules are judged.
const EVERY: Duration = Duration::from_millis(250);

/// A version that decides with a rule.
struct Watched {
    module: ModuleRef,
    guard: Guard,
    /// Whether its rule has come true.
    tripped: bool,
}

impl Watched {
    /// What its lane has counted since the activation, unless that is another one's still.
    fn find<'a>(&self, counters: &'a [LaneCounters]) -> Option<&'a LaneCounters> {
        let (name, canary, activated) =
            (&self.module.name, self.module.canary, self.module.activated);
        let mut counters = counters.iter();
        counters.find(|one| {
            (&one.lane.module, one.lane.canary, one.activated) == (name, canary, activated)
        })
    }
}

#[derive(Default)]
struct State {
    watched: Vec<Watched>,
    /// What runs in shadow.
    shadows: Vec<ModuleRef>,
    /// What decides.
    deciding: Arc<BTreeSet<LaneId>>,
}

/// All that is watched.
#[derive(Default)]
pub(crate) struct Guards(Mutex<State>);

impl Guards {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches what decides with a rule, and knows what runs in shadow, from now on. To be called
    /// whenever something about modules has changed.
    pub(crate) fn watch(&self, registry: &Registry) {
        let mut state = self.lock();
        let before = std::mem::take(&mut state.watched);
        let watched = guarded(registry).map(|(module, guard)| Watched {
            tripped: before.iter().any(|one| one.tripped && one.module == module),
            module,
            guard,
        });
        state.watched = watched.collect();
        let names = registry.modules().map(|(name, _)| name);
        state.shadows = names
            .filter_map(|name| registry.shadow_module(name))
            .collect();
        state.deciding = Arc::new(deciding(registry).collect());
    }

    /// What runs in shadow.
    pub(crate) fn shadows(&self) -> Vec<ModuleRef> {
        self.lock().shadows.clone()
    }

    /// Judges all rules; says what is to be taken back, and how many of them are news.
    fn judge(&self, counters: &[LaneCounters]) -> (Vec<Input>, usize) {
        let (mut back, mut news) = (Vec::new(), 0);
        for one in &mut self.lock().watched {
            let Some(now) = one.find(counters) else {
                continue;
            };
            let stats = now.since(None);
            if let Some(cause) = one.guard.check(&stats) {
                news += usize::from(!std::mem::replace(&mut one.tripped, true));
                back.push(Input::Guarded {
                    name: one.module.name.clone(),
                    activated: one.module.activated,
                    cause,
                });
            }
        }
        (back, news)
    }
}

/// The lanes of all selectors that are active, and of their canaries.
fn deciding(registry: &Registry) -> impl Iterator<Item = LaneId> {
    registry.modules().flat_map(|(name, _)| {
        let active = registry.active_module(name, ModuleKind::Selector).ok();
        let both = active.into_iter().chain(registry.canary_module(name));
        both.map(|module| LaneId {
            module: module.name,
            canary: module.canary,
        })
    })
}

/// What decides with a rule. One that this program cannot read, another version of it recorded: it
/// does nothing here.
fn guarded(registry: &Registry) -> impl Iterator<Item = (ModuleRef, Guard)> {
    registry.modules().flat_map(|(name, module)| {
        let active = module.active.as_ref();
        let active = active.and_then(|active| {
            let decides = registry.active_module(name, ModuleKind::Selector).ok()?;
            Some((decides, Guard::parse(&active.guard).ok()?))
        });
        let canary = module.canary.as_ref();
        let canary = canary.and_then(|canary| {
            let decides = registry.canary_module(name)?;
            Some((decides, Guard::parse(&canary.decides.guard).ok()?))
        });
        active.into_iter().chain(canary)
    })
}

/// Judges for as long as the host runs.
pub(crate) async fn run(host: Arc<Host>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = host.stopping() => return,
        }
        let (watches, shadows, deciding) = {
            let state = host.guards.lock();
            let deciding = Arc::clone(&state.deciding);
            (!state.watched.is_empty(), state.shadows.clone(), deciding)
        };
        // One that was ended may have come back with a batch that was on its way.
        host.shadows.retain(|shadow| shadows.contains(shadow));
        host.lanes.retain(|lane| deciding.contains(lane));
        if !watches || !host.leader.borrow().serving {
            continue;
        }
        let (back, news) = host.guards.judge(&host.lanes.counters());
        Metrics::add(&host.metrics.guards_tripped, news);
        for input in back {
            host.inbox.push(input);
        }
    }
}

//! What the leader's log says of nodes and modules: who comes, goes and is lost, which version decides
//! and why, what operators hold up, and when re-creation pauses. One line each, at `info`, or `warn` for what somebody should look at; what
//! happens to single processes is for `explain` and the metrics.

use maitred_protocol::{ModuleAction, ModuleName, NodeEpoch, NodeName};
use maitred_registry::{Event, Registry};
use maitred_replica::Replica;

/// What was said last of re-creation.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    paused: bool,
}

impl Journal {
    /// Writes down what has happened. `is_lost` says of a session that has ended whether its lease had
    /// run out.
    pub(crate) fn note(
        &mut self,
        replica: &Replica,
        events: &[Event],
        is_lost: impl Fn(NodeEpoch) -> bool,
    ) {
        let registry = replica.registry();
        for event in events {
            match event {
                Event::NodeUp {
                    name,
                    epoch,
                    superseded,
                } => {
                    let before = superseded.map(|epoch| epoch.0);
                    tracing::info!(node = %name, session = %epoch, before, "a node has registered");
                }
                Event::NodeDown(name, epoch) => went(registry, (name, *epoch), is_lost(*epoch)),
                Event::NodeChanged(name) => changed(registry, name),
                Event::Module(name) => decides(registry, name),
                Event::Switched(what) => {
                    let suspended = registry.is_suspended(*what);
                    tracing::info!(?what, suspended, "an operator has set a switch");
                }
                _ => {}
            }
        }
        let why = replica.recreation_paused();
        if why.is_some() != std::mem::replace(&mut self.paused, why.is_some()) {
            match why {
                Some(why) => {
                    tracing::warn!(%why, "processes of lost nodes are not created again for now");
                }
                None => tracing::info!("processes of lost nodes are created again"),
            }
        }
    }
}

fn went(registry: &Registry, (name, epoch): (&NodeName, NodeEpoch), is_lost: bool) {
    let held = registry.held_by_count(epoch);
    if is_lost {
        tracing::warn!(node = %name, session = %epoch, held, "a node is lost: its lease has run out");
    } else {
        tracing::info!(node = %name, session = %epoch, held, "a node's session has ended");
    }
}

fn changed(registry: &Registry, name: &NodeName) {
    let Some(node) = registry.node(name) else {
        return;
    };
    let mut drains = registry.drains();
    let drained = drains.any(|(drained, _)| drained == name);
    let (cordoned, kill_bound_ms) = (registry.is_cordoned(name), node.kill_bound_ms);
    tracing::info!(node = %name, cordoned, drained, kill_bound_ms, "a node has changed");
}

/// What was last done with a module.
fn decides(registry: &Registry, name: &ModuleName) {
    let module = registry.module(name);
    let Some(event) = module.and_then(|module| module.history.back()) else {
        tracing::info!(module = %name, "a module was removed");
        return;
    };
    let (action, version, percent) = (event.action, event.version, event.percent);
    let config = event.config_version;
    match (action, &event.cause) {
        (ModuleAction::AutoRolledBack, Some(cause)) => {
            tracing::warn!(module = %name, version, config, %cause, "a version was taken back by its rule; this one decides");
        }
        _ => {
            tracing::info!(module = %name, ?action, version, config, percent, "a module has changed")
        }
    }
}

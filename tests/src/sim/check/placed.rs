//! **Property: whoever placed a process decided at that moment.** A record says which version chose its
//! node, and with what configuration; when the entry was applied, that was the active one or its canary,
//! and no version that had been taken back or replaced.

use maitred_protocol::{Chooser, ModuleAction};
use maitred_registry::limits::HISTORY_MAX;
use maitred_registry::{Module, Record, Registry};

/// What decides: a version, and the hash of its configuration.
type Decides = Option<(u32, u64)>;

/// What decided just before an index: for all, and for a share. As the module's history tells.
fn decided(module: &Module, index: u64) -> (Decides, Decides) {
    let (mut active, mut canary) = (None, None);
    for line in module.history.iter().filter(|line| line.revision.0 < index) {
        let decides = Some((line.version, line.config));
        match line.action {
            ModuleAction::Activated | ModuleAction::Configured => {
                (active, canary) = (decides, None);
            }
            ModuleAction::CanaryStarted => canary = decides,
            // The operator of a run takes canaries back, and active versions only when there is none.
            ModuleAction::RolledBack => (active, canary) = (decides, None),
            // Such a line names what is active afterwards.
            ModuleAction::AutoRolledBack if decides == active => canary = None,
            ModuleAction::AutoRolledBack => active = decides,
            _ => {}
        }
    }
    (active, canary)
}

/// A process was given to a node.
///
/// # Errors
/// What chose it did not decide then.
pub fn reserved(registry: &Registry, record: &Record) -> Result<(), String> {
    let Chooser::Selector {
        name,
        version,
        config,
        canary,
        ..
    } = &*record.why.chooser
    else {
        return Ok(());
    };
    let Some(module) = registry.module(name) else {
        return Ok(());
    };
    if module.history.len() >= HISTORY_MAX {
        return Ok(());
    }
    let (for_all, for_some) = decided(module, record.incarnation.0);
    let then = if *canary { for_some } else { for_all };
    if then == Some((*version, *config)) {
        return Ok(());
    }
    let (key, what) = (record.key(), if *canary { "the canary" } else { "active" });
    Err(format!(
        "{key}@{} was placed by version {version} of {name} (configuration {config:x}) when {what} was {then:x?}",
        record.incarnation
    ))
}

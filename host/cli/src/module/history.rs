//! `module history`: what was done with a module, and by what.

use clap::Args;
use maitred_protocol::{ModuleAction, ModuleEvent, ModuleName};

use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::{ago, table};

/// Show what was done with a module: pushes, activations, canaries, shadows, rollbacks and their causes
///
/// The last 64 changes, oldest first. CONFIG is the number of the configuration and the hash that
/// decisions name it by.
///
/// Example: maitred module history spread
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Which module
    module: ModuleName,
}

impl History {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let events = client.module_history(&self.module).await?;
        let items = events.iter().map(shape::event).collect();
        shell.out.list("ModuleHistory", items, || text(&events))?;
        client.close().await;
        Ok(())
    }
}

fn text(events: &[ModuleEvent]) -> String {
    let header = [
        "WHEN", "REVISION", "WHAT", "VERSION", "CONFIG", "FOR", "CAUSE",
    ];
    let row = |event: &ModuleEvent| {
        vec![
            format!("{} ago", ago(event.time_ms)),
            event.revision.to_string(),
            shape::action(event.action).to_owned(),
            version(event),
            configuration(event),
            whom(event),
            event.cause.clone().unwrap_or_default(),
        ]
    };
    table(&header, events.iter().map(row))
}

fn version(event: &ModuleEvent) -> String {
    match event.version {
        0 => "-".to_owned(),
        version => version.to_string(),
    }
}

fn configuration(event: &ModuleEvent) -> String {
    match (event.config_version, event.config) {
        (0, 0) => "-".to_owned(),
        (0, hash) => shape::config_hash(hash),
        (number, hash) => format!("{number} ({})", shape::config_hash(hash)),
    }
}

/// For which ids it decides.
fn whom(event: &ModuleEvent) -> String {
    let decides = [
        ModuleAction::Activated,
        ModuleAction::Configured,
        ModuleAction::CanaryStarted,
        ModuleAction::RolledBack,
        ModuleAction::AutoRolledBack,
    ];
    if !decides.contains(&event.action) || event.version == 0 {
        return "-".to_owned();
    }
    super::share(event.percent, &event.types)
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::{Revision, TypeName};

    #[test]
    fn a_line_says_who_decides_for_whom_and_why() {
        let mut event = ModuleEvent {
            revision: Revision(41),
            time_ms: 0,
            action: ModuleAction::CanaryStarted,
            version: 3,
            config_version: 2,
            config: 0xab,
            percent: 10,
            types: vec![TypeName::new("room").unwrap()],
            cause: None,
        };
        let shown = text(std::slice::from_ref(&event));
        assert!(shown.contains("canary-started"), "{shown}");
        assert!(shown.contains("2 (00000000000000ab)"), "{shown}");
        assert!(shown.contains("10 % of the ids of room"), "{shown}");
        event.action = ModuleAction::AutoRolledBack;
        event.cause = Some("p99 412 µs > 200 µs".to_owned());
        assert!(text(&[event]).contains("p99 412 µs > 200 µs"));
    }
}

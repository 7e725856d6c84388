//! What was done with a module, line by line, bounded.

use maitred_protocol::{ModuleAction, ModuleEvent, TypeName, config_hash};

use super::{Active, Module};
use crate::life::At;
use crate::limits::HISTORY_MAX;

/// A line of the history, without what every line has.
pub(super) struct Note<'a> {
    pub(super) action: ModuleAction,
    pub(super) version: u32,
    pub(super) config: Option<(u32, &'a str)>,
    pub(super) percent: u8,
    pub(super) types: &'a [TypeName],
    pub(super) cause: Option<String>,
}

impl<'a> Note<'a> {
    pub(super) fn of(action: ModuleAction, version: u32) -> Self {
        Self {
            action,
            version,
            config: None,
            percent: 100,
            types: &[],
            cause: None,
        }
    }

    pub(super) fn active(action: ModuleAction, active: &'a Active) -> Self {
        Self {
            config: Some((active.config_version, &active.config)),
            ..Self::of(action, active.version)
        }
    }
}

impl Module {
    pub(super) fn note(&mut self, at: At, event: Note<'_>) {
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
}

//! How lives of processes end other than by being stopped, and what their callback is told of that.
//!
//! A process that has ended by itself is forgotten, unless its callback wants to be asked: then it is
//! pending like one whose node was lost, and the leader asks. A record remembers that it is pending for
//! that reason until it has a node again, so that another leader can ask anew. What advice there is, is
//! no part of the state.

use maitred_protocol::{Hook, Incarnation, ModuleName, ProcessKey, ProcessState};

use crate::Registry;
use crate::life::At;
use crate::outcome::{Event, Outcome};

/// Milliseconds of a life after which its end begins a new row.
const ROW_MS: u64 = 60_000;

/// How a life has ended, other than by being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// By itself: its node says so.
    Exit,
    /// Its node was lost, or no longer has it.
    NodeLost,
}

impl EndedBy {
    /// The hook that is asked.
    #[must_use]
    pub fn hook(self) -> Hook {
        match self {
            Self::Exit => Hook::Exit,
            Self::NodeLost => Hook::NodeLost,
        }
    }
}

/// How the lives of a process have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ends {
    /// How the last one did; none when it was stopped, or none has ended yet.
    pub by: Option<EndedBy>,
    /// How often in a row, the last time included; a life of more than a minute begins a new row.
    pub times: u16,
    /// Whether it is pending because of that, and has not been given to a node since.
    pub open: bool,
    /// When its last life began to run, in milliseconds since 1970; 0 before the first.
    pub ran_ms: u64,
}

impl Ends {
    /// After one more end. A life that never ran lasted for no time.
    fn ended(self, by: EndedBy, ran: bool, now_ms: u64) -> Self {
        let ran_ms = if ran { self.ran_ms } else { now_ms };
        let goes_on = self.by == Some(by) && now_ms.saturating_sub(ran_ms) <= ROW_MS;
        Self {
            by: Some(by),
            times: if goes_on {
                self.times.saturating_add(1)
            } else {
                1
            },
            open: true,
            ran_ms,
        }
    }

    /// After it was taken off its node: because of its end, or to be moved, or because it did not start
    /// there (then it has not run since).
    pub(crate) fn taken_off(self, by: Option<EndedBy>, state: ProcessState, now_ms: u64) -> Self {
        let ran = state == ProcessState::Running;
        match by {
            Some(by) => self.ended(by, ran, now_ms),
            None if ran => Self {
                ran_ms: self.ran_ms,
                ..Self::default()
            },
            None => self.placed(),
        }
    }

    /// After it was given to a node.
    pub(crate) fn placed(self) -> Self {
        Self {
            open: false,
            ..self
        }
    }

    /// After it began to run.
    pub(crate) fn runs(self, now_ms: u64) -> Self {
        Self {
            open: false,
            ran_ms: now_ms,
            ..self
        }
    }
}

impl Registry {
    /// Whether the version of a callback that is active wants this hook.
    #[must_use]
    pub fn callback_wants(&self, callback: &ModuleName, hook: Hook) -> bool {
        let wants = || {
            let module = self.modules.get(callback)?;
            let active = module.active.as_ref()?.version;
            let version = module.versions.iter().find(|have| have.version == active)?;
            Some(version.hooks.contains(&hook))
        };
        wants().unwrap_or(false)
    }

    /// A life has ended by itself: its node says so.
    pub(crate) fn exited(
        &mut self,
        at: At,
        life: (&ProcessKey, Incarnation),
        (reason, ask): (String, bool),
        events: &mut Vec<Event>,
    ) -> Outcome {
        let current = self.current(life.0, life.1);
        // A create that is under way is answered, and what its node registered has no callback.
        let asked = current.filter(|old| ask && !old.is_creating() && old.spec.is_some());
        match asked {
            None => self.del_process(at, life.0, (Some(life.1), true), events),
            Some(old) if old.is_placed() => {
                let by = Some(EndedBy::Exit);
                self.take_off(at, life, (&reason, true), by, events)
            }
            // Its node was lost meanwhile; or it is told again, and the answer got lost.
            Some(_) => Outcome::Done(at.revision()),
        }
    }
}

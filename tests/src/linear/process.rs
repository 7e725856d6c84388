//! The process registry, one key of it, as the checker's model.
//!
//! **What a key holds**: nothing; a process that is *unsettled* (starting, or without a node: a
//! look-up shows it, under incarnations that may grow from one attempt to the next); or one that is
//! *settled* (running, under one incarnation and one pid). With it goes a floor: an incarnation
//! below it cannot be made or shown any more, because the key has had, or shown, a later one.
//!
//! **A create is two operations** within one call: it takes the key, and later its process runs (or
//! comes to nothing). In between, others may see it starting. One that failed may have taken the
//! key for a while, and has given it back when it returns. One whose outcome is unknown takes the key
//! perhaps; from then on the process runs, goes on starting or has come to nothing, whichever is
//! seen first, and what was seen then holds. The same is assumed of a process that has moved
//! because its node was lost. That a process which should come back was forgotten instead, or that
//! one never stops starting, is therefore not seen here: that needs the ground truth of the nodes.
//!
//! **What a look-up shows** while nobody knows a value (the incarnation of a create whose answer was
//! lost) is taken for that value from then on.
//!
//! Answers other than to look-ups (`already exists`, `fenced`, `not found`) must be true at a moment
//! between the question and the answer, too. Pids should differ from one set to the next: a set that
//! is lost cannot be told from one that repeats what was there.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use maitred_protocol::ProcessKey;

use super::{Model, Operation};

/// The model; it has nothing to set.
#[derive(Debug, Clone, Copy, Default)]
pub struct Processes;

/// A process as an answer showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Its incarnation.
    pub incarnation: u64,
    /// Its pid when it was running; none when it was starting or without a node.
    pub running: Option<Arc<str>>,
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.running {
            Some(pid) => write!(f, "running, incarnation {}, pid {pid:?}", self.incarnation),
            None => write!(f, "unsettled, incarnation {}", self.incarnation),
        }
    }
}

/// What may happen to a key. The verb of those that several calls have in common is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A create takes the key. None: one whose outcome is unknown.
    Reserve(Option<u64>),
    /// The process of a create runs.
    Confirm(u64, Sight),
    /// A create has failed, and holds the key no longer.
    Abort(u64),
    /// An answer showed what is there.
    Show(&'static str, Sight),
    /// An answer said that nothing is there.
    Missing(&'static str),
    /// An answer said that this is the current incarnation.
    Fenced(&'static str, u64),
    /// A set, with its guard and its pid (none: one that nobody saw), was done; the incarnation
    /// is its answer's.
    Set(Option<u64>, Option<Arc<str>>, Option<u64>),
    /// A delete, with its guard, was done.
    Delete(Option<u64>),
    /// Its node was lost, and the process is forgotten.
    Forgotten,
    /// Its node was lost, and the process is started elsewhere.
    Moved,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guard =
            |guard: &Option<u64>| guard.map_or(String::new(), |only| format!(" only {only}"));
        match self {
            Self::Reserve(_) => f.write_str("create -> ?"),
            Self::Confirm(_, sight) => write!(f, "create -> created: {sight}"),
            Self::Abort(_) => f.write_str("create -> failed"),
            Self::Show(verb, sight) => write!(f, "{verb} -> {sight}"),
            Self::Missing(verb) => write!(f, "{verb} -> not found"),
            Self::Fenced(verb, current) => write!(f, "{verb} -> fenced by incarnation {current}"),
            Self::Set(only, pid, made) => {
                let pid = pid.as_deref().unwrap_or("(never seen)");
                write!(f, "set{} pid {pid:?} -> ", guard(only))?;
                match made {
                    Some(made) => write!(f, "incarnation {made}"),
                    None => f.write_str("?"),
                }
            }
            Self::Delete(only) => write!(f, "delete{} (done, or unknown)", guard(only)),
            Self::Forgotten => f.write_str("(node lost: perhaps forgotten)"),
            Self::Moved => f.write_str("(node lost: perhaps moved)"),
        }
    }
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The least incarnation that can be made or shown from here on.
    floor: u64,
    life: Life,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Life {
    Absent,
    /// Of this create; none when nobody knows what becomes of it.
    Unsettled(Option<u64>),
    /// With its incarnation and pid, as far as they are known.
    Settled(Option<u64>, Option<Arc<str>>),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let floor = self.floor;
        match &self.life {
            Life::Absent => write!(f, "nothing (a new one has incarnation {floor} or more)"),
            Life::Unsettled(_) => write!(f, "unsettled, incarnation {floor} or more"),
            Life::Settled(incarnation, pid) => {
                match incarnation {
                    Some(incarnation) => write!(f, "running, incarnation {incarnation}")?,
                    None => write!(f, "running, incarnation {floor} or more, not seen yet")?,
                }
                match pid {
                    Some(pid) => write!(f, ", pid {pid:?}"),
                    None => f.write_str(", pid not seen yet"),
                }
            }
        }
    }
}

impl State {
    fn gone(&self) -> Self {
        // Whatever was there had at least the floor for its incarnation.
        let floor = self.floor.saturating_add(1);
        Self {
            floor,
            life: Life::Absent,
        }
    }

    fn unsettled(floor: u64, by: Option<u64>) -> Self {
        Self {
            floor,
            life: Life::Unsettled(by),
        }
    }

    fn settled(incarnation: u64, pid: Option<Arc<str>>) -> Self {
        Self {
            floor: incarnation,
            life: Life::Settled(Some(incarnation), pid),
        }
    }

    /// Whether what is there can have this incarnation; it must be there.
    fn can_be(&self, incarnation: u64) -> bool {
        match self.life {
            Life::Settled(Some(known), _) => known == incarnation,
            _ => incarnation >= self.floor,
        }
    }

    fn show(&self, sight: &Sight) -> Option<Self> {
        let fits = self.can_be(sight.incarnation);
        match (&self.life, &sight.running) {
            (Life::Unsettled(by), None) if fits => Some(Self::unsettled(sight.incarnation, *by)),
            (Life::Unsettled(None), Some(pid)) if fits => {
                Some(Self::settled(sight.incarnation, Some(Arc::clone(pid))))
            }
            (Life::Settled(_, known), Some(pid))
                if fits && known.as_ref().is_none_or(|known| known == pid) =>
            {
                Some(Self::settled(sight.incarnation, Some(Arc::clone(pid))))
            }
            _ => None,
        }
    }

    fn fenced(&self, current: u64) -> Option<Self> {
        let fits = self.can_be(current);
        match &self.life {
            Life::Unsettled(by) if fits => Some(Self::unsettled(current, *by)),
            Life::Settled(_, pid) if fits => Some(Self::settled(current, pid.clone())),
            _ => None,
        }
    }

    fn set(&self, only: Option<u64>, pid: Option<Arc<str>>, made: Option<u64>) -> Option<Self> {
        let contradicts = matches!((only, made), (Some(only), Some(made)) if only != made);
        if contradicts || matches!(self.life, Life::Unsettled(Some(_))) {
            return None;
        }
        if self.life == Life::Absent && only.is_some() {
            return None;
        }
        match only.or(made) {
            Some(incarnation) => self
                .can_be(incarnation)
                .then(|| Self::settled(incarnation, pid)),
            None => {
                let known = match self.life {
                    Life::Settled(known, _) => known,
                    _ => None,
                };
                Some(Self {
                    floor: self.floor,
                    life: Life::Settled(known, pid),
                })
            }
        }
    }

    fn delete(&self, only: Option<u64>) -> Option<Self> {
        match (&self.life, only) {
            (Life::Absent, _) => None,
            (_, None) => Some(self.gone()),
            (_, Some(only)) => self.can_be(only).then(|| Self::settled(only, None).gone()),
        }
    }
}

impl Model for Processes {
    type Key = ProcessKey;
    type Action = Action;
    type State = State;

    fn start(&self) -> State {
        State {
            floor: 1,
            life: Life::Absent,
        }
    }

    fn step(&self, state: &State, action: &Action) -> Option<State> {
        match (action, &state.life) {
            (Action::Reserve(by), Life::Absent) => Some(State::unsettled(state.floor, *by)),
            // The one whose outcome nobody knows has come to nothing.
            (Action::Reserve(Some(by)), Life::Unsettled(None)) => {
                Some(State::unsettled(state.gone().floor, Some(*by)))
            }
            (Action::Reserve(_), _) => None,
            (Action::Confirm(by, sight), Life::Unsettled(Some(maker))) if by == maker => state
                .can_be(sight.incarnation)
                .then(|| State::settled(sight.incarnation, sight.running.clone())),
            (Action::Confirm(..), _) => None,
            (Action::Abort(by), Life::Unsettled(Some(maker))) if by == maker => Some(state.gone()),
            (Action::Abort(_), _) => Some(state.clone()),
            (Action::Show(_, sight), _) => state.show(sight),
            (Action::Missing(_), Life::Absent) => Some(state.clone()),
            (Action::Missing(_), Life::Unsettled(None)) => Some(state.gone()),
            (Action::Missing(_), _) => None,
            (Action::Fenced(_, current), _) => state.fenced(*current),
            (Action::Set(only, pid, made), _) => state.set(*only, pid.clone(), *made),
            (Action::Delete(only), _) => state.delete(*only),
            (Action::Forgotten, Life::Absent) => None,
            (Action::Forgotten, _) => Some(state.gone()),
            (Action::Moved, Life::Settled(..)) => Some(State::unsettled(state.floor, None)),
            (Action::Moved, _) => None,
        }
    }

    fn is_look(&self, action: &Action) -> bool {
        matches!(
            action,
            Action::Show(..) | Action::Missing(_) | Action::Fenced(..)
        )
    }

    /// Two things can be left out. A set whose outcome is unknown and whose pid nobody saw: when it
    /// is guarded it changes nothing that anybody saw; else it may have registered a process, and
    /// all of those are alike. And a create that failed, when nobody can have seen it starting.
    fn prune(&self, mut operations: Vec<Operation<Action>>) -> Vec<Operation<Action>> {
        let shown = operations
            .iter()
            .filter_map(|operation| match &operation.action {
                Action::Confirm(_, sight) | Action::Show(_, sight) => sight.running.clone(),
                _ => None,
            });
        let shown: BTreeSet<Arc<str>> = shown.collect();
        let witnesses: Vec<(u64, u64)> = operations.iter().filter_map(witness).collect();
        let unseen = operations
            .iter()
            .filter_map(|operation| match operation.action {
                Action::Abort(by) => {
                    let end = operation.returned.unwrap_or(u64::MAX);
                    let saw = |time: &(u64, u64)| time.0 <= end && operation.invoked <= time.1;
                    (!witnesses.iter().any(saw)).then_some(by)
                }
                _ => None,
            });
        let unseen: BTreeSet<u64> = unseen.collect();
        operations.retain_mut(|operation| match &mut operation.action {
            Action::Reserve(Some(by)) | Action::Abort(by) => !unseen.contains(by),
            Action::Set(only, pid, None) => {
                let seen = pid.as_ref().is_some_and(|pid| shown.contains(pid));
                if !seen {
                    *pid = None;
                }
                seen || only.is_none()
            }
            _ => true,
        });
        operations
    }
}

/// When an answer came about that may be due to a process that was starting.
fn witness(operation: &Operation<Action>) -> Option<(u64, u64)> {
    let saw = match &operation.action {
        Action::Show(_, sight) => sight.running.is_none(),
        Action::Fenced(..) => true,
        Action::Delete(_) => operation.required,
        _ => false,
    };
    saw.then_some((operation.invoked, operation.returned.unwrap_or(u64::MAX)))
}

//! A plain register: what the checker itself is tested with.

use std::collections::BTreeSet;
use std::fmt;

use super::{Model, Operation};

/// A register that holds 0 at first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Register;

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It holds this from now on.
    Write(u64),
    /// It held this.
    Read(u64),
    /// It held the first and holds the second from now on.
    Swap(u64, u64),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(value) => write!(f, "write {value}"),
            Self::Read(value) => write!(f, "read -> {value}"),
            Self::Swap(from, to) => write!(f, "swap {from} for {to}"),
        }
    }
}

impl Model for Register {
    type Key = u64;
    type Action = Action;
    type State = u64;

    fn start(&self) -> u64 {
        0
    }

    fn step(&self, state: &u64, action: &Action) -> Option<u64> {
        match *action {
            Action::Write(value) => Some(value),
            Action::Read(value) => (*state == value).then_some(*state),
            Action::Swap(from, to) => (*state == from).then_some(to),
        }
    }

    fn is_look(&self, action: &Action) -> bool {
        matches!(action, Action::Read(_))
    }

    /// A write that may have happened matters only when its value was seen.
    fn prune(&self, mut operations: Vec<Operation<Action>>) -> Vec<Operation<Action>> {
        let seen: BTreeSet<u64> = operations
            .iter()
            .filter_map(|operation| match operation.action {
                Action::Read(value) | Action::Swap(value, _) => Some(value),
                Action::Write(_) => None,
            })
            .collect();
        operations.retain(|operation| match operation.action {
            Action::Write(value) => operation.required || seen.contains(&value),
            _ => true,
        });
        operations
    }
}

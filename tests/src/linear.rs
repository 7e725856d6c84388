//! Whether a history of operations could have happened one at a time.
//!
//! The algorithm is Wing and Gong's search (JPDC 1993) with Lowe's memory of the configurations that
//! have been tried ("Testing for linearizability", 2017): an operation may come next when nothing
//! that is still to come had returned before it was invoked. Keys do not touch one another, so each
//! is searched alone. What a key is, and what an operation does to it, is a [`Model`];
//! [`process`] is the registry's, [`register`] a plain register.
//!
//! **Operations.** One that returned must have its place between its invocation and its return. One
//! whose outcome nobody knows may have a place, any time after its invocation, or none. The same
//! goes for what happens by itself (a node is lost), within the time that is given. One call may be
//! several operations: they come in their order, or not at all.
//!
//! **Unknown outcomes** are what makes such searches explode. Three things keep them small, and none
//! of them changes a verdict: [`Model::prune`] drops those that nobody can have seen; of several that
//! are the same, only the oldest is tried; and one that would change nothing is not tried. Looks that
//! are right where the search stands are taken at once, without trying anything else. What is
//! left is bounded by [`Limit`]: a search that reaches it says [`Verdict::GaveUp`], which is neither
//! yes nor no.
//!
//! The same history has the same verdict, text and step count every time: hash sets are asked
//! whether they hold something, and never walked. Nothing here knows a clock; times are numbers.

pub mod history;
mod lives;
pub mod process;
pub mod register;
mod search;
mod timeline;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;

pub use history::{Answer, CallId, History, Loss, Verb};
use search::{Found, Search};

/// What a key is, and what operations do to it.
pub trait Model {
    /// What tells independent objects apart.
    type Key: Clone + Ord + fmt::Display;
    /// An operation's input together with its output, as people should read them.
    type Action: Clone + Eq + fmt::Display;
    /// What the key holds. It may stand for several possibilities at once, as long as a step that
    /// one of them allows is allowed.
    type State: Clone + Eq + Hash + fmt::Display;

    /// Before anything has happened.
    fn start(&self) -> Self::State;

    /// What `action` makes of `state`; none when that input could not have had that output there.
    fn step(&self, state: &Self::State, action: &Self::Action) -> Option<Self::State>;

    /// Whether `action` is a mere look: from any state, its step leads to that state or to one that
    /// stands for fewer possibilities.
    fn is_look(&self, action: &Self::Action) -> bool;

    /// Drops or simplifies operations that are not required, where that changes no verdict.
    fn prune(&self, operations: Vec<Operation<Self::Action>>) -> Vec<Operation<Self::Action>> {
        operations
    }
}

/// Something that happened at one moment of a stretch of time, or may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation<A> {
    /// The call that it is of. Operations of one call come in the order in which they are listed.
    pub call: u64,
    /// Who called; for people.
    pub caller: u64,
    /// Microseconds of a clock that is the same for the whole history: not before then.
    pub invoked: u64,
    /// Microseconds: not after then; none when it may yet happen.
    pub returned: Option<u64>,
    /// Whether it did happen, or only may have.
    pub required: bool,
    /// What.
    pub action: A,
}

/// How long to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Operations that may be tried for one key. Each may remember one configuration, of some
    /// hundred bytes.
    pub steps: u64,
}

impl Default for Limit {
    /// Two million steps a key: seconds, and a few hundred megabytes at the very worst.
    fn default() -> Self {
        Self { steps: 2_000_000 }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every key has an order that holds.
    Linearizable {
        /// Operations that were put in order.
        operations: usize,
        /// Steps that it took.
        steps: u64,
    },
    /// A key has none.
    Violation(Violation),
    /// No violation was found, and a key took too many steps.
    GaveUp {
        /// Which.
        key: String,
        /// Steps that were taken for it.
        steps: u64,
    },
}

impl Verdict {
    /// Goes on only when the history holds.
    ///
    /// # Panics
    /// With the explanation, when it does not or when that is not known.
    pub fn assert(&self) {
        assert!(matches!(self, Self::Linearizable { .. }), "{self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable { operations, steps } => {
                write!(f, "linearizable: {operations} operations, {steps} steps")
            }
            Self::Violation(violation) => violation.fmt(f),
            Self::GaveUp { key, steps } => write!(f, "{key}: gave up after {steps} steps"),
        }
    }
}

/// Why a key has no order, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: String,
    /// Calls in the shortest beginning of the history that has no order.
    pub calls: usize,
    /// That beginning as a timeline, and where the longest order that holds gets stuck.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Checks every key, in the keys' order; the first one that has no order is explained.
pub fn check<M: Model>(
    model: &M,
    history: BTreeMap<M::Key, Vec<Operation<M::Action>>>,
    limit: Limit,
) -> Verdict {
    let mut gave_up = None;
    let (mut total, mut steps) = (0, 0);
    for (key, operations) in history {
        let operations = model.prune(operations);
        total += operations.len();
        let outcome = Search::new(model, &operations).run(limit);
        steps += outcome.steps;
        match outcome.found {
            Found::Order => {}
            Found::NoOrder => {
                let text = timeline::explain(model, &key.to_string(), &operations, limit);
                return Verdict::Violation(text);
            }
            Found::GaveUp if gave_up.is_none() => {
                gave_up = Some(Verdict::GaveUp {
                    key: key.to_string(),
                    steps: outcome.steps,
                });
            }
            Found::GaveUp => {}
        }
    }
    let operations = total;
    gave_up.unwrap_or(Verdict::Linearizable { operations, steps })
}

//! The search for an order, of one key.
//!
//! **Invariants.** An operation that is required is done before anything that was invoked after it
//! returned; one that is not is done within its time or never. A configuration (which operations
//! are done, and the state) is gone into once.

use std::collections::{BTreeMap, HashSet};

use super::{Limit, Model, Operation};

/// Whether there is an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Order,
    NoOrder,
    GaveUp,
}

/// The end of a search.
pub(super) struct Outcome<S> {
    pub(super) found: Found,
    pub(super) steps: u64,
    /// Where it got farthest.
    pub(super) best: Farthest<S>,
}

/// The order that had the most required operations.
pub(super) struct Farthest<S> {
    required: usize,
    /// What that order leaves.
    pub(super) state: S,
    /// Required operations that could have come next by their times; places in the input.
    pub(super) stuck: Vec<usize>,
}

/// A set of operations: those that may happen in words of their own, before the required ones.
struct Done {
    words: Vec<u64>,
    /// Operations that only may happen, and the words that they take.
    optional: usize,
    head: usize,
    /// How many of the required ones are in it.
    required: usize,
}

impl Done {
    fn new(optional: usize, operations: usize) -> Self {
        let head = optional.div_ceil(64);
        let words = vec![0; head + (operations - optional).div_ceil(64)];
        Self {
            words,
            optional,
            head,
            required: 0,
        }
    }

    fn bit(&self, at: usize) -> (usize, u64) {
        let at = match at.checked_sub(self.optional) {
            Some(required) => self.head * 64 + required,
            None => at,
        };
        (at / 64, 1 << (at % 64))
    }

    fn has(&self, at: usize) -> bool {
        let (word, mask) = self.bit(at);
        self.words[word] & mask != 0
    }

    fn flip(&mut self, at: usize) {
        let (word, mask) = self.bit(at);
        self.words[word] ^= mask;
        if at >= self.optional {
            if self.words[word] & mask != 0 {
                self.required += 1;
            } else {
                self.required -= 1;
            }
        }
    }

    /// How many words of required operations are full, at the start.
    fn full(&self) -> usize {
        let required = self.words[self.head..].iter();
        required.take_while(|word| **word == u64::MAX).count()
    }

    /// The set, without what all long histories have in common: full words, then empty ones.
    fn key(&self) -> Box<[u64]> {
        let full = self.full();
        let (head, required) = self.words.split_at(self.head);
        let rest = &required[full..];
        let end = rest
            .iter()
            .rposition(|word| *word != 0)
            .map_or(0, |at| at + 1);
        let parts = head.iter().chain(&rest[..end]).copied();
        std::iter::once(full as u64).chain(parts).collect()
    }
}

struct Frame<S> {
    state: S,
    /// The latest invocation among those that are done: nothing that ended before may follow.
    latest: u64,
    /// What led here.
    by: Option<usize>,
    candidates: Vec<usize>,
    next: usize,
}

pub(super) struct Search<'a, M: Model> {
    model: &'a M,
    /// What may happen comes first (there is little of it, and its bits are then in one place), in
    /// the order of invocation; then what is required, likewise. With places in the input.
    operations: Vec<(usize, &'a Operation<M::Action>)>,
    /// Where the required ones begin.
    optional: usize,
    /// Later operations of the same call.
    later: Vec<Vec<usize>>,
    /// Whether there are earlier ones of the same call, that only may have happened.
    has_earlier: Vec<bool>,
    /// The one before that is the same and may happen until the same time.
    twin: Vec<Option<usize>>,
}

impl<'a, M: Model> Search<'a, M> {
    pub(super) fn new(model: &'a M, input: &'a [Operation<M::Action>]) -> Self {
        let mut operations: Vec<_> = input.iter().enumerate().collect();
        operations.sort_by_key(|(at, operation)| (operation.required, operation.invoked, *at));
        let optional = operations.partition_point(|(_, operation)| !operation.required);
        let mut calls: BTreeMap<u64, Vec<(usize, usize)>> = BTreeMap::new();
        for (sorted, (at, operation)) in operations.iter().enumerate() {
            calls.entry(operation.call).or_default().push((*at, sorted));
        }
        let later = operations.iter().map(|(at, operation)| {
            let others = calls[&operation.call].iter();
            others
                .filter(|other| other.0 > *at)
                .map(|other| other.1)
                .collect()
        });
        let later: Vec<Vec<usize>> = later.collect();
        let mut has_earlier = vec![false; operations.len()];
        for at in later[..optional].iter().flatten() {
            has_earlier[*at] = true;
        }
        let same = |one: usize, other: usize| {
            let (one, other) = (operations[one].1, operations[other].1);
            one.action == other.action && one.returned == other.returned
        };
        let twin = (0..optional).map(|at| (0..at).rev().find(|other| same(*other, at)));
        let twin = twin.collect();
        Self {
            model,
            operations,
            optional,
            later,
            has_earlier,
            twin,
        }
    }

    pub(super) fn run(&self, limit: Limit) -> Outcome<M::State> {
        let required_all = self.operations.len() - self.optional;
        let mut done = Done::new(self.optional, self.operations.len());
        let mut tried = HashSet::new();
        let mut steps = 0;
        let mut stack = vec![self.frame(self.model.start(), 0, None, &done)];
        let mut best = Farthest {
            required: 0,
            state: self.model.start(),
            stuck: self.stuck(&stack[0]),
        };
        while let Some(frame) = stack.last_mut() {
            if done.required == required_all {
                return Outcome {
                    found: Found::Order,
                    steps,
                    best,
                };
            }
            let Some(&at) = frame.candidates.get(frame.next) else {
                if let Some(by) = frame.by {
                    done.flip(by);
                }
                stack.pop();
                continue;
            };
            frame.next += 1;
            if steps >= limit.steps {
                return Outcome {
                    found: Found::GaveUp,
                    steps,
                    best,
                };
            }
            steps += 1;
            let operation = self.operations[at].1;
            let Some(state) = self.model.step(&frame.state, &operation.action) else {
                continue;
            };
            if !operation.required && state == frame.state {
                continue;
            }
            let latest = frame.latest.max(operation.invoked);
            done.flip(at);
            if !tried.insert((done.key(), state.clone())) {
                done.flip(at);
                continue;
            }
            let frame = self.frame(state, latest, Some(at), &done);
            if done.required > best.required {
                best = Farthest {
                    required: done.required,
                    state: frame.state.clone(),
                    stuck: self.stuck(&frame),
                };
            }
            stack.push(frame);
        }
        Outcome {
            found: Found::NoOrder,
            steps,
            best,
        }
    }

    /// A configuration, with what may come next: required operations first, since what only may
    /// have happened is seldom needed.
    fn frame(
        &self,
        state: M::State,
        latest: u64,
        by: Option<usize>,
        done: &Done,
    ) -> Frame<M::State> {
        let mut candidates = Vec::new();
        let mut deadline = u64::MAX;
        let first = self.optional + done.full() * 64;
        for at in first..self.operations.len() {
            let operation = self.operations[at].1;
            if operation.invoked > deadline {
                break;
            }
            if !done.has(at) {
                deadline = deadline.min(operation.returned.unwrap_or(u64::MAX));
                candidates.push(at);
            }
        }
        candidates.retain(|at| self.operations[*at].1.invoked <= deadline);
        for at in 0..self.optional {
            let operation = self.operations[at].1;
            if operation.invoked > deadline {
                break;
            }
            let in_time = operation.returned.is_none_or(|returned| returned >= latest);
            let twin = self.twin[at].is_none_or(|twin| done.has(twin));
            if in_time && twin && !done.has(at) {
                candidates.push(at);
            }
        }
        candidates.retain(|at| !self.later[*at].iter().any(|later| done.has(*later)));
        if let Some(at) = candidates
            .iter()
            .find(|at| self.is_free(**at, &state, latest, done))
        {
            candidates = vec![*at];
        }
        Frame {
            state,
            latest,
            by,
            candidates,
            next: 0,
        }
    }

    /// Whether an operation that may come next is a look that is right here and rules nothing out: if
    /// there is an order at all, there is one in which it comes at once, and where it was before,
    /// nothing misses it.
    fn is_free(&self, at: usize, state: &M::State, latest: u64, done: &Done) -> bool {
        let operation = self.operations[at].1;
        let closes = |other: usize| {
            let (_, other) = self.operations[other];
            let end = other.returned.unwrap_or(u64::MAX);
            end >= latest && end < operation.invoked
        };
        operation.required
            && self.model.is_look(&operation.action)
            && !self.has_earlier[at]
            && !(0..self.optional).any(|other| closes(other) && !done.has(other))
            && self.model.step(state, &operation.action).as_ref() == Some(state)
    }

    fn stuck(&self, frame: &Frame<M::State>) -> Vec<usize> {
        let required = frame.candidates.iter().filter(|at| **at >= self.optional);
        required.map(|at| self.operations[*at].0).collect()
    }
}

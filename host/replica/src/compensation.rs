//! Lives that a spawn has begun, and that are given up: their callback is told, so that it can undo what
//! else it did.
//!
//! A compensation follows from the entry that ends a life which was starting: the leader that applies it
//! asks for it, once. What that leader cannot tell of any more, another one finds in the failed
//! attempts of records that are still unsettled, and asks for again. A life whose record is gone with
//! its leader is not found: that is what "at least once" rests on.

use std::sync::Arc;

use maitred_protocol::{Attempt, Hook, ModuleKind, NodeEpoch, ProcessState, Rejection};
use maitred_registry::decide::cut;
use maitred_registry::{Event, Outcome, Record};

use crate::effect::{Compensation, Effect};
use crate::moves::MOVED;
use crate::replica::Replica;
use crate::saga::{KeyOf, Life};

/// What the leader remembers from one event to the next.
#[derive(Debug, Default)]
pub(crate) struct Compensating {
    /// The last life that was compensated: several events may tell of one end.
    compensated: Option<Life>,
    /// The last create that was undone, and why.
    aborted: Option<(Life, String)>,
}

impl Replica {
    /// A life that was starting is over: what its spawn did besides is to be undone.
    pub(crate) fn starting_ended(&mut self, record: &Arc<Record>) {
        let life = Life {
            key: record.key(),
            incarnation: record.incarnation,
        };
        if self.compensating.compensated.as_ref() == Some(&life) {
            return;
        }
        if self.wants_compensation(record) {
            let reason = self.why_given_up(&life);
            self.compensate(record, reason);
            self.compensating.compensated = Some(life);
        }
    }

    /// A record is pending: if it was starting until now, that life is over.
    pub(crate) fn pending_was_starting(&mut self, record: &Arc<Record>) {
        // A process that runs has no saga.
        let saga = self.sagas.all.get(&KeyOf::of(record));
        if saga.is_some_and(|saga| saga.incarnation == record.incarnation) {
            self.starting_ended(record);
        }
    }

    /// Members of a party that had started, and are given up with it.
    pub(crate) fn compensate_party(&mut self, events: &[Event]) {
        if self.serving.is_none() {
            return;
        }
        let undone = events.iter().find_map(|event| match event {
            Event::Party {
                index,
                outcome: Outcome::Rejected(no),
                ..
            } => Some((*index, no)),
            _ => None,
        });
        let Some((index, no)) = undone else {
            return;
        };
        let reason = cut(no.to_string());
        for event in events {
            if let Event::Ended(record) = event
                && record.state == ProcessState::Running
                && record.spec.as_ref().is_some_and(|spec| spec.party == index)
                && self.wants_compensation(record)
            {
                self.compensate(record, reason.clone());
            }
        }
    }

    /// This host leads now: attempts that have failed, of a record that is not settled. The leader before
    /// may not have come to compensate them.
    pub(crate) fn compensate_again(&mut self, record: &Arc<Record>) {
        if !self.wants_compensation(record) {
            return;
        }
        let ran = record.spec.as_ref().is_some_and(|spec| spec.confirmed);
        let failures: Vec<_> = record.failures().to_vec();
        for (at, failure) in failures.into_iter().enumerate().skip(usize::from(ran)) {
            if ran && failure.cause.starts_with(MOVED) {
                continue;
            }
            let life = Record {
                node: Arc::new(failure.node),
                incarnation: failure.incarnation,
                attempt: u32::try_from(at + 1).unwrap_or(u32::MAX),
                // Of a session that nobody remembers.
                epoch: NodeEpoch(0),
                ..(**record).clone()
            };
            self.compensate(&life, failure.cause);
        }
    }

    fn wants_compensation(&self, record: &Record) -> bool {
        let spec = record.spec.as_ref();
        spec.is_some_and(|spec| {
            self.registry
                .callback_wants(&spec.callback, Hook::Compensate)
        })
    }

    fn compensate(&mut self, record: &Record, reason: String) {
        let Some(spec) = record.spec.clone() else {
            return;
        };
        let callback = self
            .registry
            .active_module(&spec.callback, ModuleKind::Callback);
        let Ok(callback) = callback else {
            return;
        };
        let current = self.registry.node(&record.node);
        let lost = self.registry.lost_session(record.epoch);
        let address = match (current, lost) {
            (_, Some(lost)) => lost.address.to_string(),
            (Some(node), None) => node.facts.address.clone(),
            (None, None) => String::new(),
        };
        self.effects.push(Effect::Compensate(Box::new(Compensation {
            key: record.key(),
            incarnation: record.incarnation,
            spec,
            attempt: record.attempt,
            node: (*record.node).clone(),
            address,
            seed: record.why.seed,
            callback,
            reason,
        })));
    }

    /// Why a life was given up that was starting, for the callback.
    fn why_given_up(&mut self, life: &Life) -> String {
        let record = self.registry.process(&life.key);
        let last = record.and_then(|record| record.failures().last());
        if let Some(last) = last.filter(|last| last.incarnation == life.incarnation) {
            return last.cause.clone();
        }
        let aborted = self.compensating.aborted.take();
        let aborted = aborted.filter(|(of, _)| of == life);
        aborted.map_or_else(|| "its create was undone".to_owned(), |(_, why)| why)
    }

    /// A create is undone, for this reason; what that means for its life follows.
    pub(crate) fn note_abort(&mut self, life: &Life, why: &Rejection) {
        let text = match why {
            Rejection::SpawnFailed(attempts) => {
                let is_last = |attempt: &&Attempt| attempt.incarnation == life.incarnation;
                let last = attempts.iter().find(is_last);
                last.map_or_else(|| why.to_string(), |last| last.cause.clone())
            }
            Rejection::Deadline(_) => "its create ran out of time".to_owned(),
            other => other.to_string(),
        };
        self.compensating.aborted = Some((life.clone(), cut(text)));
    }
}

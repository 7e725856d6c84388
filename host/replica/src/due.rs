//! What comes of a saga's proposals, and of time that passes over it.

use maitred_protocol::{ProcessKey, Rejection, Unavailable};
use maitred_registry::{AbortCause, Outcome, Stale};

use crate::effect::Effect;
use crate::replica::Replica;
use crate::saga::{Joined, Life, Saga, Step};
use crate::timer::Due;

/// Decisions that were overtaken, in a row, before a create is told to come back later.
const STALE_MAX: u32 = 64;

impl Replica {
    /// Carries out what the timers say is due.
    pub(crate) fn fire_timers(&mut self) {
        while let Some(due) = self.timers.pop(self.now.mono_us) {
            match due {
                Due::Retry(key) => {
                    if let Some(saga) = self.sagas.all.get_mut(&key) {
                        saga.retry = None;
                        if saga.step == Step::Waiting {
                            self.select(&key);
                        }
                    }
                }
                Due::Deadline(key) => self.deadline(&key),
                Due::Late(key, ticket) => self.late(&key, ticket),
                Due::KillBound(epoch) => self.kill_bound_due(epoch),
                Due::Examine(epoch, fence) => self.examine_due(epoch, &fence),
                Due::Moves => self.moves_due(),
                Due::GiveUp(key) => self.give_up_due(&key),
                Due::Recreate => self.recreation_due(),
                Due::Waiting => self.waiting_due(),
                Due::Party(number) => self.party_due(number),
                Due::PartyAgain(number) => self.party_again(number),
                Due::Parties => self.parties_due(),
            }
        }
    }

    fn deadline(&mut self, key: &ProcessKey) {
        let Some(saga) = self.sagas.all.get_mut(key) else {
            return;
        };
        saga.deadline = None;
        saga.deadline_passed = true;
        // What is on its way to the log is undone when it arrives.
        if saga.step != Step::Proposed {
            self.too_late(key);
        }
    }

    /// What was under way when the deadline of a create passed has come to nothing.
    pub(crate) fn too_late(&mut self, key: &ProcessKey) {
        let incarnation = self.sagas.all.get(key).map(|saga| saga.incarnation);
        let Some(incarnation) = incarnation.filter(|incarnation| incarnation.0 != 0) else {
            if let Some(saga) = self.end_saga(key) {
                match self.registry.is_held(key) {
                    true => self.held_too_long(key, saga),
                    false => self.fail(saga, &Rejection::Deadline(Vec::new())),
                }
            }
            return;
        };
        let key = key.clone();
        self.abort(&Life { key, incarnation }, AbortCause::Deadline);
    }

    /// A create waited in vain for an earlier life of its key to be over. Its maker is told where that
    /// may still go on; the others have time left.
    fn held_too_long(&mut self, key: &ProcessKey, saga: Saga) {
        let why = self.who_holds(key);
        let is_maker = |joined: &Joined| Some(joined.request) == saga.maker;
        let (makers, others): (Vec<_>, Vec<_>) = saga.waiters.into_iter().partition(is_maker);
        for joined in makers {
            self.timers.cancel(joined.late);
            self.unavailable(joined.ticket, Unavailable::Held(why.clone()));
        }
        self.admit_again(others);
    }

    /// What came of proposing a reservation.
    pub(crate) fn reserved(&mut self, life: &Life, outcome: Outcome) {
        match outcome {
            // The event of the reservation does the rest.
            Outcome::Reserved(record) => {
                let saga = self.sagas.all.get_mut(&life.key);
                if let Some(trace) = saga.and_then(|saga| saga.trace.take()) {
                    self.effects.push(Effect::Record(record.incarnation, trace));
                }
            }
            Outcome::Stale(Stale::KeyTaken) => {
                if self.sagas.current(life).is_some()
                    && let Some(saga) = self.end_saga(&life.key)
                {
                    self.admit_again(saga.waiters);
                }
            }
            Outcome::Stale(Stale::Node) => self.overtaken(life),
            Outcome::Stale(Stale::Selector) => {
                // Its alternatives are that version's, too.
                if let Some(saga) = self.sagas.current(life) {
                    saga.ranked = None;
                }
                self.overtaken(life);
            }
            Outcome::Stale(Stale::Held) => {
                if self.sagas.current(life).is_some() {
                    self.select(&life.key);
                }
            }
            // The process has gone on, and the event that said so did the rest.
            Outcome::Stale(Stale::Incarnation) => {}
            // The maker's request had been carried out before, or its session is gone. What that
            // means for the others is theirs to find out.
            other => {
                if self.sagas.current(life).is_none() {
                    return;
                }
                let Some(saga) = self.end_saga(&life.key) else {
                    return;
                };
                let (makers, others): (Vec<_>, Vec<_>) = saga
                    .waiters
                    .into_iter()
                    .partition(|joined| Some(joined.request) == saga.maker);
                for joined in makers {
                    self.timers.cancel(joined.late);
                    self.answer(joined.ticket, other.clone());
                }
                self.admit_again(others);
            }
        }
    }

    /// The node or the selector that a decision was about has changed since: decide again.
    fn overtaken(&mut self, life: &Life) {
        let Some(saga) = self.sagas.current(life) else {
            return;
        };
        saga.stale += 1;
        if saga.stale > STALE_MAX && !saga.deadline_passed {
            let why = "its decisions were overtaken again and again";
            self.saga_refused(life, &Unavailable::Overloaded(why.to_owned()));
        } else {
            self.select(&life.key);
        }
    }

    /// What came of a saga's other proposals; success is told by events.
    pub(crate) fn saga_outcome(&mut self, life: &Life, outcome: Outcome) {
        if let Outcome::Rejected(rejection) = outcome
            && self.sagas.current(life).is_some()
            && let Some(saga) = self.end_saga(&life.key)
        {
            self.note_abort(life, &rejection);
            self.fail(saga, &rejection);
        }
    }

    /// A saga's proposal never reached the log.
    pub(crate) fn saga_refused(&mut self, life: &Life, why: &Unavailable) {
        if self.sagas.current(life).is_none() {
            return;
        }
        if life.incarnation.0 != 0 {
            // What was to be proposed is derived anew from the record.
            return self.retry_later(&life.key);
        }
        let Some(saga) = self.end_saga(&life.key) else {
            return;
        };
        for joined in saga.waiters {
            self.timers.cancel(joined.late);
            self.unavailable(joined.ticket, why.clone());
        }
    }
}

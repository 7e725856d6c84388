//! What becomes of a process whose life has ended is asked of its callback, when that wants to be.
//!
//! A process is asked about while it is pending because of an end ([`Record::ended_by`]),
//! so a new leader asks again; what is asked at one time is bounded, and one whose callback does not
//! want the hook passes by here without a trace. The answer is advice: the process then takes the
//! way of every process that has lost its node ([`crate::recreation`]), with its gates, and only what
//! ends the wait for good is proposed.

mod questions;

use maitred_protocol::{Chooser, Hook, Incarnation, ModuleKind, NodeName, ProcessKey};
use maitred_registry::candidates::SelectRequest;
use maitred_registry::decide::Decision;
use maitred_registry::{EndedBy, Record};

use crate::effect::{Effect, Question};
use crate::input::Advice;
use crate::recreation::is_wanted;
use crate::replica::Replica;
use crate::saga::{Life, Step};
pub(crate) use questions::Questions;

/// Milliseconds for an answer, those included that the callback takes to be ready.
const ADVISE_WITHIN_MS: u32 = 5_000;

/// Milliseconds that a callback may have a process wait.
const BACK_OFF_MS: std::ops::RangeInclusive<u32> = 10..=600_000;

/// Questions that have their turn at one time: where nobody is asked, all of those that wait would.
const TURNS_MAX: usize = 1_024;

impl Replica {
    /// Has a pending process asked about, if it has ended in a way that its callback wants to be asked
    /// about; says whether it is taken care of.
    pub(crate) fn asks(&mut self, record: &Record) -> bool {
        let (Some(by), Some(spec)) = (record.ended_by(), record.spec.as_deref()) else {
            return false;
        };
        let wants = self.registry.callback_wants(&spec.callback, by.hook());
        if !wants && by == EndedBy::NodeLost {
            return false;
        }
        let key = record.key();
        let Some(saga) = self.sagas.all.get_mut(&key) else {
            return false;
        };
        if !wants {
            // There was somebody to ask when it ended, and there is not any more.
            self.forget(&key);
            return true;
        }
        saga.step = Step::Asking;
        self.timers.cancel(saga.retry.take());
        let incarnation = record.incarnation;
        let turn = (spec.options.priority, spec.pending_ms);
        let life = Life { key, incarnation };
        self.advising.push(&spec.callback, life, turn);
        true
    }

    /// Whether a process's callback wants to be asked when it ends by itself.
    pub(crate) fn asks_of_exits(&self, key: &ProcessKey) -> bool {
        let spec = self
            .registry
            .process(key)
            .and_then(|record| record.spec.as_ref());
        spec.is_some_and(|spec| self.registry.callback_wants(&spec.callback, Hook::Exit))
    }

    /// Asks about as many as may be asked about at one time.
    pub(crate) fn ask_callbacks(&mut self) {
        let now_us = self.now.mono_us;
        for _ in 0..TURNS_MAX {
            let Some((life, asks)) = self.advising.next(now_us) else {
                return;
            };
            match self.question(&life) {
                Some(Ok(question)) if asks => {
                    let late_us = now_us + u64::from(ADVISE_WITHIN_MS) * 1_000;
                    let callback = &question.callback.name;
                    self.advising.sent(life, callback, (now_us, late_us));
                    self.effects.push(Effect::Advise(Box::new(question)));
                }
                Some(_) => self.advised(life.key, life.incarnation, Advice::Usual),
                None => {}
            }
        }
    }

    /// What is asked; none when there is nothing to ask any more, an error when nobody is to be asked.
    fn question(&mut self, life: &Life) -> Option<Result<Question, String>> {
        let is_asking = |step: Step| step == Step::Asking;
        let saga = self.sagas.current(life);
        saga.filter(|saga| is_asking(saga.step))?;
        let record = self.registry.process(&life.key)?;
        let (by, spec) = (record.ended_by()?, record.spec.as_deref()?);
        let ended = record.failures().last();
        let reason = ended.filter(|_| by == EndedBy::Exit);
        let lasted_ms = spec.pending_ms.saturating_sub(spec.ends.ran_ms);
        let callback = self
            .registry
            .active_module(&spec.callback, ModuleKind::Callback);
        let callback = match callback {
            Ok(callback) => callback,
            Err(why) => return Some(Err(why)),
        };
        Some(Ok(Question {
            key: life.key.clone(),
            incarnation: life.incarnation,
            by,
            group: spec.options.group.clone(),
            node: (*record.node).clone(),
            reason: reason.map_or_else(String::new, |ended| ended.cause.clone()),
            times: spec.ends.times.into(),
            lasted_ms: u32::try_from(lasted_ms).unwrap_or(u32::MAX),
            seed: self.random.next_u32(),
            callback,
            within_ms: ADVISE_WITHIN_MS,
        }))
    }

    /// A callback has answered.
    pub(crate) fn advised(&mut self, key: ProcessKey, incarnation: Incarnation, advice: Advice) {
        let now_us = self.now.mono_us;
        if let Some(paused) = self.advising.answered(&key, incarnation, now_us) {
            self.effects.push(Effect::Unasked {
                callback: paused.callback,
                pause_ms: (paused.pause_us / 1_000) as u32,
                waiting: paused.waiting,
            });
        }
        let life = Life { key, incarnation };
        let record = self.registry.process(&life.key);
        let Some(by) = record
            .filter(|record| is_wanted(record))
            .and_then(|record| record.ended_by())
        else {
            return;
        };
        let saga = self.sagas.current(&life);
        let Some(saga) = saga.filter(|saga| saga.step == Step::Asking) else {
            return;
        };
        match advice {
            Advice::GiveUp => return self.forget(&life.key),
            Advice::Usual if by == EndedBy::Exit => return self.forget(&life.key),
            Advice::Usual | Advice::Elsewhere => {}
            Advice::Here => saga.again.stays(),
            Advice::BackOff(ms) => {
                let ms = ms.clamp(*BACK_OFF_MS.start(), *BACK_OFF_MS.end());
                saga.again.put_off(now_us + u64::from(ms) * 1_000);
                return self.select(&life.key);
            }
        }
        self.try_again(&life.key);
    }

    /// The decision for a process that is to be started where it ran; none when that node does not take
    /// it, or nobody has advised so.
    pub(crate) fn advised_node(
        &mut self,
        life: &Life,
        request: &SelectRequest,
    ) -> Option<Decision> {
        let saga = self.sagas.current(life)?;
        if !saga.again.take_stays() {
            return None;
        }
        let node: NodeName = (*self.registry.process(&life.key)?.node).clone();
        self.registry.node(&node)?;
        let request = SelectRequest {
            exclude: Vec::new(),
            ..request.clone()
        };
        self.decide_for(&node, request, Chooser::Advice)
    }
}

//! What callbacks say of lives that have ended: any advice, late, twice, or never.
//!
//! The server gives a callback up after the time that the replica names, and answers for it: that is
//! this file's duty, too. What comes of a compensation nobody sees here; only that none is asked for
//! what runs.

use maitred_protocol::ProcessState;
use maitred_replica::{Advice, Compensation, Input, Question};

use super::world::{World, say};

impl World {
    /// A callback is asked what becomes of a process.
    pub(super) fn advise(&mut self, machine: usize, question: Question) {
        let Question {
            key,
            incarnation,
            by,
            within_ms,
            ..
        } = question;
        let within_us = u64::from(within_ms) * 1_000;
        self.cover.count("callback asked for advice");
        let trap = self.trapping > 0 && self.guests.below(2) == 0;
        let (advice, after_us) = match self.guests.below(20) {
            _ if trap => (Advice::Usual, 1_000),
            0 => {
                self.cover.count("callback never advised");
                if self.mutant("shell-advice-forgotten") {
                    return;
                }
                (Advice::Usual, within_us)
            }
            kind => {
                let slow = self.guests.below(10) == 0;
                let most_us = if slow { within_us as u32 } else { 5_000 };
                (
                    self.advice(kind),
                    50 + u64::from(self.guests.below(most_us)),
                )
            }
        };
        say!(
            self,
            "h{machine}: {by:?} of {key}@{incarnation}: {advice:?} in {after_us} us"
        );
        let twice = self.guests.below(20) == 0;
        let other = twice.then(|| {
            (
                self.advice(self.guests.clone().below(20)),
                after_us + 30_000,
            )
        });
        for (advice, after_us) in [Some((advice, after_us)), other].into_iter().flatten() {
            let input = Input::Advised {
                key: key.clone(),
                incarnation,
                advice,
            };
            self.later(machine, after_us, input);
        }
    }

    fn advice(&mut self, kind: u32) -> Advice {
        let (what, advice) = match kind {
            0..6 => ("advice: here", Advice::Here),
            6..11 => ("advice: elsewhere", Advice::Elsewhere),
            11..15 => {
                let ms = self.guests.below(3_000);
                ("advice: back off", Advice::BackOff(ms))
            }
            15..17 => ("advice: give up", Advice::GiveUp),
            _ => ("advice: as usual", Advice::Usual),
        };
        self.cover.count(what);
        advice
    }

    /// A callback is to undo what it did for a life.
    pub(super) fn compensate(&mut self, machine: usize, compensation: &Compensation) {
        let Compensation {
            key, incarnation, ..
        } = compensation;
        self.cover.count("callback compensates");
        let replica = self.hosts[machine].replica.as_ref();
        let record = replica.and_then(|replica| replica.registry().process(key));
        let goes_on = record.is_some_and(|record| {
            record.incarnation == *incarnation && record.state == ProcessState::Running
        });
        if goes_on {
            let text = format!("{key}@{incarnation} is compensated, and runs");
            self.fail("needless", text);
        }
    }
}

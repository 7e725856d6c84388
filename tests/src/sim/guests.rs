//! Lanes and callbacks of a host: decisions and spawns that end after a while, or fail.
//!
//! A decision is made by the native chooser of the tests' driver. While guests trap, selectors fail (and
//! the type's fallback decides), and callbacks give up or ask for another node.

use std::collections::BTreeSet;

use maitred_protocol::{Answered, NodeAnswer, NodeCommand};
use maitred_registry::decide::{LaneId, SelectBatch};
use maitred_replica::{Input, SpawnJob, Spawned};

use crate::driver::chooser;

use super::game::Life;
use super::host::HostEvent;
use super::queue::What;
use super::world::{World, say};

/// Spawns under way: the members of a party have one incarnation.
#[derive(Debug, Default)]
pub struct Runner(BTreeSet<Life>);

impl Runner {
    /// Gives one up.
    pub fn forget(&mut self, life: &Life) {
        self.0.remove(life);
    }

    /// Gives all of them up.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl World {
    /// A batch of decisions.
    pub fn select(&mut self, machine: usize, lane: LaneId, mut batch: SelectBatch) {
        let trap = self.trapping > 0 && self.guests.below(2) == 0;
        if trap {
            self.cover.count("selector trapped");
            batch.selector = Err((lane.module.clone(), "it trapped".to_owned()));
        }
        let slow = self.guests.below(100) == 0;
        let took = 50 + u64::from(self.guests.below(if slow { 300_000 } else { 1_500 }));
        let decisions = chooser::decide_all(batch);
        for decision in &decisions {
            match decision.trace.answered {
                Answered::Ranked(2..) => self.cover.count("selector ranked nodes"),
                Answered::Rejected { .. } => self.cover.count("selector rejected a process"),
                Answered::Wait(_) => self.cover.count("selector wanted to wait"),
                _ => {}
            }
        }
        let input = Input::Selected { lane, decisions };
        self.later(machine, took, input);
    }

    pub(super) fn later(&mut self, machine: usize, us: u64, input: Input) {
        let life = self.hosts[machine].life;
        let event = HostEvent::Input(Box::new(input));
        self.queue
            .push(self.now + us, What::Host(machine, life, event));
    }

    /// A process is to be started.
    pub fn spawn(&mut self, machine: usize, job: SpawnJob) {
        let SpawnJob {
            key,
            incarnation,
            node,
            term,
            ..
        } = job;
        say!(
            self,
            "h{machine}: start {key}@{incarnation} on {} in term {term}",
            node.name
        );
        self.cover.count("spawn");
        let life = (key.clone(), incarnation);
        let host = &mut self.hosts[machine];
        if !host.runner.0.insert(life.clone()) {
            self.cover.count("spawn replaced");
            host.sessions.forget_spawn(&life);
        }
        if self.trapping > 0 && self.guests.below(3) == 0 {
            self.cover.count("callback trapped");
            let why = "the callback trapped".to_owned();
            let gives_up = self.guests.below(2) == 0;
            let result = if gives_up {
                Spawned::GiveUp(why)
            } else {
                Spawned::Elsewhere(why)
            };
            // What an earlier run has asked of the node is not known.
            return self.spawned(machine, life, result, false);
        }
        let start = NodeCommand::Start {
            term,
            key,
            incarnation,
            payload: job.spec.args.to_vec(),
            deadline_ms: job.within_ms,
            try_number: 1,
        };
        let within_us = u64::from(job.within_ms) * 1_000;
        self.command(machine, node.epoch, start, Some((life, within_us)));
    }

    fn spawned(&mut self, machine: usize, life: Life, result: Spawned, over: bool) {
        if !self.hosts[machine].runner.0.remove(&life) {
            return;
        }
        let (key, incarnation) = life;
        // Sometimes it is heard of twice, or late.
        let took = 20 + u64::from(self.guests.below(500));
        let twice = self.guests.below(50) == 0;
        for delay in [Some(took), twice.then_some(took + 30_000)]
            .into_iter()
            .flatten()
        {
            let (key, result) = (key.clone(), result.clone());
            let input = Input::Spawned {
                key,
                incarnation,
                result,
                over,
            };
            self.later(machine, delay, input);
        }
    }

    /// The node has answered a start.
    pub fn spawn_answered(&mut self, machine: usize, life: Life, answer: NodeAnswer) {
        let says_over = matches!(
            answer,
            NodeAnswer::Busy(_) | NodeAnswer::Failed(_) | NodeAnswer::Stopped
        );
        // A callback may fail after it has had its answer, and nobody knows what that was.
        if self.trapping > 0 && self.guests.below(4) == 0 {
            self.cover.count("callback trapped after its answer");
            let why = Spawned::Elsewhere("the callback trapped".to_owned());
            return self.spawned(machine, life, why, says_over);
        }
        let result = match answer {
            NodeAnswer::Started { pid, share } => Spawned::Started { pid, share },
            NodeAnswer::Busy(why) | NodeAnswer::Failed(why) => Spawned::Elsewhere(why),
            NodeAnswer::Fenced => Spawned::Elsewhere("fenced".to_owned()),
            NodeAnswer::Stopped => Spawned::Elsewhere("stopped".to_owned()),
        };
        self.spawned(machine, life, result, says_over);
    }

    /// It never will.
    pub fn spawn_unanswered(&mut self, machine: usize, life: Life, why: &str) {
        let over = self.mutant("shell-unknown-is-over");
        self.spawned(machine, life, Spawned::Elsewhere(why.to_owned()), over);
    }
}

//! Commands of the leader: which starts and stops are carried out, and what the others are told.

use std::collections::btree_map::Entry as Slot;

use maitred_protocol::{Incarnation, NodeAnswer, NodeCommand, ProcessKey};

use super::process::{Life, Next, Process, supersede, wait};
use super::{Agent, Effect, Spawned, answer_all};

/// What those hear, if any are left, whose start waited too long for the life before to end.
pub(super) const LATE: &str = "the life before it did not end in time";

impl Agent {
    pub(super) fn command(
        &mut self,
        now_us: u64,
        tag: u64,
        command: NodeCommand,
        out: &mut Vec<Effect>,
    ) {
        let (NodeCommand::Start { term, .. } | NodeCommand::Stop { term, .. }) = command;
        if term < self.term {
            out.push(Effect::Answer(tag, NodeAnswer::Fenced));
            return;
        }
        self.term = term;
        match command {
            NodeCommand::Start {
                key,
                incarnation,
                payload,
                deadline_ms,
                try_number,
                ..
            } => {
                let next = Next {
                    incarnation,
                    try_number,
                    payload,
                    until_us: now_us.saturating_add(u64::from(deadline_ms) * 1_000),
                    waiters: vec![tag],
                };
                self.start(now_us, key, next, out);
            }
            NodeCommand::Stop {
                key, incarnation, ..
            } => self.stop(now_us, tag, &key, incarnation, out),
        }
    }

    pub(super) fn start(
        &mut self,
        now_us: u64,
        key: ProcessKey,
        start: Next,
        out: &mut Vec<Effect>,
    ) {
        let full = self.has_no_room_for(&key);
        let refusal = self.lease.refuses_starts();
        // What is placed on this session is reserved after it began, and what an older one brought
        // along is known: this was asked of a session that is over, and nobody would ever stop it.
        let outlived = self
            .lease
            .epoch
            .is_some_and(|epoch| start.incarnation.0 < epoch.0);
        let outlived = outlived.then_some(NodeAnswer::Fenced);
        let process = match self.processes.entry(key) {
            Slot::Occupied(process) => process,
            Slot::Vacant(vacant) => {
                let over = {
                    let (of, number) = (start.incarnation, start.try_number);
                    self.tombstones.refusal(vacant.key(), of, number)
                };
                let late = start.is_late(now_us).then_some(LATE);
                let busy = refusal.or(full).or(late);
                if let Some(no) = over.or(outlived) {
                    answer_all(start.waiters, &no, out);
                    return;
                }
                if let Some(why) = busy {
                    // Whoever hears that counts on it: the same command, come again, starts nothing.
                    let no = NodeAnswer::Busy(why.to_owned());
                    let (key, incarnation) = (vacant.into_key(), start.incarnation);
                    let told = (no.clone(), start.try_number);
                    self.tombstones
                        .bury_answered(now_us, &key, incarnation, told);
                    answer_all(start.waiters, &no, out);
                    return;
                }
                out.push(Effect::Spawn {
                    key: vacant.key().clone(),
                    incarnation: start.incarnation,
                    deadline_ms: start.left_ms(now_us),
                    payload: start.payload,
                });
                self.inventory.add(vacant.key());
                let process = Process::new(start.incarnation, Life::Starting, start.waiters);
                vacant.insert(Process {
                    tries: start.try_number,
                    ..process
                });
                return;
            }
        };
        let (key, process) = (process.key().clone(), process.into_mut());
        if start.incarnation > process.incarnation && start.incarnation > process.buried {
            if let Some(no) = refusal {
                process.buried = process.buried.max(start.incarnation);
                answer_all(start.waiters, &NodeAnswer::Busy(no.to_owned()), out);
                return;
            }
            supersede(process, start, out);
            process.stop(&key, out);
            return;
        }
        let same = start.incarnation == process.incarnation;
        match &process.life {
            Life::Running(spawned) if same => {
                let Spawned { pid, share } = spawned.clone();
                answer_all(start.waiters, &NodeAnswer::Started { pid, share }, out);
            }
            Life::Starting | Life::Stillborn if same => {
                process.tries = process.tries.max(start.try_number);
                for tag in start.waiters {
                    wait(&mut process.starters, tag, out);
                }
            }
            _ => answer_all(start.waiters, &NodeAnswer::Fenced, out),
        }
    }

    fn stop(
        &mut self,
        now_us: u64,
        tag: u64,
        key: &ProcessKey,
        incarnation: Incarnation,
        out: &mut Vec<Effect>,
    ) {
        let place = self.processes.get(key).map(|process| process.incarnation);
        if place != Some(incarnation) && self.ending.has(key, incarnation) {
            // Another life has its place, or had, and it is not gone yet.
            self.ending.wait_for((key, incarnation), vec![tag], out);
            return;
        }
        let Some(process) = self.processes.get_mut(key) else {
            self.tombstones.bury(now_us, key, incarnation);
            out.push(Effect::Answer(tag, NodeAnswer::Stopped));
            return;
        };
        if incarnation < process.incarnation {
            out.push(Effect::Answer(tag, NodeAnswer::Stopped));
            return;
        }
        process.buried = process.buried.max(incarnation);
        if let Some(next) = process.next.take_if(|next| next.incarnation <= incarnation) {
            answer_all(next.waiters, &NodeAnswer::Fenced, out);
        }
        process.delete = false;
        wait(&mut process.stoppers, tag, out);
        process.stop(key, out);
    }
}

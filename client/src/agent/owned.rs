//! Processes that the game has started by itself and registered.

use std::cmp::Ordering;

use maitred_protocol::{Incarnation, NodeEpoch, ProcessKey};

use super::process::{Life, Process};
use super::{Agent, Effect, Spawned};

impl Agent {
    pub(super) fn owned(
        &mut self,
        now_us: u64,
        (epoch, key, incarnation): (NodeEpoch, ProcessKey, Incarnation),
        spawned: Spawned,
        out: &mut Vec<Effect>,
    ) {
        let known = self.processes.get_mut(&key);
        let known = known.map(|process| (process.incarnation.cmp(&incarnation), process));
        let mut next = None;
        match known {
            Some((Ordering::Equal, process)) => {
                if let Life::Running(old) = &mut process.life {
                    *old = spawned;
                }
                return;
            }
            // A newer life is known: the one that was registered is not the current one, and the game
            // runs it.
            Some((Ordering::Greater, _)) => {
                self.outlives(now_us, epoch, &key, incarnation);
                out.push(Effect::Stop(key, incarnation));
                return;
            }
            // A life that the node began itself in place of one whose end it had not reported.
            Some((Ordering::Less, process)) => {
                // Or beside it, when it began two at the same time.
                let other = |old: &Spawned| old.pid != spawned.pid;
                if matches!(&process.life, Life::Running(old) if other(old)) {
                    out.push(Effect::Stop(key.clone(), process.incarnation));
                }
                if matches!(process.life, Life::Starting | Life::Cancelled) {
                    self.ending.displace(&key, process.incarnation);
                }
                if matches!(
                    process.life,
                    Life::Starting | Life::Cancelled | Life::Stopping
                ) {
                    // It may still run: whoever has it stopped hears when it does not.
                    let stoppers = std::mem::take(&mut process.stoppers);
                    let life = (&key, process.incarnation);
                    self.ending.wait_for(life, stoppers, out);
                }
                next = process.next.take();
                process.delete = false;
                process.failed = None;
                self.bury(now_us, &key, None, out);
            }
            None => {}
        }
        // Meanwhile it may have ended or been stopped, a newer one may be wanted, or the session
        // under which it was registered may be over, and its records with it.
        let current = self.lease.epoch == Some(epoch) && !self.lease.is_leaving();
        let over = self.tombstones.refusal(&key, incarnation, 0).is_some();
        let mut process = Process::new(incarnation, Life::Running(spawned), Vec::new());
        process.next = next.filter(|next| next.incarnation > incarnation);
        if !current || over || process.next.is_some() {
            process.stop(&key, out);
        }
        self.outlives(now_us, epoch, &key, incarnation);
        self.inventory.add(&key);
        self.processes.insert(key, process);
    }

    /// Takes note of a life whose session may be over: then it must be gone a kill bound from now.
    fn outlives(
        &mut self,
        now_us: u64,
        epoch: NodeEpoch,
        key: &ProcessKey,
        incarnation: Incarnation,
    ) {
        if self.lease.epoch != Some(epoch) {
            let gone_by_us = self.lease.gone_by_us(now_us);
            let life = (key.clone(), incarnation);
            self.ending.outlive(gone_by_us, std::iter::once(life));
        }
    }
}

//! Lives that the registry cannot know of, since it was restored from an older snapshot: each is
//! registered anew under another incarnation, or stopped when its key is taken.
//!
//! Holds: while the answer is awaited no verdict ends the life, for the answer is the newer word; and
//! what was registered for a life that is over by then is removed again.

use maitred_protocol::{Incarnation, NodeEpoch, ProcessKey};

use super::process::{Adoption, Life};
use super::{Agent, Effect};

impl Agent {
    /// The registry would have this life, were it registered.
    pub(super) fn adopt(
        &mut self,
        key: &ProcessKey,
        incarnation: Incarnation,
        out: &mut Vec<Effect>,
    ) {
        let (number, epoch) = (self.lease.number, self.lease.epoch);
        let process = self.processes.get_mut(key);
        let process = process.filter(|process| process.incarnation == incarnation);
        let (Some(process), Some(epoch)) = (process, epoch) else {
            return;
        };
        match &process.life {
            Life::Running(spawned) => {
                process.adoption = Some(Adoption { epoch, number });
                out.push(Effect::Adopt {
                    epoch,
                    key: key.clone(),
                    incarnation,
                    spawned: spawned.clone(),
                });
            }
            // Whoever asked for it is forgotten too.
            Life::Starting => process.stop(key, out),
            Life::Cancelled | Life::Stillborn | Life::Stopping => {}
        }
    }

    /// The answer: the life's new incarnation, or that its key is taken.
    pub(super) fn adopted(
        &mut self,
        now_us: u64,
        (epoch, key, old): (NodeEpoch, ProcessKey, Incarnation),
        new: Option<Incarnation>,
        out: &mut Vec<Effect>,
    ) {
        let current = self.lease.epoch == Some(epoch);
        let process = self.processes.get_mut(&key);
        let process = process.filter(|process| process.incarnation == old);
        let adoption = process.and_then(|process| {
            let adoption = process.adoption.take_if(|adoption| adoption.epoch == epoch);
            adoption.map(|adoption| (process, adoption))
        });
        let (process, adoption) = match (adoption, new) {
            (Some(found), _) => found,
            (None, Some(new)) => {
                // It ended on the way; unless its key has gone on to the very life that was found.
                let here = self.processes.get(&key);
                if current && here.is_none_or(|process| process.incarnation != new) {
                    out.push(Effect::Delete(key, new));
                }
                return;
            }
            (None, None) => return,
        };
        let Some(new) = new else {
            process.stop(&key, out);
            return;
        };
        if !matches!(process.life, Life::Running(_)) {
            process.registered = Some(new);
            process.buried = process.buried.max(new);
            process.delete = current;
            return;
        }
        process.incarnation = new;
        process.earlier = Some(old);
        self.tombstones.bury(now_us, &key, old);
        out.push(Effect::Adopted(key, old, new));
        if self.lease.number != adoption.number {
            // Inventories were compared meanwhile, with the old incarnation.
            self.reconcile(now_us);
        }
    }
}

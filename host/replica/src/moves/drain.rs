//! A drain under way: which of a node's processes are to leave it now.
//!
//! The registry says that a node is drained, and until when its processes are waited for; what is
//! here is how far this leader has come. A pass goes over the node's processes in order, at most so
//! many at a time, and begins anew when it is through: after a second, or soon when a node may take
//! what none could before.

use std::sync::Arc;

use maitred_protocol::{DrainState, NodeEpoch, NodeName, OnDrain, ProcessState, TypeName};
use maitred_registry::{Record, Registry};

use super::room::{Bucket, Room, request_of};
use super::{Act, Chosen, UnderWay};
use crate::input::Now;

/// Records looked at in one go.
const LOOK_MAX: usize = 2_000;

/// Microseconds between two passes, and at least when something has changed.
pub(super) const PASS_US: u64 = 1_000_000;
const PASS_US_MIN: u64 = 100_000;

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// All that may leave now is leaving.
    Through,
    /// The rate allows no more now.
    Rate,
    /// As many as may be are under way.
    Slots,
    /// There is more to look at.
    More,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Draining {
    pub(super) state: DrainState,
    bucket: Bucket,
    /// When nothing is waited for any more, on the monotonic clock.
    deadline_us: u64,
    past: bool,
    epoch: NodeEpoch,
    cursor: Option<(Arc<TypeName>, Arc<str>)>,
    pass_us: u64,
    /// When the next pass may begin.
    next_us: u64,
    /// Whether something could not leave because no node would take it.
    blocked: bool,
    ended: Ended,
}

impl Draining {
    /// The wall clock is looked at once: however it is set later, the deadline stays. However wrong it
    /// is, no more is waited than was asked for.
    pub(super) fn new(state: DrainState, now: Now) -> Self {
        let whole_ms = state.deadline_at_ms.saturating_sub(state.began_ms);
        let left_ms = state.deadline_at_ms.saturating_sub(now.wall_ms);
        let left_us = left_ms.min(whole_ms).saturating_mul(1_000);
        Self {
            bucket: Bucket::new(state.per_second, now.mono_us),
            state,
            deadline_us: now.mono_us.saturating_add(left_us),
            past: false,
            epoch: NodeEpoch(0),
            cursor: None,
            pass_us: now.mono_us,
            next_us: now.mono_us,
            blocked: false,
            ended: Ended::Through,
        }
    }

    /// Something has changed that may let more leave, or has come that is to leave.
    pub(super) fn hurry(&mut self, now_us: u64) {
        let soon_us = now_us.max(self.pass_us.saturating_add(PASS_US_MIN));
        self.next_us = self.next_us.min(soon_us);
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether there is something to look at now.
    pub(super) fn is_due(&mut self, now_us: u64) -> bool {
        let more = self.ended != Ended::Through || self.next_us <= now_us;
        let late = !self.past && self.deadline_us <= now_us;
        (more || late) && self.bucket.has(now_us)
    }

    /// When to look again though nothing happens.
    pub(super) fn wake_us(&self, now_us: u64) -> u64 {
        let at_us = match self.ended {
            Ended::Slots => return now_us + PASS_US,
            Ended::Through if self.past => self.next_us,
            Ended::Through => self.next_us.min(self.deadline_us),
            Ended::Rate | Ended::More => now_us,
        };
        at_us.max(self.bucket.next_us())
    }

    /// As many as may be are under way: it goes on when one of them has arrived.
    pub(super) fn stall(&mut self) {
        if self.ended == Ended::Through {
            self.cursor = None;
        }
        self.ended = Ended::Slots;
    }

    /// Chooses what is to leave the node now, at most `slots`.
    pub(super) fn look(
        &mut self,
        (name, epoch): (&NodeName, NodeEpoch),
        registry: &Registry,
        under_way: &UnderWay,
        room: &mut Room,
        (slots, now_us, paused): (usize, u64, bool),
    ) -> Vec<Chosen> {
        let late = self.deadline_us <= now_us;
        if self.epoch != epoch || self.past != late || self.ended == Ended::Through {
            (self.epoch, self.past, self.cursor) = (epoch, late, None);
            (self.pass_us, self.blocked) = (now_us, false);
        }
        let mut chosen = Vec::new();
        self.ended = Ended::Through;
        let records = registry.processes_after(name, epoch, self.cursor.clone());
        for (looked, record) in records.enumerate() {
            if looked >= LOOK_MAX {
                self.ended = Ended::More;
                break;
            }
            let mut act = judge(record, registry, late);
            if act != Act::Leave {
                if chosen.len() >= slots {
                    self.ended = Ended::Slots;
                    break;
                }
                if !self.bucket.has(now_us) {
                    self.ended = Ended::Rate;
                    break;
                }
                let waits = under_way.contains_key(&record.key());
                if waits || (act == Act::Ask && !self.asks(record, room, paused)) {
                    act = Act::Leave;
                }
            }
            if act != Act::Leave {
                self.bucket.take();
                chosen.push(Chosen {
                    key: record.key(),
                    incarnation: record.incarnation,
                    act,
                    cause: format!("{}node {name} is drained", super::MOVED),
                    drained: Some(name.clone()),
                    to: None,
                });
            }
            self.cursor = Some((Arc::clone(&record.type_name), Arc::clone(&record.id)));
        }
        if self.ended == Ended::Through {
            self.next_us = now_us + PASS_US;
        }
        chosen
    }

    /// Whether some other node would take it now.
    fn asks(&mut self, record: &Record, room: &mut Room, paused: bool) -> bool {
        let takes = !paused && request_of(record).is_some_and(|ask| room.takes_one_of(&ask));
        self.blocked |= !takes;
        takes
    }
}

/// What the type's policy makes of a process on a drained node, before the deadline or after it.
fn judge(record: &Record, registry: &Registry, late: bool) -> Act {
    let spec = registry.described_type(&record.type_name);
    let policy = spec.map_or(OnDrain::default(), |spec| spec.on_drain);
    let is_starting = record.state == ProcessState::Starting;
    match (policy, record.spec.is_some()) {
        _ if is_starting && !late => Act::Leave,
        (OnDrain::Stop, _) => Act::Delete,
        (OnDrain::Move | OnDrain::Wait, false) if late => Act::Delete,
        (OnDrain::Move | OnDrain::Wait, true) if late => Act::TakeOff,
        (OnDrain::Move, true) => Act::Ask,
        (OnDrain::Wait, _) | (OnDrain::Move, false) => Act::Leave,
    }
}

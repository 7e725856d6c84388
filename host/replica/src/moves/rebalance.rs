//! Moves of a rebalancing: taken up, begun one after the other, and placed where the plan says if
//! that still holds.

use std::collections::VecDeque;
use std::sync::Arc;

use maitred_protocol::{
    Answered, Chooser, Move, NodeName, OnDrain, ProcessState, RebalanceAsk, Rejection, Response,
    Revision, Switch, Why,
};
use maitred_registry::candidates::{Fleet, SelectRequest, Slot};
use maitred_registry::decide::{Decision, SelectJob, Trace};
use maitred_registry::feature::{CANDIDATES_MAX, Feature};
use maitred_registry::{Record, Registry};

use super::plan::plan;
use super::room::{Bucket, Room, request_of, slot_of};
use super::{Act, Chosen, UnderWay};
use crate::input::Ticket;
use crate::replica::Replica;
use crate::saga::Life;

/// What the evidence of a move shows of each node.
const FEATURES: [Feature; 3] = [Feature::Processes, Feature::Capacity, Feature::CapacityLeft];

/// Moves that are still to begin.
#[derive(Debug)]
pub(super) struct Rebalancing {
    pub(super) moves: VecDeque<Move>,
    bucket: Bucket,
}

impl Rebalancing {
    pub(super) fn is_due(&mut self, now_us: u64) -> bool {
        !self.moves.is_empty() && self.bucket.has(now_us)
    }

    pub(super) fn next_us(&self) -> u64 {
        self.bucket.next_us()
    }

    /// Takes out those that begin now, at most `slots`. Those that are void are dropped.
    pub(super) fn look(
        &mut self,
        registry: &Registry,
        under_way: &UnderWay,
        room: &mut Room,
        (slots, now_us): (usize, u64),
    ) -> Vec<Chosen> {
        let mut chosen = Vec::new();
        while chosen.len() < slots
            && self.bucket.has(now_us)
            && let Some(next) = self.moves.pop_front()
        {
            if !holds(&next, registry, under_way, room) {
                continue;
            }
            self.bucket.take();
            let Move { from, to, .. } = &next;
            chosen.push(Chosen {
                cause: format!("{}rebalancing from {from} to {to}", super::MOVED),
                key: next.key,
                incarnation: next.incarnation,
                act: Act::TakeOff,
                drained: None,
                to: Some(next.to),
            });
        }
        chosen
    }
}

/// Whether a move is still about what it was planned for, and some node would take the process.
fn holds(next: &Move, registry: &Registry, under_way: &UnderWay, room: &mut Room) -> bool {
    let record = registry.process(&next.key).filter(|record| {
        record.incarnation == next.incarnation
            && *record.node == next.from
            && may_move(record, registry)
            && !under_way.contains_key(&next.key)
    });
    let request = record.and_then(|record| request_of(record));
    request.is_some_and(|request| {
        let planned = SelectRequest {
            again: false,
            ..request.clone()
        };
        room.takes_on(&next.to, &planned) || room.takes(&request)
    })
}

/// Whether a process may be stopped where it is and started elsewhere, to make nodes more even.
pub(super) fn may_move(record: &Record, registry: &Registry) -> bool {
    let policy = registry.described_type(&record.type_name);
    record.state == ProcessState::Running
        && record.spec.as_ref().is_some_and(|spec| spec.confirmed)
        && policy.is_none_or(|policy| policy.on_drain == OnDrain::Move)
        && (registry.held() == 0 || !registry.is_held(&record.key()))
}

impl Replica {
    /// Moves of rebalancing that are still to be made, those under way included.
    pub(crate) fn moves_left(&self) -> u32 {
        let waiting = self.moves.rebalancing.as_ref();
        let waiting = waiting.map_or(0, |rebalancing| rebalancing.moves.len());
        let under_way = self.moves.under_way.values();
        let under_way = under_way.filter(|moving| moving.drained.is_none()).count();
        (waiting + under_way) as u32
    }

    pub(crate) fn plan_rebalance(&mut self, ticket: Ticket, ask: &RebalanceAsk) {
        let fleet = self.fleet_now();
        let plan = plan(&self.registry, &fleet, ask, &self.moves.under_way);
        self.reply(ticket, Response::Rebalance(Box::new(plan)));
    }

    /// Takes moves up, in place of those of the rebalancing before that have not begun. Only this
    /// leader knows of them: another one forgets what has not begun.
    pub(crate) fn begin_rebalance(&mut self, ticket: Ticket, moves: Vec<Move>, per_second: u32) {
        if self.registry.is_suspended(Switch::Moves) {
            let text = "moves are suspended; let them go on first, then ask again";
            return self.reject(ticket, Rejection::Conflict(text.to_owned()));
        }
        let now_us = self.now.mono_us;
        self.moves.rebalancing = Some(Rebalancing {
            moves: moves.into(),
            bucket: Bucket::new(per_second, now_us),
        });
        self.wake_moves(now_us);
        let revision = Revision(self.registry.applied());
        self.reply(ticket, Response::Done(revision));
    }

    /// The decision that a move's plan has made already, if its node still admits the process. Asked
    /// once a move: after that the selector decides.
    pub(crate) fn planned(&mut self, life: &Life, request: &SelectRequest) -> Option<Decision> {
        let moving = self.moves.under_way.get_mut(&life.key)?;
        let to = moving.to.take()?;
        if moving.incarnation != life.incarnation {
            return None;
        }
        // An operator asked for it: it does not count as one of a lost node.
        let request = SelectRequest {
            again: false,
            ..request.clone()
        };
        self.decide_for(&to, request, Chooser::Rebalance)
    }

    /// The decision for a node that is given, if that takes the process now.
    pub(crate) fn decide_for(
        &mut self,
        node: &NodeName,
        request: SelectRequest,
        chooser: Chooser,
    ) -> Option<Decision> {
        let fleet = self.fleet_for(&[SelectJob {
            id: 0,
            request: Arc::new(request.clone()),
            fallback: self.registry.type_spec(&request.key.type_name).fallback,
            seed: 0,
        }]);
        let slot = slot_of(&fleet, node)?;
        fleet.admits(slot, &request).ok()?;
        let time_s = (self.now.wall_ms / 1_000) as u32;
        let trace = trace(&fleet, request, (slot, chooser), time_s);
        let facts = &fleet.facts[slot as usize];
        Some(Decision {
            id: 0,
            node: Some((facts.name.clone(), facts.epoch)),
            then: Vec::new(),
            trace: Arc::new(trace),
        })
    }
}

fn trace(
    fleet: &Fleet,
    request: SelectRequest,
    (chosen, chooser): (Slot, Chooser),
    time_s: u32,
) -> Trace {
    let (mut slots, refused) = fleet.filter(&request);
    if slots.len() > CANDIDATES_MAX as usize {
        slots.truncate(CANDIDATES_MAX as usize - 1);
        slots.retain(|slot| *slot != chosen);
        slots.push(chosen);
    }
    let ages = slots.iter();
    let ages = ages.map(|&slot| fleet.since_ms(fleet.live[slot as usize].load_at_us));
    Trace {
        ages: ages.collect(),
        answered: Answered::Nothing,
        terms: Vec::new(),
        scored: Vec::new(),
        scores: Vec::new(),
        facts: Arc::clone(&fleet.facts),
        why: Why {
            chooser,
            seed: 0,
            micros: 0,
            candidates: slots.len() as u32,
        },
        selector: None,
        features: FEATURES.iter().map(ToString::to_string).collect(),
        values: fleet.gather(&FEATURES, &slots, &request),
        request: Arc::new(request),
        slots,
        refused,
        chosen: Some(chosen),
        time_s,
    }
}

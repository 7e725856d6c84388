//! Moves: of drains, and of rebalancing. What is to leave its node now, and how much at a time.
//!
//! A move takes a process off its node (`Unplace`), which makes its key held until the node says that
//! the life is over; only then does the saga give it to another node. So nothing here can make two
//! lives of a key. A move is under way from then until the process runs elsewhere, is gone, or waits
//! without a node; at most 64 are, over all drains and rebalancing. One whose node takes longer than
//! ten seconds counts only for its own drain, so that a node that answers nothing holds up no other.
//!
//! Drains are in the registry: a new leader goes on with them from there, though it does not know
//! which moves were under way and may begin 64 more. A rebalancing is this leader's: another forgets
//! what has not begun. After a drain's deadline processes are taken off even when no node would take
//! them; they are pending then, and wait for capacity.
//!
//! A look chooses what begins; looks come by a timer, soon after what may let more begin.

mod drain;
mod fullness;
mod plan;
mod rebalance;
mod room;

use std::collections::BTreeMap;

use maitred_protocol::{Incarnation, NodeName, ProcessKey, ProcessState, Switch};
use maitred_registry::{Change, Command, Event, Node, Record};

use crate::mutants;
use crate::proposals::Waiter;
use crate::replica::Replica;
use crate::saga::Step;
use crate::timer::{Due, TimerId};
use drain::{Draining, PASS_US};
use rebalance::Rebalancing;
pub(crate) use room::slot_of;
use room::{Room, request_of};

/// What the cause of a move begins with. Such a cause is on record like a failed attempt, and counts
/// as none.
pub(crate) const MOVED: &str = "moved: ";

/// Moves under way at one time.
const UNDER_WAY_MAX: usize = 64;

/// Microseconds after which a move counts only for its own drain.
const OVERDUE_US: u64 = 10_000_000;

/// Microseconds between two looks, at least: each sees all nodes.
const LOOK_US_MIN: u64 = 5_000;

/// A process on its way.
#[derive(Debug)]
struct Moving {
    /// The life that was taken off.
    incarnation: Incarnation,
    /// The node that is drained; none for rebalancing.
    drained: Option<NodeName>,
    /// Where it is to go, until that has been looked at.
    to: Option<NodeName>,
    since_us: u64,
}

type UnderWay = BTreeMap<ProcessKey, Moving>;

/// What is to be done with a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Leave,
    /// It is taken off if another node would take it now.
    Ask,
    TakeOff,
    Delete,
}

/// A process that is to leave its node now.
#[derive(Debug)]
struct Chosen {
    key: ProcessKey,
    incarnation: Incarnation,
    act: Act,
    cause: String,
    drained: Option<NodeName>,
    to: Option<NodeName>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    under_way: UnderWay,
    drains: BTreeMap<NodeName, Draining>,
    rebalancing: Option<Rebalancing>,
    /// Whether `drains` is what the registry says.
    known: bool,
    wake: Option<(u64, TimerId)>,
    looked_us: u64,
    looks: usize,
}

impl Moves {
    /// How many more may begin: over all, and for one drain or for rebalancing.
    fn slots(&self, drained: Option<&NodeName>, now_us: u64) -> usize {
        let overdue_us = now_us.saturating_sub(OVERDUE_US);
        let all = self.under_way.values();
        let all = all.filter(|moving| moving.since_us >= overdue_us).count();
        let own = self.under_way.values();
        let own = own.filter(|moving| moving.drained.as_ref() == drained);
        UNDER_WAY_MAX.saturating_sub(all.max(own.count()))
    }
}

impl Replica {
    /// Whether this life was taken off its node to be moved: no failure of the process.
    pub(crate) fn is_moved(&self, record: &Record) -> bool {
        let moving = self.moves.under_way.get(&record.key());
        moving.is_some_and(|moving| moving.incarnation == record.incarnation)
    }

    /// This host begins to lead.
    pub(crate) fn take_up_moves(&mut self) {
        if self.registry.drains().next().is_some() {
            self.wake_moves(self.now.mono_us);
        }
    }

    /// What an event means for moves.
    pub(crate) fn follow_moves(&mut self, event: &Event) {
        let now_us = self.now.mono_us;
        match event {
            Event::Process(change, record) => {
                let under_way = &self.moves.under_way;
                let ours = !under_way.is_empty() && under_way.contains_key(&record.key());
                let mut look = ours;
                if *change == Change::Running
                    && let Some(draining) = self.moves.drains.get_mut(&*record.node)
                {
                    draining.hurry(now_us);
                    look = true;
                }
                if matches!(change, Change::Removed | Change::Pending) {
                    look |= self.hurry_blocked();
                }
                if look {
                    self.wake_moves(now_us);
                }
            }
            Event::NodeUp { .. }
            | Event::NodeChanged(_)
            | Event::NodeDown(..)
            | Event::Switched(_) => {
                self.moves.known = false;
                self.hurry_blocked();
                let drains = self.registry.drains().next().is_some();
                if drains || !self.moves.drains.is_empty() || self.moves.rebalancing.is_some() {
                    self.wake_moves(now_us);
                }
            }
            _ => {}
        }
    }

    /// A node may take what none could a moment ago.
    fn hurry_blocked(&mut self) -> bool {
        let drains = self.moves.drains.values_mut();
        let mut any = false;
        for draining in drains.filter(|draining| draining.is_blocked()) {
            draining.hurry(self.now.mono_us);
            any = true;
        }
        any
    }

    fn wake_moves(&mut self, at_us: u64) {
        let at_us = at_us.max(self.moves.looked_us + LOOK_US_MIN);
        if self.moves.wake.is_some_and(|(wake, _)| wake <= at_us) {
            return;
        }
        if let Some((_, timer)) = self.moves.wake.take() {
            self.timers.cancel(Some(timer));
        }
        let timer = self.timers.set(at_us, Due::Moves);
        self.moves.wake = Some((at_us, timer));
    }

    /// One look: what begins now begins.
    pub(crate) fn moves_due(&mut self) {
        let now_us = self.now.mono_us;
        self.moves.wake = None;
        self.moves.looked_us = now_us;
        self.moves.looks += 1;
        self.settle_moves();
        self.know_drains();
        if !self.registry.is_suspended(Switch::Moves) {
            for chosen in self.choose_moves() {
                self.begin_move(chosen);
            }
        }
        if let Some(at_us) = self.next_look_us() {
            self.wake_moves(at_us);
        }
    }

    /// Forgets moves that have come to an end.
    fn settle_moves(&mut self) {
        let (registry, sagas) = (&self.registry, &self.sagas);
        let waits = |key: &ProcessKey| {
            let step = sagas.all.get(key).map(|saga| saga.step);
            step.is_none_or(|step| matches!(step, Step::Waiting | Step::Asleep))
        };
        self.moves.under_way.retain(|key, moving| {
            let record = registry.process(key);
            record.is_some_and(|record| match record.state {
                ProcessState::Pending => !waits(key),
                ProcessState::Starting => true,
                // Until what was proposed has been applied.
                ProcessState::Running => record.incarnation == moving.incarnation,
            })
        });
    }

    fn know_drains(&mut self) {
        if std::mem::replace(&mut self.moves.known, true) {
            return;
        }
        let mut before = std::mem::take(&mut self.moves.drains);
        for (name, state) in self.registry.drains() {
            let have = before.remove(name).filter(|have| have.state == *state);
            let draining = have.unwrap_or_else(|| Draining::new(*state, self.now));
            self.moves.drains.insert(name.clone(), draining);
        }
    }

    /// Drains from which something may leave now.
    fn due_drains(&mut self) -> Vec<NodeName> {
        let now_us = self.now.mono_us;
        let mut due = Vec::new();
        for (name, draining) in &mut self.moves.drains {
            let node = self.registry.node(name);
            if node.is_some_and(|node| node.processes() > 0) && draining.is_due(now_us) {
                due.push(name.clone());
            }
        }
        due.retain(|name| {
            let free = self.moves.slots(Some(name), now_us) > 0;
            if !free && let Some(draining) = self.moves.drains.get_mut(name) {
                draining.stall();
            }
            free
        });
        due
    }

    fn choose_moves(&mut self) -> Vec<Chosen> {
        let now_us = self.now.mono_us;
        let mut due = self.due_drains();
        let paused = self.recreation_paused().is_some();
        let slots = self.moves.slots(None, now_us);
        let rebalancing = self.moves.rebalancing.as_mut();
        let rebalances = !paused && slots > 0 && rebalancing.is_some_and(|one| one.is_due(now_us));
        if due.is_empty() && !rebalances {
            return Vec::new();
        }
        let mut room = self.room();
        let mut chosen = Vec::new();
        // Each in its turn is the first to be asked.
        let first = self.moves.looks % due.len().max(1);
        due.rotate_left(first);
        let count = due.len();
        for (at, name) in due.into_iter().enumerate() {
            let free = self.moves.slots(Some(&name), now_us);
            let share = free
                .saturating_sub(chosen.len())
                .div_ceil(count - at + usize::from(rebalances));
            let epoch = self.registry.node(&name).map(Node::epoch);
            let draining = self.moves.drains.get_mut(&name);
            if let Some((draining, epoch)) = draining.zip(epoch) {
                chosen.extend(draining.look(
                    (&name, epoch),
                    &self.registry,
                    &self.moves.under_way,
                    &mut room,
                    (share, now_us, paused),
                ));
            }
        }
        let slots = slots.saturating_sub(chosen.len());
        if let Some(rebalancing) = self.moves.rebalancing.as_mut().filter(|_| rebalances) {
            chosen.extend(rebalancing.look(
                &self.registry,
                &self.moves.under_way,
                &mut room,
                (slots, now_us),
            ));
        }
        chosen
    }

    /// What the nodes would take, given the moves that have not found their node yet.
    fn room(&mut self) -> Room {
        let mut room = Room::new(self.fleet_now());
        for (key, moving) in &self.moves.under_way {
            let record = self.registry.process(key);
            let record = record
                .filter(|record| !record.is_placed() || record.incarnation == moving.incarnation);
            let Some(request) = record.and_then(|record| request_of(record)) else {
                continue;
            };
            let planned = moving.to.as_ref();
            if !planned.is_some_and(|to| room.takes_on(to, &request)) {
                room.takes(&request);
            }
        }
        room
    }

    fn begin_move(&mut self, chosen: Chosen) {
        let Chosen {
            key,
            incarnation,
            act,
            cause,
            drained,
            to,
        } = chosen;
        let moving = Moving {
            incarnation,
            drained,
            to,
            since_us: self.now.mono_us,
        };
        self.moves.under_way.insert(key.clone(), moving);
        let command = if act == Act::Delete {
            Command::DelProcess {
                key,
                incarnation: Some(incarnation),
                ended: false,
            }
        } else {
            Command::Unplace {
                key,
                incarnation,
                cause,
                over: mutants::on("drain-without-stop"),
            }
        };
        self.queue(None, command, Waiter::Nobody);
    }

    /// When to look again though nothing happens.
    fn next_look_us(&self) -> Option<u64> {
        let now_us = self.now.mono_us;
        let poll_us = now_us + PASS_US;
        let under_way = (!self.moves.under_way.is_empty()).then_some(poll_us);
        if self.registry.is_suspended(Switch::Moves) {
            return under_way;
        }
        let drains = self.moves.drains.iter();
        let drains = drains.filter(|(name, _)| {
            let node = self.registry.node(name);
            node.is_some_and(|node| node.processes() > 0)
        });
        let drains = drains.map(|(_, draining)| draining.wake_us(now_us));
        let rebalancing = self.moves.rebalancing.as_ref();
        let rebalancing = rebalancing.filter(|rebalancing| !rebalancing.moves.is_empty());
        let blocked = self.recreation_paused().is_some() || self.moves.slots(None, now_us) == 0;
        let rebalancing = rebalancing.map(|one| if blocked { poll_us } else { one.next_us() });
        drains.chain(under_way).chain(rebalancing).min()
    }
}

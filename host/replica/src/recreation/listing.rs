//! Who has no node, and what each of them waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maitred_protocol::{
    Answered, Chooser, PendingProcess, ProcessKey, ProcessState, Refusal, RefusalReason, Response,
    Waits, limits as wire,
};
use maitred_registry::Record;
use maitred_registry::decide::Trace;

use super::{Stage, is_wanted, turn_of};
use crate::input::Ticket;
use crate::replica::Replica;
use crate::saga::{KeyOf, Saga, Step};

/// Bytes of one page: as for other lists, half a frame.
const PAGE_BYTES_MAX: usize = wire::FRAME_BYTES_MAX / 2;

/// Bytes that an entry takes besides its texts, and a refusal besides its own.
const ITEM_BYTES: usize = 768;
const REFUSAL_BYTES: usize = 64;

impl Replica {
    /// Answers with a page of pending processes. To be called when it is certain that this host leads.
    pub(crate) fn list_pending(&mut self, ticket: Ticket, after: Option<&ProcessKey>, limit: u32) {
        if self.serving.is_none() {
            return self.unavailable(ticket, self.not_leader());
        }
        let limit = match limit {
            0 => wire::PAGE_ITEMS_MAX,
            limit => limit.min(wire::PAGE_ITEMS_MAX),
        } as usize;
        let paused = self.holds_recreation_up().then(|| self.recreation_paused());
        let paused = paused.flatten();
        let all = after.is_none().then(|| self.registry.unsettled());
        let rest = after.map(|key| self.registry.unsettled_after(key));
        let records = all.into_iter().flatten().chain(rest.into_iter().flatten());
        let mut records = records.filter(|record| record.state == ProcessState::Pending);
        let page: Vec<_> = records.by_ref().take(limit).collect();
        let places = self.places(&page);
        let (mut items, mut bytes) = (Vec::new(), 0);
        for record in &page {
            let refusals_bytes = PAGE_BYTES_MAX / 2 / limit;
            let item = self.pending_process(record, paused.as_ref(), &places, refusals_bytes);
            bytes += bytes_of(&item);
            items.push(item);
            if bytes > PAGE_BYTES_MAX {
                break;
            }
        }
        let more = items.len() < page.len() || records.next().is_some();
        let last = page.get(items.len().saturating_sub(1));
        let next = last.filter(|_| more).map(|record| record.key());
        drop(records);
        self.reply(ticket, Response::Pending { items, next });
    }

    /// How many stand before each of these in the queue, if they are in it. The queue may be long: it is
    /// gone through once, as far as the last of them.
    fn places(&self, page: &[&Arc<Record>]) -> BTreeMap<&ProcessKey, u32> {
        let turns = page.iter().filter_map(|record| {
            let saga = self.sagas.all.get(&KeyOf::of(record))?;
            match &saga.again.stage {
                Stage::Queued(turn) => Some(turn),
                _ => None,
            }
        });
        let mut turns = turns.collect::<BTreeSet<_>>().into_iter().peekable();
        let mut places = BTreeMap::new();
        for (turn, place) in self.recreation.queue.iter().zip(0..) {
            let Some(next) = turns.peek() else { break };
            if *next == turn {
                places.insert(&turn.key, place);
                turns.next();
            }
        }
        places
    }

    fn pending_process(
        &self,
        record: &Record,
        paused: Option<&String>,
        places: &BTreeMap<&ProcessKey, u32>,
        refusals_bytes: usize,
    ) -> PendingProcess {
        let key = record.key();
        let saga = self.sagas.all.get(&key);
        let waits = saga.map_or(Waits::Nothing, |saga| {
            self.waits(&key, saga, paused, places, refusals_bytes)
        });
        let spec = record.spec.as_deref();
        let left_ms = if is_wanted(record) {
            let deadline = saga.and_then(|saga| saga.deadline);
            deadline.map(|timer| self.left_ms(timer.at_us()))
        } else {
            let at_ms = spec.map_or(0, |spec| spec.deadline_at_ms);
            let left_ms = at_ms.saturating_sub(self.now.wall_ms);
            Some(u32::try_from(left_ms).unwrap_or(u32::MAX))
        };
        PendingProcess {
            record: self.registry.to_wire(record),
            since_ms: turn_of(record).since_ms,
            waits,
            cause: record
                .failures()
                .last()
                .map_or_else(String::new, |last| last.cause.clone()),
            left_ms,
        }
    }

    fn left_ms(&self, at_us: u64) -> u32 {
        let left_us = at_us.saturating_sub(self.now.mono_us);
        u32::try_from(left_us.div_ceil(1_000)).unwrap_or(u32::MAX)
    }

    fn waits(
        &self,
        key: &ProcessKey,
        saga: &Saga,
        paused: Option<&String>,
        places: &BTreeMap<&ProcessKey, u32>,
        refusals_bytes: usize,
    ) -> Waits {
        match (saga.step, &saga.again.stage, paused) {
            (Step::Held, ..) => self.waits_held(key),
            (Step::Waiting, ..) => {
                let at_us = saga.retry.map_or(0, |timer| timer.at_us());
                Waits::BackOff(self.left_ms(at_us))
            }
            (_, Stage::Queued(_) | Stage::Asleep(..), Some(why)) => Waits::Paused(why.clone()),
            (_, Stage::Queued(_), None) => Waits::Turn(places.get(key).copied().unwrap_or(0)),
            (_, Stage::Asleep(_, kind), None) => {
                let trace = self.recreation.sleepers.trace(kind);
                trace.map_or(Waits::Nothing, |trace| match by_selector(trace) {
                    Some(why) => Waits::Paused(why),
                    None => no_node(trace, refusals_bytes),
                })
            }
            _ => Waits::Nothing,
        }
    }

    /// Of several lives, one that needs proof comes first: it is likely to be waited for longest.
    fn waits_held(&self, key: &ProcessKey) -> Waits {
        let holds = self.registry.holds(key);
        let strict = holds.iter().find(|hold| hold.strict);
        let Some(hold) = strict.or(holds.first()) else {
            return Waits::Nothing;
        };
        let lost = self.registry.lost_session(hold.epoch).is_some();
        let left_ms = self.bound_left_ms(hold.epoch);
        Waits::Held {
            node: (*hold.node).clone(),
            epoch: hold.epoch,
            lost,
            strict: hold.strict,
            left_ms: left_ms.filter(|_| lost && !hold.strict),
        }
    }
}

/// What a selector said other than that no node will do, for people.
fn by_selector(trace: &Trace) -> Option<String> {
    let selector = &trace.selector.as_ref()?.name;
    match &trace.answered {
        Answered::Rejected { code, reason } => Some(format!(
            "selector {selector} rejects it: {reason} (code {code})"
        )),
        Answered::Wait(_) => Some(format!("selector {selector} wants to be asked again")),
        _ => None,
    }
}

/// The refusals of a decision, as many as may take so many bytes, and one at least.
fn no_node(trace: &Trace, bytes_max: usize) -> Waits {
    let (mut refusals, more) = trace.refusals();
    let mut bytes = 0;
    let fits = refusals.iter().take_while(|refusal| {
        bytes += bytes_of_refusal(refusal);
        bytes <= bytes_max
    });
    let fits = fits.count().max(1).min(refusals.len());
    let more = more + (refusals.len() - fits) as u32;
    refusals.truncate(fits);
    Waits::NoNode { refusals, more }
}

fn bytes_of_refusal(refusal: &Refusal) -> usize {
    let reason = match &refusal.reason {
        RefusalReason::Label { key, value } => key.len() + value.len(),
        _ => 0,
    };
    REFUSAL_BYTES + refusal.node.as_str().len() + reason
}

/// About how many bytes an entry takes, never less than it does.
fn bytes_of(item: &PendingProcess) -> usize {
    let record = &item.record;
    let chooser = match &record.why.chooser {
        Chooser::Fallback { cause, .. } => cause.len(),
        _ => 0,
    };
    let waits = match &item.waits {
        Waits::NoNode { refusals, .. } => refusals.iter().map(bytes_of_refusal).sum(),
        Waits::Paused(why) => why.len(),
        _ => 0,
    };
    let group = record.group.as_ref().map_or(0, String::len);
    let texts = record.key.id.as_str().len() + record.address.len() + group;
    ITEM_BYTES + texts + chooser + waits + item.cause.len()
}

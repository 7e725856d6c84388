//! How many moves may begin now: by time, and by what the other nodes would take.

use maitred_protocol::{NodeName, TypeName};
use maitred_registry::Record;
use maitred_registry::candidates::{Fleet, SelectRequest, Slot};

/// Kinds of processes for which one look remembers that no node takes them; what comes beyond those
/// waits for the next look.
const FULL_MAX: usize = 64;

/// Millionths of one move.
const ONE: u64 = 1_000_000;

/// A token bucket on the leader's monotonic clock. It holds what comes in a tenth of a second, and
/// one at least; it begins with one.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: u64,
    parts: u64,
    at_us: u64,
}

impl Bucket {
    pub(super) fn new(per_second: u32, now_us: u64) -> Self {
        Self {
            per_second: u64::from(per_second.max(1)),
            parts: ONE,
            at_us: now_us,
        }
    }

    /// Whether one may begin.
    pub(super) fn has(&mut self, now_us: u64) -> bool {
        let past_us = now_us.saturating_sub(self.at_us);
        let most = ONE.max(self.per_second * ONE / 10);
        let come = past_us.saturating_mul(self.per_second);
        self.parts = self.parts.saturating_add(come).min(most);
        self.at_us = self.at_us.max(now_us);
        self.parts >= ONE
    }

    pub(super) fn take(&mut self) {
        self.parts = self.parts.saturating_sub(ONE);
    }

    /// When the next one may begin.
    pub(super) fn next_us(&self) -> u64 {
        let missing = ONE.saturating_sub(self.parts);
        self.at_us + missing.div_ceil(self.per_second)
    }
}

/// A kind of processes that no node takes now.
#[derive(Debug)]
struct Full {
    type_name: TypeName,
    require: Vec<(String, String)>,
    /// This many units, and more.
    demand: u32,
}

/// What the nodes would take now, given what is on its way to them already.
#[derive(Debug)]
pub(super) struct Room {
    fleet: Fleet,
    /// Where the last one found its place: the next one begins there.
    hint: usize,
    full: Vec<Full>,
}

impl Room {
    pub(super) fn new(fleet: Fleet) -> Self {
        Self {
            fleet,
            hint: 0,
            full: Vec::new(),
        }
    }

    /// Takes a place on this node, if it admits the request.
    pub(super) fn takes_on(&mut self, node: &NodeName, request: &SelectRequest) -> bool {
        let slot = slot_of(&self.fleet, node);
        let slot = slot.filter(|slot| self.fleet.admits(*slot, request).is_ok());
        slot.is_some_and(|slot| {
            self.fleet.take(slot, request);
            true
        })
    }

    /// Takes a place on some node, if one admits the request.
    pub(super) fn takes(&mut self, request: &SelectRequest) -> bool {
        let count = self.fleet.live.len();
        for step in 0..count {
            let slot = (self.hint + step) % count;
            if self.fleet.admits(slot as Slot, request).is_ok() {
                self.hint = slot;
                self.fleet.take(slot as Slot, request);
                return true;
            }
        }
        false
    }

    /// The same for one of many that leave the same node: remembers what was in vain.
    pub(super) fn takes_one_of(&mut self, request: &SelectRequest) -> bool {
        let is_same = |full: &Full| {
            full.type_name == request.key.type_name
                && full.require == request.require
                && full.demand <= request.demand
        };
        if self.full.len() >= FULL_MAX || self.full.iter().any(is_same) {
            return false;
        }
        let takes = self.takes(request);
        if !takes {
            self.full.push(Full {
                type_name: request.key.type_name.clone(),
                require: request.require.clone(),
                demand: request.demand,
            });
        }
        takes
    }
}

/// Nodes are in the order of their names.
pub(crate) fn slot_of(fleet: &Fleet, node: &NodeName) -> Option<Slot> {
    let found = fleet.facts.binary_search_by(|facts| facts.name.cmp(node));
    found.ok().map(|slot| slot as Slot)
}

/// What a process would ask for if it were taken off its node; none if it cannot be created again.
pub(super) fn request_of(record: &Record) -> Option<SelectRequest> {
    let spec = record.spec.as_deref()?;
    Some(SelectRequest {
        demand: record.demand,
        attempt: record.attempt.saturating_add(1),
        exclude: vec![(*record.node).clone()],
        again: spec.confirmed,
        ..SelectRequest::of(record.key(), &spec.options)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun_in(bucket: &mut Bucket, from_us: u64, to_us: u64, step_us: usize) -> u64 {
        let mut begun = 0;
        for now_us in (from_us..to_us).step_by(step_us) {
            while bucket.has(now_us) {
                bucket.take();
                begun += 1;
            }
        }
        begun
    }

    #[test]
    fn a_bucket_gives_its_rate_and_no_more_than_a_tenth_of_a_second_at_once() {
        let mut bucket = Bucket::new(50, 0);
        assert_eq!(begun_in(&mut bucket, 0, 10_000_000, 20_000), 500);
        // It was full for long: 5 come at once, and then one every 20 ms.
        assert_eq!(begun_in(&mut bucket, 60_000_000, 61_000_000, 20_000), 54);
        let mut slow = Bucket::new(1, 0);
        assert_eq!(begun_in(&mut slow, 0, 10_000_000, 20_000), 10);
        assert_eq!(slow.next_us(), 10_000_000);
    }
}

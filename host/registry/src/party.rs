//! Parties: all keys are reserved in one entry, or none.

use std::sync::Arc;

use crate::Registry;
use crate::command::Reserve;
use crate::life::At;
use crate::outcome::{Event, Outcome, Stale};

impl Registry {
    /// Reserves all of them, or says what overtook the decision.
    pub(crate) fn reserve_party(
        &mut self,
        at: At,
        members: Vec<Reserve>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let mut demands: Vec<(&Reserve, u32)> = Vec::with_capacity(members.len());
        for member in &members {
            if self.record(&member.key).is_some() {
                return Outcome::Stale(Stale::KeyTaken);
            }
            if self.is_held(&member.key) {
                return Outcome::Stale(Stale::Held);
            }
            // Together they must fit.
            let before = demands
                .iter()
                .filter(|(have, _)| have.place.node == member.place.node);
            let before: u32 = before.map(|(_, demand)| demand).sum();
            let demand = member.options.demand.max(1);
            if let Err(stale) = self.check_place(&member.place, before.saturating_add(demand)) {
                return Outcome::Stale(stale);
            }
            demands.push((member, demand));
        }
        let mut records = Vec::with_capacity(members.len());
        for member in members {
            match self.reserve(at, member, events) {
                Outcome::Reserved(record) => records.push(record),
                overtaken => return overtaken,
            }
        }
        Outcome::PartyReserved(Arc::from(records))
    }
}

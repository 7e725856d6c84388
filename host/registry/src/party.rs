//! Parties: processes that are created together, all of them or none.
//!
//! One entry reserves all keys. Each member is started like any other process; the party is settled
//! when all of them have run, and undone as soon as one cannot. Until then the registry keeps the party under
//! the index of its reservation, which is the incarnation of all its members.
//!
//! **Invariants.** A party that is kept has at least one member that has not run yet, or has lost one.
//! Its request is answered when it is settled or undone, and not before.

use std::sync::Arc;

use maitred_protocol::{
    NodeName, PartyRule, ProcessKey, ProcessState, Rejection, RequestId, Revision,
};

use crate::Registry;
use crate::command::Reserve;
use crate::decide::cut;
use crate::life::At;
use crate::limits::PARTIES_MAX;
use crate::mutants;
use crate::outcome::{Event, Outcome, Stale};
use crate::process::Record;

/// A party that is being created.
#[derive(Debug, Clone, PartialEq)]
pub struct Party {
    /// Who asked for it.
    pub request: Option<RequestId>,
    /// How its members are placed with regard to each other.
    pub rule: PartyRule,
    /// When it is given up, in milliseconds since 1970.
    pub deadline_at_ms: u64,
    /// Its members, in the order of the request.
    pub members: Vec<ProcessKey>,
}

impl Registry {
    /// The parties that are being created, by the index of their reservation.
    pub fn parties(&self) -> impl Iterator<Item = (u64, &Party)> {
        self.parties.iter().map(|(index, party)| (*index, party))
    }

    /// The party that a record belongs to, while that is being created.
    #[must_use]
    pub fn party_of(&self, record: &Record) -> Option<(u64, &Party)> {
        let index = record.spec.as_ref().map(|spec| spec.party)?;
        Some((index, self.parties.get(&index)?))
    }

    /// Reserves all of them, or says what overtook the decision.
    pub(crate) fn reserve_party(
        &mut self,
        at: At,
        rule: PartyRule,
        members: Vec<Reserve>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        if self.parties.len() >= PARTIES_MAX {
            return Outcome::rejected(Rejection::Conflict(format!(
                "{PARTIES_MAX} parties are being created, which is the limit"
            )));
        }
        if let Err(overtaken) = self.check_party(&members) {
            return Outcome::Stale(overtaken);
        }
        let party = Party {
            request: at.request,
            rule,
            deadline_at_ms: members.first().map_or(0, |first| first.deadline_at_ms),
            members: members.iter().map(|member| member.key.clone()).collect(),
        };
        let reserve = |member| self.put_reserved(at, member, at.index, events);
        let partly = usize::from(mutants::on("party-reserved-partly") && members.len() > 1);
        let members = members.into_iter().skip(partly);
        let records: Vec<_> = members.map(reserve).collect();
        self.parties.insert(at.index, party);
        Outcome::PartyReserved(records.into())
    }

    /// Whether every key is free, every node as it was, and what goes to one node fits together.
    fn check_party(&self, members: &[Reserve]) -> Result<(), Stale> {
        for (at, member) in members.iter().enumerate() {
            let (earlier, key) = (&members[..at], &member.key);
            if self.record(key).is_some() || earlier.iter().any(|one| one.key == *key) {
                return Err(Stale::KeyTaken);
            }
            if self.is_held(key) {
                return Err(Stale::Held);
            }
            let there = earlier
                .iter()
                .filter(|one| one.place.node == member.place.node);
            let before: u32 = there.map(|one| one.options.demand.max(1)).sum();
            let demand = member.options.demand.max(1);
            self.check_place(&member.place, before.saturating_add(demand))?;
        }
        Ok(())
    }

    /// A member has run: perhaps it was the last one.
    pub(crate) fn member_confirmed(&mut self, at: At, index: u64, events: &mut Vec<Event>) {
        let Some(party) = self.parties.get(&index) else {
            return;
        };
        let mut missing = None;
        for key in &party.members {
            match self.member(index, key) {
                Some(record) if record.is_creating() && !mutants::on("party-settled-early") => {
                    return;
                }
                Some(_) => {}
                None => missing = missing.or(Some(key.clone())),
            }
        }
        match missing {
            Some(key) => {
                self.undo_party(at, index, &key, "it was lost while others started", events)
            }
            None => self.settle_party(at, index, events),
        }
    }

    /// A member's record, if it is still this party's.
    fn member(&self, index: u64, key: &ProcessKey) -> Option<Arc<Record>> {
        let record = self.record(key)?;
        let is_its = record.spec.as_ref().is_some_and(|spec| spec.party == index);
        is_its.then_some(record)
    }

    fn settle_party(&mut self, at: At, index: u64, events: &mut Vec<Event>) {
        let Some(party) = self.parties.remove(&index) else {
            return;
        };
        let records = party.members.iter().filter_map(|key| self.record(key));
        let outcome = Outcome::Party(records.collect());
        self.end_party(at, index, &party, outcome, events);
    }

    /// One member cannot be created, so none is: those that run are stopped.
    pub(crate) fn undo_party(
        &mut self,
        at: At,
        index: u64,
        culprit: &ProcessKey,
        reason: &str,
        events: &mut Vec<Event>,
    ) {
        // Taken out first: removing its members comes back here.
        let Some(party) = self.parties.remove(&index) else {
            return;
        };
        let forgotten = usize::from(mutants::on("party-undone-partly"));
        for key in party.members.iter().skip(forgotten) {
            let Some(record) = self.member(index, key) else {
                continue;
            };
            if record.is_placed() {
                self.hold_record(&record);
            }
            self.remove(at, &record, events);
        }
        let no = Rejection::Party {
            key: culprit.clone(),
            reason: cut(reason.to_owned()),
        };
        self.end_party(at, index, &party, Outcome::rejected(no), events);
    }

    fn end_party(
        &mut self,
        at: At,
        index: u64,
        party: &Party,
        outcome: Outcome,
        events: &mut Vec<Event>,
    ) {
        if let Some(request) = party.request {
            self.sessions.store(at.index, request, outcome.clone());
        }
        events.push(Event::Party {
            index,
            request: party.request,
            outcome,
        });
    }

    /// The time of a party is over: it is settled if all have run, else undone.
    pub(crate) fn end_of_party(&mut self, at: At, index: u64, events: &mut Vec<Event>) -> Outcome {
        let Some(party) = self.parties.get(&index) else {
            return Outcome::Stale(Stale::Incarnation);
        };
        let late = |key: &&ProcessKey| {
            let member = self.member(index, key);
            member.is_none_or(|record| record.is_creating())
        };
        match party.members.iter().find(late).cloned() {
            Some(key) => self.undo_party(at, index, &key, "the deadline passed", events),
            None => self.settle_party(at, index, events),
        }
        Outcome::Done(Revision(at.index))
    }

    /// Whether the rule of a record's party, if it is being created with one, lets it come to a node:
    /// decisions that were made side by side did not see each other.
    pub(crate) fn rule_admits(&self, record: &Record, node: &NodeName) -> bool {
        let Some((_, party)) = self.party_of(record) else {
            return true;
        };
        let others = self.party_nodes(record);
        let mut there = others.iter().map(|(_, other)| *other.node == *node);
        match party.rule {
            PartyRule::Any => true,
            PartyRule::Together => there.all(|is_there| is_there),
            PartyRule::Apart => !there.any(|is_there| is_there),
            PartyRule::AtMost(most) => {
                there.filter(|is_there| *is_there).count() < usize::from(most)
            }
        }
    }

    /// Where the other members of a record's party are, for the rule.
    fn party_nodes(&self, record: &Record) -> Vec<(ProcessKey, Arc<Record>)> {
        let Some((index, party)) = self.party_of(record) else {
            return Vec::new();
        };
        let others = party.members.iter().filter(|key| {
            (key.type_name.as_str(), key.id.as_str()) != (record.type_name.as_str(), &*record.id)
        });
        let placed = |key: &ProcessKey| {
            let other = self.member(index, key)?;
            (other.state != ProcessState::Pending).then(|| (key.clone(), other))
        };
        others.filter_map(placed).collect()
    }
}

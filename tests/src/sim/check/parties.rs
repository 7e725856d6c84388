//! **Property: a party is created as a whole, or not at all, and by its rule.** When it is settled every
//! member has run, under the incarnation of the reservation or a later one, and whoever has a node then
//! has one that the rule allows. So it is at every moment until then: members that are placed keep the
//! rule, and none is missing that has not run. Of a party that was undone nothing is left. Its request
//! has one outcome, and that is what its client hears.
//!
//! When a party is settled its rule has done its work: what is created again later, or moved, goes where
//! the selector likes. A member that ran and has lost its node meanwhile may be pending when it is settled.

use std::collections::{BTreeMap, BTreeSet};

use maitred_protocol::{Incarnation, NodeName, PartyRule, ProcessKey, RequestId, Response};
use maitred_registry::{Change, Event, Outcome, Record, Registry};

use super::agreement::{Agreement, Kind};
use super::needless::Needless;
use crate::sim::cover::Cover;
use crate::sim::game::Life;

/// A reservation of a party, as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Whose.
    pub request: Option<RequestId>,
    /// How its members are placed with regard to each other.
    pub rule: PartyRule,
    /// Its members.
    pub keys: Vec<ProcessKey>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Parties {
    /// Lives that a game has really begun.
    begun: BTreeSet<Life>,
    /// Which party each request has reserved.
    reserved: BTreeMap<RequestId, u64>,
    /// Whether a party was settled, and the first index at which a host knew how it ended.
    ended: BTreeMap<u64, (bool, u64)>,
    /// All members of parties.
    keys: BTreeSet<ProcessKey>,
    /// What each machine had applied when it was looked at last.
    looked: BTreeMap<usize, u64>,
    /// What clients were told in the end: whether the party was made for them.
    heard: BTreeMap<RequestId, bool>,
}

/// The party of a record; 0 for none.
fn party_of(record: &Record) -> u64 {
    record.spec.as_ref().map_or(0, |spec| spec.party)
}

/// Whether a process goes because its party is undone.
pub fn is_undone(events: &[Event], record: &Record) -> bool {
    let party = party_of(record);
    events.iter().any(|event| match event {
        Event::Party { index, outcome, .. } => {
            *index == party && matches!(outcome, Outcome::Rejected(_))
        }
        _ => false,
    })
}

/// Whether members that are placed on these nodes keep a rule.
fn keeps(rule: PartyRule, nodes: &[&NodeName]) -> bool {
    let on = |node: &NodeName| nodes.iter().filter(|one| ***one == *node).count();
    let most = nodes.iter().map(|node| on(node)).max().unwrap_or(0);
    match rule {
        PartyRule::Any => true,
        PartyRule::Together => most == nodes.len(),
        PartyRule::Apart => most <= 1,
        PartyRule::AtMost(allowed) => most <= usize::from(allowed),
    }
}

impl Parties {
    /// A game has begun a life.
    pub fn begins(&mut self, life: Life) {
        self.begun.insert(life);
    }

    /// What a host tells of changes, up to a revision.
    ///
    /// # Errors
    /// A party is settled that is not whole, or has two outcomes.
    pub fn told(
        &mut self,
        (machine, revision): (usize, u64),
        events: &[Event],
        agreement: &Agreement,
    ) -> Result<(), String> {
        for event in events {
            match event {
                Event::Process(Change::Reserved, record) => {
                    let party = party_of(record);
                    if party != 0 && party == record.incarnation.0 {
                        self.reserves(party, agreement.applied_at(machine, party))?;
                    }
                }
                Event::Party { index, outcome, .. } => {
                    let settled = match outcome {
                        Outcome::Party(records) => {
                            if let Some(Kind::Party(made)) = agreement.applied_at(machine, *index) {
                                self.is_whole(*index, made, records)?;
                            }
                            true
                        }
                        _ => false,
                    };
                    let known = *self.ended.entry(*index).or_insert((settled, revision));
                    if known.0 != settled {
                        return Err(format!("party {index} is both settled and undone"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn reserves(&mut self, party: u64, entry: Option<&Kind>) -> Result<(), String> {
        let made = match entry {
            Some(Kind::Party(made)) => made,
            Some(_) => return Err(format!("party {party} is reserved by another entry")),
            None => return Ok(()),
        };
        self.keys.extend(made.keys.iter().cloned());
        let Some(request) = made.request else {
            return Ok(());
        };
        match self.reserved.insert(request, party) {
            Some(other) if other != party => Err(format!(
                "request {}.{} reserves party {other} and party {party}",
                request.client, request.sequence
            )),
            _ => Ok(()),
        }
    }

    /// A party is settled: everybody is there, has run, and is where the rule allows.
    fn is_whole(
        &self,
        index: u64,
        made: &Made,
        records: &[std::sync::Arc<Record>],
    ) -> Result<(), String> {
        let keys: Vec<_> = records.iter().map(|record| record.key()).collect();
        if keys != made.keys {
            let asked = &made.keys;
            return Err(format!(
                "party {index} of {asked:?} is settled with {keys:?}"
            ));
        }
        for record in records {
            let (key, last) = (record.key(), record.incarnation);
            let from = (key.clone(), Incarnation(index));
            let mut lives = self.begun.range(from..=(key.clone(), last));
            if lives.next().is_none() || party_of(record) != index || record.is_creating() {
                return Err(format!(
                    "party {index} is settled, and {key}@{last} of it has not run"
                ));
            }
        }
        let placed = records.iter().filter(|record| record.is_placed());
        let nodes: Vec<&NodeName> = placed.map(|record| &*record.node).collect();
        if !keeps(made.rule, &nodes) {
            let rule = made.rule;
            return Err(format!(
                "party {index} is settled on {nodes:?}, and is to be {rule:?}"
            ));
        }
        Ok(())
    }

    /// A host has applied something.
    ///
    /// # Errors
    /// A party that is being created lacks a member or breaks its rule, or one that was undone has left
    /// something.
    pub fn look(
        &mut self,
        machine: usize,
        registry: &Registry,
        needless: &Needless,
        cover: &mut Cover,
    ) -> Result<(), String> {
        let before = self.looked.insert(machine, registry.applied());
        if before == Some(registry.applied()) {
            return Ok(());
        }
        for (index, party) in registry.parties() {
            let mut nodes = Vec::new();
            let mut waits = false;
            for key in &party.members {
                let record = registry.process(key);
                match record.filter(|record| party_of(record) == index) {
                    Some(record) => {
                        waits |= record.is_creating();
                        nodes.extend(record.is_placed().then_some(&*record.node));
                    }
                    None if needless.ran_since(key, index) => waits = true,
                    None => {
                        return Err(format!("party {index} is being created without {key}"));
                    }
                }
            }
            if !waits {
                return Err(format!(
                    "party {index} is not settled, and all of it has run"
                ));
            }
            if !keeps(party.rule, &nodes) {
                let rule = party.rule;
                return Err(format!(
                    "party {index} is on {nodes:?}, and is to be {rule:?}"
                ));
            }
            cover.count("party looked at");
        }
        for key in &self.keys {
            let Some(record) = registry.process(key) else {
                continue;
            };
            let ended = self.ended.get(&party_of(record));
            if ended.is_some_and(|(settled, at)| !settled && *at <= registry.applied()) {
                let (party, life) = (party_of(record), record.incarnation);
                return Err(format!(
                    "party {party} was undone, and {key}@{life} is there"
                ));
            }
        }
        Ok(())
    }

    /// A client has its answer.
    pub fn heard(&mut self, request: RequestId, response: &Response) {
        let made = match response {
            Response::Party(_, made) => *made,
            Response::Rejected(_) => false,
            _ => return,
        };
        self.heard.insert(request, made);
    }

    /// At the end.
    ///
    /// # Errors
    /// A client was told what is not so.
    pub fn judge(&self) -> Result<(), String> {
        for (request, made) in &self.heard {
            let party = self.reserved.get(request);
            let settled = party.and_then(|party| self.ended.get(party));
            let settled = settled.is_some_and(|(settled, _)| *settled);
            if settled != *made {
                return Err(format!(
                    "request {}.{} was answered, made: {made}, and its party {party:?} was settled: {settled}",
                    request.client, request.sequence
                ));
            }
        }
        Ok(())
    }
}

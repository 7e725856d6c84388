//! Parties: creates that come to something together, or to nothing.
//!
//! The members are decided in one batch, so that they see each other, and reserved in one entry
//! ([`maitred_registry::Party`]). From then on each has a saga of its own, like any process that is
//! starting; the registry says when the party is settled or undone, and whoever waits is told then.
//! How they are decided is [`deciding`]'s.
//! A new leader takes up what is reserved; what was only decided is asked for again by its client.
//!
//! **Invariants.** Every party that the registry keeps has an entry here while this host serves. Every
//! ticket is answered once.

mod deciding;

use std::collections::BTreeMap;
use std::sync::Arc;

use maitred_protocol::{
    CreateParty, CreateProcess, OnConflict, PartyRule, ProcessKey, ProcessState, Rejection,
    RequestId, Unavailable,
};
use maitred_registry::decide::{Decision, Trace};
use maitred_registry::{Command, Known, Outcome, Record};

use crate::effect::{Answer, Effect};
use crate::input::Ticket;
use crate::proposals::Waiter;
use crate::replica::Replica;
use crate::timer::{Due, TimerId};

pub(crate) use deciding::retry_terms;

/// Decisions that were overtaken, in a row, before a party is told to come back later.
const STALE_MAX: u32 = 64;

#[derive(Debug)]
enum Step {
    /// What has been decided, by member.
    Deciding(Vec<Option<Decision>>),
    /// It waits until it is decided anew.
    Waiting(TimerId),
    /// Its reservation is on its way to the log.
    Proposed,
    /// It is reserved under this index.
    Starting(u64),
}

/// A party that is being created.
#[derive(Debug)]
struct PartySaga {
    request: Option<RequestId>,
    rule: PartyRule,
    /// With the types' defaults filled in; empty once it is reserved.
    creates: Vec<Arc<CreateProcess>>,
    tickets: Vec<Ticket>,
    step: Step,
    deadline_us: u64,
    deadline: Option<TimerId>,
    stale: u32,
}

/// All parties that are being created, by a number of this leader's.
#[derive(Debug, Default)]
pub(crate) struct Parties {
    all: BTreeMap<u64, PartySaga>,
    last: u64,
}

impl Parties {
    /// Forgets everything; the tickets come back to be answered.
    pub(crate) fn clear(&mut self) -> Vec<Ticket> {
        let all = std::mem::take(&mut self.all);
        all.into_values().flat_map(|saga| saga.tickets).collect()
    }

    fn reserved_as(&self, index: u64) -> Option<u64> {
        let is_its = |saga: &PartySaga| matches!(saga.step, Step::Starting(at) if at == index);
        let mut all = self.all.iter();
        all.find(|(_, saga)| is_its(saga))
            .map(|(number, _)| *number)
    }

    /// Processes of parties that are not reserved yet.
    fn undecided(&self) -> usize {
        self.all.values().map(|saga| saga.creates.len()).sum()
    }

    /// Whether a party that is not reserved yet is to have this process.
    pub(crate) fn wants(&self, key: &ProcessKey) -> bool {
        let mut creates = self.all.values().flat_map(|saga| &saga.creates);
        creates.any(|create| create.key == *key)
    }
}

impl Replica {
    /// A party as it came, once it is certain that this host leads and knows what is committed.
    pub(crate) fn admit_party(
        &mut self,
        ticket: Ticket,
        request: RequestId,
        mut party: Box<CreateParty>,
    ) {
        match self.registry.known(request) {
            Known::Fresh => {}
            Known::Done(outcome) => return self.answer(ticket, outcome),
            Known::Forgotten => return self.answer(ticket, Outcome::Forgotten),
            Known::NoSession => return self.answer(ticket, Outcome::NoSession),
        }
        let mut under_way = self.parties.all.values_mut();
        if let Some(saga) = under_way.find(|saga| saga.request == Some(request)) {
            return saga.tickets.push(ticket);
        }
        if let Some(why) = self.refusal(true) {
            return self.unavailable(ticket, why);
        }
        for member in &mut party.members {
            member.options.group = Some(party.group.clone());
            if let Err(no) = self.fill_in(member) {
                return self.reject(ticket, no);
            }
        }
        if let Some(records) = self.party_runs(&party) {
            return self.answer_party(ticket, &records, false);
        }
        for member in &party.members {
            if let Err(no) = self.is_free(&member.key) {
                return self.answer(ticket, no);
            }
        }
        let under_way = self.sagas.creates() + self.parties.undecided();
        if under_way + party.members.len() > self.config.creates_max {
            let text = format!("{under_way} creates are under way");
            return self.unavailable(ticket, Unavailable::Overloaded(text));
        }
        let first = &party.members[0].options;
        let deadline_us = self.now.mono_us + u64::from(first.deadline_ms) * 1_000;
        self.parties.last += 1;
        let number = self.parties.last;
        let deadline = self.timers.set(deadline_us, Due::Party(number));
        let saga = PartySaga {
            request: Some(request),
            rule: party.rule,
            creates: party.members.into_iter().map(Arc::new).collect(),
            tickets: vec![ticket],
            step: Step::Proposed,
            deadline_us,
            deadline: Some(deadline),
            stale: 0,
        };
        self.parties.all.insert(number, saga);
        self.decide_party(number);
    }

    /// The processes of a party that runs already, when its members may be answered as they are.
    fn party_runs(&self, party: &CreateParty) -> Option<Vec<Arc<Record>>> {
        let runs = |member: &CreateProcess| {
            let record = self.registry.process(&member.key)?;
            let same = record.state == ProcessState::Running
                && record.group() == Some(party.group.as_str())
                && member.options.on_conflict == OnConflict::Return;
            same.then(|| Arc::clone(record))
        };
        party.members.iter().map(runs).collect()
    }

    fn is_free(&self, key: &ProcessKey) -> Result<(), Outcome> {
        let reason = match self.registry.process(key) {
            Some(record) => format!("it exists already, on node {}", record.node),
            None if self.sagas.all.contains_key(key) || self.parties.wants(key) => {
                "it is being created".to_owned()
            }
            None if self.registry.is_held(key) => return Err(Outcome::Held(self.who_holds(key))),
            None => return Ok(()),
        };
        let key = key.clone();
        Err(Outcome::rejected(Rejection::Party { key, reason }))
    }

    /// What came of proposing the reservation of a party.
    pub(crate) fn party_reserved(
        &mut self,
        number: u64,
        traces: Vec<Arc<Trace>>,
        outcome: Outcome,
    ) {
        let Some(saga) = self.parties.all.get_mut(&number) else {
            return;
        };
        match outcome {
            Outcome::PartyReserved(records) => {
                let index = records.first().map_or(0, |first| first.incarnation.0);
                saga.step = Step::Starting(index);
                saga.creates = Vec::new();
                let is_late = saga.deadline.is_none();
                for (record, trace) in records.iter().zip(traces) {
                    self.effects.push(Effect::Record(record.incarnation, trace));
                }
                if is_late {
                    self.queue(None, Command::EndParty(index), Waiter::Nobody);
                }
            }
            Outcome::Stale(_) if saga.deadline.is_none() => self.party_is_late(number),
            Outcome::Stale(_) if saga.stale >= STALE_MAX => {
                let text = "the nodes change faster than a party can be placed".to_owned();
                self.give_party_up(number, &Unavailable::Overloaded(text));
            }
            Outcome::Stale(_) => {
                saga.stale += 1;
                // What overtook it may be one of its keys.
                let keys: Vec<_> = saga.creates.iter().map(|one| one.key.clone()).collect();
                // Its own keys are wanted by itself.
                let creates = std::mem::take(&mut saga.creates);
                let taken = keys.iter().find_map(|key| self.is_free(key).err());
                if let Some(saga) = self.parties.all.get_mut(&number) {
                    saga.creates = creates;
                }
                match taken {
                    Some(no) => self.end_party(number, &no),
                    None => self.decide_party(number),
                }
            }
            other => self.end_party(number, &other),
        }
    }

    /// The reservation never reached the log.
    pub(crate) fn party_refused(&mut self, number: u64, why: &Unavailable) {
        self.give_party_up(number, why);
    }

    fn give_party_up(&mut self, number: u64, why: &Unavailable) {
        let Some(saga) = self.take_party(number) else {
            return;
        };
        for ticket in saga.tickets {
            self.unavailable(ticket, why.clone());
        }
    }

    /// The registry has settled or undone a party.
    pub(crate) fn party_ended(&mut self, index: u64, outcome: &Outcome) {
        if let Some(number) = self.parties.reserved_as(index) {
            self.end_party(number, outcome);
        }
    }

    fn end_party(&mut self, number: u64, outcome: &Outcome) {
        let Some(saga) = self.take_party(number) else {
            return;
        };
        for ticket in saga.tickets {
            self.answer(ticket, outcome.clone());
        }
    }

    fn take_party(&mut self, number: u64) -> Option<PartySaga> {
        let saga = self.parties.all.remove(&number)?;
        self.timers.cancel(saga.deadline);
        if let Step::Waiting(timer) = saga.step {
            self.timers.cancel(Some(timer));
        }
        Some(saga)
    }

    /// The deadline of a party has passed.
    pub(crate) fn party_due(&mut self, number: u64) {
        let Some(saga) = self.parties.all.get_mut(&number) else {
            return;
        };
        saga.deadline = None;
        match saga.step {
            Step::Starting(index) => self.queue(None, Command::EndParty(index), Waiter::Nobody),
            // It is undone when it arrives.
            Step::Proposed => {}
            Step::Deciding(_) | Step::Waiting(_) => self.party_is_late(number),
        }
    }

    fn party_is_late(&mut self, number: u64) {
        self.end_party(number, &Outcome::rejected(Rejection::Deadline(Vec::new())));
    }

    /// Takes up the parties that are reserved, when this host begins to serve.
    pub(crate) fn take_up_parties(&mut self) {
        let parties: Vec<_> = self
            .registry
            .parties()
            .map(|(index, party)| (index, party.clone()))
            .collect();
        for (index, party) in parties {
            let left_ms = party.deadline_at_ms.saturating_sub(self.now.wall_ms);
            let deadline_us = self.now.mono_us + left_ms.saturating_mul(1_000);
            self.parties.last += 1;
            let number = self.parties.last;
            let saga = PartySaga {
                request: party.request,
                rule: party.rule,
                creates: Vec::new(),
                tickets: Vec::new(),
                step: Step::Starting(index),
                deadline_us,
                deadline: Some(self.timers.set(deadline_us, Due::Party(number))),
                stale: 0,
            };
            self.parties.all.insert(number, saga);
        }
    }

    pub(crate) fn answer_party(&mut self, ticket: Ticket, records: &[Arc<Record>], created: bool) {
        let members = records.iter().map(|record| {
            let node = self.node_of(record);
            (Arc::clone(record), node)
        });
        let answer = Answer::Party {
            members: members.collect(),
            created,
        };
        self.effects.push(Effect::Reply(ticket, answer));
    }
}

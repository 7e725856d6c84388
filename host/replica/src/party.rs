//! Parties: creates that come to something together, or to nothing.
//!
//! The members are decided so that they see each other, and reserved in one entry
//! ([`maitred_registry::Party`]). From then on each has a saga of its own, like any process that is
//! starting; the registry says when the party is settled or undone, and whoever waits is told then.
//! How they are decided is [`deciding`]'s; what another try for one of them keeps to is [`retries`]'.
//! A new leader takes up what is reserved; what was only decided is asked for again by its client.
//!
//! **Invariants.** Every party that the registry keeps has an entry here while this host serves. Every
//! ticket is answered once. The keys of a party that is not reserved yet are its own: nobody else begins
//! to create them here.

mod deciding;
mod retries;
mod wake;

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use maitred_protocol::{
    CreateParty, CreateProcess, OnConflict, PartyRule, ProcessKey, ProcessState, Rejection,
    RequestId, Unavailable,
};
use maitred_registry::decide::Trace;
use maitred_registry::limits::PARTIES_MAX;
use maitred_registry::{Command, Known, Outcome, Record};

use crate::effect::{Answer, Effect};
use crate::input::Ticket;
use crate::proposals::Waiter;
use crate::replica::Replica;
use crate::timer::{Due, TimerId};

use deciding::{Deciding, no_node_is_like_that};
pub(crate) use retries::keep_to_party;
use wake::Wake;

/// Decisions that were overtaken, in a row, before a party is told to come back later.
const STALE_MAX: u32 = 64;

#[derive(Debug)]
enum Step {
    Deciding(Deciding),
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
    /// For how many milliseconds at most a selector had it wait, when one did.
    told: Option<u32>,
    /// How often capacity had appeared when it was decided last.
    appeared: u64,
}

impl PartySaga {
    fn new(request: Option<RequestId>, rule: PartyRule, step: Step, deadline_us: u64) -> Self {
        Self {
            request,
            rule,
            creates: Vec::new(),
            tickets: Vec::new(),
            step,
            deadline_us,
            deadline: None,
            stale: 0,
            told: None,
            appeared: 0,
        }
    }
}

/// All parties that are being created, by a number of this leader's.
#[derive(Debug, Default)]
pub(crate) struct Parties {
    all: BTreeMap<u64, PartySaga>,
    last: u64,
    by_request: HashMap<RequestId, u64>,
    /// Those that are reserved, by their index.
    by_index: HashMap<u64, u64>,
    /// The keys of those that are not reserved yet, and whose they are.
    wanted: HashMap<ProcessKey, u64>,
    wake: Wake,
}

impl Parties {
    /// Forgets everything; the tickets come back to be answered.
    pub(crate) fn clear(&mut self) -> Vec<Ticket> {
        // Proposals of theirs may yet come back: no number is used twice.
        let last = self.last;
        let before = std::mem::replace(
            self,
            Self {
                last,
                ..Self::default()
            },
        );
        let all = before.all;
        all.into_values().flat_map(|saga| saga.tickets).collect()
    }

    fn add(&mut self, saga: PartySaga) -> u64 {
        self.last += 1;
        let number = self.last;
        if let Some(request) = saga.request {
            self.by_request.insert(request, number);
        }
        if let Step::Starting(index) = saga.step {
            self.by_index.insert(index, number);
        }
        let keys = saga.creates.iter().map(|create| create.key.clone());
        self.wanted.extend(keys.map(|key| (key, number)));
        self.all.insert(number, saga);
        number
    }

    /// It is reserved under this index: its keys are in the registry, and its sagas there.
    fn reserved(&mut self, number: u64, index: u64) {
        if let Some(saga) = self.all.get_mut(&number) {
            saga.step = Step::Starting(index);
            for create in std::mem::take(&mut saga.creates) {
                self.wanted.remove(&create.key);
            }
            self.by_index.insert(index, number);
        }
    }

    fn remove(&mut self, number: u64) -> Option<PartySaga> {
        let saga = self.all.remove(&number)?;
        if let Some(request) = saga.request {
            self.by_request.remove(&request);
        }
        if let Step::Starting(index) = saga.step {
            self.by_index.remove(&index);
        }
        for create in &saga.creates {
            self.wanted.remove(&create.key);
        }
        self.wake.remove(number);
        Some(saga)
    }

    /// Processes of parties that are not reserved yet.
    fn undecided(&self) -> usize {
        self.wanted.len()
    }

    /// Whether a party that is not reserved yet is to have this process.
    pub(crate) fn wants(&self, key: &ProcessKey) -> bool {
        self.wanted.contains_key(key)
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
        let under_way = self.parties.by_request.get(&request);
        if let Some(saga) = under_way.and_then(|number| self.parties.all.get_mut(number)) {
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
        if let Some(no) = no_node_is_like_that(&party) {
            return self.reject(ticket, no);
        }
        for member in &party.members {
            if let Err(no) = self.is_free(&member.key, None) {
                return self.answer(ticket, no);
            }
        }
        // The registry has no more than are here. Its own no would be the request's for good.
        if self.parties.all.len() >= PARTIES_MAX {
            let text = format!("{PARTIES_MAX} parties are being created");
            return self.unavailable(ticket, Unavailable::Overloaded(text));
        }
        let under_way = self.sagas.creates() + self.parties.undecided();
        if under_way + party.members.len() > self.config.creates_max {
            let text = format!("{under_way} creates are under way");
            return self.unavailable(ticket, Unavailable::Overloaded(text));
        }
        let first = &party.members[0].options;
        let deadline_us = self.now.mono_us + u64::from(first.deadline_ms) * 1_000;
        let creates = party.members.into_iter().map(Arc::new).collect();
        let saga = PartySaga {
            creates,
            tickets: vec![ticket],
            ..PartySaga::new(Some(request), party.rule, Step::Proposed, deadline_us)
        };
        let number = self.add_party(saga);
        self.decide_party(number);
    }

    fn add_party(&mut self, saga: PartySaga) -> u64 {
        let deadline_us = saga.deadline_us;
        let number = self.parties.add(saga);
        let deadline = self.timers.set(deadline_us, Due::Party(number));
        if let Some(saga) = self.parties.all.get_mut(&number) {
            saga.deadline = Some(deadline);
        }
        number
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

    /// Whether a key is free for a new party, or for the one with this number.
    fn is_free(&self, key: &ProcessKey, own: Option<u64>) -> Result<(), Outcome> {
        let wants = self.parties.wanted.get(key).copied();
        let reason = match self.registry.process(key) {
            Some(record) => format!("it exists already, on node {}", record.node),
            None if self.sagas.all.contains_key(key) || wants != own && wants.is_some() => {
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
                let is_late = saga.deadline.is_none();
                self.parties.reserved(number, index);
                for (record, trace) in records.iter().zip(traces) {
                    self.effects.push(Effect::Record(record.incarnation, trace));
                }
                if is_late {
                    self.queue(None, Command::EndParty(index), Waiter::Nobody);
                }
            }
            Outcome::Stale(_) if saga.deadline.is_none() => self.party_is_late(number),
            Outcome::Stale(_) => self.party_overtaken(number),
            other => self.end_party(number, &other),
        }
    }

    /// What a party's decisions were about has changed since: it is decided again.
    fn party_overtaken(&mut self, number: u64) {
        let Some(saga) = self.parties.all.get_mut(&number) else {
            return;
        };
        if saga.stale >= STALE_MAX {
            let text = "the nodes change faster than a party can be placed".to_owned();
            return self.give_party_up(number, &Unavailable::Overloaded(text));
        }
        saga.stale += 1;
        // What overtook it may be one of its keys.
        let creates = saga.creates.clone();
        let mut keys = creates.iter().map(|create| &create.key);
        match keys.find_map(|key| self.is_free(key, Some(number)).err()) {
            Some(no) => self.end_party(number, &no),
            None => self.decide_party(number),
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
        if let Some(number) = self.parties.by_index.get(&index) {
            self.end_party(*number, outcome);
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
        let saga = self.parties.remove(number)?;
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
            let step = Step::Starting(index);
            self.add_party(PartySaga::new(party.request, party.rule, step, deadline_us));
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

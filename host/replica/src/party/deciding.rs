//! How a party comes to its nodes: its members are decided in one batch, so that they see each other,
//! and all of them get a node or none does. Also what another try for one of them must keep to.
//!
//! Nothing here answers anybody: what became of a decision is the parent's to tell.

use std::sync::Arc;

use maitred_protocol::{Answered, CreateProcess, ProcessKey, Rejection};
use maitred_registry::candidates::{PartyTerms, Refused, Slot};
use maitred_registry::decide::{Decision, SelectJob, Trace, cut};
use maitred_registry::{Command, Outcome, Place, Record, Registry, Reserve};

use super::Step;
use crate::placing::{Purpose, select_request};
use crate::proposals::Waiter;
use crate::replica::Replica;
use crate::saga::{Placed, callback_of, selector_of};
use crate::timer::Due;

/// Microseconds before a party is decided anew when nodes are on their way to a new leader.
const ARRIVAL_US: u64 = 100_000;

/// Marks the numbers of parties in the retries of their members, which are indices.
const RETRY: u64 = 1 << 63;

/// Refusals that are named to whoever asked for the party.
const NAMED_MAX: usize = 4;

impl Replica {
    /// Has all members decided, in one batch of the lane of the first one's selector.
    pub(super) fn decide_party(&mut self, number: u64) {
        let Some(saga) = self.parties.all.get_mut(&number) else {
            return;
        };
        saga.step = Step::Deciding(vec![None; saga.creates.len()]);
        let (creates, rule) = (saga.creates.clone(), saga.rule);
        let Some(first) = creates.first() else {
            return;
        };
        let lane = self.registry.lane_of(&selector_of(first), &first.key);
        let demand = |create: &Arc<CreateProcess>| create.options.demand.max(1);
        for (member, create) in creates.iter().enumerate() {
            let mut request = select_request(create, 1, Vec::new());
            request.party = Some(PartyTerms {
                number,
                rule,
                rest: creates[member..].iter().map(demand).sum(),
            });
            self.decide_in(lane.clone(), Purpose::Party(number, member), request);
        }
    }

    /// A member has been decided; perhaps it was the last one.
    pub(crate) fn party_decided(&mut self, number: u64, member: usize, decision: Decision) {
        let Some(saga) = self.parties.all.get_mut(&number) else {
            return;
        };
        let Step::Deciding(decided) = &mut saga.step else {
            return;
        };
        decided[member] = Some(decision);
        if decided.iter().any(Option::is_none) {
            return;
        }
        let decided: Vec<Decision> = decided.drain(..).flatten().collect();
        match decided.iter().find(|decision| decision.node.is_none()) {
            Some(no) => self.party_has_no_place(number, &no.trace),
            None => self.propose_party(number, &decided),
        }
    }

    /// A member found no node, and so none is taken.
    fn party_has_no_place(&mut self, number: u64, trace: &Trace) {
        let is_silent = |why: &Refused| matches!(why, Refused::Suspect);
        let nodes_come = trace.slots.is_empty()
            && trace.refused.iter().any(|(_, why)| is_silent(why))
            && self.leases.are_new(self.now.mono_us);
        let wait_us = match trace.answered {
            Answered::Wait(ms) => Some(u64::from(ms) * 1_000),
            _ if nodes_come => Some(ARRIVAL_US),
            _ => None,
        };
        if let Some(wait_us) = wait_us {
            let at_us = self.now.mono_us + wait_us;
            let timer = self.timers.set(at_us, Due::PartyAgain(number));
            if let Some(saga) = self.parties.all.get_mut(&number) {
                saga.step = Step::Waiting(timer);
            }
            return;
        }
        let no = Rejection::Party {
            key: trace.request.key.clone(),
            reason: cut(why_nowhere(trace)),
        };
        self.end_party(number, &Outcome::rejected(no));
    }

    fn propose_party(&mut self, number: u64, decided: &[Decision]) {
        let Some(saga) = self.parties.all.get_mut(&number) else {
            return;
        };
        let left_us = saga.deadline_us.saturating_sub(self.now.mono_us);
        let deadline_at_ms = self.now.wall_ms + left_us / 1_000;
        let mut members = Vec::with_capacity(decided.len());
        let mut placed = Vec::with_capacity(decided.len());
        for (create, decision) in saga.creates.iter().zip(decided) {
            let Some((node, epoch)) = decision.node.clone() else {
                continue;
            };
            let trace = &decision.trace;
            placed.push(Placed {
                epoch,
                demand: trace.request.demand,
                again: false,
            });
            members.push(Reserve {
                key: create.key.clone(),
                args: create.args.clone(),
                selector: selector_of(create),
                callback: callback_of(create),
                options: create.options.clone(),
                deadline_at_ms,
                place: Place {
                    node,
                    epoch,
                    activated: trace.selector.as_ref().map(|module| module.activated),
                    why: trace.why.clone(),
                },
            });
        }
        saga.step = Step::Proposed;
        let (request, rule) = (saga.request, saga.rule);
        let rate = self.config.recreate_per_node_per_second;
        for placed in &placed {
            self.leases.place(*placed, rate, self.now.mono_us);
        }
        let traces = decided.iter().map(|decision| Arc::clone(&decision.trace));
        let waiter = Waiter::Party(number, placed, traces.collect());
        let command = Command::ReserveParty { rule, members };
        self.queue(request, command, waiter);
    }

    /// A party that waited is decided anew.
    pub(crate) fn party_again(&mut self, number: u64) {
        let saga = self.parties.all.get(&number);
        if saga.is_some_and(|saga| matches!(saga.step, Step::Waiting(_))) {
            self.decide_party(number);
        }
    }

    /// Where the other members of the parties are of which a member is decided again.
    pub(crate) fn party_slots(&self, jobs: &[SelectJob]) -> Vec<(u64, Slot)> {
        let mut slots = Vec::new();
        for job in jobs {
            let Some(terms) = job.request.party.filter(|party| party.number & RETRY != 0) else {
                continue;
            };
            // Once a party; its members of this batch are placed anew, and counted then.
            if slots.iter().any(|(number, _)| *number == terms.number) {
                continue;
            }
            let Some(record) = self.registry.process(&job.request.key) else {
                continue;
            };
            let again = |key: &ProcessKey| jobs.iter().any(|job| job.request.key == *key);
            for (key, other) in self.registry.party_nodes(record) {
                if again(&key) {
                    continue;
                }
                let mut nodes = self.registry.nodes();
                let slot = nodes.position(|node| *node.name == *other.node);
                slots.extend(slot.map(|slot| (terms.number, slot as Slot)));
            }
        }
        slots
    }
}

/// What another try for a member that has failed must keep to.
pub(crate) fn retry_terms(registry: &Registry, record: &Record) -> Option<PartyTerms> {
    let (index, party) = registry.party_of(record)?;
    Some(PartyTerms {
        number: index | RETRY,
        rule: party.rule,
        rest: record.demand,
    })
}

/// Why a member found no node, for people.
fn why_nowhere(trace: &Trace) -> String {
    match &trace.answered {
        Answered::Rejected { code, reason } => {
            return format!("its selector rejects it: {reason} (code {code})");
        }
        Answered::None if trace.refused.is_empty() => {
            return format!(
                "its selector would take none of {} nodes",
                trace.why.candidates
            );
        }
        _ => {}
    }
    let (refusals, more) = trace.refusals();
    if refusals.is_empty() {
        return "there are no nodes".to_owned();
    }
    let more = more as usize + refusals.len().saturating_sub(NAMED_MAX);
    let named = refusals.iter().take(NAMED_MAX);
    let named: Vec<_> = named
        .map(|one| format!("{}: {}", one.node, one.reason))
        .collect();
    let tail = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };
    format!("no node can take it ({}{tail})", named.join("; "))
}

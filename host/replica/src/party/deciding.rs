//! How a party comes to its nodes. Members of one lane are decided in one batch, so that they see each
//! other; those of another selector, or of a canary, after them, on a fleet into which they are counted.
//! All of them get a node or none does.
//!
//! Nothing here answers anybody: what became of a decision is the parent's to tell.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use maitred_protocol::{
    Answered, CreateOptions, CreateParty, PartyRule, Rejection, TypeName, limits,
};
use maitred_registry::candidates::{Fleet, PartyTerms, Refused};
use maitred_registry::decide::{Decision, LaneId, Trace, cut};
use maitred_registry::{Command, Outcome, Place, Reserve};

use super::Step;
use crate::moves::slot_of;
use crate::placing::{Purpose, select_request};
use crate::proposals::Waiter;
use crate::replica::Replica;
use crate::saga::{Placed, callback_of, selector_of};

/// Milliseconds before a party is decided anew when nodes are on their way to a new leader.
const ARRIVAL_MS: u32 = 100;

/// Refusals that are named to whoever asked for the party.
const NAMED_MAX: usize = 4;

/// How far a party has been decided.
#[derive(Debug)]
pub(super) struct Deciding {
    /// What has been decided, by member.
    decided: Vec<Option<Decision>>,
    /// Members that are being decided now.
    out: usize,
    /// Lanes that have their turn after that, and their members.
    lanes: VecDeque<(LaneId, Vec<usize>)>,
    /// Whether lanes have had their turn before those that are being decided now.
    is_late: bool,
}

impl Replica {
    /// Has all members decided, those of one lane after those of another, each lane in one batch.
    pub(super) fn decide_party(&mut self, number: u64) {
        let Some(saga) = self.parties.all.get_mut(&number) else {
            return;
        };
        let mut lanes: VecDeque<(LaneId, Vec<usize>)> = VecDeque::new();
        for (member, create) in saga.creates.iter().enumerate() {
            let lane = self.registry.lane_of(&selector_of(create), &create.key);
            match lanes.iter_mut().find(|(known, _)| *known == lane) {
                Some((_, members)) => members.push(member),
                None => lanes.push_back((lane, vec![member])),
            }
        }
        saga.appeared = self.recreation.appeared();
        saga.step = Step::Deciding(Deciding {
            decided: vec![None; saga.creates.len()],
            out: 0,
            lanes,
            is_late: false,
        });
        self.decide_lane(number);
    }

    /// Has those decided whose lane is next.
    fn decide_lane(&mut self, number: u64) {
        let Some(saga) = self.parties.all.get_mut(&number) else {
            return;
        };
        let Step::Deciding(deciding) = &mut saga.step else {
            return;
        };
        let Some((lane, members)) = deciding.lanes.pop_front() else {
            return;
        };
        deciding.out = members.len();
        deciding.is_late = deciding.decided.iter().any(Option::is_some);
        let later = deciding.lanes.iter().flat_map(|(_, later)| later);
        let later: Vec<usize> = later.copied().collect();
        let (creates, rule) = (saga.creates.clone(), saga.rule);
        let demand = |member: &usize| creates[*member].options.demand.max(1);
        let (types, require) = match rule {
            PartyRule::Together => {
                let members = creates.iter();
                wanted_by_all(members.map(|create| (&create.key.type_name, &create.options)))
            }
            _ => (Arc::default(), Vec::new()),
        };
        for (at, member) in members.iter().enumerate() {
            let mut request = select_request(&creates[*member], 1, Vec::new());
            if rule == PartyRule::Together {
                request.require.clone_from(&require);
            }
            let rest = members[at..].iter().chain(&later).map(demand);
            request.party = Some(PartyTerms {
                number,
                rule,
                rest: rest.fold(0, u32::saturating_add),
                types: Arc::clone(&types),
                from: None,
            });
            self.decide_in(lane.clone(), Purpose::Party(number, *member), request);
        }
    }

    /// A member has been decided; perhaps it was the last one of its lane.
    pub(crate) fn party_decided(&mut self, number: u64, member: usize, decision: Decision) {
        let Some(saga) = self.parties.all.get_mut(&number) else {
            return;
        };
        let Step::Deciding(deciding) = &mut saga.step else {
            return;
        };
        deciding.decided[member] = Some(decision);
        deciding.out = deciding.out.saturating_sub(1);
        if deciding.out > 0 {
            return;
        }
        let mut decided = deciding.decided.iter().flatten();
        if let Some(no) = decided.find(|decision| decision.node.is_none()) {
            let trace = Arc::clone(&no.trace);
            return self.party_has_no_place(number, &trace);
        }
        if !deciding.lanes.is_empty() {
            return self.decide_lane(number);
        }
        let decided: Vec<Decision> = deciding.decided.drain(..).flatten().collect();
        self.propose_party(number, &decided);
    }

    /// A member found no node, and so none is taken. One that a selector told to wait goes on waiting
    /// while there is nobody to choose from, too.
    fn party_has_no_place(&mut self, number: u64, trace: &Trace) {
        let Some(saga) = self.parties.all.get_mut(&number) else {
            return;
        };
        let nothing = matches!(trace.answered, Answered::Nothing) && !trace.was_offered();
        let Step::Deciding(deciding) = &saga.step else {
            return;
        };
        // When the lanes before were decided, their node would have done for this one, too.
        if saga.rule == PartyRule::Together && nothing && deciding.is_late {
            return self.party_overtaken(number);
        }
        let is_silent = |why: &Refused| matches!(why, Refused::Suspect);
        let nodes_come = !trace.was_offered()
            && trace.refused.iter().any(|(_, why)| is_silent(why))
            && self.leases.are_new(self.now.mono_us);
        if let Answered::Wait(ms) = trace.answered {
            saga.told = Some(ms);
        }
        let told = match trace.answered {
            Answered::Wait(_) => saga.told,
            _ if nothing => saga.told,
            _ => None,
        };
        if let Some(ms) = told.or(nodes_come.then_some(ARRIVAL_MS)) {
            return self.party_waits(number, ms);
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

    /// Counts members that have been decided and are not reserved yet.
    pub(super) fn count_decided(&self, fleet: &mut Fleet, number: u64) {
        let saga = self.parties.all.get(&number);
        let Some(Step::Deciding(deciding)) = saga.map(|saga| &saga.step) else {
            return;
        };
        for decision in deciding.decided.iter().flatten() {
            let node = decision.node.as_ref();
            if let Some(slot) = node.and_then(|(node, _)| slot_of(fleet, node)) {
                fleet.take(slot, &decision.trace.request);
            }
        }
    }
}

/// Types and labels that one node must have to take all of them.
pub(super) fn wanted_by_all<'a>(
    members: impl Iterator<Item = (&'a TypeName, &'a CreateOptions)>,
) -> (Arc<[TypeName]>, Vec<(String, String)>) {
    let (mut types, mut require) = (BTreeSet::new(), BTreeSet::new());
    for (of, options) in members {
        types.insert(of);
        require.extend(&options.require);
    }
    let require = require.into_iter().cloned();
    (types.into_iter().cloned().collect(), require.collect())
}

/// Why no node can ever have the labels that members want who are to come to one: a node has so many,
/// and one value of each.
pub(super) fn no_node_is_like_that(party: &CreateParty) -> Option<Rejection> {
    if party.rule != PartyRule::Together {
        return None;
    }
    let mut all = BTreeMap::new();
    for member in &party.members {
        for (label, value) in &member.options.require {
            let reason = if all.entry(label).or_insert(value) != &value {
                cut(format!("no node has two values of the label {label}"))
            } else if all.len() > limits::LABELS_MAX {
                format!("together they want more than {} labels", limits::LABELS_MAX)
            } else {
                continue;
            };
            let key = member.key.clone();
            return Some(Rejection::Party { key, reason });
        }
    }
    None
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

//! What a selector says besides a node: alternatives, a no, and nothing for now.
//!
//! Nodes that it ranked behind its choice are gone on with when that one cannot take the process or
//! fails to start it; the selector is not asked again, and the native filter is. Only the leader
//! that asked knows them: another one asks anew.

use std::collections::VecDeque;
use std::sync::Arc;

use maitred_protocol::{Answered, NodeEpoch, NodeName, ProcessState, Rejection, Unavailable};
use maitred_registry::AbortCause;
use maitred_registry::candidates::{Refused, SelectRequest, Slot};
use maitred_registry::decide::{Decision, SelectJob, Trace};

use crate::replica::Replica;
use crate::saga::Life;

/// How often the pause doubles while nodes are on their way to a new leader: to 200 ms.
const ARRIVAL_RETRIES: u32 = 2;

/// The nodes that a selector ranked behind the one that was taken, best first.
#[derive(Debug)]
pub(crate) struct Ranked {
    trace: Arc<Trace>,
    then: VecDeque<(NodeName, NodeEpoch)>,
}

impl Ranked {
    pub(crate) fn of(trace: &Arc<Trace>, then: Vec<(NodeName, NodeEpoch)>) -> Option<Self> {
        (!then.is_empty()).then(|| Self {
            trace: Arc::clone(trace),
            then: then.into(),
        })
    }
}

impl Replica {
    /// The next of the nodes that the selector ranked that admits a process now.
    pub(crate) fn alternative(&mut self, life: &Life, request: &SelectRequest) -> Option<Decision> {
        let Ranked { trace, mut then } = self.sagas.current(life)?.ranked.take()?;
        let request = Arc::new(request.clone());
        let job = SelectJob {
            id: 0,
            request: Arc::clone(&request),
            fallback: self.registry.type_spec(&life.key.type_name).fallback,
            seed: trace.why.seed,
        };
        let fleet = self.fleet_for(&[job]);
        while let Some((node, epoch)) = then.pop_front() {
            let found = fleet.facts.binary_search_by(|facts| facts.name.cmp(&node));
            let Ok(slot) = found else { continue };
            let admits =
                fleet.facts[slot].epoch == epoch && fleet.admits(slot as Slot, &request).is_ok();
            if !admits {
                continue;
            }
            let trace = trace.taken_to(&node, request)?;
            return Some(Decision {
                id: 0,
                node: Some((node, epoch)),
                then: then.into(),
                trace: Arc::new(trace),
            });
        }
        None
    }

    /// A decision has come to no node.
    pub(crate) fn no_placement(&mut self, life: &Life, trace: &Arc<Trace>) {
        let record = self.registry.process(&life.key).cloned();
        let record = record.filter(|_| life.incarnation.0 != 0);
        let creates = record.as_ref().is_none_or(|record| record.is_creating());
        if creates && let Some(ms) = self.goes_on_waiting(life, trace) {
            return match self.wait(life, ms, trace) {
                Ok(()) => {}
                Err(why) => self.cannot_wait(life, &why, trace),
            };
        }
        if let Some(saga) = self.sagas.current(life) {
            self.waiting.let_go(&mut saga.wait);
        }
        match record {
            None if life.incarnation.0 == 0 => self.create_without_node(life, trace),
            None => {}
            Some(record) if creates => {
                debug_assert!(record.is_creating(), "{} is undone", life.key);
                self.abort(life, abort_cause(trace));
            }
            Some(record) if record.state == ProcessState::Starting => {
                let cause = self.sagas.current(life).and_then(|saga| saga.failed.take());
                let cause = cause.unwrap_or_else(|| "no node would take it".to_owned());
                self.unplace(life, cause);
            }
            Some(_) => self.no_node(&life.key, trace),
        }
    }

    /// A create that has no record is told why, unless nodes are on their way to this leader.
    fn create_without_node(&mut self, life: &Life, trace: &Arc<Trace>) {
        let is_silent = |why: &Refused| matches!(why, Refused::Suspect);
        if !trace.was_offered()
            && trace.refused.iter().any(|(_, why)| is_silent(why))
            && self.leases.are_new(self.now.mono_us)
        {
            // Whatever the others lack.
            if let Some(saga) = self.sagas.current(life) {
                saga.retries = saga.retries.min(ARRIVAL_RETRIES);
            }
            return self.retry_later(&life.key);
        }
        if let Some(saga) = self.end_saga(&life.key) {
            self.fail(saga, &rejection(trace));
        }
    }

    /// Too many creates wait already.
    fn cannot_wait(&mut self, life: &Life, why: &Unavailable, trace: &Arc<Trace>) {
        match life.incarnation.0 {
            0 => self.saga_refused(life, why),
            _ => self.abort(life, abort_cause(trace)),
        }
    }
}

fn rejection(trace: &Trace) -> Rejection {
    match abort_cause(trace) {
        AbortCause::BySelector {
            selector,
            code,
            reason,
        } => Rejection::BySelector {
            selector,
            code,
            reason,
        },
        AbortCause::NoPlacement {
            refusals,
            more,
            selector,
        } => Rejection::NoPlacement {
            refusals,
            more,
            selector,
        },
        AbortCause::Deadline => Rejection::Deadline(Vec::new()),
        AbortCause::SpawnFailed => Rejection::SpawnFailed(Vec::new()),
    }
}

fn abort_cause(trace: &Trace) -> AbortCause {
    let selector = trace.selector.as_ref().filter(|_| trace.was_offered());
    let selector = selector.map(|module| module.name.clone());
    match (&trace.answered, selector) {
        (Answered::Rejected { code, reason }, Some(selector)) => AbortCause::BySelector {
            selector,
            code: *code,
            reason: reason.clone(),
        },
        (_, selector) => {
            let (refusals, more) = trace.refusals();
            AbortCause::NoPlacement {
                refusals,
                more,
                selector,
            }
        }
    }
}

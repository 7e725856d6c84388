//! The nodes of a scenario as the registry's fleet, and what decisions change about them.

use std::collections::HashMap;
use std::sync::Arc;

use maitred_protocol::{Fallback, InvalidName, NodeEpoch, NodeName, ProcessKey, TypeName};
use maitred_registry::candidates::{
    Column, Fleet, NEVER, NodeFacts, NodeLive, SelectRequest, Slot,
};
use maitred_registry::decide::SelectJob;
use maitred_sandbox::Rehearsed;
use maitred_scenario::{Case, Decision, Node};

use crate::failure::Failure;

/// When a case begins, in microseconds: later than anything that its nodes remember can be long ago.
const BEGIN_US: u64 = (u32::MAX as u64 + 1) * 1_000;
/// From one decision to the next.
const STEP_US: u64 = 1_000;

/// The nodes of a case while its decisions are made.
pub(super) struct Stage {
    fleet: Arc<Fleet>,
    type_name: TypeName,
    /// Processes of each group on each node. The fleet has the column of one decision's.
    groups: HashMap<String, Vec<u32>>,
    /// The node that is not there, by its place in the case.
    without: Option<usize>,
    jobs: u64,
}

fn misnamed(error: InvalidName) -> Failure {
    let message = format!("the scenario cannot be run: {error}");
    Failure::usage(message, "give it a name that a host would take")
}

impl Stage {
    /// The nodes as the case finds them; `without` one.
    pub(super) fn new(case: &Case, without: Option<usize>) -> Result<Self, Failure> {
        let mut nodes = case.nodes();
        if let Some(at) = without {
            nodes.remove(at);
        }
        let type_name = TypeName::new(&case.request.process_type).map_err(misnamed)?;
        let now_ms = u64::from(case.time) * 1_000;
        let facts: Result<Vec<_>, Failure> = nodes
            .iter()
            .enumerate()
            .map(|(slot, node)| facts(slot, node, now_ms).map(Arc::new))
            .collect();
        let facts: Arc<[Arc<NodeFacts>]> = facts?.into();
        let counts = nodes.iter().map(|node| {
            let count = node.processes_of_type.get(type_name.as_str());
            count.copied().unwrap_or(0)
        });
        let mut groups: HashMap<String, Vec<u32>> = HashMap::new();
        for (slot, node) in nodes.iter().enumerate() {
            for (group, count) in &node.processes_of_group {
                let column = groups.entry(group.clone());
                column.or_insert_with(|| vec![0; nodes.len()])[slot] = *count;
            }
        }
        let fleet = Fleet {
            now_us: BEGIN_US,
            now_ms,
            of_type: vec![Column {
                of: type_name.clone(),
                counts: counts.collect(),
            }],
            counters: nodes
                .iter()
                .map(|node| {
                    let counters = node.counters.iter();
                    counters
                        .map(|(name, value)| (name.clone(), *value))
                        .collect()
                })
                .collect(),
            ..Fleet::new(
                Arc::clone(&facts),
                nodes.iter().zip(&*facts).map(live).collect(),
            )
        };
        Ok(Self {
            fleet: Arc::new(fleet),
            type_name,
            groups,
            without,
            jobs: 0,
        })
    }

    pub(super) fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// The next decision, with the column of its group.
    pub(super) fn job(&mut self, case: &Case, decision: &Decision) -> Result<SelectJob, Failure> {
        let asked = &case.request;
        let node = |name: &Option<String>| -> Result<Option<NodeName>, Failure> {
            let name = name.as_ref().map(NodeName::new);
            name.transpose().map_err(misnamed)
        };
        let key = ProcessKey::new(self.type_name.as_str(), &decision.id).map_err(misnamed)?;
        let request = SelectRequest {
            group: decision.group.clone(),
            requester: node(&asked.requester)?,
            require: asked.require.clone().into_iter().collect(),
            demand: decision.demand.max(1),
            priority: asked.priority,
            previous: node(&asked.previous)?,
            latencies: asked.latencies.clone().into_iter().collect(),
            ..SelectRequest::new(key)
        };
        let nodes = self.fleet.live.len();
        let column = decision.group.as_ref().map(|group| {
            let counts = self.groups.get(group);
            Column {
                of: group.clone(),
                counts: counts.cloned().unwrap_or_else(|| vec![0; nodes]),
            }
        });
        Arc::make_mut(&mut self.fleet).of_group = column.into_iter().collect();
        let id = self.jobs;
        self.jobs += 1;
        Ok(SelectJob {
            id,
            request: Arc::new(request),
            fallback: Fallback::default(),
            seed: decision.seed,
        })
    }

    /// Puts the process where it was decided, if the case wants that, and lets time pass.
    pub(super) fn after(&mut self, case: &Case, job: &SelectJob, rehearsed: &Rehearsed) {
        let fleet = Arc::make_mut(&mut self.fleet);
        let chosen = rehearsed.decision.trace.chosen;
        // A fallback's choice is not the policy's.
        if let (true, None, Some(slot)) = (case.place, &rehearsed.failed, chosen) {
            fleet.take(slot, &job.request);
            for column in &fleet.of_group {
                self.groups.insert(column.of.clone(), column.counts.clone());
            }
        }
        fleet.now_us += STEP_US;
    }

    /// The place of a slot in the case's nodes.
    pub(super) fn number(&self, slot: Slot) -> usize {
        let slot = slot as usize;
        slot + usize::from(self.without.is_some_and(|without| slot >= without))
    }

    /// The same of a name.
    pub(super) fn named(&self, name: &NodeName) -> Option<usize> {
        let slot = self
            .fleet
            .facts
            .iter()
            .position(|facts| facts.name == *name);
        slot.map(|slot| self.number(slot as Slot))
    }
}

fn facts(slot: usize, node: &Node, now_ms: u64) -> Result<NodeFacts, Failure> {
    let types = node.types.iter().map(TypeName::new);
    Ok(NodeFacts {
        name: NodeName::new(&node.name).map_err(misnamed)?,
        epoch: NodeEpoch(slot as u64 + 1),
        types: types.collect::<Result<_, _>>().map_err(misnamed)?,
        address: String::new(),
        labels: node.labels.clone().into_iter().collect(),
        capacity: node.capacity.unwrap_or(u32::MAX),
        registered_ms: now_ms.saturating_sub(node.node_age_ms.unwrap_or(0).into()),
    })
}

fn live((node, facts): (&Node, &Arc<NodeFacts>)) -> NodeLive {
    let at = |age_ms: u32| BEGIN_US - u64::from(age_ms) * 1_000;
    let reports = node.cpu.is_some() || node.memory_free_mib.is_some() || !node.counters.is_empty();
    let load_age_ms = node.load_age_ms.or(reports.then_some(0));
    NodeLive {
        cordoned: node.cordoned,
        processes: node.processes,
        in_flight: node.in_flight,
        used: node.used,
        placed: node.placed,
        cpu: node.cpu.unwrap_or(f32::NAN),
        memory_free_mib: node.memory_free_mib.unwrap_or(f32::NAN),
        load_at_us: load_age_ms.map_or(NEVER, at),
        placed_at_us: node.since_placed_ms.map_or(NEVER, at),
        name_hash: facts.name_hash(),
        ..NodeLive::BLANK
    }
}

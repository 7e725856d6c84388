//! Decisions: who is to be decided, on what view of the nodes, in what batches.
//!
//! A lane is a selector, or its canary. It has one batch out at a time; what arrives meanwhile waits and is decided
//! in one go, so that the decisions of a selector are serial and see each other. Decisions that are
//! not yet committed count as load of their node ([`crate::leases`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use maitred_protocol::{
    CreateProcess, Fallback, ModuleKind, ModuleName, NodeEpoch, NodeName, Plan, Response, Revision,
    TypeName,
};
use maitred_registry::candidates::{Column, Fleet, NEVER, NodeFacts, NodeLive, SelectRequest};
use maitred_registry::decide::{Decision, LaneId, ModuleRef, SelectBatch, SelectJob};

use crate::effect::Effect;
use crate::input::Ticket;
use crate::replica::Replica;
use crate::saga::Life;
use maitred_registry::Registry;

/// Groups of a batch that are counted on every node though no selector asks for them: each costs as
/// much as looking at all nodes.
const GROUPS_UNASKED: usize = 8;

/// For whom a decision is made.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// A saga, by its number.
    Saga(Life, u64),
    /// A dry run.
    Plan(Ticket),
    /// A party's, by its number and the member's place in it.
    Party(u64, usize),
}

#[derive(Debug)]
struct Job {
    purpose: Purpose,
    request: Arc<SelectRequest>,
    fallback: Fallback,
    seed: u32,
}

#[derive(Debug, Default)]
struct Lane {
    busy: bool,
    queue: VecDeque<u64>,
    /// Dry runs. They have batches of their own: a node that one of them would take is not taken.
    plans: VecDeque<u64>,
    /// Whether the last batch was of those.
    planned: bool,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.plans.is_empty()
    }

    /// Whether the next batch is of dry runs: they take turns.
    fn plans_next(&self) -> bool {
        !self.plans.is_empty() && (self.queue.is_empty() || !self.planned)
    }
}

/// What does not change from one fleet to the next, until a node comes, goes or changes.
#[derive(Debug, Default)]
struct Roster {
    revision: u64,
    facts: Arc<[Arc<NodeFacts>]>,
    hashes: Vec<f32>,
}

/// Decisions that wait or are being made.
#[derive(Debug, Default)]
pub(crate) struct Placing {
    jobs: HashMap<u64, Job>,
    lanes: BTreeMap<LaneId, Lane>,
    last_job: u64,
    roster: Roster,
}

impl Placing {
    /// Forgets everything; the tickets of dry runs come back to be answered.
    pub(crate) fn clear(&mut self) -> Vec<Ticket> {
        for lane in self.lanes.values_mut() {
            lane.queue.clear();
            lane.plans.clear();
        }
        let jobs = std::mem::take(&mut self.jobs);
        let plans = jobs
            .into_iter()
            .filter_map(|(job, entry)| match entry.purpose {
                Purpose::Plan(ticket) => Some((job, ticket)),
                Purpose::Saga(..) | Purpose::Party(..) => None,
            });
        let mut plans: Vec<_> = plans.collect();
        plans.sort_unstable();
        plans.into_iter().map(|(_, ticket)| ticket).collect()
    }
}

/// What those who decide want to see that costs something to gather.
#[derive(Debug, Default)]
struct Wants {
    of_type: bool,
    /// Groups that are counted, of those in the batch.
    groups_max: usize,
    placed: bool,
    counters: bool,
}

impl Wants {
    /// All that costs little enough, though nobody asks for it now.
    fn add_all(&mut self) {
        self.of_type = true;
        self.groups_max = self.groups_max.max(GROUPS_UNASKED);
        self.placed = true;
        self.counters = true;
    }

    fn add(&mut self, registry: &Registry, module: &ModuleRef) {
        let known = registry.module(&module.name);
        let mut versions = known.into_iter().flat_map(|known| &known.versions);
        let version = versions.find(|version| version.version == module.version);
        for feature in version.into_iter().flat_map(|version| &version.features) {
            self.of_type |= feature == "processes-of-type";
            if feature == "processes-of-group" {
                self.groups_max = usize::MAX;
            }
            self.placed |= feature.starts_with("placed-");
            self.counters |= feature.starts_with("counter:");
        }
    }
}

impl Replica {
    /// Queues a decision in the lane of a selector, or of its canary.
    pub(crate) fn decide(
        &mut self,
        selector: &ModuleName,
        purpose: Purpose,
        request: SelectRequest,
    ) {
        let lane = self.registry.lane_of(selector, &request.key);
        self.decide_in(lane, purpose, request);
    }

    /// Queues a decision in this lane.
    pub(crate) fn decide_in(&mut self, lane: LaneId, purpose: Purpose, request: SelectRequest) {
        self.placing.last_job += 1;
        let id = self.placing.last_job;
        let fallback = self.registry.type_spec(&request.key.type_name).fallback;
        let seed = self.random.next_u32();
        let is_plan = matches!(purpose, Purpose::Plan(_));
        let job = Job {
            purpose,
            request: Arc::new(request),
            fallback,
            seed,
        };
        self.placing.jobs.insert(id, job);
        let lane = self.placing.lanes.entry(lane).or_default();
        let queue = match is_plan {
            true => &mut lane.plans,
            false => &mut lane.queue,
        };
        queue.push_back(id);
    }

    pub(crate) fn plan(&mut self, ticket: Ticket, lane: &ModuleName, create: &CreateProcess) {
        let request = select_request(create, 1, Vec::new());
        self.decide(lane, Purpose::Plan(ticket), request);
    }

    /// What waits for a canary that decides no more is the active version's to decide.
    fn close_lanes(&mut self) {
        let lanes = &self.placing.lanes;
        let over = lanes.iter().filter(|(lane, waits)| {
            lane.canary && !waits.is_empty() && self.registry.canary_module(&lane.module).is_none()
        });
        for mut lane in over.map(|(lane, _)| lane.clone()).collect::<Vec<_>>() {
            let from = self.placing.lanes.get_mut(&lane);
            let from = from.map(|from| {
                let plans = std::mem::take(&mut from.plans);
                (std::mem::take(&mut from.queue), plans)
            });
            let (queue, plans) = from.unwrap_or_default();
            lane.canary = false;
            let into = self.placing.lanes.entry(lane).or_default();
            into.queue.extend(queue);
            into.plans.extend(plans);
        }
    }

    /// Hands out a batch for every lane that has something to decide and nothing out.
    pub(crate) fn emit_batches(&mut self) {
        self.close_lanes();
        let idle = |lane: &Lane| !lane.busy && !lane.is_empty();
        let ready: Vec<LaneId> = self
            .placing
            .lanes
            .iter()
            .filter(|(_, lane)| idle(lane))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            let Some(lane) = self.placing.lanes.get_mut(&name) else {
                continue;
            };
            let dry = lane.plans_next();
            lane.planned = dry;
            let queue = match dry {
                true => &mut lane.plans,
                false => &mut lane.queue,
            };
            let mut take = queue.len().min(self.config.batch_max);
            // The members of a party see each other, or its rule could not be kept.
            let party = |at: usize| match self.placing.jobs.get(queue.get(at)?)?.purpose {
                Purpose::Party(number, _) => Some(number),
                _ => None,
            };
            while party(take).is_some() && party(take) == party(take - 1) {
                take += 1;
            }
            let ids: Vec<u64> = queue.drain(..take).collect();
            let jobs: Vec<SelectJob> = ids
                .iter()
                .filter_map(|id| {
                    let job = self.placing.jobs.get(id)?;
                    let request = Arc::clone(&job.request);
                    Some(SelectJob {
                        id: *id,
                        request,
                        fallback: job.fallback,
                        seed: job.seed,
                    })
                })
                .collect();
            if jobs.is_empty() {
                continue;
            }
            lane.busy = true;
            let batch = self.batch(&name, jobs, dry);
            self.effects.push(Effect::Select { lane: name, batch });
        }
        // Lanes that nobody uses are not kept: their names come from clients.
        self.placing
            .lanes
            .retain(|_, lane| lane.busy || !lane.is_empty());
    }

    fn batch(&mut self, lane: &LaneId, jobs: Vec<SelectJob>, dry: bool) -> SelectBatch {
        let name = &lane.module;
        let canary = self.registry.canary_module(name).filter(|_| lane.canary);
        let selector = match canary {
            Some(canary) => Ok(canary),
            None => self.registry.active_module(name, ModuleKind::Selector),
        };
        let shadow = self.registry.shadow_module(name).filter(|_| !dry);
        let mut wants = Wants::default();
        for module in selector.iter().chain(&shadow) {
            wants.add(&self.registry, module);
        }
        if self.config.record_inputs && !dry {
            wants.add_all();
        }
        let fleet = self.fleet(&wants, &jobs);
        let time_s = (self.now.wall_ms / 1_000) as u32;
        SelectBatch {
            selector: selector.map_err(|cause| (name.clone(), cause)),
            shadow,
            fleet: Arc::new(fleet),
            time_s,
            jobs,
            dry,
        }
    }

    /// The nodes as they are now, decisions in flight included.
    fn fleet(&mut self, wants: &Wants, jobs: &[SelectJob]) -> Fleet {
        let revision = self.registry.fleet_revision();
        if self.placing.roster.revision != revision {
            let facts: Arc<[Arc<NodeFacts>]> = self
                .registry
                .nodes()
                .map(|node| Arc::clone(&node.facts))
                .collect();
            let hashes = facts.iter().map(|facts| facts.name_hash()).collect();
            self.placing.roster = Roster {
                revision,
                facts,
                hashes,
            };
        }
        let roster = &self.placing.roster;
        let now_us = self.now.mono_us;
        let rate = self.config.recreate_per_node_per_second;
        let mut live = Vec::with_capacity(roster.facts.len());
        let mut counters = Vec::new();
        for (node, name_hash) in self.registry.nodes().zip(&roster.hashes) {
            let lease = self.leases.get_mut(node.epoch());
            let mut entry = NodeLive {
                cordoned: self.registry.is_cordoned(&node.name),
                suspect: true,
                damped_ms: 0,
                budget: u32::MAX,
                processes: node.processes(),
                in_flight: 0,
                used: node.used,
                placed: [0; 3],
                cpu: f32::NAN,
                memory_free_mib: f32::NAN,
                load_at_us: NEVER,
                placed_at_us: NEVER,
                name_hash: *name_hash,
            };
            if let Some(lease) = lease {
                entry.suspect = lease.is_suspect(now_us);
                entry.damped_ms = lease.health.damped_ms(now_us);
                entry.budget = lease.budget.left(rate, now_us);
                entry.processes += lease.decided.0;
                entry.in_flight = lease.decided.0 + lease.spawning;
                entry.used = entry.used.saturating_add(lease.decided.1);
                (entry.cpu, entry.memory_free_mib, entry.load_at_us) = lease.load();
                entry.placed_at_us = lease.placed_at_us;
                if wants.placed {
                    entry.placed = lease.placed(now_us);
                }
                if wants.counters {
                    counters.push(Arc::clone(&lease.counters));
                }
            } else if wants.counters {
                counters.push(Arc::new([]));
            }
            live.push(entry);
        }
        let of_type = if wants.of_type {
            self.columns_of_type(jobs)
        } else {
            Vec::new()
        };
        let of_group = self.columns_of_group(jobs, wants.groups_max);
        let mut fleet = Fleet {
            now_us,
            now_ms: self.now.wall_ms,
            facts: Arc::clone(&roster.facts),
            live,
            of_type,
            of_group,
            counters,
            parties: Vec::new(),
        };
        self.count_parties(&mut fleet, jobs);
        fleet
    }

    /// The same, without what only some selectors want to see.
    pub(crate) fn fleet_now(&mut self) -> Fleet {
        self.fleet_for(&[])
    }

    /// The same, as far as the native filter looks at it for these.
    pub(crate) fn fleet_for(&mut self, jobs: &[SelectJob]) -> Fleet {
        self.fleet(&Wants::default(), jobs)
    }

    fn columns_of_type(&self, jobs: &[SelectJob]) -> Vec<Column<TypeName>> {
        let mut columns: Vec<Column<TypeName>> = Vec::new();
        for job in jobs {
            let of = &job.request.key.type_name;
            if columns.iter().all(|column| column.of != *of) {
                let count =
                    |node: &maitred_registry::Node| node.of_type.get(of).copied().unwrap_or(0);
                let counts = self.registry.nodes().map(count).collect();
                columns.push(Column {
                    of: of.clone(),
                    counts,
                });
            }
        }
        columns
    }

    fn columns_of_group(&self, jobs: &[SelectJob], most: usize) -> Vec<Column<String>> {
        let mut columns: Vec<Column<String>> = Vec::new();
        for of in jobs.iter().filter_map(|job| job.request.group.as_ref()) {
            if columns.len() >= most {
                break;
            }
            if columns.iter().all(|column| column.of != *of) {
                let count =
                    |node: &maitred_registry::Node| node.of_group.get(&**of).copied().unwrap_or(0);
                let counts = self.registry.nodes().map(count).collect();
                columns.push(Column {
                    of: of.clone(),
                    counts,
                });
            }
        }
        columns
    }

    /// Takes the decisions of a batch.
    pub(crate) fn selected(&mut self, lane: &LaneId, decisions: Vec<Decision>) {
        if let Some(lane) = self.placing.lanes.get_mut(lane) {
            lane.busy = false;
        }
        for decision in decisions {
            // A job that is gone was cleared when this host stopped leading.
            let Some(job) = self.placing.jobs.remove(&decision.id) else {
                continue;
            };
            match job.purpose {
                Purpose::Saga(life, saga) => self.saga_decided(&life, saga, decision),
                Purpose::Party(number, member) => self.party_decided(number, member, decision),
                Purpose::Plan(ticket) => {
                    let plan = Plan {
                        node: decision
                            .node
                            .as_ref()
                            .map(|(name, _): &(NodeName, NodeEpoch)| name.clone()),
                        then: decision.then.iter().map(|(name, _)| name.clone()).collect(),
                        evidence: decision.trace.evidence(),
                        revision: Revision(self.registry.applied()),
                    };
                    self.reply(ticket, Response::Planned(Box::new(plan)));
                }
            }
        }
    }
}

/// What a choice may depend on, of a create.
pub(crate) fn select_request(
    create: &CreateProcess,
    attempt: u32,
    exclude: Vec<NodeName>,
) -> SelectRequest {
    SelectRequest {
        attempt,
        exclude,
        ..SelectRequest::of(create.key.clone(), &create.options)
    }
}

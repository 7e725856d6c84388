//! A cluster that goes on: nodes that report, placements that age, processes that end.

use std::collections::VecDeque;
use std::sync::Arc;

use maitred_protocol::{Digest, Fallback, ModuleName, NodeEpoch, NodeName, ProcessKey, TypeName};
use maitred_registry::candidates::{Column, Fleet, NodeFacts, NodeLive, SelectRequest};
use maitred_registry::decide::{
    Answer, Choose, ModuleRef, Offer, SelectBatch, SelectJob, Verdict, decide,
};
use maitred_registry::feature::{Ask, Feature, Manifest};
use maitred_registry::inputs::Outcome;
use maitred_registry::random::Random;

const SECOND: u64 = 1_000_000;
/// What a placement ages through: until it runs, and the three windows.
const AGES: [u64; 4] = [20_000, SECOND, 10 * SECOND, 60 * SECOND];

pub(crate) struct Cluster {
    pub(crate) fleet: Fleet,
    pub(crate) random: Random,
    /// Placements that are younger than each of the ages, oldest first.
    young: [VecDeque<(u64, usize)>; 4],
    next_id: u64,
    next_report: u64,
}

pub(crate) fn facts(number: usize) -> Arc<NodeFacts> {
    Arc::new(NodeFacts {
        name: NodeName::new(format!("eu-{number:05}.rack-{}", number % 40)).unwrap(),
        epoch: NodeEpoch(100 + number as u64),
        types: Vec::new(),
        address: format!("10.1.{}.{}:7000", number / 250, number % 250),
        labels: vec![("zone".to_owned(), format!("z{}", number % 3))],
        capacity: 1_000_000,
        registered_ms: 1_700_000_000_000 + number as u64,
    })
}

pub(crate) fn live(facts: &NodeFacts) -> NodeLive {
    NodeLive {
        name_hash: facts.name_hash(),
        ..NodeLive::BLANK
    }
}

pub(crate) fn module(name: &str, version: u32) -> ModuleRef {
    let config = format!(r#"{{"version":{version}}}"#);
    let digest = Digest::of(format!("{name} {version}").as_bytes());
    let name = ModuleName::new(name).unwrap();
    ModuleRef::new(name, version, digest, config.into(), 7)
}

impl Cluster {
    pub(crate) fn new(nodes: usize) -> Self {
        let facts: Arc<[Arc<NodeFacts>]> = (0..nodes).map(facts).collect();
        let fleet = Fleet {
            now_us: 5 * SECOND,
            now_ms: 1_700_000_005_000,
            of_type: vec![Column {
                of: TypeName::new("player").unwrap(),
                counts: vec![0; nodes],
            }],
            counters: (0..nodes).map(|_| Arc::from([])).collect(),
            ..Fleet::new(
                Arc::clone(&facts),
                facts.iter().map(|facts| live(facts)).collect(),
            )
        };
        Self {
            fleet,
            random: Random::new(1),
            young: Default::default(),
            next_id: 0,
            next_report: 0,
        }
    }

    /// Time passes: placements age, processes end, and every node reports once a second.
    pub(crate) fn pass(&mut self, micros: u64) {
        self.fleet.now_us += micros;
        self.fleet.now_ms = 1_700_000_000_000 + self.fleet.now_us / 1_000;
        for (at, young) in self.young.iter_mut().enumerate() {
            while let Some(&(since, slot)) = young.front()
                && since + AGES[at] < self.fleet.now_us
            {
                young.pop_front();
                let live = &mut self.fleet.live[slot];
                match at {
                    0 => live.in_flight -= 1,
                    _ => live.placed[at - 1] -= 1,
                }
                if at == 3 {
                    live.processes -= 1;
                    live.used -= 1;
                    self.fleet.of_type[0].counts[slot] -= 1;
                }
            }
        }
        let nodes = self.fleet.live.len() as u64;
        let due = self.fleet.now_us * nodes / SECOND;
        for report in self.next_report.max(due.saturating_sub(nodes))..due {
            let slot = (report % nodes) as usize;
            let live = &mut self.fleet.live[slot];
            live.cpu = self.random.below(1_000) as f32 / 1_000.0;
            live.memory_free_mib = 4_000.0 + self.random.below(1_000) as f32;
            live.load_at_us = self.fleet.now_us;
            let seats = self.random.below(100) as f32;
            self.fleet.counters[slot] = Arc::new([("seats".to_owned(), seats)]);
        }
        self.next_report = due;
    }

    /// A placement that was decided.
    pub(crate) fn place(&mut self, slot: usize) {
        let live = &mut self.fleet.live[slot];
        live.processes += 1;
        live.in_flight += 1;
        live.used += 1;
        live.placed.iter_mut().for_each(|placed| *placed += 1);
        live.placed_at_us = self.fleet.now_us;
        self.fleet.of_type[0].counts[slot] += 1;
        for young in &mut self.young {
            young.push_back((self.fleet.now_us, slot));
        }
    }

    /// A minute of so many placements a second.
    pub(crate) fn settle(&mut self, per_second: u64) {
        for _ in 0..61 * per_second {
            self.pass(SECOND / per_second);
            let slot = self.random.below(self.fleet.live.len() as u32);
            self.place(slot as usize);
        }
    }

    pub(crate) fn request(&mut self) -> SelectRequest {
        self.next_id += 1;
        SelectRequest::new(ProcessKey::new("player", &format!("p-{:010}", self.next_id)).unwrap())
    }

    /// A batch of so many decisions now.
    pub(crate) fn batch(&mut self, module: &ModuleRef, jobs: usize) -> SelectBatch {
        let jobs = (0..jobs as u64).map(|id| SelectJob {
            id,
            request: Arc::new(self.request()),
            fallback: Fallback::LeastLoaded,
            seed: self.random.next_u32(),
        });
        let jobs = jobs.collect();
        SelectBatch {
            selector: Ok(module.clone()),
            shadow: None,
            fleet: Arc::new(self.fleet.clone()),
            time_s: (self.fleet.now_ms / 1_000) as u32,
            jobs,
            dry: false,
        }
    }
}

/// The better of two random nodes by reported load and processes; `bias` makes it another policy.
pub(crate) struct Policy {
    manifest: Manifest,
    bias: f32,
}

impl Policy {
    pub(crate) fn new(bias: f32) -> Self {
        let features = [
            Feature::Processes,
            Feature::Cpu,
            Feature::LoadAgeMs,
            Feature::Placed10s,
            Feature::ProcessesOfType,
            Feature::Counter("seats".to_owned()),
        ];
        Self {
            manifest: Manifest {
                title: "policy".to_owned(),
                features: features.to_vec(),
                terms: vec!["load".to_owned()],
                ask: Ask::Sample(2),
            },
            bias,
        }
    }
}

impl Choose for Policy {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn choose(&mut self, offer: Offer<'_>) -> Result<Answer, String> {
        let width = self.manifest.features.len();
        let rows = offer.slots.iter().zip(offer.features.chunks(width));
        let scores = rows.map(|(slot, row)| {
            let known = row.iter().filter(|value| !value.is_nan());
            (known.sum::<f32>() * self.bias, *slot)
        });
        let mut scores: Vec<(f32, u32)> = scores.collect();
        scores.sort_by(|one, two| one.0.total_cmp(&two.0).then(one.1.cmp(&two.1)));
        Ok(Answer {
            verdict: Verdict::Ranked(scores.iter().map(|(_, slot)| *slot).collect()),
            scored: scores.iter().map(|(_, slot)| *slot).collect(),
            scores: scores.iter().map(|(score, _)| *score).collect(),
        })
    }
}

/// Decides a batch.
pub(crate) fn run(batch: &SelectBatch, policy: &mut Policy) -> Vec<Outcome> {
    let mut fleet = Arc::clone(&batch.fleet);
    let outcomes = batch.jobs.iter().map(|job| {
        let chooser: Result<&mut dyn Choose, String> = Ok(policy);
        let selector = &batch.selector;
        Outcome::of(&decide(
            &mut fleet,
            job,
            selector,
            chooser,
            batch.time_s,
            || 3,
        ))
    });
    outcomes.collect()
}

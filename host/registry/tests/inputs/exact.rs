//! Whatever a batch may hold comes back to the bit.

use std::fmt::Write as _;
use std::sync::Arc;

use maitred_protocol::{
    Answered, Digest, Fallback, ModuleName, NodeName, PartyRule, ProcessKey, TypeName,
};
use maitred_registry::candidates::{Column, Fleet, NodeLive, PartyTerms, SelectRequest};
use maitred_registry::decide::{ModuleRef, SelectBatch, SelectJob};
use maitred_registry::inputs::{Outcome, Player, RecordedBatch, Recorder, Start};
use maitred_registry::random::Random;
use proptest::prelude::*;

use crate::cluster::{facts, live};

/// All of a batch as text, floats as their bits.
fn spelled(recorded: &RecordedBatch) -> String {
    let fleet = &recorded.batch.fleet;
    let mut text = format!("{:?} {:?}", recorded.batch, recorded.outcomes);
    for live in &fleet.live {
        let floats = [live.cpu, live.memory_free_mib, live.name_hash].map(f32::to_bits);
        write!(text, "{floats:?}").unwrap();
    }
    for (name, value) in fleet.counters.iter().flat_map(|counters| counters.iter()) {
        write!(text, "{name}={}", value.to_bits()).unwrap();
    }
    text
}

pub(crate) fn assert_same(one: &RecordedBatch, two: &RecordedBatch) {
    assert_eq!(spelled(one), spelled(two));
}

/// Batches of every kind, from a seed.
struct Anything {
    random: Random,
    nodes: Vec<usize>,
    fleet: Fleet,
}

impl Anything {
    fn new(seed: u64) -> Self {
        let fleet = Fleet {
            now_us: 0,
            now_ms: 0,
            facts: Arc::new([]),
            live: Vec::new(),
            of_type: Vec::new(),
            of_group: Vec::new(),
            counters: Vec::new(),
            parties: Vec::new(),
        };
        Self {
            random: Random::new(seed),
            nodes: Vec::new(),
            fleet,
        }
    }

    fn one_in(&mut self, of: u32) -> bool {
        self.random.below(of) == 0
    }

    fn float(&mut self) -> f32 {
        match self.random.below(4) {
            0 => f32::from_bits(self.random.next_u32()),
            1 => f32::from_bits(0x7FC0_0000 | self.random.below(1 << 22)),
            _ => self.random.below(9) as f32,
        }
    }

    fn text(&mut self) -> String {
        let length = self.random.below(6) as usize;
        "aé 漢z".chars().cycle().skip(length).take(length).collect()
    }

    fn change_nodes(&mut self) {
        for _ in 0..self.random.below(6) {
            let number = self.random.below(40) as usize;
            match self.nodes.binary_search(&number) {
                Ok(at) => drop(self.nodes.remove(at)),
                Err(at) => self.nodes.insert(at, number),
            }
        }
        if self.one_in(9) {
            // Not in order any more.
            self.nodes.reverse();
        }
        let labelled = self.random.below(40) as usize;
        let all = self.nodes.iter().map(|&number| {
            let mut facts = facts(number);
            if number == labelled {
                let facts = Arc::make_mut(&mut facts);
                facts.labels.push(("arch".to_owned(), "é".to_owned()));
                facts.types.push(TypeName::new("room").unwrap());
            }
            facts
        });
        self.fleet.facts = all.collect();
        self.fleet.live = self.fleet.facts.iter().map(|facts| live(facts)).collect();
    }

    fn change_rows(&mut self) {
        for at in 0..self.fleet.live.len() {
            if !self.one_in(3) {
                continue;
            }
            let random = &mut self.random;
            let mut row = NodeLive {
                cordoned: random.below(2) == 0,
                suspect: random.below(2) == 0,
                damped_ms: random.next_u32() >> random.below(33).min(31),
                budget: random.next_u32() | (u32::MAX * random.below(2)),
                processes: random.next_u32(),
                in_flight: random.below(3),
                used: random.next_u32(),
                placed: [random.below(9), random.below(99), random.next_u32()],
                load_at_us: random.next_u64() | (u64::MAX * u64::from(random.below(2))),
                placed_at_us: random.next_u64() >> random.below(64),
                ..self.fleet.live[at]
            };
            row.cpu = self.float();
            row.memory_free_mib = self.float();
            if self.one_in(5) {
                row.name_hash = self.float();
            }
            self.fleet.live[at] = row;
        }
    }

    fn columns<K>(&mut self, most: u32, of: impl Fn(u32) -> K) -> Vec<Column<K>> {
        let nodes = self.fleet.live.len();
        let first = self.random.below(60);
        let columns = (first..first + self.random.below(most)).map(|number| Column {
            of: of(number),
            counts: (0..nodes)
                .map(|_| self.random.next_u32() >> (self.random.below(2) * 31))
                .collect(),
        });
        columns.collect()
    }

    fn counters(&mut self) {
        if self.one_in(3) {
            self.fleet.counters = Vec::new();
            return;
        }
        self.fleet
            .counters
            .resize(self.fleet.live.len(), Arc::new([]));
        for at in 0..self.fleet.counters.len() {
            if self.one_in(2) {
                let count = self.random.below(3);
                let all = (0..count).map(|at| (format!("c{at}"), self.float()));
                self.fleet.counters[at] = all.collect();
            }
        }
    }

    fn selector(&mut self) -> Result<ModuleRef, (ModuleName, String)> {
        // More than there is room for.
        let name = ModuleName::new(format!("m{}", self.random.below(20))).unwrap();
        if self.one_in(5) {
            return Err((name, self.text()));
        }
        Ok(ModuleRef {
            name,
            version: self.random.below(3),
            digest: Digest([self.random.below(3) as u8; 32]),
            config: Arc::from(self.text()),
            config_hash: self.random.next_u64(),
            canary: self.one_in(3),
            activated: self.random.next_u64(),
        })
    }

    fn job(&mut self, id: u64) -> SelectJob {
        let node = |number: u32| NodeName::new(format!("n{number}")).unwrap();
        let types = ["player", "room", "t-3"];
        let key = ProcessKey::new(types[self.random.below(3) as usize], "é/1").unwrap();
        let pairs = |all: &mut Self| {
            let count = all.random.below(3);
            (0..count)
                .map(|_| (all.text(), all.text()))
                .collect::<Vec<_>>()
        };
        let require = pairs(self);
        let latencies = pairs(self).into_iter();
        let latencies = latencies
            .map(|(of, _)| (of, self.random.next_u32()))
            .collect();
        let rules = [
            PartyRule::Any,
            PartyRule::Together,
            PartyRule::Apart,
            PartyRule::AtMost(self.random.below(256) as u8),
        ];
        let rule = rules[self.random.below(4) as usize];
        let together = usize::from(rule == PartyRule::Together) * self.random.below(3) as usize;
        let party = PartyTerms {
            number: self.random.next_u64(),
            rule,
            rest: self.random.next_u32(),
            types: types[..together]
                .iter()
                .map(|of| TypeName::new(*of).unwrap())
                .collect(),
            from: self.one_in(3).then(|| node(3)),
        };
        let request = SelectRequest {
            key,
            group: self.one_in(2).then(|| self.text()),
            requester: self.one_in(2).then(|| node(1)),
            require,
            demand: self.random.below(2) * self.random.next_u32(),
            priority: self.random.next_u32() as i32 * self.random.below(2) as i32,
            attempt: self.random.below(3),
            exclude: (0..self.random.below(3)).map(node).collect(),
            again: self.one_in(2),
            previous: self.one_in(2).then(|| node(2)),
            latencies,
            party: self.one_in(3).then_some(party),
        };
        let fallbacks = [
            Fallback::LeastLoaded,
            Fallback::TwoChoices,
            Fallback::Rendezvous,
        ];
        SelectJob {
            id,
            request: Arc::new(request),
            fallback: fallbacks[self.random.below(3) as usize],
            seed: self.random.next_u32(),
        }
    }

    fn outcome(&mut self) -> Outcome {
        let answers = [
            Answered::Nothing,
            Answered::Chose,
            Answered::Ranked(self.random.below(9)),
            Answered::None,
            Answered::Wait(self.random.next_u32()),
            Answered::Rejected {
                code: self.random.next_u32(),
                reason: self.text(),
            },
        ];
        let nodes = self.fleet.live.len() as u32;
        Outcome {
            chosen: (nodes > 0 && self.one_in(2)).then(|| self.random.below(nodes.max(1))),
            answered: answers[self.random.below(6) as usize].clone(),
            fallback: self.one_in(2),
            fingerprint: self.random.next_u64(),
        }
    }

    fn batch(&mut self) -> RecordedBatch {
        if self.one_in(4) {
            self.change_nodes();
        }
        self.change_rows();
        self.fleet.of_type = self.columns(9, |n| TypeName::new(format!("t{n}")).unwrap());
        self.fleet.of_group = self.columns(40, |n| format!("Gé{n}"));
        self.counters();
        self.fleet.now_us = self.random.next_u64() >> self.random.below(64);
        self.fleet.now_ms = self.random.next_u64() >> self.random.below(64);
        let nodes = self.fleet.live.len() as u32;
        let members = if nodes > 0 { self.random.below(3) } else { 0 };
        let members = (0..members).map(|_| (self.random.next_u64(), self.random.below(nodes)));
        self.fleet.parties = members.collect();
        let jobs: Vec<SelectJob> = (0..u64::from(self.random.below(4)))
            .map(|id| self.job(id))
            .collect();
        let outcomes = jobs.iter().map(|_| self.outcome()).collect();
        let batch = SelectBatch {
            selector: self.selector(),
            shadow: None,
            fleet: Arc::new(self.fleet.clone()),
            time_s: self.random.next_u32(),
            jobs,
            dry: false,
        };
        RecordedBatch { batch, outcomes }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn anything_comes_back(seed in any::<u64>(), keyframes in 1_u32..30) {
        let mut anything = Anything::new(seed);
        let (mut recorder, mut player) = (Recorder::default(), Player::default());
        for _ in 0..60 {
            let recorded = anything.batch();
            let start = match anything.random.below(keyframes) {
                0 => Start::Keyframe,
                _ => Start::Delta,
            };
            let frame = recorder.frame(&recorded.batch, &recorded.outcomes, start).unwrap();
            assert_same(&player.next(&frame).unwrap(), &recorded);
        }
    }
}

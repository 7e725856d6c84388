//! The evidence of a decision that the fallback made.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod support;

use std::sync::Arc;

use maitred_protocol::{Fallback, ModuleName, NodeName, ProcessKey};
use maitred_registry::candidates::{Fleet, NodeFacts, SelectRequest};
use maitred_registry::decide::{Answer, Choose, Offer, SelectJob, decide};
use maitred_registry::feature::{Ask, CANDIDATES_MAX, Feature, Manifest};

use support::module;

struct Broken(Manifest);

impl Choose for Broken {
    fn manifest(&self) -> &Manifest {
        &self.0
    }

    fn choose(&mut self, _: Offer<'_>) -> Result<Answer, String> {
        Err("broken".to_owned())
    }
}

fn fleet(processes: &[u32]) -> Arc<Fleet> {
    let nodes = processes.iter().enumerate();
    let nodes = nodes.map(|(n, &processes)| (format!("n-{n}"), processes));
    Arc::new(support::fleet(10_000, nodes))
}

fn job(request: SelectRequest, seed: u32) -> SelectJob {
    SelectJob {
        id: 1,
        request: Arc::new(request),
        fallback: Fallback::LeastLoaded,
        seed,
    }
}

#[test]
fn the_evidence_of_a_fallback_holds_all_that_it_chose_from() {
    let request = SelectRequest {
        exclude: vec![NodeName::new("n-2").unwrap()],
        ..SelectRequest::new(ProcessKey::new("player", "1").unwrap())
    };
    for ask in [Ask::All, Ask::Sample(1), Ask::Lowest(Feature::Capacity, 1)] {
        for seed in 0..20 {
            let job = job(request.clone(), seed);
            let mut broken = Broken(Manifest {
                title: String::new(),
                features: Vec::new(),
                terms: Vec::new(),
                ask: ask.clone(),
            });
            let mut fleet = fleet(&[5, 3, 0]);
            let decision = decide(&mut fleet, &job, &Ok(module(1)), Ok(&mut broken), 0, || 1);
            let evidence = decision.trace.evidence();
            let seen: Vec<_> = evidence
                .candidates
                .iter()
                .map(|c| (c.node.as_str(), c.values.clone(), c.chosen))
                .collect();
            assert_eq!(seen, [("n-0", vec![5.0], false), ("n-1", vec![3.0], true)]);
            assert_eq!(evidence.why.candidates, 2);
            assert_eq!(evidence.refusals.len(), 1);
        }
    }
}

#[test]
fn the_evidence_of_a_large_fleet_still_holds_the_one_that_was_chosen() {
    let mut processes = vec![9; 3_000];
    processes[2_500] = 1;
    let mut fleet = fleet(&processes);
    let job = job(
        SelectRequest::new(ProcessKey::new("player", "1").unwrap()),
        1,
    );
    let nobody = Err((ModuleName::new("gone").unwrap(), "gone".to_owned()));
    let decision = decide(&mut fleet, &job, &nobody, Err("gone".to_owned()), 0, || 1);
    let evidence = decision.trace.evidence();
    assert_eq!(evidence.candidates.len(), CANDIDATES_MAX as usize);
    assert_eq!(evidence.candidates.iter().filter(|c| c.chosen).count(), 1);
    assert_eq!(decision.node.unwrap().0.as_str(), "n-2500");
}

/// As many values as nodes, as of a host name: where each is looked up among all before it, this takes
/// minutes.
#[test]
fn a_label_that_is_another_on_each_node_is_numbered_at_once() {
    let nodes = 100_000;
    let mut fleet = support::fleet(1, (0..nodes).map(|n| (format!("n-{n}"), 0)));
    let label = |facts: &Arc<NodeFacts>| {
        let mut facts = NodeFacts::clone(facts);
        let value = facts.name.to_string();
        facts.labels = vec![("host".to_owned(), value)];
        Arc::new(facts)
    };
    fleet.facts = fleet.facts.iter().map(label).collect();
    let slots: Vec<u32> = (0..nodes).rev().chain(0..nodes).collect();
    let request = SelectRequest::new(ProcessKey::new("player", "1").unwrap());
    let values = fleet.gather(&[Feature::Label("host".to_owned())], &slots, &request);
    let met = |slot: u32| (nodes - 1 - slot) as f32;
    assert!(
        slots
            .iter()
            .zip(values)
            .all(|(slot, value)| value == met(*slot))
    );
}

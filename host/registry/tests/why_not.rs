//! What became of a node in a decision: as the trace knows it, and as far as the evidence does.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

mod support;

use std::sync::Arc;

use maitred_protocol::{Fallback, NodeName, ProcessKey, RefusalReason, WhyNot};
use maitred_registry::candidates::{Fleet, SelectRequest, Slot};
use maitred_registry::decide::{
    Answer, Choose, Decision, Offer, SelectJob, Verdict, decide, why_not,
};
use maitred_registry::feature::{Ask, Feature, Manifest};

const NODES: u32 = 1_000;

fn name(number: u32) -> NodeName {
    NodeName::new(format!("n-{number:04}")).unwrap()
}

/// The first 400 nodes are full.
fn fleet() -> Arc<Fleet> {
    let nodes = (0..NODES).map(|number| (name(number).to_string(), 0));
    let mut fleet = support::fleet(10, nodes);
    fleet.live[..400].iter_mut().for_each(|live| live.used = 10);
    Arc::new(fleet)
}

struct Says(Manifest, Answer);

impl Choose for Says {
    fn manifest(&self) -> &Manifest {
        &self.0
    }

    fn choose(&mut self, _: Offer<'_>) -> Result<Answer, String> {
        Ok(self.1.clone())
    }
}

fn decided(ask: Ask, verdict: Verdict, scored: Vec<Slot>) -> Decision {
    let manifest = Manifest {
        title: String::new(),
        features: vec![Feature::Processes],
        terms: vec!["load".to_owned()],
        ask,
    };
    let scores = scored.iter().map(|slot| *slot as f32).collect();
    let answer = Answer {
        verdict,
        scored,
        scores,
    };
    let request = SelectRequest::new(ProcessKey::new("player", "1").unwrap());
    let job = SelectJob {
        id: 1,
        request: Arc::new(request),
        fallback: Fallback::LeastLoaded,
        seed: 1,
    };
    let mut says = Says(manifest, answer);
    decide(
        &mut fleet(),
        &job,
        &Ok(support::module(1)),
        Ok(&mut says),
        0,
        || 1,
    )
}

fn full() -> WhyNot {
    let (left, demand) = (0, 1);
    WhyNot::Refused(RefusalReason::Capacity { left, demand })
}

#[test]
fn the_trace_knows_all_nodes_and_the_evidence_those_that_it_names() {
    let decision = decided(Ask::All, Verdict::Choose(500), vec![700, 500, 600]);
    let (trace, evidence) = (&decision.trace, decision.trace.evidence());
    for (node, expected) in [
        (500, WhyNot::Chosen),
        (700, WhyNot::Offered(Some(1))),
        (600, WhyNot::Offered(Some(3))),
        (900, WhyNot::Offered(None)),
        (7, full()),
    ] {
        assert_eq!(trace.why_not(&name(node)), expected, "{node}");
        assert_eq!(why_not(&evidence, &name(node)), expected, "{node}");
    }
    // Beyond the refusals that it names.
    assert_eq!(evidence.refusals.len() as u32 + evidence.refusals_more, 400);
    assert_eq!(why_not(&evidence, &name(399)), WhyNot::Unknown);
    assert_eq!(trace.why_not(&name(399)), full());
    let more = trace.evidence_with(10_000);
    assert_eq!((more.refusals.len(), more.refusals_more), (400, 0));
    assert_eq!(why_not(&more, &name(399)), full());
    let stranger = NodeName::new("stranger").unwrap();
    assert_eq!(trace.why_not(&stranger), WhyNot::Unknown);
    // The best come first, with what they were scored by.
    let first: Vec<_> = evidence.candidates[..3]
        .iter()
        .map(|candidate| (candidate.node.clone(), candidate.scores.clone()))
        .collect();
    let scored = [700, 500, 600].map(|slot| (name(slot), vec![slot as f32]));
    assert_eq!(first, scored);
}

#[test]
fn who_was_not_sampled_is_told_so() {
    let decision = decided(
        Ask::Lowest(Feature::Processes, 2),
        Verdict::None,
        Vec::new(),
    );
    let trace = &decision.trace;
    let all: Vec<_> = (400..NODES)
        .map(|node| trace.why_not(&name(node)))
        .collect();
    let offered = all.iter().filter(|why| **why == WhyNot::Offered(None));
    let left_out = all.iter().filter(|why| **why == WhyNot::NotSampled);
    assert_eq!((offered.count(), left_out.count()), (2, 598));
    let (named, more) = trace.refusals();
    assert_eq!(
        named.len() as u32 + more,
        402,
        "those that were offered, too"
    );
}

#[test]
fn a_scanner_that_takes_none_has_declined_all_that_passed() {
    let decision = decided(Ask::Scan, Verdict::Wait(500), vec![450]);
    let trace = &decision.trace;
    assert!(trace.was_offered() && decision.node.is_none());
    assert_eq!(trace.why_not(&name(450)), WhyNot::Offered(Some(1)));
    assert_eq!(trace.why_not(&name(999)), WhyNot::Offered(None));
    let (named, more) = trace.refusals();
    assert_eq!(named.len() as u32 + more, NODES);
    let more = trace.evidence_with(10_000);
    assert_eq!(why_not(&more, &name(999)), WhyNot::Offered(None));
}

#[test]
fn a_decision_is_taken_to_another_node_that_it_ranked() {
    let ranked = Verdict::Ranked(vec![500, 600, 700]);
    let decision = decided(Ask::All, ranked, Vec::new());
    let then: Vec<_> = decision.then.iter().map(|(node, _)| node.clone()).collect();
    assert_eq!(then, [name(600), name(700)]);
    let request = Arc::clone(&decision.trace.request);
    let trace = decision.trace.taken_to(&then[0], request).unwrap();
    assert_eq!(trace.why_not(&name(600)), WhyNot::Chosen);
    assert_eq!(trace.why_not(&name(500)), WhyNot::Offered(None));
    let chosen = trace.evidence().candidates;
    let chosen: Vec<_> = chosen.iter().filter(|one| one.chosen).collect();
    assert_eq!((chosen.len(), &chosen[0].node), (1, &name(600)));
}

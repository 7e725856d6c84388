//! What a selector may answer besides a node, what is counted of it, canaries, and configurations.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::{Answered, ModuleKind};
use maitred_registry::decide::{Decision, LaneId, ModuleRef};
use maitred_sandbox::{BreakerLimits, Lanes, Limits, Stage};
use support::guests::{
    FIRST, Parts, SLOTS, choose, first, invalid, none, ranked, reject, unlucky, valid, wait,
};
use support::{Bench, batch, bench, cause, decide_one, decided, fleet, jobs, patient};

/// The decision of a selector that answers so, over eight nodes.
fn answered(body: &str) -> (Decision, Lanes) {
    let bench = bench(patient());
    let module = bench.load(
        "tester",
        ModuleKind::Selector,
        &Parts::body(body).selector(),
        "{}",
    );
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    (decide_one(&lanes, &module), lanes)
}

#[test]
fn verdicts_without_a_node_are_no_failures() {
    let expected = [
        (none(), Answered::None, [0, 1, 0, 0]),
        (
            reject(7),
            Answered::Rejected {
                code: 7,
                reason: "tester".to_owned(),
            },
            [0, 0, 1, 0],
        ),
        (wait(250), Answered::Wait(250), [0, 0, 0, 1]),
    ];
    for (body, answer, counts) in expected {
        let (decision, lanes) = answered(&body);
        assert_eq!(decision.trace.answered, answer);
        assert_eq!((decision.node, cause_of(&decision.trace)), (None, None));
        let counters = lanes.counters().remove(0);
        let verdicts = counters.verdicts;
        let got = [
            verdicts.chosen,
            verdicts.none,
            verdicts.rejected,
            verdicts.waited,
        ];
        assert_eq!((got, counters.fallbacks.total()), (counts, 0));
    }
}

fn cause_of(trace: &maitred_registry::decide::Trace) -> Option<String> {
    match &trace.why.chooser {
        maitred_protocol::Chooser::Fallback { cause, .. } => Some(cause.clone()),
        _ => None,
    }
}

#[test]
fn a_ranking_takes_the_first_and_names_the_rest() {
    let (decision, lanes) = answered(&ranked(SLOTS, 3));
    let trace = &decision.trace;
    assert_eq!(trace.answered, Answered::Ranked(3));
    assert_eq!(trace.chosen, Some(trace.slots[0]));
    let name = |slot: u32| trace.facts[slot as usize].name.clone();
    let then: Vec<_> = decision.then.iter().map(|(node, _)| node.clone()).collect();
    assert_eq!(then, [name(trace.slots[1]), name(trace.slots[2])]);
    assert_eq!(lanes.counters()[0].verdicts.chosen, 1);
}

#[test]
fn what_is_out_of_bounds_is_a_bad_answer() {
    for (body, says) in [
        (ranked(SLOTS, 0), "ranked 0 nodes, of 1 to 8"),
        (ranked(SLOTS, 9), "ranked 9 nodes"),
        (wait(9), "wants to wait 9 ms"),
        (wait(60_001), "wants to wait 60001 ms"),
        (choose("(i32.const 999)"), "chose slot 999"),
    ] {
        let (decision, lanes) = answered(&body);
        assert!(cause(&decision).unwrap().contains(says), "{decision:?}");
        assert_eq!(lanes.counters()[0].fallbacks.bad_answer, 1);
    }
}

/// One score for the first slot, and a manifest that names the term.
fn scoring() -> Vec<u8> {
    // The term "processes" is there already, as a feature.
    let terms =
        "(i32.store (i32.const 280) (i32.const 64)) (i32.store (i32.const 284) (i32.const 1))";
    let body = format!(
        "(drop {}) (i32.store (i32.const 1044) {SLOTS}) (i32.store (i32.const 1048) (i32.const 1))
         (f32.store (i32.const 1100) (f32.const 0.5)) (i32.store (i32.const 1052) (i32.const 1100))
         (i32.store (i32.const 1056) (i32.const 1)) (i32.const 1024)",
        choose(FIRST)
    );
    Parts {
        describe: format!("{terms} (i32.const 256)"),
        body,
        ..Parts::default()
    }
    .selector()
}

#[test]
fn scores_reach_the_evidence_under_their_names() {
    let bench = bench(patient());
    let module = bench.load("tester", ModuleKind::Selector, &scoring(), "{}");
    let decision = decide_one(&Lanes::new(Arc::clone(&bench.sandbox)), &module);
    let evidence = decision.trace.evidence();
    assert_eq!(evidence.terms, ["processes"]);
    let scored: Vec<_> = evidence
        .candidates
        .iter()
        .filter(|c| !c.scores.is_empty())
        .collect();
    assert!(scored.len() == 1 && scored[0].chosen && scored[0].scores == [0.5]);
    let inspected = bench
        .sandbox
        .inspect(ModuleKind::Selector, &scoring(), |_| ())
        .unwrap();
    assert_eq!(inspected.terms, ["processes"]);
}

#[test]
fn a_canary_has_a_lane_a_breaker_and_counters_of_its_own() {
    let bench = bench(patient());
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let active = bench.load("tester", ModuleKind::Selector, &first(), "{}");
    let broken = Parts::body("unreachable").selector();
    let canary = ModuleRef {
        canary: true,
        version: 4,
        activated: 9,
        ..bench.load("tester", ModuleKind::Selector, &broken, "{}")
    };
    for _ in 0..4 {
        assert_eq!(cause(&decide_one(&lanes, &active)), None);
        assert!(cause(&decide_one(&lanes, &canary)).is_some());
    }
    let counters = lanes.counters();
    let id = |canary| LaneId {
        module: active.name.clone(),
        canary,
    };
    assert_eq!(
        (&counters[0].lane, &counters[1].lane),
        (&id(false), &id(true))
    );
    assert_eq!((counters[1].version, counters[1].activated), (4, 9));
    assert_eq!(
        (counters[0].fallbacks.total(), counters[0].breaker_open),
        (0, false)
    );
    assert_eq!(
        (counters[1].fallbacks.trap, counters[1].breaker_open),
        (3, true)
    );
    let bypassed = lanes.bypassed();
    assert!(bypassed.len() == 1 && bypassed[0].0 == active.name && bypassed[0].1 == 1);

    let stats = counters[1].since(None);
    assert_eq!((stats.decisions, stats.traps), (4, 3));
    // Since then nothing has happened; and another activation begins anew.
    assert_eq!(counters[1].since(Some(&counters[1])).decisions, 0);
    let again = ModuleRef {
        activated: 10,
        ..canary
    };
    assert!(
        cause(&decide_one(&lanes, &again))
            .unwrap()
            .starts_with("trapped")
    );
    let anew = lanes.counters().remove(1);
    assert_eq!(
        (anew.decisions, anew.since(Some(&counters[1])).decisions),
        (1, 1)
    );
}

#[test]
fn the_breakers_rate_is_a_limit() {
    let bench = bench(Limits {
        breaker: BreakerLimits {
            failures: 1,
            window_ms: 1_000,
            pause_ms: 20,
            pause_max_ms: 40,
        },
        ..patient()
    });
    let module = bench.load(
        "tester",
        ModuleKind::Selector,
        &unlucky("unreachable"),
        "{}",
    );
    let lanes = Lanes::new(Arc::clone(&bench.sandbox));
    let with_seed = |seed| decided(&lanes, batch(&module, fleet(8, 1), jobs(1, seed))).remove(0);
    assert!(cause(&with_seed(13)).unwrap().starts_with("trapped"));
    let begun = std::time::Instant::now();
    while cause(&with_seed(1)).is_some() {
        std::thread::yield_now();
    }
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "the pause is that of the default"
    );
    assert!(lanes.bypassed().is_empty());
}

fn validating(bench: &Bench, validate: String, describe: &str) -> ModuleRef {
    let guest = Parts {
        validate,
        describe: describe.to_owned(),
        ..Parts::default()
    };
    bench.load("tester", ModuleKind::Selector, &guest.selector(), "{}")
}

#[test]
fn a_configuration_is_judged_by_the_module() {
    let bench = bench(Limits {
        describe_ms: 100,
        ..patient()
    });
    let validate = |body: String| {
        let module = validating(&bench, body, "(i32.const 256)");
        bench.sandbox.validate(&module.digest, "{\"a\": 1}")
    };
    validate(valid()).unwrap();
    let error = validate(invalid()).unwrap_err();
    assert_eq!(
        (error.stage, error.reason.as_str()),
        (Stage::Validating, "{\"a\": 1}")
    );
    assert_eq!(error.stage.as_str(), "validating the configuration");
    let error = validate("unreachable".to_owned()).unwrap_err();
    assert!(
        error.stage == Stage::Validating && error.reason.starts_with("trapped"),
        "{error}"
    );
    let error = validate("(loop $ever (br $ever)) unreachable".to_owned()).unwrap_err();
    assert_eq!(
        error.reason,
        "validate computed for more than 100 ms (limit describe_ms)"
    );
    // One that it says yes to, and cannot be described with, will not do either.
    let module = validating(&bench, valid(), "unreachable");
    let error = bench.sandbox.validate(&module.digest, "{}").unwrap_err();
    assert_eq!(error.stage, Stage::Describing);
    bench.sandbox.unload(&module.digest);
    let error = bench.sandbox.validate(&module.digest, "{}").unwrap_err();
    assert!(
        error.reason.contains("is not loaded on this host"),
        "{error}"
    );
}

#[test]
fn callbacks_and_fences_judge_theirs() {
    let bench = bench(patient());
    let parts = || Parts {
        validate: invalid(),
        body: "unreachable".to_owned(),
        ..Parts::default()
    };
    for (kind, guest) in [
        (ModuleKind::Callback, parts().callback()),
        (ModuleKind::Fence, parts().fence()),
    ] {
        let module = bench.load("tester", kind, &guest, "{}");
        let error = bench.sandbox.validate(&module.digest, "[]").unwrap_err();
        assert_eq!(
            (error.stage, error.reason.as_str()),
            (Stage::Validating, "[]")
        );
    }
}

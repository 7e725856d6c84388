//! How one version decides beside another, with figures worked out by hand.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use maitred_protocol::{
    Answered, ComparedVersion, Comparison, Digest, Evenness, ModuleName, NodeName, ProcessKey,
    Quantiles, config_hash,
};
use maitred_registry::candidates::{Fleet, Slot};
use maitred_registry::compare::{Compared, Comparing, Failure, Tried};
use maitred_registry::inputs::Outcome;

use support::module;

/// Nodes with so many processes each.
fn fleet(now_ms: u64, nodes: &[(&str, u32)]) -> Fleet {
    let nodes = nodes.iter();
    let nodes = nodes.map(|&(name, processes)| (name.to_owned(), processes));
    Fleet {
        now_ms,
        ..support::fleet(100, nodes)
    }
}

fn chose(slot: Slot) -> Outcome {
    Outcome {
        chosen: Some(slot),
        answered: Answered::Chose,
        fallback: false,
        fingerprint: u64::from(slot),
    }
}

fn said(answered: Answered) -> Outcome {
    Outcome {
        chosen: None,
        answered,
        fallback: false,
        fingerprint: 99,
    }
}

fn rejected(code: u32, reason: &str) -> Outcome {
    said(Answered::Rejected {
        code,
        reason: reason.to_owned(),
    })
}

fn version(version: u32) -> ComparedVersion {
    ComparedVersion {
        version,
        digest: Digest([version as u8; 32]),
        config: config_hash("{}"),
    }
}

fn comparing() -> Comparing {
    Comparing::new(ModuleName::new("spread").unwrap(), version(2))
}

fn add(comparing: &mut Comparing, fleet: &Fleet, by: u32, decided: &Outcome, tried: &Tried<'_>) {
    let key = ProcessKey::new("room", "7").unwrap();
    comparing.add(&Compared {
        fleet,
        key: &key,
        selector: Some(&module(by)),
        decided,
        other: *tried,
    });
}

fn tried(outcome: &Outcome) -> Tried<'_> {
    Tried {
        outcome,
        fuel: 1_000,
        nanos: 10,
        failure: None,
    }
}

/// Of decided and tried outcomes, on three nodes with 2, 0 and 1 processes.
fn compare(pairs: &[(Outcome, Outcome)]) -> Comparison {
    let fleet = fleet(1_000, &[("a", 2), ("b", 0), ("c", 1)]);
    let mut comparing = comparing();
    for (decided, other) in pairs {
        add(&mut comparing, &fleet, 1, decided, &tried(other));
    }
    comparing.comparison()
}

#[test]
fn every_decision_is_one_of_four() {
    let none = || said(Answered::None);
    let result = compare(&[
        (chose(0), chose(0)),
        (none(), none()),
        (rejected(3, "full"), rejected(3, "no seat is left")),
        (chose(0), chose(2)),
        (none(), said(Answered::Wait(50))),
        (rejected(3, "full"), rejected(4, "full")),
        (chose(1), rejected(4, "full")),
        (chose(1), none()),
        (none(), chose(1)),
    ]);
    let counts = (
        result.agreed,
        result.moved,
        result.newly_rejected,
        result.newly_placed,
    );
    assert_eq!((result.decisions, counts), (9, (3, 3, 2, 1)));
    let name = |name: &str| Some(NodeName::new(name).unwrap());
    let told: Vec<_> = result
        .differences
        .iter()
        .map(|d| (&d.decided, &d.other, &*d.reason))
        .collect();
    assert_eq!(
        told,
        [
            (&name("a"), &name("c"), ""),
            (&None, &None, "wants to wait 50 ms"),
            (&None, &None, "rejected (4): full"),
            (&name("b"), &None, "rejected (4): full"),
            (&name("b"), &None, "no candidate will do"),
            (&None, &name("b"), ""),
        ]
    );
}

#[test]
fn each_version_is_followed_by_its_own_placements() {
    // 2 0 1 before. The one puts both on a: 4 0 1; the other on b: 2 2 1.
    let result = compare(&[(chose(0), chose(1)), (chose(0), chose(1))]);
    let decided = Evenness {
        max: 4,
        mean: 5.0 / 3.0,
        // (4² + 0² + 1²) / 3 - (5/3)² = 17/3 - 25/9 = 26/9
        deviation: (26.0_f32 / 9.0).sqrt(),
    };
    let other = Evenness {
        max: 2,
        mean: 5.0 / 3.0,
        // 9/3 - 25/9 = 2/9
        deviation: (2.0_f32 / 9.0).sqrt(),
    };
    assert_eq!(result.spread_decided.max, decided.max);
    assert_eq!(result.spread_other.max, other.max);
    for (got, expected) in [
        (result.spread_decided, decided),
        (result.spread_other, other),
    ] {
        assert!((got.mean - expected.mean).abs() < 1e-5, "{got:?}");
        assert!((got.deviation - expected.deviation).abs() < 1e-5, "{got:?}");
    }
}

#[test]
fn nodes_come_and_go() {
    let mut comparing = comparing();
    let (one, two) = (
        fleet(10, &[("a", 5), ("b", 1)]),
        fleet(20, &[("b", 9), ("c", 3)]),
    );
    add(&mut comparing, &one, 1, &chose(0), &tried(&chose(1)));
    // What b got in between is the deciding version's doing; c is new with 3.
    add(&mut comparing, &two, 1, &chose(1), &tried(&chose(0)));
    let result = comparing.comparison();
    // Decided: b 1, c 3 + 1. Other: b 1 + 1 + 1, c 3.
    assert_eq!((result.spread_decided.max, result.spread_other.max), (4, 3));
    assert_eq!(
        (result.spread_decided.mean, result.spread_other.mean),
        (2.5, 3.0)
    );
    assert_eq!((result.from_ms, result.to_ms), (10, 20));
}

#[test]
fn failures_count_beside_what_came_out() {
    let fleet = fleet(1, &[("a", 0)]);
    let mut comparing = comparing();
    let fallback = Outcome {
        fallback: true,
        ..chose(0)
    };
    for failure in [
        Failure::Trap,
        Failure::Trap,
        Failure::Timeout,
        Failure::BadAnswer,
    ] {
        let tried = Tried {
            failure: Some((failure, "unreachable")),
            ..tried(&fallback)
        };
        add(&mut comparing, &fleet, 1, &chose(0), &tried);
    }
    let none = said(Answered::None);
    let trapped = Tried {
        failure: Some((Failure::Trap, "unreachable")),
        ..tried(&fallback)
    };
    add(&mut comparing, &fleet, 1, &none, &trapped);
    let result = comparing.comparison();
    assert_eq!(
        (result.traps, result.timeouts, result.bad_answers),
        (3, 1, 1)
    );
    assert_eq!((result.agreed, result.newly_placed), (4, 1));
    assert_eq!(result.differences[0].reason, "trapped: unreachable");
}

#[test]
fn only_the_same_version_can_be_identical() {
    let fleet = fleet(1, &[("a", 0), ("b", 0)]);
    let mut comparing = comparing();
    let fallback = Outcome {
        fallback: true,
        ..chose(0)
    };
    let scored_otherwise = Outcome {
        fingerprint: 77,
        ..chose(0)
    };
    add(&mut comparing, &fleet, 2, &chose(0), &tried(&chose(0)));
    add(
        &mut comparing,
        &fleet,
        2,
        &chose(0),
        &tried(&scored_otherwise),
    );
    add(&mut comparing, &fleet, 2, &chose(0), &tried(&chose(1)));
    // Not the version's own decision, and not the version.
    add(&mut comparing, &fleet, 2, &fallback, &tried(&chose(0)));
    for by in [1, 3, 3, 3, 3, 3] {
        add(&mut comparing, &fleet, by, &chose(0), &tried(&chose(0)));
    }
    let result = comparing.comparison();
    assert_eq!((result.same_version, result.identical), (3, 1));
    // Most decisions first.
    assert_eq!(result.decided, [version(3), version(2), version(1)]);
}

#[test]
fn what_is_kept_is_bounded() {
    let fleet = fleet(1, &[("a", 0), ("b", 0)]);
    let mut comparing = comparing();
    for by in 0..100 {
        add(&mut comparing, &fleet, by, &chose(0), &tried(&chose(1)));
    }
    let result = comparing.comparison();
    assert_eq!((result.differences.len(), result.decided.len()), (20, 8));
    assert_eq!((result.decisions, result.moved), (100, 100));
}

#[test]
fn quantiles_of_what_it_took() {
    let fleet = fleet(1, &[("a", 0)]);
    let mut comparing = comparing();
    for at in 1..=100 {
        let outcome = chose(0);
        let tried = Tried {
            fuel: at * 1_000,
            nanos: 5,
            ..tried(&outcome)
        };
        add(&mut comparing, &fleet, 1, &outcome, &tried);
    }
    let result = comparing.comparison();
    let near = |got: u64, exact: u64| assert!(got.abs_diff(exact) <= exact / 50, "{got}");
    near(result.fuel.p50, 50_000);
    near(result.fuel.p90, 90_000);
    near(result.fuel.p99, 99_000);
    assert_eq!(result.fuel.max, 100_000);
    let five = Quantiles {
        p50: 5,
        p90: 5,
        p99: 5,
        max: 5,
    };
    assert_eq!(result.nanos, five);
}

#[test]
fn two_parts_make_the_whole() {
    let early = fleet(10, &[("a", 1), ("b", 0)]);
    let late = Fleet {
        now_ms: 20,
        ..early.clone()
    };
    let (mut first, mut second, mut whole) = (comparing(), comparing(), comparing());
    for (fleet, part) in [(&early, &mut first), (&late, &mut second)] {
        let pairs = [
            (chose(0), chose(0)),
            (chose(1), chose(0)),
            (chose(0), said(Answered::None)),
        ];
        for (decided, other) in &pairs {
            add(part, fleet, 1, decided, &tried(other));
            add(&mut whole, fleet, 1, decided, &tried(other));
        }
        part.skip(4);
        whole.skip(4);
    }
    let mut merged = second.clone();
    merged.merge(&first);
    assert_eq!(merged.comparison(), whole.comparison());
    first.merge(&second);
    assert_eq!(first.comparison(), whole.comparison());
    // And it can go on.
    for comparing in [&mut merged, &mut whole] {
        add(comparing, &late, 1, &chose(0), &tried(&chose(1)));
    }
    assert_eq!(merged.comparison(), whole.comparison());
    let mut from_nothing = comparing();
    from_nothing.merge(&first);
    assert_eq!(from_nothing.comparison(), first.comparison());
}

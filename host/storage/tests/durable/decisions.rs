//! The decision store: bounded, by process and incarnation, across restarts and damage.

use std::fs;

use maitred_protocol::{
    Answered, Candidate, Chooser, Evidence, Incarnation, NodeName, ProcessKey, Why,
};
use maitred_storage::{DecisionOptions, Decisions};

use crate::support::Place;

fn evidence(seed: u32, candidates: usize) -> Evidence {
    Evidence {
        why: Why {
            chooser: Chooser::Node,
            seed,
            micros: 7,
            candidates: candidates as u32,
        },
        features: vec!["processes".to_owned(), "cpu".to_owned()],
        candidates: (0..candidates)
            .map(|n| Candidate {
                node: NodeName::new(format!("node-{n}")).unwrap(),
                values: vec![n as f32, 0.5],
                chosen: n == 1,
                load_age_ms: 20.0,
                scores: vec![],
            })
            .collect(),
        refusals: vec![],
        refusals_more: 0,
        decided_ms: u64::from(seed),
        filtered: vec![("cordoned".to_owned(), 3)],
        terms: vec![],
        answered: Answered::Chose,
    }
}

fn room() -> ProcessKey {
    ProcessKey::new("room", "1").unwrap()
}

fn open(place: &Place) -> Decisions {
    Decisions::open(&place.dir(), DecisionOptions::default()).unwrap()
}

#[test]
fn evidence_comes_back_at_once_and_after_a_restart() {
    let place = Place::new();
    let mut decisions = open(&place);
    assert!(decisions.is_empty());
    for n in [5, 9, 7, 900] {
        decisions
            .append(&room(), Incarnation(n), &evidence(n as u32, 8))
            .unwrap();
    }
    decisions
        .append(&room(), Incarnation(7), &evidence(77, 2))
        .unwrap();
    assert_eq!(
        decisions.get(&room(), Incarnation(9)).unwrap(),
        Some(evidence(9, 8))
    );
    assert_eq!(decisions.get(&room(), Incarnation(6)).unwrap(), None);
    drop(decisions);
    for _ in 0..2 {
        let mut decisions = open(&place);
        assert_eq!(
            (decisions.len(), decisions.oldest()),
            (4, Some(Incarnation(5)))
        );
        assert_eq!(
            decisions.get(&room(), Incarnation(7)).unwrap(),
            Some(evidence(77, 2))
        );
        assert_eq!(
            decisions.get(&room(), Incarnation(900)).unwrap(),
            Some(evidence(900, 8))
        );
    }
}

#[test]
fn the_oldest_go_and_the_files_stay_within_the_total() {
    let place = Place::new();
    let options = DecisionOptions { total_bytes: 0 };
    let mut decisions = Decisions::open(&place.dir(), options).unwrap();
    let big = evidence(1, 1024);
    let count = 800;
    for n in 1..=count {
        decisions.append(&room(), Incarnation(n), &big).unwrap();
    }
    decisions.flush().unwrap();
    let bytes: u64 = fs::read_dir(place.path().join("decisions"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    // The least that it can be told: 16 files of the largest evidence.
    assert!(bytes <= 16 * ((1 << 20) + 24), "{bytes}");
    assert!(bytes > 14 << 20, "{bytes}: the store is not used");
    let oldest = decisions.oldest().unwrap();
    assert!(oldest.0 > 1 && decisions.len() as u64 == count - oldest.0 + 1);
    assert_eq!(decisions.get(&room(), Incarnation(1)).unwrap(), None);
    assert_eq!(decisions.get(&room(), oldest).unwrap().as_ref(), Some(&big));
    drop(decisions);
    let reopened = Decisions::open(&place.dir(), options).unwrap();
    assert_eq!(reopened.oldest(), Some(oldest));
}

#[test]
fn a_damaged_tail_costs_only_itself() {
    let place = Place::new();
    let mut decisions = open(&place);
    for n in 1..=10 {
        decisions
            .append(&room(), Incarnation(n), &evidence(n as u32, 4))
            .unwrap();
    }
    drop(decisions);
    let file = place.path().join("decisions/0000000000000001.decisions");
    let good = fs::read(&file).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() - 9] ^= 1;
    let garbage = [&good[..], &[0xff; 300]].concat();
    for (bytes, kept) in [
        (good[..good.len() - 1].to_vec(), 9),
        (flipped, 9),
        (garbage, 10),
        (b"MTRDDEC\x09 of another version".to_vec(), 0),
        (vec![], 0),
    ] {
        fs::write(&file, bytes).unwrap();
        let mut decisions = open(&place);
        assert_eq!(decisions.len(), kept);
        decisions
            .append(&room(), Incarnation(11), &evidence(11, 4))
            .unwrap();
        drop(decisions);
        let mut decisions = open(&place);
        assert_eq!(decisions.len(), kept + 1);
        assert_eq!(
            decisions.get(&room(), Incarnation(11)).unwrap(),
            Some(evidence(11, 4))
        );
    }
}

#[test]
fn a_byte_that_rots_while_the_store_is_open_is_not_believed() {
    let place = Place::new();
    let mut decisions = open(&place);
    decisions
        .append(&room(), Incarnation(1), &evidence(1, 4))
        .unwrap();
    decisions.flush().unwrap();
    let file = place.path().join("decisions/0000000000000001.decisions");
    let good = fs::read(&file).unwrap();
    for at in 8..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs::write(&file, bytes).unwrap();
        assert_eq!(
            decisions.get(&room(), Incarnation(1)).unwrap(),
            None,
            "byte {at}"
        );
    }
}

#[test]
fn members_of_a_party_have_one_incarnation_and_evidence_of_their_own() {
    let place = Place::new();
    let mut decisions = open(&place);
    let members: Vec<ProcessKey> = (0..64)
        .map(|n| ProcessKey::new("room", &n.to_string()).unwrap())
        .collect();
    for (n, key) in members.iter().enumerate() {
        let of = evidence(n as u32, 2);
        decisions.append(key, Incarnation(7), &of).unwrap();
    }
    drop(decisions);
    let mut decisions = open(&place);
    assert_eq!(decisions.len(), 64);
    for (n, key) in members.iter().enumerate() {
        let kept = decisions.get(key, Incarnation(7)).unwrap();
        assert_eq!(kept, Some(evidence(n as u32, 2)));
    }
}

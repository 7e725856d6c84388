//! Recorded inputs: whatever is recorded comes back to the bit, costs few bytes, and decides the same
//! again; whatever is not one is refused without a panic.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod cluster;
mod damage;
mod exact;

use cluster::{Cluster, Policy, module, run};
use maitred_protocol::ModuleName;
use maitred_registry::inputs::{
    FileReader, FileWriter, InputsError, Player, RecordedBatch, Recorder, Start, Tail,
};

const SECOND: u64 = 1_000_000;

/// So many batches of so many decisions, at 1,000 decisions a second, as they were recorded.
fn recording(nodes: usize, batches: usize, jobs: usize) -> (Vec<RecordedBatch>, Vec<Vec<u8>>) {
    let mut cluster = Cluster::new(nodes);
    cluster.settle(1_000);
    let (module, mut policy) = (module("spread", 3), Policy::new(1.0));
    let mut recorder = Recorder::default();
    let (mut all, mut frames) = (Vec::new(), Vec::new());
    for _ in 0..batches {
        cluster.pass(jobs as u64 * SECOND / 1_000);
        let batch = cluster.batch(&module, jobs);
        let outcomes = run(&batch, &mut policy);
        for outcome in &outcomes {
            cluster.place(outcome.chosen.unwrap() as usize);
        }
        let start = if frames.is_empty() {
            Start::Keyframe
        } else {
            Start::Delta
        };
        frames.push(recorder.frame(&batch, &outcomes, start).unwrap());
        all.push(RecordedBatch { batch, outcomes });
    }
    (all, frames)
}

#[test]
fn a_decision_costs_few_bytes() {
    for (nodes, jobs, bound) in [
        (100, 1, 160),
        (100, 32, 120),
        (10_000, 1, 400),
        (10_000, 32, 300),
    ] {
        let (_, frames) = recording(nodes, 3_200 / jobs / 10 + 1, jobs);
        let bytes: usize = frames[1..].iter().map(Vec::len).sum();
        let (each, key) = (bytes / ((frames.len() - 1) * jobs), frames[0].len());
        println!("{nodes} nodes, batches of {jobs}: {each} B a decision, keyframe {key} B");
        assert!(
            each <= bound,
            "{nodes} nodes, batches of {jobs}: {each} B a decision"
        );
        assert!(
            key <= 120 * nodes + 500 * jobs,
            "a keyframe of {nodes} nodes: {key} B"
        );
    }
}

#[test]
fn the_same_version_decides_the_same_again() {
    let (all, frames) = recording(50, 200, 3);
    let (mut player, mut same, mut other) = (Player::default(), 0, 0);
    for (recorded, frame) in all.iter().zip(&frames) {
        let replayed = player.next(frame).unwrap();
        assert_eq!(replayed.outcomes, recorded.outcomes);
        assert_eq!(
            run(&replayed.batch, &mut Policy::new(1.0)),
            recorded.outcomes
        );
        let changed = run(&replayed.batch, &mut Policy::new(-1.0));
        for (changed, outcome) in changed.iter().zip(&recorded.outcomes) {
            same += usize::from(changed.chosen == outcome.chosen);
            other += usize::from(changed.fingerprint != outcome.fingerprint);
        }
    }
    // Another policy chooses the worse of two; and its scores are never the same.
    assert!(same < 50, "{same} of 600");
    assert_eq!(other, 600);
}

#[test]
fn a_frame_leans_on_the_one_before() {
    let (all, frames) = recording(5, 4, 1);
    let mut player = Player::default();
    assert_eq!(
        player.next(&frames[1]).unwrap_err(),
        InputsError::NoKeyframe
    );
    player.next(&frames[0]).unwrap();
    player.next(&frames[1]).unwrap();
    assert_eq!(
        player.next(&frames[3]).unwrap_err(),
        InputsError::NoKeyframe
    );
    // And none after it will do, until there is a keyframe.
    assert_eq!(
        player.next(&frames[2]).unwrap_err(),
        InputsError::NoKeyframe
    );
    player.next(&frames[0]).unwrap();
    assert_eq!(player.next(&frames[1]).unwrap().outcomes, all[1].outcomes);
}

#[test]
fn what_cannot_be_recorded_is_followed_by_a_keyframe() {
    let (all, _) = recording(5, 2, 2);
    let mut recorder = Recorder::default();
    // The first is a keyframe without being asked to.
    let first = recorder
        .frame(&all[0].batch, &all[0].outcomes, Start::Delta)
        .unwrap();
    let few = recorder.frame(&all[1].batch, &all[1].outcomes[..1], Start::Delta);
    assert!(matches!(few, Err(InputsError::Uneven(_))));
    let next = recorder
        .frame(&all[1].batch, &all[1].outcomes, Start::Delta)
        .unwrap();
    assert_eq!((first[1], next[1]), (1, 1));
    assert_eq!(
        Player::default().next(&next).unwrap().outcomes,
        all[1].outcomes
    );
}

#[test]
fn the_newest_decisions_of_one_module() {
    let mut cluster = Cluster::new(4);
    let (mut recorder, mut policy) = (Recorder::default(), Policy::new(1.0));
    let mut frames = Vec::new();
    for (name, version, jobs) in [
        ("a", 1, 2),
        ("b", 1, 5),
        ("a", 2, 3),
        ("b", 1, 1),
        ("a", 3, 1),
    ] {
        let batch = cluster.batch(&module(name, version), jobs);
        let outcomes = run(&batch, &mut policy);
        frames.push(recorder.frame(&batch, &outcomes, Start::Delta).unwrap());
    }
    let name = ModuleName::new("a").unwrap();
    let versions = |name: Option<&ModuleName>, skip| {
        let mut tail = Tail::new(name.cloned(), skip);
        let batches = frames.iter().filter_map(|frame| tail.next(frame).unwrap());
        let versions = batches.map(|recorded| recorded.batch.selector.unwrap().version);
        versions.collect::<Vec<_>>()
    };
    assert_eq!(versions(None, 0), [1, 1, 2, 1, 3]);
    assert_eq!(versions(Some(&name), 0), [1, 2, 3]);
    assert_eq!(versions(Some(&name), 2), [2, 3]);
    // In the middle of a batch: it is given whole.
    assert_eq!(versions(Some(&name), 3), [2, 3]);
    assert_eq!(versions(Some(&name), 5), [3]);
}

/// A file of the batches.
fn file(batches: &[RecordedBatch]) -> Vec<u8> {
    let mut writer = FileWriter::default();
    let mut file = FileWriter::header().to_vec();
    for recorded in batches {
        file.extend(writer.push(recorded).unwrap());
    }
    let decisions: usize = batches.iter().map(|recorded| recorded.outcomes.len()).sum();
    assert_eq!(writer.decisions(), decisions as u64);
    file.extend(writer.end());
    file
}

#[test]
fn a_file_gives_back_what_was_put_into_it() {
    let (all, _) = recording(20, 30, 2);
    // From the middle: it stands for itself.
    let file = file(&all[10..]);
    let read: Vec<RecordedBatch> = FileReader::new(&file)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(read.len(), 20);
    for (read, recorded) in read.iter().zip(&all[10..]) {
        exact::assert_same(read, recorded);
    }
}

//! Files of recorded inputs that are damaged: the rest of them is exported.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use maitred_protocol::Answered;
use maitred_protocol::ProcessKey;
use maitred_registry::candidates::{Fleet, SelectRequest};
use maitred_registry::decide::SelectBatch;
use maitred_registry::inputs::{FileReader, Outcome, Recorder, Start};
use maitred_storage::{DataDir, HostIdentity, Inputs, InputsOptions};

use super::*;

/// A batch of 10 creates; the name of the party of each takes 1 KB.
fn batch(number: u32) -> (SelectBatch, Vec<Outcome>) {
    let job = |id| {
        let key = ProcessKey::new("room", &format!("{number}-{id}")).unwrap();
        SelectJob {
            id,
            request: Arc::new(SelectRequest {
                group: Some("g".repeat(1_000)),
                ..SelectRequest::new(key)
            }),
            fallback: Default::default(),
            seed: 0,
        }
    };
    let batch = SelectBatch {
        selector: Err(("mine".parse().unwrap(), String::new())),
        shadow: None,
        fleet: Arc::new(Fleet::new(Arc::default(), Vec::new())),
        time_s: number,
        jobs: (0..10).map(job).collect(),
        dry: false,
    };
    let outcome = Outcome {
        chosen: None,
        answered: Answered::Nothing,
        fallback: true,
        fingerprint: 0,
    };
    (batch, vec![outcome; 10])
}

#[test]
fn damage_costs_an_export_no_more_than_what_is_damaged() {
    let place = tempfile::tempdir().unwrap();
    let identity = HostIdentity::joining(1, "first".parse().unwrap());
    let dir = DataDir::create(place.path().join("data"), &identity).unwrap();
    let options = InputsOptions {
        total_bytes: 1 << 20,
        ..InputsOptions::default()
    };
    let mut inputs = Inputs::open(&dir, options).unwrap();
    let mut recorder = Recorder::default();
    let mine: ModuleName = "mine".parse().unwrap();
    // Several files of 128 KiB; nothing is old enough to go.
    for number in 0..60 {
        let (batch, outcomes) = batch(number);
        let kept = inputs.append(inputs::tag(&mine), 10, |keyframe| {
            let start = if keyframe {
                Start::Keyframe
            } else {
                Start::Delta
            };
            Ok::<_, Infallible>(recorder.frame(&batch, &outcomes, start).unwrap())
        });
        kept.unwrap();
    }
    inputs.flush();
    let export = || {
        let (decisions, file) = write(inputs.newest(600, Some(inputs::tag(&mine))), None).unwrap();
        let read = FileReader::new(&file).unwrap();
        let times: Vec<u32> = read.map(|batch| batch.unwrap().batch.time_s).collect();
        assert_eq!(decisions, times.len() as u64 * 10);
        times
    };
    assert_eq!(export(), (0..60).collect::<Vec<_>>());
    let mut files: Vec<_> = std::fs::read_dir(place.path().join("data/inputs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    let first = OpenOptions::new().write(true).open(&files[0]).unwrap();
    first.write_all_at(&[0xFF; 4], 60_000).unwrap();
    let times = export();
    // The beginning of the first file, and all of the others.
    assert!(times.len() > 40 && times[0] == 0, "{times:?}");
    assert_eq!(times.last(), Some(&59));
    let holes = times.windows(2).filter(|two| two[1] != two[0] + 1).count();
    assert_eq!(holes, 1, "{times:?}");
}

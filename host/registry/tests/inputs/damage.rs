//! Bytes that are not what they should be.

use std::fmt::Write as _;

use maitred_registry::inputs::{FileReader, FileWriter, InputsError, Player, Recorder, Start};
use proptest::prelude::*;

use crate::cluster::{Cluster, Policy, module, run};
use crate::{exact, file, recording};

#[test]
fn a_file_of_something_else_says_so() {
    let refused = |bytes: &[u8]| FileReader::new(bytes).unwrap_err();
    assert_eq!(refused(b""), InputsError::Foreign);
    assert_eq!(refused(b"MTRDINP"), InputsError::Foreign);
    assert_eq!(refused(b"\x7fELF and more of it"), InputsError::Foreign);
    assert_eq!(refused(b"MTRDINP\x02"), InputsError::Version(2));
    let mut player = Player::default();
    assert_eq!(
        player.next(&[9, 1, 1]).unwrap_err(),
        InputsError::Version(9)
    );
    assert!(matches!(
        player.next(&[]).unwrap_err(),
        InputsError::Damaged(_)
    ));
}

#[test]
fn an_empty_file_is_one() {
    let mut bytes = FileWriter::header().to_vec();
    bytes.extend(FileWriter::default().end());
    assert!(FileReader::new(&bytes).unwrap().next().is_none());
}

/// The batches of a file until the first error, and whether there was one.
fn read(file: &[u8]) -> (Vec<maitred_registry::inputs::RecordedBatch>, bool) {
    let Ok(reader) = FileReader::new(file) else {
        return (Vec::new(), true);
    };
    let (mut batches, mut failed) = (Vec::new(), false);
    for recorded in reader {
        match recorded {
            Ok(recorded) => batches.push(recorded),
            Err(_) => failed = true,
        }
    }
    (batches, failed)
}

#[test]
fn every_cut_of_a_file_is_noticed() {
    let (all, _) = recording(3, 5, 1);
    let file = file(&all);
    for end in 0..file.len() {
        let (batches, failed) = read(&file[..end]);
        assert!(failed, "cut at {end} of {}", file.len());
        for (batch, recorded) in batches.iter().zip(&all) {
            exact::assert_same(batch, recorded);
        }
    }
    assert!(!read(&file).1);
    let mut longer = file;
    longer.push(0);
    assert!(read(&longer).1);
}

/// The form of a frame is frozen: what one version wrote, all that say the same version read.
#[test]
fn the_bytes_are_these() {
    let mut cluster = Cluster::new(2);
    cluster.pass(1_000_000);
    let mut recorder = Recorder::default();
    let mut text = String::new();
    for start in [Start::Keyframe, Start::Delta] {
        let batch = cluster.batch(&module("spread", 3), 1);
        let outcomes = run(&batch, &mut Policy::new(1.0));
        for byte in recorder.frame(&batch, &outcomes, start).unwrap() {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
        cluster.place(outcomes[0].chosen.unwrap() as usize);
        cluster.pass(2_000);
    }
    assert_eq!(text, include_str!("frames.hex"));
}

/// A frame need not come from a recorder of ours: whatever it counts can be counted on from.
#[test]
fn the_largest_counts_can_be_decided_on() {
    let mut cluster = Cluster::new(3);
    for live in &mut cluster.fleet.live {
        (live.processes, live.in_flight) = (u32::MAX, u32::MAX);
        live.placed = [u32::MAX; 3];
    }
    cluster.fleet.of_type[0].counts.fill(u32::MAX);
    let batch = cluster.batch(&module("spread", 3), 0);
    let frame = Recorder::default().frame(&batch, &[], Start::Keyframe);
    let mut played = Player::default().next(&frame.unwrap()).unwrap().batch;
    played.jobs = cluster.batch(&module("spread", 3), 5).jobs;
    let outcomes = run(&played, &mut Policy::new(1.0));
    assert!(outcomes.iter().all(|outcome| outcome.chosen.is_some()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_flip_in_a_file_is_noticed(at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let (all, _) = recording(3, 4, 2);
        let mut file = file(&all);
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        let (batches, failed) = read(&file);
        prop_assert!(failed, "bit {bit} of byte {at}");
        for (batch, recorded) in batches.iter().zip(&all) {
            exact::assert_same(batch, recorded);
        }
    }

    /// Without a checksum around them, frames may become other ones, and nothing worse.
    #[test]
    fn no_bytes_break_a_player(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        rest in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let (_, mut frames) = recording(6, 3, 2);
        let mut player = Player::default();
        for frame in &mut frames {
            for (at, byte) in &flips {
                let at = at.index(frame.len());
                // The first three say what kind of frame it is.
                frame[at.max(3)] = *byte;
            }
            if let Some(cut) = &cut {
                frame.truncate(cut.index(frame.len()));
            }
            frame.extend_from_slice(&rest);
            let _ = player.next(frame);
        }
    }

    #[test]
    fn no_noise_breaks_a_player(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut frame = vec![1, 1, 1];
        frame.extend(noise);
        let _ = Player::default().next(&frame);
    }
}

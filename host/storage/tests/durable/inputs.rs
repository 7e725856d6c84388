//! The recorded inputs of decisions: bounded, across restarts, damage and a full disk, and read while
//! more are recorded.

use std::cell::Cell;
use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use maitred_storage::inputs::{FRAME_BYTES_MAX, Newest, StoredFrame};
use maitred_storage::{Inputs, InputsOptions, Kept, SpaceProbe, StorageError};

use crate::support::Place;

const MIB: u64 = 1 << 20;

fn options(total_bytes: u64) -> InputsOptions {
    InputsOptions {
        total_bytes,
        retry_after: Duration::ZERO,
        ..InputsOptions::default()
    }
}

fn open(place: &Place, total_bytes: u64) -> Inputs {
    Inputs::open(&place.dir(), options(total_bytes)).unwrap()
}

/// A frame that says which one it is, and whether it is a keyframe.
fn frame(number: u32, keyframe: bool, bytes: usize) -> Vec<u8> {
    let mut frame = vec![u8::from(keyframe)];
    frame.extend_from_slice(&number.to_le_bytes());
    frame.resize(bytes.max(5), number as u8);
    frame
}

fn number(stored: &StoredFrame) -> u32 {
    u32::from_le_bytes(*stored.frame[1..].first_chunk().unwrap())
}

fn is_keyframe(stored: &StoredFrame) -> bool {
    stored.frame[0] == 1
}

fn append(inputs: &mut Inputs, of: u64, decisions: u32, number: u32, bytes: usize) -> Kept {
    let make = |keyframe| Ok::<_, Infallible>(frame(number, keyframe, bytes));
    let Ok(kept) = inputs.append(of, decisions, make);
    kept
}

fn all(inputs: &mut Inputs) -> Vec<StoredFrame> {
    assert!(matches!(inputs.flush(), Kept::Yes));
    inputs.newest(u64::MAX, None).map(Result::unwrap).collect()
}

/// The numbers of all frames; what leans on something must have a keyframe before it.
fn numbers(inputs: &mut Inputs) -> Vec<u32> {
    let frames = all(inputs);
    assert!(frames.first().is_none_or(is_keyframe));
    frames.iter().map(number).collect()
}

fn files(place: &Place) -> Vec<PathBuf> {
    let listed = fs::read_dir(place.path().join("inputs")).unwrap();
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn frames_come_back_at_once_and_after_a_restart() {
    let place = Place::new();
    let mut inputs = open(&place, MIB);
    assert_eq!(inputs.decisions(None), 0);
    for number in 0..5 {
        assert!(matches!(append(&mut inputs, 7, 2, number, 100), Kept::Yes));
    }
    assert_eq!(numbers(&mut inputs), [0, 1, 2, 3, 4]);
    assert_eq!((inputs.decisions(None), inputs.decisions(Some(8))), (10, 0));
    drop(inputs);
    let mut inputs = open(&place, MIB);
    append(&mut inputs, 8, 1, 5, 100);
    let frames = all(&mut inputs);
    assert_eq!(frames[3].frame, frame(3, false, 100));
    assert_eq!((frames[3].of, frames[3].decisions), (7, 2));
    // One keyframe at the beginning, and one after the restart: nobody knows what came before it.
    let keyframes: Vec<u32> = frames
        .iter()
        .filter(|f| is_keyframe(f))
        .map(number)
        .collect();
    assert_eq!(keyframes, [0, 5]);
    assert_eq!((inputs.decisions(None), inputs.decisions(Some(8))), (11, 1));
}

#[test]
fn the_oldest_make_room_and_each_file_begins_with_a_keyframe() {
    let place = Place::new();
    let mut inputs = open(&place, MIB);
    for number in 0..3_000 {
        append(&mut inputs, 1, 1, number, 1_000);
        assert!(inputs.bytes() <= MIB);
    }
    let kept = numbers(&mut inputs);
    assert!(
        kept.len() > 800,
        "{} frames of 1,000 bytes in 1 MiB",
        kept.len()
    );
    assert_eq!(kept, (3_000 - kept.len() as u32..3_000).collect::<Vec<_>>());
    assert_eq!(inputs.decisions(None), kept.len() as u64);
    let on_disk: u64 = files(&place)
        .iter()
        .map(|f| f.metadata().unwrap().len())
        .sum();
    assert!(on_disk <= MIB, "{on_disk} B");
    assert!(files(&place).len() >= 7);
    let keyframes = all(&mut inputs).into_iter().filter(is_keyframe).count();
    assert_eq!(keyframes, files(&place).len());
    // A smaller total counts from the next start on; none removes all and records nothing.
    drop(inputs);
    let mut inputs = open(&place, MIB / 2);
    assert!(inputs.bytes() <= MIB / 2);
    assert_eq!(numbers(&mut inputs).last(), Some(&2_999));
    drop(inputs);
    let mut inputs = open(&place, 0);
    assert!(matches!(append(&mut inputs, 1, 1, 1, 10), Kept::No));
    assert!(files(&place).is_empty());
}

#[test]
fn the_newest_are_those_of_one_or_of_all() {
    let place = Place::new();
    let mut inputs = open(&place, MIB);
    // Some 131 frames a file; every third is of 3.
    for number in 0..500 {
        append(
            &mut inputs,
            u64::from(number % 3 == 0) * 3,
            2,
            number,
            1_000,
        );
    }
    inputs.flush();
    for (of, step) in [(None, 1), (Some(3), 3)] {
        for wanted in [1, 2, 100, 301, 330] {
            let newest = inputs.newest(wanted, of);
            let skip = Newest::skip(&newest);
            let those: Vec<StoredFrame> = newest
                .map(Result::unwrap)
                .filter(|stored| of.is_none_or(|of| of == stored.of))
                .collect();
            let decisions = those.len() as u64 * 2;
            assert_eq!(decisions - skip, wanted, "{wanted} of {of:?}");
            assert!(skip < 2 * 132, "a file before those that are needed");
            let first = number(&those[(skip / 2) as usize]);
            let last = 498 + u32::from(step == 1);
            assert_eq!(first, last - step * (wanted.div_ceil(2) as u32 - 1));
        }
    }
    // More than there are: all.
    let newest = inputs.newest(5_000, None);
    assert_eq!(Newest::skip(&newest), 0);
    assert_eq!(inputs.newest(0, None).count(), 0);
}

#[test]
fn reading_goes_on_while_more_is_recorded_and_removed() {
    let place = Place::new();
    let mut inputs = open(&place, MIB);
    for number in 0..700 {
        append(&mut inputs, 1, 1, number, 1_000);
    }
    inputs.flush();
    let mut newest = inputs.newest(700, None);
    let reader = std::thread::spawn(move || {
        let first = newest.next().unwrap().unwrap();
        (first, newest)
    });
    let (first, newest) = reader.join().unwrap();
    for number in 700..3_000 {
        append(&mut inputs, 1, 1, number, 1_000);
    }
    inputs.flush();
    let rest = newest.map(|stored| number(&stored.unwrap()));
    assert_eq!(number(&first), 0);
    assert_eq!(rest.collect::<Vec<_>>(), (1..700).collect::<Vec<_>>());
}

#[test]
fn a_torn_end_is_cut_and_the_rest_goes_on() {
    let place = Place::new();
    let mut inputs = open(&place, MIB);
    (0..10).for_each(|number| drop(append(&mut inputs, 1, 1, number, 100)));
    drop(inputs);
    let file = &files(&place)[0];
    let whole = fs::read(file).unwrap();
    for lost in [1, 19, 100, 119] {
        fs::write(file, &whole[..whole.len() - lost]).unwrap();
        let mut inputs = open(&place, MIB);
        assert_eq!(
            numbers(&mut inputs),
            (0..9).collect::<Vec<_>>(),
            "{lost} bytes lost"
        );
        append(&mut inputs, 1, 1, 99, 100);
        assert!(is_keyframe(all(&mut inputs).last().unwrap()));
        drop(inputs);
        assert_eq!(open(&place, MIB).decisions(None), 10);
    }
    // A file without one whole record, or of another version, is as good as none.
    for bytes in [&whole[..50], b"MTRDINS\x02 and so on"] {
        fs::write(file, bytes).unwrap();
        assert_eq!(open(&place, MIB).decisions(None), 0);
        assert!(files(&place).is_empty());
    }
}

#[test]
fn damage_costs_the_rest_of_one_file() {
    let place = Place::new();
    let mut inputs = open(&place, MIB);
    (0..500).for_each(|number| drop(append(&mut inputs, 1, 1, number, 1_000)));
    inputs.flush();
    let second = OpenOptions::new()
        .write(true)
        .open(&files(&place)[1])
        .unwrap();
    second.write_all_at(&[0xFF; 4], 50_000).unwrap();
    let (mut read, mut errors) = (Vec::new(), Vec::new());
    let mut newest = inputs.newest(500, None);
    for stored in newest.by_ref() {
        match stored {
            Ok(stored) => read.push(stored),
            Err(error) => errors.push(error),
        }
    }
    assert!(
        matches!(&errors[..], [StorageError::InputsDamaged { .. }]),
        "{errors:?}"
    );
    // What that cost is known, and told once.
    let lost = 500 - read.len() as u64;
    assert_eq!((newest.take_lost(), newest.take_lost()), (lost, 0));
    assert!(lost > 50, "{lost}");
    let hole = read
        .windows(2)
        .position(|two| number(&two[1]) != number(&two[0]) + 1);
    let after = hole.unwrap() + 1;
    assert!(is_keyframe(&read[after]));
    assert_eq!(number(read.last().unwrap()), 499);
}

/// A frame that cannot be made is not the disk's fault.
#[test]
fn a_frame_that_is_not_made_is_not_recorded() {
    let place = Place::new();
    let mut inputs = open(&place, MIB);
    let refused = inputs.append(1, 1, |keyframe| {
        assert!(keyframe);
        Err("too many nodes")
    });
    assert_eq!(refused.unwrap_err(), "too many nodes");
    // The first that is recorded is a keyframe still.
    assert!(matches!(append(&mut inputs, 1, 1, 4, 10), Kept::Yes));
    assert_eq!(numbers(&mut inputs), [4]);
}

#[test]
fn a_frame_beyond_the_limit_is_refused() {
    let place = Place::new();
    let mut inputs = open(&place, MIB);
    let stopped = append(&mut inputs, 1, 1, 0, 600 << 10);
    assert!(matches!(
        stopped,
        Kept::Stopped(StorageError::TooLarge { .. })
    ));
    assert!(matches!(
        append(&mut inputs, 1, 1, 1, 400 << 10),
        Kept::Again
    ));
    drop(inputs);
    let mut inputs = open(&place, 1 << 30);
    let stopped = append(&mut inputs, 1, 1, 2, FRAME_BYTES_MAX);
    assert!(matches!(
        stopped,
        Kept::Stopped(StorageError::TooLarge { .. })
    ));
}

#[test]
fn it_stops_while_room_is_low_says_so_once_and_begins_again() {
    let place = Place::new();
    let mut dir = place.dir();
    let free = Arc::new(AtomicU64::new(1 << 40));
    let probe = Arc::clone(&free);
    dir.set_space_probe(SpaceProbe::new(move |_| {
        Ok((probe.load(Ordering::Relaxed), 1 << 40))
    }));
    let mut inputs = Inputs::open(&dir, options(64 * MIB)).unwrap();
    let made = Rc::new(Cell::new(0));
    let mut append = |number: u32| {
        let made = Rc::clone(&made);
        let Ok(kept) = inputs.append(1, 1, move |keyframe| {
            made.set(made.get() + 1);
            // As much as makes it ask the disk again.
            Ok::<_, Infallible>(frame(number, keyframe, 5 << 20))
        });
        kept
    };
    assert!(matches!(append(0), Kept::Yes));
    free.store(100 << 20, Ordering::Relaxed);
    let mut kept = append(1);
    // The disk is asked a few times a second only.
    while matches!(kept, Kept::Yes) {
        kept = append(1);
    }
    let Kept::Stopped(StorageError::DiskFull { free: told, .. }) = kept else {
        panic!("{kept:?}");
    };
    assert_eq!(told, 100 << 20);
    let before = made.get();
    assert!(matches!(append(2), Kept::No));
    assert_eq!(made.get(), before, "a frame that nobody keeps was made");
    free.store(1 << 40, Ordering::Relaxed);
    let mut kept = append(3);
    while matches!(kept, Kept::No) {
        kept = append(3);
    }
    assert!(matches!(kept, Kept::Again));
    assert!(matches!(append(4), Kept::Yes));
    let frames = all(&mut inputs);
    let [.., again, last] = &frames[..] else {
        panic!("{} frames", frames.len());
    };
    assert_eq!((number(again), is_keyframe(again)), (3, true));
    assert_eq!(number(last), 4);
}

#[test]
fn a_file_that_cannot_begin_stops_it_for_a_while() {
    for (wait, begins_again) in [(0, true), (3_600, false)] {
        let place = Place::new();
        let options = InputsOptions {
            retry_after: Duration::from_secs(wait),
            ..options(MIB)
        };
        let mut inputs = Inputs::open(&place.dir(), options).unwrap();
        let second = place.path().join("inputs/0000000000000002.inputs");
        fs::create_dir(&second).unwrap();
        let mut recorded = 0;
        let stopped = loop {
            match append(&mut inputs, 1, 1, recorded, 1_000) {
                Kept::Yes => recorded += 1,
                other => break other,
            }
        };
        assert!(matches!(stopped, Kept::Stopped(StorageError::Io { .. })));
        assert!(matches!(append(&mut inputs, 1, 1, 900, 1_000), Kept::No));
        fs::remove_dir(&second).unwrap();
        let kept = append(&mut inputs, 1, 1, 901, 1_000);
        assert_eq!(matches!(kept, Kept::Again), begins_again);
        let mut expected: Vec<u32> = (0..recorded).collect();
        expected.extend(begins_again.then_some(901));
        assert_eq!(numbers(&mut inputs), expected);
        assert_eq!(files(&place).len(), 1 + usize::from(begins_again));
    }
}

#[test]
fn a_directory_of_an_older_program_gets_its_folder() {
    let place = Place::new();
    fs::remove_dir(place.path().join("inputs")).unwrap();
    let mut inputs = open(&place, MIB);
    assert!(matches!(append(&mut inputs, 1, 1, 1, 10), Kept::Yes));
}

//! A snapshot from the leader takes the log's place, and a crash comes at every step of it: the host
//! starts from what it had or from the snapshot, and never from a mixture.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use maitred_storage::{
    DataDir, Log, LogOptions, LogStart, RecoveredLog, SnapshotMeta, Snapshots, StorageError,
};
use raft::eraftpb::HardState;
use tempfile::TempDir;

use crate::faulty_disk::{FaultyDisk, Knobs};
use crate::support::{Place, chunks, copy_folder, entries, hard_state, load, meta};

const START: LogStart = LogStart { index: 50, term: 4 };

fn small_files() -> LogOptions {
    LogOptions {
        target_file_bytes: 4 << 10,
        ..LogOptions::default()
    }
}

/// A log of term 1 up to `last`, committed up to 15, in several files; and the snapshot at 10 that it
/// was cut at.
fn follower(last: u64) -> Place {
    let place = Place::new();
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    snapshots.save(&meta(10, 1), chunks(10)).unwrap();
    let (mut log, _) = place.try_log(&small_files()).unwrap();
    for index in 1..=last {
        let state = hard_state(1, 2, index.min(15));
        log.write(&entries(index..=index, 1, 700), Some(&state))
            .unwrap();
    }
    log.compact(10).unwrap();
    drop(log);
    assert!(place.log_files().len() > 2);
    place
}

/// As a host starts: snapshot, log, and what of the two fits.
fn start(place: &Place) -> (Log, RecoveredLog, SnapshotMeta) {
    let (mut log, mut found) = place.try_log(&small_files()).unwrap();
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    let (meta, content) = load(&snapshots, found.start.index).unwrap().unwrap();
    assert_eq!(content, chunks(meta.index));
    log.continue_from(&meta, &mut found).unwrap();
    (log, found, meta)
}

/// The host is at the snapshot, and its log goes on from there, also after another restart.
fn assert_installed(place: &Place, case: &str) {
    let (mut log, found, loaded) = start(place);
    assert_eq!(loaded, meta(50, 4), "{case}");
    assert_eq!(found.start, START, "{case}");
    assert!(found.entries.is_empty(), "{case}");
    assert_eq!((found.hard_state.term, found.hard_state.commit), (4, 50));
    assert_eq!((log.start(), log.last_index()), (START, 50), "{case}");
    let more = entries(51..=53, 4, 700);
    log.write(&more, Some(&hard_state(4, 0, 51))).unwrap();
    drop(log);
    let (_, found, _) = start(place);
    assert_eq!((found.start, found.entries), (START, more), "{case}");
}

/// Lets each change of the disk be preceded by a copy of the log, as a crash would find it.
fn copies(knobs: &Knobs, raft: &Path) -> Arc<Mutex<Vec<TempDir>>> {
    let copies = Arc::new(Mutex::new(Vec::new()));
    let (into, from) = (copies.clone(), raft.to_owned());
    *knobs.before_change.lock().unwrap() = Some(Box::new(move || {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&from, copy.path());
        into.lock().unwrap().push(copy);
    }));
    copies
}

#[test]
fn a_crash_at_any_step_of_the_reset_finds_the_old_log_or_the_new_beginning() {
    for last in [20, 80] {
        let place = follower(last);
        // First the snapshot, durable.
        let snapshots = Snapshots::open(&place.dir()).unwrap();
        snapshots.save(&meta(50, 4), chunks(50)).unwrap();

        let dir = place.dir();
        let knobs = Arc::new(Knobs::default());
        knobs.room.store(1 << 20, Ordering::Relaxed);
        let disk = FaultyDisk(knobs.clone());
        let (mut log, _) = Log::open_on(&dir, &small_files(), disk.into()).unwrap();
        let copies = copies(&knobs, &dir.raft());
        log.reset(START, &hard_state(4, 3, 60)).unwrap();
        *knobs.before_change.lock().unwrap() = None;
        drop((log, dir));
        let copies = std::mem::take(&mut *copies.lock().unwrap());
        let mut found_old = 0;
        for (step, copy) in copies.iter().enumerate() {
            let case = format!("log up to {last}, step {step} of {}", copies.len());
            let crashed = Place::new();
            copy_folder(&place.path().join("snap"), &crashed.path().join("snap"));
            copy_folder(copy.path(), &crashed.path().join("raft"));
            let (log, found) = crashed.try_log(&small_files()).unwrap();
            drop(log);
            if found.start != START {
                // Nothing of it had happened.
                assert_eq!(found.start.index, 10, "{case}");
                assert_eq!(found.entries, entries(11..=last, 1, 700), "{case}");
                assert_eq!(found.hard_state, hard_state(1, 2, 15), "{case}");
                found_old += 1;
            } else {
                assert!(found.entries.is_empty(), "{case}");
                assert_eq!(found.hard_state, hard_state(4, 3, 50), "{case}");
            }
            assert_installed(&crashed, &case);
        }
        // Both sides of the decisive moment were seen, and the removal of files after it.
        assert!(found_old > 3 && copies.len() > found_old + 5, "{found_old}");
        assert_installed(&place, "no crash");
    }
}

#[test]
fn a_crash_before_the_snapshot_is_durable_changes_nothing() {
    let place = follower(20);
    let from = Place::new();
    let sender = Snapshots::open(&from.dir()).unwrap();
    sender.save(&meta(50, 4), chunks(50)).unwrap();
    let file = sender.open_file(50).unwrap().unwrap();
    let mut bytes = vec![0; file.offer().bytes as usize];
    file.read_at(0, &mut bytes).unwrap();
    for arrived in [0, 1, 500, bytes.len()] {
        let snapshots = Snapshots::open(&place.dir()).unwrap();
        let mut receiver = snapshots.receive(file.offer()).unwrap();
        let offset = receiver.offset() as usize;
        receiver.append(&bytes[offset..arrived]).unwrap();
        drop(receiver);
        let (_, found, loaded) = start(&place);
        assert_eq!(loaded, meta(10, 1));
        assert_eq!(found.entries, entries(11..=20, 1, 700));
    }
    // Renamed, and not a step further.
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    let whole = snapshots.receive(file.offer()).unwrap();
    assert!(whole.is_complete());
    whole.finish().unwrap();
    assert_installed(&place, "installed and not reset");
}

#[test]
fn a_log_that_leads_to_the_snapshot_is_kept() {
    let place = follower(80);
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    snapshots.save(&meta(50, 1), chunks(50)).unwrap();
    let (log, found, loaded) = start(&place);
    assert_eq!((loaded.index, log.last_index()), (50, 80));
    assert_eq!(found.entries, entries(11..=80, 1, 700));
    // What is in a snapshot is committed.
    assert_eq!(found.hard_state, hard_state(1, 2, 50));
}

#[test]
fn a_snapshot_of_another_history_is_not_made_to_fit() {
    let place = follower(20);
    let (mut log, found) = place.try_log(&small_files()).unwrap();
    for (index, term) in [(9, 1), (10, 2), (12, 4), (15, 4)] {
        let error = log
            .continue_from(&meta(index, term), &mut found.clone())
            .unwrap_err();
        assert!(
            matches!(error, StorageError::LogDamaged { .. }),
            "{index}: {error}"
        );
    }
    drop(log);
    assert_eq!(place.log().1.entries, entries(11..=20, 1, 700));
}

#[test]
fn the_hard_state_of_a_new_beginning_fits_it() {
    let later = hard_state(9, 2, 70);
    let cases = [
        (hard_state(1, 2, 15), hard_state(4, 0, 50)),
        (hard_state(4, 2, 15), hard_state(4, 2, 50)),
        (later, hard_state(9, 2, 50)),
        (HardState::default(), hard_state(4, 0, 50)),
    ];
    for (given, written) in cases {
        let place = follower(20);
        let dir: DataDir = place.dir();
        let (mut log, _) = Log::open(&dir, &small_files()).unwrap();
        log.reset(START, &given).unwrap();
        drop((log, dir));
        assert_eq!(place.log().1.hard_state, written);
    }
}

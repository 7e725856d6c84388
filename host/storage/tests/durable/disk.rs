//! Syncs and room: a write is one sync, a failed sync ends the process, and a disk without room
//! changes nothing and is got over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use maitred_storage::{DataDir, Log, LogOptions, Space, SpaceLimits, StorageError, WriteTask};

use crate::faulty_disk::{FaultyDisk, Knobs};
use crate::support::{Place, copy_folder, entries, hard_state};

fn open(dir: &DataDir) -> (Log<FaultyDisk>, Arc<Knobs>) {
    let knobs = Arc::new(Knobs::default());
    knobs.room.store(1 << 20, Ordering::Relaxed);
    let disk = FaultyDisk(knobs.clone());
    let (log, _) = Log::open_on(dir, &LogOptions::default(), disk.into()).unwrap();
    (log, knobs)
}

#[test]
fn a_write_of_many_tasks_is_one_sync() {
    let place = Place::new();
    let dir = place.dir();
    let (mut log, knobs) = open(&dir);
    let before = knobs.syncs.load(Ordering::Relaxed);
    let tasks = [1, 4, 7].map(|first| WriteTask {
        entries: entries(first..=first + 2, 1, 100),
        hard_state: Some(hard_state(1, 0, first)),
    });
    log.write_all(&tasks).unwrap();
    assert_eq!(knobs.syncs.load(Ordering::Relaxed), before + 1);
    log.write(&[], Some(&hard_state(2, 0, 7))).unwrap();
    assert_eq!(knobs.syncs.load(Ordering::Relaxed), before + 2);
    log.write(&[], None).unwrap();
    assert_eq!(knobs.syncs.load(Ordering::Relaxed), before + 2);
}

#[test]
fn a_failed_sync_is_not_survived() {
    let place = Place::new();
    let dir = place.dir();
    let (mut log, knobs) = open(&dir);
    knobs.fail_syncs.store(true, Ordering::Relaxed);
    let write = || log.write(&entries(1..=1, 1, 10), Some(&hard_state(1, 0, 0)));
    assert!(catch_unwind(AssertUnwindSafe(write)).is_err());
    // So that closing the file does not panic, too.
    knobs.fail_syncs.store(false, Ordering::Relaxed);
}

#[test]
fn nothing_counts_as_written_before_a_slow_sync_is_done() {
    let place = Place::new();
    let dir = place.dir();
    let (mut log, knobs) = open(&dir);
    let (begun, sync_began) = channel();
    let (let_go, held) = channel::<()>();
    *knobs.before_sync.lock().unwrap() = Some(Box::new(move || {
        begun.send(()).unwrap();
        held.recv().unwrap();
    }));
    let returned = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A vote by itself is synced, as entries are.
        let write = || {
            log.write(&[], Some(&hard_state(2, 3, 0))).unwrap();
            returned.store(true, Ordering::SeqCst);
        };
        let writer = scope.spawn(write);
        let waited = sync_began.recv_timeout(Duration::from_secs(30));
        waited.expect("a write that syncs");
        assert!(!returned.load(Ordering::SeqCst));
        let_go.send(()).unwrap();
        writer.join().unwrap();
    });
    assert!(returned.load(Ordering::SeqCst));
    *knobs.before_sync.lock().unwrap() = None;
    drop((log, dir));
    assert_eq!(place.log().1.hard_state, hard_state(2, 3, 0));
}

#[test]
fn a_write_that_finds_no_room_changes_nothing_and_may_be_tried_again() {
    for room_at_failure in [0, 1, 60, 150, 1000, 5000] {
        let place = Place::new();
        let dir = place.dir();
        let (mut log, knobs) = open(&dir);
        log.write(&entries(1..=5, 1, 1000), Some(&hard_state(1, 0, 0)))
            .unwrap();
        knobs.room.store(room_at_failure, Ordering::Relaxed);
        for _ in 0..3 {
            let error = log
                .write(&entries(4..=20, 2, 1000), Some(&hard_state(2, 0, 0)))
                .unwrap_err();
            assert!(error.is_disk_full(), "{error}");
            assert_eq!(log.last_index(), 5);
        }
        // As a crash would find it.
        let kept = tempfile::tempdir().unwrap();
        copy_folder(&place.path().join("raft"), kept.path());

        knobs.room.store(1 << 20, Ordering::Relaxed);
        log.write(&entries(4..=20, 2, 1000), Some(&hard_state(2, 0, 0)))
            .unwrap();
        drop((log, dir));
        let expected = [entries(1..=3, 1, 1000), entries(4..=20, 2, 1000)].concat();
        assert_eq!(
            place.log().1.entries,
            expected,
            "{room_at_failure} bytes of room"
        );

        let crashed = Place::new();
        copy_folder(kept.path(), &crashed.path().join("raft"));
        let found = crashed.log().1;
        assert_eq!(
            found.entries,
            entries(1..=5, 1, 1000),
            "{room_at_failure} bytes of room"
        );
        assert_eq!(found.hard_state.term, 1);
    }
}

fn limited(low: u64, full: u64) -> LogOptions {
    LogOptions {
        space: SpaceLimits {
            low_bytes: low,
            low_percent: 0,
            full_bytes: full,
        },
        ..LogOptions::default()
    }
}

#[test]
fn the_log_stops_before_the_disk_is_full_and_can_still_be_compacted() {
    let place = Place::new();
    let (mut log, _) = place.log();
    log.write(&entries(1..=5, 1, 10), Some(&hard_state(1, 0, 0)))
        .unwrap();
    drop(log);

    let (mut log, _) = place.try_log(&limited(u64::MAX, 0)).unwrap();
    assert!(matches!(log.space().unwrap(), Space::Low { free } if free > 0));
    log.write(&entries(6..=6, 1, 10), None).unwrap();
    drop(log);

    let (mut log, _) = place.try_log(&limited(0, u64::MAX)).unwrap();
    assert!(matches!(log.space().unwrap(), Space::Full { .. }));
    let error = log.write(&entries(7..=7, 1, 10), None).unwrap_err();
    assert!(matches!(&error, StorageError::DiskFull { free, .. } if *free > 0));
    assert!(error.to_string().contains(place.path().to_str().unwrap()));
    log.compact(4).unwrap();
    drop(log);
    assert_eq!(place.log().1.entries, entries(5..=6, 1, 10));
}

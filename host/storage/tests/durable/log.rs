//! The log as Raft uses it: append, replace a suffix, compact, reset, each across a restart.

use maitred_storage::{LogOptions, LogStart, StorageError, WriteTask};

use crate::support::{Place, entries, entry, hard_state};

#[test]
fn everything_written_comes_back() {
    let place = Place::new();
    let (mut log, empty) = place.log();
    assert!(empty.entries.is_empty() && empty.torn.is_empty());
    assert_eq!(empty.start, LogStart::default());
    log.write(&entries(1..=5, 1, 300), Some(&hard_state(1, 2, 0)))
        .unwrap();
    log.write(&[], Some(&hard_state(1, 2, 5))).unwrap();
    log.write(&entries(6..=6, 2, 0), None).unwrap();
    drop(log);

    let (log, found) = place.log();
    let mut expected = entries(1..=5, 1, 300);
    expected.push(entry(6, 2, 0));
    assert_eq!(found.entries, expected);
    assert_eq!(found.hard_state, hard_state(1, 2, 5));
    assert_eq!((log.last_index(), found.torn.len()), (6, 0));
}

#[test]
fn a_conflicting_suffix_is_replaced() {
    let place = Place::new();
    let (mut log, _) = place.log();
    log.write(&entries(1..=10, 1, 50), Some(&hard_state(1, 0, 3)))
        .unwrap();
    log.write(&entries(4..=6, 2, 50), Some(&hard_state(2, 0, 3)))
        .unwrap();
    assert_eq!(log.last_index(), 6);
    drop(log);
    let expected = [entries(1..=3, 1, 50), entries(4..=6, 2, 50)].concat();
    assert_eq!(place.log().1.entries, expected);
}

#[test]
fn tasks_of_one_write_may_replace_each_other() {
    let place = Place::new();
    let (mut log, _) = place.log();
    log.write(&entries(1..=4, 1, 10), Some(&hard_state(1, 0, 0)))
        .unwrap();
    let task = |entries, state: Option<u64>| WriteTask {
        entries,
        hard_state: state.map(|term| hard_state(term, 0, 2)),
    };
    log.write_all(&[
        task(entries(5..=9, 1, 10), Some(1)),
        task(entries(7..=7, 2, 10), Some(2)),
        task(vec![], None),
        task(entries(3..=3, 3, 10), Some(3)),
        task(entries(4..=5, 3, 10), None),
    ])
    .unwrap();
    drop(log);
    let (log, found) = place.log();
    let expected = [entries(1..=2, 1, 10), entries(3..=5, 3, 10)].concat();
    assert_eq!(found.entries, expected);
    assert_eq!((found.hard_state.term, log.last_index()), (3, 5));
}

#[test]
fn a_caller_that_leaves_a_hole_is_refused_and_nothing_is_written() {
    let place = Place::new();
    let (mut log, _) = place.log();
    log.write(&entries(1..=3, 1, 10), Some(&hard_state(1, 0, 0)))
        .unwrap();
    log.compact(1).unwrap();
    let mut holed = entries(4..=6, 1, 10);
    holed.remove(1);
    for wrong in [entries(5..=6, 1, 10), entries(1..=1, 1, 10), holed] {
        let error = log.write(&wrong, None).unwrap_err();
        assert!(matches!(error, StorageError::OutOfOrder(_)), "{error}");
    }
    assert!(matches!(log.compact(4), Err(StorageError::OutOfOrder(_))));
    drop(log);
    assert_eq!(place.log().1.entries, entries(2..=3, 1, 10));
}

#[test]
fn compaction_survives_a_restart_and_gives_room_back() {
    let place = Place::new();
    let options = LogOptions {
        target_file_bytes: 64 << 10,
        ..LogOptions::default()
    };
    let (mut log, _) = place.try_log(&options).unwrap();
    log.write(&[], Some(&hard_state(3, 1, 0))).unwrap();
    for first in (1..=400).step_by(10) {
        log.write(&entries(first..=first + 9, 3, 1000), None)
            .unwrap();
    }
    let before = log.bytes_on_disk().unwrap();
    assert!(before > 400_000 && place.log_files().len() > 5);
    log.compact(380).unwrap();
    log.compact(200).unwrap();
    assert_eq!(
        log.start(),
        LogStart {
            index: 380,
            term: 3
        }
    );
    assert!(log.bytes_on_disk().unwrap() < before / 4);
    log.write(&entries(401..=402, 3, 1000), None).unwrap();
    drop(log);

    let (mut log, found) = place.try_log(&options).unwrap();
    assert_eq!(
        found.start,
        LogStart {
            index: 380,
            term: 3
        }
    );
    assert_eq!(found.hard_state, hard_state(3, 1, 0));
    assert_eq!(found.entries, entries(381..=402, 3, 1000));
    log.compact(402).unwrap();
    drop(log);

    let (mut log, found) = place.try_log(&options).unwrap();
    assert!(found.entries.is_empty());
    assert_eq!((found.start.index, log.last_index()), (402, 402));
    log.write(&entries(403..=403, 3, 10), None).unwrap();
}

#[test]
fn compaction_knows_the_term_that_it_ends_in() {
    let place = Place::new();
    let (mut log, _) = place.log();
    log.write(&entries(1..=9, 1, 10), Some(&hard_state(1, 0, 0)))
        .unwrap();
    log.write(&entries(4..=6, 2, 10), None).unwrap();
    log.write(&entries(7..=9, 5, 10), None).unwrap();
    for (index, term) in [(2, 1), (3, 1), (4, 2), (6, 2), (8, 5)] {
        log.compact(index).unwrap();
        assert_eq!(log.start(), LogStart { index, term });
        drop(log);
        log = place.log().0;
        assert_eq!(log.start(), LogStart { index, term });
    }
    log.write(&entries(10..=10, 5, 10), None).unwrap();
    log.compact(9).unwrap();
    assert_eq!(log.start(), LogStart { index: 9, term: 5 });
}

#[test]
fn a_snapshot_from_the_leader_replaces_the_log_whichever_is_longer() {
    for (index, then) in [(50, 51), (7, 8)] {
        let place = Place::new();
        let (mut log, _) = place.log();
        log.write(&entries(1..=20, 1, 100), Some(&hard_state(1, 0, 5)))
            .unwrap();
        let start = LogStart { index, term: 4 };
        log.reset(start, &hard_state(4, 2, index)).unwrap();
        assert_eq!(log.last_index(), index);
        drop(log);

        let (mut log, found) = place.log();
        assert!(found.entries.is_empty());
        assert_eq!(
            (found.start, found.hard_state),
            (start, hard_state(4, 2, index))
        );
        log.write(&entries(then..=then + 3, 4, 100), None).unwrap();
        drop(log);
        assert_eq!(place.log().1.entries, entries(then..=then + 3, 4, 100));
    }
}

#[test]
fn a_group_sees_only_its_own_entries() {
    let place = Place::new();
    let (mut log, _) = place.log();
    log.write(&entries(1..=3, 1, 10), Some(&hard_state(1, 0, 0)))
        .unwrap();
    drop(log);
    let other = LogOptions {
        group: 1,
        ..LogOptions::default()
    };
    let (mut log, found) = place.try_log(&other).unwrap();
    assert!(found.entries.is_empty());
    log.write(&entries(1..=1, 9, 10), Some(&hard_state(9, 0, 0)))
        .unwrap();
    drop(log);
    assert_eq!(place.log().1.entries, entries(1..=3, 1, 10));
}

//! Looking at a snapshot, and beginning a new cluster from it: a new directory that a host starts
//! from, or nothing at all.

use std::fs;
use std::path::{Path, PathBuf};

use maitred_storage::snapshot_tools::{inspect, restore};
use maitred_storage::{
    DataDir, HostIdentity, Log, LogOptions, LogStart, RestoreOptions, SnapshotMeta, SnapshotReader,
    SnapshotWriter, Snapshots, StorageError,
};
use raft::eraftpb::ConfState;

use crate::support::{Place, chunks, entries, identity, load, meta};

fn saved(place: &Place) -> PathBuf {
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    snapshots.save(&meta(50, 3), chunks(50)).unwrap()
}

fn options() -> RestoreOptions {
    RestoreOptions {
        identity: identity(1),
        index_bump: 1_000,
        term_bump: 10,
        schema: 6,
    }
}

/// The state's own part of a restore: here each chunk, backwards.
fn reverse(
    new: &SnapshotMeta,
    old: &mut SnapshotReader,
    out: &mut SnapshotWriter,
) -> Result<(), StorageError> {
    assert_eq!((new.index, old.meta().schema), (1_050, 4));
    out.chunk(&new.index.to_le_bytes())?;
    for chunk in old {
        let backwards: Vec<u8> = chunk?.into_iter().rev().collect();
        out.chunk(&backwards)?;
    }
    Ok(())
}

/// For a restore that must be refused before anything is read.
fn never(
    _: &SnapshotMeta,
    _: &mut SnapshotReader,
    _: &mut SnapshotWriter,
) -> Result<(), StorageError> {
    panic!("the restore went on")
}

fn is_left_empty(dir: &Path) -> bool {
    DataDir::peek(dir).unwrap().is_none()
}

#[test]
fn what_is_in_a_file_is_told_once_all_of_it_is_verified() {
    let place = Place::new();
    let file = saved(&place);
    let info = inspect(&file).unwrap();
    let good = fs::read(&file).unwrap();
    assert_eq!(info.meta, meta(50, 3));
    assert_eq!((info.chunks, info.bytes), (5, good.len() as u64));
    assert_eq!(info.digest.0, good[good.len() - 32..]);

    let copy = place.path().join("copy");
    for case in 0..good.len() {
        let mut bytes = good.clone();
        bytes[case] ^= 4;
        for bytes in [&bytes[..], &good[..case]] {
            fs::write(&copy, bytes).unwrap();
            let error = inspect(&copy).unwrap_err();
            assert!(
                matches!(error, StorageError::SnapshotRefused { .. }),
                "byte {case}: {error}"
            );
        }
    }
    let missing = inspect(&place.path().join("nowhere")).unwrap_err();
    assert!(matches!(missing, StorageError::Io { .. }));
}

#[test]
fn a_host_starts_from_what_was_restored_beyond_the_old_cluster() {
    let place = Place::new();
    let file = saved(&place);
    let root = tempfile::tempdir().unwrap();
    let new = root.path().join("new");
    let made = restore(&file, &new, &options(), reverse).unwrap();
    let expected = SnapshotMeta {
        index: 1_050,
        term: 13,
        conf_state: ConfState {
            voters: vec![1],
            ..ConfState::default()
        },
        schema: 6,
    };
    assert_eq!(made, expected);

    let dir = DataDir::open(&new).unwrap();
    assert_eq!(*dir.identity(), identity(1));
    let (mut log, mut found) = Log::open(&dir, &LogOptions::default()).unwrap();
    assert_eq!(
        found.start,
        LogStart {
            index: 1_050,
            term: 13
        }
    );
    let state = &found.hard_state;
    assert_eq!((state.term, state.vote, state.commit), (13, 0, 1_050));
    assert!(found.entries.is_empty());
    let snapshots = Snapshots::open(&dir).unwrap();
    let (meta, content) = load(&snapshots, 1_050).unwrap().unwrap();
    assert_eq!(meta, expected);
    let mut content_expected = vec![1_050_u64.to_le_bytes().to_vec()];
    content_expected.extend(chunks(50));
    assert_eq!(content, content_expected);
    assert!(!log.continue_from(&meta, &mut found).unwrap());
    log.write(&entries(1_051..=1_051, 14, 10), None).unwrap();
}

#[test]
fn a_directory_that_is_used_is_left_as_it_is() {
    let place = Place::new();
    let file = saved(&place);
    let target = Place::new();
    let before = fs::read(target.path().join("VERSION")).unwrap();
    let refused = restore(&file, target.path(), &options(), never).unwrap_err();
    assert!(matches!(refused, StorageError::Exists { .. }));
    let held = target.dir();
    let refused = restore(&file, target.path(), &options(), never).unwrap_err();
    assert!(matches!(refused, StorageError::Exists { .. }));
    drop(held);
    assert_eq!(fs::read(target.path().join("VERSION")).unwrap(), before);

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("thesis.txt"), "mine").unwrap();
    let refused = restore(&file, foreign.path(), &options(), never).unwrap_err();
    assert!(matches!(refused, StorageError::NotOurs { .. }));

    let empty = tempfile::tempdir().unwrap();
    // Somebody else is making one there.
    let lock = fs::File::create(empty.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let refused = restore(&file, empty.path(), &options(), never).unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }));
    lock.unlock().unwrap();
    restore(&file, empty.path(), &options(), reverse).unwrap();
}

#[test]
fn a_restore_that_fails_leaves_no_data_directory_and_may_be_done_again() {
    let place = Place::new();
    let file = saved(&place);
    let root = tempfile::tempdir().unwrap();
    let failed = restore(&file, root.path(), &options(), |new, old, out| {
        reverse(new, old, out)?;
        Err(StorageError::OutOfOrder("the state says no".to_owned()))
    });
    assert!(failed.unwrap_err().to_string().contains("says no"));
    assert!(is_left_empty(root.path()));

    let good = fs::read(&file).unwrap();
    let bad = place.path().join("bad");
    fs::write(&bad, &good[..good.len() - 1]).unwrap();
    let refused = restore(&bad, root.path(), &options(), never).unwrap_err();
    assert!(matches!(refused, StorageError::SnapshotRefused { .. }));
    assert!(is_left_empty(root.path()));
    restore(&file, root.path(), &options(), reverse).unwrap();
}

#[test]
fn a_restore_must_go_forward_and_have_a_host() {
    let place = Place::new();
    let file = saved(&place);
    let root = tempfile::tempdir().unwrap();
    let joining = HostIdentity::joining(1, identity(1).name);
    let mut wrong = [options(), options(), options(), options(), options()];
    wrong[0].index_bump = 0;
    wrong[1].term_bump = 0;
    wrong[2].identity = joining;
    wrong[3].index_bump = u64::MAX;
    wrong[4].term_bump = u64::MAX - 3;
    for options in wrong {
        assert!(restore(&file, root.path(), &options, never).is_err());
        assert!(is_left_empty(root.path()));
    }
}

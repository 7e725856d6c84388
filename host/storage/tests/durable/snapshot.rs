//! Snapshots: whole or not at all, the older one when the newest is damaged, and never one that the
//! log does not lead on from.

use std::fs;

use maitred_storage::{DataDir, SnapshotMeta, Snapshots, StorageError};

use crate::support::{self, Place, chunks, load};

fn meta(index: u64) -> SnapshotMeta {
    support::meta(index, index / 10)
}

fn path(dir: &DataDir, index: u64) -> std::path::PathBuf {
    dir.snap().join(format!("{index:020}.snap"))
}

#[test]
fn the_newest_of_two_is_loaded_and_the_log_is_cut_at_the_older() {
    let place = Place::new();
    let dir = place.dir();
    let snapshots = Snapshots::open(&dir).unwrap();
    assert_eq!(load(&snapshots, 0).unwrap(), None);
    assert_eq!(snapshots.newest_index().unwrap(), 0);
    for index in [10, 20, 30] {
        let floor = if index == 30 { 10 } else { 0 };
        assert_eq!(snapshots.compact_floor().unwrap(), floor);
        let saved = snapshots.save(&meta(index), chunks(index)).unwrap();
        assert_eq!(saved, path(&dir, index));
    }
    assert_eq!(snapshots.compact_floor().unwrap(), 20);
    assert!(!path(&dir, 10).exists());
    assert_eq!(load(&snapshots, 20).unwrap(), Some((meta(30), chunks(30))));
    let older = snapshots.save(&meta(29), chunks(29)).unwrap_err();
    assert!(matches!(older, StorageError::OutOfOrder(_)));
    // The same one again, as a leader may send it.
    snapshots.save(&meta(30), chunks(30)).unwrap();
    assert_eq!(snapshots.compact_floor().unwrap(), 20);
}

#[test]
fn a_file_that_somebody_named_by_hand_is_neither_loaded_nor_removed() {
    let place = Place::new();
    let dir = place.dir();
    let snapshots = Snapshots::open(&dir).unwrap();
    let saved = snapshots.save(&meta(10), chunks(10)).unwrap();
    let copy = dir.snap().join("9.snap");
    fs::copy(saved, &copy).unwrap();
    for index in [20, 30] {
        snapshots.save(&meta(index), chunks(index)).unwrap();
    }
    assert_eq!(snapshots.compact_floor().unwrap(), 20);
    assert_eq!(load(&snapshots, 0).unwrap(), Some((meta(30), chunks(30))));
    assert!(copy.exists() && !path(&dir, 10).exists());
}

#[test]
fn an_unfinished_snapshot_leaves_nothing() {
    let place = Place::new();
    let dir = place.dir();
    let snapshots = Snapshots::open(&dir).unwrap();
    let mut writer = snapshots.begin(&meta(10)).unwrap();
    writer.chunk(&[1; 50]).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(dir.snap()).unwrap().count(), 0);

    fs::write(dir.snap().join("00000000000000000010.snap.tmp"), "half").unwrap();
    let snapshots = Snapshots::open(&dir).unwrap();
    assert_eq!(fs::read_dir(dir.snap()).unwrap().count(), 0);
    assert_eq!(load(&snapshots, 0).unwrap(), None);
}

#[test]
fn every_damaged_byte_is_found_before_a_chunk_is_given() {
    let place = Place::new();
    let dir = place.dir();
    let snapshots = Snapshots::open(&dir).unwrap();
    let file = snapshots.save(&meta(10), chunks(10)).unwrap();
    let good = fs::read(&file).unwrap();
    let mut cases: Vec<Vec<u8>> = (0..good.len())
        .map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            bytes
        })
        .collect();
    cases.extend((0..good.len()).map(|length| good[..length].to_vec()));
    cases.push([&good[..], b"x"].concat());
    for (case, bytes) in cases.into_iter().enumerate() {
        fs::write(&file, bytes).unwrap();
        let loaded = snapshots.latest(0, |_| -> Result<(), StorageError> {
            panic!("case {case}: a chunk of a damaged snapshot")
        });
        let error = loaded.unwrap_err();
        assert!(
            matches!(error, StorageError::SnapshotDamaged { .. }),
            "case {case}: {error}"
        );
        assert!(error.to_string().contains(".snap"), "{error}");
    }
}

#[test]
fn the_older_one_serves_when_the_log_leads_on_from_it() {
    let place = Place::new();
    let dir = place.dir();
    let snapshots = Snapshots::open(&dir).unwrap();
    snapshots.save(&meta(10), chunks(10)).unwrap();
    let newest = snapshots.save(&meta(20), chunks(20)).unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    bytes[300] ^= 1;
    fs::write(&newest, bytes).unwrap();

    // A log that begins after 15 leads on from 20 only.
    let error = load(&snapshots, 15).unwrap_err();
    assert!(matches!(error, StorageError::SnapshotDamaged { .. }));
    assert!(newest.exists());
    assert_eq!(load(&snapshots, 10).unwrap(), Some((meta(10), chunks(10))));
    assert_eq!(snapshots.newest_index().unwrap(), 10);
    assert!(newest.with_extension("snap.damaged").exists());
    assert_eq!(snapshots.compact_floor().unwrap(), 0);
    // The next good one ends the interest in it.
    snapshots.save(&meta(20), chunks(20)).unwrap();
    assert!(!newest.with_extension("snap.damaged").exists());
    assert_eq!(load(&snapshots, 10).unwrap(), Some((meta(20), chunks(20))));
}

#[test]
fn a_log_that_needs_a_snapshot_which_is_not_there_is_told_so() {
    let place = Place::new();
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    let missing = load(&snapshots, 5).unwrap_err();
    assert!(matches!(
        missing,
        StorageError::SnapshotMissing { log_start: 5, .. }
    ));
    snapshots.save(&meta(10), chunks(10)).unwrap();
    let short = load(&snapshots, 11).unwrap_err();
    assert!(matches!(
        short,
        StorageError::SnapshotMissing { log_start: 11, .. }
    ));
}

#[test]
fn one_is_read_to_its_end_while_newer_ones_replace_it() {
    let place = Place::new();
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    snapshots.save(&meta(10), chunks(10)).unwrap();
    assert!(snapshots.read(11).unwrap().is_none());
    let mut reader = snapshots.read(10).unwrap().unwrap();
    assert_eq!(*reader.meta(), meta(10));
    let mut read = vec![reader.next().unwrap().unwrap()];
    for index in [20, 30, 40] {
        snapshots.save(&meta(index), chunks(index)).unwrap();
    }
    read.extend(reader.map(Result::unwrap));
    assert_eq!(read, chunks(10));
}

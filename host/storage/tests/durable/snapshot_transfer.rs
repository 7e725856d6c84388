//! Fetching a snapshot: resumed where it stopped, never believed before it is whole, and served to
//! its end though newer ones come.

use std::fs;
use std::path::PathBuf;

use maitred_protocol::Digest;
use maitred_protocol::limits::SNAPSHOT_BYTES_MAX;
use maitred_storage::{SnapshotFile, SnapshotOffer, Snapshots, StorageError};

use crate::support::{Place, chunks, load, meta};

/// A host that has a snapshot at `index`.
fn sender(index: u64) -> (Place, Snapshots, SnapshotFile) {
    let place = Place::new();
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    snapshots.save(&meta(index, 3), chunks(index)).unwrap();
    let file = snapshots.open_file(index).unwrap().unwrap();
    (place, snapshots, file)
}

fn bytes_of(file: &SnapshotFile) -> Vec<u8> {
    let mut bytes = vec![0; file.offer().bytes as usize + 10];
    let read = file.read_at(0, &mut bytes).unwrap();
    bytes.truncate(read);
    bytes
}

fn parts(place: &Place) -> Vec<PathBuf> {
    let listed = fs::read_dir(place.path().join("snap")).unwrap();
    let files = listed.map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "part"))
        .collect()
}

#[test]
fn a_served_file_is_read_to_its_end_though_it_is_pruned() {
    let (place, snapshots, file) = sender(10);
    assert!(snapshots.open_file(11).unwrap().is_none());
    let path = place.path().join("snap").join(format!("{:020}.snap", 10));
    let whole = fs::read(&path).unwrap();
    let offer = file.offer();
    assert_eq!((offer.index, offer.term), (10, 3));
    assert_eq!(*file.meta(), meta(10, 3));
    assert_eq!(offer.bytes, whole.len() as u64);
    let (front, hash) = whole.split_at(whole.len() - 32);
    assert_eq!(offer.digest, Digest::of(front));
    assert_eq!(offer.digest.0, hash);
    for index in [20, 30, 40] {
        snapshots.save(&meta(index, 3), chunks(index)).unwrap();
    }
    assert!(!path.exists());
    assert_eq!(bytes_of(&file), whole);
    let mut some = [0; 7];
    assert_eq!(file.read_at(100, &mut some).unwrap(), 7);
    assert_eq!(some, whole[100..107]);
    for beyond in [offer.bytes, offer.bytes + 1, u64::MAX] {
        assert_eq!(file.read_at(beyond, &mut some).unwrap(), 0);
    }
}

#[test]
fn a_transfer_goes_on_after_restarts_where_it_stopped() {
    let (_from, _, file) = sender(50);
    let (bytes, offer) = (bytes_of(&file), file.offer());
    let place = Place::new();
    let mut restarts = 0;
    loop {
        // As after a restart: everything is opened again.
        let snapshots = Snapshots::open(&place.dir()).unwrap();
        let partial = snapshots.partial(50).unwrap();
        let mut receiver = snapshots.receive(offer).unwrap();
        let offset = receiver.offset();
        if restarts > 0 {
            assert_eq!(partial, Some((offer.digest, offset)));
        }
        assert_eq!(offset, restarts * 200);
        let rest = &bytes[offset as usize..];
        receiver.append(&rest[..rest.len().min(200)]).unwrap();
        if receiver.is_complete() {
            assert_eq!(receiver.finish().unwrap(), meta(50, 3));
            break;
        }
        assert_eq!(load(&snapshots, 0).unwrap(), None);
        restarts += 1;
    }
    assert!(restarts > 3);
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    assert_eq!(
        load(&snapshots, 50).unwrap(),
        Some((meta(50, 3), chunks(50)))
    );
    snapshots.verify(50).unwrap();
    assert_eq!(bytes_of(&snapshots.open_file(50).unwrap().unwrap()), bytes);
    assert_eq!(parts(&place), [] as [PathBuf; 0]);
}

#[test]
fn whatever_byte_is_altered_or_missing_it_is_refused_and_fetched_again() {
    let (_from, _, file) = sender(50);
    let (good, offer) = (bytes_of(&file), file.offer());
    let place = Place::new();
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    snapshots.save(&meta(40, 3), chunks(40)).unwrap();
    let mut cases: Vec<Vec<u8>> = (0..good.len())
        .map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            bytes
        })
        .collect();
    cases.extend((0..good.len()).map(|length| good[..length].to_vec()));
    for (case, bytes) in cases.into_iter().enumerate() {
        let mut receiver = snapshots.receive(offer).unwrap();
        assert_eq!(receiver.offset(), 0, "case {case}");
        receiver.append(&bytes).unwrap();
        let error = receiver.finish().unwrap_err();
        assert!(
            matches!(error, StorageError::SnapshotRefused { .. }),
            "case {case}: {error}"
        );
        assert!(parts(&place).is_empty(), "case {case}");
        assert_eq!(snapshots.newest_index().unwrap(), 40, "case {case}");
    }
    // A sender that lies of the length: the file ends where it says, but is no snapshot.
    for bytes in [0, 31, 32, offer.bytes - 1] {
        let lie = SnapshotOffer { bytes, ..offer };
        let mut receiver = snapshots.receive(lie).unwrap();
        receiver.append(&good[..bytes as usize]).unwrap();
        let error = receiver.finish().unwrap_err();
        assert!(matches!(error, StorageError::SnapshotRefused { .. }));
    }
    let mut receiver = snapshots.receive(offer).unwrap();
    receiver.append(&good).unwrap();
    receiver.finish().unwrap();
    assert_eq!(
        load(&snapshots, 50).unwrap(),
        Some((meta(50, 3), chunks(50)))
    );
}

#[test]
fn an_intact_snapshot_that_is_not_the_one_offered_is_refused() {
    let (_from, _, file) = sender(50);
    let (good, offer) = (bytes_of(&file), file.offer());
    let place = Place::new();
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    let (index, term, digest) = (51, 4, Digest([1; 32]));
    for lie in [
        SnapshotOffer { index, ..offer },
        SnapshotOffer { term, ..offer },
        SnapshotOffer { digest, ..offer },
    ] {
        let mut receiver = snapshots.receive(lie).unwrap();
        receiver.append(&good).unwrap();
        let error = receiver.finish().unwrap_err();
        assert!(matches!(error, StorageError::SnapshotRefused { .. }));
        assert_eq!(snapshots.newest_index().unwrap(), 0);
    }
}

#[test]
fn more_than_was_offered_or_may_be_is_refused() {
    let (_from, _, file) = sender(50);
    let (good, offer) = (bytes_of(&file), file.offer());
    let place = Place::new();
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    let mut receiver = snapshots.receive(offer).unwrap();
    receiver.append(&good).unwrap();
    let error = receiver.append(&[0]).unwrap_err();
    assert!(matches!(error, StorageError::SnapshotRefused { .. }));
    assert!(parts(&place).is_empty());
    let huge = SnapshotOffer {
        bytes: SNAPSHOT_BYTES_MAX + 1,
        ..offer
    };
    let error = snapshots.receive(huge).unwrap_err();
    assert!(matches!(error, StorageError::TooLarge { .. }));
    assert!(parts(&place).is_empty());
}

#[test]
fn parts_that_nobody_will_go_on_with_are_removed() {
    let (_from, _, file) = sender(50);
    let (good, offer) = (bytes_of(&file), file.offer());
    let place = Place::new();
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    let mut old = snapshots.receive(offer).unwrap();
    old.append(&good[..100]).unwrap();
    drop(old);
    // The leader has a newer one by now.
    let newer = SnapshotOffer {
        index: 60,
        digest: Digest([7; 32]),
        ..offer
    };
    drop(snapshots.receive(newer).unwrap());
    assert_eq!(snapshots.partial(50).unwrap(), None);
    assert_eq!(snapshots.partial(60).unwrap(), Some((newer.digest, 0)));
    fs::write(place.path().join("snap/junk.part"), "x").unwrap();
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    assert_eq!(parts(&place).len(), 1);

    // Meanwhile the host got there by itself.
    let mut late = snapshots.receive(offer).unwrap();
    late.append(&good).unwrap();
    snapshots.save(&meta(60, 3), chunks(60)).unwrap();
    let error = late.finish().unwrap_err();
    assert!(matches!(error, StorageError::SnapshotRefused { .. }));
    let error = snapshots.receive(offer).unwrap_err();
    assert!(matches!(error, StorageError::SnapshotRefused { .. }));
    drop(snapshots.receive(newer).unwrap());
    assert_eq!(parts(&place).len(), 1);
    let snapshots = Snapshots::open(&place.dir()).unwrap();
    assert!(parts(&place).is_empty());
    assert_eq!(
        load(&snapshots, 0).unwrap(),
        Some((meta(60, 3), chunks(60)))
    );
}

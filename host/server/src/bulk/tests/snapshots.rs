//! Snapshots: fetched, gone on with, refused.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use maitred_protocol::{Digest, PeerRequest, PeerResponse};
use maitred_registry::Registry;
use maitred_replica::Input;
use maitred_storage::SnapshotOffer;

use super::fake::{Fake, Reply};
use super::{Group, PATIENCE, Side, count, peer, registry, save, until, within};
use crate::bulk::Offered;

const INDEX: u64 = 40;
const TERM: u64 = 3;

fn offered(from: u64) -> Offered {
    Offered {
        from,
        index: INDEX,
        term: TERM,
    }
}

/// Has a side fetch, and says what it installs.
fn install(side: &Side, offered: Offered) -> Receiver<Registry> {
    let (installed, registries) = channel();
    side.bulk.install(offered, move |registry| {
        installed.send(registry).unwrap();
        Input::Tick
    });
    registries
}

/// The whole file of a snapshot, with its length and hash.
fn file(side: &Side) -> (Vec<u8>, Digest) {
    let file = side.snapshots.open_file(INDEX).unwrap().unwrap();
    let mut bytes = vec![0; usize::try_from(file.offer().bytes).unwrap()];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    (bytes, file.offer().digest)
}

/// A file to lie about, and a side that fetches from host 2.
fn setting(group: &Group) -> (Registry, Vec<u8>, Digest, Side) {
    let source = Side::new(group, 9);
    let state = registry(INDEX);
    save(&source.snapshots, &state, TERM);
    let (bytes, digest) = file(&source);
    (state, bytes, digest, Side::new(group, 1))
}

fn offsets(fake: &Fake) -> Vec<u64> {
    let asked = fake.asked();
    let offsets = asked.iter().map(|request| match request {
        PeerRequest::Snapshot {
            index: INDEX,
            offset,
        } => *offset,
        other => panic!("{other:?}"),
    });
    offsets.collect()
}

async fn installed(registries: Receiver<Registry>) -> Registry {
    let waited = tokio::task::spawn_blocking(move || registries.recv_timeout(PATIENCE));
    waited.await.unwrap().expect("nothing was installed")
}

/// The fetch has ended and installed nothing.
async fn given_up(side: &Side, registries: Receiver<Registry>) {
    until(|| count(&side.metrics.snapshots_fetch_failed) == 1).await;
    assert!(registries.try_recv().is_err());
    assert_eq!(side.snapshots.newest_index().unwrap(), 0);
    assert_eq!(side.snapshots.partial(INDEX).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_comes_whole_and_is_durable_before_it_is_installed() {
    let group = Group::new();
    let (leader, follower) = (Side::new(&group, 2), Side::new(&group, 1));
    let state = registry(INDEX);
    save(&leader.snapshots, &state, TERM);
    follower.bulk.set_peers(vec![leader.peer()]);
    let registries = install(&follower, offered(2));
    assert_eq!(installed(registries).await.digest(), state.digest());
    assert_eq!(file(&follower), file(&leader));
    assert_eq!(
        count(&follower.metrics.snapshot_bytes_fetched),
        count(&leader.metrics.bulk_bytes_sent)
    );
    // Offered again, it is loaded from this disk.
    let asked = count(&follower.metrics.peer_calls);
    until(|| count(&follower.metrics.snapshots_fetched) == 1).await;
    let registries = again(&follower).await;
    assert_eq!(registries.digest(), state.digest());
    assert_eq!(count(&follower.metrics.peer_calls), asked);
}

/// Offers until the fetch before has ended for good.
async fn again(side: &Side) -> Registry {
    within(async {
        loop {
            let registries = install(side, offered(2));
            if let Ok(registry) = tokio::task::spawn_blocking(move || registries.recv())
                .await
                .unwrap()
            {
                return registry;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_where_it_was_cut() {
    let group = Group::new();
    let (state, bytes, digest, side) = setting(&group);
    let (first, second) = (bytes.len() / 3, bytes.len() * 2 / 3);
    let (total, sent) = (bytes.len() as u64, bytes.clone());
    let metrics = Arc::clone(&side.metrics);
    let fake = Fake::new(&group, 2, move |before, request| {
        let &PeerRequest::Snapshot { offset, .. } = request else {
            panic!("{request:?}")
        };
        let from = usize::try_from(offset).unwrap();
        let to = [first, second].get(before).copied().unwrap_or(sent.len());
        let reply = Reply::file(total, digest, offset, &sent[from..to]);
        let metrics = Arc::clone(&metrics);
        match before {
            // The connection is lost once the bytes have come; then an answer ends early.
            0 => reply.cut_when(move || count(&metrics.snapshot_bytes_fetched) >= to as u64),
            _ => reply,
        }
    });
    side.bulk.set_peers(vec![peer(2, fake.address)]);
    let registries = install(&side, offered(2));
    // The same one again changes nothing.
    let ignored = install(&side, offered(2));
    assert_eq!(installed(registries).await.digest(), state.digest());
    assert!(ignored.recv().is_err());
    assert_eq!(offsets(&fake), [0, first as u64, second as u64]);
    assert_eq!(file(&side).0, bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_snapshot_is_refused_and_fetched_again_from_its_beginning() {
    let group = Group::new();
    let (state, bytes, digest, side) = setting(&group);
    let total = bytes.len() as u64;
    let fake = Fake::new(&group, 2, move |before, _| {
        let mut sent = bytes.clone();
        if before == 0 {
            let middle = sent.len() / 2;
            sent[middle] ^= 1;
        }
        Reply::file(total, digest, 0, &sent)
    });
    side.bulk.set_peers(vec![peer(2, fake.address)]);
    let registries = install(&side, offered(2));
    assert_eq!(installed(registries).await.digest(), state.digest());
    assert_eq!(offsets(&fake), [0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_always_wrong_is_given_up_and_nothing_of_it_is_kept() {
    let group = Group::new();
    let (_, bytes, digest, _) = setting(&group);
    let whole = bytes.len();
    let mut altered = bytes.clone();
    altered[whole - 40] ^= 0x80;
    let mut longer = bytes.clone();
    longer.extend_from_slice(b"more");
    let wrong = [
        // Altered; cut short; longer; of another hash; one that has the hash of what it is not.
        (altered.clone(), digest),
        (bytes[..whole - 1].to_vec(), digest),
        (longer, digest),
        (bytes, Digest([1; 32])),
        (altered, Digest([1; 32])),
    ];
    for (sent, digest) in wrong {
        let side = Side::new(&group, 1);
        let fake = Fake::new(&group, 2, move |_, _| {
            Reply::file(sent.len() as u64, digest, 0, &sent)
        });
        side.bulk.set_peers(vec![peer(2, fake.address)]);
        let registries = install(&side, offered(2));
        given_up(&side, registries).await;
        assert_eq!(offsets(&fake), [0, 0, 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_snapshot_than_the_one_offered_is_refused() {
    let group = Group::new();
    let (_, bytes, digest, side) = setting(&group);
    let total = bytes.len() as u64;
    let fake = Fake::new(&group, 2, move |_, _| Reply::file(total, digest, 0, &bytes));
    side.bulk.set_peers(vec![peer(2, fake.address)]);
    let other = Offered {
        term: TERM + 1,
        ..offered(2)
    };
    let registries = install(&side, other);
    given_up(&side, registries).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_gone_is_not_asked_for_again() {
    let group = Group::new();
    let side = Side::new(&group, 1);
    let fake = Fake::new(&group, 2, |_, _| Reply::say(PeerResponse::NotFound));
    side.bulk.set_peers(vec![peer(2, fake.address)]);
    let registries = install(&side, offered(2));
    given_up(&side, registries).await;
    assert_eq!(offsets(&fake), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_not_sent_and_a_new_one_is_taken() {
    let group = Group::new();
    let (leader, follower) = (Side::new(&group, 2), Side::new(&group, 1));
    save(&leader.snapshots, &registry(INDEX), TERM);
    let path = std::fs::read_dir(leader.dir.snap()).unwrap().next();
    let path = path.unwrap().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() - 40;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let inputs = leader.replica(&[], |_| {
        Some(maitred_protocol::Response::Done(
            maitred_protocol::Revision(1),
        ))
    });
    follower.bulk.set_peers(vec![leader.peer()]);
    let asked = PeerRequest::Snapshot {
        index: INDEX,
        offset: 0,
    };
    let called = within(follower.bulk.call(2, &asked, PATIENCE))
        .await
        .unwrap();
    assert!(matches!(called, PeerResponse::Unavailable(_)), "{called:?}");
    assert!(matches!(
        inputs.recv_timeout(PATIENCE),
        Ok(Input::TakeSnapshot(_))
    ));
    assert_eq!(count(&leader.metrics.bulk_bytes_sent), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_longer_file_does_not_hold_up_another_of_the_same_index() {
    let group = Group::new();
    let (state, bytes, digest, side) = setting(&group);
    let total = bytes.len() as u64;
    let longer = SnapshotOffer {
        index: INDEX,
        term: TERM,
        bytes: total + 9,
        digest: Digest([3; 32]),
    };
    let mut left = side.snapshots.receive(longer).unwrap();
    left.append(&vec![0; bytes.len() + 8]).unwrap();
    drop(left);
    let fake = Fake::new(&group, 2, move |_, request| match request {
        PeerRequest::Snapshot { offset: 0, .. } => Reply::file(total, digest, 0, &bytes),
        _ => Reply::say(PeerResponse::Refused("it has not so many bytes".to_owned())),
    });
    side.bulk.set_peers(vec![peer(2, fake.address)]);
    let registries = install(&side, offered(2));
    assert_eq!(installed(registries).await.digest(), state.digest());
    assert_eq!(offsets(&fake), [total + 8, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_our_own_that_is_damaged_from_its_first_byte_is_fetched_anew() {
    let group = Group::new();
    let (leader, follower) = (Side::new(&group, 2), Side::new(&group, 1));
    let state = registry(INDEX);
    save(&leader.snapshots, &state, TERM);
    save(&follower.snapshots, &state, TERM);
    let path = std::fs::read_dir(follower.dir.snap()).unwrap().next();
    let path = path.unwrap().unwrap().path();
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[0] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    follower.bulk.set_peers(vec![leader.peer()]);
    let registries = install(&follower, offered(2));
    assert_eq!(installed(registries).await.digest(), state.digest());
    assert_eq!(file(&follower), file(&leader));
}

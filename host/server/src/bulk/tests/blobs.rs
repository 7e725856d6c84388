//! Modules: fetched from whoever has them, and held by most before they are recorded.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use maitred_protocol::{
    Digest, ModuleKind, PeerRequest, PeerResponse, Rejection, Response, Unavailable,
};

use super::fake::{Fake, Reply};
use super::{Group, PATIENCE, Side, count, peer, until, within};
use crate::module_service::{Subject, Wish};

const BYTES: &[u8] = b"the bytes of a module";

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_fetched_from_whoever_has_it_the_leader_first() {
    let group = Group::new();
    let digest = Digest::of(BYTES);
    let side = Side::new(&group, 1);
    let lacks = Fake::new(&group, 2, |_, _| Reply::say(PeerResponse::NotFound));
    let lies = Fake::new(&group, 3, move |_, _| {
        let wrong = vec![0; BYTES.len()];
        Reply::file(BYTES.len() as u64, digest, 0, &wrong)
    });
    let has = Side::new(&group, 4);
    has.blobs.put(digest, BYTES).unwrap();
    let peers = [peer(2, lacks.address), peer(3, lies.address), has.peer()];
    side.bulk.set_peers(peers.to_vec());
    side.bulk.set_leader(Some(3), None);
    within(side.bulk.fetch_blob(digest)).await.unwrap();
    assert_eq!(side.blobs.get(digest).unwrap().unwrap(), BYTES);
    assert_eq!(lies.asked(), [PeerRequest::Blob(digest)]);
    assert_eq!(lacks.asked(), [PeerRequest::Blob(digest)]);
    assert_eq!(count(&side.metrics.blobs_fetched), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_nobody_has_is_missing_with_every_hosts_reason() {
    let group = Group::new();
    let side = Side::new(&group, 1);
    let digest = Digest::of(BYTES);
    let alone = within(side.bulk.fetch_blob(digest)).await.unwrap_err();
    assert!(alone.contains("no other host"), "{alone}");
    let lacks = Fake::new(&group, 2, |_, _| Reply::say(PeerResponse::NotFound));
    let large = Fake::new(&group, 3, move |_, _| {
        Reply::file(u64::MAX, digest, 0, BYTES)
    });
    let peers = vec![peer(2, lacks.address), peer(3, large.address)];
    side.bulk.set_peers(peers);
    let why = within(side.bulk.fetch_blob(digest)).await.unwrap_err();
    assert!(why.contains("host 2: it does not have it"), "{why}");
    assert!(why.contains("host 3: its answer does not fit"), "{why}");
    assert!(!side.blobs.contains(digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_and_not_here_is_fetched() {
    let group = Group::new();
    let (side, has) = (Side::new(&group, 1), Side::new(&group, 2));
    let digest = Digest::of(BYTES);
    has.blobs.put(digest, BYTES).unwrap();
    side.bulk.set_peers(vec![has.peer()]);
    let modules = Arc::clone(&side.modules);
    let running = std::thread::spawn(move || modules.run());
    let mut wish = Wish::default();
    wish.recorded.insert(digest);
    side.modules.want(wish);
    until(|| side.blobs.contains(digest)).await;
    side.modules.close();
    running.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_waits_for_most_of_those_who_vote() {
    let group = Group::new();
    let leader = Side::new(&group, 1);
    let _inputs = leader.replica(&[1, 2, 3], |_| None);
    let digest = Digest::of(BYTES);
    leader.blobs.put(digest, BYTES).unwrap();
    let follower = Side::new(&group, 2);
    let full = || Reply::say(PeerResponse::Refused("its disk is full".to_owned()));
    let (refuses, too) = (
        Fake::new(&group, 2, move |_, _| full()),
        Fake::new(&group, 3, move |_, _| full()),
    );
    leader
        .bulk
        .set_peers(vec![peer(2, refuses.address), peer(3, too.address)]);
    let no = within(leader.bulk.hold(digest, BYTES.len() as u64)).await;
    let Response::Unavailable(Unavailable::Overloaded(why)) = *no.unwrap_err() else {
        panic!("another answer");
    };
    assert!(why.contains("1 of the 3 hosts"), "{why}");
    assert!(why.contains("host host-3 (3): its disk is full"), "{why}");

    follower.bulk.set_peers(vec![leader.peer()]);
    leader
        .bulk
        .set_peers(vec![follower.peer(), peer(3, too.address)]);
    within(leader.bulk.hold(digest, BYTES.len() as u64))
        .await
        .unwrap();
    // It said so only once it had them.
    assert_eq!(follower.blobs.get(digest).unwrap().unwrap(), BYTES);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_voter_nobody_is_asked() {
    let group = Group::new();
    let leader = Side::new(&group, 1);
    let _inputs = leader.replica(&[1], |_| None);
    let held = leader.bulk.hold(Digest::of(BYTES), BYTES.len() as u64);
    within(held).await.unwrap();
    assert_eq!(count(&leader.metrics.peer_calls), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_for_another_host_outlives_the_tidying() {
    let group = Group::new();
    let side = Side::new(&group, 2);
    let (held, stray) = (Digest::of(BYTES), Digest::of(b"stray"));
    let leader = Fake::new(&group, 1, move |_, _| {
        Reply::file(BYTES.len() as u64, held, 0, BYTES)
    });
    side.bulk.set_peers(vec![peer(1, leader.address)]);
    // As the leader's call does.
    let caller = Side::new(&group, 1);
    caller.bulk.set_peers(vec![side.peer()]);
    let request = PeerRequest::Hold {
        digest: held,
        bytes: BYTES.len() as u64,
    };
    let answer = within(caller.bulk.call(2, &request, PATIENCE)).await;
    assert_eq!(answer.unwrap(), PeerResponse::Held);
    side.blobs.put(stray, b"stray").unwrap();
    let modules = Arc::clone(&side.modules);
    let running = std::thread::spawn(move || modules.run());
    side.modules.want(Wish::default());
    until(|| !side.blobs.contains(stray)).await;
    // The thread has ended, so it has gone through all of them.
    side.modules.close();
    running.join().unwrap();
    assert!(side.blobs.contains(held));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_was_announced_is_not_held() {
    let group = Group::new();
    let side = Side::new(&group, 2);
    let digest = Digest::of(BYTES);
    let leader = Fake::new(&group, 1, move |_, _| {
        Reply::file(BYTES.len() as u64, digest, 0, BYTES)
    });
    side.bulk.set_peers(vec![peer(1, leader.address)]);
    let caller = Side::new(&group, 1);
    caller.bulk.set_peers(vec![side.peer()]);
    let request = PeerRequest::Hold { digest, bytes: 3 };
    let answer = within(caller.bulk.call(2, &request, Duration::from_secs(30))).await;
    assert!(
        matches!(answer, Ok(PeerResponse::Unavailable(_))),
        "{answer:?}"
    );
    assert!(!side.blobs.contains(digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_ready_when_most_of_those_who_vote_can_run_it() {
    let group = Group::new();
    let leader = Side::new(&group, 1);
    let _inputs = leader.replica(&[1, 2, 3], |_| None);
    let module = Subject {
        kind: ModuleKind::Selector,
        digest: Digest::of(BYTES),
        signature: None,
    };
    let runs = Fake::new(&group, 2, |_, _| Reply::say(PeerResponse::Ready));
    let cannot = || PeerResponse::Refused("it has no compiler".to_owned());
    let third = Fake::new(&group, 3, move |_, _| Reply::say(cannot()));
    let others = |second| vec![peer(2, second), peer(3, third.address)];
    leader.bulk.set_peers(others(runs.address));
    let told = Mutex::new(Vec::new());
    let told_of = |ready, of| told.lock().unwrap().push((ready, of));
    within(leader.bulk.ready_by_most(module, told_of))
        .await
        .unwrap();
    assert_eq!(*told.lock().unwrap(), [(1, 3), (2, 3)]);

    let second = Fake::new(&group, 2, move |_, _| Reply::say(cannot()));
    leader.bulk.set_peers(others(second.address));
    let no = within(leader.bulk.ready_by_most(module, |_, _| ())).await;
    let Response::Rejected(Rejection::Module { reason, .. }) = *no.unwrap_err() else {
        panic!("another answer");
    };
    for part in [
        "1 of the 3 hosts",
        "host host-2 (2): it has no compiler",
        "(3): it has",
    ] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    // What will not change is asked once.
    assert_eq!(second.asked().len(), 1);
    assert_eq!(count(&leader.metrics.readiness_failed), 1);

    // A host that lacks the bytes, or cannot run them, says which.
    let follower = Side::new(&group, 4);
    leader.bulk.set_peers(vec![follower.peer()]);
    let request = PeerRequest::Ready {
        kind: module.kind,
        digest: module.digest,
        signature: None,
    };
    let answer = within(leader.bulk.call(4, &request, PATIENCE))
        .await
        .unwrap();
    let PeerResponse::Refused(why) = answer else {
        panic!("{answer:?}");
    };
    assert!(why.contains("could not be fetched"), "{why}");
    follower.blobs.put(module.digest, BYTES).unwrap();
    let answer = within(leader.bulk.call(4, &request, PATIENCE))
        .await
        .unwrap();
    let PeerResponse::Refused(why) = answer else {
        panic!("{answer:?}");
    };
    assert!(why.contains("scanning"), "{why}");
}

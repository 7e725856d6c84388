//! Who may call, what a replica's answer becomes, evidence, and connections.

use std::sync::Arc;

use maitred_protocol::{
    Answered, Chooser, Evidence, Incarnation, Join, NodeName, PeerHello, PeerRefusal, PeerRequest,
    PeerResponse, ProcessKey, Purpose, Rejection, Response, Unavailable, Why, WhyNot,
};
use maitred_replica::Input;
use maitred_storage::{DecisionOptions, Decisions};

use super::fake::{Fake, Reply};
use super::{CLUSTER, Group, PATIENCE, Side, count, member, peer, within};
use crate::bulk::dial::{DialError, dial};
use crate::bulk::wire;
use crate::decision_store::decision_store;

fn join(host: u64, instance: u64) -> PeerRequest {
    PeerRequest::Join(Box::new(Join {
        host,
        name: "newcomer".parse().unwrap(),
        address: "localhost:7".to_owned(),
        instance,
        level_max: 1,
    }))
}

fn hello(host: u64, instance: u64) -> PeerHello {
    PeerHello {
        cluster: (host != 0).then_some(CLUSTER),
        host,
        instance,
        to: 0,
        build: "test".to_owned(),
        level_max: 1,
        purpose: Purpose::Bulk,
    }
}

fn room() -> ProcessKey {
    ProcessKey::new("room", "1").unwrap()
}

async fn call(
    side: &Side,
    group: &Group,
    hello: &PeerHello,
    request: &PeerRequest,
) -> PeerResponse {
    let endpoint = group.endpoint();
    let address = side.address.to_string();
    let (connection, _) = within(dial(&endpoint, &address, hello)).await.unwrap();
    within(wire::call(&connection, request, PATIENCE))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_not_joined_can_only_join_and_only_for_itself() {
    let group = Group::new();
    let side = Side::new(&group, 2);
    let _inputs = side.replica(&[2, 5], |input| match input {
        Input::Join { .. } => Some(Response::Member(Box::new(member(5)))),
        _ => None,
    });
    let stranger = hello(0, 55);
    let refused = call(
        &side,
        &group,
        &stranger,
        &PeerRequest::Evidence(room(), Incarnation(1), None),
    )
    .await;
    assert!(matches!(refused, PeerResponse::Refused(_)), "{refused:?}");
    let refused = call(&side, &group, &stranger, &join(0, 56)).await;
    assert!(matches!(refused, PeerResponse::Refused(_)), "{refused:?}");
    let joined = call(&side, &group, &stranger, &join(0, 55)).await;
    let PeerResponse::Joined {
        cluster,
        member: itself,
        members,
    } = joined
    else {
        panic!("{joined:?}");
    };
    assert_eq!((cluster, itself.host, members.len()), (CLUSTER, 5, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicas_no_to_a_join_says_what_to_do() {
    let group = Group::new();
    let answers = [
        Response::Unavailable(Unavailable::NotLeader {
            leader: Some("there:1".to_owned()),
        }),
        Response::Rejected(Rejection::Conflict("the name is taken".to_owned())),
        Response::Unavailable(Unavailable::ShuttingDown),
    ];
    let mut heard = Vec::new();
    for answer in answers {
        let side = Side::new(&group, 2);
        let _inputs = side.replica(&[2], move |_| Some(answer.clone()));
        heard.push(call(&side, &group, &hello(0, 55), &join(0, 55)).await);
    }
    let expected = [
        PeerResponse::NotLeader(Some("there:1".to_owned())),
        PeerResponse::Refused("the name is taken".to_owned()),
        PeerResponse::Unavailable("the host is shutting down".to_owned()),
    ];
    assert_eq!(heard, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_finds_out_that_it_has_called_another_host() {
    let group = Group::new();
    let side = Side::new(&group, 2);
    let meant = PeerHello {
        to: 3,
        ..hello(1, 100)
    };
    let endpoint = group.endpoint();
    let address = side.address.to_string();
    let refused = within(dial(&endpoint, &address, &meant)).await.unwrap_err();
    assert!(
        matches!(refused, DialError::Refused(PeerRefusal::OtherHost(2))),
        "{refused}"
    );
    let lost = PeerHello {
        cluster: Some(maitred_protocol::ClusterId([8; 16])),
        ..hello(1, 100)
    };
    let refused = within(dial(&endpoint, &address, &lost)).await.unwrap_err();
    assert!(
        matches!(refused, DialError::Refused(PeerRefusal::OtherCluster)),
        "{refused}"
    );
    let unknown = within(dial(&endpoint, "no port", &meant))
        .await
        .unwrap_err();
    assert!(matches!(unknown, DialError::Unresolved { .. }), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_share_a_connection_and_make_a_new_one_when_it_is_lost() {
    let group = Group::new();
    let (side, other) = (Side::new(&group, 1), Side::new(&group, 2));
    side.bulk.set_peers(vec![other.peer()]);
    let request = PeerRequest::Evidence(room(), Incarnation(1), None);
    for _ in 0..3 {
        let answer = within(side.bulk.call(2, &request, PATIENCE)).await;
        assert_eq!(answer.unwrap(), PeerResponse::Evidence(None, None));
    }
    let (first, _) = side.bulk.line(2).await.unwrap();
    let (second, _) = side.bulk.line(2).await.unwrap();
    assert_eq!(first.stable_id(), second.stable_id());
    maitred_transport::close(&first, maitred_transport::CloseCode::Done, "");
    within(side.bulk.call(2, &request, PATIENCE)).await.unwrap();
    // One that has moved is called where it is now.
    let moved = Fake::new(&group, 2, |_, _| Reply::say(PeerResponse::NotFound));
    side.bulk.set_peers(vec![peer(2, moved.address)]);
    let answer = within(side.bulk.call(2, &request, PATIENCE)).await;
    assert_eq!(answer.unwrap(), PeerResponse::NotFound);
    assert_eq!(count(&other.metrics.peer_calls_answered), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_found_at_the_host_that_has_it() {
    let group = Group::new();
    let (asks, has) = (Side::new(&group, 1), Side::new(&group, 2));
    let evidence = Evidence {
        why: Why {
            chooser: Chooser::Node,
            seed: 1,
            micros: 2,
            candidates: 3,
        },
        features: vec!["load".to_owned()],
        candidates: Vec::new(),
        refusals: Vec::new(),
        refusals_more: 0,
        decided_ms: 5,
        filtered: Vec::new(),
        terms: Vec::new(),
        answered: Answered::Chose,
    };
    let options = DecisionOptions {
        total_bytes: 1 << 20,
    };
    let mut decisions = Decisions::open(&has.dir, options).unwrap();
    decisions
        .append(&room(), Incarnation(8), &evidence)
        .unwrap();
    let (router, metrics) = (Arc::clone(&has.router), Arc::clone(&has.metrics));
    let (store, keeper) = decision_store(decisions, router, metrics, &has.bulk, &has.replays);
    let running = std::thread::spawn(move || keeper.run());
    let silent = Fake::new(&group, 3, |_, _| {
        Reply::say(PeerResponse::Evidence(None, None))
    });
    asks.bulk
        .set_peers(vec![has.peer(), peer(3, silent.address)]);
    // Connected before, since there is little time.
    for host in [2, 3] {
        asks.bulk.line(host).await.unwrap();
    }
    let (mut found, node) = (None, NodeName::new("n1").unwrap());
    // A machine that is busy may need longer than the limit.
    while found.is_none() {
        found = within(asks.bulk.evidence(&room(), Incarnation(8), Some(&node))).await;
    }
    assert_eq!(found, Some((evidence, Some(WhyNot::Unknown))));
    let key = room();
    let other = asks.bulk.evidence(&key, Incarnation(9), None);
    assert_eq!(within(other).await, None);
    drop(store);
    running.join().unwrap();
}

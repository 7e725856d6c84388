//! What is asked about lost, drained and uneven nodes, and about lives that may be old.

use std::time::Duration;

use maitred_protocol::{
    Drain, Incarnation, LostNode, Move, NodeEpoch, NodeName, PendingProcess, ProcessKey,
    ProcessState, RebalanceAsk, RebalancePlan, Rejection, Request, Response, Revision, Spread,
    Switch, Unavailable, Waits,
};
use tokio::time::Instant;

use crate::fake_host::FakeHost;
use crate::request_tests::record;
use crate::{Cause, Client, Error, ReadFrom};

const DONE: Response = Response::Done(Revision(9));

fn key(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

fn node() -> NodeName {
    NodeName::new("eu-1").unwrap()
}

/// Answers the next request, and says which it was, without its session.
async fn answer(host: &mut FakeHost, response: &Response) -> Request {
    let (peer, id, mut request) = host.request().await;
    peer.reply(id, response);
    if let Some(client) = request.client_mut() {
        *client = crate::verbs::NO_SESSION;
    }
    request
}

#[tokio::test]
async fn only_the_current_life_passes_the_check() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let answers = [
        (ProcessState::Running, 7, Ok(())),
        (ProcessState::Starting, 7, Ok(())),
        (ProcessState::Running, 8, Err(8)),
        (ProcessState::Pending, 7, Err(0)),
    ];
    for (state, incarnation, expected) in answers {
        let mut record = record("a");
        (record.state, record.incarnation) = (state, Incarnation(incarnation));
        let found = Response::Process {
            record: Box::new(record),
            revision: Revision(1),
        };
        assert_eq!(checked(&client, &mut host, found).await, expected);
    }
    let gone = Response::Rejected(Rejection::NotFound("process player/a".to_owned()));
    assert_eq!(checked(&client, &mut host, gone).await, Err(0));
}

/// What is said of incarnation 7, given what the host finds: the current one, if that is another.
async fn checked(client: &Client, host: &mut FakeHost, found: Response) -> Result<(), u64> {
    let key = key("a");
    let (checked, asked) = tokio::join!(client.check(&key, Incarnation(7)), answer(host, &found));
    let linearizable = matches!(asked, Request::GetProcess { stale: false, .. });
    assert!(linearizable, "{asked:?}");
    checked.map_err(|error| match error {
        Error::Rejected(Rejection::Fenced { what, current }) if what == "incarnation" => current,
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn a_held_create_is_asked_for_until_its_deadline_and_no_longer() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let began = Instant::now();
    let create = client.create(key("a")).deadline(Duration::from_millis(400));
    let mut create = Box::pin(create.send());
    let mut asked = 0;
    let error = loop {
        tokio::select! {
            created = &mut create => break created.unwrap_err(),
            (peer, id, _) = host.request() => {
                asked += 1;
                let held = Unavailable::Held("on node eu-2".to_owned());
                peer.reply(id, &Response::Unavailable(held));
            }
        }
    };
    let held = |cause: &Cause| matches!(cause, Cause::Host(Unavailable::Held(_)));
    assert!(
        matches!(&error, Error::Unavailable { cause } if held(cause)),
        "{error}"
    );
    assert!(asked > 1, "{asked}");
    // Its time for the way there and back, 5 s, is not for that.
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn what_only_the_leader_knows_is_asked_of_it() {
    let mut hosts = FakeHost::group(3);
    let client = hosts[0].builder().connect().await.unwrap();
    client.caller().pool.until(&[1, 2, 3], Some(1)).await;
    let client = client.read_from(ReadFrom::Any);
    let leader = &mut hosts[0];
    for _ in 0..3 {
        let waiting = PendingProcess {
            record: record("b"),
            since_ms: 5,
            waits: Waits::BackOff(100),
            cause: "failed".to_owned(),
            left_ms: None,
        };
        let page = Response::Pending {
            items: vec![waiting.clone()],
            next: Some(key("b")),
        };
        let (got, asked) = tokio::join!(
            client.list_pending(Some(key("a")), 1),
            answer(leader, &page)
        );
        let expected = Request::ListPending {
            after: Some(key("a")),
            limit: 1,
        };
        assert_eq!(asked, expected);
        let got = got.unwrap();
        assert_eq!((got.items, got.next), (vec![waiting], Some(key("b"))));

        let lost = vec![LostNode {
            name: node(),
            epoch: NodeEpoch(1),
            lost_ms: 2,
            kill_bound_ms: 1_000,
            safe: 3,
            strict: 0,
        }];
        let response = Response::Lost(lost.clone());
        let (got, asked) = tokio::join!(client.lost_nodes(), answer(leader, &response));
        assert_eq!((got.unwrap(), asked), (lost, Request::ListLost));
    }
}

#[tokio::test]
async fn moves_are_planned_then_made() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let plan = RebalancePlan {
        moves: vec![Move {
            key: key("a"),
            incarnation: Incarnation(1),
            from: node(),
            to: NodeName::new("eu-2").unwrap(),
            gain: 0.25,
        }],
        before: Spread::default(),
        after: Spread::default(),
        revision: Revision(3),
    };
    let ask = RebalanceAsk {
        type_name: None,
        moves_max: 10,
    };
    let response = Response::Rebalance(Box::new(plan.clone()));
    let (got, asked) = tokio::join!(
        client.plan_rebalance(ask.clone()),
        answer(&mut host, &response)
    );
    assert_eq!(
        (got.unwrap(), asked),
        (plan.clone(), Request::PlanRebalance(ask))
    );
    let (got, asked) = tokio::join!(
        client.rebalance(plan.moves.clone(), 50),
        answer(&mut host, &DONE)
    );
    assert_eq!(got.unwrap(), Revision(9));
    let expected = Request::Rebalance {
        moves: plan.moves,
        per_second: 50,
    };
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn operators_words_are_passed_on() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let (name, session) = (node(), crate::verbs::NO_SESSION);
    let drain = Drain {
        deadline_ms: 60_000,
        per_second: 100,
    };
    let drained = |drain| Request::DrainNode {
        client: session,
        name: node(),
        drain,
    };
    let (got, asked) = tokio::join!(client.drain_node(&name, drain), answer(&mut host, &DONE));
    assert_eq!((got.unwrap(), asked), (Revision(9), drained(Some(drain))));
    let (got, asked) = tokio::join!(client.cancel_drain(&name), answer(&mut host, &DONE));
    assert_eq!((got.unwrap(), asked), (Revision(9), drained(None)));
    let epoch = Some(NodeEpoch(4));
    let (got, asked) = tokio::join!(client.confirm_dead(&name, epoch), answer(&mut host, &DONE));
    let expected = Request::ConfirmDead {
        client: session,
        name,
        epoch,
    };
    assert_eq!((got.unwrap(), asked), (Revision(9), expected));
    let what = Switch::Recreation;
    let (got, asked) = tokio::join!(client.suspend(what, true), answer(&mut host, &DONE));
    let expected = Request::Suspend {
        client: session,
        what,
        suspended: true,
    };
    assert_eq!((got.unwrap(), asked), (Revision(9), expected));
    // What is out of bounds does not reach a host.
    let hasty = Drain {
        deadline_ms: 10,
        per_second: 100,
    };
    let refused = client.drain_node(&node(), hasty).await.unwrap_err();
    assert!(
        matches!(refused, Error::Rejected(Rejection::Invalid(_))),
        "{refused}"
    );
}

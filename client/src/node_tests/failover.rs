//! A node whose registry was restored, whose name is taken, or that cannot stop everything.

use maitred_protocol::{NodeName, Rejection, SetProcess, Unavailable};

use super::*;
use crate::request_tests::record;
use crate::{Error, NodeBuilder};

fn process(id: &str, incarnation: u64) -> Response {
    let mut record = record(id);
    record.incarnation = Incarnation(incarnation);
    Response::Process {
        record: Box::new(record),
        revision: Revision(incarnation),
    }
}

/// A node whose registry was restored: it is session 9 by now, and asks to have `early` registered.
async fn restored() -> (Bench, Peer, u64, SetProcess) {
    let mut bench = bench(LONG).await;
    bench.peer.cut();
    let (peer, id, request) = bench.host.request().await;
    assert!(matches!(request, Request::AttachNode { .. }), "{request:?}");
    let unknown = Rejection::NotFound("session 1 of node eu-1".to_owned());
    peer.reply(id, &Response::Rejected(unknown));
    let (peer, id, request) = bench.host.request().await;
    let Request::RegisterNode(_, node) = request else {
        panic!("{request:?}");
    };
    assert_eq!(node.last_epoch, Some(NodeEpoch(1)));
    assert_eq!(node.inventory, [(key("early"), Incarnation(4))]);
    assert!(bench.node.lease_ok());
    peer.reply(id, &registered(9, vec![Verdict::Adopt]));
    let (peer, id, request) = bench.host.request().await;
    let Request::SetProcess(_, set) = request else {
        panic!("{request:?}");
    };
    (bench, peer, id, *set)
}

#[tokio::test]
async fn what_a_restored_registry_does_not_know_is_registered_anew_and_goes_on() {
    let (mut bench, peer, id, set) = restored().await;
    let expected = SetProcess {
        key: key("early"),
        node: NodeName::new("eu-1").unwrap(),
        epoch: NodeEpoch(9),
        pid: "pid-early".to_owned(),
        share: b"args".to_vec(),
        incarnation: None,
    };
    assert_eq!(set, expected);
    // Whether it was done is not known: it is asked again.
    peer.cut();
    let (peer, again, request) = loop {
        let (peer, id, request) = bench.host.request().await;
        match request {
            Request::AttachNode { .. } => peer.reply(id, &registered(9, vec![Verdict::Stop])),
            request => break (peer, id, request),
        }
    };
    assert!(matches!(request, Request::SetProcess(..)), "{request:?}");
    assert_eq!(again, id);
    peer.reply(again, &process("early", 12));
    assert_eq!(bench.done().await, Done::Adopted("early".to_owned(), 4, 12));
    assert_eq!(bench.node.processes(), [(key("early"), Incarnation(12))]);
    assert_eq!(bench.node.epoch(), Some(NodeEpoch(9)));
    bench.node.kill();
}

#[tokio::test]
async fn what_it_has_given_to_another_meanwhile_is_stopped() {
    let (mut bench, peer, id, _) = restored().await;
    let taken = Rejection::AlreadyExists(Box::new(record("early")));
    peer.reply(id, &Response::Rejected(taken));
    assert_eq!(bench.done().await, Done::Stopped("early".to_owned(), 4));
    assert_eq!(bench.node.processes(), []);
    bench.node.kill();
}

#[tokio::test]
async fn a_node_whose_name_is_taken_ends_and_says_why() {
    let mut bench = bench(LONG).await;
    let (peer, keep_alive) = bench.host.keep_alives.recv().await.unwrap();
    peer.ack(&keep_alive, false);
    assert_eq!(bench.done().await, Done::LeaseLost);
    assert_eq!(bench.done().await, Done::Stopped("early".to_owned(), 4));
    let (peer, id, request) = bench.host.request().await;
    assert!(matches!(request, Request::RegisterNode(..)), "{request:?}");
    let superseded = Rejection::Superseded {
        name: NodeName::new("eu-1").unwrap(),
        epoch: NodeEpoch(7),
    };
    peer.reply(id, &Response::Rejected(superseded.clone()));
    let why = bench.node.ended().await;
    assert!(
        matches!(&why, Err(Error::Rejected(rejection)) if *rejection == superseded),
        "{why:?}"
    );
    assert!(!bench.node.lease_ok());
}

/// What the node asked for until it ended.
fn asked(host: &mut FakeHost) -> Vec<Request> {
    std::iter::from_fn(|| host.requests.try_recv().ok())
        .map(|(.., request)| request)
        .collect()
}

#[tokio::test]
async fn a_node_with_something_that_does_not_stop_leaves_its_session_alone() {
    let mut bench = bench(LONG).await;
    bench.peer.command(1, &start("stuck", 5));
    assert_eq!(bench.answer().await, (1, started("stuck")));
    bench.node.shutdown().await;
    bench.node.ended().await.unwrap();
    assert!(!bench.node.lease_ok());
    let asked = asked(&mut bench.host);
    let ends = |request: &Request| matches!(request, Request::DeregisterNode { .. });
    assert!(!asked.iter().any(ends), "{asked:?}");
}

#[tokio::test]
async fn a_node_says_how_long_it_takes_to_stop_and_which_process_it_is() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let describe: [fn(NodeBuilder) -> NodeBuilder; 2] = [
        |node| node,
        |node| node.kill_bound(Duration::from_millis(2_500)),
    ];
    let mut instances = Vec::new();
    for (describe, kill_bound_ms) in describe.into_iter().zip([1_000, 2_500]) {
        let (tell, _done) = mpsc::unbounded_channel();
        let node = describe(client.node("eu-1")).start(Game(tell));
        let (node, ()) = tokio::join!(node, async {
            let (peer, id, request) = host.request().await;
            let Request::RegisterNode(_, node) = request else {
                panic!("{request:?}");
            };
            assert_eq!((node.ttl_ms, node.kill_bound_ms), (3_000, kill_bound_ms));
            assert_eq!(node.last_epoch, None);
            instances.push(node.instance);
            peer.reply(id, &registered(1, vec![]));
        });
        node.unwrap().kill();
    }
    assert_ne!(instances[0], instances[1]);
    let long = client.node("eu-1").kill_bound(Duration::from_secs(61));
    let (tell, _done) = mpsc::unbounded_channel();
    let refused = long.start(Game(tell)).await.unwrap_err();
    assert!(refused.to_string().contains("kill bound"), "{refused}");
}

#[tokio::test]
async fn a_process_whose_key_is_held_is_registered_when_it_no_longer_is() {
    let mut bench = bench(LONG).await;
    let node = bench.node.clone();
    let set = tokio::spawn(async move { node.set(key("a"), "p", vec![]).await });
    let (peer, id, request) = bench.host.request().await;
    let held = Unavailable::Held("on node eu-2".to_owned());
    peer.reply(id, &Response::Unavailable(held));
    let (peer, again, same) = bench.host.request().await;
    assert_eq!((again, same), (id, request));
    peer.reply(again, &process("a", 12));
    assert_eq!(set.await.unwrap().unwrap().incarnation, Incarnation(12));
    bench.node.kill();
}

#[tokio::test]
async fn what_is_registered_while_the_node_leaves_is_not_said_to_run() {
    let mut bench = bench(LONG).await;
    let node = bench.node.clone();
    let set = tokio::spawn(async move { node.set(key("a"), "p", vec![]).await });
    let (peer, setting, request) = bench.host.request().await;
    assert!(matches!(request, Request::SetProcess(..)), "{request:?}");
    let node = bench.node.clone();
    let left = tokio::spawn(async move { node.shutdown().await });
    let (peer_left, leaving, request) = bench.host.request().await;
    let ends = matches!(request, Request::DeregisterNode { .. });
    assert!(ends, "{request:?}");
    // Its session ends right after it was registered in that.
    peer.reply(setting, &process("a", 12));
    peer_left.reply(leaving, &Response::Done(Revision(13)));
    let set = set.await.unwrap();
    assert!(set.is_err(), "{set:?}");
    left.await.unwrap();
}

//! Leases that end, and keep-alives that do not come through.

use super::*;

#[tokio::test]
async fn a_session_that_has_ended_is_left_and_a_new_one_begun() {
    let mut bench = bench(LONG).await;
    let (peer, keep_alive) = bench.host.keep_alives.recv().await.unwrap();
    assert_eq!((keep_alive.epoch, keep_alive.load), (NodeEpoch(1), None));
    peer.ack(&bench.host.keep_alives.recv().await.unwrap().1, false);
    assert_eq!(bench.done().await, Done::LeaseLost);
    assert_eq!(bench.done().await, Done::Stopped("early".to_owned(), 4));
    let (peer, id, request) = bench.host.request().await;
    assert!(!bench.node.lease_ok());
    let Request::RegisterNode(_, node) = request else {
        panic!("{request:?}");
    };
    assert_eq!(node.inventory, []);
    peer.reply(id, &registered(2, vec![]));
    peer.command(1, &start("a", 21));
    assert_eq!(bench.answer().await, (1, started("a")));
    assert_eq!(bench.node.epoch(), Some(NodeEpoch(2)));
}

#[tokio::test]
async fn silence_of_the_host_ends_the_lease() {
    let mut bench = bench(Duration::from_secs(1)).await;
    // Nothing is acknowledged; attaching again does not help either.
    let (peer, id, request) = bench.host.request().await;
    assert!(matches!(request, Request::AttachNode { .. }));
    peer.reply(id, &registered(1, vec![Verdict::Keep]));
    assert_eq!(bench.done().await, Done::LeaseLost);
    assert_eq!(bench.done().await, Done::Stopped("early".to_owned(), 4));
}

#[tokio::test]
async fn where_datagrams_are_lost_the_stream_keeps_the_lease() {
    let mut bench = bench(Duration::from_secs(1)).await;
    // Longer than the lease. What comes as a datagram is lost.
    let mut answered = 0;
    while answered < 12 {
        tokio::select! {
            Some((peer, keep_alive)) = bench.host.streamed.recv() => {
                let load = keep_alive.load.clone().unwrap();
                assert_eq!(load.counters.len(), 16, "a stream takes it whole");
                assert!(bench.node.lease_ok());
                peer.ack_by_stream(&keep_alive);
                answered += 1;
            }
            // A host that is slow to say so is attached to again.
            Some((peer, id, request)) = bench.host.requests.recv() => {
                assert!(matches!(request, Request::AttachNode { .. }), "{request:?}");
                peer.reply(id, &registered(1, vec![Verdict::Keep]));
            }
        }
    }
    assert!(bench.host.keep_alives.try_recv().is_ok());
    assert!(
        bench.done.try_recv().is_err(),
        "the game was told of nothing"
    );
    bench.node.kill();
}

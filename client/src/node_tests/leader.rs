//! A node and its leaders.

use tokio::time::{Instant, sleep_until, timeout_at};

use super::*;

struct Attached {
    node: NodeHandle,
    peer: Peer,
    done: mpsc::UnboundedReceiver<Done>,
}

/// A node of this lease, registered as epoch 1 with host 1 of three.
async fn attached_to_one(ttl: Duration) -> ([FakeHost; 3], Attached) {
    let mut hosts: [FakeHost; 3] = FakeHost::group(3).try_into().ok().unwrap();
    let client = hosts[0].builder().connect().await.unwrap();
    let (tell, done) = mpsc::unbounded_channel();
    let node = client.node("eu-1").ttl(ttl);
    let (node, peer) = tokio::join!(node.start(Game(tell)), async {
        let (peer, id, _) = hosts[0].request().await;
        peer.reply(id, &registered(1, vec![]));
        peer
    });
    let node = node.unwrap();
    node.connected(&[1, 2, 3], Some(1)).await;
    (hosts, Attached { node, peer, done })
}

async fn attach(host: &mut FakeHost) -> Peer {
    let (peer, id, request) = host.request().await;
    assert!(
        matches!(&request, Request::AttachNode { epoch, .. } if *epoch == NodeEpoch(1)),
        "{request:?}"
    );
    peer.reply(id, &registered(1, vec![]));
    peer
}

/// A host that was killed a moment ago looks as alive as this one, for two seconds.
#[tokio::test]
async fn an_attach_that_a_host_does_not_answer_is_soon_asked_of_another() {
    let ([mut one, mut two, mut three], attached) = attached_to_one(LONG).await;
    three.says_leader(Some(2), 2);
    let (_silent, _, request) = two.request().await;
    assert!(matches!(request, Request::AttachNode { .. }), "{request:?}");
    let asked = Instant::now();
    tokio::select! {
        _ = attach(&mut one) => {}
        _ = attach(&mut three) => {}
    }
    let within = asked.elapsed();
    assert!(within < Duration::from_millis(1_500), "{within:?}");
    attached.node.kill();
}

#[tokio::test]
async fn a_node_attaches_to_a_new_leader_at_once_and_its_keep_alives_go_there() {
    let ([_one, mut two, three], attached) = attached_to_one(LONG).await;
    let (node, old, _done) = (attached.node, attached.peer, attached.done);
    let heard = Instant::now();
    three.says_leader(Some(2), 2);
    let new = attach(&mut two).await;
    let (_, keep_alive) = two.keep_alives.recv().await.unwrap();
    let within = heard.elapsed();
    assert_eq!(keep_alive.epoch, NodeEpoch(1));
    assert!(within < Duration::from_millis(500), "{within:?}");
    // The new leader commands in its term, and the old one no more.
    let in_term = |term, id| match start(id, 5) {
        NodeCommand::Start {
            key,
            incarnation,
            payload,
            deadline_ms,
            try_number,
            ..
        } => NodeCommand::Start {
            term,
            key,
            incarnation,
            payload,
            deadline_ms,
            try_number,
        },
        stop => stop,
    };
    new.command(1, &in_term(1, "a"));
    assert_eq!(two.answers.recv().await.unwrap(), (1, NodeAnswer::Fenced));
    new.command(2, &in_term(2, "a"));
    assert_eq!(two.answers.recv().await.unwrap(), (2, started("a")));
    old.command(3, &in_term(2, "b"));
    new.command(4, &in_term(2, "c"));
    assert_eq!(two.answers.recv().await.unwrap(), (4, started("c")));
    assert_eq!(node.processes().len(), 2);
    node.kill();
}

/// Acknowledges keep-alives for so long.
async fn renew(host: &mut FakeHost, renewed: Duration) {
    let until = Instant::now() + renewed;
    while let Ok(Some((peer, keep_alive))) = timeout_at(until, host.keep_alives.recv()).await {
        peer.ack(&keep_alive, true);
    }
}

#[tokio::test]
async fn a_leader_change_does_not_lose_a_lease() {
    // The old leader goes at once; the next one is elected after as long as elections may take.
    let ttl = Duration::from_secs(3);
    let election = Duration::from_secs(1);
    let ([mut one, mut two, mut three], attached) = attached_to_one(ttl).await;
    let (node, mut done) = (attached.node, attached.done);
    renew(&mut one, Duration::from_millis(1_000)).await;
    one.die();
    let elected = Instant::now() + election;
    loop {
        tokio::select! {
            (peer, id, _) = two.request() => peer.not_leader(id, None),
            (peer, id, _) = three.request() => peer.not_leader(id, None),
            () = sleep_until(elected) => break,
        }
    }
    three.says_leader(Some(3), 2);
    two.says_leader(Some(3), 2);
    let refuse = async {
        loop {
            let (peer, id, _) = two.request().await;
            peer.not_leader(id, None);
        }
    };
    let attached = tokio::select! {
        never = refuse => never,
        _ = attach(&mut three) => Instant::now(),
    };
    let late = attached - elected;
    assert!(late < Duration::from_millis(300), "{late:?}");
    renew(&mut three, ttl).await;
    assert!(node.lease_ok());
    assert_eq!(node.epoch(), Some(NodeEpoch(1)));
    assert!(done.try_recv().is_err(), "the game was told of nothing");
    node.kill();
}

#[tokio::test]
async fn a_leader_that_stands_still_is_left_at_its_successors_notice() {
    let ([mut one, mut two, three], attached) = attached_to_one(LONG).await;
    let (node, _done) = (attached.node, attached.done);
    // The node asks its leader anew, and that one says nothing any more.
    one.says_leader(None, 1);
    let (_, _, request) = one.request().await;
    assert!(matches!(request, Request::AttachNode { .. }), "{request:?}");
    let heard = Instant::now();
    three.says_leader(Some(2), 2);
    attach(&mut two).await;
    let within = heard.elapsed();
    assert!(within < Duration::from_millis(200), "{within:?}");
    assert!(node.lease_ok());
    node.kill();
}

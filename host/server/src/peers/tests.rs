//! Links to a peer that is only as good as the test makes it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{ClusterId, PeerGreeting, PeerHello, codec};
use maitred_replica::Peer;
use maitred_transport::{
    Alpn, Authority, CloseCode, Connection, Endpoint, FrameReader, Handler, IssueKind, Limits,
    SendStream, close,
};
use tokio::sync::mpsc;

use super::{Myself, Peers, Roster};
use crate::inbox::Inbox;
use crate::metrics::Metrics;

const PATIENCE: Duration = Duration::from_secs(60);
const CLUSTER: ClusterId = ClusterId([7; 16]);
/// The peer's number.
const PEER: u64 = 2;

async fn within<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.expect("it took too long")
}

fn endpoint(authority: &Authority) -> (Endpoint, SocketAddr, maitred_transport::Identity) {
    let identity = authority.identity("host", IssueKind::Host, 1).unwrap();
    let here = (Ipv4Addr::LOCALHOST, 0).into();
    let endpoint = Endpoint::server(here, &identity, &[Alpn::Peer], Limits::default()).unwrap();
    let address = endpoint.local_addr().unwrap();
    (endpoint, address, identity)
}

fn peers(authority: &Authority) -> Arc<Peers> {
    let (endpoint, _, identity) = endpoint(authority);
    let me = Myself {
        cluster: CLUSTER,
        host: 1,
        instance: 100,
        build: "test".to_owned(),
        level_max: 1,
    };
    let (inbox, metrics) = (Arc::new(Inbox::default()), Arc::new(Metrics::default()));
    Arc::new(Peers::new(me, endpoint, identity, &inbox, &metrics))
}

/// A port on which `handler` is the peer.
fn listen(authority: &Authority, handler: impl Handler) -> SocketAddr {
    let (endpoint, address, _) = endpoint(authority);
    let handlers: Vec<(Alpn, Arc<dyn Handler>)> = vec![(Alpn::Peer, Arc::new(handler))];
    tokio::spawn(async move {
        let forever = std::future::pending();
        maitred_transport::serve(&endpoint, handlers, forever, Duration::ZERO).await;
    });
    address
}

/// Waits for a caller's hello.
async fn hello(connection: &Connection) -> Option<SendStream> {
    let (send, receive) = connection.accept_bi().await.ok()?;
    let mut reader = FrameReader::new(receive);
    reader.message::<PeerHello>().await.ok()??;
    Some(send)
}

async fn welcome(send: &mut SendStream) -> Option<()> {
    let welcome = PeerGreeting::Welcome {
        cluster: CLUSTER,
        host: PEER,
        build: "test".to_owned(),
        level_max: 1,
    };
    let mut frame = Vec::new();
    codec::encode(0, &welcome, &mut frame).unwrap();
    send.write_all(&frame).await.ok()?;
    send.finish().ok()?;
    send.stopped().await.ok().map(drop)
}

fn roster(address: SocketAddr) -> Roster {
    Roster {
        others: vec![Peer {
            host: PEER,
            address: address.to_string(),
            instance: 200,
        }],
        caught_up: true,
        applied: 10,
        level: 1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_breaks_every_link_is_called_ever_more_seldom() {
    let authority = Authority::generate("test group").unwrap();
    let peers = peers(&authority);
    let (called, mut calls) = mpsc::unbounded_channel();
    let address = listen(&authority, move |connection: Connection| {
        let called = called.clone();
        async move {
            if let Some(mut send) = hello(&connection).await {
                let _ = welcome(&mut send).await;
                let _ = called.send(Instant::now());
            }
            close(&connection, CloseCode::Protocol, "broken by the test");
        }
    });
    peers.follow(roster(address));
    let first = within(calls.recv()).await.unwrap();
    let mut last = first;
    for _ in 0..5 {
        last = within(calls.recv()).await.unwrap();
    }
    let took = last.duration_since(first);
    assert!(took >= Duration::from_millis(700), "{took:?}");
    peers.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_call_each_other_over_a_long_way_do_not_break_off_each_others_calls() {
    let authority = Authority::generate("test group").unwrap();
    let peers = peers(&authority);
    let (calling, address) = (Arc::clone(&peers), std::sync::OnceLock::new());
    let address = Arc::new(address);
    let its = Arc::clone(&address);
    let listening = listen(&authority, move |connection: Connection| {
        let (peers, its) = (Arc::clone(&calling), Arc::clone(&its));
        async move {
            let Some(mut send) = hello(&connection).await else {
                return;
            };
            // The way is long: its own call arrives while its welcome is still to come.
            tokio::time::sleep(Duration::from_millis(100)).await;
            peers.has_called(PEER, *its.wait());
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _ = welcome(&mut send).await;
            connection.closed().await;
        }
    });
    address.set(listening).unwrap();
    peers.follow(roster(listening));
    let reached = async {
        while peers.links_up() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
    reached.expect("the two never reach each other");
    peers.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_end_nobody_is_called_any_more() {
    let authority = Authority::generate("test group").unwrap();
    let peers = peers(&authority);
    let (_endpoint, address, _) = endpoint(&authority);
    peers.end();
    // The replica's thread ends a little later, and may still have something to say.
    peers.follow(roster(address));
    peers.has_called(PEER + 20, address);
    assert!(super::lock(&peers.links).is_none());
}

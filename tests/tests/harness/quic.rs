//! QUIC through the relay: what it is for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use maitred_tests::relay::{Faults, Lane, Relay, Who};
use maitred_transport::{
    Alpn, Authority, Connection, Endpoint, Handler, Identity, IssueKind, Limits, serve,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that go there and back.
const BULK: usize = 200_000;

/// Sends every stream's bytes back, and says where each came from.
async fn echo(connection: Connection, from: mpsc::Sender<SocketAddr>) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let bytes = receive.read_to_end(BULK).await.unwrap();
        from.send(connection.remote_address()).await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
    }
}

fn host(identity: &Identity) -> (Endpoint, SocketAddr, mpsc::Receiver<SocketAddr>) {
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let endpoint = Endpoint::server(any, identity, &[Alpn::Peer], Limits::default()).unwrap();
    let address = endpoint.local_addr().unwrap();
    let (from, seen) = mpsc::channel(8);
    let handler = move |connection| echo(connection, from.clone());
    let handlers: Vec<(Alpn, Arc<dyn Handler>)> = vec![(Alpn::Peer, Arc::new(handler))];
    let served = endpoint.clone();
    tokio::spawn(async move {
        serve(&served, handlers, std::future::pending(), PATIENCE).await;
    });
    (endpoint, address, seen)
}

async fn round(connection: &Connection) {
    let bytes: Vec<u8> = (0..BULK).map(|at| (at % 251) as u8).collect();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let there = async {
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
    };
    let ((), back) = tokio::join!(there, receive.read_to_end(BULK));
    assert_eq!(back.unwrap(), bytes);
}

#[tokio::test]
async fn a_host_is_known_by_its_port_and_its_connection_outlives_faults_and_a_new_address() {
    let authority = Authority::generate("group").unwrap();
    let identity = authority.identity("host", IssueKind::Host, 1).unwrap();
    let (dialling, own, _) = host(&identity);
    let (_endpoint, address, mut seen) = host(&identity);
    let relay = Relay::start(address, 7).await.unwrap();

    let call = dialling.connect(relay.address(), Alpn::Peer, PATIENCE);
    let connection = call.await.unwrap();
    // A host dials from the port that it listens on.
    assert_eq!(relay.sources(), [own]);

    let lane = Lane {
        loss: 0.05,
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(3),
        duplicate: 0.05,
        reorder: 0.05,
        ..Lane::default()
    };
    relay.faults(Who::Source(own), Faults::both(lane));
    timeout(PATIENCE, round(&connection)).await.unwrap();
    let before = seen.recv().await.unwrap();
    let counts = relay.counts(Who::Source(own));
    for lane in [counts.to_target, counts.from_target] {
        assert!(
            lane.lost > 0 && lane.duplicated > 0 && lane.reordered > 0,
            "{counts:?}"
        );
    }

    relay.heal();
    let after = relay.rebind(own).await.unwrap();
    timeout(PATIENCE, round(&connection)).await.unwrap();
    assert_ne!(before, after);
    assert_eq!(seen.recv().await.unwrap(), after);
}

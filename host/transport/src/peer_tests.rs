//! Tests over real QUIC of what only hosts do among each other.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::limits::FRAME_BYTES_MAX;
use maitred_protocol::{EntryKind, FrameError, LogEntry, PeerBatch, RaftKind, RaftMessage, codec};
use tokio::sync::mpsc;

use crate::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn identities() -> (Identity, Identity) {
    let authority = Authority::generate("group").unwrap();
    let host = authority.identity("host", IssueKind::Host, 1).unwrap();
    let client = authority.identity("node", IssueKind::Client, 1).unwrap();
    (host, client)
}

fn open(address: SocketAddr, identity: &Identity) -> Endpoint {
    let alpns = [Alpn::Client, Alpn::Peer];
    Endpoint::server(address, identity, &alpns, Limits::default()).unwrap()
}

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Accepts one connection, and serves nobody else.
async fn accept(endpoint: &Endpoint) -> Connection {
    endpoint.inner.accept().await.unwrap().await.unwrap()
}

#[tokio::test]
async fn hosts_call_from_their_own_port_and_a_clients_certificate_is_told_apart() {
    let (host, client) = identities();
    let (called, calling) = (open(any(), &host), open(any(), &host));
    let address = called.local_addr().unwrap();
    let (made, taken) = tokio::join!(
        calling.connect(address, Alpn::Peer, PATIENCE),
        accept(&called)
    );
    assert_eq!(taken.remote_address(), calling.local_addr().unwrap());
    assert_eq!(host.check_peer(&taken), Ok(()));
    assert_eq!(host.check_peer(&made.unwrap()), Ok(()));

    let calling = Endpoint::client(&client).unwrap();
    let (_made, taken) = tokio::join!(
        calling.connect(address, Alpn::Peer, PATIENCE),
        accept(&called)
    );
    let kind = TlsError::Host("it is not of the kind for hosts");
    assert_eq!(host.check_peer(&taken), Err(kind));
}

#[tokio::test]
async fn only_a_peers_reader_takes_a_frame_of_more_than_a_mebibyte() {
    let (host, _) = identities();
    let (called, calling) = (open(any(), &host), open(any(), &host));
    let address = called.local_addr().unwrap();
    let (made, taken) = tokio::join!(
        calling.connect(address, Alpn::Peer, PATIENCE),
        accept(&called)
    );
    let made = made.unwrap();
    let batch = batch(3 * FRAME_BYTES_MAX);
    let mut frame = Vec::new();
    codec::encode(1, &batch, &mut frame).unwrap();
    let bytes = frame.len() as u64;
    let sending = tokio::spawn(async move {
        for _ in 0..2 {
            let mut stream = made.open_uni().await.unwrap();
            // The second one is refused midway.
            let _ = stream.write_all(&frame).await;
        }
        made
    });
    let mut reader = FrameReader::from_peer(taken.accept_uni().await.unwrap());
    let read = reader.message::<PeerBatch>().await.unwrap();
    assert_eq!(read, Some((1, batch)));
    let mut reader = FrameReader::new(taken.accept_uni().await.unwrap());
    assert_eq!(
        reader.message::<PeerBatch>().await,
        Err(ReadError::Frame(FrameError::TooLong(bytes)))
    );
    drop(reader);
    drop(sending.await.unwrap());
}

fn batch(bytes: usize) -> PeerBatch {
    let entry = LogEntry {
        index: 8,
        term: 3,
        kind: EntryKind::Normal,
        data: vec![7; bytes],
    };
    let message = RaftMessage {
        kind: RaftKind::Append,
        from: 1,
        to: 2,
        term: 3,
        log_term: 3,
        index: 7,
        commit: 7,
        commit_term: 0,
        reject: false,
        reject_hint: 0,
        request_snapshot: 0,
        priority: 0,
        context: Vec::new(),
        entries: vec![entry],
        snapshot: None,
    };
    PeerBatch {
        group: 0,
        messages: vec![message],
    }
}

#[test]
fn a_host_that_is_started_again_ends_the_connections_of_its_predecessor() {
    let (host, _) = identities();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    // One that dies without a word: its runtime goes, and takes the socket with it.
    let first = runtime();
    let (taken, mut accepted) = mpsc::channel(1);
    let identity = host.clone();
    let address = first.block_on(async move {
        let endpoint = Arc::new(open(any(), &identity));
        let address = endpoint.local_addr().unwrap();
        tokio::spawn(async move {
            let connection = accept(&endpoint).await;
            taken.send(()).await.unwrap();
            connection.closed().await;
        });
        address
    });
    let caller = runtime();
    caller.block_on(async move {
        let calling = open(any(), &host);
        let called = calling.connect(address, Alpn::Peer, PATIENCE).await;
        let connection = called.unwrap();
        accepted.recv().await.unwrap();
        first.shutdown_background();
        // Its port is free when its socket is gone, which nobody tells.
        let alpns = [Alpn::Peer];
        let successor = loop {
            match Endpoint::server(address, &host, &alpns, Limits::default()) {
                Ok(successor) => break successor,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[7; 200]).await.unwrap();
        // Far sooner than silence would end it.
        let ended = tokio::time::timeout(PATIENCE / 4, connection.closed()).await;
        assert_eq!(LinkError::from(ended.unwrap()), LinkError::Lost);
        drop(successor);
    });
}

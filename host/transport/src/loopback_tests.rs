//! Tests over real QUIC on the loopback interface: what is accepted, what is refused, and in which
//! words.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::limits::FRAME_BYTES_MAX;
use maitred_protocol::{
    FrameError, Hello, KeepAlive, Kind, NodeEpoch, ProcessKey, Request, Welcome, codec,
};
use tokio::sync::oneshot;

use crate::*;

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

struct Host {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

impl Host {
    fn start(identity: &Identity, handler: impl Handler) -> Self {
        Self::limited(identity, handler, Limits::default())
    }

    fn limited(identity: &Identity, handler: impl Handler, limits: Limits) -> Self {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = Endpoint::server(any, identity, &[Alpn::Client], limits).unwrap();
        let address = endpoint.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let handlers: Vec<(Alpn, Arc<dyn Handler>)> = vec![(Alpn::Client, Arc::new(handler))];
        let served = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            serve(&endpoint, handlers, shutdown, SECOND).await;
        });
        let stop = Some(stop);
        Self {
            address,
            stop,
            served,
        }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.served.await.unwrap();
    }
}

fn group() -> (Authority, Identity, Identity) {
    let authority = Authority::generate("group").unwrap();
    let host = authority.identity("host", IssueKind::Host, 1).unwrap();
    let client = authority.identity("node", IssueKind::Client, 1).unwrap();
    (authority, host, client)
}

/// Answers every frame with the same frame, in batches; gives its first error to `fail`.
async fn echo(connection: Connection) {
    let (send, receive) = connection.accept_bi().await.unwrap();
    let writer = FrameWriter::spawn(send, 1 << 20);
    let mut reader = FrameReader::new(receive);
    let mut out = Vec::new();
    loop {
        out.clear();
        let batch = reader.read_batch::<ReadError>(|frame| {
            codec::encode(
                frame.header.request_id,
                &codec::decode::<Request>(frame)?,
                &mut out,
            )?;
            Ok(())
        });
        match batch.await {
            Ok(true) => {
                while writer.try_send_encoded(&out) == Err(SendError::Full) {
                    writer.room().await;
                }
            }
            Ok(false) => return writer.finish().await,
            Err(error) => return close(&connection, CloseCode::Protocol, &error.to_string()),
        }
    }
}

fn get(id: u64) -> Request {
    let key = ProcessKey::new("player", &format!("p{id}")).unwrap();
    Request::GetProcess { key, stale: false }
}

async fn call(host: &Host, identity: &Identity) -> (Endpoint, Connection) {
    let endpoint = Endpoint::client(identity).unwrap();
    let called = endpoint.connect(host.address, Alpn::Client, PATIENCE).await;
    (endpoint, called.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_go_round_in_order_and_the_stream_ends_cleanly() {
    let (_, host, client) = group();
    let host = Host::start(&host, echo);
    let (_endpoint, connection) = call(&host, &client).await;
    let (send, receive) = connection.open_bi().await.unwrap();
    // A small bound, so that senders meet a full buffer.
    let writer = FrameWriter::spawn(send, 4 << 10);
    let total = 20_000;
    let sender = tokio::spawn(async move {
        for id in 0..total {
            writer.send(id, &get(id)).await.unwrap();
        }
    });
    let mut reader = FrameReader::new(receive);
    let mut next = 0;
    while reader
        .read_batch::<ReadError>(|frame| {
            assert_eq!(frame.header.request_id, next);
            assert_eq!(codec::decode::<Request>(frame)?, get(next));
            next += 1;
            Ok(())
        })
        .await
        .unwrap()
    {}
    assert_eq!(next, total);
    sender.await.unwrap();
    host.stop().await;
}

/// Sends `bytes` to an echo and says how the host ended the connection.
async fn ended_by(bytes: &[u8]) -> String {
    let (_, host, client) = group();
    let host = Host::start(&host, echo);
    let (_endpoint, connection) = call(&host, &client).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    let _ = send.finish();
    let why = LinkError::from(connection.closed().await);
    host.stop().await;
    assert!(why.is_fatal(), "{why}");
    why.to_string()
}

#[tokio::test]
async fn bad_frames_end_the_connection_with_the_reason() {
    let mut good = Vec::new();
    codec::encode(1, &get(1), &mut good).unwrap();

    let why = ended_by(&good[..good.len() - 1]).await;
    assert!(why.contains("in the middle of a frame"), "{why}");

    // Refused by its length: the rest never comes.
    let long = (FRAME_BYTES_MAX as u32).to_le_bytes();
    let why = ended_by(&long).await;
    assert!(why.contains("the limit is 1,048,576"), "{why}");

    let mut newer = good.clone();
    newer[4] = codec::VERSION + 1;
    let why = ended_by(&newer).await;
    assert!(why.contains("wire version 2"), "{why}");

    let mut odd = good.clone();
    odd[5] = 200;
    let why = ended_by(&odd).await;
    assert!(why.contains("unknown kind of frame 200"), "{why}");

    let mut damaged = good;
    damaged.truncate(codec::HEADER_BYTES + 3);
    let length = (damaged.len() - 4) as u32;
    damaged[..4].copy_from_slice(&length.to_le_bytes());
    let why = ended_by(&damaged).await;
    assert!(why.contains("malformed message"), "{why}");
}

#[tokio::test]
async fn a_greeting_of_another_kind_is_named() {
    let (_, host, client) = group();
    let (tell, told) = oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    let host = Host::start(&host, move |connection: Connection| {
        let tell = tell.lock().unwrap().take().unwrap();
        async move {
            let (_send, receive) = connection.accept_bi().await.unwrap();
            let read = FrameReader::new(receive).message::<Hello>().await;
            tell.send(read).unwrap();
        }
    });
    let (_endpoint, connection) = call(&host, &client).await;
    let (send, _receive) = connection.open_bi().await.unwrap();
    let writer = FrameWriter::spawn(send, 1 << 10);
    let welcome = Welcome {
        build: String::new(),
        group: 0,
        host: 1,
        in_flight_max: 1,
    };
    writer.try_send(1, &welcome).unwrap();
    let expected = FrameError::Unexpected {
        got: Kind::Welcome,
        expected: Kind::Hello,
    };
    assert_eq!(told.await.unwrap(), Err(ReadError::Frame(expected)));
    host.stop().await;
}

#[tokio::test]
async fn datagrams_carry_one_message() {
    let (_, host, client) = group();
    let host = Host::start(&host, |connection: Connection| async move {
        let (id, keep_alive) = read_datagram::<KeepAlive>(&connection).await.unwrap();
        send_datagram(&connection, id + 1, &keep_alive).unwrap();
        connection.closed().await;
    });
    let (_endpoint, connection) = call(&host, &client).await;
    let keep_alive = KeepAlive {
        epoch: NodeEpoch(7),
        sequence: 1,
        load: None,
        stop_ms: 0,
    };
    send_datagram(&connection, 41, &keep_alive).unwrap();
    let back = read_datagram::<KeepAlive>(&connection).await.unwrap();
    assert_eq!(back, (42, keep_alive));
    close(&connection, CloseCode::Done, "");
    host.stop().await;
}

/// Calls with what a stranger would show, and says how it ended: at once, or at the first read.
async fn stranger(host: &Host, client: &Identity, alpn: &[u8], show: bool) -> LinkError {
    let endpoint = Endpoint::client(client).unwrap();
    let config = quinn::ClientConfig::new(client.stranger(alpn, show));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), host.address.port()));
    let called = endpoint.inner.connect_with(config, address, SERVER_NAME);
    match called.unwrap().await {
        Ok(connection) => connection.closed().await.into(),
        Err(error) => error.into(),
    }
}

#[tokio::test]
async fn strangers_are_told_what_is_wrong() {
    let (authority, host_identity, client) = group();
    // The same name, so that only the key tells the two authorities apart.
    let other = Authority::generate("group").unwrap();
    let host = Host::start(&host_identity, echo);
    let us = Alpn::Client.as_str().as_bytes();

    let foreign = other.identity("node", IssueKind::Client, 1).unwrap();
    assert_eq!(
        stranger(&host, &foreign, us, true).await,
        LinkError::HostUnknown
    );

    // Trusts the host, and shows a certificate of another authority.
    let mixed = other.issue("node", IssueKind::Client, &[], &[], 1).unwrap();
    let (cert, key) = (mixed.cert_pem.as_bytes(), mixed.key_pem.as_bytes());
    let mixed = Identity::from_pem(authority.cert_pem().as_bytes(), cert, key).unwrap();
    let why = stranger(&host, &mixed, us, true).await;
    assert_eq!(why, LinkError::CertificateUnknown);

    assert_eq!(
        stranger(&host, &client, us, false).await,
        LinkError::CertificateMissing
    );
    assert_eq!(
        stranger(&host, &client, b"h3", true).await,
        LinkError::Protocol
    );
    // A protocol of ours that this port does not serve.
    let peer = Alpn::Peer.as_str().as_bytes();
    assert_eq!(
        stranger(&host, &client, peer, true).await,
        LinkError::Protocol
    );
    host.stop().await;
}

#[tokio::test]
async fn a_client_certificate_is_not_good_enough_for_a_host() {
    let (_, _, client) = group();
    let host = Host::start(&client, echo);
    let endpoint = Endpoint::client(&client).unwrap();
    let called = endpoint.connect(host.address, Alpn::Client, PATIENCE).await;
    assert_eq!(called.unwrap_err(), LinkError::NotAHost);
    host.stop().await;
}

#[tokio::test]
async fn silence_is_a_timeout_and_shutdown_is_told() {
    let (_, host, client) = group();
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silent.local_addr().unwrap();
    let endpoint = Endpoint::client(&client).unwrap();
    let wait = Duration::from_millis(200);
    let called = endpoint.connect(address, Alpn::Client, wait).await;
    let millis = 200;
    assert_eq!(called.unwrap_err(), LinkError::NoAnswer { address, millis });

    let host = Host::start(&host, |connection: Connection| async move {
        connection.closed().await;
    });
    let (_endpoint, connection) = call(&host, &client).await;
    host.stop().await;
    let why = LinkError::from(connection.closed().await);
    let code = CloseCode::ShuttingDown;
    assert!(
        matches!(&why, LinkError::Closed { code: told, .. } if *told == code),
        "{why}"
    );
    assert!(!why.is_fatal());
}

#[tokio::test]
async fn files_that_are_wrong_are_named() {
    let (authority, _, _) = group();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let issued = authority
        .issue("n", IssueKind::Client, &[], &[], 1)
        .unwrap();
    let other = authority
        .issue("n", IssueKind::Client, &[], &[], 1)
        .unwrap();
    std::fs::write(path("ca.crt"), authority.cert_pem()).unwrap();
    std::fs::write(path("node.crt"), &issued.cert_pem).unwrap();
    std::fs::write(path("node.key"), &issued.key_pem).unwrap();
    std::fs::write(path("other.key"), &other.key_pem).unwrap();
    let load = |ca: &str, cert: &str, key: &str| {
        let loaded = Identity::from_files(&path(ca), &path(cert), &path(key));
        loaded.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(load("ca.crt", "node.crt", "node.key"), Ok(()));
    let missing = load("ca.crt", "gone.crt", "node.key").unwrap_err();
    assert!(
        missing.contains("gone.crt") && missing.contains("check the path"),
        "{missing}"
    );
    let swapped = load("ca.crt", "node.key", "node.crt").unwrap_err();
    assert!(
        swapped.contains("node.key holds no usable certificate"),
        "{swapped}"
    );
    let mismatched = load("ca.crt", "node.crt", "other.key").unwrap_err();
    assert!(
        mismatched.contains("the key is not the certificate's"),
        "{mismatched}"
    );
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (_, host, _) = group();
    let taken = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let opened = Endpoint::server(address, &host, &[Alpn::Client], Limits::default());
    let text = opened.unwrap_err().to_string();
    assert!(
        text.contains(&address.to_string()) && text.contains("choose another"),
        "{text}"
    );
}

#[tokio::test]
async fn under_load_callers_prove_their_address_and_past_the_limit_they_are_refused() {
    let (_, host, client) = group();
    let busy = Limits {
        handshakes_soft: 0,
        ..Limits::default()
    };
    let loaded = Host::limited(&host, echo, busy);
    // The Retry and the second try happen inside of this call.
    let (_endpoint, connection) = call(&loaded, &client).await;
    close(&connection, CloseCode::Done, "");
    loaded.stop().await;

    let full = Limits {
        connections_max: 0,
        ..Limits::default()
    };
    let full = Host::limited(&host, echo, full);
    let endpoint = Endpoint::client(&client).unwrap();
    let called = endpoint.connect(full.address, Alpn::Client, PATIENCE).await;
    let error = called.unwrap_err();
    assert_eq!(error, LinkError::Refused);
    assert!(!error.is_fatal());
    full.stop().await;
}

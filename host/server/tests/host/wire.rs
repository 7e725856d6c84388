//! What is no protocol ends its connection with a reason, and nothing else.

use std::time::Duration;

use maitred_protocol::limits::{FRAME_BYTES_MAX, IN_FLIGHT_MAX};
use maitred_protocol::{
    ClientId, FrameError, Hello, KeepAlive, Kind, ListProcesses, NodeEpoch, ProcessKey, Rejection,
    Request, Response, Welcome, codec,
};
use maitred_transport::{
    CloseCode, Connection, FrameReader, LinkError, RecvStream, SendStream, send_datagram,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Group, key, within};

pub(crate) fn frame<T: codec::Wire>(id: u64, message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(id, message, &mut bytes).unwrap();
    bytes
}

pub(crate) async fn greet(connection: &Connection) -> (SendStream, FrameReader) {
    let (mut send, receive): (SendStream, RecvStream) = connection.open_bi().await.unwrap();
    let hello = Hello {
        build: "test".to_owned(),
    };
    send.write_all(&frame(7, &hello)).await.unwrap();
    let mut reader = FrameReader::new(receive);
    let (id, welcome) = reader.message::<Welcome>().await.unwrap().unwrap();
    assert_eq!(
        (id, welcome.host, welcome.in_flight_max),
        (7, 1, IN_FLIGHT_MAX as u32)
    );
    (send, reader)
}

/// The next message; what the host says without being asked is passed over.
pub(crate) async fn message<T: codec::Wire>(reader: &mut FrameReader) -> (u64, T) {
    loop {
        let frame = within(reader.next()).await.unwrap().unwrap();
        if frame.header.kind != Kind::Notice {
            return (frame.header.request_id, codec::decode(&frame).unwrap());
        }
    }
}

pub(crate) async fn answer(reader: &mut FrameReader) -> (u64, Response) {
    message(reader).await
}

async fn closed(connection: &Connection) -> (CloseCode, String) {
    match LinkError::from(within(connection.closed()).await) {
        LinkError::Closed { code, reason } => (code, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_close_the_connection_and_the_host_goes_on() {
    let group = Group::new();
    let running = group.start_bare().await;
    let address = running.local_addr();
    let status = frame(1, &Request::Status);
    let mut damaged = status.clone();
    damaged.extend_from_slice(&status);
    let archive = codec::HEADER_BYTES;
    damaged[archive..status.len()].fill(0xff);
    let mut long = status.clone();
    long[..4].copy_from_slice(&(FRAME_BYTES_MAX as u32).to_le_bytes());
    let mut old = status.clone();
    old[4] = 9;
    let misplaced = frame(
        1,
        &Hello {
            build: "again".to_owned(),
        },
    );
    for (bytes, reason) in [
        (damaged, "malformed message"),
        (long, "the limit is 1,048,576"),
        (old, "wire version 9"),
        (misplaced, "frame of kind Hello"),
        (
            status[..status.len() - 1].to_vec(),
            "in the middle of a frame",
        ),
    ] {
        let (_endpoint, connection) = group.connect(address).await;
        let (mut send, _reader) = greet(&connection).await;
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        let (code, got) = closed(&connection).await;
        assert_eq!(code, CloseCode::Protocol);
        assert!(got.contains(reason), "{got:?} lacks {reason:?}");
    }
    // Without a hello, too.
    let (_endpoint, connection) = group.connect(address).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&status).await.unwrap();
    let expected = FrameError::Unexpected {
        got: Kind::Request,
        expected: Kind::Hello,
    };
    assert_eq!(
        closed(&connection).await,
        (CloseCode::Protocol, expected.to_string())
    );

    let client = group.client(&running).await;
    assert_eq!(within(client.status()).await.unwrap().host, 1);
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_out_of_bounds_is_answered_and_the_connection_stays() {
    let group = Group::new();
    let running = group.start_bare().await;
    let (_endpoint, connection) = group.connect(running.local_addr()).await;
    let (mut send, mut reader) = greet(&connection).await;
    let list = ListProcesses {
        limit: 1_001,
        ..ListProcesses::default()
    };
    send.write_all(&frame(3, &Request::ListProcesses(Box::new(list))))
        .await
        .unwrap();
    let (id, response) = answer(&mut reader).await;
    assert_eq!(id, 3);
    assert!(
        matches!(response, Response::Rejected(Rejection::Invalid(ref why)) if why.contains("limit is 1001")),
        "{response:?}"
    );
    send.write_all(&frame(4, &Request::Status)).await.unwrap();
    let (id, response) = answer(&mut reader).await;
    assert!(
        id == 4 && matches!(response, Response::Status(_)),
        "{response:?}"
    );
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_one_of_many_pipelined_requests_is_answered_once() {
    const ROUNDS: u64 = 20;
    let group = Group::new();
    let running = group.start_bare().await;
    let (_endpoint, connection) = group.connect(running.local_addr()).await;
    let (mut send, mut reader) = greet(&connection).await;
    for round in 0..ROUNDS {
        let ids = round * 4_000..(round + 1) * 4_000;
        let mut bytes = Vec::new();
        for id in ids.clone() {
            let key: ProcessKey = key(&format!("room/{id}"));
            codec::encode(id, &Request::GetProcess { key, stale: false }, &mut bytes).unwrap();
        }
        let sending = async {
            send.write_all(&bytes).await.unwrap();
        };
        let mut open: std::collections::BTreeSet<u64> = ids.collect();
        let reading = async {
            while !open.is_empty() {
                let (id, response) = answer(&mut reader).await;
                assert!(open.remove(&id), "{id} was answered twice");
                assert!(
                    matches!(response, Response::Rejected(Rejection::NotFound(_))),
                    "{response:?}"
                );
            }
        };
        within(async { tokio::join!(sending, reading) }).await;
    }
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alives_of_another_connections_session_are_ignored_and_counted() {
    let group = Group::new();
    let config = maitred_server::ServerConfig {
        standard_modules: false,
        http: Some((std::net::Ipv4Addr::LOCALHOST, 0).into()),
        ..group.config()
    };
    let running = maitred_server::Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    let (_endpoint, connection) = group.connect(running.local_addr()).await;
    let _streams = greet(&connection).await;
    let keep_alive = KeepAlive {
        epoch: NodeEpoch(1),
        sequence: 1,
        load: None,
        stop_ms: 0,
    };
    send_datagram(&connection, 0, &keep_alive).unwrap();
    let http = running.http_addr().unwrap();
    let counted = async {
        loop {
            let page = page(http, "/metrics").await;
            if page.contains("\nmaitred_keep_alives_ignored_total 1\n") {
                break page;
            }
            tokio::task::yield_now().await;
        }
    };
    let text = within(counted).await;
    assert!(text.contains("\nmaitred_is_leader 1\n"), "{text}");
    assert!(text.contains("\nmaitred_keep_alives_total 0\n"), "{text}");
    assert!(page(http, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(page(http, "/livez").await.starts_with("HTTP/1.1 200"));
    within(running.shutdown()).await.unwrap();
}

/// One of the host's counters.
pub(crate) async fn counted(running: &maitred_server::Running, name: &str) -> u64 {
    let page = page(running.http_addr().unwrap(), "/metrics").await;
    let line = page.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(' ')?;
        value.parse().ok()
    });
    line.unwrap()
}

pub(crate) async fn page(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_not_read_from_and_delays_nobody() {
    const STALLED: Duration = Duration::from_millis(500);
    let group = Group::new();
    let running = group.start_bare().await;
    let (_endpoint, connection) = group.connect(running.local_addr()).await;
    let (mut send, _unread) = greet(&connection).await;
    let mut requests = Vec::new();
    for id in 0..1_000 {
        codec::encode(id, &Request::Status, &mut requests).unwrap();
    }
    let stalled = async {
        while tokio::time::timeout(STALLED, send.write_all(&requests))
            .await
            .is_ok()
        {}
    };
    within(stalled).await;
    let client = group.client(&running).await;
    for _ in 0..100 {
        within(client.status()).await.unwrap();
    }
    // Nor does it delay the end: it has as long as the operator gives it.
    drop(connection);
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_under_way_come_before_the_host_is_gone() {
    let group = Group::new();
    let running = group.start_bare().await;
    let (_endpoint, connection) = group.connect(running.local_addr()).await;
    let (mut send, mut reader) = greet(&connection).await;
    let mut bytes = frame(1, &Request::OpenSession);
    let del = Request::DelProcess {
        client: ClientId(0),
        key: key("room/1"),
        incarnation: None,
        ended: false,
    };
    bytes.extend(frame(2, &del));
    send.write_all(&bytes).await.unwrap();
    let (_, first) = answer(&mut reader).await;
    let (_, second) = answer(&mut reader).await;
    assert!(matches!(first, Response::Session(_)) || matches!(second, Response::Session(_)));
    within(running.shutdown()).await.unwrap();
    assert_eq!(closed(&connection).await.0, CloseCode::ShuttingDown);
}

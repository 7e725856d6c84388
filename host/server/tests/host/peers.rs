//! What calls as a host and is none of the group, or does not behave as one: a refusal or the end of its
//! connection, and nothing lost.

use maitred_protocol::{
    ClusterId, PeerBatch, PeerGreeting, PeerHello, PeerRefusal, Purpose, RaftKind, RaftMessage,
};
use maitred_server::{Running, Server, ServerConfig};
use maitred_transport::{CloseCode, Connection, Endpoint, FrameReader, LinkError};

use crate::harness::{Group, within};
use crate::wire::{counted, frame};

/// A number that is far beyond the log: for all that a host knows, a member which it has not heard of.
const UNHEARD: u64 = 1 << 40;

fn hello(running: &Running) -> PeerHello {
    PeerHello {
        cluster: Some(running.cluster()),
        host: UNHEARD,
        instance: 7,
        to: running.host(),
        build: "test".to_owned(),
        level_max: 99,
        purpose: Purpose::Raft,
    }
}

async fn greet(
    group: &Group,
    running: &Running,
    hello: &PeerHello,
) -> (Endpoint, Connection, PeerGreeting) {
    let (endpoint, connection) = group.connect_as_peer(running.local_addr()).await;
    let (mut send, receive) = connection.open_bi().await.unwrap();
    send.write_all(&frame(0, hello)).await.unwrap();
    let mut reader = FrameReader::new(receive);
    let (_, greeting) = within(reader.message()).await.unwrap().unwrap();
    (endpoint, connection, greeting)
}

async fn closed(connection: &Connection) -> (CloseCode, String) {
    match LinkError::from(within(connection.closed()).await) {
        LinkError::Closed { code, reason } => (code, reason),
        other => panic!("{other:?}"),
    }
}

fn heartbeat(from: u64, to: u64, term: u64) -> RaftMessage {
    RaftMessage {
        kind: RaftKind::Heartbeat,
        from,
        to,
        term,
        log_term: 0,
        index: 0,
        commit: 0,
        commit_term: 0,
        reject: false,
        reject_hint: 0,
        request_snapshot: 0,
        priority: 0,
        context: Vec::new(),
        entries: Vec::new(),
        snapshot: None,
    }
}

fn batch(group: u32, message: RaftMessage) -> Vec<u8> {
    let messages = vec![message];
    frame(0, &PeerBatch { group, messages })
}

async fn with_metrics(group: &Group) -> Running {
    let config = ServerConfig {
        http: Some((std::net::Ipv4Addr::LOCALHOST, 0).into()),
        ..group.bare()
    };
    let running = Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_belong_here_is_refused_with_the_reason() {
    let group = Group::new();
    let running = with_metrics(&group).await;
    let good = hello(&running);
    let other = ClusterId([9; 16]);
    let refusals = [
        (
            PeerHello {
                cluster: Some(other),
                ..good.clone()
            },
            PeerRefusal::OtherCluster,
        ),
        (
            // Only to join need no cluster be named, and that is no matter of Raft's.
            PeerHello {
                cluster: None,
                ..good.clone()
            },
            PeerRefusal::OtherCluster,
        ),
        (
            PeerHello {
                to: 5,
                ..good.clone()
            },
            PeerRefusal::OtherHost(1),
        ),
        // A number that the log has passed: it was removed, or never given.
        (
            PeerHello {
                host: 2,
                ..good.clone()
            },
            PeerRefusal::NotAMember(2),
        ),
        (
            PeerHello {
                host: 0,
                ..good.clone()
            },
            PeerRefusal::NotAMember(0),
        ),
        (
            PeerHello {
                host: 1,
                ..good.clone()
            },
            PeerRefusal::OtherInstance(1),
        ),
        (
            PeerHello {
                level_max: 0,
                ..good.clone()
            },
            PeerRefusal::TooOld {
                cluster: 1,
                program: 0,
            },
        ),
    ];
    // The log has passed 2 once something was written.
    let client = group.client(&running).await;
    within(client.put_type(maitred_client::protocol::TypeSpec::new(
        "room".parse().unwrap(),
    )))
    .await
    .unwrap();
    let count = refusals.len() as u64;
    for (hello, expected) in refusals {
        let (_endpoint, connection, greeting) = greet(&group, &running, &hello).await;
        match (&greeting, &expected) {
            // The level rises by itself.
            (
                PeerGreeting::Refused(PeerRefusal::TooOld { program: 0, .. }),
                PeerRefusal::TooOld { .. },
            ) => {}
            _ => assert_eq!(greeting, PeerGreeting::Refused(expected)),
        }
        assert_eq!(closed(&connection).await.0, CloseCode::Refused);
    }
    assert_eq!(
        counted(&running, "maitred_peers_refused_total").await,
        count
    );
    within(client.status()).await.unwrap();
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_what_no_peer_sends_is_cut_off_and_nothing_else_happens() {
    let group = Group::new();
    let running = with_metrics(&group).await;
    let client = group.client(&running).await;
    let before = within(client.status()).await.unwrap();
    let ours = running.host();
    let good = batch(0, heartbeat(UNHEARD, ours, 1));
    let mut garbage = good.clone();
    let archive = maitred_protocol::codec::HEADER_BYTES;
    garbage[archive..].fill(0xff);
    let mut newer = good.clone();
    newer[4] = 9;
    let lies = [
        (garbage, "malformed message"),
        (newer, "wire version 9"),
        (good[..good.len() - 1].to_vec(), "in the middle of a frame"),
        (frame(0, &hello(&running)), "frame of kind PeerHello"),
        (
            batch(0, heartbeat(1, ours, 1)),
            "it is from host 1 to host 1",
        ),
        (batch(0, heartbeat(UNHEARD, 3, 1)), "to host 3"),
        (
            batch(0, heartbeat(UNHEARD, ours, u64::MAX)),
            "is far beyond ours",
        ),
        (batch(7, heartbeat(UNHEARD, ours, 1)), "of a group 7"),
    ];
    let count = lies.len() as u64;
    for (bytes, reason) in lies {
        let (_endpoint, connection, greeting) = greet(&group, &running, &hello(&running)).await;
        assert!(matches!(greeting, PeerGreeting::Welcome { host: 1, .. }));
        let mut stream = connection.open_uni().await.unwrap();
        // It may be cut off before it has said everything.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.finish();
        let (code, got) = closed(&connection).await;
        assert_eq!(code, CloseCode::Protocol);
        assert!(got.contains(reason), "{got:?} lacks {reason:?}");
    }
    assert_eq!(
        counted(&running, "maitred_peers_malformed_total").await,
        count
    );
    let after = within(client.status()).await.unwrap();
    assert_eq!((after.term, after.role), (before.term, before.role));
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_connection_of_the_same_host_takes_the_place_of_the_older_one() {
    let group = Group::new();
    let running = with_metrics(&group).await;
    let (_first_endpoint, first, _) = greet(&group, &running, &hello(&running)).await;
    let (_second_endpoint, _second, _) = greet(&group, &running, &hello(&running)).await;
    let (code, reason) = closed(&first).await;
    assert_eq!(code, CloseCode::Done);
    assert!(reason.contains("newer connection"), "{reason}");
    within(running.shutdown()).await.unwrap();
}

//! The way to one peer: called, greeted, called again when it is lost; messages go out as batches.
//!
//! Runs on a task of its own, so that a peer that is slow or gone delays nobody else. Messages are
//! turned into their wire form here, because the replica's thread has no time for that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maitred_protocol::{PeerBatch, PeerHello, PeerRefusal, Purpose, codec};
use maitred_replica::{Input, peer};
use maitred_transport::{CloseCode, Connection, LinkError, SendStream, close};
use raft::eraftpb::Message;
use tokio::sync::watch;

use super::Peers;
use super::queue::Queue;
use crate::bulk::dial::{DialError, Welcomed, dial};
use crate::clock::jittered;
use crate::metrics::Metrics;

/// The first pause after a call that came to nothing; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause; a link that lasted as long was a good one.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Longest that a call may take: a further one is worth more than waiting for this one.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked whether a peer is silent, and how long it may be.
const LOOK: Duration = Duration::from_millis(250);
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// Bytes of a frame's buffer that are kept for the next one.
const FRAME_BYTES_KEPT: usize = 64 << 10;

/// What a link's task shares with those who have something for the peer.
pub(super) struct Way {
    pub(super) host: u64,
    pub(super) queue: Arc<Queue>,
    /// `HOST:PORT`; empty while that is not known.
    pub(super) address: watch::Receiver<String>,
    /// Where the peer called here from, told whenever it does: hosts call from the port that they
    /// listen on. This finds one whose new address nobody could agree on yet.
    pub(super) seen: watch::Receiver<String>,
}

/// Counts a link while it is up, and says when it no longer is, however that comes.
struct Up<'a> {
    peers: &'a Peers,
    host: u64,
}

impl<'a> Up<'a> {
    fn new(peers: &'a Peers, host: u64) -> Self {
        peers.links_up.fetch_add(1, Ordering::Relaxed);
        Self { peers, host }
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.peers.links_up.fetch_sub(1, Ordering::Relaxed);
        self.peers.inbox.push(Input::Unreachable(self.host));
    }
}

/// Keeps the way to a peer open, until it is aborted.
pub(super) async fn run(peers: Arc<Peers>, mut way: Way) {
    let host = way.host;
    let mut pause = PAUSE_MIN;
    let mut told = String::new();
    let (mut prefers_seen, mut called_back) = (false, false);
    loop {
        let Some(address) = address_of(&mut way, prefers_seen) else {
            news(&mut way, "").await;
            continue;
        };
        prefers_seen = !prefers_seen;
        let dialled = {
            let hello = peers.hello(host, Purpose::Raft);
            tokio::select! {
                dialled = call(&peers, &address, &hello) => dialled,
                // Whatever was under way would take its time to find out. Once: two that call each
                // other at the same time would break off each other's calls for ever.
                called = news(&mut way, &address), if !called_back => {
                    (pause, prefers_seen, called_back) = (PAUSE_MIN, called, called);
                    continue;
                }
            }
        };
        called_back = false;
        match dialled {
            Ok((connection, welcomed)) => {
                tracing::info!(peer = host, %address, build = welcomed.build, "a peer is reached");
                told = String::new();
                prefers_seen = false;
                let began = tokio::time::Instant::now();
                let level_max = welcomed.level_max;
                peers.inbox.push(Input::Met { host, level_max });
                let _up = Up::new(&peers, host);
                let error = talk(&peers, &mut way, &address, &connection).await;
                tracing::info!(peer = host, %address, %error, "a peer is lost");
                // One that greets and then breaks every link is no better than one that is gone.
                if began.elapsed() >= PAUSE_MAX {
                    pause = PAUSE_MIN;
                }
            }
            Err(error) => {
                if let Some(DialError::Refused(PeerRefusal::NotAMember(_))) = error {
                    // Perhaps it is only behind; whoever leads knows.
                    peers.doubted.notify_one();
                }
                let why = error.map_or_else(
                    || format!("no answer within {} ms", CALL_TIMEOUT.as_millis()),
                    |error| error.to_string(),
                );
                if why != told {
                    tracing::warn!(peer = host, %address, %why, "a peer cannot be reached; trying again");
                    told = why;
                }
            }
        }
        // What waited is out of date.
        Metrics::add(&peers.metrics.peer_messages_dropped, way.queue.clear());
        match tokio::time::timeout(jittered(pause), news(&mut way, &address)).await {
            Ok(called) => (pause, prefers_seen) = (PAUSE_MIN, called),
            Err(_) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

/// Nothing stands for no answer in time.
async fn call(
    peers: &Peers,
    address: &str,
    hello: &PeerHello,
) -> Result<(Connection, Welcomed), Option<DialError>> {
    let called = tokio::time::timeout(CALL_TIMEOUT, dial(&peers.endpoint, address, hello));
    match called.await {
        Ok(called) => called.map_err(Some),
        Err(_) => Err(None),
    }
}

/// Where to call: the address that the members agreed on, and in turn with it the one that the peer
/// called from.
fn address_of(way: &mut Way, prefers_seen: bool) -> Option<String> {
    let agreed = way.address.borrow_and_update().clone();
    let seen = way.seen.borrow_and_update().clone();
    let one = if (prefers_seen || agreed.is_empty()) && !seen.is_empty() {
        seen
    } else {
        agreed
    };
    (!one.is_empty()).then_some(one)
}

/// Waits until there is a reason to call the peer at once: it is elsewhere, or it has called here,
/// which is said with true. `called` is where it is being called.
async fn news(way: &mut Way, called: &str) -> bool {
    // A call that has only begun does not need to begin again.
    let soon = tokio::time::Instant::now() + PAUSE_MIN;
    loop {
        tokio::select! {
            changed = way.address.changed() => match changed {
                Ok(()) => return false,
                // The link is being given up.
                Err(_) => std::future::pending().await,
            },
            changed = way.seen.changed() => match changed {
                Ok(()) => {
                    let elsewhere = *way.seen.borrow_and_update() != called;
                    if elsewhere || tokio::time::Instant::now() >= soon {
                        return true;
                    }
                }
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// Sends what is queued until the connection ends or the peer has another address.
async fn talk(peers: &Peers, way: &mut Way, called: &str, connection: &Connection) -> LinkError {
    let mut stream = match connection.open_uni().await {
        Ok(stream) => stream,
        Err(error) => return error.into(),
    };
    let Way { queue, address, .. } = way;
    let sending = async {
        let mut frame = Vec::new();
        loop {
            let messages = queue.take().await;
            if let Err(error) = send(peers, messages, &mut frame, &mut stream).await {
                return error;
            }
        }
    };
    let (code, why, error) = tokio::select! {
        error = sending => (CloseCode::Done, "", error),
        ended = connection.closed() => (CloseCode::Done, "", ended.into()),
        () = silence(connection) => (CloseCode::Limit, "nothing was heard", LinkError::Lost),
        () = moved(address, called) => {
            (CloseCode::Done, "the peer has another address", LinkError::Local)
        }
    };
    let ended = connection.close_reason().map(LinkError::from);
    close(connection, code, why);
    ended.unwrap_or(error)
}

/// Waits until the peer is said to be elsewhere than where it was called.
async fn moved(address: &mut watch::Receiver<String>, called: &str) {
    loop {
        if address.changed().await.is_err() {
            // The link is being given up.
            return std::future::pending().await;
        }
        let now = address.borrow_and_update();
        if !now.is_empty() && *now != called {
            return;
        }
    }
}

/// Waits until nothing at all has come from the peer for a while, though it was told something. Far
/// sooner than QUIC gives up, and than it would try again: its pauses grow while a network is down.
async fn silence(connection: &Connection) {
    let mut before = connection.stats();
    let mut since = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = connection.stats();
        if now.udp_rx.datagrams != before.udp_rx.datagrams {
            (before, since) = (now, None);
        } else if now.udp_tx.datagrams != before.udp_tx.datagrams {
            let since = since.get_or_insert_with(tokio::time::Instant::now);
            if since.elapsed() >= SILENCE_MAX {
                return;
            }
        }
    }
}

async fn send(
    peers: &Peers,
    messages: Vec<Message>,
    frame: &mut Vec<u8>,
    stream: &mut SendStream,
) -> Result<(), LinkError> {
    let messages: Vec<_> = messages.into_iter().filter_map(peer::to_wire).collect();
    let count = messages.len();
    let batch = PeerBatch { group: 0, messages };
    frame.clear();
    let metrics = &peers.metrics;
    if let Err(error) = codec::encode(0, &batch, frame) {
        // One message of more than 8 MiB, which Raft's own limits do not make.
        tracing::error!(%error, "messages for a peer cannot be sent");
        Metrics::add(&metrics.peer_messages_dropped, count);
        return Ok(());
    }
    let written = stream.write_all(frame).await;
    written.map_err(|_| LinkError::Lost)?;
    Metrics::add(&metrics.peer_messages_sent, count);
    Metrics::add(&metrics.peer_bytes_sent, frame.len());
    if frame.capacity() > FRAME_BYTES_KEPT {
        *frame = Vec::new();
    }
    Ok(())
}

//! A connection that another host made: its certificate, its greeting, and then Raft's messages, or
//! calls.
//!
//! Holds: what comes from a peer is handed to the replica in its order, as coming from the host that
//! was greeted, whatever the message itself says. Whoever sends something else is cut off.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maitred_protocol::{
    FrameError, PeerBatch, PeerGreeting, PeerHello, PeerRefusal, Purpose, RaftKind, RaftMessage,
    codec,
};
use maitred_replica::peer::{self, BadMessage};
use maitred_replica::{Input, Install};
use maitred_transport::{
    CloseCode, Connection, FrameReader, LinkError, ReadError, SendStream, close, widen,
};

use crate::bulk::Offered;
use crate::host::Host;
use crate::metrics::Metrics;

/// Longest that a caller may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest to wait until a refused caller has read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a caller is cut off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Message(#[from] BadMessage),
    #[error("messages of a group {0} that this host has not")]
    Group(u32),
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Self {
        Self::Read(error.into())
    }
}

/// Takes care of one connection until it ends.
pub(crate) async fn serve(host: Arc<Host>, quic: Connection) {
    let served = async {
        if let Err(error) = host.peers.identity.check_peer(&quic) {
            Metrics::count(&host.metrics.peers_refused);
            let source = quic.remote_address();
            tracing::warn!(%source, %error, "a caller that shows no host's certificate wants to be a peer");
            let why = "only hosts may call here: show a certificate of the kind for hosts";
            return close(&quic, CloseCode::Refused, why);
        }
        match tokio::time::timeout(HELLO_TIMEOUT, greet(&host, &quic)).await {
            Ok(Ok(Some(hello))) => talk(&host, &quic, hello).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => cut_off(&host, &quic, &error.into()),
            Err(_) => close(&quic, CloseCode::Limit, "no hello within 10 seconds"),
        }
    };
    tokio::select! {
        () = served => {}
        () = host.peers_end() => {
            close(&quic, CloseCode::ShuttingDown, "the host is shutting down");
        }
    }
}

/// Reads a hello and answers it; none when it was refused.
async fn greet(host: &Host, quic: &Connection) -> Result<Option<PeerHello>, ReadError> {
    let accepted = quic.accept_bi().await.map_err(LinkError::from)?;
    let (mut send, receive) = accepted;
    let mut reader = FrameReader::new(receive);
    let Some((_, hello)) = reader.message::<PeerHello>().await? else {
        return Err(ReadError::Abandoned);
    };
    let source = quic.remote_address();
    if let Err(why) = host.peers.judge(&hello) {
        Metrics::count(&host.metrics.peers_refused);
        if host.peers.is_news(hello.host, &why) {
            tracing::warn!(peer = hello.host, %source, %why, "a host that called was refused");
        }
        refuse(quic, send, why).await?;
        return Ok(None);
    }
    answer(&mut send, &host.peers.welcome()).await?;
    widen(quic);
    host.peers.has_called(hello.host, source);
    tracing::debug!(peer = hello.host, %source, build = hello.build, purpose = ?hello.purpose, "a host has called");
    Ok(Some(hello))
}

async fn answer(send: &mut SendStream, greeting: &PeerGreeting) -> Result<(), ReadError> {
    let mut frame = Vec::new();
    codec::encode(0, greeting, &mut frame)?;
    let written = send.write_all(&frame).await;
    written.map_err(|_| ReadError::Abandoned)?;
    // A stream that has ended already needs no end.
    let _ = send.finish();
    Ok(())
}

async fn refuse(
    quic: &Connection,
    mut send: SendStream,
    why: PeerRefusal,
) -> Result<(), ReadError> {
    let text = why.to_string();
    answer(&mut send, &PeerGreeting::Refused(why)).await?;
    // Closing at once would overtake the frame.
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, send.stopped()).await;
    close(quic, CloseCode::Refused, &text);
    Ok(())
}

async fn talk(host: &Arc<Host>, quic: &Connection, hello: PeerHello) {
    if hello.purpose == Purpose::Bulk {
        return Arc::clone(&host.bulk).serve(quic.clone(), &hello).await;
    }
    let from = hello.host;
    host.inbox.push(Input::Met {
        host: from,
        level_max: hello.level_max,
    });
    host.peers.take_over(from, quic);
    let end = read_messages(host, quic, from).await;
    host.peers.ended(from, quic);
    match end {
        Ok(()) => close(quic, CloseCode::Done, ""),
        Err(error) => cut_off(host, quic, &error),
    }
}

fn cut_off(host: &Host, quic: &Connection, error: &Broken) {
    if let Broken::Read(ReadError::Link(_) | ReadError::Abandoned) = error {
        return close(quic, CloseCode::Done, "");
    }
    let metrics = &host.metrics;
    // Every one of these costs the caller a connection, so there are not many to tell of.
    Metrics::count(&metrics.peers_malformed);
    let source = quic.remote_address();
    tracing::warn!(%source, %error, "a peer's connection is closed");
    close(quic, CloseCode::Protocol, &error.to_string());
}

async fn read_messages(host: &Arc<Host>, quic: &Connection, from: u64) -> Result<(), Broken> {
    let stream = quic.accept_uni().await.map_err(LinkError::from);
    let mut reader = FrameReader::from_peer(stream.map_err(ReadError::from)?);
    let mut inputs = Vec::new();
    loop {
        let mut bytes = 0;
        let read = reader.read_batch::<Broken>(|frame| {
            bytes += frame.consumed;
            take(host, from, codec::decode::<PeerBatch>(frame)?, &mut inputs)
        });
        let more = read.await;
        // What came before something bad is as good as ever.
        Metrics::add(&host.metrics.peer_messages_received, inputs.len());
        Metrics::add(&host.metrics.peer_bytes_received, bytes);
        host.inbox.push_peers(&mut inputs, bytes);
        if !more? {
            return Ok(());
        }
        host.inbox.room_for_peers().await;
    }
}

fn take(
    host: &Arc<Host>,
    from: u64,
    batch: PeerBatch,
    inputs: &mut Vec<Input>,
) -> Result<(), Broken> {
    if batch.group != 0 {
        return Err(Broken::Group(batch.group));
    }
    let ours = host.peers.term.load(Ordering::Relaxed);
    for message in batch.messages {
        let offered = offered(from, &message);
        let message = peer::from_wire(message, from, host.number, ours)?;
        match offered {
            Some(offered) => host.bulk.install(offered, move |registry| {
                Input::Install(Box::new(Install { message, registry }))
            }),
            None => inputs.push(Input::Peer(Box::new(message))),
        }
    }
    Ok(())
}

/// The snapshot that a message tells of.
fn offered(from: u64, message: &RaftMessage) -> Option<Offered> {
    let id = message.snapshot.as_deref();
    let id = id.filter(|_| message.kind == RaftKind::Snapshot)?;
    Some(Offered {
        from,
        index: id.index,
        term: id.term,
    })
}

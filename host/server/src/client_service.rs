//! A client's connection from greeting to end: requests in, and whose turn it is when it ends.
//!
//! A connection has one control stream: hello, welcome, then pipelined requests, and answers in
//! whatever order they come. Further streams are uploads; datagrams are keep-alives, which may come as
//! frames too. A field out of
//! bounds is answered and the connection stays; bytes that are no message end it, since nothing after
//! them can be trusted. A client that does not read its answers is not read from either.

use std::sync::Arc;
use std::time::Duration;

use maitred_protocol::limits::{IN_FLIGHT_MAX, TEXT_BYTES_MAX};
use maitred_protocol::{
    Frame, FrameError, Hello, KeepAlive, Kind, NodeAnswer, NodeName, Rejection, Request, Response,
    Unavailable, Welcome, codec,
};
use maitred_replica::Input;
use maitred_transport::{
    CloseCode, Connection, FrameReader, FrameWriter, LinkError, ReadError, close,
};

use tokio::task::AbortHandle;

use crate::host::Host;
use crate::link::{Link, Out, encode_response, send_encoded, send_out};
use crate::metrics::Metrics;
use crate::node_service::Pace;
use crate::replay::{self, Replay};
use crate::router::Router;
use crate::{activate, node_service, upload};

/// Longest that a client may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that is to be closed, and that nothing is heard of, is waited for.
const SILENCE: Duration = Duration::from_millis(300);
/// Bytes of frames that may wait for the stream.
const OUT_BYTES_MAX: usize = 1 << 20;

/// How a connection ended.
enum End {
    /// The client ended its control stream, or the host shuts down: what is asked is answered.
    Wanted(CloseCode, &'static str),
    /// The client broke the rules.
    Broken(String),
    /// There is nobody left to tell.
    Gone,
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Frame(_) | ReadError::Truncated(_) => Self::Broken(error.to_string()),
            ReadError::Abandoned | ReadError::Link(_) => Self::Gone,
        }
    }
}

/// Takes care of one connection until it ends.
pub(crate) async fn serve(host: Arc<Host>, quic: Connection) {
    let greeted = tokio::time::timeout(HELLO_TIMEOUT, greet(&host, &quic));
    let (mut reader, writer) = match greeted.await {
        Ok(Ok(streams)) => streams,
        Ok(Err(end)) => return finish(&host, &quic, end),
        Err(_) => return close(&quic, CloseCode::Limit, "no hello within 10 seconds"),
    };
    Metrics::count(&host.metrics.connections);
    let open = Open::new(&host, &quic, &writer);
    let link = &open.link;
    let end = tokio::select! {
        end = read_requests(&host, link, &mut reader, &writer) => end,
        end = upload::take_streams(&host, link) => End::from(end),
        end = node_service::keep_alives(&host, link) => End::from(ReadError::Link(end)),
        () = host.stopping() => End::Wanted(CloseCode::ShuttingDown, "the host is shutting down"),
    };
    if matches!(end, End::Wanted(..)) {
        // What this connection asked for has been taken, so it is answered: by the replica's own
        // shutdown at the latest.
        let answered = async {
            link.idle().await;
            tokio::select! {
                () = writer.finish() => {}
                () = silence(&quic) => {}
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(host.patience, answered) => {}
            _ = quic.closed() => {}
        }
    }
    drop(open);
    finish(&host, &quic, end);
}

/// Waits until nothing at all has come from the other side for a while: it is dead, or does not read
/// what it asked for, and says not even that it has it.
async fn silence(quic: &Connection) {
    let mut heard = quic.stats().udp_rx.datagrams;
    loop {
        tokio::time::sleep(SILENCE.max(4 * quic.rtt())).await;
        let now = quic.stats().udp_rx.datagrams;
        if now == heard {
            return;
        }
        heard = now;
    }
}

/// A connection that others can tell something; forgotten when this is dropped, however it ends.
struct Open {
    host: Arc<Host>,
    link: Arc<Link>,
    outgoing: AbortHandle,
}

impl Open {
    fn new(host: &Arc<Host>, quic: &Connection, writer: &FrameWriter) -> Self {
        let link = host.router.open(quic.clone());
        let outgoing = send_out(Arc::clone(host), Arc::clone(&link), writer.clone());
        Self {
            host: Arc::clone(host),
            link,
            outgoing: tokio::spawn(outgoing).abort_handle(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.host.router.close(&self.link);
        self.host.nodes.unbind(&self.link);
        self.outgoing.abort();
    }
}

fn finish(host: &Host, quic: &Connection, end: End) {
    match end {
        End::Wanted(code, reason) => close(quic, code, reason),
        End::Broken(reason) => {
            Metrics::count(&host.metrics.connections_malformed);
            tracing::info!(source = %quic.remote_address(), %reason, "a connection is closed");
            close(quic, CloseCode::Protocol, &reason);
        }
        End::Gone => close(quic, CloseCode::Done, ""),
    }
}

async fn greet(host: &Host, quic: &Connection) -> Result<(FrameReader, FrameWriter), End> {
    let (send, receive) = quic
        .accept_bi()
        .await
        .map_err(|error| ReadError::Link(error.into()))?;
    let mut reader = FrameReader::new(receive);
    let Some((id, hello)) = reader.message::<Hello>().await? else {
        return Err(End::Broken(
            "the control stream ended before a hello".to_owned(),
        ));
    };
    let mut build = hello.build;
    if build.len() > TEXT_BYTES_MAX {
        build = "(too long a name)".to_owned();
    }
    tracing::debug!(source = %quic.remote_address(), build, "a client says hello");
    let writer = FrameWriter::spawn(send, OUT_BYTES_MAX);
    let welcome = Welcome {
        build: host.build.clone(),
        group: 0,
        host: host.number,
        in_flight_max: IN_FLIGHT_MAX as u32,
    };
    writer.send(id, &welcome).await.map_err(|_| End::Gone)?;
    Ok((reader, writer))
}

/// What one read brought.
#[derive(Default)]
struct Batch {
    inputs: Vec<Input>,
    /// What the host itself has to do something about: slot, request id, request.
    own: Vec<(u16, u64, Request)>,
    /// Answers that need no replica.
    refused: Vec<u8>,
    /// Of the keep-alives among the frames.
    pace: Pace,
}

async fn read_requests(
    host: &Arc<Host>,
    link: &Arc<Link>,
    reader: &mut FrameReader,
    writer: &FrameWriter,
) -> End {
    let mut batch = Batch::default();
    loop {
        let read = reader.read_batch::<ReadError>(|frame| Ok(take(host, link, frame, &mut batch)?));
        match read.await {
            Ok(true) => {}
            Ok(false) => return End::Wanted(CloseCode::Done, "nothing more was asked"),
            Err(error) => return error.into(),
        }
        for (slot, id, request) in batch.own.drain(..) {
            // The slots bound how many there are.
            tokio::spawn(carry_out(
                Arc::clone(host),
                Arc::clone(link),
                slot,
                id,
                request,
            ));
        }
        host.inbox.offer(&mut batch.inputs);
        refuse_rest(host, link, &mut batch);
        // Whoever always has something to ask does not hold up its own keep-alives.
        tokio::task::coop::consume_budget().await;
        if batch.refused.is_empty() {
            continue;
        }
        if !send_encoded(link, writer, &batch.refused).await {
            return End::Gone;
        }
        batch.refused.clear();
    }
}

fn take(host: &Host, link: &Link, frame: &Frame<'_>, batch: &mut Batch) -> Result<(), FrameError> {
    let id = frame.header.request_id;
    if frame.header.kind == Kind::Answer {
        host.nodes
            .answer(link, id, codec::decode::<NodeAnswer>(frame)?);
        return Ok(());
    }
    if frame.header.kind == Kind::KeepAlive {
        let keep_alive = codec::decode::<KeepAlive>(frame)?;
        node_service::renew_by_stream(host, link, &mut batch.pace, keep_alive);
        return Ok(());
    }
    Metrics::count(&host.metrics.requests);
    let request = match codec::decode::<Request>(frame) {
        Ok(request) => request,
        Err(FrameError::OutOfBounds(error)) => {
            Metrics::count(&host.metrics.requests_invalid);
            let response = Response::Rejected(Rejection::Invalid(error.to_string()));
            encode_response(id, &response, &mut batch.refused);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    match link.reserve(id, node_of(&request)) {
        Some(slot) if is_own(&request) => batch.own.push((slot, id, request)),
        Some(slot) => batch.inputs.push(Input::Request {
            ticket: Router::ticket(link, slot),
            sequence: id,
            request,
        }),
        None => {
            Metrics::count(&host.metrics.requests_overloaded);
            let what = format!("{IN_FLIGHT_MAX} requests of this connection are unanswered");
            let response = Response::Unavailable(Unavailable::Overloaded(what));
            encode_response(id, &response, &mut batch.refused);
        }
    }
    Ok(())
}

/// Whether the host itself has something to do about a request, before or instead of the replica.
fn is_own(request: &Request) -> bool {
    matches!(
        request,
        Request::ActivateModule { .. }
            | Request::RollbackModule(..)
            | Request::ShadowModule { .. }
            | Request::CompareModule(_)
            | Request::ReplayModule { .. }
    )
}

async fn carry_out(host: Arc<Host>, link: Arc<Link>, slot: u16, id: u64, request: Request) {
    let answer = match request {
        Request::CompareModule(name) => replay::compare(&host, &name).await,
        Request::ReplayModule {
            name,
            version,
            config,
            last,
        } => {
            let asked = Replay {
                name,
                version,
                config,
                last,
            };
            replay::replay(&host, asked).await
        }
        request => activate::carry_out(&host, id, request).await,
    };
    let order = 0; // It registers nobody.
    link.put(vec![Out::Answer {
        slot,
        order,
        answer,
    }]);
}

/// The node whose session the answer will bind to the connection.
fn node_of(request: &Request) -> Option<Box<NodeName>> {
    match request {
        Request::RegisterNode(_, register) => Some(Box::new(register.name.clone())),
        Request::AttachNode { name, .. } => Some(Box::new(name.clone())),
        _ => None,
    }
}

/// Answers the requests that the inbox had no room for.
fn refuse_rest(host: &Host, link: &Link, batch: &mut Batch) {
    if batch.inputs.is_empty() {
        return;
    }
    let why = if *host.stopping.borrow() {
        Unavailable::ShuttingDown
    } else {
        Unavailable::Overloaded("too many requests wait for this host's replica".to_owned())
    };
    let mut slots = Vec::new();
    for input in batch.inputs.drain(..) {
        if let Input::Request {
            ticket, sequence, ..
        } = input
        {
            Metrics::count(&host.metrics.requests_overloaded);
            slots.push(Router::slot(ticket));
            encode_response(
                sequence,
                &Response::Unavailable(why.clone()),
                &mut batch.refused,
            );
        }
    }
    link.release(&mut slots);
}

/// Why the connection itself ended.
pub(crate) fn lost(quic: &Connection) -> LinkError {
    quic.close_reason().map_or(LinkError::Lost, LinkError::from)
}

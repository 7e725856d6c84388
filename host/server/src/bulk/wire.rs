//! One call: a stream, a question, an answer, and raw bytes where the answer announces some.
//!
//! Holds: whoever waits for the other side does so for a bounded time, and nobody reads more bytes
//! than were announced.

use std::time::Duration;

use maitred_protocol::{Digest, PeerRequest, PeerResponse, Wire, codec};
use maitred_transport::{Connection, FrameReader, LinkError, ReadError, SendStream};

use super::dial::DialError;
use super::pool::InUse;

/// Bytes that are sent at a time.
pub(crate) const PIECE_BYTES: usize = 256 << 10;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// Longest silence in the middle of raw bytes; longest wait for the other side to take some.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody to call.
    #[error("it is not a member, or its address is not known yet")]
    Unknown,
    /// It cannot be reached, or does not want to talk.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// What came is no answer, or the connection was lost.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The stream ended early.
    #[error("it ended its answer early")]
    Ended,
    /// It took too long.
    #[error("it did not answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// It does not have what was asked for.
    #[error("it does not have it")]
    NotFound,
    /// It says why it cannot just now.
    #[error("{0}")]
    Unavailable(String),
    /// It says why it will not.
    #[error("{0}")]
    Refused(String),
    /// Its answer does not fit the question.
    #[error("its answer does not fit the question")]
    Unfit,
}

impl CallError {
    /// What an answer means that is not the wanted one.
    pub(crate) fn of(response: PeerResponse) -> Self {
        match response {
            PeerResponse::NotFound => Self::NotFound,
            PeerResponse::Unavailable(why) => Self::Unavailable(why),
            PeerResponse::Refused(why) => Self::Refused(why),
            PeerResponse::Joined { .. }
            | PeerResponse::NotLeader(_)
            | PeerResponse::Bytes { .. }
            | PeerResponse::Held
            | PeerResponse::Ready
            | PeerResponse::Evidence(..) => Self::Unfit,
        }
    }
}

/// Raw bytes that are coming.
#[derive(Debug)]
pub(crate) struct Body {
    reader: FrameReader,
    /// How many are still to come.
    left: u64,
    /// How large the whole is, which this may be the end of.
    pub(crate) total: u64,
    /// The hash of the whole.
    pub(crate) digest: Digest,
    /// Keeps a shared connection open.
    pub(crate) in_use: Option<InUse>,
}

impl Body {
    /// How many are still to come.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Waits for the next ones: what there is, at most [`READ_BYTES`]. None when all have come.
    ///
    /// # Errors
    /// [`CallError`] when the rest will not come.
    pub(crate) async fn piece(&mut self) -> Result<Option<Vec<u8>>, CallError> {
        if self.left == 0 {
            return Ok(None);
        }
        let room = usize::try_from(self.left).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        let mut piece = vec![0; room];
        let read = tokio::time::timeout(SILENCE, self.reader.raw(&mut piece)).await;
        let count = read.map_err(|_| CallError::Silent(SILENCE))??;
        let count = count.ok_or(CallError::Ended)?;
        piece.truncate(count);
        self.left -= count as u64;
        Ok(Some(piece))
    }
}

/// Sends one message under a request id; calls between hosts have a stream each, and so need none.
/// Waits until the stream has taken it.
///
/// # Errors
/// None stands for whatever ended the stream; reading the other half says what that was.
pub(crate) async fn send<T: Wire>(stream: &mut SendStream, id: u64, message: &T) -> Option<()> {
    let mut frame = Vec::new();
    codec::encode(id, message, &mut frame).ok()?;
    send_raw(stream, &frame).await
}

/// Sends raw bytes, as [`send`]; gives up when none is taken for a while.
pub(crate) async fn send_raw(stream: &mut SendStream, bytes: &[u8]) -> Option<()> {
    let written = tokio::time::timeout(SILENCE, stream.write_all(bytes)).await;
    written.ok()?.ok()
}

/// Asks, and waits for the answer at most `within`; raw bytes may follow in the reader.
async fn ask(
    connection: &Connection,
    request: &PeerRequest,
    within: Duration,
) -> Result<(PeerResponse, FrameReader), CallError> {
    let asked = async {
        let opened = connection.open_bi().await;
        let (mut stream, receive) =
            opened.map_err(|error| ReadError::Link(LinkError::from(error)))?;
        // A stream that cannot be written says why when it is read.
        let _ = send(&mut stream, 0, request).await;
        let _ = stream.finish();
        let mut reader = FrameReader::new(receive);
        let answer = reader.message::<PeerResponse>().await?;
        let (_, response) = answer.ok_or(CallError::Ended)?;
        Ok((response, reader))
    };
    let asked = tokio::time::timeout(within, asked).await;
    asked.unwrap_or(Err(CallError::Silent(within)))
}

/// Calls a host on a connection that [`super::dial::dial`] made for bulk.
///
/// # Errors
/// [`CallError`]; answers that say no are answers.
pub(crate) async fn call(
    connection: &Connection,
    request: &PeerRequest,
    within: Duration,
) -> Result<PeerResponse, CallError> {
    let (response, _) = ask(connection, request, within).await?;
    Ok(response)
}

/// As [`call`], for what is answered with raw bytes.
///
/// # Errors
/// [`CallError`], also for an answer that announces none.
pub(crate) async fn call_for_bytes(
    connection: &Connection,
    request: &PeerRequest,
    within: Duration,
) -> Result<Body, CallError> {
    let (response, reader) = ask(connection, request, within).await?;
    match response {
        PeerResponse::Bytes {
            bytes,
            total,
            digest,
        } if bytes <= total => Ok(Body {
            reader,
            left: bytes,
            total,
            digest,
            in_use: None,
        }),
        other => Err(CallError::of(other)),
    }
}

//! Files that a host sends over a stream of their own: a question, an announcement, then raw bytes that
//! are checked against the length and the hash that were announced.
//!
//! Knows nothing of what is in them.

use std::io::Write;
use std::time::Duration;

use maitred_protocol::{Digest, Wire, codec};
use maitred_transport::{FrameReader, LinkError, ReadError};
use tokio::time::{Instant, timeout, timeout_at};

use crate::conn::Conn;
use crate::error::{Cause, Error, Fatal};
use crate::pool::Route;
use crate::verbs::Client;

/// Bytes that are read and written at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Longest that nothing may come while the file does.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);

/// What is to come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announced {
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
}

/// A stream whose answer has been read, and whose bytes have not.
#[derive(Debug)]
pub(crate) struct Download {
    /// The host that it comes from.
    pub(crate) host: u64,
    reader: FrameReader,
}

fn lost(cause: LinkError) -> Error {
    Error::link(cause)
}

fn unreadable(error: ReadError) -> Error {
    match error {
        ReadError::Link(cause) => lost(cause),
        ReadError::Truncated(_) | ReadError::Abandoned => lost(LinkError::Lost),
        ReadError::Frame(error) => Fatal::Frame(error).into(),
    }
}

fn damaged(how: &'static str) -> Error {
    let cause = Cause::Damaged(how);
    Error::Unavailable { cause }
}

impl Download {
    /// Asks, and reads the answer, which may take `within`.
    pub(crate) async fn begin<A: Wire>(
        client: &Client,
        route: Route,
        question: &impl Wire,
        within: Duration,
    ) -> Result<(Self, A), Error> {
        let deadline = Instant::now() + client.settings().request_timeout;
        let pool = &client.caller().pool;
        let (_, conn) = pool.pick(route, None, deadline).await?;
        let asked = timeout(within, ask(&conn, pool.own_id(), question)).await;
        let (reader, answer) = asked.unwrap_or(Err(lost(LinkError::Lost)))?;
        let host = conn.welcome.host;
        Ok((Self { host, reader }, answer))
    }

    /// Writes what comes to `to`, and tells `progress` how many bytes of how many have.
    pub(crate) async fn receive(
        mut self,
        announced: Announced,
        to: &mut (impl Write + Send),
        mut progress: impl FnMut(u64, u64) + Send,
    ) -> Result<(), Error> {
        let Announced { bytes, digest } = announced;
        let mut hasher = blake3::Hasher::new();
        let (mut received, mut piece) = (0, vec![0; PIECE_BYTES]);
        loop {
            let until = Instant::now() + STALL_TIMEOUT;
            let read = timeout_at(until, self.reader.raw(&mut piece)).await;
            let read = read.unwrap_or(Err(ReadError::Link(LinkError::Lost)));
            let Some(count) = read.map_err(unreadable)? else {
                break;
            };
            let part = piece.get(..count).unwrap_or_default();
            received += part.len() as u64;
            if received > bytes {
                return Err(damaged("more came than was announced"));
            }
            hasher.update(part);
            let written = to.write_all(part);
            written.map_err(|error| Fatal::Write(error.to_string()))?;
            progress(received, bytes);
        }
        if received < bytes {
            return Err(damaged("it was cut short"));
        }
        if *hasher.finalize().as_bytes() != digest.0 {
            return Err(damaged("its hash is not the announced one"));
        }
        let written = to.flush();
        Ok(written.map_err(|error| Fatal::Write(error.to_string()))?)
    }
}

async fn ask<A: Wire>(
    conn: &Conn,
    id: u64,
    question: &impl Wire,
) -> Result<(FrameReader, A), Error> {
    let mut head = Vec::new();
    codec::encode(id, question, &mut head).map_err(Fatal::Frame)?;
    let opened = conn.connection.open_bi().await;
    let (mut send, receive) = opened.map_err(|error| lost(error.into()))?;
    let sent = send.write_all(&head).await;
    sent.map_err(|error| lost(LinkError::Broken(error.to_string())))?;
    let _ = send.finish();
    let mut reader = FrameReader::new(receive);
    let answer = reader.message::<A>().await.map_err(unreadable)?;
    let (_, answer) = answer.ok_or_else(|| lost(LinkError::Lost))?;
    Ok((reader, answer))
}

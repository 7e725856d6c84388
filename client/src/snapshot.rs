//! Saving a snapshot: a stream of its own, whose bytes are checked against the length and the hash
//! that were announced.

use std::io::Write;
use std::time::Duration;

use maitred_protocol::{Digest, SaveSnapshot, SavedSnapshot, codec};
use maitred_transport::{FrameReader, LinkError, ReadError};
use tokio::time::{Instant, timeout, timeout_at};

use crate::conn::Conn;
use crate::error::{Cause, Error, Fatal};
use crate::pool::Route;
use crate::verbs::Client;

/// Bytes that are read and written at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Longest that the host may take to begin: it may have to make the snapshot first.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest that nothing may come while the file does.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A snapshot that has been received whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedFile {
    /// The host that it comes from.
    pub host: u64,
    /// The last index that it contains.
    pub index: u64,
    /// Its length.
    pub bytes: u64,
    /// Their blake3 hash.
    pub digest: Digest,
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

impl Client {
    /// Receives a snapshot and writes its file to `to`, in pieces of at most 64 KiB; the leader's
    /// if one is known. `newest_kept`: one that the host has already will do. `progress` hears how
    /// many bytes of how many have come. `to` must not block for long.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none to be had, or it came damaged
    /// ([`Cause::Damaged`]): what was written then is worth nothing. It is not tried again by
    /// itself. [`Fatal::Write`] when `to` fails.
    pub async fn save_snapshot(
        &self,
        newest_kept: bool,
        to: &mut (impl Write + Send),
        mut progress: impl FnMut(u64, u64) + Send,
    ) -> Result<SavedFile, Error> {
        let deadline = Instant::now() + self.settings().request_timeout;
        let pool = &self.caller().pool;
        let (_, conn) = pool.pick(Route::Leader, None, deadline).await?;
        let begun = timeout(BEGIN_TIMEOUT, begin(&conn, pool.own_id(), newest_kept));
        let (mut reader, saved) = begun.await.unwrap_or(Err(lost(LinkError::Lost)))?;
        let (index, bytes, digest) = match saved {
            SavedSnapshot::File {
                index,
                bytes,
                digest,
            } => (index, bytes, digest),
            SavedSnapshot::Unavailable(why) => {
                let cause = Cause::Answer(why);
                return Err(Error::Unavailable { cause });
            }
        };
        let mut hasher = blake3::Hasher::new();
        let (mut received, mut piece) = (0, vec![0; PIECE_BYTES]);
        loop {
            let read = timeout_at(Instant::now() + STALL_TIMEOUT, reader.raw(&mut piece)).await;
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
        written.map_err(|error| Fatal::Write(error.to_string()))?;
        Ok(SavedFile {
            host: conn.welcome.host,
            index,
            bytes,
            digest,
        })
    }
}

async fn begin(
    conn: &Conn,
    id: u64,
    newest_kept: bool,
) -> Result<(FrameReader, SavedSnapshot), Error> {
    let mut head = Vec::new();
    let question = SaveSnapshot { newest_kept };
    codec::encode(id, &question, &mut head).map_err(Fatal::Frame)?;
    let opened = conn.connection.open_bi().await;
    let (mut send, receive) = opened.map_err(|error| lost(error.into()))?;
    let sent = send.write_all(&head).await;
    sent.map_err(|error| lost(LinkError::Broken(error.to_string())))?;
    let _ = send.finish();
    let mut reader = FrameReader::new(receive);
    let saved = reader
        .message::<SavedSnapshot>()
        .await
        .map_err(unreadable)?;
    let (_, saved) = saved.ok_or_else(|| lost(LinkError::Lost))?;
    Ok((reader, saved))
}

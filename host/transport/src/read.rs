//! Frames coming in: large reads, and every whole frame that is there before waiting again.
//!
//! Holds: a frame that is too long is refused by its length, before room is made for it; the buffer
//! is small while a connection is quiet (2 KiB) and grows only as far as traffic or a frame needs.

use maitred_protocol::limits::{FRAME_BYTES_MAX, PEER_FRAME_BYTES_MAX};
use maitred_protocol::{Frame, FrameError, Wire, codec};
use quinn::{Connection, RecvStream};

use crate::link::LinkError;

/// Bytes of the buffer at first.
const BUFFER_BYTES_MIN: usize = 2 << 10;
/// Bytes up to which the buffer grows because reads fill it; beyond, only for one long frame.
const BUFFER_BYTES_BUSY: usize = 64 << 10;

/// Why no more frames can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// What came is not a frame, or not a message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended within a frame.
    #[error("the stream ended in the middle of a frame, after {0} bytes of it")]
    Truncated(usize),
    /// The other side gave up the stream.
    #[error("the other side abandoned the stream")]
    Abandoned,
    /// The connection is gone.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Reads frames from a stream.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    /// All of it is initialised; `start..end` holds bytes not yet handed out.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the longest frame that is taken, whatever its kind may have.
    frame_bytes_max: usize,
}

impl FrameReader {
    /// Reads from `stream`, frames of at most 1 MiB.
    #[must_use]
    pub fn new(stream: RecvStream) -> Self {
        Self::with_limit(stream, FRAME_BYTES_MAX)
    }

    /// Reads what a host of the own group sends: batches of Raft's messages have up to 8 MiB.
    #[must_use]
    pub fn from_peer(stream: RecvStream) -> Self {
        Self::with_limit(stream, PEER_FRAME_BYTES_MAX)
    }

    fn with_limit(stream: RecvStream, frame_bytes_max: usize) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            frame_bytes_max,
        }
    }

    /// The frame that the buffer begins with; none when more bytes are needed.
    fn split(&self) -> Result<Option<Frame<'_>>, FrameError> {
        let here = &self.buffer[self.start..self.end];
        if let Some(length) = here.first_chunk::<4>() {
            let bytes = u64::from(u32::from_le_bytes(*length)) + 4;
            if bytes > self.frame_bytes_max as u64 {
                return Err(FrameError::TooLong(bytes));
            }
        }
        codec::split(here)
    }

    /// Waits for at least one whole frame, then calls `each` for all that are there. False when the
    /// stream has ended, cleanly and with nothing left.
    ///
    /// May be dropped while waiting without losing anything.
    ///
    /// # Errors
    /// [`ReadError`], or the first error of `each`; both end the use of this reader.
    pub async fn read_batch<E: From<ReadError>>(
        &mut self,
        mut each: impl FnMut(&Frame<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        loop {
            let mut any = false;
            while let Some(frame) = self.split().map_err(ReadError::from)? {
                let consumed = frame.consumed;
                let done = each(&frame);
                self.start += consumed;
                done?;
                any = true;
            }
            if any {
                return Ok(true);
            }
            if !self.fill().await? {
                return Ok(false);
            }
        }
    }

    /// Waits for a frame. None when the stream has ended.
    ///
    /// May be dropped while waiting without losing anything.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        loop {
            // Asked twice, since a borrow that is returned may not span the loop.
            if self.split()?.is_some() {
                return self.try_next();
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// A frame that is already here, if there is one.
    ///
    /// # Errors
    /// [`ReadError::Frame`].
    pub fn try_next(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        let Some(consumed) = self.split()?.map(|frame| frame.consumed) else {
            return Ok(None);
        };
        let start = self.start;
        self.start += consumed;
        Ok(codec::split(&self.buffer[start..self.end])?)
    }

    /// Waits for one message of type `T`: its request id and itself. None at the end of the stream.
    ///
    /// # Errors
    /// [`ReadError`]; [`FrameError::Unexpected`] when another kind of frame came.
    pub async fn message<T: Wire>(&mut self) -> Result<Option<(u64, T)>, ReadError> {
        match self.next().await? {
            Some(frame) => Ok(Some((frame.header.request_id, codec::decode(&frame)?))),
            None => Ok(None),
        }
    }

    /// Reads raw bytes that follow a frame (an upload), up to `into.len()` of them. None at the end
    /// of the stream.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn raw(&mut self, into: &mut [u8]) -> Result<Option<usize>, ReadError> {
        let here = &self.buffer[self.start..self.end];
        if !here.is_empty() {
            let count = here.len().min(into.len());
            into[..count].copy_from_slice(&here[..count]);
            self.start += count;
            return Ok(Some(count));
        }
        self.stream.read(into).await.map_err(read_error)
    }

    /// Reads what there is, after making room for it. False at the end of the stream.
    async fn fill(&mut self) -> Result<bool, ReadError> {
        self.make_room();
        let room = &mut self.buffer[self.end..];
        match self.stream.read(room).await.map_err(read_error)? {
            Some(count) => {
                self.end += count;
                Ok(true)
            }
            None if self.start == self.end => Ok(false),
            None => Err(ReadError::Truncated(self.end - self.start)),
        }
    }

    fn make_room(&mut self) {
        let left = self.end - self.start;
        let was_full = self.end == self.buffer.len();
        if left == 0 && self.buffer.len() > BUFFER_BYTES_BUSY {
            self.buffer = Vec::new();
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
        }
        (self.start, self.end) = (0, left);
        let mut wanted = self.buffer.len().max(BUFFER_BYTES_MIN);
        if was_full {
            wanted = (wanted * 2).min(BUFFER_BYTES_BUSY.max(self.buffer.len()));
        }
        // `split` has refused lengths past the limit, so this does not exceed it.
        if let Some(length) = self.buffer[..left].first_chunk::<4>() {
            let frame = u32::from_le_bytes(*length) as usize + 4;
            wanted = wanted.max(frame.min(self.frame_bytes_max));
        }
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        }
    }
}

fn read_error(error: quinn::ReadError) -> ReadError {
    match error {
        quinn::ReadError::ConnectionLost(error) => ReadError::Link(error.into()),
        quinn::ReadError::Reset(_)
        | quinn::ReadError::ClosedStream
        | quinn::ReadError::IllegalOrderedRead
        | quinn::ReadError::ZeroRttRejected => ReadError::Abandoned,
    }
}

/// Waits for a datagram and reads the one message in it, with its request id.
///
/// # Errors
/// [`ReadError::Link`] when the connection is gone; [`ReadError::Frame`] and
/// [`ReadError::Truncated`] when the datagram is not exactly one frame with a `T`, which need not
/// end the connection.
pub async fn read_datagram<T: Wire>(connection: &Connection) -> Result<(u64, T), ReadError> {
    let bytes = connection.read_datagram().await.map_err(LinkError::from)?;
    match codec::split(&bytes)? {
        Some(frame) if frame.consumed == bytes.len() => {
            Ok((frame.header.request_id, codec::decode(&frame)?))
        }
        _ => Err(ReadError::Truncated(bytes.len())),
    }
}

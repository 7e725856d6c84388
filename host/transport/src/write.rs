//! Frames going out: many senders, one buffer, one write.
//!
//! Senders append encoded frames to a shared buffer under a short lock; a task of the stream swaps
//! it for an empty one and writes the whole of it at once. So a message costs no wake-up, no system
//! call and no queue node of its own while the writer is busy, and batches grow with the load.
//!
//! Holds: frames leave in the order in which they were appended; the buffer is bounded in bytes;
//! dropping the last sender writes what is there and ends the stream.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use maitred_protocol::{FrameError, Wire, codec};
use quinn::{Connection, SendDatagramError, SendStream, WriteError};
use tokio::sync::Notify;

use crate::link::LinkError;

/// Bytes of a buffer that is kept for the next batch; larger ones are given back.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

/// Why a message was not queued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The buffer is full; wait ([`FrameWriter::send`]) or shed.
    #[error("too many bytes are waiting to be sent")]
    Full,
    /// The stream or its connection has ended.
    #[error("the stream has ended: {0}")]
    Closed(LinkError),
    /// The message does not fit a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

#[derive(Debug)]
struct Queue {
    bytes: Vec<u8>,
    finishing: bool,
    /// Why nothing more is taken.
    closed: Option<LinkError>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    bytes_max: usize,
    /// Wakes the writing task.
    filled: Notify,
    /// Wakes senders that wait for room, and those that wait for the end.
    drained: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing under the lock can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the task to end the stream; true when it has.
    fn begin_finish(&self) -> bool {
        let mut queue = self.lock();
        queue.finishing = true;
        queue.closed.is_some()
    }

    fn close(&self, why: LinkError) {
        let mut queue = self.lock();
        queue.closed.get_or_insert(why);
        queue.bytes = Vec::new();
        drop(queue);
        self.drained.notify_waiters();
    }
}

/// Ends the stream when the last sender is gone.
#[derive(Debug)]
struct Senders(Arc<Shared>);

impl Drop for Senders {
    fn drop(&mut self) {
        self.0.lock().finishing = true;
        self.0.filled.notify_one();
    }
}

/// Sends frames on a stream. Cheap to clone; usable from any thread.
#[derive(Debug, Clone)]
pub struct FrameWriter(Arc<Senders>);

thread_local! {
    /// Frames are encoded here, outside the lock.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl FrameWriter {
    /// Starts the stream's task on the current tokio runtime. At most `bytes_max` bytes wait (a
    /// single frame may exceed it), and at most as many again are being written.
    #[must_use]
    pub fn spawn(stream: SendStream, bytes_max: usize) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                bytes: Vec::new(),
                finishing: false,
                closed: None,
            }),
            bytes_max,
            filled: Notify::new(),
            drained: Notify::new(),
        });
        tokio::spawn(write(Arc::clone(&shared), stream));
        Self(Arc::new(Senders(shared)))
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }

    /// Queues a message, or fails at once.
    ///
    /// That it was queued says nothing of its arrival: what a lost connection had not sent is gone.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn try_send<T: Wire>(&self, request_id: u64, message: &T) -> Result<(), SendError> {
        with_encoded(request_id, message, |bytes| self.try_send_encoded(bytes))
    }

    /// Queues a message, waiting for room.
    ///
    /// # Errors
    /// [`SendError`], but never [`SendError::Full`].
    pub async fn send<T: Wire>(&self, request_id: u64, message: &T) -> Result<(), SendError> {
        loop {
            match self.try_send(request_id, message) {
                Err(SendError::Full) => self.room().await,
                done => return done,
            }
        }
    }

    /// Queues whole frames that [`codec::encode`] made: one lock for many answers.
    ///
    /// # Errors
    /// [`SendError::Full`] and [`SendError::Closed`]; nothing is queued then.
    pub fn try_send_encoded(&self, frames: &[u8]) -> Result<(), SendError> {
        let shared = self.shared();
        let mut queue = shared.lock();
        if let Some(why) = &queue.closed {
            return Err(SendError::Closed(why.clone()));
        }
        let waiting = queue.bytes.len();
        if waiting > 0 && waiting + frames.len() > shared.bytes_max {
            return Err(SendError::Full);
        }
        queue.bytes.extend_from_slice(frames);
        drop(queue);
        // Whoever filled an empty buffer has woken the task already.
        if waiting == 0 {
            shared.filled.notify_one();
        }
        Ok(())
    }

    /// Waits until the buffer has been taken to be written, or the stream has ended.
    pub async fn room(&self) {
        let shared = self.shared();
        let drained = shared.drained.notified();
        tokio::pin!(drained);
        drained.as_mut().enable();
        let free = {
            let queue = shared.lock();
            queue.bytes.is_empty() || queue.closed.is_some()
        };
        if !free {
            drained.await;
        }
    }

    /// Writes what is queued, ends the stream, and waits until the other side has received all of
    /// it (or the connection is gone). What is sent meanwhile may still be written.
    pub async fn finish(&self) {
        let shared = self.shared();
        loop {
            let drained = shared.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if shared.begin_finish() {
                return;
            }
            shared.filled.notify_one();
            drained.await;
        }
    }
}

fn with_encoded<T: Wire>(
    request_id: u64,
    message: &T,
    then: impl FnOnce(&[u8]) -> Result<(), SendError>,
) -> Result<(), SendError> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        codec::encode(request_id, message, scratch)?;
        let done = then(scratch);
        if scratch.capacity() > BUFFER_BYTES_KEPT {
            *scratch = Vec::new();
        }
        done
    })
}

async fn write(shared: Arc<Shared>, mut stream: SendStream) {
    let mut batch = Vec::new();
    loop {
        let (finishing, empty) = {
            let queue = shared.lock();
            (queue.finishing, queue.bytes.is_empty())
        };
        if empty && !finishing {
            shared.filled.notified().await;
            // Lets the other tasks that are ready add theirs to this batch.
            tokio::task::yield_now().await;
            continue;
        }
        if empty {
            // A connection that is dropped takes unacknowledged bytes with it, so wait for those.
            if stream.finish().is_ok() {
                let _ = stream.stopped().await;
            }
            shared.close(LinkError::Local);
            return;
        }
        std::mem::swap(&mut batch, &mut shared.lock().bytes);
        shared.drained.notify_waiters();
        if let Err(error) = stream.write_all(&batch).await {
            shared.close(write_error(error));
            return;
        }
        batch.clear();
        if batch.capacity() > BUFFER_BYTES_KEPT {
            batch = Vec::new();
        }
    }
}

fn write_error(error: WriteError) -> LinkError {
    match error {
        WriteError::ConnectionLost(error) => error.into(),
        WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            LinkError::Local
        }
    }
}

/// Sends one message as a datagram: at once, from any thread, and perhaps in vain.
///
/// # Errors
/// [`SendError::Full`] when it is larger than the path takes just now (about 1,200 bytes);
/// [`SendError::Closed`]; [`SendError::Frame`].
pub fn send_datagram<T: Wire>(
    connection: &Connection,
    request_id: u64,
    message: &T,
) -> Result<(), SendError> {
    with_encoded(request_id, message, |bytes| {
        let sent = connection.send_datagram(Bytes::copy_from_slice(bytes));
        sent.map_err(|error| match error {
            SendDatagramError::TooLarge => SendError::Full,
            SendDatagramError::ConnectionLost(error) => SendError::Closed(error.into()),
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => {
                SendError::Closed(LinkError::Protocol)
            }
        })
    })
}

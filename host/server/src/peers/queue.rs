//! What waits to be sent to one peer: bounded, and never waited for.
//!
//! Whoever puts something in returns at once. What does not fit is dropped, the newest first, because
//! those before it are of use without it, and the other way round they are not; Raft sends it again.
//! Heartbeats and their answers go before all entries, whose order they do not touch: what waits for the
//! proof that a host leads (every keep-alive does) must not wait behind megabytes of entries.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use raft::eraftpb::{Message, MessageType};
use tokio::sync::Notify;

/// Bytes that may wait for one peer.
const BYTES_MAX: usize = 64 << 20;
/// Messages that may wait for one peer.
const MESSAGES_MAX: usize = 16_384;
/// Bytes after which no more messages are added to a frame; one message alone may have more.
const FRAME_BYTES: usize = 1 << 20;
/// What a message and an entry are counted for beside their data.
const MESSAGE_BYTES: usize = 192;
const ENTRY_BYTES: usize = 64;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It waits to be sent.
    Queued,
    /// It was dropped, as the first one since there was room.
    Overflowed,
    /// It was dropped, like those before it.
    Dropped,
}

#[derive(Debug, Default)]
struct State {
    /// Before all others.
    heartbeats: VecDeque<(usize, Message)>,
    messages: VecDeque<(usize, Message)>,
    bytes: usize,
    overflowed: bool,
}

impl State {
    fn waiting(&self) -> usize {
        self.heartbeats.len() + self.messages.len()
    }

    /// The queue whose turn it is.
    fn next(&mut self) -> &mut VecDeque<(usize, Message)> {
        if self.heartbeats.is_empty() {
            &mut self.messages
        } else {
            &mut self.heartbeats
        }
    }
}

/// The messages for one peer, in order.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can leave the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in, or drops it.
    pub(crate) fn put(&self, message: Message) -> Put {
        let bytes = size(&message);
        let mut state = self.lock();
        let waiting = state.waiting();
        let fits = waiting == 0 || (waiting < MESSAGES_MAX && state.bytes + bytes <= BYTES_MAX);
        if !fits {
            return if std::mem::replace(&mut state.overflowed, true) {
                Put::Dropped
            } else {
                Put::Overflowed
            };
        }
        state.bytes += bytes;
        match message.msg_type {
            MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => {
                state.heartbeats.push_back((bytes, message));
            }
            _ => state.messages.push_back((bytes, message)),
        }
        drop(state);
        // Whoever filled an empty queue has woken the task already.
        if waiting == 0 {
            self.filled.notify_one();
        }
        Put::Queued
    }

    /// Waits for messages, and takes as many as make a good frame.
    ///
    /// May be dropped while waiting without losing anything.
    pub(crate) async fn take(&self) -> Vec<Message> {
        loop {
            let batch = self.try_take();
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    fn try_take(&self) -> Vec<Message> {
        let mut state = self.lock();
        let (mut batch, mut taken) = (Vec::new(), 0);
        while let Some((bytes, _)) = state.next().front() {
            if !batch.is_empty() && taken + bytes > FRAME_BYTES {
                break;
            }
            taken += bytes;
            batch.extend(state.next().pop_front().map(|(_, message)| message));
        }
        state.bytes -= taken;
        if !batch.is_empty() {
            state.overflowed = false;
        }
        batch
    }

    /// Drops everything; says how many messages that were.
    pub(crate) fn clear(&self) -> usize {
        let mut state = self.lock();
        let dropped = state.waiting();
        *state = State::default();
        dropped
    }
}

fn size(message: &Message) -> usize {
    let entries = message.entries.iter();
    let entries: usize = entries.map(|entry| entry.data.len() + ENTRY_BYTES).sum();
    entries + message.context.len() + MESSAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::Entry;

    fn message(index: u64, bytes: usize) -> Message {
        let entry = Entry {
            data: vec![0; bytes].into(),
            ..Entry::default()
        };
        let mut message = Message {
            index,
            ..Message::default()
        };
        message.entries = vec![entry].into();
        message
    }

    fn indices(batch: &[Message]) -> Vec<u64> {
        batch.iter().map(|message| message.index).collect()
    }

    #[tokio::test]
    async fn small_messages_share_a_frame_and_a_large_one_goes_alone() {
        let queue = Queue::default();
        for (index, bytes) in [(1, 10), (2, 10), (3, 2 << 20), (4, 10)] {
            assert_eq!(queue.put(message(index, bytes)), Put::Queued);
        }
        assert_eq!(indices(&queue.take().await), [1, 2]);
        assert_eq!(indices(&queue.take().await), [3]);
        assert_eq!(indices(&queue.take().await), [4]);
        assert_eq!(queue.lock().bytes, 0);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_said_once() {
        let queue = Queue::default();
        let large = 16 << 20;
        for index in 1..=3 {
            assert_eq!(queue.put(message(index, large)), Put::Queued);
        }
        assert_eq!(queue.put(message(4, large)), Put::Overflowed);
        assert_eq!(queue.put(message(5, large)), Put::Dropped);
        // A small one still fits.
        assert_eq!(queue.put(message(6, 1)), Put::Queued);
        assert_eq!(indices(&queue.take().await), [1]);
        assert_eq!(queue.put(message(7, large)), Put::Queued);
        assert_eq!(queue.put(message(8, large)), Put::Overflowed);
        assert_eq!(queue.clear(), 4);
        assert_eq!(queue.lock().bytes, 0);
    }

    #[tokio::test]
    async fn heartbeats_overtake_entries_and_keep_their_order() {
        let queue = Queue::default();
        let heartbeat = |index, kind: MessageType| {
            let mut message = Message {
                index,
                ..Message::default()
            };
            message.set_msg_type(kind);
            message
        };
        queue.put(message(1, 2 << 20));
        queue.put(heartbeat(2, MessageType::MsgHeartbeat));
        queue.put(message(3, 10));
        queue.put(heartbeat(4, MessageType::MsgHeartbeatResponse));
        assert_eq!(indices(&queue.take().await), [2, 4]);
        assert_eq!(indices(&queue.take().await), [1]);
        assert_eq!(indices(&queue.take().await), [3]);
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn messages_are_bounded_in_number_too() {
        let queue = Queue::default();
        for index in 0..MESSAGES_MAX as u64 {
            assert_eq!(queue.put(message(index, 0)), Put::Queued);
        }
        assert_eq!(queue.put(message(0, 0)), Put::Overflowed);
    }
}

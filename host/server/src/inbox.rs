//! What waits to go into the replica: two queues, and one thread that takes from them.
//!
//! Holds: what the host itself has to say (keep-alives, what became durable, decisions, ends of
//! spawns) is taken before what clients ask, and is never refused, because each of these answers
//! something that the replica asked for, or is bounded where it comes in. What clients ask is
//! bounded here. Batches go in and out whole, so a request costs neither a wake-up nor a lock of its
//! own.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maitred_replica::Input;
use tokio::sync::Notify;

/// Requests that may wait; those beyond are answered `overloaded`.
pub(crate) const REQUESTS_MAX: usize = 65_536;
/// Bytes that peers' messages may have before those who read them wait.
const PEER_BYTES_MAX: usize = 64 << 20;
/// Requests taken in one turn.
pub(crate) const TURN_MAX: usize = 4_096;

#[derive(Debug, Default)]
struct Queues {
    own: Vec<Input>,
    /// Bytes of what peers said in `own`.
    peer_bytes: usize,
    requests: VecDeque<Vec<Input>>,
    /// How many there are in all batches of `requests`.
    waiting: usize,
    /// Whether the taker sleeps and must be woken.
    asleep: bool,
    closed: bool,
}

/// The queues.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queues: Mutex<Queues>,
    filled: Condvar,
    /// Told when what peers said has been taken.
    taken: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        // Nothing under the lock can leave the queues half changed.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut queues: MutexGuard<'_, Queues>) {
        if std::mem::take(&mut queues.asleep) {
            drop(queues);
            self.filled.notify_one();
        }
    }

    /// Puts in what the host itself says.
    pub(crate) fn push(&self, input: Input) {
        let mut queues = self.lock();
        queues.own.push(input);
        self.wake(queues);
    }

    /// Puts in what a peer said, in its order, and empties `batch`. Whoever does so then waits for
    /// [`Inbox::room_for_peers`].
    pub(crate) fn push_peers(&self, batch: &mut Vec<Input>, bytes: usize) {
        if batch.is_empty() {
            return;
        }
        let mut queues = self.lock();
        queues.own.append(batch);
        queues.peer_bytes += bytes;
        self.wake(queues);
    }

    /// Waits until what peers said is little enough for more of it.
    pub(crate) async fn room_for_peers(&self) {
        loop {
            let taken = self.taken.notified();
            tokio::pin!(taken);
            taken.as_mut().enable();
            if self.lock().peer_bytes <= PEER_BYTES_MAX {
                return;
            }
            taken.await;
        }
    }

    /// Puts in what clients ask, and empties `batch`; what is left in it has no room.
    pub(crate) fn offer(&self, batch: &mut Vec<Input>) {
        if batch.is_empty() {
            return;
        }
        let mut queues = self.lock();
        if queues.closed {
            return;
        }
        let room = REQUESTS_MAX - queues.waiting;
        let rest = batch.split_off(batch.len().min(room));
        let taken = std::mem::replace(batch, rest);
        if !taken.is_empty() {
            queues.waiting += taken.len();
            queues.requests.push_back(taken);
            self.wake(queues);
        }
    }

    /// Takes everything of the host's own and some requests, own first, waiting `patience` at most
    /// for anything. False when the inbox has been closed.
    pub(crate) fn take(&self, into: &mut Vec<Input>, patience: Duration) -> bool {
        let mut queues = self.lock();
        if queues.own.is_empty() && queues.requests.is_empty() && !queues.closed {
            queues.asleep = true;
            let waited = self.filled.wait_timeout(queues, patience);
            queues = waited.unwrap_or_else(PoisonError::into_inner).0;
            queues.asleep = false;
        }
        into.append(&mut queues.own);
        if std::mem::take(&mut queues.peer_bytes) > PEER_BYTES_MAX {
            self.taken.notify_waiters();
        }
        let mut taken = 0;
        while taken < TURN_MAX {
            let Some(mut batch) = queues.requests.pop_front() else {
                break;
            };
            taken += batch.len();
            into.append(&mut batch);
        }
        queues.waiting -= taken;
        !queues.closed
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// Ends the taker, once it has taken what is there.
    pub(crate) fn close(&self) {
        let mut queues = self.lock();
        queues.closed = true;
        queues.asleep = true;
        self.wake(queues);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::Request;
    use maitred_replica::Ticket;

    fn request(number: u64) -> Input {
        Input::Request {
            ticket: Ticket(number),
            sequence: number,
            request: Request::Status,
        }
    }

    #[test]
    fn what_the_host_says_comes_first_and_requests_are_bounded() {
        let inbox = Inbox::default();
        let mut batch: Vec<Input> = (0..REQUESTS_MAX as u64 + 3).map(request).collect();
        inbox.offer(&mut batch);
        assert_eq!((batch.len(), inbox.waiting()), (3, REQUESTS_MAX));
        assert!(
            matches!(batch[0], Input::Request { sequence, .. } if sequence == REQUESTS_MAX as u64)
        );
        inbox.push(Input::Persisted(9));
        let mut taken = Vec::new();
        assert!(inbox.take(&mut taken, Duration::ZERO));
        assert!(matches!(taken[0], Input::Persisted(9)));
        assert_eq!(inbox.waiting(), REQUESTS_MAX + 1 - taken.len());
    }

    #[test]
    fn an_empty_inbox_waits_for_its_patience_or_for_the_end() {
        let inbox = std::sync::Arc::new(Inbox::default());
        let mut taken = Vec::new();
        assert!(inbox.take(&mut taken, Duration::from_millis(1)));
        assert!(taken.is_empty());
        let other = std::sync::Arc::clone(&inbox);
        let taker =
            std::thread::spawn(move || other.take(&mut Vec::new(), Duration::from_secs(60)));
        inbox.close();
        assert!(!taker.join().unwrap());
    }
}

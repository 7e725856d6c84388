//! What waits to go into the replica: three queues, and one thread that takes from them.
//!
//! Holds: keep-alives are taken before everything else, all of them, so that nothing that waits can
//! cost a node its lease; the newest of a session takes the place of an older one, so there are no
//! more than sessions. They do not wake the taker, since that would cost more than they do: it takes
//! those of some milliseconds at once, and they share a round of proof. Then comes what the host itself has to say (what peers said, what became durable,
//! decisions, ends of spawns); it is never refused, because each of these answers something that the
//! replica asked for, or is bounded where it comes in. What clients ask comes last, is bounded here, and
//! is taken in small lots: a turn is short, and whatever comes meanwhile is soon seen. Batches go in
//! and out whole where they can, so a request costs neither a wake-up nor a lock of its own.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use maitred_protocol::{KeepAlive, NodeEpoch};
use maitred_replica::Input;
use tokio::sync::Notify;

/// Requests that may wait; those beyond are answered `overloaded`.
pub(crate) const REQUESTS_MAX: usize = 65_536;
/// Bytes that peers' messages may have before those who read them wait.
const PEER_BYTES_MAX: usize = 64 << 20;
/// Requests taken in one turn: a few milliseconds.
const TURN_MAX: usize = 1_024;

/// Longest that a keep-alive waits for others, a fiftieth of the shortest lease.
const RENEWALS_EVERY: Duration = Duration::from_millis(20);

/// A keep-alive that counts, as it came.
#[derive(Debug)]
pub(crate) struct Renewal {
    /// Where its acknowledgement goes.
    pub(crate) link: u64,
    pub(crate) keep_alive: KeepAlive,
    /// When it came, on the clock of [`crate::clock::mono_us`].
    pub(crate) at_us: u64,
}

impl Renewal {
    /// What comes after this one of the same session: the newer of the two, with what only the other
    /// says.
    fn and(self, other: Self) -> Self {
        let (mut newer, older) = if self.keep_alive.sequence > other.keep_alive.sequence {
            (self, other.keep_alive)
        } else {
            (other, self.keep_alive)
        };
        let keep_alive = &mut newer.keep_alive;
        keep_alive.load = keep_alive.load.take().or(older.load);
        keep_alive.stop_ms = keep_alive.stop_ms.max(older.stop_ms);
        newer
    }
}

/// What one turn takes.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// To be given to the replica before anything else, the time included.
    pub(crate) renewals: Vec<Renewal>,
    /// In order.
    pub(crate) inputs: Vec<Input>,
}

#[derive(Debug, Default)]
struct Queues {
    renewals: HashMap<NodeEpoch, Renewal>,
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

    /// Puts in a keep-alive that came over its session's connection. It is taken within 20 ms.
    pub(crate) fn renew(&self, renewal: Renewal) {
        let mut queues = self.lock();
        match queues.renewals.entry(renewal.keep_alive.epoch) {
            Entry::Vacant(place) => {
                place.insert(renewal);
            }
            Entry::Occupied(place) => {
                let (epoch, before) = place.remove_entry();
                queues.renewals.insert(epoch, before.and(renewal));
            }
        }
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

    /// Takes all keep-alives, everything of the host's own and some requests, waiting `patience` at
    /// most for anything. False when the inbox has been closed.
    pub(crate) fn take(&self, into: &mut Taken, patience: Duration) -> bool {
        let mut queues = self.lock();
        if queues.own.is_empty() && queues.requests.is_empty() && !queues.closed {
            queues.asleep = true;
            let patience = patience.min(RENEWALS_EVERY);
            let waited = self.filled.wait_timeout(queues, patience);
            queues = waited.unwrap_or_else(PoisonError::into_inner).0;
            queues.asleep = false;
        }
        let renewals = queues.renewals.drain().map(|(_, renewal)| renewal);
        into.renewals.extend(renewals);
        let into = &mut into.inputs;
        into.append(&mut queues.own);
        if std::mem::take(&mut queues.peer_bytes) > PEER_BYTES_MAX {
            self.taken.notify_waiters();
        }
        let mut room = TURN_MAX;
        while room > 0
            && let Some(mut batch) = queues.requests.pop_front()
        {
            if batch.len() > room {
                let rest = batch.split_off(room);
                queues.requests.push_front(rest);
            }
            room -= batch.len();
            into.append(&mut batch);
        }
        queues.waiting -= TURN_MAX - room;
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
    use maitred_protocol::{Load, Request};
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
        let mut taken = Taken::default();
        assert!(inbox.take(&mut taken, Duration::ZERO));
        assert!(matches!(taken.inputs[0], Input::Persisted(9)));
        assert_eq!(taken.inputs.len(), 1 + TURN_MAX);
        assert_eq!(inbox.waiting(), REQUESTS_MAX - TURN_MAX);
        // In order, whatever the lots.
        let mut expected = 0;
        while !taken.inputs.is_empty() {
            for input in taken.inputs.drain(..) {
                if let Input::Request { sequence, .. } = input {
                    assert_eq!(sequence, expected);
                    expected += 1;
                }
            }
            assert!(inbox.take(&mut taken, Duration::ZERO));
        }
        assert_eq!((expected, inbox.waiting()), (REQUESTS_MAX as u64, 0));
    }

    fn renewal(epoch: u64, sequence: u64, load: Option<f32>, at_us: u64) -> Renewal {
        let load = load.map(|cpu| Load {
            cpu,
            ..Load::default()
        });
        Renewal {
            link: sequence,
            keep_alive: KeepAlive {
                epoch: NodeEpoch(epoch),
                sequence,
                load,
                stop_ms: 10 * u32::try_from(10 - sequence).unwrap(),
            },
            at_us,
        }
    }

    #[test]
    fn keep_alives_wait_for_nobody_and_one_of_a_session_at_most() {
        let inbox = Inbox::default();
        inbox.offer(&mut (0..3 * TURN_MAX as u64).map(request).collect());
        inbox.push(Input::Persisted(9));
        for (epoch, sequence, load) in [
            (1, 1, Some(0.1)),
            (2, 5, None),
            (1, 3, None),
            // Overtaken on its way.
            (1, 2, Some(0.2)),
        ] {
            inbox.renew(renewal(epoch, sequence, load, 100 + sequence));
        }
        let mut taken = Taken::default();
        assert!(inbox.take(&mut taken, Duration::ZERO));
        taken.renewals.sort_by_key(|one| one.keep_alive.epoch);
        let [one, two] = &taken.renewals[..] else {
            panic!("{taken:?}");
        };
        assert_eq!((one.keep_alive.sequence, one.link, one.at_us), (3, 3, 103));
        assert_eq!(one.keep_alive.load.as_ref().unwrap().cpu, 0.1);
        assert_eq!(one.keep_alive.stop_ms, 90);
        assert_eq!((two.keep_alive.sequence, two.at_us), (5, 105));
        assert_eq!(taken.inputs.len(), 1 + TURN_MAX);
    }

    #[test]
    fn an_empty_inbox_waits_for_its_patience_or_for_the_end() {
        let inbox = std::sync::Arc::new(Inbox::default());
        let mut taken = Taken::default();
        assert!(inbox.take(&mut taken, Duration::from_millis(1)));
        assert!(taken.inputs.is_empty());
        let other = std::sync::Arc::clone(&inbox);
        let taker =
            std::thread::spawn(move || other.take(&mut Taken::default(), Duration::from_secs(60)));
        inbox.close();
        assert!(!taker.join().unwrap());
    }
}

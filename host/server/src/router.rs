//! Who waits for which answer: tickets, the connections behind them, and questions that the host
//! asks its own replica.
//!
//! A ticket is a connection's number and a slot of it, so an answer finds its way without a table of
//! requests. The answers of a turn are collected a connection, and handed over in one go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use maitred_protocol::limits::IN_FLIGHT_MAX;
use maitred_protocol::{Notice, Request, Response, Unavailable};
use maitred_replica::{Answer, Input, Ticket};
use maitred_transport::Connection;
use tokio::sync::oneshot;

use crate::inbox::Inbox;
use crate::link::{Link, Out};

/// Bits of a ticket that name the slot.
const SLOT_BITS: u32 = 12;
/// Marks tickets of the host's own questions.
const OWN: u64 = 1 << 63;

const _: () = assert!(IN_FLIGHT_MAX <= 1 << SLOT_BITS);

#[derive(Debug, Default)]
struct Asked {
    open: HashMap<u64, oneshot::Sender<Answer>>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Links {
    open: HashMap<u64, Arc<Link>>,
    /// What every client was last told, and a new one is told first.
    notice: Option<Notice>,
}

/// The connections, by number.
#[derive(Debug)]
pub(crate) struct Router {
    inbox: Arc<Inbox>,
    links: Mutex<Links>,
    asked: Mutex<Asked>,
    last: AtomicU64,
}

/// Answers of one turn.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    links: HashMap<u64, Vec<Out>>,
    own: Vec<(u64, Answer)>,
    /// How many there have been, in all turns.
    count: u64,
}

impl Answers {
    /// Adds one.
    pub(crate) fn add(&mut self, ticket: Ticket, answer: Answer) {
        if ticket.0 & OWN != 0 {
            self.own.push((ticket.0, answer));
            return;
        }
        self.count += 1;
        let link = self.links.entry(ticket.0 >> SLOT_BITS).or_default();
        link.push(Out::Answer {
            slot: Router::slot(ticket),
            order: self.count,
            answer,
        });
    }
}

impl Router {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Self {
            inbox,
            links: Mutex::default(),
            asked: Mutex::default(),
            last: AtomicU64::new(0),
        }
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Gives a connection its number.
    pub(crate) fn open(&self, quic: Connection) -> Arc<Link> {
        let link = Arc::new(Link::new(self.number(), quic));
        let mut links = self.links();
        links.open.insert(link.id, Arc::clone(&link));
        // Under the lock, so that no notice is missed and none comes out of order.
        if let Some(notice) = &links.notice {
            link.put(vec![Out::Notice(notice.clone())]);
        }
        drop(links);
        link
    }

    /// Tells every client something, now and when it comes.
    pub(crate) fn notify(&self, notice: &Notice) {
        let mut links = self.links();
        links.notice = Some(notice.clone());
        for link in links.open.values() {
            link.put(vec![Out::Notice(notice.clone())]);
        }
    }

    /// Forgets a connection; answers that still come are dropped.
    pub(crate) fn close(&self, link: &Link) {
        self.links().open.remove(&link.id);
        link.end();
    }

    /// A connection, while it is open.
    pub(crate) fn link(&self, id: u64) -> Option<Arc<Link>> {
        self.links().open.get(&id).cloned()
    }

    /// Connections that have been greeted.
    pub(crate) fn open_links(&self) -> usize {
        self.links().open.len()
    }

    /// The ticket of a slot.
    pub(crate) fn ticket(link: &Link, slot: u16) -> Ticket {
        Ticket(link.id << SLOT_BITS | u64::from(slot))
    }

    /// The slot of a ticket.
    pub(crate) fn slot(ticket: Ticket) -> u16 {
        (ticket.0 & ((1 << SLOT_BITS) - 1)) as u16
    }

    /// Hands the answers of a turn to whom they are for.
    pub(crate) fn deliver(&self, answers: &mut Answers) {
        if !answers.links.is_empty() {
            let links = self.links();
            for (id, batch) in answers.links.drain() {
                if let Some(link) = links.open.get(&id) {
                    link.put(batch);
                }
            }
        }
        for (number, answer) in answers.own.drain(..) {
            let waiter = self.asked().open.remove(&number);
            if let Some(waiter) = waiter {
                // Whoever asked may have gone.
                let _ = waiter.send(answer);
            }
        }
    }

    /// Asks the replica on the host's own behalf.
    pub(crate) async fn ask(&self, make: impl FnOnce(Ticket) -> Input) -> Answer {
        let number = OWN | self.number();
        let (waiter, answer) = oneshot::channel();
        {
            let mut asked = self.asked();
            if asked.closed {
                // Else it would be kept until its own answer comes.
                drop(waiter);
            } else {
                asked.open.insert(number, waiter);
            }
        }
        self.inbox.push(make(Ticket(number)));
        answer.await.unwrap_or_else(|_| {
            let response = Response::Unavailable(Unavailable::ShuttingDown);
            Answer::Other(Box::new(response))
        })
    }

    /// As [`Router::ask`], for a request that needs no idempotency key, or brings its session.
    pub(crate) async fn request(&self, sequence: u64, request: Request) -> Answer {
        let make = |ticket| Input::Request {
            ticket,
            sequence,
            request,
        };
        self.ask(make).await
    }

    /// Ends all questions: nobody answers any more.
    pub(crate) fn end(&self) {
        let mut asked = self.asked();
        asked.closed = true;
        asked.open = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_asked_after_the_end_is_answered_at_once() {
        let router = Router::new(Arc::new(Inbox::default()));
        router.end();
        let asked = router.request(0, Request::Status);
        let patience = std::time::Duration::from_secs(10);
        let answer = tokio::time::timeout(patience, asked).await.unwrap();
        assert!(matches!(
            answer.into_response(),
            Response::Unavailable(Unavailable::ShuttingDown)
        ));
    }
}

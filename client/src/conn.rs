//! One connection to a host: the greeting, and many requests under way on one stream.
//!
//! A request costs no task, no channel and no timer of its own: its slot in the table of the
//! connection keeps the waker and then the answer, the reader settles a whole batch of answers
//! under one lock, and a sweep finds the slots whose time is up (to 20 ms).

use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use maitred_protocol::limits::IN_FLIGHT_MAX;
use maitred_protocol::{
    FrameError, KeepAlive, KeepAliveAck, Kind, NodeAnswer, NodeCommand, Notice, Request, Response,
    Welcome, codec,
};
use maitred_transport::{
    CloseCode, Connection, FrameReader, FrameWriter, LinkError, ReadError, SendError, close,
    read_datagram,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use crate::silence::{Look, Silence};

/// How late the end of a request's time may be noticed.
const SWEEP: Duration = Duration::from_millis(20);
/// The request id of a probe; sequences begin at 1.
const PROBE_ID: u64 = 0;

/// Why a request on one connection brought no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection is gone. `sent`: the host may have got the request.
    Lost { sent: bool, cause: LinkError },
    /// The request's time is up.
    TimedOut { sent: bool },
    /// It cannot be sent at all.
    Frame(FrameError),
}

/// What a connection tells the node that is commanded through it.
#[derive(Debug)]
pub(crate) enum NodeEvent {
    Command(Arc<Conn>, u64, NodeCommand),
    Ack(KeepAliveAck),
    /// Host `from` says that `host` leads in `term`.
    Leader {
        from: u64,
        host: Option<u64>,
        term: u64,
    },
    Down(Arc<Conn>),
}

pub(crate) type NodeEvents = mpsc::Sender<NodeEvent>;

enum Slot {
    Waiting(Option<Waker>, Instant),
    Done(Result<Response, Failure>),
}

/// Ids are sequence numbers: spread them with one multiplication.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(byte));
        }
    }
    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(20);
    }
}

#[derive(Default)]
struct Pending {
    slots: HashMap<u64, Slot, BuildHasherDefault<IdHasher>>,
    closed: Option<LinkError>,
}

/// A connection that has been greeted.
pub(crate) struct Conn {
    pub(crate) connection: Connection,
    pub(crate) welcome: Welcome,
    writer: FrameWriter,
    pending: Mutex<Pending>,
    permits: Semaphore,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conn({})", self.connection.remote_address())
    }
}

/// Frees a request's slot when its future ends, or is dropped early.
struct SlotGuard<'a>(&'a Conn, u64);

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().slots.remove(&self.1);
    }
}

impl Conn {
    pub(crate) fn new(connection: Connection, welcome: Welcome, writer: FrameWriter) -> Self {
        let in_flight = (welcome.in_flight_max as usize).clamp(1, IN_FLIGHT_MAX);
        Self {
            connection,
            welcome,
            writer,
            pending: Mutex::default(),
            permits: Semaphore::new(in_flight),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Nothing under the lock can leave the table half changed.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and waits for the answer until `deadline`.
    pub(crate) async fn exchange(
        &self,
        id: u64,
        request: &Request,
        deadline: Instant,
    ) -> Result<Response, Failure> {
        let _permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => match timeout_at(deadline, self.permits.acquire()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) => return Err(self.lost()),
                Err(_) => return Err(Failure::TimedOut { sent: false }),
            },
        };
        {
            let mut pending = self.lock();
            if pending.closed.is_some() {
                drop(pending);
                return Err(self.lost());
            }
            pending.slots.insert(id, Slot::Waiting(None, deadline));
        }
        let _slot = SlotGuard(self, id);
        let mut sent = self.writer.try_send(id, request);
        if sent == Err(SendError::Full) {
            sent = timeout_at(deadline, self.writer.send(id, request))
                .await
                .unwrap_or(Err(SendError::Full));
        }
        match sent {
            Ok(()) => self.answer(id).await,
            Err(SendError::Full) => Err(Failure::TimedOut { sent: false }),
            Err(SendError::Closed(cause)) => Err(Failure::Lost { sent: false, cause }),
            Err(SendError::Frame(error)) => Err(Failure::Frame(error)),
        }
    }

    /// The connection went before the request was sent.
    fn lost(&self) -> Failure {
        let cause = self.ended();
        Failure::Lost { sent: false, cause }
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.lock().closed.is_some()
    }

    /// Why it ended, once it has.
    pub(crate) fn ended(&self) -> LinkError {
        self.lock().closed.clone().unwrap_or(LinkError::Lost)
    }

    async fn answer(&self, id: u64) -> Result<Response, Failure> {
        poll_fn(|context| {
            let mut pending = self.lock();
            match pending.slots.get_mut(&id) {
                Some(Slot::Waiting(waker, _)) => {
                    let known = waker.as_ref().is_some_and(|w| w.will_wake(context.waker()));
                    if !known {
                        *waker = Some(context.waker().clone());
                    }
                    Poll::Pending
                }
                Some(done @ Slot::Done(_)) => {
                    let cause = LinkError::Local;
                    let taken = Slot::Done(Err(Failure::Lost { sent: true, cause }));
                    match std::mem::replace(done, taken) {
                        Slot::Done(answer) => Poll::Ready(answer),
                        Slot::Waiting(..) => Poll::Pending,
                    }
                }
                None => Poll::Ready(Err(Failure::Lost {
                    sent: true,
                    cause: LinkError::Local,
                })),
            }
        })
        .await
    }

    /// Hands answers to those who wait for them, under one lock; the rest is for nobody any more.
    fn settle(&self, answers: &mut Vec<(u64, Response)>, wakers: &mut Vec<Waker>) {
        let mut pending = self.lock();
        for (id, answer) in answers.drain(..) {
            if let Some(slot) = pending.slots.get_mut(&id) {
                wakers.extend(finish(slot, Ok(answer)));
            }
        }
        drop(pending);
        wakers.drain(..).for_each(Waker::wake);
    }

    fn settle_where(&self, mut due: impl FnMut(Instant) -> bool, failure: impl Fn() -> Failure) {
        let mut wakers = Vec::new();
        for slot in self.lock().slots.values_mut() {
            if matches!(slot, Slot::Waiting(_, deadline) if due(*deadline)) {
                wakers.extend(finish(slot, Err(failure())));
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The requests that wait for an answer.
    pub(crate) fn waiting(&self) -> Vec<u64> {
        let pending = self.lock();
        let slots = pending.slots.iter();
        let waiting = slots.filter(|(_, slot)| matches!(slot, Slot::Waiting(..)));
        waiting.map(|(id, _)| *id).collect()
    }

    /// Answers these requests, if they still wait, as if the connection had been lost.
    pub(crate) fn give_back(&self, requests: &[u64]) {
        let mut wakers = Vec::new();
        let mut pending = self.lock();
        for id in requests {
            if let Some(slot) = pending.slots.get_mut(id) {
                let cause = LinkError::Lost;
                wakers.extend(finish(slot, Err(Failure::Lost { sent: true, cause })));
            }
        }
        drop(pending);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Reads until the connection ends. `heard` is told of every notice.
    pub(crate) async fn run(
        self: &Arc<Self>,
        reader: FrameReader,
        node: Option<NodeEvents>,
        heard: impl Fn(Notice),
    ) {
        let cause = tokio::select! {
            error = self.read(reader, node.as_ref(), heard) => match error {
                ReadError::Link(cause) => cause,
                ReadError::Abandoned => LinkError::Lost,
                error @ (ReadError::Frame(_) | ReadError::Truncated(_)) => {
                    close(&self.connection, CloseCode::Protocol, &error.to_string());
                    LinkError::Broken(error.to_string())
                }
            },
            cause = self.sweep() => cause,
            cause = self.read_acks(node.as_ref()) => cause,
        };
        tracing::debug!(host = %self.connection.remote_address(), %cause, "a connection ended");
        self.end(cause);
        self.tell_down(node.as_ref()).await;
    }

    pub(crate) async fn tell_down(self: &Arc<Self>, node: Option<&NodeEvents>) {
        if let Some(node) = node {
            let _ = node.send(NodeEvent::Down(Arc::clone(self))).await;
        }
    }

    /// Takes no more requests, and fails those under way. The first cause stays.
    pub(crate) fn end(&self, cause: LinkError) {
        close(&self.connection, CloseCode::Done, "");
        self.lock().closed.get_or_insert(cause);
        self.permits.close();
        let cause = self.ended();
        self.settle_where(
            |_| true,
            || Failure::Lost {
                sent: true,
                cause: cause.clone(),
            },
        );
    }

    async fn read(
        self: &Arc<Self>,
        mut reader: FrameReader,
        node: Option<&NodeEvents>,
        heard: impl Fn(Notice),
    ) -> ReadError {
        let (mut answers, mut wakers) = (Vec::new(), Vec::new());
        let (mut commands, mut notices) = (Vec::new(), Vec::new());
        let mut acks = Vec::new();
        loop {
            let batch = reader.read_batch::<ReadError>(|frame| {
                let id = frame.header.request_id;
                match frame.header.kind {
                    Kind::Command => commands.push((id, codec::decode::<NodeCommand>(frame)?)),
                    Kind::KeepAliveAck => acks.push(codec::decode::<KeepAliveAck>(frame)?),
                    Kind::Notice => notices.push(codec::decode::<Notice>(frame)?),
                    _ => answers.push((id, codec::decode::<Response>(frame)?)),
                }
                Ok(())
            });
            let more = batch.await;
            for ack in acks.drain(..) {
                if let Some(node) = node {
                    let _ = node.send(NodeEvent::Ack(ack)).await;
                }
            }
            // Before the answers: those who are refused are to know where to go.
            for notice in notices.drain(..) {
                let Notice::Leader { host, term, .. } = notice;
                heard(notice);
                if let Some(node) = node {
                    let from = self.welcome.host;
                    let _ = node.send(NodeEvent::Leader { from, host, term }).await;
                }
            }
            self.settle(&mut answers, &mut wakers);
            for (id, command) in commands.drain(..) {
                // Waiting here, when the node is slow, slows the host down by flow control.
                if let Some(node) = node {
                    let event = NodeEvent::Command(Arc::clone(self), id, command);
                    let _ = node.send(event).await;
                }
            }
            match more {
                Ok(true) => {}
                Ok(false) => return ReadError::Abandoned,
                Err(error) => return error,
            }
        }
    }

    async fn read_acks(&self, node: Option<&NodeEvents>) -> LinkError {
        let Some(node) = node else {
            return std::future::pending().await;
        };
        loop {
            match read_datagram::<KeepAliveAck>(&self.connection).await {
                Ok((_, ack)) => drop(node.send(NodeEvent::Ack(ack)).await),
                Err(ReadError::Link(cause)) => return cause,
                Err(error) => tracing::debug!(%error, "a datagram was not understood"),
            }
        }
    }

    /// Ends requests whose time is up, and finds out when the host has gone without a word.
    async fn sweep(&self) -> LinkError {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silence = Silence::new(Instant::now());
        loop {
            let now = ticks.tick().await;
            self.settle_where(
                |deadline| deadline <= now,
                || Failure::TimedOut { sent: true },
            );
            let stats = self.connection.stats();
            let sent = stats.frame_tx.stream + stats.frame_tx.datagram + stats.frame_tx.ping;
            let waiting = !self.lock().slots.is_empty();
            match silence.look(now, stats.udp_rx.datagrams, sent, waiting) {
                Look::Fine => {}
                // Any request will do: what counts is that QUIC has something to acknowledge.
                Look::Probe => drop(self.writer.try_send(PROBE_ID, &Request::Status)),
                Look::Gone => return LinkError::Lost,
            }
        }
    }

    /// Sends a keep-alive on the control stream.
    pub(crate) fn keep_alive(&self, message: &KeepAlive) -> Result<(), SendError> {
        self.writer.try_send(message.sequence, message)
    }

    /// Answers a command of the host. In vain when the connection is gone: the host asks again.
    pub(crate) fn answer_command(self: &Arc<Self>, id: u64, answer: NodeAnswer) {
        match self.writer.try_send(id, &answer) {
            Ok(()) => {}
            Err(SendError::Full) => {
                let conn = Arc::clone(self);
                tokio::spawn(async move { drop(conn.writer.send(id, &answer).await) });
            }
            Err(error) => tracing::debug!(%error, "an answer to a command was not sent"),
        }
    }
}

fn finish(slot: &mut Slot, answer: Result<Response, Failure>) -> Option<Waker> {
    match std::mem::replace(slot, Slot::Done(answer)) {
        Slot::Waiting(waker, _) => waker,
        // Answered twice: the first answer stands.
        earlier @ Slot::Done(_) => {
            *slot = earlier;
            None
        }
    }
}

//! One client's connection: what it asked and has not been answered, and what goes out to it.
//!
//! Holds: a request takes a slot until its answer has been handed to the stream, so the slots bound
//! what waits on both sides of the replica. Whoever puts something into the outbox never waits; one
//! task a connection turns it into frames, many at a time, and is the only one that waits for a slow
//! reader. It spells answers out, because the replica's thread has no time for that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maitred_protocol::limits::IN_FLIGHT_MAX;
use maitred_protocol::{
    FrameError, KeepAliveAck, NodeCommand, NodeEpoch, NodeName, Notice, Rejection, Response, codec,
};
use maitred_replica::Answer;
use maitred_transport::{CloseCode, Connection, FrameWriter, SendError, close};
use tokio::sync::Notify;

use crate::host::Host;

/// Bytes of frames that are put together before they are handed to the stream.
const FLUSH_BYTES: usize = 128 << 10;
/// Longest that a client may leave its answers unread.
const SLOW_READER: Duration = Duration::from_secs(30);
/// Slots that a quiet connection keeps.
const SLOTS_KEPT: usize = 64;

/// Something that goes out.
#[derive(Debug)]
pub(crate) enum Out {
    /// An answer.
    Answer {
        /// The request's slot.
        slot: u16,
        /// Grows from answer to answer of the replica, on all connections.
        order: u64,
        /// What is answered.
        answer: Answer,
    },
    /// Something that the client did not ask for.
    Notice(Notice),
    /// A numbered command to the node.
    Command(u64, Arc<NodeCommand>),
}

#[derive(Debug, Default)]
struct Outbox {
    /// Before all items, whenever there is room for a frame.
    acks: Vec<KeepAliveAck>,
    items: Vec<Out>,
    closed: bool,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.acks.is_empty() && self.items.is_empty()
    }
}

#[derive(Debug, Default)]
struct Slot {
    request_id: u64,
    /// The node that a registration is for.
    node: Option<Box<NodeName>>,
}

#[derive(Debug, Default)]
struct InFlight {
    slots: Vec<Slot>,
    free: Vec<u16>,
}

impl InFlight {
    fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// A connection, as those see it who have something to tell it.
#[derive(Debug)]
pub(crate) struct Link {
    /// Never given again.
    pub(crate) id: u64,
    /// The connection itself.
    pub(crate) quic: Connection,
    /// The sessions of nodes that are commanded through it.
    pub(crate) nodes: Mutex<Vec<NodeEpoch>>,
    outbox: Mutex<Outbox>,
    filled: Notify,
    in_flight: Mutex<InFlight>,
    /// Told when the last request has been answered.
    idle: Notify,
}

impl Link {
    pub(crate) fn new(id: u64, quic: Connection) -> Self {
        Self {
            id,
            quic,
            nodes: Mutex::default(),
            outbox: Mutex::default(),
            filled: Notify::new(),
            in_flight: Mutex::default(),
            idle: Notify::new(),
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot for a request; none when all are taken.
    pub(crate) fn reserve(&self, request_id: u64, node: Option<Box<NodeName>>) -> Option<u16> {
        let mut in_flight = self.in_flight();
        let slot = Slot { request_id, node };
        if let Some(free) = in_flight.free.pop() {
            in_flight.slots[usize::from(free)] = slot;
            return Some(free);
        }
        let new = in_flight.slots.len();
        if new >= IN_FLIGHT_MAX {
            return None;
        }
        in_flight.slots.push(slot);
        u16::try_from(new).ok()
    }

    /// The request in a slot.
    fn asked(&self, slot: u16) -> Option<(u64, Option<Box<NodeName>>)> {
        let mut in_flight = self.in_flight();
        let slot = in_flight.slots.get_mut(usize::from(slot))?;
        Some((slot.request_id, slot.node.take()))
    }

    /// Gives slots back.
    pub(crate) fn release(&self, slots: &mut Vec<u16>) {
        let mut in_flight = self.in_flight();
        in_flight.free.append(slots);
        if in_flight.used() == 0 {
            if in_flight.slots.len() > SLOTS_KEPT {
                *in_flight = InFlight::default();
            }
            drop(in_flight);
            self.idle.notify_waiters();
        }
    }

    /// Waits until nothing is unanswered.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.in_flight().used() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Sends a batch, in order, after what was put in before; in vain once the connection ended.
    pub(crate) fn put(&self, mut batch: Vec<Out>) {
        let mut outbox = self.outbox();
        if outbox.closed {
            return;
        }
        let was_empty = outbox.is_empty();
        if outbox.items.is_empty() {
            outbox.items = batch;
        } else {
            outbox.items.append(&mut batch);
        }
        drop(outbox);
        // Whoever filled an empty outbox has woken the task already.
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Answers a keep-alive that came as a frame, before whatever waits to be made into frames.
    pub(crate) fn acknowledge(&self, ack: KeepAliveAck) {
        let mut outbox = self.outbox();
        if outbox.closed {
            return;
        }
        let was_empty = outbox.is_empty();
        // Only the newest of a session is of use, so they do not pile up before a slow reader.
        outbox.acks.retain(|waiting| waiting.epoch != ack.epoch);
        outbox.acks.push(ack);
        drop(outbox);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Whether [`Link::end`] was called.
    pub(crate) fn has_ended(&self) -> bool {
        self.outbox().closed
    }

    /// Ends the outgoing task; nothing more is taken.
    pub(crate) fn end(&self) {
        let mut outbox = self.outbox();
        *outbox = Outbox {
            closed: true,
            ..Outbox::default()
        };
        drop(outbox);
        self.filled.notify_one();
    }

    /// The acknowledgements that are to go out before all else.
    fn take_acks(&self) -> Vec<KeepAliveAck> {
        std::mem::take(&mut self.outbox().acks)
    }

    /// Everything that is to go out after [`Link::take_acks`]; none at the end.
    async fn take(&self) -> Option<Vec<Out>> {
        loop {
            {
                let mut outbox = self.outbox();
                if outbox.closed {
                    return None;
                }
                if !outbox.is_empty() {
                    return Some(std::mem::take(&mut outbox.items));
                }
            }
            self.filled.notified().await;
        }
    }
}

/// Frames that are being put together.
#[derive(Default)]
struct Draft {
    frames: Vec<u8>,
    answered: Vec<u16>,
    registered: Vec<(NodeName, NodeEpoch, u64)>,
}

/// The outgoing task of a connection: runs until [`Link::end`], or until the other side is gone.
pub(crate) async fn send_out(host: Arc<Host>, link: Arc<Link>, writer: FrameWriter) {
    let mut draft = Draft::default();
    while let Some(items) = link.take().await {
        add_acks(&link, &mut draft);
        for item in items {
            add(&host, &link, item, &mut draft);
            if draft.frames.len() >= FLUSH_BYTES {
                if !flush(&host, &link, &writer, &mut draft).await {
                    return;
                }
                add_acks(&link, &mut draft);
            }
        }
        if !flush(&host, &link, &writer, &mut draft).await {
            return;
        }
    }
}

fn add_acks(link: &Link, draft: &mut Draft) {
    for ack in link.take_acks() {
        if let Err(error) = codec::encode(0, &ack, &mut draft.frames) {
            tracing::warn!(%error, "an acknowledgement cannot be sent");
        }
    }
}

fn add(host: &Host, link: &Link, item: Out, draft: &mut Draft) {
    match item {
        Out::Answer {
            slot,
            order,
            answer,
        } => {
            let Some((request_id, node)) = link.asked(slot) else {
                return;
            };
            let response = host.spell_out(answer);
            if let (Response::Registered { epoch, .. }, Some(node)) = (&response, node) {
                draft.registered.push((*node, *epoch, order));
            }
            encode_response(request_id, &response, &mut draft.frames);
            draft.answered.push(slot);
        }
        Out::Notice(notice) => {
            if let Err(error) = codec::encode(0, &notice, &mut draft.frames) {
                tracing::warn!(%error, "a notice cannot be sent");
            }
        }
        Out::Command(number, command) => {
            // A command is bounded by what a guest may hand out, far below a frame.
            if let Err(error) = codec::encode(number, &*command, &mut draft.frames) {
                tracing::warn!(%error, "a node's command cannot be sent");
            }
        }
    }
}

/// Hands over what is drafted, waiting for a slow reader. False when the connection has ended.
async fn flush(host: &Host, link: &Arc<Link>, writer: &FrameWriter, draft: &mut Draft) -> bool {
    if !send_encoded(link, writer, &draft.frames).await {
        link.end();
        return false;
    }
    draft.frames.clear();
    if draft.frames.capacity() > 2 * FLUSH_BYTES {
        draft.frames = Vec::new();
    }
    // A node learns of its session before it is told anything in its name.
    for (name, epoch, order) in draft.registered.drain(..) {
        host.nodes.bind(name, epoch, order, link);
    }
    if !draft.answered.is_empty() {
        link.release(&mut draft.answered);
    }
    true
}

/// Hands over frames, waiting for a slow reader. False when the connection has ended.
pub(crate) async fn send_encoded(link: &Link, writer: &FrameWriter, frames: &[u8]) -> bool {
    loop {
        match writer.try_send_encoded(frames) {
            Ok(()) => return true,
            Err(SendError::Full) => {}
            Err(SendError::Closed(_) | SendError::Frame(_)) => return false,
        }
        if tokio::time::timeout(SLOW_READER, writer.room())
            .await
            .is_err()
        {
            close(
                &link.quic,
                CloseCode::Limit,
                "the answers have not been read for 30 seconds",
            );
            return false;
        }
    }
}

/// Appends a response, or in its place that it would not fit a frame.
pub(crate) fn encode_response(request_id: u64, response: &Response, frames: &mut Vec<u8>) {
    let Err(error) = codec::encode(request_id, response, frames) else {
        return;
    };
    let problem = match error {
        FrameError::TooLong(bytes) => {
            format!(
                "the answer has {bytes} bytes, more than fits a frame (1 MiB): ask for less at a time"
            )
        }
        other => format!("the answer cannot be sent: {other}"),
    };
    let instead = Response::Rejected(Rejection::Conflict(problem));
    if let Err(error) = codec::encode(request_id, &instead, frames) {
        tracing::error!(%error, "an answer cannot be sent");
    }
}

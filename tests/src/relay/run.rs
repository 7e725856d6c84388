//! The relay's task: it owns the sockets and what is held back.
//!
//! One loop takes packets from the front socket, packets from the targets' side (each source's
//! socket is read by a small task, through one bounded queue), orders, and the time. Nothing in it
//! waits for a socket: a packet that a full socket does not take is lost, as on a network.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use maitred_registry::random::Random;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::sleep_until;

use super::{Counts, LaneCounts, PACKETS_HELD_MAX, SOURCES_MAX, Shared, lane, lock, loopback};

/// Bytes of the largest UDP packet.
const PACKET_BYTES_MAX: usize = 65_535;
/// Packets from targets that wait for the task.
const RETURNED_MAX: usize = 4_096;
/// Packets of the front socket that are taken before something else gets a turn.
const BATCH: usize = 64;

/// What the handle asks of the task.
pub(super) enum Order {
    Rebind(SocketAddr, oneshot::Sender<io::Result<SocketAddr>>),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    ToTarget,
    FromTarget,
}

impl Way {
    fn of(self, counts: &mut Counts) -> &mut LaneCounts {
        match self {
            Self::ToTarget => &mut counts.to_target,
            Self::FromTarget => &mut counts.from_target,
        }
    }
}

/// A packet that is held back; the first due comes first, then the first held.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Instant,
    number: u64,
    source: SocketAddr,
    way: Way,
    bytes: Arc<[u8]>,
}

/// A source's socket towards the target.
struct Flow {
    socket: Arc<UdpSocket>,
    target: SocketAddr,
    reader: AbortHandle,
    /// When the last packet that keeps its order is due, by direction.
    last: [Option<Instant>; 2],
    used: u64,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

type Returned = (SocketAddr, Arc<[u8]>);

pub(super) struct Task {
    front: UdpSocket,
    shared: Arc<Mutex<Shared>>,
    orders: mpsc::Receiver<Order>,
    random: Random,
    flows: BTreeMap<SocketAddr, Flow>,
    held: BinaryHeap<Reverse<Held>>,
    returned: (mpsc::Sender<Returned>, mpsc::Receiver<Returned>),
    /// Grows with every packet.
    number: u64,
}

impl Task {
    pub(super) fn new(
        front: UdpSocket,
        shared: Arc<Mutex<Shared>>,
        orders: mpsc::Receiver<Order>,
        seed: u64,
    ) -> Self {
        Self {
            front,
            shared,
            orders,
            random: Random::new(seed),
            flows: BTreeMap::new(),
            held: BinaryHeap::new(),
            returned: mpsc::channel(RETURNED_MAX),
            number: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            let due = self.held.peek().map(|held| held.0.due);
            tokio::select! {
                got = self.front.recv_from(&mut buffer) => {
                    self.arrived(got, &buffer).await;
                    for _ in 1..BATCH {
                        match self.front.try_recv_from(&mut buffer) {
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                            got => self.arrived(got, &buffer).await,
                        }
                    }
                }
                Some((source, bytes)) = self.returned.1.recv() => {
                    self.pass(source, Way::FromTarget, bytes);
                }
                Some(Order::Rebind(source, reply)) = self.orders.recv() => {
                    // The handle may have stopped waiting.
                    let _ = reply.send(self.rebind(source).await);
                }
                () = async { sleep_until(due.unwrap_or_else(Instant::now).into()).await },
                    if due.is_some() => {}
            }
            self.release();
        }
    }

    async fn arrived(&mut self, got: io::Result<(usize, SocketAddr)>, buffer: &[u8]) {
        // An error is of an earlier packet that nobody was there to take.
        let Ok((bytes, source)) = got else {
            return;
        };
        let target = lock(&self.shared).target;
        let counts = || LaneCounts {
            received: 1,
            ..LaneCounts::default()
        };
        let missed = match target {
            None => LaneCounts { cut: 1, ..counts() },
            Some(target) => match self.open(source, target).await {
                Ok(()) => return self.pass(source, Way::ToTarget, buffer[..bytes].into()),
                Err(_) => LaneCounts {
                    overflowed: 1,
                    ..counts()
                },
            },
        };
        let mut shared = lock(&self.shared);
        if shared.counts.len() < SOURCES_MAX {
            let counts = shared.counts.entry(source).or_default();
            counts.to_target.add(&missed);
        }
    }

    /// Sees to it that the source has a socket towards the target.
    async fn open(&mut self, source: SocketAddr, target: SocketAddr) -> io::Result<()> {
        self.number += 1;
        if let Some(flow) = self.flows.get_mut(&source)
            && flow.target == target
        {
            flow.used = self.number;
            return Ok(());
        }
        let flow = self.flow(source, target).await?;
        self.flows.insert(source, flow);
        if self.flows.len() > SOURCES_MAX {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used);
            if let Some(oldest) = oldest.map(|(source, _)| *source) {
                self.flows.remove(&oldest);
                let mut shared = lock(&self.shared);
                shared.counts.remove(&oldest);
            }
        }
        Ok(())
    }

    async fn flow(&self, source: SocketAddr, target: SocketAddr) -> io::Result<Flow> {
        let socket = UdpSocket::bind(loopback(Some(target))).await?;
        socket.connect(target).await?;
        // Until the kernel has said so once, the socket is taken for full.
        socket.writable().await?;
        let socket = Arc::new(socket);
        let (from, sender) = (Arc::clone(&socket), self.returned.0.clone());
        let shared = Arc::clone(&self.shared);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; PACKET_BYTES_MAX];
            loop {
                // Refused: the target's process is gone. Another may come.
                let Ok(bytes) = from.recv(&mut buffer).await else {
                    continue;
                };
                if sender.try_send((source, buffer[..bytes].into())).is_err() {
                    let mut shared = lock(&shared);
                    let counts = shared.counts.entry(source).or_default();
                    counts.from_target.received += 1;
                    counts.from_target.overflowed += 1;
                }
            }
        });
        Ok(Flow {
            socket,
            target,
            reader: reader.abort_handle(),
            last: [None, None],
            used: self.number,
        })
    }

    async fn rebind(&mut self, source: SocketAddr) -> io::Result<SocketAddr> {
        let old = self.flows.get(&source).ok_or(io::ErrorKind::NotFound)?;
        // The old socket is open until the new one is, so that the port is another.
        let flow = self.flow(source, old.target).await?;
        let address = flow.socket.local_addr()?;
        self.flows.insert(source, flow);
        lock(&self.shared).counts.entry(source).or_default().rebinds += 1;
        Ok(address)
    }

    /// Decides on a packet, and holds what is to go on until it is due.
    fn pass(&mut self, source: SocketAddr, way: Way, bytes: Arc<[u8]>) {
        let Some(flow) = self.flows.get_mut(&source) else {
            return;
        };
        let mut shared = lock(&self.shared);
        let faults = *shared.faults(source);
        let counts = way.of(shared.counts.entry(source).or_default());
        let (lane, last) = match way {
            Way::ToTarget => (faults.to_target, &mut flow.last[0]),
            Way::FromTarget => (faults.from_target, &mut flow.last[1]),
        };
        let copies = lane::pass(&lane, &mut self.random, counts, last, Instant::now());
        for due in copies.into_iter().flatten() {
            if self.held.len() >= PACKETS_HELD_MAX {
                counts.overflowed += 1;
                continue;
            }
            self.number += 1;
            let (number, bytes) = (self.number, Arc::clone(&bytes));
            self.held.push(Reverse(Held {
                due,
                number,
                source,
                way,
                bytes,
            }));
        }
    }

    /// Sends what is due, unless the line has been cut meanwhile.
    fn release(&mut self) {
        let now = Instant::now();
        while self.held.peek().is_some_and(|held| held.0.due <= now) {
            let Some(Reverse(held)) = self.held.pop() else {
                return;
            };
            let Some(flow) = self.flows.get(&held.source) else {
                continue;
            };
            let mut shared = lock(&self.shared);
            let faults = *shared.faults(held.source);
            let counts = held.way.of(shared.counts.entry(held.source).or_default());
            let (cut, sent) = match held.way {
                Way::ToTarget if faults.to_target.cut => (true, Ok(0)),
                Way::FromTarget if faults.from_target.cut => (true, Ok(0)),
                Way::ToTarget => (false, send(&flow.socket, &held.bytes)),
                Way::FromTarget => (false, self.front.try_send_to(&held.bytes, held.source)),
            };
            match sent {
                _ if cut => counts.cut += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => counts.overflowed += 1,
                // A target that is not there loses it: that is none of the relay's doing.
                _ => counts.forwarded += 1,
            }
        }
    }
}

/// A refusal tells of an earlier packet, whose target was not there, and this one has not been sent.
fn send(socket: &UdpSocket, bytes: &[u8]) -> io::Result<usize> {
    match socket.try_send(bytes) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => socket.try_send(bytes),
        other => other,
    }
}

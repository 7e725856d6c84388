//! A UDP relay that stands in front of one address and is the bad network of tests with real
//! processes.
//!
//! Whoever sends to the relay is a *source*, known by its address. Each source has a socket of its
//! own towards the target, as behind a NAT, so answers find their way back and QUIC works through
//! it. Hosts dial from the port that they listen on, so a relay in front of each host can tell
//! their pairs apart: what host 2 sends to host 1 goes through host 1's relay, with host 2's address
//! as its source; [`Faults`] may be set for that source alone, each direction by itself.
//!
//! **What holds.** Packets of a source and direction keep their order, delayed or not, unless `reorder`
//! holds one back. A fault counts only packets that it really met. What is delayed
//! when the line is cut is lost: a cut is sharp. Everything is bounded, and what is beyond a bound is
//! counted as overflow, never waited for. Chance comes from the seed; the order in which the kernel
//! delivers packets does not, so a run with real processes is not replayable.
//!
//! It must not know what the packets are.

mod lane;
mod run;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use run::Order;

/// Sources that a relay knows at a time; the one that was silent for longest makes room.
pub const SOURCES_MAX: usize = 1_024;
/// Packets that a relay holds back at a time, for all sources.
pub const PACKETS_HELD_MAX: usize = 16_384;
/// Milliseconds that a reordered packet is held back, on top of its delay.
pub const REORDER_HOLD_MS: u64 = 10;

/// What one direction does to packets. Shares are from 0 (never) to 1 (always).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Lane {
    /// Nothing gets through.
    pub cut: bool,
    /// Share of packets that are lost.
    pub loss: f64,
    /// How long each takes.
    pub delay: Duration,
    /// How much longer it may take, evenly spread.
    pub jitter: Duration,
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// Share of packets that are held back for [`REORDER_HOLD_MS`], so that others pass them.
    pub reorder: f64,
}

impl Lane {
    /// Nothing gets through.
    #[must_use]
    pub fn dead() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }
}

/// What happens to packets, by direction. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// From the source.
    pub to_target: Lane,
    /// To the source.
    pub from_target: Lane,
}

impl Faults {
    /// The same in both directions.
    #[must_use]
    pub fn both(lane: Lane) -> Self {
        Self {
            to_target: lane,
            from_target: lane,
        }
    }
}

/// Whose packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Those of every source; for faults: of every one that has none of its own.
    Everyone,
    /// Those of this one.
    Source(SocketAddr),
}

/// What one direction has done to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneCounts {
    /// Packets that came.
    pub received: u64,
    /// Packets that went on, duplicates included.
    pub forwarded: u64,
    /// Packets that met a cut, or no target.
    pub cut: u64,
    /// Packets that were lost by chance.
    pub lost: u64,
    /// Packets that were held for delay or jitter.
    pub delayed: u64,
    /// Packets of which a second copy was made.
    pub duplicated: u64,
    /// Packets that were held back so that others pass.
    pub reordered: u64,
    /// Packets for which there was no room, in the relay or in a socket.
    pub overflowed: u64,
}

/// What a relay has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// From the source.
    pub to_target: LaneCounts,
    /// To the source.
    pub from_target: LaneCounts,
    /// Times that the source got another port towards the target.
    pub rebinds: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.to_target.add(&other.to_target);
        self.from_target.add(&other.from_target);
        self.rebinds += other.rebinds;
    }
}

impl LaneCounts {
    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.forwarded += other.forwarded;
        self.cut += other.cut;
        self.lost += other.lost;
        self.delayed += other.delayed;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.overflowed += other.overflowed;
    }
}

/// What the handle and the task share.
#[derive(Default)]
struct Shared {
    target: Option<SocketAddr>,
    everyone: Faults,
    own: BTreeMap<SocketAddr, Faults>,
    counts: BTreeMap<SocketAddr, Counts>,
}

impl Shared {
    fn faults(&self, source: SocketAddr) -> &Faults {
        self.own.get(&source).unwrap_or(&self.everyone)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A relay that runs until it is dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts a relay on a loopback port that the kernel chooses. Without a target it drops what
    /// comes until [`Relay::set_target`]: a host wants to know its relay's address before anybody
    /// knows the host's.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn start(target: impl Into<Option<SocketAddr>>, seed: u64) -> io::Result<Self> {
        let target = target.into();
        let socket = UdpSocket::bind(loopback(target)).await?;
        // Until the kernel has said so once, the socket is taken for full.
        socket.writable().await?;
        let address = socket.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared {
            target,
            ..Shared::default()
        }));
        let (orders, inbox) = mpsc::channel(16);
        let task = run::Task::new(socket, Arc::clone(&shared), inbox, seed);
        let task = tokio::spawn(task.run());
        Ok(Self {
            address,
            shared,
            orders,
            task,
        })
    }

    /// Where the target is reached through it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stands in front of another address from now on. Every source gets a new socket towards it.
    pub fn set_target(&self, target: SocketAddr) {
        lock(&self.shared).target = Some(target);
    }

    /// Sets what happens from now on, instead of what was set before for the same one.
    pub fn faults(&self, who: Who, faults: Faults) {
        let mut shared = lock(&self.shared);
        match who {
            Who::Everyone => shared.everyone = faults,
            Who::Source(source) => {
                shared.own.insert(source, faults);
            }
        }
    }

    /// No faults any more, for anybody.
    pub fn heal(&self) {
        let mut shared = lock(&self.shared);
        shared.everyone = Faults::default();
        shared.own.clear();
    }

    /// Everyone who has sent something, by address.
    #[must_use]
    pub fn sources(&self) -> Vec<SocketAddr> {
        lock(&self.shared).counts.keys().copied().collect()
    }

    /// What was done so far. Zeros for a source that has sent nothing.
    #[must_use]
    pub fn counts(&self, who: Who) -> Counts {
        let shared = lock(&self.shared);
        match who {
            Who::Source(source) => shared.counts.get(&source).copied().unwrap_or_default(),
            Who::Everyone => {
                let mut sum = Counts::default();
                shared.counts.values().for_each(|counts| sum.add(counts));
                sum
            }
        }
    }

    /// Gives a source another address, as the target sees it, and returns that. What the target
    /// sends to the old one is lost, as behind a NAT that has forgotten.
    ///
    /// # Errors
    /// `NotFound` when the source has sent nothing yet, or what the kernel says.
    pub async fn rebind(&self, source: SocketAddr) -> io::Result<SocketAddr> {
        let gone = || io::Error::other("the relay has ended");
        let (reply, answer) = oneshot::channel();
        let order = Order::Rebind(source, reply);
        self.orders.send(order).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A loopback address of the target's family, any port.
fn loopback(target: Option<SocketAddr>) -> SocketAddr {
    match target {
        Some(SocketAddr::V6(_)) => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        _ => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    }
}

//! A node's keep-alives: datagrams or frames of the control stream in, acknowledgements out the same
//! way.
//!
//! A keep-alive counts only when it comes over the connection that its session is bound to, and not
//! more often than a node could mean it. It is stamped here: its lease runs from when it came. Losing one
//! does no harm, so nothing here waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{KeepAlive, KeepAliveAck};
use maitred_transport::{LinkError, ReadError, read_datagram, send_datagram};
use tokio::sync::mpsc;

use crate::client_service::lost;
use crate::clock;
use crate::host::Host;
use crate::inbox::Renewal;
use crate::link::Link;
use crate::metrics::Metrics;

/// Keep-alives of one connection that count in one [`WINDOW`]: several sessions may share it.
const KEEP_ALIVES_MAX: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);
/// Marks the numbers of connections whose acknowledgement goes as a frame.
const BY_STREAM: u64 = 1 << 63;
/// Turns whose acknowledgements may wait to be sent; those beyond are lost, as datagrams may be.
pub(crate) const ACK_TURNS_MAX: usize = 1_024;
/// How often sessions and commands are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// An acknowledgement to be sent.
#[derive(Debug)]
pub(crate) struct Ack {
    /// As the replica was given it with the keep-alive.
    pub(crate) link: u64,
    pub(crate) ack: KeepAliveAck,
    /// When the keep-alive came; none when that is not known any more.
    pub(crate) at_us: Option<u64>,
}

/// Acknowledgements of one turn.
pub(crate) type Acks = Vec<Ack>;

/// How many keep-alives have come over one connection lately.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    count: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            count: 0,
        }
    }
}

impl Pace {
    /// Counts one; false when it is too many.
    fn allows(&mut self) -> bool {
        if self.since.elapsed() >= WINDOW {
            *self = Self::default();
        }
        self.count += 1;
        self.count <= KEEP_ALIVES_MAX
    }
}

/// Reads a connection's datagrams until it ends.
pub(crate) async fn keep_alives(host: &Arc<Host>, link: &Arc<Link>) -> LinkError {
    let mut pace = Pace::default();
    loop {
        match read_datagram::<KeepAlive>(&link.quic).await {
            Ok((_, keep_alive)) => renew(host, link, &mut pace, link.id, keep_alive),
            Err(ReadError::Link(_)) => return lost(&link.quic),
            Err(_) => Metrics::count(&host.metrics.keep_alives_ignored),
        }
    }
}

/// A keep-alive came over the control stream.
pub(crate) fn renew_by_stream(host: &Host, link: &Link, pace: &mut Pace, keep_alive: KeepAlive) {
    renew(host, link, pace, link.id | BY_STREAM, keep_alive);
}

fn renew(host: &Host, link: &Link, pace: &mut Pace, answer: u64, keep_alive: KeepAlive) {
    // What a load says is the replica's to judge: an odd report must not cost the lease.
    if !pace.allows() || !host.nodes.may_renew(link, keep_alive.epoch) {
        return Metrics::count(&host.metrics.keep_alives_ignored);
    }
    Metrics::count(&host.metrics.keep_alives);
    if answer & BY_STREAM != 0 {
        Metrics::count(&host.metrics.keep_alives_by_stream);
    }
    host.inbox.renew(Renewal {
        link: answer,
        keep_alive,
        at_us: clock::mono_us(),
    });
}

/// Sends acknowledgements, and looks through the sessions now and then, until the host ends.
pub(crate) async fn acknowledge(host: Arc<Host>, mut turns: mpsc::Receiver<Acks>) {
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            turn = turns.recv() => match turn {
                Some(acks) => send(&host, acks),
                None => return,
            },
            _ = sweep.tick() => host.nodes.sweep(),
        }
    }
}

fn send(host: &Host, acks: Acks) {
    for Ack { link, ack, at_us } in acks {
        let Some(to) = host.router.link(link & !BY_STREAM) else {
            Metrics::count(&host.metrics.keep_alive_acks_lost);
            continue;
        };
        if link & BY_STREAM != 0 {
            to.acknowledge(ack);
        } else if send_datagram(&to.quic, 0, &ack).is_err() {
            Metrics::count(&host.metrics.keep_alive_acks_lost);
            continue;
        }
        if let Some(at_us) = at_us {
            let micros = clock::mono_us().saturating_sub(at_us);
            host.metrics.keep_alive_times.observe(micros);
        }
    }
}

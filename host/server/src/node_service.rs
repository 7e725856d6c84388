//! A node's keep-alives: datagrams in, acknowledgements out.
//!
//! A keep-alive counts only when it comes over the connection that its session is bound to, and not
//! more often than a node could mean it. Losing one does no harm, so nothing here waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred_protocol::{KeepAlive, KeepAliveAck};
use maitred_replica::Input;
use maitred_transport::{LinkError, ReadError, read_datagram, send_datagram};
use tokio::sync::mpsc;

use crate::client_service::lost;
use crate::host::Host;
use crate::link::Link;
use crate::metrics::Metrics;

/// Keep-alives of one connection that count in one [`WINDOW`]: several sessions may share it.
const KEEP_ALIVES_MAX: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);
/// Turns whose acknowledgements may wait to be sent; those beyond are lost, as datagrams may be.
pub(crate) const ACK_TURNS_MAX: usize = 1_024;
/// How often sessions and commands are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// Acknowledgements of one turn, each with the number of its connection.
pub(crate) type Acks = Vec<(u64, KeepAliveAck)>;

/// Reads a connection's keep-alives until it ends.
pub(crate) async fn keep_alives(host: &Arc<Host>, link: &Arc<Link>) -> LinkError {
    let (mut since, mut count) = (Instant::now(), 0);
    loop {
        let keep_alive = match read_datagram::<KeepAlive>(&link.quic).await {
            Ok((_, keep_alive)) => keep_alive,
            Err(ReadError::Link(_)) => return lost(&link.quic),
            Err(_) => {
                Metrics::count(&host.metrics.keep_alives_ignored);
                continue;
            }
        };
        if since.elapsed() >= WINDOW {
            (since, count) = (Instant::now(), 0);
        }
        count += 1;
        // What a load says is the replica's to judge: an odd report must not cost the lease.
        if count > KEEP_ALIVES_MAX || !host.nodes.may_renew(link, keep_alive.epoch) {
            Metrics::count(&host.metrics.keep_alives_ignored);
            continue;
        }
        Metrics::count(&host.metrics.keep_alives);
        host.inbox.push(Input::KeepAlive {
            link: link.id,
            keep_alive,
        });
    }
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
    for (link, ack) in acks {
        let link = host.router.link(link);
        let sent = link.map(|link| send_datagram(&link.quic, 0, &ack));
        if !matches!(sent, Some(Ok(()))) {
            Metrics::count(&host.metrics.keep_alive_acks_lost);
        }
    }
}

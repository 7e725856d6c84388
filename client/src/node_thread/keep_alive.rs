//! Sending keep-alives: as datagrams, or on the control stream where those do not come through.

use std::sync::atomic::Ordering;

use maitred_protocol::limits::{COUNTERS_MAX, TEXT_BYTES_MAX};
use maitred_protocol::{KeepAlive, Load};
use maitred_transport::{SendError, send_datagram};

use super::{Driver, guarded};
use crate::conn::Conn;
use crate::node::NodeHandler;

impl<H: NodeHandler> Driver<H> {
    /// Sends it with the load, perhaps in vain.
    pub(super) fn keep_alive(&self, mut message: KeepAlive, by_stream: bool) {
        let attached = self.shared.agent().attached();
        let connected = attached.and_then(|_| self.attached.clone());
        let Some(conn) = connected.or_else(|| self.shared.caller.pool.connected()) else {
            return;
        };
        let load = guarded("load", || self.handler.load()).flatten();
        message.load = load.map(|load| self.within_bounds(load));
        let sent = match by_stream {
            false => self.by_datagram(&conn, &message),
            true => conn.keep_alive(&message),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a keep-alive was not sent");
        }
    }

    fn by_datagram(&self, conn: &Conn, message: &KeepAlive) -> Result<(), SendError> {
        if conn.connection.max_datagram_size().is_none() {
            return conn.keep_alive(message);
        }
        let sent = send_datagram(&conn.connection, message.sequence, message);
        if sent != Err(SendError::Full) || message.load.is_none() {
            return sent;
        }
        self.warn_of_load("does not fit a packet; use fewer or shorter counters");
        let bare = KeepAlive {
            load: None,
            ..message.clone()
        };
        send_datagram(&conn.connection, bare.sequence, &bare)
    }

    /// A host does not take a keep-alive with a load out of bounds, and the lease would be lost.
    fn within_bounds(&self, mut load: Load) -> Load {
        let counters = load.counters.len();
        load.counters
            .retain(|(name, _)| name.len() <= TEXT_BYTES_MAX);
        load.counters.truncate(COUNTERS_MAX);
        if load.counters.len() < counters {
            self.warn_of_load("has more than 16 counters, or names over 256 bytes; those are cut");
        }
        load
    }

    fn warn_of_load(&self, problem: &str) {
        if !self.load_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(node = %self.shared.name, "the load report {problem}");
        }
    }
}

//! Connections for calls to the other hosts: made when one is wanted, kept while they are used,
//! closed when nobody has called for a while.
//!
//! Holds: at most one a host; a connection to where a host no longer is, is not used again; none
//! outlives the endpoint, or the port would stay taken.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use maitred_protocol::{PeerHello, Purpose};
use maitred_transport::{CloseCode, Connection, Endpoint, close};
use tokio::time::Instant;

use super::dial::{DialError, dial};
use crate::peers::Myself;

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Keeps a connection from being closed as unused.
pub(crate) type InUse = Arc<()>;

#[derive(Debug)]
struct Line {
    quic: Connection,
    address: String,
    users: InUse,
    used: Instant,
}

type Slot = Arc<tokio::sync::Mutex<Option<Line>>>;

/// The connections, by host.
#[derive(Debug)]
pub(crate) struct Pool {
    endpoint: Endpoint,
    slots: Mutex<HashMap<u64, Slot>>,
}

impl Pool {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            slots: Mutex::default(),
        }
    }

    /// The connection to a host, made now unless there is one.
    ///
    /// # Errors
    /// [`DialError`].
    pub(crate) async fn line(
        &self,
        me: &Myself,
        host: u64,
        address: &str,
    ) -> Result<(Connection, InUse), DialError> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(host).or_default())
        };
        let mut line = slot.lock().await;
        if let Some(open) = line.as_mut()
            && open.address == address
            && open.quic.close_reason().is_none()
        {
            open.used = Instant::now();
            return Ok((open.quic.clone(), Arc::clone(&open.users)));
        }
        let hello = PeerHello {
            cluster: Some(me.cluster),
            host: me.host,
            instance: me.instance,
            to: host,
            build: me.build.clone(),
            level_max: me.level_max,
            purpose: Purpose::Bulk,
        };
        let (quic, _) = dial(&self.endpoint, address, &hello).await?;
        let users = InUse::default();
        *line = Some(Line {
            quic: quic.clone(),
            address: address.to_owned(),
            users: Arc::clone(&users),
            used: Instant::now(),
        });
        drop(line);
        tokio::spawn(watch(slot, quic.clone()));
        Ok((quic, users))
    }

    /// Forgets hosts that are gone; their connections close when they are not used.
    pub(crate) fn keep(&self, known: impl Fn(u64) -> bool) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|host, _| known(*host));
    }
}

/// Closes a connection when it is not used any more, and forgets it when it has ended.
async fn watch(slot: Slot, quic: Connection) {
    loop {
        let ended = tokio::select! {
            _ = quic.closed() => true,
            () = tokio::time::sleep(IDLE) => false,
        };
        let mut line = slot.lock().await;
        let ours = |line: &Line| line.quic.stable_id() == quic.stable_id();
        let unused =
            |line: &Line| Arc::strong_count(&line.users) == 1 && line.used.elapsed() >= IDLE;
        match line.as_ref() {
            Some(open) if ours(open) && (ended || unused(open)) => *line = None,
            Some(open) if ours(open) => continue,
            // Another has taken its place: the host has moved.
            _ => {}
        }
        drop(line);
        if !ended {
            close(&quic, CloseCode::Done, "nothing more is asked");
        }
        return;
    }
}

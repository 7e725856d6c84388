//! What the parts of one running host share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use maitred_protocol::{Notice, Response, Status, Unavailable};
use maitred_replica::Answer;
use maitred_sandbox::{Lanes, Sandbox, Shadows};
use tokio::sync::{Semaphore, watch};

use crate::bulk::Bulk;
use crate::by_name::ByName;
use crate::callback_runner::Runner;
use crate::critical::Alarm;
use crate::fence_runner::Examiner;
use crate::guard_watch::Guards;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::module_service::Modules;
use crate::nodes::Nodes;
use crate::peers::Peers;
use crate::replay::Replays;
use crate::router::Router;

/// Uploads that are being received at a time, on all connections: each holds its bytes.
pub(crate) const UPLOADS_MAX: usize = 8;
/// Uploads that are being looked at by the sandbox at a time.
pub(crate) const INSPECTIONS_MAX: usize = 2;

/// Who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leader {
    /// Its number; none while there is no leader, or it is not known.
    pub(crate) host: Option<u64>,
    /// Its address, when known.
    pub(crate) address: Option<String>,
    pub(crate) term: u64,
    /// Whether it is this host, and it serves.
    pub(crate) serving: bool,
}

impl Leader {
    /// As clients are told.
    pub(crate) fn notice(&self) -> Notice {
        Notice::Leader {
            host: self.host,
            address: self.address.clone(),
            term: self.term,
        }
    }
}

/// One host's parts. None of them knows how it was started.
pub(crate) struct Host {
    pub(crate) build: String,
    pub(crate) number: u64,
    pub(crate) upload_bytes: u64,
    /// How long answers under way may take when the host shuts down.
    pub(crate) patience: Duration,
    pub(crate) started: Instant,
    pub(crate) alarm: Alarm,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) router: Arc<Router>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) modules: Arc<Modules>,
    pub(crate) runner: Runner,
    pub(crate) examiner: Examiner,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) lanes: Lanes,
    pub(crate) shadows: Arc<Shadows>,
    pub(crate) guards: Guards,
    pub(crate) replays: Arc<Replays>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) bulk: Arc<Bulk>,
    /// Who leads, as far as this host knows.
    pub(crate) leader: watch::Sender<Leader>,
    /// Permits for [`UPLOADS_MAX`].
    pub(crate) uploads: Semaphore,
    /// Permits for [`INSPECTIONS_MAX`].
    pub(crate) inspections: Semaphore,
    /// Held by an activation, a rollback or the beginning of a shadow of a module: one at a time.
    pub(crate) activations: ByName,
    /// True once the host has caught up with a leader and its modules are ready.
    pub(crate) ready: watch::Sender<bool>,
    /// True once the host is shutting down.
    pub(crate) stopping: watch::Sender<bool>,
    /// True once the host is shutting down and leads no more: its peers need it no longer.
    pub(crate) handed_over: watch::Sender<bool>,
    /// Whether the log cannot be written for want of room.
    pub(crate) disk_full: Arc<AtomicBool>,
}

impl Host {
    /// As the client will see it, with what only the server knows.
    pub(crate) fn spell_out(&self, answer: Answer) -> Response {
        let mut response = answer.into_response();
        if let Response::Status(status) = &mut response {
            self.complete(status);
        }
        response
    }

    fn complete(&self, status: &mut Status) {
        status.uptime_ms = self.started.elapsed().as_millis() as u64;
        status.unavailable_modules = self.modules.unavailable();
        status.fallbacks = self.metrics.verdicts.fallbacks();
        status.bypassed_modules = self.lanes.bypassed();
        if self.disk_is_full() {
            let full = "the disk is full: nothing can be written until there is room";
            status.shedding = Some(full.to_owned());
        }
    }

    pub(crate) fn disk_is_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// The answer to whoever wants what only the leader can do, when that is another host.
    pub(crate) fn leads_elsewhere(&self) -> Option<Unavailable> {
        let leader = self.leader.borrow();
        let elsewhere = leader.host.is_some_and(|host| host != self.number);
        elsewhere.then(|| Unavailable::NotLeader {
            leader: leader.address.clone(),
        })
    }

    /// Waits until the host shuts down.
    pub(crate) async fn stopping(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives in `self`.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    /// Waits until the host shuts down and its peers need it no longer.
    pub(crate) async fn peers_end(&self) {
        let mut handed_over = self.handed_over.subscribe();
        // As above.
        let _ = handed_over.wait_for(|handed_over| *handed_over).await;
    }
}

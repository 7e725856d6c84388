//! The threads of a host: what each is given, and the order in which they end.
//!
//! The replica's thread holds the ways to all others, so they end after it, each when it has done
//! what was asked before.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use maitred_replica::Replica;
use tokio::sync::mpsc;

use crate::boot::Opened;
use crate::config::ServerConfig;
use crate::decision_store::decision_store;
use crate::host::Host;
use crate::journal::Journal;
use crate::lease_watch::LeaseWatch;
use crate::node_service;
use crate::recorder::recorder;
use crate::replica_loop::ReplicaLoop;
use crate::snapshot_thread::SnapshotWriter;
use crate::storage_thread::LogWriter;

/// Starts all of them; those that were started before an error end when the inbox is closed.
/// `log_stopping` tells the log's thread not to wait for room on a full disk any more.
///
/// # Errors
/// When the system gives no more threads.
pub(crate) fn start(
    config: &ServerConfig,
    host: &Arc<Host>,
    opened: Opened,
    replica: Replica,
    tick_us: u64,
    log_stopping: &Arc<AtomicBool>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let alarm = &host.alarm;
    let inbox = &host.inbox;
    let metrics = &host.metrics;
    let (log, log_jobs) = channel();
    let (snapshots, snapshot_jobs) = channel();
    let router = Arc::clone(&host.router);
    let (decisions, keeper) = decision_store(
        opened.decisions,
        router,
        Arc::clone(metrics),
        &host.bulk,
        &host.replays,
    );
    let (recorder, writer) = opened
        .inputs
        .map(|inputs| recorder(inputs, metrics))
        .unzip();
    if let Some(recorder) = &recorder {
        host.replays.set_recorder(recorder);
    }
    let (acks, ack_turns) = mpsc::channel(node_service::ACK_TURNS_MAX);
    tokio::spawn(node_service::acknowledge(Arc::clone(host), ack_turns));
    let replica_loop = ReplicaLoop {
        host: Arc::clone(host),
        replica,
        tick_us,
        log,
        snapshots,
        decisions,
        recorder,
        acks,
        leases: LeaseWatch::default(),
        journal: Journal::default(),
        runs: 0,
        others: Vec::new(),
    };
    let log_writer = LogWriter {
        hard_state: opened.hard_state,
        log: opened.log,
        peers: Arc::clone(&host.peers),
        jobs: log_jobs,
        space: opened.dir.space_monitor(config.space_limits()),
        inbox: Arc::clone(inbox),
        metrics: Arc::clone(metrics),
        alarm: alarm.clone(),
        disk_full: Arc::clone(&host.disk_full),
        stopping: Arc::clone(log_stopping),
    };
    let snapshot_writer = SnapshotWriter {
        snapshots: opened.snapshots,
        jobs: snapshot_jobs,
        inbox: Arc::clone(inbox),
        metrics: Arc::clone(metrics),
    };
    let modules = Arc::clone(&host.modules);
    // Whoever writes holds the lock, so that it is free only when the last one has ended.
    let dir = Arc::new(opened.dir);
    let (log_dir, snapshot_dir) = (Arc::clone(&dir), Arc::clone(&dir));
    let (decision_dir, input_dir) = (Arc::clone(&dir), dir);
    let recording = writer.map(|writer| {
        let run = move || {
            writer.run();
            drop(input_dir);
        };
        alarm.thread("inputs", ends(run))
    });
    let threads = [
        alarm.thread("replica", move || replica_loop.run()),
        alarm.thread("log", move || {
            let ended = log_writer.run();
            drop(log_dir);
            ended
        }),
        alarm.thread(
            "snapshots",
            ends(move || {
                snapshot_writer.run();
                drop(snapshot_dir);
            }),
        ),
        alarm.thread(
            "decisions",
            ends(move || {
                keeper.run();
                drop(decision_dir);
            }),
        ),
        alarm.thread("modules", ends(move || modules.run())),
    ];
    threads.into_iter().chain(recording).collect()
}

/// A thread whose end is no reason to stop the host; its panic is.
fn ends(
    run: impl FnOnce() + Send + 'static,
) -> impl FnOnce() -> Result<(), String> + Send + 'static {
    move || {
        run();
        Ok(())
    }
}

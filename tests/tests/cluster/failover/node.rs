//! Game nodes in a process of their own, and what a test does to that process.
//!
//! Holds: its end is seen at once, by a thread that waits for it; it does not outlive the test.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::ledger::boot_us;
use crate::group::{LOOK, PATIENCE};

/// What a process is started with.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) names: Vec<String>,
    pub(super) ttl_ms: u64,
    pub(super) kill_bound_ms: u64,
    pub(super) capacity: u32,
    /// How long a stop takes; none for ever.
    pub(super) stop_ms: Option<u64>,
    pub(super) watchdog: bool,
}

impl Spec {
    /// One node of so much capacity, with a short lease, that stops what it is told to at once.
    pub(super) fn node(name: &str, capacity: u32) -> Self {
        Self {
            names: vec![name.to_owned()],
            ttl_ms: 1_000,
            kill_bound_ms: 1_000,
            capacity,
            stop_ms: Some(0),
            watchdog: false,
        }
    }
}

/// A process with its nodes.
pub(super) struct GameNode {
    pub(super) spec: Spec,
    pub(super) pid: u32,
    /// Where it calls from.
    pub(super) sources: BTreeSet<SocketAddr>,
    /// When it was seen to be dead, and how it ended.
    end: Arc<Mutex<Option<(u64, ExitStatus)>>>,
    log: PathBuf,
    /// It ends when this is closed.
    _input: Option<ChildStdin>,
}

impl GameNode {
    pub(super) fn spawn(folder: &Path, endpoints: &[String], spec: Spec) -> Self {
        let path = |name: &str| folder.join(name);
        let log = path(&format!("{}.log", spec.names[0]));
        let words = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let stop = spec.stop_ms.map_or("never".to_owned(), |ms| ms.to_string());
        let mut child = Command::new(env!("CARGO_BIN_EXE_game_node"))
            .args(["--endpoints", &endpoints.join(",")])
            .arg("--ca")
            .arg(path("ca.pem"))
            .arg("--cert")
            .arg(path("client.pem"))
            .arg("--key")
            .arg(path("client.key"))
            .arg("--ledger")
            .arg(path("ledger"))
            .args(["--names", &spec.names.join(",")])
            .args(["--ttl-ms", &spec.ttl_ms.to_string()])
            .args(["--kill-bound-ms", &spec.kill_bound_ms.to_string()])
            .args(["--capacity", &spec.capacity.to_string()])
            .args(["--stop-ms", &stop])
            .args(["--watchdog", if spec.watchdog { "yes" } else { "no" }])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(words)
            .spawn()
            .unwrap();
        let end = Arc::new(Mutex::new(None));
        let this = Self {
            spec,
            pid: child.id(),
            sources: BTreeSet::new(),
            end: Arc::clone(&end),
            log,
            _input: child.stdin.take(),
        };
        std::thread::spawn(move || wait(child, &end));
        this
    }

    /// When it was seen to be dead.
    pub(super) fn died_us(&self) -> Option<u64> {
        self.end.lock().unwrap().map(|(at_us, _)| at_us)
    }

    /// Does not wait for what comes of it.
    pub(super) fn signal(&self, signal: Signal) {
        // The lock keeps the number from being given to another process meanwhile.
        let end = self.end.lock().unwrap();
        assert!(end.is_none(), "{:?} has ended: {end:?}", self.spec.names);
        let pid = Pid::from_raw(self.pid.cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some((_, status)) = *self.end.lock().unwrap() {
                return status;
            }
            let late = begun.elapsed() > PATIENCE;
            assert!(!late, "{:?} do not end\n{}", self.spec.names, self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Kills it as nothing can be prepared for: SIGKILL. When it returns, it is dead.
    pub(super) async fn kill(&self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// What it has said.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn wait(mut child: Child, end: &Mutex<Option<(u64, ExitStatus)>>) {
    // Its number stays its own until it has been waited for, which is done under the lock.
    let pid = Pid::from_child(&child);
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    while rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).is_err() {}
    let at_us = boot_us();
    let mut end = end.lock().unwrap();
    *end = Some((at_us, child.wait().unwrap()));
}

impl Drop for GameNode {
    fn drop(&mut self) {
        let end = self.end.lock().unwrap();
        if end.is_none() {
            let pid = Pid::from_raw(self.pid.cast_signed()).unwrap();
            let _ = kill_process(pid, Signal::KILL);
        }
        drop(end);
        if std::thread::panicking() {
            println!("--- {:?} ---\n{}", self.spec.names, self.log());
        }
    }
}

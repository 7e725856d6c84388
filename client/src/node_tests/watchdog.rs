//! The watchdog, in processes of its own: it ends them.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use maitred_protocol::ClientId;

use super::*;
use crate::Watchdog;

/// Says to this program, run again, which part of these tests it is to play.
const ROLE: &str = "MAITRED_TEST_WATCHDOG_ROLE";
/// How a child ends that was not aborted.
const SURVIVED: i32 = 42;
/// Longest that a child may live; then it ends with another code.
const CHILD_MAX: Duration = Duration::from_secs(60);

/// Runs `test` of this program again, in its role.
fn child(test: &str, role: &str) -> Output {
    let this = std::env::current_exe().unwrap();
    let path = format!("node_tests::watchdog::{test}");
    let mut child = Command::new(this);
    child.args(["--exact", path.as_str(), "--nocapture", "--test-threads=1"]);
    child.env(ROLE, role).output().unwrap()
}

fn is_aborted(output: &Output) -> bool {
    #[cfg(unix)]
    let aborted = {
        use std::os::unix::process::ExitStatusExt;
        const SIGABRT: i32 = 6;
        output.status.signal() == Some(SIGABRT)
    };
    #[cfg(not(unix))]
    let aborted = !output.status.success() && output.status.code() != Some(SURVIVED);
    let said = String::from_utf8_lossy(&output.stderr);
    aborted && said.contains("maitred: node eu-1 lost its lease") && said.contains("aborting")
}

/// A game of which something is stuck.
#[derive(Default)]
struct Stuck {
    in_stop: bool,
    /// From the first start on.
    in_load: bool,
    started: AtomicBool,
}

impl NodeHandler for Stuck {
    async fn spawn(&self, _: SpawnRequest) -> Result<Spawned, SpawnError> {
        self.started.store(true, Ordering::Release);
        Ok(Spawned::default())
    }

    async fn stop(&self, _: ProcessKey, _: Incarnation) {
        if self.in_stop {
            std::future::pending().await
        }
    }

    fn load(&self) -> Option<Load> {
        while self.in_load && self.started.load(Ordering::Acquire) {
            // The node's own thread goes no further.
            std::thread::park();
        }
        None
    }
}

#[tokio::main(flavor = "current_thread")]
async fn live(game: Stuck, watchdog: Watchdog) {
    let lived = tokio::time::timeout(CHILD_MAX, node(game, watchdog)).await;
    std::process::exit(if lived.is_ok() { SURVIVED } else { 1 });
}

/// Runs a process on a node whose lease nobody renews, until the node has come back and been kept for a
/// while.
async fn node(game: Stuck, watchdog: Watchdog) {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let node = client.node("eu-1").ttl(Duration::from_secs(1));
    let node = node
        .kill_bound(Duration::from_millis(500))
        .watchdog(watchdog);
    let (_node, ()) = tokio::join!(node.start(game), async {
        let (peer, id, _) = host.request().await;
        peer.reply(id, &registered(1, vec![]));
        peer.command(1, &start("a", 5));
    });
    let mut renewed = 0;
    while renewed < 12 {
        tokio::select! {
            Some((peer, id, request)) = host.requests.recv() => match request {
                Request::OpenSession => peer.reply(id, &Response::Session(ClientId(1))),
                Request::AttachNode { epoch, inventory, .. } => {
                    peer.reply(id, &registered(epoch.0, vec![Verdict::Keep; inventory.len()]));
                }
                Request::RegisterNode(_, node) => {
                    peer.reply(id, &registered(9, vec![Verdict::Stop; node.inventory.len()]));
                }
                _ => {}
            },
            Some((peer, keep_alive)) = host.keep_alives.recv() => {
                if keep_alive.epoch == NodeEpoch(9) {
                    peer.ack(&keep_alive, true);
                    renewed += 1;
                }
            }
            Some((peer, keep_alive)) = host.streamed.recv() => {
                if keep_alive.epoch == NodeEpoch(9) {
                    peer.ack_by_stream(&keep_alive);
                    renewed += 1;
                }
            }
        }
    }
}

#[test]
fn a_game_that_does_not_stop_in_time_is_aborted_if_that_is_wanted() {
    let stuck = Stuck {
        in_stop: true,
        ..Stuck::default()
    };
    match std::env::var(ROLE).as_deref() {
        Ok("abort") => return live(stuck, Watchdog::Abort),
        Ok(_) => return live(stuck, Watchdog::default()),
        Err(_) => {}
    }
    let test = "a_game_that_does_not_stop_in_time_is_aborted_if_that_is_wanted";
    let aborted = child(test, "abort");
    assert!(is_aborted(&aborted), "{aborted:?}");
    let survived = child(test, "off");
    assert_eq!(survived.status.code(), Some(SURVIVED), "{survived:?}");
}

#[test]
fn a_node_whose_own_thread_is_stuck_is_aborted_too() {
    if std::env::var(ROLE).is_ok() {
        let stuck = Stuck {
            in_load: true,
            ..Stuck::default()
        };
        return live(stuck, Watchdog::Abort);
    }
    let aborted = child("a_node_whose_own_thread_is_stuck_is_aborted_too", "abort");
    assert!(is_aborted(&aborted), "{aborted:?}");
}

#[test]
fn a_game_that_stops_in_time_is_left_alone() {
    if std::env::var(ROLE).is_ok() {
        return live(Stuck::default(), Watchdog::Abort);
    }
    let survived = child("a_game_that_stops_in_time_is_left_alone", "abort");
    assert_eq!(survived.status.code(), Some(SURVIVED), "{survived:?}");
}

//! A small game node: registers, starts what it is asked to start, and prints what happens.
//!
//! `cargo run -p maitred-client --example game_node -- HOST:PORT CA CERT KEY [NAME]`, with the files
//! that `maitred cert init --dir certs` makes:
//!
//! `cargo run -p maitred-client --example game_node -- 127.0.0.1:7600 certs/ca.pem certs/client.pem certs/client.key`

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use maitred_client::protocol::{Incarnation, Load, ProcessKey};
use maitred_client::{Client, Identity, NodeHandler, SpawnError, SpawnRequest, Spawned, Watchdog};

/// Rooms that this node has room for.
const ROOMS_MAX: u32 = 100;

#[derive(Default)]
struct Rooms(AtomicU32);

impl NodeHandler for Rooms {
    async fn spawn(&self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        if self.0.load(Ordering::Relaxed) >= ROOMS_MAX {
            return Err(SpawnError::Busy("all rooms are taken".to_owned()));
        }
        let room = self.0.fetch_add(1, Ordering::Relaxed);
        println!(
            "start {} (incarnation {})",
            request.key, request.incarnation
        );
        Ok(Spawned {
            pid: format!("room-{room}"),
            share: Vec::new(),
        })
    }

    async fn stop(&self, key: ProcessKey, incarnation: Incarnation) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        println!("stop {key} (incarnation {incarnation})");
    }

    fn lease_lost(&self) {
        println!("the lease is lost: all rooms close");
    }

    fn load(&self) -> Option<Load> {
        let rooms = self.0.load(Ordering::Relaxed) as f32;
        Some(Load {
            cpu: rooms / ROOMS_MAX as f32,
            memory_free_mib: 1_024,
            counters: vec![("rooms".to_owned(), rooms)],
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("game_node: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [host, ca, cert, key, rest @ ..] = args.as_slice() else {
        return Err(
            "usage: game_node HOST:PORT certs/ca.pem certs/client.pem certs/client.key [NAME]"
                .into(),
        );
    };
    let name = rest.first().map_or("example-1", String::as_str);
    let identity = Identity::from_files(Path::new(ca), Path::new(cert), Path::new(key))?;
    let client = Client::builder()
        .endpoint(host)
        .identity(identity)
        .connect()
        .await?;
    let node = client.node(name).capacity(ROOMS_MAX).label("zone", "home");
    // Its rooms close within half a second of a lost lease, or the watchdog ends the whole program: what
    // others may build on. See docs/GUARANTEES.md.
    let node = node
        .ttl(Duration::from_secs(3))
        .kill_bound(Duration::from_millis(500))
        .watchdog(Watchdog::Abort);
    let node = node
        .address("game.example:7777")
        .start(Rooms::default())
        .await?;
    println!("{} is registered; Ctrl-C ends it", node.name());
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            _ = &mut interrupted => break,
            // Another program has taken the name: this one must not go on.
            ended = node.ended() => return Ok(ended?),
            _ = second.tick() => {
                // A game asks this before it acts: a look at the clock, no lock, no network. Before it
                // acts on something outside, it can ask the registry: `client.check(&key, life)`.
                if !node.lease_ok() {
                    println!("no lease: nothing may act now");
                }
            }
        }
    }
    node.shutdown().await;
    client.close().await;
    Ok(())
}

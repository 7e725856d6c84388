//! Game nodes as a process of their own, for what only a kernel can show: being killed, stopped for a
//! while, cut off. What they do goes to a ledger that the test reads: a line each, `TIME PID NODE EVENT`,
//! where TIME is microseconds of the boot-time clock and EVENT one of `ready EPOCH`,
//! `start INCARNATION KEY`, `stopping …`, `stopped …`, `lease_lost -`, `ended SUPERSEDED`.
//!
//! Holds: a start is written before it is answered, a stop when it is done, each in one piece, behind all
//! that was written before by any process. It ends with whoever started it, whose end it sees at its standard input; and when all of its
//! nodes have ended, with 3 if one was superseded.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use maitred_client::{
    Client, Error, Identity, NodeHandle, NodeHandler, SpawnError, SpawnRequest, Spawned, Watchdog,
};
use maitred_protocol::{Incarnation, ProcessKey, Rejection};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;

const USAGE: &str =
    "game_node --endpoints A,B,C --ca FILE --cert FILE --key FILE --ledger FILE --names A,B,C
  [--ttl-ms N] [--kill-bound-ms N] [--capacity N] [--stop-ms N|never] [--watchdog yes|no]";
/// How long hosts may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);
/// The exit code of a process of which a node was superseded.
const SUPERSEDED: u8 = 3;

#[derive(Default)]
struct Args {
    endpoints: Vec<String>,
    files: [PathBuf; 3],
    ledger: PathBuf,
    names: Vec<String>,
    ttl_ms: u64,
    kill_bound_ms: u64,
    capacity: u32,
    /// How long a stop takes; none for ever.
    stop: Option<Duration>,
    watchdog: Watchdog,
}

impl Args {
    fn parse() -> Option<Self> {
        let mut args = Self {
            ttl_ms: 3_000,
            kill_bound_ms: 1_000,
            capacity: 1_000,
            stop: Some(Duration::ZERO),
            ..Self::default()
        };
        let list = |value: String| value.split(',').map(str::to_owned).collect();
        let mut words = std::env::args().skip(1);
        while let Some(flag) = words.next() {
            let value = words.next()?;
            match flag.as_str() {
                "--endpoints" => args.endpoints = list(value),
                "--ca" => args.files[0] = value.into(),
                "--cert" => args.files[1] = value.into(),
                "--key" => args.files[2] = value.into(),
                "--ledger" => args.ledger = value.into(),
                "--names" => args.names = list(value),
                "--ttl-ms" => args.ttl_ms = value.parse().ok()?,
                "--kill-bound-ms" => args.kill_bound_ms = value.parse().ok()?,
                "--capacity" => args.capacity = value.parse().ok()?,
                "--stop-ms" if value == "never" => args.stop = None,
                "--stop-ms" => args.stop = Some(Duration::from_millis(value.parse().ok()?)),
                "--watchdog" if value == "yes" => args.watchdog = Watchdog::Abort,
                "--watchdog" if value == "no" => args.watchdog = Watchdog::Off,
                _ => return None,
            }
        }
        (!args.names.is_empty()).then_some(args)
    }
}

/// What a node does: it keeps the ledger.
#[derive(Clone)]
struct Game {
    name: String,
    pen: Arc<File>,
    stop: Option<Duration>,
}

impl Game {
    /// A node that cannot say what it does must not do it.
    fn write(&self, event: &str) {
        let time = clock_gettime(ClockId::Boottime);
        let at_us = time.tv_sec * 1_000_000 + time.tv_nsec / 1_000;
        let line = format!("{at_us} {} {} {event}\n", std::process::id(), self.name);
        if (&*self.pen).write(line.as_bytes()).ok() != Some(line.len()) {
            std::process::abort();
        }
    }
}

impl NodeHandler for Game {
    async fn spawn(&self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        let life = request.incarnation;
        self.write(&format!("start {life} {}", request.key));
        Ok(Spawned {
            pid: format!("{}-{life}", self.name),
            share: Vec::new(),
        })
    }

    async fn stop(&self, key: ProcessKey, incarnation: Incarnation) {
        self.write(&format!("stopping {incarnation} {key}"));
        match self.stop {
            Some(Duration::ZERO) => {}
            Some(takes) => tokio::time::sleep(takes).await,
            None => std::future::pending().await,
        }
        self.write(&format!("stopped {incarnation} {key}"));
    }

    fn lease_lost(&self) {
        self.write("lease_lost -");
    }
}

async fn connect(args: &Args) -> Result<Client, String> {
    let mut pem = Vec::new();
    for path in &args.files {
        let read = std::fs::read(path);
        pem.push(read.map_err(|error| format!("{}: {error}", path.display()))?);
    }
    let identity = Identity::from_pem(&pem[0], &pem[1], &pem[2]);
    let client = Client::builder()
        .endpoints(args.endpoints.iter().cloned())
        .identity(identity.map_err(|error| error.to_string())?)
        .connect_timeout(PATIENCE)
        .request_timeout(PATIENCE)
        .connect();
    client.await.map_err(|error| error.to_string())
}

async fn start(args: &Args, client: &Client, game: Game) -> Result<NodeHandle, String> {
    let node = client
        .node(&game.name)
        .address("127.0.0.1:1")
        .capacity(args.capacity)
        .ttl(Duration::from_millis(args.ttl_ms))
        .kill_bound(Duration::from_millis(args.kill_bound_ms))
        .watchdog(args.watchdog)
        .start(game.clone())
        .await
        .map_err(|error| format!("{}: {error}", game.name))?;
    if let Some(epoch) = node.epoch() {
        game.write(&format!("ready {epoch}"));
    }
    Ok(node)
}

/// Runs nodes until all have ended; whether one was superseded.
async fn run(args: Args) -> Result<bool, String> {
    let client = connect(&args).await?;
    let pen = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&args.ledger);
    let pen = pen.map_err(|error| format!("{}: {error}", args.ledger.display()))?;
    let (args, pen) = (Arc::new(args), Arc::new(pen));
    let mut nodes = JoinSet::new();
    for name in args.names.clone() {
        let game = Game {
            name,
            pen: Arc::clone(&pen),
            stop: args.stop,
        };
        let (args, client) = (Arc::clone(&args), client.clone());
        nodes.spawn(async move {
            let node = start(&args, &client, game.clone()).await?;
            let how = node.ended().await;
            let superseded = matches!(how, Err(Error::Rejected(Rejection::Superseded { .. })));
            game.write(&format!("ended {superseded}"));
            Ok::<_, String>(superseded)
        });
    }
    let mut superseded = false;
    while let Some(ended) = nodes.join_next().await {
        superseded |= ended.map_err(|error| error.to_string())??;
    }
    Ok(superseded)
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let Some(args) = Args::parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    std::thread::spawn(|| {
        // Whatever comes, or that nothing can come any more.
        let _ = std::io::stdin().read(&mut [0; 1]);
        std::process::exit(1);
    });
    match run(args).await {
        Ok(true) => ExitCode::from(SUPERSEDED),
        Ok(false) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

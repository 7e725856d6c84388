//! `dev`: the whole product in one command, with nothing to configure. A host with a certificate
//! authority of its own, sample game nodes, types, a steady load, and a live table to play with.

mod fleet;
mod headless;
mod live;
mod rules;
mod stats;
mod view;
mod work;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use maitred_client::Client;

use crate::args::duration;
use crate::connect::Shell;
use crate::context::Published;
use crate::failure::{Exit, Failure};
use crate::host::{Embedded, Signals};
use crate::serve::{LogFormat, start_log};

use fleet::Fleet;
use rules::Rules;
use stats::Stats;
use work::Work;

const AFTER: &str = "\
Keys: up and down choose a node, k kills it as a crash would (it comes back after 10 s, or on k),
d drains it (its processes move) and d again takes it back, s puts the next selector in charge, e
explains the last placement, space pauses the load, q quits. With --hosts 3, l kills the host that
leads: watch the others elect a new one while the load goes on; it comes back after 5 s and catches up.

Other terminals of this user find the host without flags: try `maitred node ls` meanwhile.

Example: maitred dev
         maitred dev --hosts 3                       # a group that outlives one of its hosts
         maitred dev --headless --json --for 10s     # for scripts: one line of JSON
         maitred dev --hosts 3 --headless --for 30s --kill-leader 10s";

/// Try it: a host or three, sample nodes, a steady load, and a live table; nothing to configure
///
/// Everything is real: TLS with an authority made for the occasion, nodes that connect over QUIC
/// with the client library, the standard modules as uploaded components. The data is in a temporary
/// folder unless --data says otherwise. Without a terminal it behaves as with --headless.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Dev {
    /// Hosts, 1 to 5; three go on when one is lost, five when two are
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=5))]
    hosts: u16,
    /// Kill the host that leads this often, or when the last one killed is back after 5 s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    kill_leader: Option<Duration>,
    /// Sample nodes, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// Creates a second, 1 to 5000
    #[arg(long, value_name = "PER SECOND", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate: u32,
    /// How long a process lives on average
    #[arg(long, value_name = "TIME", default_value = "12s", value_parser = duration)]
    life: Duration,
    /// Keep the data in this folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The UDP port on the loopback address, further hosts on the next ones [default: 7600, or any when
    /// that is taken]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// No live table: a few lines and a summary. Swaps the selector every second
    #[arg(long)]
    headless: bool,
    /// With --headless: only the summary, as one line of JSON; the same as -o json
    #[arg(long)]
    json: bool,
    /// End after this time [default: on q, SIGINT or SIGTERM]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    limit: Option<Duration>,
    /// What is logged to stderr, when headless: error, warn, info, debug
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "error",
        env = "MAITRED_LOG",
        hide_env_values = true
    )]
    log: String,
}

/// Everything that runs while `dev` does.
struct World {
    embedded: Embedded,
    published: Option<Published>,
    client: Client,
    fleet: Fleet,
    rules: Rules,
    stats: Arc<Stats>,
    work: Work,
    started: Instant,
    /// How often the leader is killed, and when the next time is.
    killing: Option<(Duration, Instant)>,
}

impl Dev {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let json = self.json || shell.out.is_json();
        let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        let headless = self.headless || json || !terminal;
        if headless {
            start_log(&self.log, LogFormat::Text)?;
        }
        fleet::check(self.nodes, self.rate, self.life)?;
        if self.kill_leader.is_some() && self.hosts < 3 {
            let help = "use --hosts 3: a group goes on while most of its hosts are there";
            return Err(Failure::usage("--kill-leader needs three hosts", help));
        }
        let mut signals = Signals::new()?;
        let mut world = tokio::select! {
            world = World::start(self, shell) => world?,
            () = signals.next() => return Ok(()),
        };
        let end = self.limit.map(|span| Instant::now() + span);
        let ended = if headless {
            headless::run(&mut world, end, &mut signals, json).await
        } else {
            live::run(&mut world, end, &mut signals).await
        };
        let summary = tokio::select! {
            stopped = world.stop() => stopped?,
            () = signals.next() => return Err(interrupted()),
        };
        ended?;
        if headless {
            headless::finish(&summary, json)
        } else {
            // Whoever killed nodes by hand has seen what failed.
            summary.show()
        }
    }
}

/// A second signal, while the creates under way are waited for.
fn interrupted() -> Failure {
    let message = "ended by a second signal before everything was closed";
    let help =
        "nothing of it was to be kept, unless --data was given: the next start recovers that";
    Failure::new(Exit::Other, "interrupted", message, help)
}

impl World {
    async fn start(dev: &Dev, shell: &Shell) -> Result<Self, Failure> {
        let started = Instant::now();
        let embedded = Embedded::start(dev.data.as_deref(), dev.port, dev.hosts).await?;
        embedded.ready().await?;
        let client = shell.connect(&embedded.target).await?;
        embedded.settled(&client).await?;
        let rules = Rules::install(&client).await?;
        let fleet = Fleet::start(&client, dev).await?;
        let stats = Arc::new(Stats::new());
        let work = Work::start(client.clone(), Arc::clone(&stats), dev.rate);
        let published = Published::new(
            &embedded.target.endpoints,
            &embedded.ca,
            &embedded.client.cert_pem,
            &embedded.client.key_pem,
        );
        // Without it the other terminals need flags; that is no reason not to start.
        let published = published
            .inspect_err(|failure| tracing::warn!("other terminals will need flags: {failure}"))
            .ok();
        Ok(Self {
            embedded,
            published,
            client,
            fleet,
            rules,
            stats,
            work,
            started,
            killing: dev.kill_leader.map(|span| (span, Instant::now() + span)),
        })
    }

    /// What has to be seen to now and then: who leads, whose time to come back or to be killed has
    /// come. What there is to say, if there is something.
    async fn tick(&mut self) -> Option<String> {
        // Never so many that the rest could not go on.
        let whole = self.embedded.hosts().iter().all(|host| host.is_up());
        let said = match &mut self.killing {
            Some((span, next)) if whole && *next <= Instant::now() => {
                *next = Instant::now() + *span;
                Some(self.embedded.kill_leader())
            }
            _ => None,
        };
        let host = self.embedded.tick().await;
        let node = self.fleet.tick().await;
        host.or(node).or(said)
    }

    /// Where everything is, in a few lines.
    fn banner(&self) -> Vec<String> {
        let hosts = self.embedded.hosts();
        let other = if hosts.iter().any(|host| host.address.port() == 7600) {
            ""
        } else {
            " (7600 is not used)"
        };
        let addresses: Vec<String> = hosts
            .iter()
            .map(|host| format!("quic://{}", host.address))
            .collect();
        let count = match hosts.len() {
            1 => "one host".to_owned(),
            more => format!("{more} hosts"),
        };
        let context = self.published.as_ref().map_or_else(
            || "none: other terminals need flags".to_owned(),
            |one| match one.name.as_str() {
                "dev" => "dev: other terminals need no flags, try `maitred node ls`".to_owned(),
                name => format!("{name}: other terminals need --context {name}"),
            },
        );
        vec![
            format!(
                "maitred {} dev: {count}, sample nodes and load; not for production",
                env!("CARGO_PKG_VERSION")
            ),
            format!(
                "registry  {}{other}, TLS with a CA made for this run",
                addresses.join(" ")
            ),
            format!("context   {context}"),
            format!("data      {}", self.embedded.data.display()),
        ]
    }

    /// Ends everything in order: the load, the nodes, the host.
    async fn stop(mut self) -> Result<headless::Summary, Failure> {
        let led = self.embedded.hosts().iter().any(|host| host.leads());
        self.work.stop(led).await;
        let summary = headless::Summary::new(&self).await;
        drop(self.published);
        self.fleet.stop().await;
        self.client.close().await;
        self.embedded.stop().await?;
        Ok(summary)
    }
}

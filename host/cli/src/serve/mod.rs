//! `serve`: one host, in the foreground, until a signal ends it.
//!
//! Settings come from a TOML file, then the environment, then flags; later ones win.

mod failover;
mod group;
mod modules;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use maitred_server::{Began, Running, Server, ServerConfig};
use maitred_transport::Identity;
use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::host::{self, Signals};
use failover::Failover;
use group::Group;
use modules::Modules;

/// A test reads it as a configuration and compares it with the defaults.
const FILE: &str = r#"
  data_dir = "/var/lib/maitred"     # must be given
  # name = "a"                      # of a new data directory; otherwise the machine's
  listen = "127.0.0.1:7600"
  # advertise = "10.0.0.1:7600"     # where others reach it, if that is not listen
  join = []                         # hosts of a cluster that a new data directory is to join
  # http = "127.0.0.1:7601"         # off unless given
  standard_modules = true           # a new group gets the standard selectors and `start`
  allow_large_modules = false       # true: 24 MiB instead of 4 MiB
  # require_signed = "keys.pub"     # take only modules that one of these keys has signed
  connections_max = 20000           # at a time
  shutdown_ms = 5000                # how long answers under way may take at shutdown
  accept_damaged_tail = false       # true: start although acknowledged changes may be lost
  decisions_bytes = 67108864        # decisions kept for `explain`
  inputs_bytes = 67108864           # inputs of decisions kept for `module replay`; 0 for none
  lease_reads = false               # true: reads rely on the hosts' clocks
  # level_max = 1                   # the newest commands to take part in; docs/UPGRADE.md
  bulk_bytes_per_s = 268435456      # of snapshots for other hosts
  [raft]
  tick_ms = 20                      # milliseconds; the unit of the next two
  heartbeat_ticks = 1               # between two signs of life of the leader
  election_ticks = 10               # without one: an election, within twice that
  disk_slow_ms = 1000               # a leader whose disk takes longer hands over
  [failover]                        # processes of lost nodes that are created again:
  recreate_per_second = 10000       # in the whole group
  recreate_per_node_per_second = 1000
  mass_loss_percent = 40            # more lost nodes than this pause that; 100 for never
  mass_loss_window_ms = 30000       # lost within this
  mass_loss_pause_ms = 60000
  [tls]                             # must be given
  ca = "ca.pem"
  cert = "host.pem"
  key = "host.key"
  [snapshot]                        # one is taken after this much of log
  entries = 200000
  bytes = 134217728
  [disk]
  low_bytes = 268435456             # creates are shed below this much free space,
  low_percent = 2                   # or below this part of the disk;
  full_bytes = 33554432             # nothing is written below this
  [guests]                          # what modules may use
  memory_bytes = 33554432           # an instance
  select_ms = 5                     # a decision
  describe_ms = 100                 # making an instance
  spawn_ms = 50                     # computing in one spawn
  examine_ms = 50                   # computing in one question to a fence
  callback_instances = 1024         # callbacks at work at a time; of one, half of them
  fence_instances = 32              # fences at work at a time; of one, half of them
  modules = 256                     # loaded at a time
  compiled_bytes = 1073741824       # of machine code kept on disk
"#;

fn after() -> String {
    format!(
        "\
Example: maitred cert init --dir certs
         maitred serve --data-dir data --ca certs/ca.pem --cert certs/host.pem \\
                       --key certs/host.key

Three hosts, each with the ca.pem of the group and a certificate of its own kind
(`maitred cert issue b --kind host`); the first one as above with --name a, the others:
         maitred serve --data-dir data --name b --listen 10.0.0.2:7600 \\
                       --join 10.0.0.1:7600 --ca ca.pem --cert b.pem --key b.key

Exit code 4: the cluster does not want this host (removed, name taken, another cluster); 7: the
certificates do not fit. Starting it again as it is cannot help then.

A configuration file with everything that can be set, and the defaults:
{FILE}"
    )
}

/// Run a host until SIGTERM or SIGINT; a second signal ends it at once
///
/// The host's certificate is given with --ca, --cert and --key. The file is read first, then the
/// environment, then the flags; later ones win.
#[derive(Debug, Args)]
#[command(after_long_help = after())]
pub(crate) struct Serve {
    /// A TOML file with settings
    #[arg(
        long,
        value_name = "FILE",
        env = "MAITRED_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    /// The folder for everything durable; made when it is not there
    #[arg(
        long,
        value_name = "DIR",
        env = "MAITRED_DATA_DIR",
        hide_env_values = true
    )]
    data_dir: Option<PathBuf>,
    /// The UDP address for clients and nodes; port 0 for any free one [default: 127.0.0.1:7600]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "MAITRED_LISTEN",
        hide_env_values = true
    )]
    listen: Option<SocketAddr>,
    /// The TCP address of /metrics, /livez and /readyz, which ask nobody who they are [default: none]
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "MAITRED_HTTP",
        hide_env_values = true
    )]
    http: Option<SocketAddr>,
    /// What is logged to stderr: error, warn, info, debug, trace, or a filter such as maitred_server=debug
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "MAITRED_LOG",
        hide_env_values = true
    )]
    log: String,
    /// What log lines look like
    #[arg(
        long,
        value_enum,
        default_value = "text",
        env = "MAITRED_LOG_FORMAT",
        hide_env_values = true
    )]
    log_format: LogFormat,
    #[command(flatten)]
    group: Group,
    #[command(flatten)]
    failover: Failover,
    #[command(flatten)]
    modules: Modules,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people
    Text,
    /// An object a line
    Json,
}

impl Serve {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        start_log(&self.log, self.log_format)?;
        let config = self.settings(shell)?;
        let data = config.data_dir.clone();
        let mut signals = Signals::new()?;
        let running = tokio::select! {
            started = Server::start(config) => started.map_err(host::not_started)?,
            () = signals.next() => return Ok(()),
        };
        tokio::select! {
            ready = running.ready() => ready.map_err(|failed| host::broken(&failed))?,
            () = signals.next() => return stop(running, &mut signals).await,
        }
        self.banner(shell, &running, &data)?;
        tokio::select! {
            () = signals.next() => stop(running, &mut signals).await,
            failed = running.failed() => Err(host::broken(&failed)),
        }
    }

    /// The file, then the environment and the flags, which the command line reads together.
    fn settings(&self, shell: &Shell) -> Result<ServerConfig, Failure> {
        let mut config = match &self.config {
            Some(path) => ServerConfig::from_file(path).map_err(host::unusable)?,
            None => ServerConfig::default(),
        };
        let global = &shell.global;
        if let Some(path) = &self.data_dir {
            config.data_dir = path.clone();
        }
        config.listen = self.listen.unwrap_or(config.listen);
        config.http = self.http.or(config.http);
        self.group.lay_over(&mut config);
        self.failover.lay_over(&mut config);
        self.modules.lay_over(&mut config);
        for (given, field) in [
            (&global.ca, &mut config.tls.ca),
            (&global.cert, &mut config.tls.cert),
            (&global.key, &mut config.tls.key),
        ] {
            if let Some(path) = given {
                *field = path.clone();
            }
        }
        config.build = concat!("maitred ", env!("CARGO_PKG_VERSION")).to_owned();
        config.validate().map_err(host::unusable)?;
        let tls = &config.tls;
        Identity::from_files(&tls.ca, &tls.cert, &tls.key)?.check_host()?;
        Ok(config)
    }

    fn banner(
        &self,
        shell: &Shell,
        running: &Running,
        data: &std::path::Path,
    ) -> Result<(), Failure> {
        let (address, http) = (running.local_addr(), running.http_addr());
        let body = json!({
            "address": address.to_string(),
            "http": http.map(|address| address.to_string()),
            "data_dir": data.display().to_string(),
            "pid": std::process::id(),
            "host": running.host().to_string(),
            "name": running.name(),
            "cluster": running.cluster().to_string(),
            "advertised": running.advertised(),
            "began": match running.began() {
                Began::Founded => "founded",
                Began::Joined => "joined",
                Began::Known => "known",
            },
        });
        shell.out.show("Ready", body, || {
            let metrics = http.map_or("off (--http IP:PORT)".to_owned(), |address| {
                format!("http://{address}/metrics")
            });
            let began = match running.began() {
                Began::Founded => "founded a cluster; others join with --join",
                Began::Joined => "joined; it votes once it has caught up (maitred member ls)",
                Began::Known => "back in its cluster",
            };
            let address = running.advertised();
            format!(
                "maitred {} is ready\n  host     {} (number {}): {began}\n  address  {address} (QUIC, UDP)\n  data     {}\n  metrics  {metrics}\n  connect  maitred status --endpoint {address} --ca … --cert … --key …   (`maitred cert issue --help`)",
                env!("CARGO_PKG_VERSION"),
                running.name(),
                running.host(),
                data.display(),
            )
        })
    }
}

/// Shuts down in order, or at once when a second signal comes.
async fn stop(running: Running, signals: &mut Signals) -> Result<(), Failure> {
    tracing::info!("shutting down; a second signal ends at once");
    tokio::select! {
        stopped = running.shutdown() => stopped.map_err(|failed| host::broken(&failed)),
        () = signals.next() => Err(Failure::new(
            Exit::Other,
            "interrupted",
            "ended by a second signal before everything was closed",
            "nothing acknowledged is lost; the next start recovers as after a crash",
        )),
    }
}

/// Sends logs to stderr.
pub(crate) fn start_log(filter: &str, format: LogFormat) -> Result<(), Failure> {
    // What the log's engine says of each start is for whoever asks for it.
    let filter = match filter {
        "info" => "info,raft_engine=warn",
        other => other,
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        let help = "a filter is a level (info), or target=level pairs: warn,maitred_server=debug";
        Failure::usage(format!("the log filter is not valid: {error}"), help)
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(crate::out::colours(&std::io::stderr()));
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // Only a second call in one process can fail, and the first log then goes on.
    let _ = started;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_in_the_help_has_the_defaults() {
        let mut shown = ServerConfig::from_toml(FILE).unwrap();
        shown.validate().unwrap();
        shown.data_dir = PathBuf::new();
        shown.tls = maitred_server::TlsFiles::default();
        let default = ServerConfig::default();
        assert_eq!(format!("{shown:#?}"), format!("{default:#?}"));
    }
}

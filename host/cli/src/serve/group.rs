//! The flags of `serve` that are about the other hosts: joining them, being found by them, and the
//! times of their elections.

use clap::Args;
use clap::builder::RangedU64ValueParser;
use maitred_protocol::HostName;
use maitred_server::ServerConfig;

/// How this host and the others of its cluster find each other and agree.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct Group {
    /// Join a cluster: any hosts of it, as HOST:PORT; one that answers is enough
    ///
    /// Without it, a new data directory founds a cluster of its own. A directory that belongs to a
    /// cluster already knows that, and this is ignored. The host becomes a voter by itself once it
    /// has caught up; `maitred member ls` shows how far it is. If its disk was lost, first say
    /// `maitred member replace`: the name is taken otherwise.
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        env = "MAITRED_JOIN",
        hide_env_values = true
    )]
    join: Vec<String>,
    /// This host's name, unique in its cluster: letters, digits, '.', '_' and '-', 1 to 64 [default: the machine's]
    ///
    /// Taken when the data directory is made, and kept by it from then on.
    #[arg(
        long,
        value_name = "NAME",
        env = "MAITRED_NAME",
        hide_env_values = true
    )]
    name: Option<HostName>,
    /// Where the other hosts and all clients reach this one [default: the address of --listen]
    ///
    /// Needed when --listen is 0.0.0.0 or [::] or behind a translation of addresses. Port 0 stands
    /// for the port that --listen got.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "MAITRED_ADVERTISE",
        hide_env_values = true
    )]
    advertise: Option<String>,
    /// Milliseconds of one tick, 5 to 1000, the unit of the next two; the same on all hosts [default: 20]
    #[arg(
        long,
        value_name = "MS",
        env = "MAITRED_TICK_MS",
        hide_env_values = true,
        value_parser = clap::value_parser!(u64).range(5..=1_000)
    )]
    tick_ms: Option<u64>,
    /// Ticks between two signs of life of the leader, 1 to 100 [default: 1, so 20 ms]
    #[arg(
        long,
        value_name = "N",
        env = "MAITRED_HEARTBEAT_TICKS",
        hide_env_values = true,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=100)
    )]
    heartbeat_ticks: Option<usize>,
    /// Ticks without one after which a new leader is elected [default: 10, so 200 ms to 400 ms]
    ///
    /// The real time is drawn between once and twice this, so that hosts do not stand against each
    /// other. At least 5 heartbeats, at most 1000 ticks, and several round trips between the hosts: too
    /// low, and every pause of a disk or a network costs an election. For hosts 30 ms apart use 50.
    #[arg(
        long,
        value_name = "N",
        env = "MAITRED_ELECTION_TICKS",
        hide_env_values = true,
        value_parser = RangedU64ValueParser::<usize>::new().range(5..=1_000)
    )]
    election_ticks: Option<usize>,
    /// Let the leader answer linearizable reads without asking the others first [default: false]
    ///
    /// Faster by one round trip, and right only while the hosts' clocks run equally fast to within two
    /// percent, and all have the same --tick-ms and --election-ticks. Without it no clock matters.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        env = "MAITRED_LEASE_READS",
        hide_env_values = true
    )]
    lease_reads: Option<bool>,
    /// The newest commands that this host takes part in [default: all that this program knows]
    ///
    /// During an upgrade, to keep the way back open: a cluster uses what all of its hosts can, and
    /// an older program cannot read a log with newer commands. See docs/UPGRADE.md.
    #[arg(
        long,
        value_name = "LEVEL",
        env = "MAITRED_LEVEL_MAX",
        hide_env_values = true,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(ServerConfig::default().level_max))
    )]
    level_max: Option<u16>,
    /// MiB a second that this host sends of snapshots, so that a host that catches up slows nobody [default: 256]
    #[arg(
        long,
        value_name = "N",
        env = "MAITRED_BULK_MIB_PER_S",
        hide_env_values = true,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000)
    )]
    bulk_mib_per_s: Option<u64>,
}

impl Group {
    /// Lays what was given over `config`.
    pub(crate) fn lay_over(&self, config: &mut ServerConfig) {
        if !self.join.is_empty() {
            config.join.clone_from(&self.join);
        }
        if let Some(name) = &self.name {
            config.name = name.to_string();
        }
        if self.advertise.is_some() {
            config.advertise.clone_from(&self.advertise);
        }
        let raft = &mut config.raft;
        raft.tick_ms = self.tick_ms.unwrap_or(raft.tick_ms);
        raft.heartbeat_ticks = self.heartbeat_ticks.unwrap_or(raft.heartbeat_ticks);
        raft.election_ticks = self.election_ticks.unwrap_or(raft.election_ticks);
        config.lease_reads = self.lease_reads.unwrap_or(config.lease_reads);
        config.level_max = self.level_max.unwrap_or(config.level_max);
        if let Some(mib) = self.bulk_mib_per_s {
            config.bulk_bytes_per_s = mib << 20;
        }
    }
}

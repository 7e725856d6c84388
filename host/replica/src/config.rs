//! What a replica must be told once, and which of it contradicts itself.

use maitred_protocol::{HostName, Join};

use crate::mutants;

/// The highest level of replicated commands that this program can carry out. See
/// `docs/UPGRADE.md`.
pub const LEVEL_MAX: u16 = 2;

/// How a replica runs. Times are in ticks; a tick is [`Config::tick_us`] microseconds.
#[derive(Debug, Clone)]
pub struct Config {
    /// This host's number in the group; not 0, and never used again after its disk was lost.
    pub id: u64,
    /// The first voters of the group, the same on every host that ever belongs to it: the log says
    /// what became of them.
    pub voters: Vec<u64>,
    /// This host's name.
    pub name: HostName,
    /// Where its peers and clients reach it.
    pub address: String,
    /// What its data directory proves itself with.
    pub instance: u64,
    /// The highest level of replicated commands that this host may carry out: [`LEVEL_MAX`], or
    /// lower to keep a way back during an upgrade.
    pub level_max: u16,
    /// The program's version, for `status`.
    pub build: String,
    /// Microseconds between two [`crate::Input::Tick`]s.
    pub tick_us: u64,
    /// Ticks without a leader before an election, at least; at most the double, by chance.
    /// At least 5 times the heartbeat.
    pub election_ticks: usize,
    /// Ticks between two heartbeats.
    pub heartbeat_ticks: usize,
    /// Whether a leader that a quorum confirmed a moment ago answers reads without asking again.
    /// Rests on clocks: all hosts' must run equally fast to within two percent, pauses included
    /// (a monotonic clock does), and all must have the same [`Config::tick_us`] and
    /// [`Config::election_ticks`]. A host that starts does not vote for the longest election
    /// time-out then.
    pub lease_reads: bool,
    /// Microseconds that a write may take before a leader hands over to a host with a better disk.
    pub disk_slow_us: u64,
    /// The source of all chance; another one at every start.
    pub seed: u64,
    /// Entries after which a snapshot is taken.
    pub snapshot_entries: u64,
    /// Bytes of entries after which a snapshot is taken.
    pub snapshot_bytes: u64,
    /// Creates that may be under way at one time; more are answered `overloaded`.
    pub creates_max: usize,
    /// Decisions in one batch.
    pub batch_max: usize,
    /// Bytes of entries that are kept for a host that is fetching a snapshot, beyond which it must
    /// fetch another one.
    pub log_kept_bytes: u64,
    /// Bytes of entries that are proposed and not yet committed; more are answered `overloaded`.
    pub uncommitted_bytes_max: u64,
    /// Processes of lost nodes that are created again in a second, in the whole group; as many at
    /// once. 1 to 1,000,000.
    pub recreate_per_second: u32,
    /// The same, for each node that they are given to. 1 to 1,000,000.
    pub recreate_per_node_per_second: u32,
    /// When more than this share of the nodes (in percent, 1 to 100; 100 switches it off), and at
    /// least 3, are lost in a window, nothing is created again for a while.
    pub mass_loss_percent: u32,
    /// That window, in milliseconds; 1,000 to 600,000.
    pub mass_loss_window_ms: u32,
    /// That while, in milliseconds from the last loss that was one too many; at most 3,600,000.
    pub mass_loss_pause_ms: u32,
    /// Whether decisions are to be made again later by any version: then the nodes' figures come with
    /// all that a selector can ask for, not only with what the present ones do.
    pub record_inputs: bool,
}

impl Config {
    /// The defaults, for one host of this number.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            id,
            voters: vec![id],
            name: HostName::new(format!("host-{id}")).expect("letters and digits"),
            address: String::new(),
            instance: id,
            level_max: LEVEL_MAX,
            build: String::new(),
            tick_us: 20_000,
            election_ticks: 10,
            heartbeat_ticks: 1,
            lease_reads: false,
            disk_slow_us: 1_000_000,
            seed: 0,
            snapshot_entries: 200_000,
            snapshot_bytes: 128 << 20,
            creates_max: 65_536,
            batch_max: 1_024,
            log_kept_bytes: 1 << 30,
            uncommitted_bytes_max: 64 << 20,
            recreate_per_second: 10_000,
            recreate_per_node_per_second: 1_000,
            mass_loss_percent: 40,
            mass_loss_window_ms: 30_000,
            mass_loss_pause_ms: 60_000,
            record_inputs: true,
        }
    }

    /// What is wrong with it, and what to do.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn validate(&self) -> Result<(), String> {
        let checks = [
            (
                self.id != 0 && !self.voters.contains(&0),
                "host number 0 is nobody's",
            ),
            (
                (5_000..=1_000_000).contains(&self.tick_us),
                "a tick must have 5 to 1,000 ms",
            ),
            (
                (1..=100).contains(&self.heartbeat_ticks),
                "a heartbeat must have 1 to 100 ticks",
            ),
            (
                self.election_ticks >= 5 * self.heartbeat_ticks,
                "the election time-out must be at least 5 heartbeats, or one lost packet calls an election",
            ),
            (
                self.election_ticks <= 1_000,
                "the election time-out must have at most 1,000 ticks",
            ),
            (
                !self.lease_reads || self.lease_us() > 0,
                "lease reads need an election time-out of more than 4 ticks",
            ),
            (
                (1..=LEVEL_MAX).contains(&self.level_max),
                "the level must be one that this program knows",
            ),
            (
                (1..=1_000_000).contains(&self.recreate_per_second)
                    && (1..=1_000_000).contains(&self.recreate_per_node_per_second),
                "1 to 1,000,000 processes may be created again in a second",
            ),
            (
                (1..=100).contains(&self.mass_loss_percent),
                "the share of nodes that is a mass loss must be 1 to 100 percent",
            ),
            (
                (1_000..=600_000).contains(&self.mass_loss_window_ms),
                "nodes are lost at once when they are within 1 to 600 s",
            ),
            (
                self.mass_loss_pause_ms <= 3_600_000,
                "a mass loss may pause re-creation for at most an hour",
            ),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(why.to_owned()),
            None => Ok(()),
        }
    }

    /// How long after a confirmed round began no other host can have been elected: the shortest
    /// election time-out, less a tick of phase and two that are made up for after a pause, less the
    /// drift of two clocks.
    #[must_use]
    pub fn lease_us(&self) -> u64 {
        let ticks = (self.election_ticks as u64).saturating_sub(4);
        let ticks = if mutants::on("lease-read-too-long") {
            100 * ticks
        } else {
            ticks
        };
        ticks * self.tick_us * 96 / 100
    }

    /// What this host says of itself.
    #[must_use]
    pub fn join(&self) -> Join {
        Join {
            host: self.id,
            name: self.name.clone(),
            address: self.address.clone(),
            instance: self.instance,
            level_max: self.level_max,
        }
    }
}

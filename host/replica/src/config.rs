//! What a replica must be told once.

/// How a replica runs. Times are in ticks; a tick is [`Config::tick_us`] microseconds.
#[derive(Debug, Clone)]
pub struct Config {
    /// This host's number in the group; not 0, and never used again after its disk was lost.
    pub id: u64,
    /// The voters of a new group. Ignored once the group exists.
    pub voters: Vec<u64>,
    /// The program's version, for `status`.
    pub build: String,
    /// Microseconds between two [`crate::Input::Tick`]s.
    pub tick_us: u64,
    /// Ticks without a leader before an election: at least 10 times the heartbeat.
    pub election_ticks: usize,
    /// Ticks between two heartbeats.
    pub heartbeat_ticks: usize,
    /// The source of all chance.
    pub seed: u64,
    /// Entries after which a snapshot is taken.
    pub snapshot_entries: u64,
    /// Bytes of entries after which a snapshot is taken.
    pub snapshot_bytes: u64,
    /// Creates that may be under way at one time; more are answered `overloaded`.
    pub creates_max: usize,
    /// Decisions in one batch.
    pub batch_max: usize,
    /// Bytes of entries that are proposed and not yet committed; more are answered `overloaded`.
    pub uncommitted_bytes_max: u64,
}

impl Config {
    /// The defaults, for one host of this number.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            id,
            voters: vec![id],
            build: String::new(),
            tick_us: 20_000,
            election_ticks: 10,
            heartbeat_ticks: 1,
            seed: 0,
            snapshot_entries: 200_000,
            snapshot_bytes: 128 << 20,
            creates_max: 65_536,
            batch_max: 1_024,
            uncommitted_bytes_max: 64 << 20,
        }
    }
}

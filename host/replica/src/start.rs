//! How a replica starts: what storage found, whether that fits together, and what it begins with.

use std::collections::{BTreeMap, VecDeque};

use maitred_registry::random::Random;
use maitred_registry::{Entry, EntryError, Registry};
use raft::eraftpb::{ConfState, Entry as RaftEntry, EntryType, HardState};

use crate::advice::Questions;
use crate::compensation::Compensating;
use crate::config::Config;
use crate::consensus::Consensus;
use crate::holding::Holding;
use crate::input::{Disk, Now};
use crate::leases::Leases;
use crate::log::Log;
use crate::membership::Peers;
use crate::moves::Moves;
use crate::placing::Placing;
use crate::reads::Reads;
use crate::recreation::Recreation;
use crate::replica::{Replica, SnapshotState};
use crate::saga::Sagas;
use crate::timer::Timers;
use crate::waiting::Waiting;

/// What storage found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Raft's.
    pub hard_state: HardState,
    /// The log, contiguous.
    pub entries: Vec<RaftEntry>,
    /// The log begins after this index.
    pub start_index: u64,
    /// That entry's term.
    pub start_term: u64,
    /// The newest snapshot.
    pub snapshot: Option<RecoveredSnapshot>,
}

/// A snapshot that was read back.
#[derive(Debug)]
pub struct RecoveredSnapshot {
    /// The last index that it contains.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The group's members at that index.
    pub conf_state: ConfState,
    /// The state.
    pub registry: Registry,
}

/// Why a replica cannot start from what storage found.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An entry of the log cannot be read.
    #[error("entry {index} of the log cannot be used")]
    Entry {
        /// Which.
        index: u64,
        /// Why.
        source: EntryError,
    },
    /// The log has lost entries that were committed.
    #[error(
        "the log ends at entry {log} but everything up to {needed} was committed; restore this host's data, or let it join its group anew"
    )]
    Short {
        /// Where the log ends.
        log: u64,
        /// What it must contain.
        needed: u64,
    },
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// The cluster uses commands that this program does not know, or was told not to.
    #[error(
        "the cluster uses level {level} and this host may use {level_max}; start the newer program on this data, or raise --level-max"
    )]
    TooOld {
        /// The cluster's level.
        level: u16,
        /// This host's.
        level_max: u16,
    },
    /// The log and the snapshot do not meet.
    #[error(
        "the log begins after entry {log} but the newest snapshot ends at {snapshot}; restore the snapshot that belongs to this log, or let this host join its group anew"
    )]
    Gap {
        /// Where the log begins.
        log: u64,
        /// Where the snapshot ends.
        snapshot: u64,
    },
}

impl Replica {
    /// Starts from what storage found; a group that has no log yet begins with the configured
    /// voters.
    ///
    /// # Errors
    /// [`StartError`] when the log or the snapshot is not of this program, or does not fit.
    pub fn new(
        config: Config,
        recovered: Recovered,
        now: Now,
        logger: &slog::Logger,
    ) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        let commands = recovered
            .entries
            .iter()
            .filter(|entry| entry.entry_type == EntryType::EntryNormal && !entry.data.is_empty());
        for entry in commands {
            let index = entry.index;
            Entry::decode(&entry.data, config.level_max)
                .map_err(|source| StartError::Entry { index, source })?;
        }
        let snapshot_index = recovered
            .snapshot
            .as_ref()
            .map_or(0, |snapshot| snapshot.index);
        if recovered.start_index > snapshot_index {
            let (log, snapshot) = (recovered.start_index, snapshot_index);
            return Err(StartError::Gap { log, snapshot });
        }
        let log = recovered.start_index + recovered.entries.len() as u64;
        let needed = snapshot_index.max(recovered.hard_state.commit);
        if log < needed {
            return Err(StartError::Short { log, needed });
        }
        let (registry, conf_state, saved) = match recovered.snapshot {
            Some(snapshot) => {
                let saved = (snapshot.index, snapshot.term, snapshot.conf_state.clone());
                (snapshot.registry, snapshot.conf_state, Some(saved))
            }
            None => (
                Registry::founded(&config.voters),
                ConfState::from((config.voters.clone(), vec![])),
                None,
            ),
        };
        let (level, level_max) = (registry.level(), config.level_max);
        if level > level_max {
            return Err(StartError::TooOld { level, level_max });
        }
        let start = (recovered.start_index, recovered.start_term);
        let mut log = Log::new(start, recovered.entries, HardState::default(), conf_state);
        if let Some((index, term, conf_state)) = saved {
            log.set_saved(index, term, conf_state);
        }
        let mut consensus = Consensus::new(
            &config,
            log,
            recovered.hard_state,
            registry.applied(),
            logger,
        );
        consensus.campaign_if_alone();
        Ok(Self {
            random: Random::new(config.seed),
            consensus,
            now,
            effects: Vec::new(),
            proposals: Vec::new(),
            waiters: VecDeque::new(),
            sagas: Sagas::default(),
            parties: crate::party::Parties::default(),
            placing: Placing::default(),
            leases: Leases::default(),
            holding: Holding::default(),
            moves: Moves::default(),
            recreation: Recreation::default(),
            waiting: Waiting::default(),
            guarded: BTreeMap::new(),
            advising: Questions::default(),
            compensating: Compensating::default(),
            reads: Reads::new(&config),
            timers: Timers::default(),
            serving: None,
            disk: Disk::Ok,
            shutting_down: false,
            started_us: now.mono_us,
            snapshot: SnapshotState {
                index: snapshot_index,
                ..SnapshotState::default()
            },
            peers: Peers::default(),
            writes: VecDeque::new(),
            told: None,
            installing: None,
            early: Vec::new(),
            postponed: None,
            halted: false,
            registry,
            config,
        })
    }
}

//! Every limit of the replicated state. Reaching one is a deterministic rejection that names it.

/// Nodes that are registered at one time.
pub const NODES_MAX: usize = 10_000;

/// Names that are cordoned. A cordon outlives its node's session, so that a restart does not lift it.
pub const CORDONS_MAX: usize = 2 * NODES_MAX;

/// Losses of sessions that are remembered, for the breaker.
pub const LOSSES_MAX: usize = 1_024;

/// Parties that are being created.
pub const PARTIES_MAX: usize = 4_096;

/// Module names.
pub const MODULES_MAX: usize = 256;

/// Versions kept under one module name.
pub const VERSIONS_MAX: usize = 64;

/// Activations that can be taken back, a module.
pub const ROLLBACKS_MAX: usize = 16;

/// Digests of versions that were decided against, a module.
pub const DECLINED_MAX: usize = VERSIONS_MAX;

/// Lines of one module's history.
pub const HISTORY_MAX: usize = 64;

/// Types that are described.
pub const TYPES_MAX: usize = 4_096;

/// Client sessions that are remembered. Opening one more forgets the one that has been silent for
/// the largest number of entries.
pub const SESSIONS_MAX: usize = 20_000;

/// Outcomes remembered for one session; at least what a client may have in flight, or a retry
/// after a reconnect could find its outcome gone.
pub const OUTCOMES_MAX: usize = 4_096;

/// Log entries after which an outcome is forgotten.
pub const OUTCOME_AGE_MAX: u64 = 1_000_000;

/// Every so many entries one session is looked at for outcomes past their age.
pub const SWEEP_EVERY: u64 = 64;

/// The highest level of commands that there can ever be: an entry says its own in one byte.
pub const LEVEL_LIMIT: u16 = u8::MAX as u16;

const _: () = assert!(OUTCOMES_MAX >= maitred_protocol::limits::IN_FLIGHT_MAX);

//! Every limit of the wire, with its unit, in one place; the relations between neighbours are
//! asserted at compile time.
//!
//! These are part of the protocol: both sides may rely on them. Limits that an operator may tune
//! live in the server's configuration.

/// Bytes of one frame, header included. Large things (module uploads) travel as raw stream bytes
/// after a frame that announces their length.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Bytes of one frame between hosts, header included: a batch of Raft's messages.
pub const PEER_FRAME_BYTES_MAX: usize = 8 << 20;

/// Hosts of a cluster, learners included.
pub const MEMBERS_MAX: usize = 16;

/// Bytes of the context of a Raft message.
pub const RAFT_CONTEXT_BYTES_MAX: usize = 64;

/// Bytes of a snapshot that a host will fetch from another.
pub const SNAPSHOT_BYTES_MAX: u64 = 64 << 30;

/// How deeply an archive may nest before validation gives up.
pub const ARCHIVE_DEPTH_MAX: usize = 16;

/// Bytes of the name of a type, a node or a module.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of a process id.
pub const ID_BYTES_MAX: usize = 256;

/// Bytes of what a node calls a process.
pub const PID_BYTES_MAX: usize = 256;

/// Bytes that a node shares with the callers of a process, or about itself.
pub const SHARE_BYTES_MAX: usize = 4 << 10;

/// Bytes of the arguments of a create.
pub const ARGS_BYTES_MAX: usize = 64 << 10;

/// Bytes of a module's configuration.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;

/// Members of a party.
pub const PARTY_MAX: usize = 64;

/// Latencies that a create says.
pub const LATENCIES_MAX: usize = 32;

/// Types that a canary is for.
pub const CANARY_TYPES_MAX: usize = 64;

/// Bytes of the rule that takes a version back by itself.
pub const GUARD_BYTES_MAX: usize = 256;

/// Decisions in one replay, and in one file of recorded inputs.
pub const REPLAY_MAX: u32 = 1_000_000;

/// Bytes of an address, a group key, a label key or a label value.
pub const TEXT_BYTES_MAX: usize = 256;

/// Bytes of a reason that a node or a module gives; longer ones are cut.
pub const REASON_BYTES_MAX: usize = 512;

/// Labels of a node, and label constraints of a create.
pub const LABELS_MAX: usize = 32;

/// Types that a node says it hosts.
pub const NODE_TYPES_MAX: usize = 256;

/// Custom counters in one load report.
pub const COUNTERS_MAX: usize = 16;

/// Processes in one inventory: what a reconnecting node says it runs.
pub const INVENTORY_MAX: usize = 20_000;

/// Items in one page of a list.
pub const PAGE_ITEMS_MAX: u32 = 1_000;

/// Refusals named in one `no_placement`; the rest is counted.
pub const REFUSALS_MAX: usize = 200;

/// Unanswered requests on one connection. The host answers `overloaded` past it.
pub const IN_FLIGHT_MAX: usize = 4_096;

/// Attempts of one create.
pub const ATTEMPTS_MAX: u8 = 16;

/// Milliseconds that a create may take.
pub const DEADLINE_MS_MAX: u32 = 600_000;

/// Milliseconds between two attempts, before doubling.
pub const BACK_OFF_MS_MAX: u32 = 60_000;

/// Milliseconds of a node's lease, at least and at most.
pub const TTL_MS_MIN: u32 = 1_000;
/// See [`TTL_MS_MIN`].
pub const TTL_MS_MAX: u32 = 60_000;

/// Milliseconds that a node may take to stop all that it runs.
pub const KILL_BOUND_MS_MAX: u32 = 60_000;

/// Milliseconds of a drain, and of a wait for a node, at most; of a drain, at least.
pub const PATIENCE_MS_MAX: u32 = 86_400_000;
/// See [`PATIENCE_MS_MAX`].
pub const DRAIN_MS_MIN: u32 = 1_000;

/// Processes that a drain or a rebalancing moves in a second.
pub const MOVES_PER_SECOND_MAX: u32 = 10_000;

/// Moves in one plan.
pub const MOVES_MAX: usize = 2_000;

/// Units of capacity a node may declare, and a process may demand.
pub const CAPACITY_MAX: u32 = 1_000_000;

/// Bytes of a module that can be uploaded at all; the operator's own limit is lower.
pub const MODULE_BYTES_MAX: u64 = 32 << 20;

/// Notes about an uploaded module that its sender is told; each has at most [`REASON_BYTES_MAX`] bytes.
pub const FINDINGS_NOTES_MAX: usize = 8;

/// Nodes that a selector may rank, best first.
pub const RANKED_MAX: usize = 8;

/// Largest distance from zero of a create's priority.
pub const PRIORITY_MAX: i32 = 1_000;

const _: () = {
    // An entry that came in one frame must go out in one, and a batch of them too.
    assert!(PEER_FRAME_BYTES_MAX >= 4 * FRAME_BYTES_MAX);
    assert!(ARGS_BYTES_MAX + ID_BYTES_MAX + 8 * 1024 < FRAME_BYTES_MAX);
    assert!(CONFIG_BYTES_MAX * 2 < FRAME_BYTES_MAX);
    // A page of records without arguments: share and pid at their largest for a fifth of the items.
    assert!((PAGE_ITEMS_MAX as usize / 5) * (SHARE_BYTES_MAX + PID_BYTES_MAX) < FRAME_BYTES_MAX);
    assert!(TTL_MS_MIN < TTL_MS_MAX);
    assert!(MOVES_MAX * (ID_BYTES_MAX + 3 * NAME_BYTES_MAX + 64) < FRAME_BYTES_MAX);
    assert!(REFUSALS_MAX * (NAME_BYTES_MAX + 2 * TEXT_BYTES_MAX) < FRAME_BYTES_MAX);
};

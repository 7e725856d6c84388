//! Bugs that are put in to see that they are caught.
//!
//! Those of the replica are switched on in `maitred-replica` (its feature `mutants`, which no product
//! has). Those of the shell are made by the simulator: they are the duties of the server, the disk and
//! the node around the replica.

use super::plan::Scenario;

/// The replica's.
#[cfg(feature = "mutants")]
pub const REPLICA: &[&str] = &[
    "ack-after-expiry-proposed",
    "ack-before-commit",
    "ack-without-round",
    "alone-forever",
    "apply-uses-clock",
    "dedup-forgets",
    "disown-forgotten",
    "exists-without-round",
    "expire-early",
    "expire-without-epoch",
    "follower-reads-own-commit",
    "install-backwards",
    "install-keeps-log",
    "learner-votes",
    "lease-after-restart",
    "lease-kept-at-hand-over",
    "lease-read-too-long",
    "missing-not-dropped",
    "no-full-ttl",
    "no-tombstone",
    "propose-while-moving",
    "read-before-applied",
    "read-context-repeats",
    "read-without-round",
    "release-early",
    "replay-renews",
    "saga-not-resumed",
    "serve-before-own-term",
    "snapshot-old-conf",
    "unknown-as-unavailable",
    "waiter-by-index-only",
];

/// The shell's.
pub const SHELL: &[&str] = &[
    "shell-release-unsynced",
    "shell-persisted-unsynced",
    "shell-lose-hard-state",
    "shell-install-keeps-log",
    "shell-snapshot-not-durable",
    "node-long-lease",
    "node-no-fence",
    "client-new-id",
];

/// Switches one of the replica's on for this thread, or all off.
pub(super) fn switch_on(name: Option<&'static str>) {
    #[cfg(feature = "mutants")]
    maitred_replica::mutants::set(name);
    #[cfg(not(feature = "mutants"))]
    let _ = name;
}

/// The scenario of a seed in which a bug can show.
#[must_use]
pub fn scenario(name: &'static str, seed: u64) -> Scenario {
    let mut scenario = Scenario::new(seed, 3);
    scenario.knobs.lease_reads |= name.starts_with("lease-");
    scenario.mutant = Some(name);
    scenario
}

//! Bugs that are put in to see that they are caught.
//!
//! Those of the replica are switched on in `maitred-replica` (its feature `mutants`, which no product
//! has). Those of the shell are made by the simulator: they are the duties of the server, the disk and
//! the node around the replica.

/// The replica's.
#[cfg(feature = "mutants")]
pub const REPLICA: &[&str] = &[];

/// The shell's.
pub const SHELL: &[&str] = &[
    "shell-release-unsynced",
    "shell-persisted-unsynced",
    "shell-lose-hard-state",
    "shell-lose-truncation",
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

//! Bugs that are put in to see that they are caught: which there are, the checkers that must say so, and
//! the scenarios in which they show.
//!
//! Those of the replica and the registry are switched on there (their feature `mutants`, which no product
//! has). Those of the shell are made by the simulator: they are the duties of the server, the disk and
//! the node around the replica.

use super::plan::Scenario;
use super::stage::{self, Stage};

/// A bug that can be put in.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// Its name: the replica's are the names of its switch points.
    pub name: &'static str,
    /// The checkers that say what it breaks. Another one's failure is no catch.
    pub caught_by: &'static [&'static str],
    /// Makes of a seed's scenario one in which it can show.
    pub stage: Stage,
}

const fn mutant(name: &'static str, caught_by: &'static [&'static str], stage: Stage) -> Mutant {
    Mutant {
        name,
        caught_by,
        stage,
    }
}

/// A client sees what was not so.
const SEEN: &[&str] = &["linear", "history"];
/// Logs or states are not the same everywhere.
const AGREED: &[&str] = &["agreement"];
/// What was promised is lost at a crash: the host finds that itself, or logs part.
const DURABLE: &[&str] = &["start", "agreement", "leaders"];

/// Those of the replica and the registry; they show only with the feature `mutants`.
pub const REPLICA: &[Mutant] = &[
    mutant("ack-after-expiry", &["leases"], stage::late_nodes),
    mutant("ack-before-commit", SEEN, stage::deposed),
    mutant("ack-without-round", &["truth"], stage::marooned),
    mutant("apply-uses-clock", AGREED, stage::anything),
    mutant("decision-unbound", &["placed"], stage::switched),
    mutant("dedup-forgets", &["linear", "once"], stage::anything),
    mutant("drain-without-stop", &["truth"], stage::moved),
    mutant("disown-forgotten", &["quiet"], stage::deposed),
    mutant("exists-without-round", SEEN, stage::deposed),
    mutant("expire-early", &["leases"], stage::anything),
    mutant("expire-without-epoch", &["leases"], stage::late_nodes),
    mutant("follower-reads-own-commit", SEEN, stage::anything),
    mutant("hold-not-resumed", &["quiet"], stage::lost_with_leaders),
    mutant("hold-skipped-on-delete", &["truth"], stage::anything),
    mutant("hold-skipped-on-expiry", &["truth"], stage::lost),
    mutant("hold-skipped-on-unknown", &["truth"], stage::unanswered),
    mutant("hold-too-short", &["truth"], stage::lost),
    mutant("install-backwards", AGREED, stage::snapshots),
    mutant("install-keeps-log", AGREED, stage::snapshots),
    mutant("joined-answered-at-once", SEEN, stage::stalled),
    mutant("learner-votes", &["quiet"], stage::members),
    mutant("lease-kept-at-hand-over", SEEN, stage::handed_over),
    mutant("lease-read-too-long", SEEN, stage::deposed_under_lease),
    mutant("lease-reads-applied", SEEN, stage::stalled_under_lease),
    mutant("no-full-ttl", &["leases"], stage::deposed),
    mutant("no-tombstone", &["quiet"], stage::anything),
    mutant("party-reserved-partly", &["parties"], stage::parties),
    mutant("party-rule-ignored", &["parties"], stage::parties),
    mutant("party-settled-early", &["parties"], stage::parties),
    mutant("party-undone-partly", &["parties"], stage::parties),
    mutant("read-before-applied", SEEN, stage::anything),
    mutant("read-without-round", SEEN, stage::deposed),
    mutant("released-without-answer", &["truth"], stage::anything),
    mutant("release-early", DURABLE, stage::crashes),
    mutant("rollback-keeps-canary", &["placed"], stage::switched_back),
    // The replica's own assertion, in builds that have it, or a create that never ends.
    mutant("saga-not-resumed", &["quiet", "panic"], stage::mortal),
    mutant("serve-before-own-term", &["leaders"], stage::deposed),
    mutant("strict-released-by-bound", &["truth"], stage::fenced),
    mutant("waiter-by-index-only", AGREED, stage::deposed),
];

/// The shell's.
pub const SHELL: &[Mutant] = &[
    mutant("shell-release-unsynced", DURABLE, stage::crashes),
    mutant("shell-persisted-unsynced", DURABLE, stage::crashes),
    mutant("shell-lose-hard-state", &["leaders"], stage::crashes),
    mutant("shell-snapshot-not-durable", &["start"], stage::snapshots),
    mutant("node-long-lease", &["truth"], stage::late_nodes),
    mutant("node-no-fence", &["truth"], stage::late_nodes),
    mutant("node-fence-late", &["truth"], stage::lost),
    mutant("node-lease-from-receipt", &["truth"], stage::slow_acks),
    mutant("node-survives-verdict", &["quiet"], stage::fast),
    mutant("shell-fence-lies", &["truth"], stage::fenced),
    mutant("shell-advice-forgotten", &["quiet"], stage::advised),
    mutant("shell-unknown-is-over", &["truth"], stage::unanswered),
    mutant("client-new-id", &["linear"], stage::anything),
];

/// Switches one of the replica's on for this thread, or all off.
pub(super) fn switch_on(name: Option<&'static str>) {
    #[cfg(feature = "mutants")]
    maitred_registry::mutants::set(name);
    #[cfg(not(feature = "mutants"))]
    let _ = name;
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Mutant> {
    let replica = if cfg!(feature = "mutants") {
        REPLICA
    } else {
        &[]
    };
    replica.iter().chain(SHELL)
}

impl Mutant {
    /// The scenario of a seed, with the bug in it.
    #[must_use]
    pub fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = Scenario::new(seed, 3);
        (self.stage)(&mut scenario);
        scenario.mutant = Some(self.name);
        scenario
    }
}

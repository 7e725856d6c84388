//! Every limit on guests, with its unit, in one place; [`Limits::check`] holds the relations.
//!
//! These are the operator's: a host with other limits accepts other modules, but the answers of a
//! module that is accepted do not depend on them. Names end in their unit. What the wire itself
//! bounds (arguments, share, pid) is in `maitred_protocol::limits` and is not repeated here.
//!
//! Knows nothing of wasmtime.

use std::ops::RangeInclusive;

use maitred_protocol::limits as wire;

use crate::error::SandboxError;

/// Calls of one instance before it is replaced, whatever it did: leaks are real.
pub(crate) const CALLS_MAX: u32 = 10_000;

/// Lines that a guest may log in one call; the rest is dropped and counted.
pub(crate) const LOG_LINES_MAX: u32 = 16;

/// Bytes of one logged line; longer ones are cut.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 512;

/// Lines that all instances of a module together may log in a second, on the average.
pub(crate) const LOG_LINES_PER_S: u32 = 100;

/// Lines of a module that was silent before.
pub(crate) const LOG_BURST: u32 = 200;

/// Look-ups that a callback or a fence may make in one call.
pub(crate) const LOOKUPS_MAX: u32 = 16;

/// Tries of one spawn on its node.
pub(crate) const TRIES_MAX: u32 = 16;

/// Milliseconds that a callback may pause at a time.
pub(crate) const PAUSE_MS: RangeInclusive<u32> = 1..=10_000;

/// Milliseconds after which a callback may advise to start a process again.
pub(crate) const BACK_OFF_MS: RangeInclusive<u32> = 10..=600_000;

/// Pairs of one `nodes.matching`; with more, nothing matches.
pub(crate) const MATCHING_MAX: usize = 32;

/// Names that one `nodes.names` answers.
pub(crate) const NAMES_MAX: usize = 1_024;

/// Bytes of the reason that a module is refused for: most of it may be the module's own words.
pub(crate) const REASON_BYTES_MAX: usize = 2_048;

/// Bytes of the name of a score term.
pub(crate) const TERM_BYTES_MAX: usize = 32;

/// Milliseconds after which a fence may ask to be asked again.
pub(crate) const RETRY_MS: RangeInclusive<u32> = 100..=60_000;

/// Bytes of a manifest's name, and of its version.
pub(crate) const TITLE_BYTES_MAX: usize = 64;

/// Milliseconds between two ticks of the epoch: how precise a deadline is.
pub(crate) const TICK_MS: u64 = 1;

/// Live instances beyond two a module and those of callbacks and fences: uploads on trial, and lanes whose
/// place another version has just taken.
pub(crate) const SPARE_INSTANCES: u32 = 32;

/// Rehearsals under way at a time; further ones wait. The thread of the shadows, that of a replay, and
/// those that explain.
pub(crate) const REHEARSALS: u32 = 8;

/// Core instances, memories and tables that one component may have. QuickJS needs 11, 3 and few;
/// Python 38 core instances.
pub(crate) const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 100;
/// See [`CORE_INSTANCES_PER_COMPONENT_MAX`].
pub(crate) const MEMORIES_PER_COMPONENT_MAX: u32 = 4;
/// See [`CORE_INSTANCES_PER_COMPONENT_MAX`].
pub(crate) const TABLES_PER_COMPONENT_MAX: u32 = 16;

/// Handles that one instance may hold; the interfaces have no resources, so hardly any.
pub(crate) const HANDLES_MAX: usize = 256;

/// What guests may use. The defaults are those of `wit/policy.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an upload.
    pub upload_bytes: u64,
    /// Bytes of all memories of one instance together.
    pub memory_bytes: usize,
    /// Elements of all tables of one instance together.
    pub table_elements: usize,
    /// Bytes of wasm stack.
    pub stack_bytes: usize,
    /// Bytes that a guest may hand to the host in one call.
    pub border_bytes: usize,
    /// Milliseconds of computing in one `selector.select` or `scanner.scan`, to within two ticks.
    pub select_ms: u64,
    /// Milliseconds of computing for making an instance, for `describe` and for `validate`.
    pub describe_ms: u64,
    /// Milliseconds of computing in one `callback.spawn`, and in each of its hooks; waiting for the
    /// node does not count.
    pub spawn_ms: u64,
    /// Live callback instances, of one callback at most half of them; spawns beyond them wait.
    pub callback_instances: u32,
    /// Milliseconds of computing in one `fence.examine`; waiting for look-ups does not count.
    pub examine_ms: u64,
    /// Live fence instances, of one fence at most half of them; examinations beyond them wait.
    pub fence_instances: u32,
    /// Modules loaded at a time.
    pub modules: usize,
    /// Batches that may wait for one lane; those beyond are decided by the fallback.
    pub lane_batches: usize,
    /// Milliseconds after which an unused lane ends.
    pub lane_idle_ms: u64,
    /// Bytes that a guest's memory may grow in the 1,000 calls of the trial at upload.
    pub trial_growth_bytes: usize,
    /// When a selector that fails is no longer asked.
    pub breaker: BreakerLimits,
    /// Fuel that stands for a millisecond of computing where fuel is counted (`Rehearsal`). An
    /// instruction costs about one; measured were 2 to 7.5 million a millisecond, and what a lane lets
    /// pass a rehearsal should.
    pub fuel_per_ms: u64,
    /// Milliseconds of computing after which a rehearsal as a whole, an instance and all its calls, is
    /// cut although it has fuel left: what one instruction fills or copies costs no fuel, and what the
    /// host does for it hardly any. At least what a lane would allow it: describing itself and deciding,
    /// twice.
    pub rehearsal_ms: u64,
    /// Batches that may wait for their shadow; those beyond are not compared, and counted.
    pub shadow_batches: usize,
    /// Bytes of those, about.
    pub shadow_bytes: usize,
    /// How large the parts of a module may be before it is compiled.
    pub scan: ScanLimits,
    /// What a compilation may use.
    pub compile: CompileLimits,
}

/// A selector that fails `failures` times within `window_ms` is not asked for `pause_ms`; one decision
/// tries it then, and each failure of such a trial doubles the pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Failures: traps, time-outs, nonsense, errors.
    pub failures: u32,
    /// Milliseconds in which they fall.
    pub window_ms: u64,
    /// Milliseconds of the first pause.
    pub pause_ms: u64,
    /// Milliseconds of the longest.
    pub pause_max_ms: u64,
}

/// What the scan in front of the compiler refuses. Cranelift's time grows faster than linearly in
/// each of these; the largest real guest known (Python 3.14) has 13,478 functions, a body of 427 KB,
/// 271 locals, 194,228 locals x blocks and a nesting of 781.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanLimits {
    /// Functions in all core modules together.
    pub functions: u32,
    /// Bytes of one function's body.
    pub body_bytes: usize,
    /// Locals of one function.
    pub locals: u32,
    /// Locals of one function times its blocks, loops and ifs.
    pub locals_by_blocks: u64,
    /// How deeply one function nests blocks.
    pub nesting: u32,
    /// Targets of one `br_table`.
    pub branch_targets: u32,
    /// Core modules.
    pub core_modules: u32,
    /// Bytes of all custom sections together.
    pub custom_bytes: usize,
}

/// What one compilation may use; one of what decides runs at a time, and one of what is rehearsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileLimits {
    /// Bytes of address space.
    pub memory_bytes: u64,
    /// Seconds of computing.
    pub cpu_s: u64,
    /// Seconds until it is killed, whatever it does.
    pub wall_s: u64,
    /// Bytes of machine code of one module.
    pub code_bytes: u64,
    /// Bytes of all cached machine code; the oldest goes first.
    pub cache_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload_bytes: 4 << 20,
            memory_bytes: 32 << 20,
            table_elements: 20_000,
            stack_bytes: 512 << 10,
            border_bytes: 256 << 10,
            select_ms: 5,
            describe_ms: 100,
            spawn_ms: 50,
            callback_instances: 1_024,
            examine_ms: 50,
            fence_instances: 32,
            modules: 256,
            lane_batches: 64,
            lane_idle_ms: 60_000,
            trial_growth_bytes: 2 << 20,
            breaker: BreakerLimits::default(),
            fuel_per_ms: 10_000_000,
            rehearsal_ms: 2_000,
            shadow_batches: 64,
            shadow_bytes: 32 << 20,
            scan: ScanLimits::default(),
            compile: CompileLimits::default(),
        }
    }
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self {
            failures: 3,
            window_ms: 10_000,
            pause_ms: 1_000,
            pause_max_ms: 300_000,
        }
    }
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self {
            functions: 40_000,
            body_bytes: 512 << 10,
            locals: 1_000,
            locals_by_blocks: 400_000,
            nesting: 1_000,
            branch_targets: 20_000,
            core_modules: 64,
            custom_bytes: 4 << 20,
        }
    }
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            cpu_s: 30,
            wall_s: 45,
            code_bytes: 128 << 20,
            cache_bytes: 1 << 30,
        }
    }
}

impl Limits {
    /// Checks each limit against its neighbours.
    ///
    /// # Errors
    /// [`SandboxError::Limit`] names the limit and the relation that does not hold.
    pub fn check(&self) -> Result<(), SandboxError> {
        let relations = [
            (
                self.upload_bytes <= wire::MODULE_BYTES_MAX,
                "upload_bytes",
                "at most 32 MiB, the protocol's limit",
            ),
            (
                (1 << 20..=128 << 20).contains(&self.memory_bytes),
                "memory_bytes",
                "1 to 128 MiB: filling more cannot be interrupted in time",
            ),
            (
                (1..=1_000_000).contains(&self.table_elements),
                "table_elements",
                "1 to 1,000,000",
            ),
            // The stack of a lane's thread, and of a fiber, is this and as much again for the host.
            (
                (64 << 10..=1 << 20).contains(&self.stack_bytes),
                "stack_bytes",
                "64 KiB to 1 MiB",
            ),
            // Arguments, and a share, must fit with what is around them.
            (
                self.border_bytes >= wire::ARGS_BYTES_MAX + wire::SHARE_BYTES_MAX,
                "border_bytes",
                "at least 68 KiB: the arguments of a create and a share",
            ),
            ((1..=50).contains(&self.select_ms), "select_ms", "1 to 50"),
            (
                (self.select_ms..=1_000).contains(&self.describe_ms),
                "describe_ms",
                "select_ms to 1,000",
            ),
            (
                (1..=1_000).contains(&self.spawn_ms),
                "spawn_ms",
                "1 to 1,000",
            ),
            (
                (1..=4_096).contains(&self.callback_instances),
                "callback_instances",
                "1 to 4,096",
            ),
            (
                (1..=1_000).contains(&self.examine_ms),
                "examine_ms",
                "1 to 1,000",
            ),
            (
                (1..=1_024).contains(&self.fence_instances),
                "fence_instances",
                "1 to 1,024",
            ),
            ((1..=1_024).contains(&self.modules), "modules", "1 to 1,024"),
            (
                (1..=65_536).contains(&self.lane_batches),
                "lane_batches",
                "1 to 65,536",
            ),
            (
                (1..=1_000).contains(&self.breaker.failures),
                "breaker.failures",
                "1 to 1,000",
            ),
            (
                (1..=self.breaker.pause_max_ms).contains(&self.breaker.pause_ms),
                "breaker.pause_ms",
                "1 to breaker.pause_max_ms",
            ),
            (
                (1_000..=100_000_000).contains(&self.fuel_per_ms),
                "fuel_per_ms",
                "1,000 to 100,000,000",
            ),
            (
                (2 * (self.describe_ms + self.select_ms)..=60_000).contains(&self.rehearsal_ms),
                "rehearsal_ms",
                "twice describe_ms and select_ms together, to 60,000",
            ),
            (
                (1..=65_536).contains(&self.shadow_batches),
                "shadow_batches",
                "1 to 65,536",
            ),
            (
                (1 << 20..=1 << 30).contains(&self.shadow_bytes),
                "shadow_bytes",
                "1 MiB to 1 GiB",
            ),
            (
                self.compile.cpu_s <= self.compile.wall_s,
                "compile.cpu_s",
                "at most compile.wall_s",
            ),
            (
                self.compile.code_bytes <= self.compile.memory_bytes,
                "compile.code_bytes",
                "at most compile.memory_bytes",
            ),
            (
                self.compile.code_bytes <= self.compile.cache_bytes,
                "compile.code_bytes",
                "at most compile.cache_bytes",
            ),
        ];
        match relations.iter().find(|(holds, ..)| !holds) {
            None => Ok(()),
            Some(&(_, limit, bounds)) => Err(SandboxError::Limit { limit, bounds }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_a_bad_limit_is_named() {
        Limits::default().check().unwrap();
        let bad = Limits {
            select_ms: 0,
            ..Limits::default()
        };
        assert_eq!(
            bad.check().unwrap_err().to_string(),
            "the limit select_ms must be 1 to 50"
        );
        // A rehearsal makes an instance, has it describe itself and decide twice.
        let shorter = Limits {
            describe_ms: 1_000,
            select_ms: 50,
            rehearsal_ms: 2_099,
            ..Limits::default()
        };
        assert_eq!(
            shorter.check().unwrap_err().to_string(),
            "the limit rehearsal_ms must be twice describe_ms and select_ms together, to 60,000"
        );
    }
}

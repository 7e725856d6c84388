//! The one place where wasmtime is configured, with a reason for each knob, and the clock that its
//! deadlines count on. There are two engines: guests decide on the one, and are rehearsed on the
//! other, which counts fuel.
//!
//! The compiler's process and the host call [`config`] alike, so that the machine code fits; the
//! host alone adds the pool, which decides where instances live and not what their code is. Every
//! knob that changes code is in the cache key by way of wasmtime's own hash ([`fingerprint`]).

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig,
    WasmFeatures,
};

use crate::error::SandboxError;
use crate::limits::{self, Limits};

/// What the compiler and the host must agree on. What a call costs in fuel is the same everywhere.
fn config(metered: bool) -> Config {
    let mut config = Config::new();
    // Deadlines. Fuel is deterministic and costs twice as much; answers do not depend on it. It does
    // not count what one instruction may fill or copy, so the deadline stands behind it.
    config.epoch_interruption(true);
    config.consume_fuel(metered);
    // The same NaN on every machine: a decision must replay to the same answer. No cost measured.
    config.cranelift_nan_canonicalization(true);
    // Answers that depend on the processor.
    config.wasm_relaxed_simd(false);
    config.relaxed_simd_deterministic(true);
    // Nothing that a policy needs, and each one more to get wrong.
    config.wasm_features(WasmFeatures::THREADS, false);
    config.wasm_features(WasmFeatures::SHARED_EVERYTHING_THREADS, false);
    config.wasm_memory64(false);
    // Not turned off: multi-memory. 48.0.8 panics over components made of components without it.
    // Component-model async would double the price of a call, and nothing here uses it.
    config.concurrency_support(false);
    // A fresh instance maps its memory from the module's image instead of copying it.
    config.memory_init_cow(true);
    // The parent counts on one thread's worth of memory and time.
    config.parallel_compilation(false);
    // A trap names where it happened, not all the way down.
    config.wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config
}

/// The engine of the compiler's process, which makes no instances.
pub(crate) fn compiling(metered: bool) -> wasmtime::Result<Engine> {
    Engine::new(&config(metered))
}

/// The engine that guests run on.
pub(crate) fn running(limits: &Limits) -> Result<Engine, SandboxError> {
    let mut config = on_this_host(false, limits);
    let on_fibers = limits.callback_instances + limits.fence_instances;
    // A lane has one instance and its spare.
    let instances = on_fibers + 2 * limits.modules as u32 + limits::SPARE_INSTANCES;
    // A Rust guest is one core instance with one memory; interpreters bring up to 38 with three.
    let places = Places {
        components: instances,
        core: instances.saturating_mul(16),
        memories: instances.saturating_mul(2),
        tables: instances.saturating_mul(4),
        stacks: on_fibers + limits::SPARE_INSTANCES,
    };
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits, places)));
    made(&config)
}

/// The engine that guests are rehearsed on. Its pool is small, since whoever rehearses can wait; without
/// one, each rehearsal maps and unmaps memory, which all threads of a busy host pay for (measured: a
/// rehearsal took twice as long).
pub(crate) fn rehearsing(limits: &Limits) -> Result<Engine, SandboxError> {
    let mut config = on_this_host(true, limits);
    // Any of them may be the largest that there is.
    let places = Places {
        components: limits::REHEARSALS,
        core: limits::REHEARSALS * limits::CORE_INSTANCES_PER_COMPONENT_MAX,
        memories: limits::REHEARSALS * limits::MEMORIES_PER_COMPONENT_MAX,
        tables: limits::REHEARSALS * limits::TABLES_PER_COMPONENT_MAX,
        stacks: 1,
    };
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits, places)));
    made(&config)
}

fn on_this_host(metered: bool, limits: &Limits) -> Config {
    let mut config = config(metered);
    // Recursion ends here. Fibers have twice that: the host's own functions run on them too.
    config.max_wasm_stack(limits.stack_bytes);
    config.async_stack_size(2 * limits.stack_bytes);
    config
}

fn made(config: &Config) -> Result<Engine, SandboxError> {
    Engine::new(config).map_err(|error| SandboxError::Engine(format!("{error:#}")))
}

/// How much of everything a pool has.
struct Places {
    components: u32,
    core: u32,
    memories: u32,
    tables: u32,
    stacks: u32,
}

/// Memory set aside once, so that an instance costs microseconds and no system calls that grow
/// with threads. These are also hard limits, below those that the limiter counts.
fn pool(limits: &Limits, places: Places) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(places.components);
    pool.total_core_instances(places.core);
    pool.total_memories(places.memories);
    pool.total_tables(places.tables);
    pool.total_stacks(places.stacks);
    pool.max_core_instances_per_component(limits::CORE_INSTANCES_PER_COMPONENT_MAX);
    pool.max_memories_per_component(limits::MEMORIES_PER_COMPONENT_MAX);
    pool.max_tables_per_component(limits::TABLES_PER_COMPONENT_MAX);
    pool.max_memories_per_module(1);
    pool.max_tables_per_module(2);
    pool.max_memory_size(limits.memory_bytes);
    pool.table_elements(limits.table_elements);
    // Python's modules have large tables of imports.
    pool.max_core_instance_size(4 << 20);
    pool.max_component_instance_size(4 << 20);
    // What is kept between two instances in a slot is zeroed instead of given back: measured best
    // at 256 KiB, and only for the pages that were touched.
    pool.linear_memory_keep_resident(256 << 10);
    pool.table_keep_resident(64 << 10);
    pool.async_stack_keep_resident(0);
    pool.pagemap_scan(Enabled::Auto);
    pool
}

/// A hash of all that the machine code depends on: wasmtime's version, the target, the processor's
/// features and every knob that changes code.
pub(crate) fn fingerprint(engine: &Engine) -> [u8; 32] {
    struct Blake(blake3::Hasher);
    impl Hasher for Blake {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut hasher = Blake(blake3::Hasher::new_derive_key("maitred machine code 1"));
    engine.precompile_compatibility_hash().hash(&mut hasher);
    *hasher.0.finalize().as_bytes()
}

/// Starts the clock of the deadlines: a plain thread, because a busy runtime must not stop it. It
/// ends when the engine is gone.
pub(crate) fn tick(engine: EngineWeak) -> Result<JoinHandle<()>, SandboxError> {
    let tick = Duration::from_millis(limits::TICK_MS);
    let run = move || {
        let mut next = Instant::now() + tick;
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            let now = Instant::now();
            // After a pause of the machine, go on from now: a burst of ticks tells nobody anything.
            next = if now > next + 8 * tick {
                now + tick
            } else {
                next + tick
            };
            thread::sleep(next.saturating_duration_since(now));
        }
    };
    thread::Builder::new()
        .name("guest-clock".to_owned())
        .spawn(run)
        .map_err(SandboxError::Thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_does_not_change_the_code_and_fuel_does() {
        let limits = Limits::default();
        let of = |metered| fingerprint(&compiling(metered).unwrap());
        assert_eq!(fingerprint(&running(&limits).unwrap()), of(false));
        assert_eq!(fingerprint(&rehearsing(&limits).unwrap()), of(true));
        assert_ne!(of(false), of(true));
    }

    #[test]
    fn the_clock_ends_with_the_engine() {
        let engine = compiling(false).unwrap();
        let clock = tick(engine.weak()).unwrap();
        assert!(!clock.is_finished());
        drop(engine);
        clock.join().unwrap();
    }

    #[test]
    fn a_knob_that_changes_code_changes_the_fingerprint() {
        let mut other = config(false);
        other.cranelift_nan_canonicalization(false);
        let other = Engine::new(&other).unwrap();
        assert_ne!(fingerprint(&other), fingerprint(&compiling(false).unwrap()));
    }
}

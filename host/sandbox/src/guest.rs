//! What belongs to one instance: its room, its log and its configuration, and how its failures
//! read. All kinds have the same; what callbacks and fences may ask besides is in `node`, what
//! scanners may in `nodes`.

use std::sync::Arc;

use maitred_registry::decide::cut;
use wasmtime::{Engine, ResourceLimiter, Store, Trap};

use crate::bindings::selector::maitred::policy::host::{Host, Level};
use crate::bindings::selector::maitred::policy::{answers, types};
use crate::limits::{self, Limits};
use crate::log;
use crate::meter::Deadline;
use crate::node::Call;
use crate::nodes::View;

/// The data of a store.
pub(crate) struct Guest {
    pub(crate) room: Room,
    /// Whether its engine counts fuel.
    pub(crate) metered: bool,
    /// What a selector's call may compute; where fuel is counted, all of them together.
    pub(crate) deadline: Deadline,
    /// What a callback may ask, within `spawn` and its hooks, and a fence, within `examine`.
    pub(crate) call: Option<Call>,
    /// What a scanner sees, within `scan`.
    pub(crate) view: Option<View>,
    /// Lines that were not logged and not counted yet.
    pub(crate) lines_dropped: u64,
    lines_left: u32,
    name: Arc<str>,
    config: Arc<str>,
}

/// What an instance has taken of memory and tables, all of them summed: wasmtime's own limit is one
/// a memory, and a component may have several.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) memory_bytes: usize,
    memory_bytes_max: usize,
    table_elements: usize,
    table_elements_max: usize,
    /// The limit that was reached last, for the error that mostly follows.
    reached: Option<String>,
}

impl ResourceLimiter for Room {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self
            .memory_bytes
            .saturating_add(desired.saturating_sub(current));
        if total > self.memory_bytes_max {
            self.reached = Some(format!(
                "the memory of {} bytes (limit memory_bytes)",
                self.memory_bytes_max
            ));
            return Ok(false);
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self
            .table_elements
            .saturating_add(desired.saturating_sub(current));
        if total > self.table_elements_max {
            self.reached = Some(format!(
                "{} table elements (limit table_elements)",
                self.table_elements_max
            ));
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }
}

/// A store for one instance. One of no name is on trial: nobody hears what it logs.
pub(crate) fn store(
    engine: &Engine,
    limits: &Limits,
    name: Arc<str>,
    config: Arc<str>,
) -> Store<Guest> {
    let room = Room {
        memory_bytes: 0,
        memory_bytes_max: limits.memory_bytes,
        table_elements: 0,
        table_elements_max: limits.table_elements,
        reached: None,
    };
    let guest = Guest {
        room,
        metered: false,
        deadline: Deadline::of_ms(limits.rehearsal_ms),
        call: None,
        view: None,
        lines_dropped: 0,
        lines_left: limits::LOG_LINES_MAX,
        name,
        config,
    };
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.room);
    store.data_mut().metered = store.set_fuel(u64::MAX).is_ok();
    store.set_hostcall_fuel(limits.border_bytes);
    store.set_max_component_handles(limits::HANDLES_MAX);
    store
}

impl Guest {
    /// Begins a call.
    pub(crate) fn begin(&mut self) {
        self.lines_left = limits::LOG_LINES_MAX;
        self.room.reached = None;
    }

    /// How a failed call reads.
    pub(crate) fn failure(
        &self,
        error: &wasmtime::Error,
        limits: &Limits,
        budget: Budget,
    ) -> Failure {
        let trap = error.downcast_ref::<Trap>();
        let Budget { what, ms, limit } = budget;
        let late = match trap {
            Some(Trap::Interrupt) if self.metered => Some(format!(
                "{what} took more than {} ms, with the calls before it (limit rehearsal_ms)",
                limits.rehearsal_ms
            )),
            Some(Trap::Interrupt) => Some(format!(
                "{what} computed for more than {ms} ms (limit {limit})"
            )),
            Some(Trap::OutOfFuel) => Some(format!(
                "{what} computed for more than {ms} ms, at {} units of fuel each (limit {limit})",
                limits.fuel_per_ms
            )),
            _ => None,
        };
        if let Some(reason) = late {
            return Failure {
                timeout: true,
                reason,
            };
        }
        let mut reason = match trap {
            Some(Trap::StackOverflow) => format!(
                "trapped: recursion beyond a stack of {} bytes (limit stack_bytes)",
                limits.stack_bytes
            ),
            Some(trap) => format!("trapped: {trap}"),
            None => format!("failed: {}", error.root_cause()),
        };
        if reason.contains("fuel allocated for hostcalls") {
            reason = format!(
                "handed the host more than {} bytes in one call (limit border_bytes)",
                limits.border_bytes
            );
        }
        if let Some(reached) = &self.room.reached {
            reason = format!("{reason}, after it had reached {reached}");
        }
        Failure {
            timeout: false,
            reason: cut(reason),
        }
    }
}

/// What a call may take, for the text of its failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) what: &'static str,
    pub(crate) ms: u64,
    pub(crate) limit: &'static str,
}

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) timeout: bool,
    pub(crate) reason: String,
}

impl types::Host for Guest {}

impl answers::Host for Guest {}

impl Host for Guest {
    fn log(&mut self, level: Level, text: String) {
        self.write(level, &text);
    }

    fn config(&mut self) -> String {
        self.configuration()
    }
}

impl Guest {
    /// `host.log`.
    pub(crate) fn write(&mut self, level: Level, text: &str) {
        // What is only tried must not read as if it had happened.
        let tried = self.metered || self.name.is_empty();
        if !tried && !is_written(level) {
            // Nobody reads it, so it takes nothing from the lines that somebody does.
            return;
        }
        if tried || self.lines_left == 0 {
            self.lines_dropped += 1;
            return;
        }
        // Counted before it is asked for: a loop asks so often a call, and no more.
        self.lines_left -= 1;
        if !log::admit(&self.name) {
            self.lines_dropped += 1;
            return;
        }
        let mut end = limits::LOG_LINE_BYTES_MAX.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let (module, text) = (&*self.name, &text[..end]);
        // Quoted: a line break in a guest's text must not pass for a line of the host.
        match level {
            Level::Debug => tracing::debug!(target: "guest", module, ?text),
            Level::Info => tracing::info!(target: "guest", module, ?text),
            Level::Warn => tracing::warn!(target: "guest", module, ?text),
            Level::Error => tracing::error!(target: "guest", module, ?text),
        }
    }

    /// `host.config`.
    pub(crate) fn configuration(&self) -> String {
        self.config.as_ref().to_owned()
    }
}

/// Whether lines of this level go anywhere.
fn is_written(level: Level) -> bool {
    match level {
        Level::Debug => tracing::enabled!(target: "guest", tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: "guest", tracing::Level::INFO),
        Level::Warn => tracing::enabled!(target: "guest", tracing::Level::WARN),
        Level::Error => tracing::enabled!(target: "guest", tracing::Level::ERROR),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn lines_that_nobody_reads_take_none_from_those_that_somebody_does() {
        static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());
        struct Written;
        impl io::Write for Written {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                WRITTEN.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let heard = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_writer(|| Written);
        let limits = Limits::default();
        let mut store = store(&Engine::default(), &limits, "talker".into(), "{}".into());
        let guest = store.data_mut();
        // It counts no fuel, whatever the engine of this test has.
        guest.metered = false;
        tracing::subscriber::with_default(heard.finish(), || {
            for _ in 0..limits::LOG_BURST {
                guest.begin();
                for _ in 0..limits::LOG_LINES_MAX {
                    guest.write(Level::Debug, "a detail");
                }
                guest.write(Level::Error, "a failure");
            }
            assert_eq!(guest.lines_dropped, 0);
            guest.begin();
            for _ in 0..1_000 {
                guest.write(Level::Error, "a flood");
            }
        });
        let written = String::from_utf8(WRITTEN.lock().unwrap().clone()).unwrap();
        let failures = written.matches("a failure").count() as u32;
        assert_eq!(failures, limits::LOG_BURST, "{written}");
        assert!(!written.contains("a detail"));
        assert!(guest.lines_dropped >= 1_000 - u64::from(limits::LOG_LINES_MAX));
    }
}

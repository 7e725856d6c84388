//! Raft logs through slog; this passes it on to tracing.

use slog::{Drain, Level, Never, OwnedKVList, Record};

/// A logger whose records become events of tracing.
pub(crate) fn logger() -> slog::Logger {
    slog::Logger::root(Bridge, slog::o!())
}

struct Bridge;

/// Collects the key and value pairs of a record, ` key=value` each.
struct Pairs(String);

impl slog::Serializer for Pairs {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        use std::fmt::Write;
        Ok(write!(self.0, " {key}={value}")?)
    }
}

impl Drain for Bridge {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        use slog::KV;
        let mut pairs = Pairs(String::new());
        // A pair that cannot be written is left out.
        let _ = record.kv().serialize(record, &mut pairs);
        let text = format_args!("{}{}", record.msg(), pairs.0);
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{text}"),
            Level::Warning => tracing::warn!(target: "raft", "{text}"),
            // What Raft calls information is of use only to those who look for something.
            Level::Info | Level::Debug => tracing::debug!(target: "raft", "{text}"),
            Level::Trace => tracing::trace!(target: "raft", "{text}"),
        }
        Ok(())
    }
}

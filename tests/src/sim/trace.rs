//! What happened, line by line, for people. Kept only when asked for: a run is repeated for it.

use std::collections::VecDeque;
use std::fmt;

/// Lines that are kept; the oldest go first.
const LINES_MAX: usize = 200_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Trace {
    on: bool,
    lines: VecDeque<String>,
}

impl Trace {
    /// One that keeps lines, or one that does not.
    #[must_use]
    pub fn new(on: bool) -> Self {
        Self {
            on,
            lines: VecDeque::new(),
        }
    }

    /// Adds a line; `text` is only spelt out when somebody wants it.
    pub fn say(&mut self, at_us: u64, text: fmt::Arguments<'_>) {
        if !self.on {
            return;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        let (seconds, micros) = (at_us / 1_000_000, at_us % 1_000_000);
        self.lines
            .push_back(format!("{seconds:3}.{micros:06} {text}"));
    }

    /// The last `count` lines, oldest first.
    pub fn last(&self, count: usize) -> impl Iterator<Item = &str> {
        let skip = self.lines.len().saturating_sub(count);
        self.lines.iter().skip(skip).map(String::as_str)
    }
}

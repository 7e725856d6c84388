//! What a run really met: how often each fault and each interesting event occurred.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by name.
#[derive(Debug, Clone, Default)]
pub struct Cover(BTreeMap<&'static str, u64>);

impl Cover {
    /// Once more.
    pub fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_insert(0) += 1;
    }

    /// How often.
    #[must_use]
    pub fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_insert(0) += count;
        }
    }
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.0 {
            writeln!(f, "  {count:>12}  {what}")?;
        }
        Ok(())
    }
}

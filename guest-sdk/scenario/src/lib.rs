//! Scenario files: nodes, requests, and what a policy has to make of them.
//!
//! It decides the format of `scenario.toml` and whether a run keeps to it. It runs nothing itself: the
//! native harness of the SDK and the sandbox both do, and hand in what happened as plain data. It
//! knows no WIT, no component, no registry, and no file but the text that it is given.
#![doc = include_str!("../README.md")]

mod case;
mod file;
mod json;
mod judge;
mod node;

pub use case::{Case, Decision, Request};
pub use judge::{Failure, Made, Outcome, Run};
pub use node::Node;

use std::fmt;

/// Bytes of a scenario file.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Nodes in a file, those that `count` makes included.
pub const NODES_MAX: usize = 10_000;
/// Cases in a file.
pub const CASES_MAX: usize = 1_000;
/// Decisions in all cases of a file, those without a removed node included.
pub const DECISIONS_MAX: usize = 1_000_000;
/// Bytes of a configuration as JSON.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Scenario {
    cases: Vec<Case>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Where, counted from 1; none when it is about the whole file.
    pub line: Option<usize>,
    /// A sentence.
    pub what: String,
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, and in which line: bad TOML, a key that does not exist, a number out of
    /// bounds, a name that no node has.
    pub fn parse(text: &str) -> Result<Self, Error> {
        file::parse(text).map(|cases| Self { cases })
    }

    /// The cases, in the order of the file; at least one.
    #[must_use]
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;

//! Scenario files: nodes, requests, and what a policy has to make of them.
//!
//! It decides the format of `scenario.toml` and whether a run keeps to it. It runs nothing itself: the
//! native harness of the SDK and the sandbox both do, and hand in what happened as plain data. It
//! knows no WIT, no component, no registry, and no file but the text that it is given.
//!
//! ```toml
//! [config]                         # for the policy: JSON, written as TOML; {} without it
//! label = "rack"
//!
//! [[node]]
//! name = "n"                       # with count = 3: n-0, n-1 and n-2
//! count = 3
//! labels = { zone = "north" }
//! types = ["player"]               # hosts only these; all without it
//! capacity = 10                    # units; no limit without it
//! processes = 5                    # all of them; the sum of processes-of-type unless said
//! processes-of-type = { player = 3 }
//! processes-of-group = { party = 2 }
//! used = 7                         # units taken; as many as processes unless said
//! cordoned = true
//! cpu = 0.5
//! memory-free-mib = 1024
//! counters = { players = 3 }
//! load-age-ms = 500                # and in-flight, placed-1s, placed-10s, placed-60s,
//! node-age-ms = 9000               # since-placed-ms
//!
//! [[case]]
//! name = "level"
//! config = { label = "zone" }      # instead of the file's
//! seed = 7                         # of the first decision; the others' are made from it
//! time = 1700000000                # seconds since 1970
//! place = false                    # decisions do not see each other's processes
//! node.n-2 = { cordoned = true }   # for this case, of a node or of all that one [[node]] makes;
//!                                  # `absent = true` takes it away, maps are merged
//! [case.request]
//! type = "player"
//! id = "p"                         # with count = 300: p-0 to p-299, one after another
//! count = 300
//! group = "party"                  # with group-size = 4: party-0 for the first four, and so on
//! group-size = 4
//! requester = "n-1"
//! previous = "n-0"
//! require = { zone = "north" }
//! demand = 20                      # with demand-max: drawn evenly from one to the other
//! demand-max = 100
//! priority = 0
//! latencies = { north = 20 }       # by the value of a label, in milliseconds
//!
//! [case.expect]                    # at most one of the answers, which every decision then gives:
//! node = "n-1"                     # one-of = ["n-0", "n-1"]; ranked = ["n-0", "n-1"]; none = true;
//!                                  # reject = 7 (the code); wait = true; error = "text in it".
//!                                  # Without one, every decision has to choose a node.
//!                                  # And any of these, which speak of the whole case:
//! gap = 1.0                        # most processes on a node less the average
//! max-share = 0.5                  # of the case's processes on one node
//! spread = { label = "zone", gap = 1 }  # processes of the type, between values of the label
//! same-node = true                 # all processes of a group (of the case, without groups)
//! distinct = true                  # no two processes of a group on a node
//! moved-when-removed = { node = "n-2", at-most = 0.02 }
//!                                  # share of the ids that choose otherwise without that node
//! cost-ratio = 1.07                # nodes in use by the fewest that could hold everything
//! fuel = 20000                     # each decision at most, where a runner measures it
//! micros = 50.0                    # the median decision at most, where a runner measures it
//! ```
//!
//! `gap`, `spread` and `cost-ratio` count what ran before, too, on every node that the case's
//! requests could be offered (cordoned nodes, other types and other labels do not count).

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

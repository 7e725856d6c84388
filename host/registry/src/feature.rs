//! The catalogue of features: what a selector can ask to see of a node.
//!
//! A new feature is a new name here (and a line in `wit/policy.wit`), never a new field there. A
//! value that is not known is NaN.

use std::fmt;
use std::str::FromStr;

pub use maitred_protocol::limits::RANKED_MAX;

/// Columns that one selector may ask for.
pub const FEATURES_MAX: usize = 32;

/// Terms that one selector may score by.
pub const TERMS_MAX: usize = 8;

/// Nodes that an answer may give scores of.
pub const SCORED_MAX: usize = 5;

/// Milliseconds for which a selector may ask to be asked again.
pub const WAIT_MS: std::ops::RangeInclusive<u32> = 10..=60_000;

/// Candidates that one selector may be offered.
pub const CANDIDATES_MAX: u32 = 1_024;

/// One column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Processes on the node, placements in flight included.
    Processes,
    /// The same, of the request's type.
    ProcessesOfType,
    /// The same, of the request's group.
    ProcessesOfGroup,
    /// Placements decided and not yet running.
    InFlight,
    /// Placements of the last second.
    Placed1s,
    /// Placements of the last ten seconds.
    Placed10s,
    /// Placements of the last minute.
    Placed60s,
    /// Milliseconds since the last placement there.
    SincePlacedMs,
    /// Units declared.
    Capacity,
    /// Units free.
    CapacityLeft,
    /// Reported, 0.0 to 1.0.
    Cpu,
    /// Reported.
    MemoryFreeMib,
    /// Milliseconds since the report.
    LoadAgeMs,
    /// Milliseconds since the node registered.
    NodeAgeMs,
    /// 24 bits of a hash of the name.
    NameHash,
    /// 1 on the node that asked.
    Requester,
    /// 1 on the node of the life before.
    Previous,
    /// A number for the value of a label.
    Label(String),
    /// 1 where a label has the value that it has on the node that asked.
    Local(String),
    /// 1 where a label has this value.
    Has(String, String),
    /// What the create says of the value of a label, in milliseconds.
    Latency(String),
    /// A counter that the node reports.
    Counter(String),
}

/// A name that is not in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown feature {0:?}; known are processes, processes-of-type, processes-of-group, in-flight, \
     placed-1s, placed-10s, placed-60s, since-placed-ms, capacity, capacity-left, cpu, \
     memory-free-mib, load-age-ms, node-age-ms, name-hash, requester, previous, label:KEY, \
     has:KEY=VALUE, local:KEY, latency:KEY and counter:NAME"
)]
pub struct UnknownFeature(pub String);

impl FromStr for Feature {
    type Err = UnknownFeature;

    fn from_str(text: &str) -> Result<Self, UnknownFeature> {
        Ok(match text {
            "processes" => Self::Processes,
            "processes-of-type" => Self::ProcessesOfType,
            "processes-of-group" => Self::ProcessesOfGroup,
            "in-flight" => Self::InFlight,
            "placed-1s" => Self::Placed1s,
            "placed-10s" => Self::Placed10s,
            "placed-60s" => Self::Placed60s,
            "since-placed-ms" => Self::SincePlacedMs,
            "capacity" => Self::Capacity,
            "capacity-left" => Self::CapacityLeft,
            "cpu" => Self::Cpu,
            "memory-free-mib" => Self::MemoryFreeMib,
            "load-age-ms" => Self::LoadAgeMs,
            "node-age-ms" => Self::NodeAgeMs,
            "name-hash" => Self::NameHash,
            "requester" => Self::Requester,
            "previous" => Self::Previous,
            _ => match text.split_once(':') {
                Some(("label", key)) if !key.is_empty() => Self::Label(key.to_owned()),
                Some(("local", key)) if !key.is_empty() => Self::Local(key.to_owned()),
                Some(("has", pair)) => match pair.split_once('=') {
                    Some((key, value)) if !key.is_empty() => {
                        Self::Has(key.to_owned(), value.to_owned())
                    }
                    _ => return Err(UnknownFeature(text.chars().take(80).collect())),
                },
                Some(("latency", key)) if !key.is_empty() => Self::Latency(key.to_owned()),
                Some(("counter", name)) if !name.is_empty() => Self::Counter(name.to_owned()),
                _ => return Err(UnknownFeature(text.chars().take(80).collect())),
            },
        })
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Processes => "processes",
            Self::ProcessesOfType => "processes-of-type",
            Self::ProcessesOfGroup => "processes-of-group",
            Self::InFlight => "in-flight",
            Self::Placed1s => "placed-1s",
            Self::Placed10s => "placed-10s",
            Self::Placed60s => "placed-60s",
            Self::SincePlacedMs => "since-placed-ms",
            Self::Capacity => "capacity",
            Self::CapacityLeft => "capacity-left",
            Self::Cpu => "cpu",
            Self::MemoryFreeMib => "memory-free-mib",
            Self::LoadAgeMs => "load-age-ms",
            Self::NodeAgeMs => "node-age-ms",
            Self::NameHash => "name-hash",
            Self::Requester => "requester",
            Self::Previous => "previous",
            Self::Label(key) => return write!(f, "label:{key}"),
            Self::Local(key) => return write!(f, "local:{key}"),
            Self::Has(key, value) => return write!(f, "has:{key}={value}"),
            Self::Latency(key) => return write!(f, "latency:{key}"),
            Self::Counter(name) => return write!(f, "counter:{name}"),
        })
    }
}

/// How a selector wants its candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// All that passed the filter, to [`CANDIDATES_MAX`].
    All,
    /// So many at random.
    Sample(u32),
    /// Those with the lowest value of a feature.
    Lowest(Feature, u32),
    /// None by themselves: it looks at the fleet. A scanner.
    Scan,
}

/// What a selector is and what it wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it calls itself: name and version.
    pub title: String,
    /// Its columns, at most [`FEATURES_MAX`]; of a scanner, those that it may look at.
    pub features: Vec<Feature>,
    /// Names of its score terms, at most [`TERMS_MAX`].
    pub terms: Vec<String>,
    /// Its candidates.
    pub ask: Ask,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for name in [
            "processes",
            "processes-of-type",
            "processes-of-group",
            "in-flight",
            "placed-1s",
            "placed-10s",
            "placed-60s",
            "capacity",
            "capacity-left",
            "cpu",
            "memory-free-mib",
            "load-age-ms",
            "since-placed-ms",
            "node-age-ms",
            "name-hash",
            "requester",
            "previous",
            "local:zone",
            "latency:region",
            "has:disk=ssd",
            "has:a=b=c",
            "label:zone",
            "counter:seats",
        ] {
            assert_eq!(name.parse::<Feature>().unwrap().to_string(), name);
        }
        assert!("label:".parse::<Feature>().is_err());
        assert!("rtt".parse::<Feature>().is_err());
    }
}

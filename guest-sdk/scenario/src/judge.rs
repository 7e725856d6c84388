//! Whether what a runner did is what a case expects.

mod properties;

use std::fmt;

use serde::Deserialize;

use crate::case::Case;
use crate::node::Node;

/// What a runner did with one case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// One for each of [`Case::decisions`].
    pub first: Vec<Made>,
    /// The same without [`Case::removed`]; empty when there is no such node.
    pub again: Vec<Made>,
}

/// One decision that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// What came of it.
    pub outcome: Outcome,
    /// Fuel that it took, where that is measured.
    pub fuel: Option<u64>,
    /// Microseconds that it took, where that is measured.
    pub micros: Option<f64>,
}

/// What came of a decision. Nodes are places in [`Case::nodes`], in the second run, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This node.
    Node(usize),
    /// The first of these that takes it.
    Ranked(Vec<usize>),
    /// No node.
    None,
    /// A deliberate no.
    Reject {
        /// The policy's own number.
        code: u32,
        /// For people.
        reason: String,
    },
    /// Again after so many milliseconds.
    Wait(u32),
    /// The policy is broken, refused its configuration, or answered what a host does not take.
    Error(String),
}

/// What a case expects and did not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The decision, counted from 0; none when it is about the whole case.
    pub decision: Option<usize>,
    /// A sentence.
    pub what: String,
}

/// Failures of one case that are told one by one.
const TOLD_MAX: usize = 10;

/// The table `expect` of a case.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Expect {
    node: Option<String>,
    one_of: Option<Vec<String>>,
    ranked: Option<Vec<String>>,
    none: bool,
    reject: Option<u32>,
    wait: bool,
    error: Option<String>,
    gap: Option<f64>,
    max_share: Option<f64>,
    spread: Option<Spread>,
    same_node: bool,
    distinct: bool,
    #[serde(rename = "moved-when-removed", deserialize_with = "moved")]
    pub(crate) moved: Option<(String, f64)>,
    cost_ratio: Option<f64>,
    fuel: Option<u64>,
    micros: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Spread {
    label: String,
    gap: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Moved {
    node: String,
    at_most: f64,
}

fn moved<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<(String, f64)>, D::Error> {
    let moved = Moved::deserialize(from)?;
    Ok(Some((moved.node, moved.at_most)))
}

impl Expect {
    /// Whether a case on `nodes` can be judged by it.
    pub(crate) fn check(&self, known: &dyn Fn(&str) -> bool, nodes: &[Node]) -> Result<(), String> {
        let answers = [
            self.node.is_some(),
            self.one_of.is_some(),
            self.ranked.is_some(),
            self.none,
            self.reject.is_some(),
            self.wait,
            self.error.is_some(),
        ];
        if answers.into_iter().filter(|&given| given).count() > 1 {
            return Err("one answer at most can be expected".to_owned());
        }
        let lists = [&self.one_of, &self.ranked].into_iter().flatten();
        let mut names = self
            .node
            .iter()
            .chain(lists.flatten())
            .chain(self.moved.as_ref().map(|(node, _)| node));
        if let Some(name) = names.find(|name| !known(name)) {
            return Err(format!("no node `{name}` in this case"));
        }
        let numbers = [self.gap, self.max_share, self.cost_ratio, self.micros];
        let moved = self.moved.as_ref().map(|(_, at_most)| *at_most);
        let mut numbers = numbers.into_iter().chain([moved]).flatten();
        if numbers.any(|number| !number.is_finite() || number < 0.0) {
            return Err("a limit is a finite number and not below 0".to_owned());
        }
        if self.cost_ratio.is_some() && nodes.iter().any(|node| node.capacity.is_none()) {
            return Err("`cost-ratio` needs a `capacity` of every node".to_owned());
        }
        Ok(())
    }

    /// What is wrong with one outcome.
    fn misses(&self, outcome: &Outcome, nodes: &[Node]) -> Option<String> {
        let name = |place: &usize| {
            let node = nodes.get(*place);
            node.map_or("a node that is not there", |node| node.name.as_str())
        };
        let got = || match outcome {
            Outcome::Node(place) => name(place).to_owned(),
            Outcome::Ranked(places) => {
                let names: Vec<_> = places.iter().map(name).collect();
                format!("the ranking {}", names.join(", "))
            }
            Outcome::None => "no node".to_owned(),
            Outcome::Reject { code, reason } => format!("the rejection {code} ({reason})"),
            Outcome::Wait(milliseconds) => format!("a wait of {milliseconds} ms"),
            Outcome::Error(error) => format!("the error: {error}"),
        };
        let first = outcome.node().as_ref().map(name);
        let (holds, wanted) = if let Some(node) = &self.node {
            (first == Some(node), node.clone())
        } else if let Some(nodes) = &self.one_of {
            let holds = first.is_some_and(|first| nodes.iter().any(|node| node == first));
            (holds, format!("one of {}", nodes.join(", ")))
        } else if let Some(nodes) = &self.ranked {
            let holds = match outcome {
                Outcome::Ranked(places) => places.iter().map(name).eq(nodes),
                _ => false,
            };
            (holds, format!("the ranking {}", nodes.join(", ")))
        } else if self.none {
            (*outcome == Outcome::None, "no node".to_owned())
        } else if let Some(wanted) = self.reject {
            let holds = matches!(outcome, Outcome::Reject { code, .. } if *code == wanted);
            (holds, format!("the rejection {wanted}"))
        } else if self.wait {
            (matches!(outcome, Outcome::Wait(_)), "a wait".to_owned())
        } else if let Some(part) = &self.error {
            let holds = matches!(outcome, Outcome::Error(error) if error.contains(part));
            (holds, format!("an error with `{part}` in it"))
        } else {
            (
                first.is_some_and(|_| outcome.node() < Some(nodes.len())),
                "a node".to_owned(),
            )
        };
        (!holds).then(|| format!("{wanted} was expected, it was {}", got()))
    }
}

impl Outcome {
    /// The node that the process goes to first.
    #[must_use]
    pub fn node(&self) -> Option<usize> {
        match self {
            Self::Node(place) => Some(*place),
            Self::Ranked(places) => places.first().copied(),
            Self::None | Self::Reject { .. } | Self::Wait(_) | Self::Error(_) => None,
        }
    }
}

impl Case {
    /// What of the case's expectations `run` does not keep; empty when it passed. At most ten
    /// decisions are named one by one.
    #[must_use]
    pub fn judge(&self, run: &Run) -> Vec<Failure> {
        let nodes = self.nodes();
        let mut failures = Vec::new();
        let passes = [(&run.first, true), (&run.again, self.removed().is_some())];
        for (made, wanted) in passes {
            let count = if wanted { self.count() } else { 0 };
            if made.len() != count {
                let what = format!("{} decisions were made of {count}", made.len());
                return vec![whole(what)];
            }
        }
        for (at, made) in run.first.iter().enumerate() {
            if let Some(what) = self.expect.misses(&made.outcome, &nodes) {
                failures.push(one(at, what));
            }
            let most = self.expect.fuel.unwrap_or(u64::MAX);
            if let Some(fuel) = made.fuel.filter(|&fuel| fuel > most) {
                failures.push(one(at, format!("{fuel} of fuel, {most} at most")));
            }
        }
        if failures.len() > TOLD_MAX {
            let more = failures.len() - TOLD_MAX;
            failures.truncate(TOLD_MAX);
            failures.push(whole(format!("{more} more like these")));
        }
        failures.extend(self.properties(run, &nodes).into_iter().map(whole));
        failures
    }
}

fn whole(what: String) -> Failure {
    let decision = None;
    Failure { decision, what }
}

fn one(at: usize, what: String) -> Failure {
    let decision = Some(at);
    Failure { decision, what }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decision {
            Some(at) => write!(f, "decision {at}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

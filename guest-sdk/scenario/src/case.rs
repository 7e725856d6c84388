//! A case: what it finds, what it asks for, one decision after another.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::judge::Expect;
use crate::node::Node;

/// A case of a scenario.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the file calls it.
    pub name: String,
    /// Where it stands in the file, counted from 1.
    pub line: usize,
    /// The policy's configuration, as JSON.
    pub config: String,
    /// What all its decisions have in common.
    pub request: Request,
    /// Seconds since 1970 at every decision.
    pub time: u32,
    /// Whether what one decision chooses is there for the next one.
    pub place: bool,
    pub(crate) base: Arc<[Node]>,
    /// Nodes that are different here, by their place in `base`; none for one that is not there.
    pub(crate) different: BTreeMap<usize, Option<Node>>,
    pub(crate) ids: Ids,
    pub(crate) expect: Expect,
}

/// What all decisions of a case have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The process type.
    pub process_type: String,
    /// The node that asks.
    pub requester: Option<String>,
    /// The node where the last life ran.
    pub previous: Option<String>,
    /// Labels that the node must carry.
    pub require: BTreeMap<String, String>,
    /// Larger is more important.
    pub priority: i32,
    /// Milliseconds by the value of a label.
    pub latencies: BTreeMap<String, u32>,
}

/// What is drawn up for each decision.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    pub(crate) id: String,
    /// None for one decision, whose id has no number.
    pub(crate) count: Option<usize>,
    pub(crate) group: Option<String>,
    pub(crate) group_size: Option<usize>,
    pub(crate) demand: (u32, u32),
    pub(crate) seed: u32,
}

/// What is different from one decision to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The process id.
    pub id: String,
    /// Its party.
    pub group: Option<String>,
    /// Units that it takes.
    pub demand: u32,
    /// The seed of the decision.
    pub seed: u32,
}

impl Case {
    /// The nodes as the case finds them.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        let nodes = self.base.iter().enumerate();
        nodes
            .filter_map(|(at, node)| match self.different.get(&at) {
                Some(other) => other.clone(),
                None => Some(node.clone()),
            })
            .collect()
    }

    /// How many decisions it makes.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ids.count.unwrap_or(1)
    }

    /// The decisions, in order.
    pub fn decisions(&self) -> impl Iterator<Item = Decision> {
        (0..self.count()).map(|at| self.decision(at))
    }

    /// The decision at `at`, counted from 0.
    #[must_use]
    pub fn decision(&self, at: usize) -> Decision {
        let ids = &self.ids;
        let seed = match at {
            0 => ids.seed,
            _ => (mix(u64::from(ids.seed) << 32 | at as u64) >> 32) as u32,
        };
        let (least, most) = ids.demand;
        let width = u64::from(most - least) + 1;
        Decision {
            id: numbered(&ids.id, ids.count.map(|_| at)),
            group: ids
                .group
                .as_ref()
                .map(|group| numbered(group, ids.group_size.map(|size| at / size))),
            // Another draw than the seed, so that a policy's chance and the demand go apart.
            demand: least + (((mix(!u64::from(seed)) >> 32) * width) >> 32) as u32,
            seed,
        }
    }

    /// The node, by its place in [`nodes`](Self::nodes), without which all decisions are made a
    /// second time, on nodes as [`nodes`](Self::nodes) has them.
    #[must_use]
    pub fn removed(&self) -> Option<usize> {
        let (name, _) = self.expect.moved.as_ref()?;
        let mut names = self.base.iter().enumerate().filter_map(|(at, node)| {
            (!matches!(self.different.get(&at), Some(None))).then_some(&node.name)
        });
        names.position(|have| have == name)
    }
}

fn numbered(name: &str, number: Option<usize>) -> String {
    number.map_or_else(|| name.to_owned(), |number| format!("{name}-{number}"))
}

/// The finaliser of SplitMix64, after one step.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

//! Nodes, as a test describes them, and what decisions have made of them.

use std::collections::BTreeMap;

use super::features::Node;
use crate::{Chance, Request};

/// Nodes in the order in which they were added; the setters speak of the last one added. Its clock
/// starts at 0, and goes on by a millisecond with every process that is placed.
///
/// ```
/// use maitred_guest::testing::Fleet;
/// let fleet = Fleet::new().node("a").processes(3).label("zone", "north").node("b").capacity(10);
/// assert_eq!(fleet.loads(), [3, 0]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    pub(super) nodes: Vec<Node>,
    pub(super) now_ms: u64,
    /// What creates say of the values of a label, in milliseconds.
    pub(super) latencies: BTreeMap<String, f32>,
    /// Labels that creates demand.
    pub(super) require: BTreeMap<String, String>,
}

impl Fleet {
    /// No nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `count` equal nodes with nothing on them, `node-0` to `node-{count - 1}`.
    #[must_use]
    pub fn of(count: usize) -> Self {
        (0..count).fold(Self::new(), |fleet, index| {
            fleet.node(&format!("node-{index}"))
        })
    }

    /// Adds a node without processes, of unlimited capacity, that has reported no load.
    #[must_use]
    pub fn node(mut self, name: &str) -> Self {
        self.nodes.push(Node {
            name: name.to_owned(),
            ..Node::default()
        });
        self
    }

    /// Processes that run on the node, of a type that no request names.
    #[must_use]
    pub fn processes(self, count: u32) -> Self {
        self.processes_of_type("", count)
    }

    /// Processes of one type that run on the node; each takes one unit of capacity.
    #[must_use]
    pub fn processes_of_type(self, process_type: &str, count: u32) -> Self {
        self.last(|node| {
            node.processes.insert(process_type.to_owned(), count);
            node.used += count;
        })
    }

    /// How many of the node's processes are of one group.
    #[must_use]
    pub fn processes_of_group(self, group: &str, count: u32) -> Self {
        self.last(|node| {
            node.groups.insert(group.to_owned(), count);
        })
    }

    /// The units that the node declared.
    #[must_use]
    pub fn capacity(self, units: u32) -> Self {
        self.last(|node| node.capacity = Some(units))
    }

    /// A label of the node.
    #[must_use]
    pub fn label(self, key: &str, value: &str) -> Self {
        self.last(|node| {
            node.labels.insert(key.to_owned(), value.to_owned());
        })
    }

    /// The node takes no new processes: it is not offered.
    #[must_use]
    pub fn cordoned(self) -> Self {
        self.last(|node| node.cordoned = true)
    }

    /// A type that the node hosts; without any it hosts all.
    #[must_use]
    pub fn hosts(self, process_type: &str) -> Self {
        self.last(|node| node.hosts.push(process_type.to_owned()))
    }

    /// A value of the catalogue that the fleet does not work out by itself: `cpu`,
    /// `memory-free-mib`, `in-flight`, `counter:NAME`, and, as they were at the start, `load-age-ms`,
    /// `node-age-ms`, `since-placed-ms` and `placed-1s`…
    #[must_use]
    pub fn feature(self, name: &str, value: f32) -> Self {
        self.last(|node| {
            node.features.insert(name.to_owned(), value);
        })
    }

    fn last(mut self, change: impl FnOnce(&mut Node)) -> Self {
        change(self.nodes.last_mut().expect("a setter follows `node`"));
        self
    }

    /// Milliseconds that every request says for the value `value` of a label; see `latency:KEY`.
    #[must_use]
    pub fn latency(mut self, value: &str, milliseconds: u32) -> Self {
        self.latencies.insert(value.to_owned(), milliseconds as f32);
        self
    }

    /// A label that every request demands: other nodes are not offered.
    #[must_use]
    pub fn require(mut self, key: &str, value: &str) -> Self {
        self.require.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The same fleet so many milliseconds later.
    #[must_use]
    pub fn later(mut self, milliseconds: u64) -> Self {
        self.now_ms += milliseconds;
        self
    }

    /// The same fleet without one node.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.nodes.retain(|node| node.name != name);
        self
    }

    /// The same fleet in another order, so that every node has another slot.
    #[must_use]
    pub fn shuffled(mut self, seed: u32) -> Self {
        shuffle(&mut self.nodes, seed);
        self
    }

    /// Processes on each node, in the order of the nodes.
    #[must_use]
    pub fn loads(&self) -> Vec<u32> {
        self.nodes.iter().map(Node::load).collect()
    }

    /// The most processes on a node less the average.
    #[must_use]
    pub fn gap(&self) -> f64 {
        let loads = self.loads();
        let most = loads.iter().copied().max().unwrap_or(0);
        f64::from(most)
            - loads.iter().copied().map(f64::from).sum::<f64>() / loads.len().max(1) as f64
    }

    /// Processes of `process_type` by the value of label `key`, nodes without the label under "".
    #[must_use]
    pub fn by_label(&self, key: &str, process_type: &str) -> BTreeMap<String, u32> {
        let mut sums = BTreeMap::new();
        for node in &self.nodes {
            *sums
                .entry(node.labels.get(key).cloned().unwrap_or_default())
                .or_default() += node.of_type(process_type);
        }
        sums
    }

    /// Puts a process on the node at `slot`.
    pub(super) fn put(&mut self, slot: usize, request: &Request) {
        self.nodes[slot].put(request, self.now_ms);
        self.now_ms += 1;
    }
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], seed: u32) {
    draw(items, items.len(), seed);
}

/// Puts `count` items that are drawn without replacement first.
pub(super) fn draw<T>(items: &mut [T], count: usize, seed: u32) {
    // Drawn apart from the policy's own numbers, which start from the same seed.
    let mut chance = Chance::new(seed ^ 0x5eed_f1ee);
    for at in 0..count.min(items.len()) {
        items.swap(at, at + chance.below((items.len() - at) as u32) as usize);
    }
}

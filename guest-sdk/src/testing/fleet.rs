//! Nodes, what a selector sees of them, and what it does to them.

use std::collections::BTreeMap;

use super::{CANDIDATES_MAX, FEATURES_MAX, Lists, SelectorInstance, TestHost};
use crate::{Ask, Chance, Request, Selector, Slot};

/// Nodes in the order in which they were added; the setters speak of the last one added.
///
/// ```
/// use maitred_guest::testing::Fleet;
/// let fleet = Fleet::new().node("a").processes(3).label("zone", "north").node("b").capacity(10);
/// assert_eq!(fleet.loads(), [3, 0]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    name: String,
    /// Processes by type, those that the fleet started with under the empty type.
    processes: BTreeMap<String, u32>,
    groups: BTreeMap<String, u32>,
    capacity: Option<u32>,
    used: u32,
    labels: BTreeMap<String, String>,
    features: BTreeMap<String, f32>,
}

/// Why a selector's answer could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The manifest is out of bounds, or names a feature that the catalogue does not have.
    Manifest(String),
    /// The selector answered with an error.
    Broken(String),
    /// The selector answered with a slot that was not offered.
    BadSlot(Slot),
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

    /// A value of the catalogue that the fleet does not work out by itself: `cpu`,
    /// `memory-free-mib`, `load-age-ms`, `in-flight`, `placed-1s`…, `counter:NAME`.
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

    /// What a fresh instance of `S` without configuration answers: the node's name.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn decide<S: Selector>(&self, request: &Request) -> Result<Option<String>, Refusal> {
        let host = TestHost::default();
        self.decide_with(&SelectorInstance::<S>::new(&host), request, &host)
    }

    /// The same for a fresh instance with a configuration.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn decide_configured<S: Selector>(
        &self,
        request: &Request,
        config: &str,
    ) -> Result<Option<String>, Refusal> {
        let host = TestHost::with_config(config);
        self.decide_with(&SelectorInstance::<S>::new(&host), request, &host)
    }

    /// The same for an instance that the test made.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn decide_with<S: Selector>(
        &self,
        instance: &SelectorInstance<S>,
        request: &Request,
        host: &TestHost,
    ) -> Result<Option<String>, Refusal> {
        let lists = self.offer(instance, request)?;
        if lists.slots.is_empty() {
            return Ok(None);
        }
        let Some(slot) = instance
            .select(request, &lists, host)
            .map_err(Refusal::Broken)?
        else {
            return Ok(None);
        };
        if lists.slots.contains(&slot) {
            Ok(Some(self.nodes[slot as usize].name.clone()))
        } else {
            Err(Refusal::BadSlot(slot))
        }
    }

    /// Decides, and puts the process on the node that was chosen.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn place<S: Selector>(&mut self, request: &Request) -> Result<Option<String>, Refusal> {
        let chosen = self.decide::<S>(request)?;
        if let Some(name) = &chosen {
            self.put(name, request);
        }
        Ok(chosen)
    }

    fn put(&mut self, name: &str, request: &Request) {
        let node = self
            .nodes
            .iter_mut()
            .find(|node| node.name == name)
            .expect("the name came from this fleet");
        *node
            .processes
            .entry(request.process_type.clone())
            .or_default() += 1;
        node.used += request.demand;
        if let Some(group) = &request.group {
            *node.groups.entry(group.clone()).or_default() += 1;
        }
    }

    /// The candidates as an instance of `S` would get them; empty when no node has capacity left.
    ///
    /// # Errors
    /// `Refusal::Manifest` alone.
    pub fn offer<S: Selector>(
        &self,
        instance: &SelectorInstance<S>,
        request: &Request,
    ) -> Result<Lists, Refusal> {
        let manifest = instance.describe();
        if manifest.features.len() > FEATURES_MAX
            || manifest.name.len().max(manifest.version.len()) > 64
        {
            return Err(Refusal::Manifest(
                "more than 32 features, or a name over 64 bytes".to_owned(),
            ));
        }
        let mut slots: Vec<usize> = (0..self.nodes.len())
            .filter(|&slot| self.nodes[slot].holds(request.demand))
            .collect();
        // The order means nothing to `all` and `sample`, and it breaks the ties of `lowest`.
        shuffle(&mut slots, request.seed);
        let count = match &manifest.ask {
            Ask::All => CANDIDATES_MAX,
            Ask::Sample(count) => *count as usize,
            Ask::Lowest(lowest) => {
                let column = self.column(&lowest.feature, request)?;
                // NaN (of this sign) is the last in the total order.
                slots.sort_by(|&a, &b| column[a].total_cmp(&column[b]));
                lowest.count as usize
            }
        };
        if !(1..=CANDIDATES_MAX).contains(&count) {
            return Err(Refusal::Manifest(format!("{count} candidates asked for")));
        }
        slots.truncate(count);
        let columns = manifest
            .features
            .iter()
            .map(|name| self.column(name, request))
            .collect::<Result<Vec<_>, _>>()?;
        let features = slots
            .iter()
            .flat_map(|&slot| columns.iter().map(move |column| column[slot]))
            .collect();
        Ok(Lists {
            slots: slots.iter().map(|&slot| slot as Slot).collect(),
            features,
        })
    }

    /// One feature of every node, filtered or not.
    fn column(&self, name: &str, request: &Request) -> Result<Vec<f32>, Refusal> {
        if let Some(key) = name.strip_prefix("label:") {
            let mut numbers = BTreeMap::new();
            return Ok(self
                .nodes
                .iter()
                .map(|node| {
                    node.labels.get(key).map_or(f32::NAN, |value| {
                        let next = numbers.len();
                        *numbers.entry(value).or_insert(next) as f32
                    })
                })
                .collect());
        }
        self.nodes
            .iter()
            .map(|node| {
                node.feature(name, request)
                    .ok_or_else(|| Refusal::Manifest(format!("no feature `{name}`")))
            })
            .collect()
    }
}

impl Node {
    fn load(&self) -> u32 {
        self.processes.values().sum()
    }

    fn of_type(&self, process_type: &str) -> u32 {
        self.processes.get(process_type).copied().unwrap_or(0)
    }

    fn left(&self) -> Option<u32> {
        self.capacity
            .map(|capacity| capacity.saturating_sub(self.used))
    }

    fn holds(&self, demand: u32) -> bool {
        self.left().is_none_or(|left| left >= demand)
    }

    /// None when the catalogue has no such feature; labels are the fleet's business.
    fn feature(&self, name: &str, request: &Request) -> Option<f32> {
        let known = match name {
            "processes" => Some(self.load()),
            "processes-of-type" => Some(self.of_type(&request.process_type)),
            "processes-of-group" => Some(
                request
                    .group
                    .as_ref()
                    .and_then(|group| self.groups.get(group))
                    .copied()
                    .unwrap_or(0),
            ),
            "capacity" => self.capacity,
            "capacity-left" => self.left(),
            "name-hash" => {
                let [a, b, c, ..] = *blake3::hash(self.name.as_bytes()).as_bytes();
                Some(u32::from_le_bytes([a, b, c, 0]))
            }
            "in-flight" | "placed-1s" | "placed-10s" | "placed-60s" => {
                return Some(self.features.get(name).copied().unwrap_or(0.0));
            }
            "cpu" | "memory-free-mib" | "load-age-ms" => None,
            _ if name.starts_with("counter:") => None,
            _ => return None,
        };
        Some(known.map_or_else(
            || self.features.get(name).copied().unwrap_or(f32::NAN),
            |value| value as f32,
        ))
    }
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], seed: u32) {
    // Drawn apart from the policy's own numbers, which start from the same seed.
    let mut chance = Chance::new(seed ^ 0x5eed_f1ee);
    for last in (1..items.len()).rev() {
        items.swap(last, chance.below(last as u32 + 1) as usize);
    }
}

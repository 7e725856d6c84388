//! A node of a scenario, as plain data, and what a file may say of one.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A node as a case finds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Its name, unique in the file.
    pub name: String,
    /// Keys and values.
    pub labels: BTreeMap<String, String>,
    /// The types that it hosts; empty for all.
    pub types: Vec<String>,
    /// Units that it declared; none for no limit.
    pub capacity: Option<u32>,
    /// Takes no new processes.
    pub cordoned: bool,
    /// All processes.
    pub processes: u32,
    /// Those of them that are of these types.
    pub processes_of_type: BTreeMap<String, u32>,
    /// Those of them that are of these groups.
    pub processes_of_group: BTreeMap<String, u32>,
    /// Units taken.
    pub used: u32,
    /// Placements decided and not yet running.
    pub in_flight: u32,
    /// Placements of the last 1, 10 and 60 seconds.
    pub placed: [u32; 3],
    /// Milliseconds since the last placement; none for never.
    pub since_placed_ms: Option<u32>,
    /// Milliseconds since it registered; none when nothing is said.
    pub node_age_ms: Option<u32>,
    /// Reported: 0.0 idle to 1.0 busy.
    pub cpu: Option<f32>,
    /// Reported.
    pub memory_free_mib: Option<f32>,
    /// Milliseconds since the report.
    pub load_age_ms: Option<u32>,
    /// Reported.
    pub counters: BTreeMap<String, f32>,
}

/// What a file says of a node; for a case, what is different there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Table {
    pub(crate) name: Option<String>,
    pub(crate) count: Option<usize>,
    pub(crate) absent: bool,
    labels: BTreeMap<String, String>,
    types: Option<Vec<String>>,
    capacity: Option<u32>,
    cordoned: Option<bool>,
    processes: Option<u32>,
    processes_of_type: BTreeMap<String, u32>,
    processes_of_group: BTreeMap<String, u32>,
    used: Option<u32>,
    in_flight: Option<u32>,
    placed_1s: Option<u32>,
    placed_10s: Option<u32>,
    placed_60s: Option<u32>,
    since_placed_ms: Option<u32>,
    node_age_ms: Option<u32>,
    cpu: Option<f32>,
    memory_free_mib: Option<f32>,
    load_age_ms: Option<u32>,
    counters: BTreeMap<String, f32>,
}

impl Table {
    /// The node `name` that the table describes.
    pub(crate) fn node(&self, name: String) -> Result<Node, String> {
        self.over(&Node {
            name,
            ..Node::default()
        })
    }

    /// `node` with what the table says of it.
    pub(crate) fn over(&self, node: &Node) -> Result<Node, String> {
        let had: u32 = node.processes_of_type.values().sum();
        let untyped = node.processes.saturating_sub(had);
        let mut of_type = node.processes_of_type.clone();
        of_type.extend(self.processes_of_type.clone());
        let typed = of_type
            .values()
            .try_fold(0_u32, |sum, count| sum.checked_add(*count))
            .filter(|&sum| sum <= PROCESSES_MAX)
            .ok_or_else(|| format!("more than {PROCESSES_MAX} processes on {}", node.name))?;
        let processes = self.processes.unwrap_or(untyped + typed);
        if !(typed..=PROCESSES_MAX).contains(&processes) {
            return Err(format!(
                "`processes` of {} has to be from {typed} (the sum of its types) to {PROCESSES_MAX}",
                node.name
            ));
        }
        let cpu = self.cpu.or(node.cpu);
        if cpu.is_some_and(|cpu| !(0.0..=1.0).contains(&cpu)) {
            return Err(format!("`cpu` of {} has to be from 0.0 to 1.0", node.name));
        }
        // What is taken follows the processes, unless one of the two was set on its own.
        let extra = node.used.saturating_sub(node.processes);
        let [second, ten, minute] = node.placed;
        Ok(Node {
            name: node.name.clone(),
            labels: merged(&node.labels, &self.labels),
            types: self.types.clone().unwrap_or_else(|| node.types.clone()),
            capacity: self.capacity.or(node.capacity),
            cordoned: self.cordoned.unwrap_or(node.cordoned),
            processes,
            processes_of_type: of_type,
            processes_of_group: merged(&node.processes_of_group, &self.processes_of_group),
            used: self.used.unwrap_or(processes.saturating_add(extra)),
            in_flight: self.in_flight.unwrap_or(node.in_flight),
            placed: [
                self.placed_1s.unwrap_or(second),
                self.placed_10s.unwrap_or(ten),
                self.placed_60s.unwrap_or(minute),
            ],
            since_placed_ms: self.since_placed_ms.or(node.since_placed_ms),
            node_age_ms: self.node_age_ms.or(node.node_age_ms),
            cpu,
            memory_free_mib: self.memory_free_mib.or(node.memory_free_mib),
            load_age_ms: self.load_age_ms.or(node.load_age_ms),
            counters: merged(&node.counters, &self.counters),
        })
    }
}

/// Processes on a node: an `f32` holds so many exactly.
const PROCESSES_MAX: u32 = 1_000_000;

fn merged<V: Clone>(
    under: &BTreeMap<String, V>,
    over: &BTreeMap<String, V>,
) -> BTreeMap<String, V> {
    let mut merged = under.clone();
    merged.extend(over.clone());
    merged
}

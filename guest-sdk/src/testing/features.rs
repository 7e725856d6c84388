//! A node of the fleet, and the catalogue of features as `selector.manifest` in `wit/policy.wit` has
//! it: what each is on a node, for a request.

use std::collections::{BTreeMap, VecDeque};

use super::{Fleet, Refusal};
use crate::{Request, Slot};

/// A node.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) cordoned: bool,
    /// The types that it hosts; all when there is none.
    pub(super) hosts: Vec<String>,
    /// Processes by type, those of no type that is ever asked for under the empty one.
    pub(super) processes: BTreeMap<String, u32>,
    pub(super) groups: BTreeMap<String, u32>,
    pub(super) capacity: Option<u32>,
    pub(super) used: u32,
    pub(super) labels: BTreeMap<String, String>,
    /// What the test said of features that are not worked out, as of the fleet's first moment.
    pub(super) features: BTreeMap<String, f32>,
    /// When placements of the last minute were made, in milliseconds of the fleet's clock.
    pub(super) placed: VecDeque<u64>,
    pub(super) last_placed: Option<u64>,
}

const MINUTE_MS: u64 = 60_000;

impl Node {
    pub(super) fn load(&self) -> u32 {
        self.processes.values().sum()
    }

    pub(super) fn of_type(&self, process_type: &str) -> u32 {
        self.processes.get(process_type).copied().unwrap_or(0)
    }

    fn left(&self) -> Option<u32> {
        self.capacity
            .map(|capacity| capacity.saturating_sub(self.used))
    }

    /// Whether the host would offer it.
    pub(super) fn passes(&self, request: &Request, require: &BTreeMap<String, String>) -> bool {
        !self.cordoned
            && (self.hosts.is_empty() || self.hosts.contains(&request.process_type))
            && require
                .iter()
                .all(|(key, value)| self.labels.get(key) == Some(value))
            && self.left().is_none_or(|left| left >= request.demand)
    }

    pub(super) fn put(&mut self, request: &Request, now_ms: u64) {
        let of_type = self.processes.entry(request.process_type.clone());
        *of_type.or_default() += 1;
        self.used = self.used.saturating_add(request.demand);
        if let Some(group) = &request.group {
            *self.groups.entry(group.clone()).or_default() += 1;
        }
        self.last_placed = Some(now_ms);
        self.placed.push_back(now_ms);
        let old = self.placed.partition_point(|&at| at + MINUTE_MS <= now_ms);
        self.placed.drain(..old);
    }

    /// Placements of the last so many milliseconds; what the test said of them was at moment 0.
    fn placed_within(&self, name: &str, window_ms: u64, now_ms: u64) -> f32 {
        let before = if now_ms < window_ms {
            self.said(name, 0.0)
        } else {
            0.0
        };
        let old = self.placed.partition_point(|&at| at + window_ms <= now_ms);
        before + (self.placed.len() - old) as f32
    }

    fn said(&self, name: &str, otherwise: f32) -> f32 {
        self.features.get(name).copied().unwrap_or(otherwise)
    }
}

impl Fleet {
    /// One feature of the nodes at `slots`; NaN where there is no node.
    pub(super) fn column(
        &self,
        name: &str,
        request: &Request,
        slots: &[Slot],
    ) -> Result<Vec<f32>, Refusal> {
        let nodes = slots.iter().map(|&slot| self.nodes.get(slot as usize));
        if let Some(key) = name.strip_prefix("label:") {
            let mut numbers = BTreeMap::new();
            let mut number = |value: Option<&String>| {
                value.map_or(f32::NAN, |value| {
                    let next = numbers.len();
                    *numbers.entry(value.clone()).or_insert(next) as f32
                })
            };
            return Ok(nodes
                .map(|node| number(node.and_then(|node| node.labels.get(key))))
                .collect());
        }
        if let Some(key) = name.strip_prefix("local:") {
            let asked = request.requester.as_ref();
            let asked = asked.and_then(|asked| self.nodes.iter().find(|node| node.name == *asked));
            let here = asked.and_then(|asked| asked.labels.get(key));
            let local = |there: Option<&String>| match (there, here) {
                (Some(there), Some(here)) => truth(there == here),
                _ => f32::NAN,
            };
            return Ok(nodes
                .map(|node| local(node.and_then(|node| node.labels.get(key))))
                .collect());
        }
        let values = nodes.map(|node| {
            let Some(node) = node else {
                return Ok(f32::NAN);
            };
            self.value(node, name, request)
                .ok_or_else(|| Refusal::Manifest(format!("no feature `{name}`")))
        });
        values.collect()
    }

    /// None when the catalogue has no such feature.
    fn value(&self, node: &Node, name: &str, request: &Request) -> Option<f32> {
        let known = |value: Option<u32>| value.map_or(f32::NAN, |value| value as f32);
        let aged = |name| node.said(name, f32::NAN) + self.now_ms as f32;
        Some(match name {
            "processes" => node.load() as f32,
            "processes-of-type" => node.of_type(&request.process_type) as f32,
            "processes-of-group" => {
                let group = request.group.as_ref();
                let count = group.and_then(|group| node.groups.get(group));
                count.copied().unwrap_or(0) as f32
            }
            "in-flight" => node.said(name, 0.0),
            "placed-1s" => node.placed_within(name, 1_000, self.now_ms),
            "placed-10s" => node.placed_within(name, 10_000, self.now_ms),
            "placed-60s" => node.placed_within(name, MINUTE_MS, self.now_ms),
            "since-placed-ms" => match node.last_placed {
                Some(at) => (self.now_ms - at) as f32,
                None => aged(name),
            },
            "capacity" => known(node.capacity),
            "capacity-left" => known(node.left()),
            "cpu" | "memory-free-mib" => node.said(name, f32::NAN),
            "load-age-ms" | "node-age-ms" => aged(name),
            "name-hash" => {
                let [a, b, c, ..] = *blake3::hash(node.name.as_bytes()).as_bytes();
                u32::from_le_bytes([a, b, c, 0]) as f32
            }
            "requester" => truth(request.requester.as_ref() == Some(&node.name)),
            "previous" => truth(request.previous.as_ref() == Some(&node.name)),
            _ if name.starts_with("counter:") => node.said(name, f32::NAN),
            _ if name.starts_with("has:") => {
                let (key, value) = name.strip_prefix("has:")?.split_once('=')?;
                truth(node.labels.get(key).is_some_and(|have| have == value))
            }
            _ => {
                let value = node.labels.get(name.strip_prefix("latency:")?);
                let said = value.and_then(|value| self.latencies.get(value));
                said.copied().unwrap_or(f32::NAN)
            }
        })
    }
}

fn truth(holds: bool) -> f32 {
    f32::from(u8::from(holds))
}

//! The standard selector `weighted`: a weighted sum of resources, with a margin for the node that asked.
//!
//! The shape of Orleans' resource optimized placement (`ResourceOptimizedPlacement`, its default since
//! 9.2: processor 40, memory in use 20, memory free 20, memory in all 5, activations 15, local margin
//! 5 of 100), over what nodes report here. Each resource is brought to the range from 0 to 1 over the
//! candidates, the best being 1; the highest sum wins. When the node that asked is a candidate
//! whose sum is at most the margin below the best, it wins: a call that stays on its node is worth a
//! little load.
//!
//! Configuration, with its defaults, each weight from 0 to 1,000 and the margin a share of the sum of
//! all weights: `{"cpu": 40, "memory": 25, "processes": 20, "capacity": 15, "margin": 0.05}`. A
//! resource that a node does not report counts as its worst.

use maitred_guest::compose::{high, low};
use maitred_guest::config::Config;
use maitred_guest::{Answer, Candidates, Host, Request, Selector, export_selector};

/// See the head of this file.
#[derive(Default)]
pub struct Weighted {
    weights: [f32; 4],
    margin: f32,
}

const CPU: usize = 0;
const MEMORY: usize = 1;
const PROCESSES: usize = 2;
const CAPACITY: usize = 3;
const REQUESTER: usize = 4;

const DEFAULTS: [(&str, f32); 4] = [
    ("cpu", 40.0),
    ("memory", 25.0),
    ("processes", 20.0),
    ("capacity", 15.0),
];

impl Selector for Weighted {
    const NAME: &'static str = "weighted";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const FEATURES: &'static [&'static str] = &[
        "cpu",
        "memory-free-mib",
        "processes",
        "capacity-left",
        "requester",
    ];
    const TERMS: &'static [&'static str] = &["cpu", "memory", "processes", "capacity"];

    fn configure(&mut self, host: &dyn Host) -> Result<(), String> {
        let keys = ["cpu", "memory", "processes", "capacity", "margin"];
        let config = Config::parse(&host.config(), &keys)?;
        for (weight, (key, default)) in self.weights.iter_mut().zip(DEFAULTS) {
            *weight = config.real(key, 0..=1_000)?.unwrap_or(default);
        }
        self.margin = config.real("margin", 0..=1)?.unwrap_or(0.05);
        if self.weights.iter().sum::<f32>() > 0.0 {
            Ok(())
        } else {
            Err("configuration: every weight is 0".to_owned())
        }
    }

    fn select(
        &self,
        request: &Request,
        nodes: Candidates<'_>,
        _: &dyn Host,
    ) -> Result<Answer, String> {
        let [cpu, memory, processes, capacity] = self.weights;
        let terms = [
            low(CPU).times(cpu),
            high(MEMORY).times(memory),
            low(PROCESSES).times(processes),
            high(CAPACITY).times(capacity),
        ];
        let margin = self.margin * self.weights.iter().sum::<f32>();
        let scored = nodes.all().score(&terms);
        Ok(scored.best_preferring(margin, |node| node.is(REQUESTER), request.seed))
    }
}

export_selector!(Weighted);

#[cfg(test)]
mod tests;

//! From a scenario that fails to a smaller one that fails alike: fewer faults, clients and nodes, and less
//! time.
//!
//! A run without something is another run: whether it fails is found by running it. Faults are taken out
//! in ever smaller groups (Zeller and Hildebrandt's ddmin, TSE 2002), within a bounded number of runs.

use super::plan::{Fault, Scenario};
use super::run::{Report, run};
use super::world::Violation;

/// Runs that shrinking may take.
const RUNS_MAX: u32 = 150;

struct Shrinking<'a> {
    checker: &'a str,
    best: Scenario,
    runs: u32,
}

impl Shrinking<'_> {
    /// Takes the scenario when it fails alike.
    fn takes(&mut self, scenario: Scenario) -> bool {
        if self.runs == 0 {
            return false;
        }
        self.runs -= 1;
        let report = run(&scenario, false);
        let alike = report
            .violation
            .is_some_and(|violation| violation.checker == self.checker);
        if alike {
            self.best = scenario;
        }
        alike
    }

    fn fewer_faults(&mut self) {
        let mut group = self.best.plan.len().div_ceil(2);
        while group > 0 {
            let mut at = 0;
            while at < self.best.plan.len() {
                let mut without = self.best.clone();
                let end = (at + group).min(without.plan.len());
                without.plan.drain(at..end);
                if !self.takes(without) {
                    at += group;
                }
            }
            group /= 2;
        }
    }

    fn fewer_actors(&mut self) {
        while self.best.clients > 1 {
            let mut fewer = self.best.clone();
            fewer.clients -= 1;
            if !self.takes(fewer) {
                break;
            }
        }
        while self.best.nodes > 1 {
            let mut fewer = self.best.clone();
            fewer.nodes -= 1;
            let nodes = fewer.nodes;
            fewer
                .plan
                .retain(|(_, fault)| node_of(fault).is_none_or(|node| node < nodes));
            if !self.takes(fewer) {
                break;
            }
        }
    }

    fn less_time(&mut self) {
        for _ in 0..6 {
            let mut shorter = self.best.clone();
            shorter.chaos_us = shorter.chaos_us * 3 / 4;
            let end = shorter.chaos_us;
            shorter.plan.retain(|(at, _)| *at < end);
            if !self.takes(shorter) {
                break;
            }
        }
    }
}

fn node_of(fault: &Fault) -> Option<usize> {
    match fault {
        Fault::NodeCrash(node, _)
        | Fault::NodePause(node, _)
        | Fault::NodeCut(node, ..)
        | Fault::NodeLeave(node, _)
        | Fault::ProcessExit(node)
        | Fault::NodeLost(node, ..)
        | Fault::Drain(node, ..)
        | Fault::NoDatagrams(node, _)
        | Fault::NodeGone(node)
        | Fault::Cordon(node, _) => Some(*node),
        _ => None,
    }
}

/// The least scenario found, and its run with a trace.
#[must_use]
pub fn shrink(scenario: &Scenario, violation: &Violation) -> (Scenario, Report) {
    let mut shrinking = Shrinking {
        checker: violation.checker,
        best: scenario.clone(),
        runs: RUNS_MAX,
    };
    shrinking.less_time();
    shrinking.fewer_faults();
    shrinking.fewer_actors();
    shrinking.fewer_faults();
    let report = run(&shrinking.best, true);
    (shrinking.best, report)
}

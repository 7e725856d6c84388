//! How one version decides beside another: fed a decision at a time, by a shadow or a replay.
//!
//! What is kept does not grow with the decisions: two histograms, a count for each node of the newest
//! fleet, 8 versions, 20 differences. A version that fails places by the type's fallback, as it would
//! if it were active: the place that came out is compared, and the failure counted besides.
//!
//! **Invariant.** Every decision is one of agreed, moved, newly rejected and newly placed.

use std::collections::BTreeMap;
use std::sync::Arc;

use maitred_protocol::{
    Answered, ComparedVersion, Comparison, Difference, Evenness, ModuleName, NodeName, ProcessKey,
};

use crate::candidates::{Fleet, NodeFacts, Slot};
use crate::decide::{ModuleRef, cut};
use crate::histogram::Histogram;
use crate::inputs::Outcome;

/// Deciding versions that are named.
pub const VERSIONS_MAX: usize = 8;

/// Differences that are kept.
pub const DIFFERENCES_MAX: usize = 20;

/// One decision, made by two.
#[derive(Debug, Clone, Copy)]
pub struct Compared<'a> {
    /// The nodes as they were before the batch that the decision is of.
    pub fleet: &'a Fleet,
    /// The process.
    pub key: &'a ProcessKey,
    /// The version that decided; none when there was none.
    pub selector: Option<&'a ModuleRef>,
    /// What came out.
    pub decided: &'a Outcome,
    /// What the other version makes of it.
    pub other: Tried<'a>,
}

/// What the version that is tried made of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Tried<'a> {
    /// What came out.
    pub outcome: &'a Outcome,
    /// Fuel that it took.
    pub fuel: u64,
    /// Nanoseconds that it took.
    pub nanos: u64,
    /// How it failed, and why for people; the outcome is then the fallback's.
    pub failure: Option<(Failure, &'a str)>,
}

/// How a version can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It trapped.
    Trap,
    /// It took too long.
    Timeout,
    /// It could not be asked, or named what was not a candidate, and the like.
    BadAnswer,
}

/// A comparison that goes on.
#[derive(Debug, Clone)]
pub struct Comparing {
    /// Counts, and what was said when it began; the rest is filled in when it is asked for.
    sum: Comparison,
    /// The versions that decided, and how often.
    decided: Vec<(ComparedVersion, u64)>,
    fuel: Histogram,
    nanos: Histogram,
    /// The fleet that `nodes` are of, to see at once that it is still the same.
    facts: Option<Arc<[Arc<NodeFacts>]>>,
    nodes: BTreeMap<NodeName, Node>,
}

/// Processes on a node.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// When it was first seen.
    before: u32,
    /// Placed there since by the deciding version.
    decided: u32,
    /// And by the other one.
    other: u32,
}

impl Comparing {
    /// Of nothing yet.
    #[must_use]
    pub fn new(module: ModuleName, other: ComparedVersion) -> Self {
        let sum = Comparison {
            module,
            decided: Vec::new(),
            other,
            decisions: 0,
            skipped: 0,
            agreed: 0,
            moved: 0,
            newly_rejected: 0,
            newly_placed: 0,
            same_version: 0,
            identical: 0,
            traps: 0,
            timeouts: 0,
            bad_answers: 0,
            fuel: Default::default(),
            nanos: Default::default(),
            spread_decided: Evenness::default(),
            spread_other: Evenness::default(),
            differences: Vec::new(),
            from_ms: 0,
            to_ms: 0,
        };
        Self {
            sum,
            decided: Vec::new(),
            fuel: Histogram::default(),
            nanos: Histogram::default(),
            facts: None,
            nodes: BTreeMap::new(),
        }
    }

    /// Adds a decision.
    pub fn add(&mut self, compared: &Compared<'_>) {
        self.look(compared.fleet);
        let (decided, other) = (compared.decided, compared.other.outcome);
        let facts = &compared.fleet.facts;
        let name = |slot: Option<Slot>| Some(&facts.get(slot? as usize)?.name);
        let (here, there) = (name(decided.chosen), name(other.chosen));
        if let Some(node) = here.and_then(|name| self.nodes.get_mut(name)) {
            node.decided += 1;
        }
        if let Some(node) = there.and_then(|name| self.nodes.get_mut(name)) {
            node.other += 1;
        }
        let sum = &mut self.sum;
        sum.decisions += 1;
        let now_ms = compared.fleet.now_ms;
        sum.from_ms = if sum.decisions == 1 {
            now_ms
        } else {
            sum.from_ms.min(now_ms)
        };
        sum.to_ms = sum.to_ms.max(now_ms);
        self.fuel.record(compared.other.fuel);
        self.nanos.record(compared.other.nanos);
        match compared.other.failure {
            Some((Failure::Trap, _)) => sum.traps += 1,
            Some((Failure::Timeout, _)) => sum.timeouts += 1,
            Some((Failure::BadAnswer, _)) => sum.bad_answers += 1,
            None => {}
        }
        let agreed = match (here, there) {
            (Some(here), Some(there)) => here == there,
            (None, None) => is_same_refusal(&decided.answered, &other.answered),
            _ => false,
        };
        match (here, there) {
            _ if agreed => sum.agreed += 1,
            (Some(_), None) => sum.newly_rejected += 1,
            (None, Some(_)) => sum.newly_placed += 1,
            _ => sum.moved += 1,
        }
        if !agreed && sum.differences.len() < DIFFERENCES_MAX {
            sum.differences.push(Difference {
                key: compared.key.clone(),
                decided: here.cloned(),
                other: there.cloned(),
                reason: cut(reason(&compared.other)),
            });
        }
        self.count_version(compared);
    }

    /// Notes that decisions could not be compared.
    pub fn skip(&mut self, decisions: u64) {
        self.sum.skipped += decisions;
    }

    /// Adds another comparison of the same two: one of other decisions.
    pub fn merge(&mut self, more: &Self) {
        let earlier = more.sum.decisions > 0 && more.sum.from_ms < self.sum.from_ms;
        let (sum, add) = (&mut self.sum, &more.sum);
        if add.decisions > 0 {
            let first = sum.decisions == 0 || earlier;
            sum.from_ms = if first { add.from_ms } else { sum.from_ms };
            sum.to_ms = sum.to_ms.max(add.to_ms);
        }
        sum.decisions += add.decisions;
        sum.skipped += add.skipped;
        sum.agreed += add.agreed;
        sum.moved += add.moved;
        sum.newly_rejected += add.newly_rejected;
        sum.newly_placed += add.newly_placed;
        sum.same_version += add.same_version;
        sum.identical += add.identical;
        sum.traps += add.traps;
        sum.timeouts += add.timeouts;
        sum.bad_answers += add.bad_answers;
        let at = if earlier { 0 } else { sum.differences.len() };
        sum.differences
            .splice(at..at, add.differences.iter().cloned());
        sum.differences.truncate(DIFFERENCES_MAX);
        self.fuel.merge(&more.fuel);
        self.nanos.merge(&more.nanos);
        for (version, count) in &more.decided {
            count_version(&mut self.decided, version, *count);
        }
        for (name, add) in &more.nodes {
            let none = Node {
                before: add.before,
                decided: 0,
                other: 0,
            };
            let node = self.nodes.entry(name.clone()).or_insert(none);
            node.before = if earlier { add.before } else { node.before };
            node.decided += add.decided;
            node.other += add.other;
        }
        // What is there now is of both; the next fleet says which nodes stay.
        self.facts = None;
    }

    /// What has come out so far.
    #[must_use]
    pub fn comparison(&self) -> Comparison {
        let mut decided = self.decided.clone();
        decided.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Comparison {
            decided: decided.into_iter().map(|(version, _)| version).collect(),
            fuel: self.fuel.quantiles(),
            nanos: self.nanos.quantiles(),
            spread_decided: self.evenness(|node| node.decided),
            spread_other: self.evenness(|node| node.other),
            ..self.sum.clone()
        }
    }

    /// Notes which nodes there are. Those that are gone are forgotten, with what was placed on them.
    fn look(&mut self, fleet: &Fleet) {
        if self
            .facts
            .as_ref()
            .is_some_and(|have| Arc::ptr_eq(have, &fleet.facts))
        {
            return;
        }
        let mut had = std::mem::take(&mut self.nodes);
        for (facts, live) in fleet.facts.iter().zip(&fleet.live) {
            let new = Node {
                before: live.processes,
                decided: 0,
                other: 0,
            };
            let node = had.remove(&facts.name).unwrap_or(new);
            self.nodes.insert(facts.name.clone(), node);
        }
        self.facts = Some(Arc::clone(&fleet.facts));
    }

    fn count_version(&mut self, compared: &Compared<'_>) {
        let Some(module) = compared.selector else {
            return;
        };
        let version = ComparedVersion {
            version: module.version,
            digest: module.digest,
            config: module.config_hash,
        };
        let other = &self.sum.other;
        let same = (version.digest, version.config) == (other.digest, other.config);
        // A fallback was nobody's decision, and a time-out may not come again.
        if same && !compared.decided.fallback {
            self.sum.same_version += 1;
            let identical = compared.decided == compared.other.outcome;
            self.sum.identical += u64::from(identical);
        }
        count_version(&mut self.decided, &version, 1);
    }

    fn evenness(&self, placed: impl Fn(&Node) -> u32) -> Evenness {
        if self.nodes.is_empty() {
            return Evenness::default();
        }
        let loads = || {
            self.nodes
                .values()
                .map(|node| node.before.saturating_add(placed(node)))
        };
        let count = self.nodes.len() as f64;
        let mean = loads().map(f64::from).sum::<f64>() / count;
        let squares = loads().map(|load| (f64::from(load) - mean).powi(2));
        Evenness {
            max: loads().max().unwrap_or(0),
            mean: mean as f32,
            deviation: (squares.sum::<f64>() / count).sqrt() as f32,
        }
    }
}

fn count_version(list: &mut Vec<(ComparedVersion, u64)>, version: &ComparedVersion, add: u64) {
    let known = list.iter().position(|(have, _)| have == version);
    match known {
        Some(at) => list[at].1 += add,
        None if list.len() < VERSIONS_MAX => list.push((version.clone(), add)),
        None => {}
    }
}

/// Whether two say no in the same way; what they say of it for people may differ.
fn is_same_refusal(one: &Answered, two: &Answered) -> bool {
    match (one, two) {
        (Answered::Rejected { code: one, .. }, Answered::Rejected { code: two, .. }) => one == two,
        _ => std::mem::discriminant(one) == std::mem::discriminant(two),
    }
}

/// What the other version said, unless it just chose.
fn reason(other: &Tried<'_>) -> String {
    if let Some((failure, cause)) = other.failure {
        let failure = match failure {
            Failure::Trap => "trapped",
            Failure::Timeout => "took too long",
            Failure::BadAnswer => "gave no answer",
        };
        return format!("{failure}: {cause}");
    }
    match &other.outcome.answered {
        Answered::Chose | Answered::Ranked(_) => String::new(),
        Answered::Nothing => "no candidates".to_owned(),
        Answered::None => "no candidate will do".to_owned(),
        Answered::Rejected { code, reason } => format!("rejected ({code}): {reason}"),
        Answered::Wait(ms) => format!("wants to wait {ms} ms"),
    }
}

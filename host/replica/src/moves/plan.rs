//! Which moves would make the nodes more even.
//!
//! Greedy: from the fullest node, by used units over capacity, to the emptiest that admits the
//! process, and of the node's processes the one whose move gains most; until the fullest has none
//! to give. A move is only planned if the node that gives stays at least as full as the one that
//! takes: the nodes' variance shrinks with each (so no plan undoes another's move), and nodes that
//! differ by one process are left alone. A node gives or takes, not both.
//!
//! **Bounds.** Processes of nodes that give are looked at, 8,192 of one and 200,000 in all; those of
//! one node are told apart by 32 kinds (type, labels demanded, units), all by 32 pairs of type and
//! labels. What is beyond those stays where it is, and the next plan may see it.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use maitred_protocol::{
    Move, RebalanceAsk, RebalancePlan, Revision, Spread, TypeName, limits as wire,
};
use maitred_registry::candidates::{Fleet, SelectRequest, Slot};
use maitred_registry::{Record, Registry};

use super::UnderWay;
use super::rebalance::may_move;

/// Records that are looked at for one plan, and of one node.
const LOOKED_MAX: usize = 200_000;
const LOOKED_OF_NODE_MAX: usize = 8_192;

/// Kinds of processes of one node, and kinds of demands that nodes meet or do not.
const KINDS_MAX: usize = 32;
const GROUPS_MAX: usize = 32;

/// Nodes that are tried for one process, from the emptiest.
const TRIED_MAX: usize = 8;

/// Nodes whose fullness differs by less than this part of the mean are even enough.
const GAP_PART: f64 = 0.01;

/// What a move must gain: more than what rounding may pretend.
const GAIN_MIN: f64 = 1e-12;

/// One node, as far as it is part of the plan.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    /// 0 when it is no part.
    capacity: u64,
    used: u64,
    gave: bool,
    took: bool,
}

impl Part {
    fn fullness(self) -> f64 {
        self.used as f64 / self.capacity as f64
    }

    /// Orders like the fullness, which is never negative.
    fn rank(self) -> u64 {
        self.fullness().to_bits()
    }

    /// Whether it would still be as full as the other after giving it so many units.
    fn may_give(self, to: Self, demand: u64) -> bool {
        let (a, b) = (self, to);
        let scaled = |used: u64, by: u64| u128::from(used) * u128::from(by);
        a.used >= demand
            && scaled(a.used - demand, b.capacity) >= scaled(b.used + demand, a.capacity)
    }
}

/// Processes of one type that demand the same labels, and the nodes that meet them.
#[derive(Debug)]
struct Group {
    type_name: Arc<TypeName>,
    require: Vec<(String, String)>,
    takers: BTreeSet<(u64, Slot)>,
}

/// Processes of a node that can stand for each other.
#[derive(Debug)]
struct Kind {
    group: usize,
    demand: u32,
    records: Vec<Arc<Record>>,
}

/// Sums over all parts, of which the deviation is made.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Sums {
    fn change(&mut self, from: f64, to: f64) {
        self.sum += to - from;
        self.squares += to * to - from * from;
    }

    fn deviation(self) -> f64 {
        let mean = self.sum / self.count;
        (self.squares / self.count - mean * mean).max(0.0).sqrt()
    }
}

struct Planner<'a> {
    registry: &'a Registry,
    fleet: &'a Fleet,
    only: Option<&'a TypeName>,
    under_way: &'a UnderWay,
    moves_max: usize,
    parts: Vec<Part>,
    /// All that may take, by fullness.
    takers: BTreeSet<(u64, Slot)>,
    groups: Vec<Group>,
    kinds: BTreeMap<Slot, Vec<Kind>>,
    looked: usize,
    sums: Sums,
    /// The fullness by which two nodes must differ.
    gap_min: f64,
}

/// Makes a plan of the nodes as they are now; 0 moves when they are even.
pub(super) fn plan(
    registry: &Registry,
    fleet: &Fleet,
    ask: &RebalanceAsk,
    under_way: &UnderWay,
) -> RebalancePlan {
    let moves_max = match ask.moves_max as usize {
        0 => wire::MOVES_MAX,
        asked => asked.min(wire::MOVES_MAX),
    };
    let parts: Vec<Part> = parts(fleet);
    let before = spread(&parts);
    let mut planner = Planner {
        registry,
        fleet,
        only: ask.type_name.as_ref(),
        under_way,
        moves_max,
        takers: ranks(&parts).collect(),
        groups: Vec::new(),
        kinds: BTreeMap::new(),
        looked: 0,
        sums: sums(&parts),
        gap_min: f64::from(before.mean) * GAP_PART,
        parts,
    };
    let moves = planner.moves();
    RebalancePlan {
        moves,
        before,
        after: spread(&planner.parts),
        revision: Revision(registry.applied()),
    }
}

/// The nodes that may be given processes.
fn parts(fleet: &Fleet) -> Vec<Part> {
    let nodes = fleet.facts.iter().zip(&fleet.live);
    let parts = nodes.map(|(facts, live)| {
        let may = !live.cordoned && !live.suspect && live.damped_ms == 0;
        Part {
            capacity: if may { facts.capacity.into() } else { 0 },
            used: live.used.into(),
            ..Part::default()
        }
    });
    parts.collect()
}

fn ranks(parts: &[Part]) -> impl Iterator<Item = (u64, Slot)> {
    let slots = (0..).zip(parts).filter(|(_, part)| part.capacity > 0);
    slots.map(|(slot, part)| (part.rank(), slot))
}

fn sums(parts: &[Part]) -> Sums {
    let mut sums = Sums::default();
    for part in parts.iter().filter(|part| part.capacity > 0) {
        sums.count += 1.0;
        sums.change(0.0, part.fullness());
    }
    sums
}

fn spread(parts: &[Part]) -> Spread {
    let all = parts.iter().filter(|part| part.capacity > 0);
    let all = all.map(|part| part.fullness());
    let (least, most) = all.fold((f64::INFINITY, 0.0_f64), |(least, most), one| {
        (least.min(one), most.max(one))
    });
    let sums = sums(parts);
    if sums.count == 0.0 {
        return Spread::default();
    }
    Spread {
        least: least as f32,
        mean: (sums.sum / sums.count) as f32,
        most: most as f32,
        deviation: sums.deviation() as f32,
    }
}

impl Planner<'_> {
    fn moves(&mut self) -> Vec<Move> {
        let mut donors: BinaryHeap<(u64, Slot)> = ranks(&self.parts).collect();
        let mut moves = Vec::new();
        while moves.len() < self.moves_max
            && let Some((_, from)) = donors.pop()
        {
            let part = self.parts[from as usize];
            let Some((_, emptiest)) = self.takers.first() else {
                break;
            };
            let emptiest = self.parts[*emptiest as usize].fullness();
            // Those that follow are emptier still.
            if part.fullness() - emptiest <= self.gap_min {
                break;
            }
            // Not even the smallest process would be given, however large the node that takes it.
            let less = part.used.saturating_sub(1) as f64 / part.capacity as f64;
            if part.took || less < emptiest {
                continue;
            }
            let Some((kind, to, gain)) = self.best(from) else {
                self.kinds.remove(&from);
                continue;
            };
            if let Some(record) = self.carry_out(from, kind, to) {
                moves.push(Move {
                    key: record.key(),
                    incarnation: record.incarnation,
                    from: self.fleet.facts[from as usize].name.clone(),
                    to: self.fleet.facts[to as usize].name.clone(),
                    gain: gain as f32,
                });
            }
            donors.push((self.parts[from as usize].rank(), from));
        }
        moves
    }

    /// The move from a node that gains most: the kind of process, where to, and the gain.
    fn best(&mut self, from: Slot) -> Option<(usize, Slot, f64)> {
        if !self.kinds.contains_key(&from) {
            let kinds = self.kinds_of(from);
            self.kinds.insert(from, kinds);
        }
        let mut best: Option<(usize, Slot, f64)> = None;
        for (at, kind) in self.kinds.get(&from)?.iter().enumerate() {
            let left = !kind.records.is_empty();
            let taker = left.then(|| self.taker(from, kind)).flatten();
            let Some(to) = taker else { continue };
            let gain = self.gain(from, to, kind.demand);
            if gain > best.map_or(GAIN_MIN, |(_, _, gain)| gain) {
                best = Some((at, to, gain));
            }
        }
        best
    }

    /// The emptiest node that may be given a process of this kind.
    fn taker(&self, from: Slot, kind: &Kind) -> Option<Slot> {
        let giver = self.parts[from as usize];
        let takers = self.groups[kind.group].takers.iter();
        let takers = takers.filter(|(_, to)| *to != from).take(TRIED_MAX);
        for (_, to) in takers {
            let taker = self.parts[*to as usize];
            if giver.fullness() - taker.fullness() <= self.gap_min {
                break;
            }
            let demand = u64::from(kind.demand);
            let fits = taker.used + demand <= taker.capacity;
            if fits && giver.may_give(taker, demand) {
                return Some(*to);
            }
        }
        None
    }

    /// By how much the deviation would shrink.
    fn gain(&self, from: Slot, to: Slot, demand: u32) -> f64 {
        let mut after = self.sums;
        for (slot, sign) in [(from, -1.0), (to, 1.0)] {
            let part = self.parts[slot as usize];
            let moved = sign * f64::from(demand) / part.capacity as f64;
            after.change(part.fullness(), part.fullness() + moved);
        }
        self.sums.deviation() - after.deviation()
    }

    fn carry_out(&mut self, from: Slot, kind: usize, to: Slot) -> Option<Arc<Record>> {
        let record = self.kinds.get_mut(&from)?.get_mut(kind)?.records.pop()?;
        let demand = u64::from(record.demand);
        let before = [from, to].map(|slot| self.parts[slot as usize]);
        let after = [
            Part {
                used: before[0].used - demand,
                gave: true,
                ..before[0]
            },
            Part {
                used: before[1].used + demand,
                took: true,
                ..before[1]
            },
        ];
        let groups = self.groups.iter_mut().map(|group| &mut group.takers);
        for takers in groups.chain([&mut self.takers]) {
            takers.remove(&(before[0].rank(), from));
            if takers.remove(&(before[1].rank(), to)) {
                takers.insert((after[1].rank(), to));
            }
        }
        for (slot, at) in [(from, 0), (to, 1)] {
            self.sums
                .change(before[at].fullness(), after[at].fullness());
            self.parts[slot as usize] = after[at];
        }
        Some(record)
    }

    /// The processes of a node that may move, by kind.
    fn kinds_of(&mut self, slot: Slot) -> Vec<Kind> {
        let (registry, facts) = (self.registry, &self.fleet.facts[slot as usize]);
        let left = LOOKED_MAX - self.looked;
        let records = registry
            .processes_of(&facts.name, facts.epoch)
            .take(left.min(LOOKED_OF_NODE_MAX));
        let mut kinds: Vec<Kind> = Vec::new();
        for record in records {
            self.looked += 1;
            let is_asked = self.only.is_none_or(|only| *record.type_name == *only);
            if !is_asked || !may_move(record, registry) {
                continue;
            }
            if !self.under_way.is_empty() && self.under_way.contains_key(&record.key()) {
                continue;
            }
            let Some(group) = self.group_of(record) else {
                continue;
            };
            let is_same = |kind: &Kind| kind.group == group && kind.demand == record.demand;
            let at = kinds.iter().position(is_same).unwrap_or(kinds.len());
            if at == KINDS_MAX {
                continue;
            }
            if at == kinds.len() {
                kinds.push(Kind {
                    group,
                    demand: record.demand,
                    records: Vec::new(),
                });
            }
            if kinds[at].records.len() < self.moves_max {
                kinds[at].records.push(Arc::clone(record));
            }
        }
        kinds
    }

    fn group_of(&mut self, record: &Record) -> Option<usize> {
        let require = &record.spec.as_ref()?.options.require;
        let is_same =
            |group: &Group| group.type_name == record.type_name && group.require == *require;
        if let Some(at) = self.groups.iter().position(is_same) {
            return Some(at);
        }
        if self.groups.len() >= GROUPS_MAX {
            return None;
        }
        let request = SelectRequest {
            key: record.key(),
            group: None,
            requester: None,
            require: require.clone(),
            demand: 0,
            priority: 0,
            attempt: 1,
            exclude: Vec::new(),
            again: false,
        };
        let takers = ranks(&self.parts).filter(|(_, slot)| {
            !self.parts[*slot as usize].gave && self.fleet.admits(*slot, &request).is_ok()
        });
        self.groups.push(Group {
            type_name: Arc::clone(&record.type_name),
            require: require.clone(),
            takers: takers.collect(),
        });
        Some(self.groups.len() - 1)
    }
}

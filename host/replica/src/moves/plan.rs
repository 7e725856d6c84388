//! Which moves would make the nodes more even.
//!
//! Greedy: from the fullest node, by used units over capacity, to the emptiest that admits the
//! process, and of the node's processes the one whose move gains most; until the fullest has none
//! to give. A move is only planned if the node that gives stays at least as full as the one that
//! takes: the nodes' variance shrinks with each (so no plan undoes another's move), and nodes that
//! differ by one process are left alone. A node gives or takes, not both.
//!
//! **Bounds.** Of processes, only those of nodes that give are looked at: an equal share of 64,000 of
//! each, and more of those of which nothing of that may move, 64,000 in all. Those of one node are
//! told apart by 32 kinds (type, labels demanded, units), all by 32 pairs of type and labels. What is
//! beyond those stays where it is, and the next plan may see it. That is some 40 ms at most: the
//! replica does nothing else meanwhile.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use maitred_protocol::{Move, RebalanceAsk, RebalancePlan, Revision, TypeName, limits as wire};
use maitred_registry::candidates::{Fleet, SelectRequest, Slot};
use maitred_registry::{Record, Registry};

use super::UnderWay;
use super::fullness::{Part, Sums, parts, ranks, spread, sums};
use super::rebalance::may_move;

/// Records that are looked at for one plan; and of one node in one go, at least and at most.
const LOOKED_MAX: usize = 64_000;
const SHARE_MIN: usize = 16;
const SHARE_MAX: usize = 8_192;

/// Kinds of processes of one node, and kinds of demands that nodes meet or do not.
const KINDS_MAX: usize = 32;
const GROUPS_MAX: usize = 32;

/// Nodes that are tried for one process, from the emptiest.
const TRIED_MAX: usize = 8;

/// Nodes whose fullness differs by less than this part of the mean are even enough.
const GAP_PART: f64 = 0.01;

/// What a move must gain: more than what rounding may pretend.
const GAIN_MIN: f64 = 1e-12;

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

/// What is known of a node that gives.
#[derive(Debug, Default)]
struct Giver {
    kinds: Vec<Kind>,
    /// The last one that was looked at.
    cursor: Option<(Arc<TypeName>, Arc<str>)>,
    /// All of them were, or no more may be.
    through: bool,
}

impl Giver {
    fn add(&mut self, group: usize, record: &Arc<Record>, most: usize) {
        let is_same = |kind: &Kind| kind.group == group && kind.demand == record.demand;
        let known = self.kinds.iter().position(is_same);
        let at = known.unwrap_or(self.kinds.len());
        if at == KINDS_MAX {
            return;
        }
        if known.is_none() {
            self.kinds.push(Kind {
                group,
                demand: record.demand,
                records: Vec::new(),
            });
        }
        if self.kinds[at].records.len() < most {
            self.kinds[at].records.push(Arc::clone(record));
        }
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
    givers: BTreeMap<Slot, Giver>,
    looked: usize,
    /// Records of one node that are looked at in one go.
    share: usize,
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
    let fuller = |part: &&Part| part.capacity > 0 && part.fullness() > f64::from(before.mean);
    let fuller = parts.iter().filter(fuller).count();
    let mut planner = Planner {
        registry,
        fleet,
        only: ask.type_name.as_ref(),
        under_way,
        moves_max,
        takers: ranks(&parts).collect(),
        groups: Vec::new(),
        givers: BTreeMap::new(),
        looked: 0,
        share: (LOOKED_MAX / fuller.max(1)).clamp(SHARE_MIN, SHARE_MAX),
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
                self.givers.remove(&from);
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
        let mut giver = self.givers.remove(&from).unwrap_or_default();
        let mut best = self.best_of(from, &giver.kinds);
        while best.is_none() && !giver.through {
            self.look(from, &mut giver);
            best = self.best_of(from, &giver.kinds);
        }
        self.givers.insert(from, giver);
        best
    }

    fn best_of(&self, from: Slot, kinds: &[Kind]) -> Option<(usize, Slot, f64)> {
        let mut best: Option<(usize, Slot, f64)> = None;
        let kinds = kinds.iter().enumerate();
        for (at, kind) in kinds.filter(|(_, kind)| !kind.records.is_empty()) {
            let Some(to) = self.taker(from, kind) else {
                continue;
            };
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
        let record = self.givers.get_mut(&from)?.kinds.get_mut(kind)?;
        let record = record.records.pop()?;
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

    /// Looks at a share of a node's processes: those that may move are told apart by kind.
    fn look(&mut self, slot: Slot, giver: &mut Giver) {
        let (registry, facts) = (self.registry, &self.fleet.facts[slot as usize]);
        let share = self.share.min(LOOKED_MAX - self.looked);
        let after = giver.cursor.clone();
        let records = registry.processes_after(&facts.name, facts.epoch, after);
        let mut looked = 0;
        for record in records.take(share) {
            looked += 1;
            giver.cursor = Some((Arc::clone(&record.type_name), Arc::clone(&record.id)));
            let is_asked = self.only.is_none_or(|only| *record.type_name == *only);
            if !is_asked || !may_move(record, registry) {
                continue;
            }
            if !self.under_way.is_empty() && self.under_way.contains_key(&record.key()) {
                continue;
            }
            if let Some(group) = self.group_of(record) {
                giver.add(group, record, self.moves_max);
            }
        }
        self.looked += looked;
        giver.through = looked < share || share == 0;
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
            require: require.clone(),
            demand: 0,
            ..SelectRequest::new(record.key())
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

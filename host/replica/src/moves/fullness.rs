//! How full nodes are, and how unlike each other: what a plan of moves is measured by.

use maitred_protocol::Spread;
use maitred_registry::candidates::{Fleet, Slot};

/// One node, as far as it is part of the plan.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    /// 0 when it is no part.
    pub(super) capacity: u64,
    pub(super) used: u64,
    pub(super) gave: bool,
    pub(super) took: bool,
}

impl Part {
    pub(super) fn fullness(self) -> f64 {
        self.used as f64 / self.capacity as f64
    }

    /// Orders like the fullness, which is never negative.
    pub(super) fn rank(self) -> u64 {
        self.fullness().to_bits()
    }

    /// Whether it would still be as full as the other after giving it so many units.
    pub(super) fn may_give(self, to: Self, demand: u64) -> bool {
        let (a, b) = (self, to);
        let scaled = |used: u64, by: u64| u128::from(used) * u128::from(by);
        a.used >= demand
            && scaled(a.used - demand, b.capacity) >= scaled(b.used + demand, a.capacity)
    }
}

/// Sums over all parts, of which the deviation is made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Sums {
    pub(super) fn change(&mut self, from: f64, to: f64) {
        self.sum += to - from;
        self.squares += to * to - from * from;
    }

    pub(super) fn deviation(self) -> f64 {
        let mean = self.sum / self.count;
        (self.squares / self.count - mean * mean).max(0.0).sqrt()
    }
}

/// The nodes that may be given processes.
pub(super) fn parts(fleet: &Fleet) -> Vec<Part> {
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

pub(super) fn ranks(parts: &[Part]) -> impl Iterator<Item = (u64, Slot)> {
    let slots = (0..).zip(parts).filter(|(_, part)| part.capacity > 0);
    slots.map(|(slot, part)| (part.rank(), slot))
}

pub(super) fn sums(parts: &[Part]) -> Sums {
    let mut sums = Sums::default();
    for part in parts.iter().filter(|part| part.capacity > 0) {
        sums.count += 1.0;
        sums.change(0.0, part.fullness());
    }
    sums
}

pub(super) fn spread(parts: &[Part]) -> Spread {
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

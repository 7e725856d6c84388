//! The breaker: when many nodes are lost at once, the fault is more likely in between than in all of
//! them, and those that are left could not carry everything.
//!
//! Whether it has tripped is a function of the registry (when sessions were lost, how many there are
//! now), so that a new leader comes to the same conclusion, and nodes that come back count. Only the
//! time that is left is on this host's monotonic clock from when it saw the loss, since a clock that
//! was set meanwhile must not make a pause of an hour.

use maitred_protocol::Switch;
use maitred_registry::Registry;

use crate::config::Config;
use crate::input::Now;
use crate::replica::Replica;

/// Nodes that must be lost at once, whatever share that is.
const NODES_MIN: usize = 3;

/// What it has concluded.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// What that rests on: how many losses, the last one, and how many nodes there are.
    seen: (usize, Option<u64>, usize),
    trip: Option<Trip>,
}

#[derive(Debug, Clone, Copy)]
struct Trip {
    lost: usize,
    of: usize,
    until_ms: u64,
    until_us: u64,
}

/// Of the last loss that was one too many: how many were lost within the window that ends with it, of
/// how many that were there when it began (those that are there now, and all that were lost since),
/// and when.
fn last_trip(config: &Config, losses_ms: &[u64], live: usize) -> Option<(usize, usize, u64)> {
    let window_ms = u64::from(config.mass_loss_window_ms);
    let (mut first, mut last) = (0, None);
    for (at, &time_ms) in losses_ms.iter().enumerate() {
        while time_ms.saturating_sub(losses_ms[first]) > window_ms {
            first += 1;
        }
        let lost = at + 1 - first;
        let of = live + losses_ms.len() - first;
        if lost >= NODES_MIN && lost * 100 > config.mass_loss_percent as usize * of {
            last = Some((lost, of, time_ms));
        }
    }
    last
}

impl Breaker {
    fn look(&mut self, config: &Config, registry: &Registry, now: Now) {
        let losses = registry.losses_ms();
        let seen = (losses.len(), losses.last(), registry.nodes().len());
        if std::mem::replace(&mut self.seen, seen) == seen {
            return;
        }
        let losses_ms: Vec<u64> = registry.losses_ms().collect();
        let tripped = last_trip(config, &losses_ms, seen.2);
        self.trip = tripped.map(|(lost, of, time_ms)| {
            let until_ms = time_ms.saturating_add(config.mass_loss_pause_ms.into());
            let before = self.trip.filter(|before| before.until_ms == until_ms);
            let left_ms = until_ms.saturating_sub(now.wall_ms.max(registry.time_ms()));
            Trip {
                lost,
                of,
                until_ms,
                until_us: before.map_or(now.mono_us + left_ms * 1_000, |before| before.until_us),
            }
        });
    }

    fn tripped(&self, now_us: u64) -> Option<&Trip> {
        self.trip.as_ref().filter(|trip| now_us < trip.until_us)
    }

    /// When what is tripped now is so no longer.
    pub(crate) fn until_us(&self, now_us: u64) -> Option<u64> {
        self.tripped(now_us).map(|trip| trip.until_us)
    }
}

impl Replica {
    /// Whether nothing is to be created again now.
    pub(crate) fn holds_recreation_up(&mut self) -> bool {
        let breaker = &mut self.recreation.breaker;
        breaker.look(&self.config, &self.registry, self.now);
        self.is_recreation_paused()
    }

    /// The same, by what was seen last.
    pub(crate) fn is_recreation_paused(&self) -> bool {
        let tripped = self.recreation.breaker.tripped(self.now.mono_us);
        tripped.is_some() || self.registry.is_suspended(Switch::Recreation)
    }

    /// Why processes of lost nodes are not created again at present, and what ends that; for people.
    #[must_use]
    pub fn recreation_paused(&self) -> Option<String> {
        if self.registry.is_suspended(Switch::Recreation) {
            let text = "an operator has suspended it; it goes on when an operator resumes it";
            return Some(text.to_owned());
        }
        let now_us = self.now.mono_us;
        let trip = self.recreation.breaker.tripped(now_us)?;
        Some(format!(
            "{} of {} nodes were lost within {} s; it goes on in {} s, or when an operator resumes it",
            trip.lost,
            trip.of,
            self.config.mass_loss_window_ms.div_ceil(1_000),
            (trip.until_us - now_us).div_ceil(1_000_000),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trips(losses_ms: &[u64], live: usize) -> Option<(usize, usize, u64)> {
        last_trip(&Config::new(1), losses_ms, live)
    }

    #[test]
    fn it_takes_three_nodes_and_more_than_the_share_of_those_that_were_there() {
        assert_eq!(trips(&[], 0), None);
        assert_eq!(trips(&[1], 1), None, "1 of 2");
        assert_eq!(trips(&[1, 2], 1), None, "2 of 3");
        assert_eq!(trips(&[1, 2, 3], 1), Some((3, 4, 3)));
        assert_eq!(trips(&[1, 2, 3, 4], 6), None, "40 % of 10");
        assert_eq!(trips(&[1, 2, 3, 4, 5], 6), Some((5, 11, 5)));
    }

    #[test]
    fn only_losses_of_one_window_count_together_and_the_last_that_is_too_many_decides() {
        assert_eq!(trips(&[0, 20_000, 30_001], 2), None);
        assert_eq!(trips(&[0, 20_000, 30_000], 2), Some((3, 5, 30_000)));
        assert_eq!(trips(&[0, 1, 2, 90_000], 3), Some((3, 7, 2)));
        assert_eq!(trips(&[0, 1, 2, 3, 90_000], 5), None, "it was 4 of 10");
    }
}

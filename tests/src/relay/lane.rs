//! What becomes of one packet: how many copies go on, and when. No sockets here, and no clock.

use std::time::{Duration, Instant};

use maitred_registry::random::Random;

use super::{Lane, LaneCounts, REORDER_HOLD_MS};

/// Decides on a packet that came at `now`: when each copy that goes on is due. `last` is when the
/// last packet that keeps its order was due.
pub(super) fn pass(
    lane: &Lane,
    random: &mut Random,
    counts: &mut LaneCounts,
    last: &mut Option<Instant>,
    now: Instant,
) -> [Option<Instant>; 2] {
    counts.received += 1;
    if lane.cut {
        counts.cut += 1;
        return [None, None];
    }
    if chance(random, lane.loss) {
        counts.lost += 1;
        return [None, None];
    }
    let wait = lane.delay + lane.jitter.mul_f64(share(random));
    if !wait.is_zero() {
        counts.delayed += 1;
    }
    let mut due = now + wait;
    if chance(random, lane.reorder) {
        counts.reordered += 1;
        due += Duration::from_millis(REORDER_HOLD_MS);
    } else {
        due = last.map_or(due, |last| due.max(last));
        *last = Some(due);
    }
    let copy = chance(random, lane.duplicate);
    counts.duplicated += u64::from(copy);
    [Some(due), copy.then_some(due)]
}

fn chance(random: &mut Random, share_of: f64) -> bool {
    share_of > 0.0 && share(random) < share_of
}

/// From 0 to almost 1.
fn share(random: &mut Random) -> f64 {
    f64::from(random.next_u32()) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_what_they_say_and_the_seed_decides() {
        let lane = Lane {
            loss: 0.05,
            duplicate: 0.2,
            reorder: 0.5,
            ..Lane::default()
        };
        let run = |seed| {
            let (mut counts, mut last) = (LaneCounts::default(), None);
            let (mut random, now) = (Random::new(seed), Instant::now());
            for _ in 0..10_000 {
                pass(&lane, &mut random, &mut counts, &mut last, now);
            }
            counts
        };
        let counts = run(1);
        assert_eq!(counts, run(1));
        assert_ne!(counts, run(2));
        assert!((400..600).contains(&counts.lost), "{counts:?}");
        assert!((1_700..2_100).contains(&counts.duplicated), "{counts:?}");
        assert!((4_500..5_000).contains(&counts.reordered), "{counts:?}");
    }

    #[test]
    fn jitter_keeps_the_order_and_reorder_does_not() {
        let mut lane = Lane {
            delay: Duration::from_millis(50),
            jitter: Duration::from_millis(20),
            ..Lane::default()
        };
        let start = Instant::now();
        let (mut random, mut counts, mut last) = (Random::new(1), LaneCounts::default(), None);
        let mut due = |lane: &Lane, at: u64| {
            let now = start + Duration::from_millis(at);
            let [due, _] = pass(lane, &mut random, &mut counts, &mut last, now);
            let wait = due.unwrap() - now;
            assert!((50..=80).contains(&wait.as_millis()), "{wait:?}");
            due.unwrap()
        };
        let times: Vec<_> = (0..100).map(|at| due(&lane, at)).collect();
        assert!(times.is_sorted());
        lane.reorder = 0.3;
        let times: Vec<_> = (100..200).map(|at| due(&lane, at)).collect();
        assert!(!times.is_sorted());
    }
}

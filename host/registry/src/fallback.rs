//! The native policies that decide when a selector cannot. They are total: given a node that
//! passed the filter, they choose one.

use maitred_protocol::Fallback;

use crate::candidates::{Fleet, SelectRequest, Slot};
use crate::random::Random;

/// Chooses one of `passed`, which must not be empty.
pub(crate) fn choose(
    fallback: Fallback,
    fleet: &Fleet,
    passed: &[Slot],
    request: &SelectRequest,
    random: &mut Random,
) -> Slot {
    let load = |slot: Slot| fleet.live[slot as usize].processes;
    match fallback {
        Fallback::LeastLoaded => {
            let best = passed
                .iter()
                .copied()
                .map(|slot| (load(slot), random.next_u32(), slot))
                .min();
            best.map_or(passed[0], |(_, _, slot)| slot)
        }
        // Two random choices (Azar, Broder, Karlin and Upfal, STOC 1994).
        Fallback::TwoChoices => {
            let one = passed[random.below(passed.len() as u32) as usize];
            let two = passed[random.below(passed.len() as u32) as usize];
            if load(two) < load(one) { two } else { one }
        }
        // Highest random weight (Thaler and Ravishankar, 1998).
        Fallback::Rendezvous => {
            let weight = |slot: Slot| {
                let mut hash = blake3::Hasher::new();
                hash.update(request.key.id.as_str().as_bytes());
                hash.update(&[0]);
                hash.update(fleet.facts[slot as usize].name.as_str().as_bytes());
                let bytes = *hash.finalize().as_bytes();
                u64::from_le_bytes([
                    bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
                ])
            };
            passed
                .iter()
                .copied()
                .max_by_key(|&slot| (weight(slot), slot))
                .unwrap_or(passed[0])
        }
    }
}

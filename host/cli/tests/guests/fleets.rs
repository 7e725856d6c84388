//! Made-up fleets, and requests for them.

use std::sync::Arc;

use maitred_protocol::{Fallback, NodeEpoch, NodeName, ProcessKey};
use maitred_registry::candidates::{Fleet, NEVER, NodeFacts, NodeLive, SelectRequest};
use maitred_registry::decide::SelectJob;
use maitred_registry::random::Random;

const NOW_US: u64 = 60_000_000;

/// Nodes with few different loads, so that many are equal; every tenth has not reported any.
pub(crate) fn fleet(nodes: u32, seed: u64) -> Fleet {
    let mut random = Random::new(seed);
    let facts: Vec<Arc<NodeFacts>> = (0..nodes)
        .map(|n| {
            Arc::new(NodeFacts {
                name: NodeName::new(format!("node-{n}")).unwrap(),
                epoch: NodeEpoch(u64::from(n) + 1),
                types: Vec::new(),
                address: format!("10.0.0.{n}:7000"),
                labels: Vec::new(),
                capacity: 1_000,
                registered_ms: 1_600_000_000_000,
            })
        })
        .collect();
    let live = facts.iter().map(|facts| live(facts, &mut random)).collect();
    Fleet {
        now_us: NOW_US,
        now_ms: 1_700_000_000_000,
        ..Fleet::new(facts.into(), live)
    }
}

fn live(facts: &NodeFacts, random: &mut Random) -> NodeLive {
    let processes = random.below(6);
    let reported = random.below(10) != 0;
    let cpu = random.below(4) as f32 / 4.0;
    NodeLive {
        processes,
        used: processes,
        cpu: if reported { cpu } else { f32::NAN },
        load_at_us: if reported { NOW_US - 500_000 } else { NEVER },
        name_hash: facts.name_hash(),
        ..NodeLive::BLANK
    }
}

/// One process of the type `player`.
pub(crate) fn job(number: u32) -> SelectJob {
    let key = ProcessKey::new("player", &format!("p{number}")).unwrap();
    SelectJob {
        id: u64::from(number),
        request: Arc::new(SelectRequest::new(key)),
        fallback: Fallback::LeastLoaded,
        seed: number.wrapping_mul(2_654_435_761),
    }
}

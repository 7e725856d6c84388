//! Best fit: the tightest node, the unknown ones last, and the published ratio.

use super::*;
use maitred_guest::Chance;
use maitred_guest::testing::{Fleet, check, request, scenario};

#[test]
fn the_tightest_node_is_chosen_and_unknown_ones_are_last() {
    let fleet = Fleet::new()
        .node("open")
        .node("roomy")
        .capacity(9)
        .node("tight")
        .capacity(4)
        .node("full")
        .capacity(2);
    let choose = |demand| {
        fleet
            .decide::<BinPack>(&Request {
                demand,
                ..request("room", "r")
            })
            .unwrap()
    };
    assert_eq!(
        [2, 3, 5, 10].map(choose).map(Option::unwrap),
        ["full", "tight", "roomy", "open"]
    );
    check::<BinPack>(&fleet, &[request("room", "r1"), request("room", "r2")]);
}

/// Demands drawn evenly from 20 to 100 on nodes of 150: published, as nodes used over the lower
/// bound (the sum of the demands over 150), are 1.066 for 120 processes and 1.048 for 1,000.
#[test]
fn the_ratio_is_the_published_one() {
    for (count, runs, published) in [(120, 40, 1.066), (1_000, 5, 1.048)] {
        let mut ratio = 0.0;
        for run in 0..runs {
            let mut fleet = (0..count).fold(Fleet::new(), |fleet, n| {
                fleet.node(&n.to_string()).capacity(150)
            });
            let (mut chance, mut sum) = (Chance::new(run), 0);
            for n in 0..count {
                let demand = 20 + chance.below(81);
                fleet
                    .place::<BinPack>(&Request {
                        demand,
                        ..request("room", &format!("{run}-{n}"))
                    })
                    .unwrap();
                sum += demand;
            }
            let used = fleet.loads().iter().filter(|&&load| load > 0).count();
            ratio += used as f64 / f64::from(sum.div_ceil(150)) / f64::from(runs);
        }
        assert!((ratio - published).abs() < 0.015, "{count}: {ratio:.3}");
    }
}

#[test]
fn the_scenarios_hold() {
    scenario("scenario.toml").check::<BinPack>();
}

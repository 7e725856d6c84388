//! The nearest, within the margin, below the cap.

use super::*;
use maitred_guest::testing::{Choice, Fleet, TestHost, check, request};

fn fleet(latencies: &[(&str, u32)]) -> Fleet {
    let regions = ["eu", "us", "ap"];
    let fleet = regions
        .iter()
        .enumerate()
        .fold(Fleet::new(), |fleet, (n, region)| {
            let fleet = fleet.node(&format!("{region}-1")).processes(9 - n as u32);
            let fleet = fleet.label("zone", region);
            fleet
                .node(&format!("{region}-2"))
                .processes(20)
                .label("zone", region)
        });
    latencies
        .iter()
        .fold(fleet, |fleet, &(region, ms)| fleet.latency(region, ms))
}

fn verdict(latencies: &[(&str, u32)], config: &str) -> Choice {
    let answer = fleet(latencies).answer::<Latency>(&request("match", "m"), config);
    answer.unwrap().choice
}

#[test]
fn the_nearest_region_wins_and_those_within_the_margin_share() {
    let chosen = |name: &str| Choice::Node(name.to_owned());
    assert_eq!(verdict(&[("eu", 20), ("us", 110)], "{}"), chosen("eu-1"));
    // 8 ms more are nothing, and `us-1` is emptier.
    assert_eq!(verdict(&[("eu", 20), ("us", 28)], "{}"), chosen("us-1"));
    let strict = r#"{"margin": 0}"#;
    assert_eq!(verdict(&[("eu", 20), ("us", 28)], strict), chosen("eu-1"));
    assert_eq!(verdict(&[], "{}"), chosen("ap-1"), "nothing is said");
}

#[test]
fn beyond_the_cap_it_is_rejected() {
    let cap = r#"{"cap": 100}"#;
    assert_eq!(
        verdict(&[("eu", 90), ("us", 110)], cap),
        Choice::Node("eu-1".to_owned())
    );
    match verdict(&[("eu", 120), ("us", 110)], cap) {
        Choice::Reject { code, reason } => {
            assert_eq!((code, reason.as_str()), (TOO_FAR, "no zone within 100 ms"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_keeps_the_rules_of_every_selector() {
    let host = TestHost::default();
    for wrong in [r#"{"cap": 0}"#, r#"{"label": ""}"#, r#"{"cap_ms": 9}"#] {
        assert!(Latency::validate(wrong, &host).is_err(), "{wrong}");
    }
    let fleet = fleet(&[("eu", 20)]);
    check::<Latency>(&fleet, &[request("match", "1"), request("match", "2")]);
}

//! Each node as likely as the others, and the published gap.

use super::*;
use maitred_guest::testing::{Fleet, check, request};

#[test]
fn the_gap_is_the_published_one() {
    let (mut average, runs) = (0.0, 10);
    for run in 0..runs {
        let mut fleet = Fleet::of(100);
        for n in 0..10_000 {
            let request = request("player", &format!("{run}-{n}"));
            fleet.place::<Random>(&request).unwrap();
        }
        average += fleet.gap() / f64::from(runs);
    }
    // For 100 nodes with 100 processes each: 25.9.
    assert!((21.0..=31.0).contains(&average), "{average}");
}

#[test]
fn it_keeps_the_rules_of_every_selector() {
    let requests: Vec<_> = (0..16).map(|n| request("room", &n.to_string())).collect();
    check::<Random>(&Fleet::of(5), &requests);
}

//! Spread over labels: evenness, the last resort, the configuration.

use super::*;
use maitred_guest::testing::{Fleet, Refusal, check, request, scenario};

/// Zones of one, two and three nodes, and a node without the label.
fn uneven() -> Fleet {
    [
        ("a", "north"),
        ("b", "south"),
        ("c", "south"),
        ("d", "east"),
        ("e", "east"),
        ("f", "east"),
    ]
    .into_iter()
    .fold(Fleet::new().node("bare"), |fleet, (name, zone)| {
        fleet.node(name).label("zone", zone)
    })
}

#[test]
fn zones_stay_level_whatever_their_size() {
    let mut fleet = uneven();
    check::<Spread>(&fleet, &[request("player", "p1"), request("player", "p2")]);
    for n in 1..=300 {
        fleet
            .place::<Spread>(&request("player", &format!("p{n}")))
            .unwrap();
        let mut zones = fleet.by_label("zone", "player");
        assert_eq!(zones.remove(""), Some(0));
        let (most, least) = (zones.values().max().unwrap(), zones.values().min().unwrap());
        assert!(most - least <= 1, "{zones:?}");
    }
    // Level within a zone too.
    assert_eq!(fleet.loads()[0..2], [0, 100]);
    assert!(fleet.loads()[2..4].iter().all(|&load| load == 50));
    assert!(
        fleet.loads()[4..]
            .iter()
            .all(|load| (33..=34).contains(load)),
        "{:?}",
        fleet.loads()
    );
}

#[test]
fn only_the_same_type_counts_for_the_zone() {
    let fleet = Fleet::new()
        .node("a")
        .label("zone", "north")
        .processes_of_type("room", 9);
    let fleet = fleet
        .node("b")
        .label("zone", "south")
        .processes_of_type("player", 1);
    assert_eq!(
        fleet.decide::<Spread>(&request("player", "p")),
        Ok(Some("a".to_owned()))
    );
    assert_eq!(
        fleet.decide::<Spread>(&request("room", "r")),
        Ok(Some("b".to_owned()))
    );
}

#[test]
fn nodes_without_the_label_are_the_last_resort() {
    let bare = Fleet::new().node("x").processes(1).node("y");
    assert_eq!(
        bare.decide::<Spread>(&request("player", "p")),
        Ok(Some("y".to_owned()))
    );
    let fleet = bare
        .node("z")
        .label("zone", "north")
        .processes_of_type("player", 50);
    assert_eq!(
        fleet.decide::<Spread>(&request("player", "p")),
        Ok(Some("z".to_owned()))
    );
}

#[test]
fn the_label_comes_from_the_configuration() {
    let fleet = Fleet::new()
        .node("a")
        .label("zone", "north")
        .label("rack", "1")
        .processes_of_type("player", 1);
    let fleet = fleet.node("b").label("zone", "north").label("rack", "1");
    let fleet = fleet
        .node("c")
        .label("zone", "south")
        .label("rack", "2")
        .processes_of_type("player", 2);
    let fleet = fleet
        .node("d")
        .label("zone", "west")
        .label("rack", "1")
        .processes_of_type("player", 3);
    let chosen = |config| fleet.decide_configured::<Spread>(&request("player", "p"), config);
    assert_eq!(chosen("{}"), Ok(Some("b".to_owned())));
    assert_eq!(chosen(r#"{"label": "rack"}"#), Ok(Some("c".to_owned())));
    for wrong in [r#"{"label": 7}"#, r#"{"label": ""}"#, "nonsense"] {
        assert!(matches!(chosen(wrong), Err(Refusal::Broken(_))), "{wrong}");
    }
}

#[test]
fn the_scenarios_hold() {
    scenario("scenario.toml").check::<Spread>();
}

#[test]
fn the_answer_says_why() {
    let fleet = uneven();
    let outcome = fleet
        .answer::<Spread>(&request("player", "p"), "{}")
        .unwrap();
    assert_eq!(outcome.scores.len(), 5);
    assert_eq!(outcome.choice.node(), Some(outcome.scores[0].0.as_str()));
    assert!(outcome.scores.iter().all(|(_, terms)| terms == &[0.0, 0.0]));
}

//! Back to the last node while it can take it.

use super::*;
use maitred_guest::testing::{Fleet, check, request};

fn fleet() -> Fleet {
    let fleet = Fleet::new().node("last").processes(7).capacity(8);
    fleet.node("empty").node("some").processes(3)
}

fn chosen(fleet: &Fleet, previous: Option<&str>) -> String {
    let mut request = request("room", "r");
    request.previous = previous.map(str::to_owned);
    fleet.decide::<Sticky>(&request).unwrap().unwrap()
}

#[test]
fn it_goes_back_while_there_is_room() {
    let mut fleet = fleet();
    assert_eq!(chosen(&fleet, Some("last")), "last");
    fleet = fleet.node("full").processes(9).capacity(9);
    assert_eq!(chosen(&fleet, Some("full")), "empty");
    assert_eq!(chosen(&fleet, Some("gone")), "empty");
    assert_eq!(chosen(&fleet, None), "empty");
}

#[test]
fn it_keeps_the_rules_of_every_selector() {
    check::<Sticky>(&fleet(), &[request("room", "1"), request("room", "2")]);
}

//! The rules of members and of the level, one test a rule.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

use maitred_protocol::limits::MEMBERS_MAX;
use maitred_protocol::{HostName, Rejection, Revision};
use maitred_registry::{Command, Entry, Event, Member, Outcome, Registry};

/// A registry, and what the last entry made happen.
struct Group {
    registry: Registry,
    events: Vec<Event>,
}

impl Group {
    /// The state of a founder, host 1, that has written itself down.
    fn founded() -> Self {
        let registry = Registry::founded(&[1]);
        let events = Vec::new();
        let mut group = Self { registry, events };
        let founder = put(1, "a", "a:1", 11, None);
        assert_eq!(group.apply(founder), Outcome::Member(1));
        assert_eq!(group.events, [Event::Members]);
        // So that a new number is not one that a reader could take for a count.
        group.registry.skip(9);
        group
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.events.clear();
        let entry = Entry {
            time_ms: 1,
            request: None,
            command,
        };
        let index = self.registry.applied() + 1;
        self.registry.apply(index, entry, &mut self.events)
    }

    /// Must be rejected for a conflict, and change nothing; the text of it.
    fn refused(&mut self, command: Command) -> String {
        let before = (self.registry.members().clone(), self.registry.level());
        let outcome = self.apply(command);
        assert!(self.events.is_empty(), "{:?}", self.events);
        let after = (self.registry.members().clone(), self.registry.level());
        assert_eq!(before, after);
        let Outcome::Rejected(rejection) = &outcome else {
            panic!("{outcome:?}");
        };
        match &**rejection {
            Rejection::Conflict(text) => text.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Must answer with this member, and change nothing.
    fn unchanged(&mut self, command: Command, host: u64) {
        let before = self.registry.members().clone();
        assert_eq!(self.apply(command), Outcome::Member(host));
        assert_eq!(*self.registry.members(), before);
        assert!(self.events.is_empty(), "{:?}", self.events);
    }

    fn member(&self, host: u64) -> Member {
        self.registry.members()[&host].clone()
    }
}

fn name(text: &str) -> HostName {
    HostName::new(text).unwrap()
}

fn put(host: u64, of: &str, address: &str, instance: u64, replaces: Option<u64>) -> Command {
    Command::PutMember {
        host,
        name: name(of),
        address: address.to_owned(),
        instance,
        replaces,
    }
}

fn member(of: &str, address: &str, instance: u64, replaces: Option<u64>) -> Member {
    Member {
        name: name(of),
        address: address.to_owned(),
        instance,
        replaces,
    }
}

#[test]
fn a_new_name_gets_the_index_of_its_entry_as_its_number() {
    let mut group = Group::founded();
    assert_eq!(
        group.apply(put(0, "b", "b:1", 22, None)),
        Outcome::Member(10)
    );
    assert_eq!(group.events, [Event::Members]);
    assert_eq!(group.member(10), member("b", "b:1", 22, None));
    assert_eq!(group.member(1), member("a", "a:1", 11, None));
}

#[test]
fn a_join_asked_again_gets_the_same_number_and_brings_its_new_address() {
    let mut group = Group::founded();
    group.apply(put(0, "b", "b:1", 22, None));
    group.unchanged(put(0, "b", "b:1", 22, None), 10);
    assert_eq!(
        group.apply(put(0, "b", "b:2", 22, None)),
        Outcome::Member(10)
    );
    assert_eq!(group.events, [Event::Members]);
    assert_eq!(group.member(10), member("b", "b:2", 22, None));
}

#[test]
fn the_host_that_was_announced_takes_the_announcement_over() {
    let mut group = Group::founded();
    group.apply(put(0, "b", "b:1", 0, None));
    assert_eq!(group.member(10).instance, 0);
    assert_eq!(
        group.apply(put(0, "b", "b:2", 22, None)),
        Outcome::Member(10)
    );
    assert_eq!(group.events, [Event::Members]);
    assert_eq!(group.member(10), member("b", "b:2", 22, None));
    let text = group.refused(put(0, "b", "b:2", 33, None));
    assert!(text.contains("maitred member replace 10"), "{text}");
}

#[test]
fn an_announcement_said_twice_is_one() {
    let mut group = Group::founded();
    group.apply(put(0, "b", "b:1", 0, None));
    group.unchanged(put(0, "b", "b:1", 0, None), 10);
    let text = group.refused(put(0, "b", "b:2", 0, None));
    assert!(text.contains("maitred member remove 10"), "{text}");
    group.apply(put(0, "b", "b:1", 22, None));
    group.unchanged(put(0, "b", "b:1", 0, None), 10);
}

#[test]
fn a_used_name_is_refused_and_the_refusal_names_its_host() {
    let mut group = Group::founded();
    for instance in [0, 22] {
        let text = group.refused(put(0, "a", "b:1", instance, None));
        assert!(text.contains("a is host 1 at a:1"), "{text}");
        assert!(text.contains("maitred member replace 1"), "{text}");
    }
}

#[test]
fn a_data_directory_joins_under_one_name() {
    let mut group = Group::founded();
    let text = group.refused(put(0, "b", "b:1", 11, None));
    assert!(text.contains("joined as a (host 1)"), "{text}");
}

#[test]
fn a_known_number_is_updated_by_its_own_host_alone() {
    let mut group = Group::founded();
    group.unchanged(put(1, "a", "a:1", 11, None), 1);
    assert_eq!(
        group.apply(put(1, "c", "c:1", 11, None)),
        Outcome::Member(1)
    );
    assert_eq!(group.events, [Event::Members]);
    assert_eq!(group.member(1), member("c", "c:1", 11, None));
    for instance in [0, 22] {
        let text = group.refused(put(1, "c", "c:1", instance, None));
        assert!(text.contains("another data directory's"), "{text}");
    }
    group.apply(put(0, "b", "b:1", 0, Some(1)));
    assert_eq!(
        group.apply(put(14, "b", "b:2", 22, None)),
        Outcome::Member(14)
    );
    assert_eq!(group.member(14), member("b", "b:2", 22, Some(1)));
    group.apply(put(0, "d", "d:1", 44, None));
    let text = group.refused(put(14, "d", "b:2", 22, None));
    assert!(text.contains("d is host 16"), "{text}");
}

#[test]
fn whoever_was_taken_out_does_not_come_back_under_its_number() {
    let mut group = Group::founded();
    group.apply(put(0, "b", "b:1", 22, None));
    group.apply(Command::RemoveMember(10));
    let again = group.apply(put(10, "b", "b:2", 22, None));
    assert_eq!(again, Outcome::not_found("host 10".to_owned()));
    assert!(group.events.is_empty());
    assert_eq!(group.registry.members().len(), 1);
}

#[test]
fn a_first_voter_that_has_not_said_who_it_is_comes_by_its_number_alone() {
    let mut group = Group {
        registry: Registry::founded(&[1, 2]),
        events: Vec::new(),
    };
    assert_eq!(group.registry.members().len(), 2);
    assert_eq!(group.member(2), member("host-2", "", 0, None));
    assert_eq!((group.registry.applied(), group.registry.level()), (0, 1));
    let text = group.refused(put(0, "host-2", "x:1", 22, None));
    assert!(text.contains("host 2"), "{text}");
    assert_eq!(
        group.apply(put(2, "b", "b:1", 33, None)),
        Outcome::Member(2)
    );
    assert_eq!(group.member(2), member("b", "b:1", 33, None));
}

#[test]
fn an_index_that_is_a_first_voters_number_is_not_given_out() {
    let mut group = Group {
        registry: Registry::founded(&[1, 2]),
        events: Vec::new(),
    };
    group.registry.skip(1);
    group.refused(put(0, "b", "b:1", 22, None));
    assert_eq!(
        group.apply(put(0, "b", "b:1", 22, None)),
        Outcome::Member(3)
    );
}

#[test]
fn a_replacement_may_share_the_name_of_the_one_that_it_replaces() {
    let mut group = Group::founded();
    let announce = || put(0, "a", "a:1", 0, Some(1));
    assert_eq!(group.apply(announce()), Outcome::Member(10));
    assert_eq!(group.member(10), member("a", "a:1", 0, Some(1)));
    group.unchanged(announce(), 10);
    // The host that comes need not know that it is a replacement.
    assert_eq!(
        group.apply(put(0, "a", "a:1", 22, None)),
        Outcome::Member(10)
    );
    assert_eq!(group.member(10), member("a", "a:1", 22, Some(1)));
    group.unchanged(put(1, "a", "a:1", 11, None), 1);
    group.unchanged(put(10, "a", "a:1", 22, None), 10);
    // The lost one, should it come back, is still itself.
    group.unchanged(put(0, "a", "a:1", 11, None), 1);
    group.refused(put(0, "a", "a:1", 33, None));
}

#[test]
fn what_is_replaced_must_be_there_and_is_replaced_once() {
    let mut group = Group::founded();
    let missing = group.apply(put(0, "b", "b:1", 0, Some(7)));
    assert_eq!(missing, Outcome::not_found("host 7"));
    assert_eq!(group.registry.members().len(), 1);
    group.apply(put(0, "b", "b:1", 0, Some(1)));
    let text = group.refused(put(0, "c", "c:1", 0, Some(1)));
    assert!(text.contains("replaced by host 11"), "{text}");
}

#[test]
fn a_plain_announcement_does_not_become_a_replacement() {
    let mut group = Group::founded();
    group.apply(put(0, "b", "b:1", 0, None));
    let text = group.refused(put(0, "b", "b:1", 0, Some(1)));
    assert!(text.contains("maitred member remove 10"), "{text}");
}

#[test]
fn an_address_is_one_members_only_except_for_its_replacement() {
    let mut group = Group::founded();
    group.apply(put(0, "b", "b:1", 7, None));
    let text = group.refused(put(0, "c", "b:1", 8, None));
    assert!(text.contains("host 10 (b)"), "{text}");
    let outcome = group.apply(put(0, "b", "b:1", 0, Some(10)));
    assert!(matches!(outcome, Outcome::Member(_)), "{outcome:?}");
}

#[test]
fn there_is_a_limit_to_the_members() {
    let mut group = Group::founded();
    for number in 1..MEMBERS_MAX as u64 {
        let (name, address) = (format!("h{number}"), format!("h:{number}"));
        let outcome = group.apply(put(0, &name, &address, 100 + number, None));
        assert!(matches!(outcome, Outcome::Member(_)), "{outcome:?}");
    }
    let text = group.refused(put(0, "more", "m:1", 99, None));
    assert!(text.contains(&format!("{MEMBERS_MAX} members")), "{text}");
    group.unchanged(put(0, "h1", "h:1", 101, None), 10);
}

#[test]
fn a_removed_member_is_gone_and_nobody_replaces_it() {
    let mut group = Group::founded();
    group.apply(put(0, "a", "a:1", 22, Some(1)));
    assert_eq!(
        group.apply(Command::RemoveMember(1)),
        Outcome::Done(Revision(11))
    );
    assert_eq!(group.events, [Event::Members]);
    assert_eq!(group.registry.members().len(), 1);
    assert_eq!(group.member(10), member("a", "a:1", 22, None));
    let again = group.apply(Command::RemoveMember(1));
    assert_eq!(again, Outcome::not_found("host 1"));
    assert!(group.events.is_empty());
}

#[test]
fn removing_another_leaves_a_replacement_what_it_is() {
    let mut group = Group::founded();
    group.apply(put(0, "b", "b:1", 22, None));
    group.apply(put(0, "a", "a:1", 33, Some(1)));
    group.apply(Command::RemoveMember(10));
    assert_eq!(group.member(11).replaces, Some(1));
}

#[test]
fn the_last_member_stays() {
    let mut group = Group::founded();
    let text = group.refused(Command::RemoveMember(1));
    assert!(text.contains("last member"), "{text}");
}

#[test]
fn the_level_only_grows() {
    let mut group = Group::founded();
    assert_eq!(group.registry.level(), 1);
    assert_eq!(
        group.apply(Command::SetLevel(2)),
        Outcome::Done(Revision(10))
    );
    assert_eq!(group.events, [Event::Members]);
    assert_eq!(group.registry.level(), 2);
    assert_eq!(
        group.apply(Command::SetLevel(2)),
        Outcome::Done(Revision(11))
    );
    assert!(group.events.is_empty());
    group.refused(Command::SetLevel(1));
    group.refused(Command::SetLevel(0));
    group.refused(Command::SetLevel(256));
}

//! What is shown of answers that contradict each other, or are missing; no host is needed.

use super::*;
use maitred_protocol::HostName;

fn status(host: u64, role: &str, leader: Option<u64>, term: u64) -> Status {
    let member = |host: u64| MemberRecord {
        host,
        name: HostName::new(format!("h{host}")).unwrap(),
        address: format!("10.0.0.{host}:7600"),
        role: MemberRole::Voter,
        replaces: None,
        arrived: true,
        progress: None,
    };
    Status {
        build: "test".to_owned(),
        host,
        role: role.to_owned(),
        leader,
        no_leader: leader
            .is_none()
            .then(|| "hosts 2 and 3 do not answer".to_owned()),
        members: (1..=3).map(member).collect(),
        level: 2,
        term,
        commit: 10,
        applied: 10,
        log_entries: 10,
        snapshot: 0,
        uptime_ms: 1_000,
        nodes: 0,
        running: 0,
        starting: 0,
        pending: 0,
        clients: 0,
        unavailable_modules: Vec::new(),
        fallbacks: 0,
        shedding: None,
        held: 0,
        lost: 0,
        recreation_paused: None,
        moves_suspended: false,
        moves_left: 0,
        bypassed_modules: Vec::new(),
    }
}

fn answered(status: Status) -> HostStatus {
    HostStatus {
        host: Some(status.host),
        endpoint: format!("10.0.0.{}:7600", status.host),
        status: Ok(status),
    }
}

fn shown(asked: Vec<HostStatus>) -> Shown {
    let main = spokesman(&asked).unwrap().clone();
    Shown {
        leader: leader(&asked, &main),
        members: of_status(&main),
        main,
        asked,
    }
}

#[test]
fn a_host_that_leads_itself_is_believed_before_one_that_missed_the_election() {
    let asked = vec![
        answered(status(2, "follower", Some(1), 3)),
        answered(status(3, "leader", Some(3), 4)),
    ];
    let shown = shown(asked);
    assert_eq!(shown.leader, Some(3));
    let text = shown.text();
    assert!(text.contains("led by h3 in term 4"), "{text}");
    assert!(text.contains("2 of 3 answer"), "{text}");
    assert_eq!(
        shown.to_json()["members"][0]["problem"],
        "it was not called"
    );
}

#[test]
fn without_a_leader_it_says_why_and_what_to_do() {
    let shown = shown(vec![answered(status(1, "candidate", None, 9))]);
    assert_eq!(shown.leader, None);
    assert!(
        shown
            .text()
            .contains("NOBODY LEADS: hosts 2 and 3 do not answer")
    );
    let failure = leaderless(&shown.main);
    assert_eq!(
        (failure.exit, failure.code),
        (Exit::Unavailable, "no_leader")
    );
    assert!(failure.help.contains("start the hosts"), "{}", failure.help);
}

#[test]
fn a_host_of_another_cluster_is_called_that() {
    // Founded by mistake, at the address of the second host and with a number that is taken.
    let mut other = status(1, "leader", Some(1), 1);
    other.members.truncate(1);
    other.members[0].name = HostName::new("h2").unwrap();
    other.members[0].address = "10.0.0.2:7600".to_owned();
    let asked = vec![answered(status(1, "leader", Some(1), 3)), answered(other)];
    let shown = shown(asked);
    assert!(shown.text().contains("belongs to another cluster"));
    let others = &shown.to_json()["others"];
    assert_eq!(others[0]["problem"], "belongs to another cluster");
}

#[test]
fn lost_nodes_and_moves_are_spoken_of_only_when_there_are_some() {
    let quiet = shown(vec![answered(status(1, "leader", Some(1), 3))]);
    for word in ["held", "recreation", "moves"] {
        assert!(!quiet.text().contains(word), "{word}: {}", quiet.text());
    }
    assert_eq!(quiet.to_json()["held"], "0");
    assert_eq!(quiet.to_json()["moves_left"], 0);
    let mut busy = status(1, "leader", Some(1), 3);
    busy.held = 40;
    busy.lost = 2;
    busy.recreation_paused = Some("30 of 100 nodes were lost".to_owned());
    busy.moves_suspended = true;
    busy.moves_left = 7;
    let text = shown(vec![answered(busy)]).text();
    for part in [
        "40 keys",
        "lost sessions: 2",
        "PAUSED: 30 of 100",
        "SUSPENDED, 7 left",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

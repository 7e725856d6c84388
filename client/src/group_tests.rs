//! Several hosts of the test's own: leaders that change, hosts that die, join and leave.

use std::time::Duration;

use maitred_protocol::{
    ClientId, Digest, HostName, MemberRecord, MemberRole, ProcessKey, Rejection, Request, Response,
    Revision, SavedSnapshot, Status, TypeName, TypeSpec, Unavailable,
};
use tokio::task::JoinHandle;

use crate::fake_host::{FakeHost, members};
use crate::{Cause, Client, Error, ReadFrom, SavedFile};

const DONE: Response = Response::Done(Revision(9));
const ALL: [u64; 3] = [1, 2, 3];

fn key(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

/// Three hosts, of which the client was told of the first only; host 1 leads in term 1.
async fn group() -> ([FakeHost; 3], Client) {
    group_with(Duration::from_secs(10)).await
}

async fn group_with(request_timeout: Duration) -> ([FakeHost; 3], Client) {
    let hosts = FakeHost::group(3);
    let builder = hosts[0].builder().request_timeout(request_timeout);
    let client = builder.connect().await.unwrap();
    client.caller().pool.until(&ALL, Some(1)).await;
    (hosts.try_into().ok().unwrap(), client)
}

fn del(client: &Client) -> JoinHandle<Result<Revision, Error>> {
    let client = client.clone();
    tokio::spawn(async move { client.del(&key("a"), None).await })
}

async fn done(deleted: JoinHandle<Result<Revision, Error>>) {
    assert_eq!(deleted.await.unwrap().unwrap(), Revision(9));
}

#[tokio::test]
async fn a_notice_moves_requests_to_the_leader_and_one_of_an_old_term_does_not() {
    let ([mut one, mut two, three], client) = group().await;
    three.says_leader(Some(2), 5);
    client.caller().pool.until(&ALL, Some(2)).await;
    let deleted = del(&client);
    let (peer, id, _) = two.request().await;
    peer.reply(id, &DONE);
    done(deleted).await;
    // In order on one connection: when the second has been heard, so has the first.
    three.says_leader(Some(3), 4);
    three.says_leader(Some(1), 6);
    client.caller().pool.until(&ALL, Some(1)).await;
    let deleted = del(&client);
    let (peer, id, _) = one.request().await;
    peer.reply(id, &DONE);
    done(deleted).await;
}

#[tokio::test]
async fn what_a_silent_deposed_leader_was_asked_is_asked_of_the_new_one_under_the_same_id() {
    let ([mut one, mut two, _three], client) = group().await;
    let deleted = del(&client);
    let (_silent, id, request) = one.request().await;
    let heard = tokio::time::Instant::now();
    two.says_leader(Some(2), 2);
    let (peer, again, same) = two.request().await;
    assert_eq!((again, same), (id, request));
    let within = heard.elapsed();
    assert!(within < Duration::from_secs(1), "{within:?}");
    peer.reply(id, &DONE);
    done(deleted).await;
}

#[tokio::test]
async fn a_request_outlives_its_leader_and_the_time_without_one() {
    let ([mut one, mut two, mut three], client) = group().await;
    let deleted = del(&client);
    let (_peer, id, request) = one.request().await;
    one.die();
    for _ in 0..4 {
        let (peer, again, same) = tokio::select! {
            asked = two.request() => asked,
            asked = three.request() => asked,
        };
        assert_eq!((again, &same), (id, &request));
        peer.not_leader(id, None);
    }
    three.says_leader(Some(3), 2);
    let answered = async {
        loop {
            tokio::select! {
                (peer, again, _) = two.request() => peer.not_leader(again, None),
                (peer, again, same) = three.request() => {
                    assert_eq!((again, same), (id, request));
                    peer.reply(id, &DONE);
                    break;
                }
            }
        }
    };
    answered.await;
    done(deleted).await;
}

#[tokio::test]
async fn a_hint_at_the_leader_is_followed() {
    let ([mut one, mut two, three], client) = group().await;
    let deleted = del(&client);
    let (peer, id, _) = one.request().await;
    peer.not_leader(id, Some(&two));
    let (peer, again, _) = two.request().await;
    assert_eq!(again, id);
    peer.reply(id, &DONE);
    done(deleted).await;
    drop(three);
}

#[tokio::test]
async fn what_was_sent_stays_unknown_whatever_other_hosts_say_and_what_was_not_is_not_done() {
    let ([mut one, mut two, mut three], client) = group_with(Duration::from_millis(700)).await;
    let refuse = tokio::spawn(async move {
        loop {
            let (peer, id, _) = tokio::select! {
                asked = two.request() => asked,
                asked = three.request() => asked,
            };
            peer.not_leader(id, None);
        }
    });
    let deleted = del(&client);
    let (_peer, id, _) = one.request().await;
    one.die();
    let error = deleted.await.unwrap().unwrap_err();
    let Error::Unknown { request_id, cause } = error else {
        panic!("{error}");
    };
    assert_eq!(request_id.sequence, id);
    let no_leader = Cause::Host(Unavailable::NotLeader { leader: None });
    assert_eq!(cause, no_leader);
    // Nobody has taken this one.
    let error = del(&client).await.unwrap().unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable { cause } if *cause == no_leader),
        "{error}"
    );
    refuse.abort();
}

#[tokio::test]
async fn an_unsure_host_is_not_the_next_to_be_asked() {
    let ([mut one, mut two, mut three], client) = group().await;
    let deleted = del(&client);
    let (peer, id, _) = one.request().await;
    peer.reply(id, &Response::Unknown("the leader changed".to_owned()));
    let (peer, again, _) = tokio::select! {
        asked = two.request() => asked,
        asked = three.request() => asked,
    };
    assert_eq!(again, id);
    peer.not_leader(id, Some(&one));
    let (peer, again, _) = one.request().await;
    assert_eq!(again, id);
    peer.reply(id, &DONE);
    done(deleted).await;
}

#[tokio::test]
async fn reads_go_to_the_leader_or_to_all_in_turn() {
    let (mut hosts, client) = group().await;
    let anywhere = client.read_from(ReadFrom::Any);
    let types = Response::Types {
        items: Vec::new(),
        next: None,
    };
    let mut asked = Vec::new();
    for client in [&client, &client, &anywhere, &anywhere, &anywhere] {
        let [one, two, three] = &mut hosts;
        let answer = async {
            let (host, (peer, id, _)) = tokio::select! {
                asked = one.request() => (1, asked),
                asked = two.request() => (2, asked),
                asked = three.request() => (3, asked),
            };
            asked.push(host);
            peer.reply(id, &types);
        };
        let (listed, ()) = tokio::join!(client.types(), answer);
        assert_eq!(listed.unwrap(), []);
    }
    assert_eq!(asked[..2], [1, 1]);
    asked[2..].sort_unstable();
    assert_eq!(asked[2..], [1, 2, 3]);
}

#[tokio::test]
async fn all_pages_of_a_list_are_asked_for() {
    let (mut hosts, client) = group().await;
    let at = TypeName::new("at").unwrap();
    let answers = async {
        for (after, next) in [(None, Some(at.clone())), (Some(at.clone()), None)] {
            let (peer, id, request) = hosts[0].request().await;
            assert_eq!(request, Request::ListTypes { after });
            let items = vec![TypeSpec::new(at.clone())];
            peer.reply(id, &Response::Types { items, next });
        }
    };
    let (types, ()) = tokio::join!(client.types(), answers);
    assert_eq!(types.unwrap().len(), 2);
}

#[tokio::test]
async fn a_read_that_a_follower_cannot_serve_is_the_leaders() {
    let (mut hosts, client) = group().await;
    let anywhere = client.read_from(ReadFrom::Any);
    let [one, two, three] = &mut hosts;
    let answers = async {
        let mut reads = 0;
        while reads < 3 {
            tokio::select! {
                (peer, id, _) = one.request() => {
                    let none = Response::Nodes { items: Vec::new(), next: None };
                    peer.reply(id, &none);
                    reads += 1;
                }
                (peer, id, _) = two.request() => peer.not_leader(id, None),
                (peer, id, _) = three.request() => peer.not_leader(id, None),
            }
        }
    };
    let reads = async {
        for _ in 0..3 {
            assert_eq!(anywhere.nodes().await.unwrap(), []);
        }
    };
    tokio::join!(answers, reads);
}

#[tokio::test]
async fn members_that_come_are_called_and_those_that_leave_are_let_go() {
    let hosts = FakeHost::group(4);
    let all: Vec<_> = hosts
        .iter()
        .map(|host| (host.number, host.address))
        .collect();
    let say = |commit, some: &[(u64, std::net::SocketAddr)]| {
        for host in &hosts {
            host.says.lock().unwrap().members = Some(members(commit, some));
        }
    };
    say(1, &all[..3]);
    let client = hosts[0].builder().connect().await.unwrap();
    let pool = &client.caller().pool;
    pool.until(&ALL, Some(1)).await;
    // A leader that is not known is reason enough to ask who the members are.
    say(2, &all);
    hosts[1].says_leader(Some(4), 2);
    pool.until(&[1, 2, 3, 4], Some(4)).await;
    // The seed's own host leaves, and the next leader is one that has no way to it yet.
    say(3, &all[1..3]);
    hosts[1].says_leader(Some(9), 3);
    pool.until(&[2, 3], Some(9)).await;
}

#[tokio::test]
async fn a_seed_is_the_way_back_in_when_no_member_answers() {
    let [one, two, three] = FakeHost::group(3).try_into().ok().unwrap();
    let builder = one.builder().endpoint(two.address.to_string());
    let client = builder.connect().await.unwrap();
    let pool = &client.caller().pool;
    pool.until(&ALL, Some(1)).await;
    let left = members(2, &[(2, two.address), (3, three.address)]);
    for host in [&one, &two, &three] {
        host.says.lock().unwrap().members = Some(left.clone());
    }
    two.says_leader(Some(3), 2);
    // Reason to ask again: a connection that is made.
    two.says
        .lock()
        .unwrap()
        .peers
        .iter()
        .for_each(|peer| peer.cut());
    pool.until(&[2, 3], Some(3)).await;
    two.die();
    three.die();
    pool.until(&[1], Some(1)).await;
}

#[tokio::test]
async fn learned_addresses_that_lead_nowhere_do_no_harm() {
    let mut host = FakeHost::start();
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let advertised = members(1, &[(1, nowhere), (2, nowhere)]);
    host.says.lock().unwrap().members = Some(advertised);
    let client = host.builder().connect().await.unwrap();
    for _ in 0..3 {
        let deleted = del(&client);
        let (peer, id, _) = host.request().await;
        peer.reply(id, &DONE);
        done(deleted).await;
    }
}

fn status(host: u64) -> Response {
    let status = Status {
        build: String::new(),
        host,
        role: String::new(),
        leader: None,
        no_leader: None,
        members: Vec::new(),
        level: 1,
        term: 1,
        commit: 0,
        applied: 0,
        log_entries: 0,
        snapshot: 0,
        uptime_ms: 0,
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
    };
    Response::Status(Box::new(status))
}

#[tokio::test]
async fn every_host_says_how_it_is() {
    let ([mut one, mut two, mut three], client) = group().await;
    let answer = async |host: &mut FakeHost| {
        let (peer, id, request) = host.request().await;
        assert_eq!(request, Request::Status);
        peer.reply(id, &status(host.number));
    };
    let (of, ()) = tokio::join!(client.status_of(3), answer(&mut three));
    assert_eq!(of.unwrap().host, 3);
    let error = client.status_of(7).await.unwrap_err();
    assert!(
        matches!(error, Error::Rejected(Rejection::NotFound(_))),
        "{error}"
    );
    let third = async {
        let (peer, id, _) = three.request().await;
        peer.reply(id, &DONE);
    };
    let answers = async { tokio::join!(answer(&mut one), answer(&mut two), third) };
    let (all, _) = tokio::join!(client.status_all(), answers);
    let said: Vec<_> = all
        .into_iter()
        .map(|said| (said.host, said.status.ok().map(|status| status.host)))
        .collect();
    assert_eq!(
        said,
        [(Some(1), Some(1)), (Some(2), Some(2)), (Some(3), None)]
    );
}

#[tokio::test]
async fn the_verbs_of_membership_carry_the_session_and_come_back() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let record = MemberRecord {
        host: 40,
        name: HostName::new("eu-4").unwrap(),
        address: "eu-4:7400".to_owned(),
        role: MemberRole::Joining,
        replaces: None,
        arrived: false,
        progress: None,
    };
    let member = Response::Member(Box::new(record.clone()));
    let name = record.name.clone();
    let answer = async |host: &mut FakeHost, answer: &Response| {
        let (peer, id, request) = host.request().await;
        peer.reply(id, answer);
        request
    };
    let (added, asked) = tokio::join!(
        client.add_member(name.clone(), "eu-4:7400"),
        answer(&mut host, &member)
    );
    assert_eq!(added.unwrap(), record);
    let session = asked.client().unwrap();
    assert_ne!(session, ClientId(0));
    let expected = Request::AddMember {
        client: session,
        name,
        address: "eu-4:7400".to_owned(),
    };
    assert_eq!(asked, expected);
    let (_, asked) = tokio::join!(client.replace_member(3, None), answer(&mut host, &member));
    let expected = Request::ReplaceMember {
        client: session,
        host: 3,
        address: None,
    };
    assert_eq!(asked, expected);
    let (_, asked) = tokio::join!(client.remove_member(2), answer(&mut host, &DONE));
    let expected = Request::RemoveMember {
        client: session,
        host: 2,
    };
    assert_eq!(asked, expected);
    let (moved, asked) = tokio::join!(client.transfer_leader(Some(2)), answer(&mut host, &DONE));
    assert_eq!(asked, Request::TransferLeader { to: Some(2) });
    moved.unwrap();
    assert_eq!(client.members().await.unwrap().items[0].host, 1);
    // Nobody else uses the session any more.
    let (_, asked) = tokio::join!(client.close(), answer(&mut host, &DONE));
    assert_eq!(asked, Request::CloseSession(session));
}

#[tokio::test]
async fn a_snapshot_arrives_whole_or_is_called_damaged() {
    let host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let file: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let announced = SavedSnapshot::File {
        index: 77,
        bytes: file.len() as u64,
        digest: Digest::of(&file),
    };
    let save = async |said: &SavedSnapshot, bytes: &[u8]| {
        host.says.lock().unwrap().snapshot = (said.clone(), bytes.to_vec());
        let (mut to, mut last) = (Vec::new(), (0, 0));
        let saved = client
            .save_snapshot(true, &mut to, |got, of| last = (got, of))
            .await;
        (saved, to, last)
    };
    let (saved, to, last) = save(&announced, &file).await;
    let expected = SavedFile {
        host: 1,
        index: 77,
        bytes: 300_000,
        digest: Digest::of(&file),
    };
    assert_eq!((saved.unwrap(), last), (expected, (300_000, 300_000)));
    assert_eq!(to, file);
    let mut altered = file.clone();
    altered[123_456] ^= 1;
    let long: Vec<u8> = file.iter().copied().chain([0]).collect();
    for bytes in [&altered, &file[..299_999].to_vec(), &long] {
        let error = save(&announced, bytes).await.0.unwrap_err();
        let damaged = matches!(
            error,
            Error::Unavailable {
                cause: Cause::Damaged(_)
            }
        );
        assert!(damaged, "{error}");
    }
    let none = SavedSnapshot::Unavailable("the disk is full".to_owned());
    let error = save(&none, &[]).await.0.unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
}

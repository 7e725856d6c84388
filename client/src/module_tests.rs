//! The verbs of modules and parties: what they send, and what they make of the answers.

use std::time::Duration;

use maitred_protocol::comparison::{ComparedVersion, Comparison, Evenness, Quantiles};
use maitred_protocol::{
    ClientId, CreateParty, Digest, ModuleKind, ModuleName, ModuleRecord, NodeName, PartyRule,
    ProcessKey, Rejection, Request, Response, Revision, SavedInputs, Signature, TypeName,
};

use crate::fake_host::FakeHost;
use crate::request_tests::record;
use crate::{Cause, Error, InputsFile};

fn name() -> ModuleName {
    ModuleName::new("spread").unwrap()
}

fn key(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

fn module() -> ModuleRecord {
    ModuleRecord {
        name: name(),
        kind: ModuleKind::Selector,
        versions: Vec::new(),
        active: Some(2),
        previous: Some(1),
        config: "{}".to_owned(),
        config_version: 1,
        guard: String::new(),
        canary: None,
        shadow: None,
        declined: Vec::new(),
        activated: Revision(4),
        revision: Revision(4),
    }
}

fn comparison() -> Comparison {
    Comparison {
        module: name(),
        decided: Vec::new(),
        other: ComparedVersion {
            version: 3,
            digest: Digest([0; 32]),
            config: 1,
        },
        decisions: 10,
        skipped: 0,
        agreed: 9,
        moved: 1,
        newly_rejected: 0,
        newly_placed: 0,
        same_version: 0,
        identical: 0,
        traps: 0,
        timeouts: 0,
        bad_answers: 0,
        fuel: Quantiles::default(),
        nanos: Quantiles::default(),
        spread_decided: Evenness::default(),
        spread_other: Evenness::default(),
        differences: Vec::new(),
        from_ms: 1,
        to_ms: 2,
    }
}

async fn answer(host: &mut FakeHost, answer: &Response) -> Request {
    let (peer, id, request) = host.request().await;
    peer.reply(id, answer);
    request
}

#[tokio::test]
async fn an_activation_says_what_it_was_told_and_defaults_to_all_ids() {
    let spread = name();
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let said = Response::Module(Box::new(module()));
    let (made, asked) = tokio::join!(
        client.activate_module(&spread, 0, None),
        answer(&mut host, &said)
    );
    assert_eq!(made.unwrap(), module());
    let session = asked.client().unwrap();
    assert_ne!(session, ClientId(0));
    let whole = Request::ActivateModule {
        client: session,
        name: name(),
        version: 0,
        config: None,
        percent: 100,
        types: Vec::new(),
        guard: String::new(),
    };
    assert_eq!(asked, whole);
    let room = TypeName::new("room").unwrap();
    let canary = client
        .activate(&name())
        .version(3)
        .percent(10)
        .types([room.clone()])
        .config("{\"a\":1}")
        .auto_rollback("traps>0");
    let (_, asked) = tokio::join!(canary.send(), answer(&mut host, &said));
    let expected = Request::ActivateModule {
        client: session,
        name: name(),
        version: 3,
        config: Some("{\"a\":1}".to_owned()),
        percent: 10,
        types: vec![room],
        guard: "traps>0".to_owned(),
    };
    assert_eq!(asked, expected);
    let refused = client.activate(&name()).percent(0).send().await;
    let refused = refused.unwrap_err();
    assert!(matches!(&refused, Error::Rejected(Rejection::Invalid(_))));
    assert!(refused.to_string().contains("percent"), "{refused}");
}

#[tokio::test]
async fn trials_ask_for_a_version_and_come_back_with_a_comparison() {
    let spread = name();
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let said = Response::Module(Box::new(module()));
    let (_, asked) = tokio::join!(
        client.start_shadow(&spread, 3, None),
        answer(&mut host, &said)
    );
    let client_id = asked.client().unwrap();
    let shadow = |shadow| Request::ShadowModule {
        client: client_id,
        name: name(),
        shadow,
    };
    assert_eq!(asked, shadow(Some((3, None))));
    let (_, asked) = tokio::join!(client.stop_shadow(&spread), answer(&mut host, &said));
    assert_eq!(asked, shadow(None));
    let said = Response::Comparison(Box::new(comparison()));
    let (seen, asked) = tokio::join!(client.compare_module(&spread), answer(&mut host, &said));
    assert_eq!(
        (seen.unwrap(), asked),
        (comparison(), Request::CompareModule(name()))
    );
    let (seen, asked) = tokio::join!(
        client.replay_module(&spread, 3, Some("{}".to_owned()), 500),
        answer(&mut host, &said)
    );
    let expected = Request::ReplayModule {
        name: name(),
        version: 3,
        config: Some("{}".to_owned()),
        last: 500,
    };
    assert_eq!((seen.unwrap(), asked), (comparison(), expected));
    let (wrong, _) = tokio::join!(
        client.module_history(&spread),
        answer(&mut host, &Response::Done(Revision(1)))
    );
    assert!(wrong.unwrap_err().to_string().contains("a history"));
}

#[tokio::test]
async fn a_push_carries_its_signature() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let signature = Signature {
        key: [7; 32],
        bytes: [9; 64],
    };
    let spread = name();
    let push = client.push_signed(&spread, ModuleKind::Selector, b"x", Some(signature), |_| {});
    let session = async {
        let (peer, id, request) = host.requests.recv().await.unwrap();
        assert_eq!(request, Request::OpenSession);
        peer.reply(id, &Response::Session(ClientId(77)));
    };
    let (pushed, ()) = tokio::join!(push, session);
    let error = pushed.unwrap_err().to_string();
    assert!(error.contains("signed by [7, 7"), "{error}");
}

#[tokio::test]
async fn recorded_inputs_arrive_whole_or_are_called_damaged() {
    let host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let file: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let announced = SavedInputs::File {
        decisions: 80,
        bytes: file.len() as u64,
        digest: Digest::of(&file),
    };
    let save = async |said: &SavedInputs, bytes: &[u8]| {
        host.says.lock().unwrap().inputs = (said.clone(), bytes.to_vec());
        let mut to = Vec::new();
        let saved = client.save_inputs(Some(name()), 100, &mut to, |_, _| {});
        (saved.await, to)
    };
    let (saved, to) = save(&announced, &file).await;
    let expected = InputsFile {
        host: 1,
        decisions: 80,
        bytes: 200_000,
        digest: Digest::of(&file),
    };
    assert_eq!((saved.unwrap(), to), (expected, file.clone()));
    let error = save(&announced, &file[1..]).await.0.unwrap_err();
    let damaged = Cause::Damaged("it was cut short");
    assert!(
        matches!(&error, Error::Unavailable { cause } if *cause == damaged),
        "{error}"
    );
    let none = SavedInputs::Unavailable("nothing is recorded".to_owned());
    let error = save(&none, &[]).await.0.unwrap_err();
    assert!(error.to_string().contains("nothing is recorded"));
    let mut nowhere = Vec::new();
    let error = client.save_inputs(None, 0, &mut nowhere, |_, _| {}).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Rejected(Rejection::Invalid(_))));
}

#[tokio::test]
async fn a_party_is_one_request_and_says_whose_member_kept_it_from_being() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let near = client
        .create(key("1"))
        .latency("eu", Duration::from_millis(12));
    let party = client
        .party("squad-7")
        .rule(PartyRule::Together)
        .member(near)
        .member(client.create(key("2")));
    let both = vec![record("1"), record("2")];
    let said = Response::Party(both.clone(), true);
    let (made, asked) = tokio::join!(party.clone().send(), answer(&mut host, &said));
    let made = made.unwrap();
    assert_eq!((made.records, made.created), (both, true));
    let Request::CreateParty(session, sent) = asked else {
        panic!("{asked:?}");
    };
    assert_ne!(session, ClientId(0));
    let CreateParty {
        group,
        rule,
        members,
    } = *sent;
    assert_eq!(
        (group.as_str(), rule, members.len()),
        ("squad-7", PartyRule::Together, 2)
    );
    assert_eq!(members[0].options.latencies, [("eu".to_owned(), 12)]);
    let no = Rejection::Party {
        key: key("2"),
        reason: "no node can take it".to_owned(),
    };
    let said = Response::Rejected(no);
    let (made, _) = tokio::join!(party.send(), answer(&mut host, &said));
    let error = made.unwrap_err().to_string();
    assert!(
        error.contains("player/2") && error.contains("no node"),
        "{error}"
    );
    let none = client.party("squad-7").send().await.unwrap_err();
    assert!(none.to_string().contains("members"), "{none}");
}

#[tokio::test]
async fn an_explanation_may_be_asked_about_a_node() {
    let mut host = FakeHost::start();
    let client = host.builder().connect().await.unwrap();
    let node = NodeName::new("eu-2").unwrap();
    let process = key("1");
    let said = Response::Rejected(Rejection::NotFound("process player/1".to_owned()));
    let (none, asked) = tokio::join!(
        client.explain_why_not(&process, &node),
        answer(&mut host, &said)
    );
    none.unwrap_err();
    let expected = Request::Explain {
        key: process,
        why_not: Some(node),
    };
    assert_eq!(asked, expected);
}

//! Who vouches for a module, and which hosts must be able to run it.

use std::path::PathBuf;

use maitred_client::protocol::{MemberRole, ModuleKind, ModuleName, Rejection, UploadStage};
use maitred_client::{Client, Error};
use maitred_protocol::{Digest, Request, Response, Signature, Status};
use maitred_sandbox::signature::{generate, sign};
use maitred_server::{CompilerCommand, Running, Server, ServerConfig};

use crate::bulk::greeted;
use crate::harness::{Group, within};
use crate::wire::{answer, counted, frame};

const SPREAD: &[u8] = include_bytes!("../../../../selectors/prebuilt/spread.wasm");

/// The same selector in other bytes: with a custom section that nobody reads.
fn variant(number: u8) -> Vec<u8> {
    [SPREAD, &[0, 3, 1, b'v', number]].concat()
}

async fn start(config: ServerConfig) -> Running {
    let running = within(Server::start(config)).await.unwrap();
    within(running.ready()).await.unwrap();
    running
}

fn rejected(error: &Error) -> (&str, &str) {
    match error {
        Error::Rejected(Rejection::Module { stage, reason }) => (stage, reason),
        other => panic!("{other:?}"),
    }
}

/// A file with one key, and the text of the private half.
fn key_file(group: &Group) -> (PathBuf, String) {
    let (private, public) = generate().unwrap();
    let path = group.data_dir().with_file_name("keys.pub");
    std::fs::write(&path, format!("# who may\n{public} ops\n")).unwrap();
    (path, private)
}

async fn push(
    client: &Client,
    name: &ModuleName,
    number: u8,
    signature: Option<Signature>,
) -> Result<u32, Error> {
    let bytes = variant(number);
    let push = client.push_signed(name, ModuleKind::Selector, &bytes, signature, |_| ());
    within(push).await.map(|pushed| pushed.version)
}

fn signed(private: &str, number: u8) -> Signature {
    let digest = Digest::of(&variant(number));
    sign(private, &digest, ModuleKind::Selector).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_modules_must_be_signed_only_those_that_are_get_in_besides_the_standard_ones() {
    let group = Group::new();
    let (keys, private) = key_file(&group);
    let (strange, _) = generate().unwrap();
    let config = ServerConfig {
        require_signed: Some(keys),
        http: Some((std::net::Ipv4Addr::LOCALHOST, 0).into()),
        ..group.config()
    };
    // The standard modules are not signed, and are trusted.
    let running = start(config).await;
    let client = group.client(&running).await;
    let name: ModuleName = "mine".parse().unwrap();
    for (signature, says) in [
        (None, "it is not signed"),
        (Some(signed(&strange, 1)), "not one of the keys"),
        (Some(signed(&private, 2)), "does not fit"),
    ] {
        let error = push(&client, &name, 1, signature).await.unwrap_err();
        let (stage, reason) = rejected(&error);
        assert_eq!(stage, "checking the signature");
        assert!(
            reason.contains(says) && reason.contains("maitred module sign"),
            "{reason}"
        );
    }
    let signature = signed(&private, 1);
    assert_eq!(push(&client, &name, 1, Some(signature)).await.unwrap(), 1);
    let module = within(client.activate_module(&name, 0, None))
        .await
        .unwrap();
    assert_eq!(module.versions[0].signature, Some(signature));
    assert_eq!(
        counted(&running, "maitred_signatures_refused_total").await,
        3
    );
    let status = within(client.status()).await.unwrap();
    assert_eq!(status.unavailable_modules, []);
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_does_not_fit_is_refused_where_nobody_must_sign() {
    let group = Group::new();
    let running = group.start_bare().await;
    let client = group.client(&running).await;
    let (private, _) = generate().unwrap();
    let name: ModuleName = "mine".parse().unwrap();
    let wrong = Some(signed(&private, 2));
    let error = push(&client, &name, 1, wrong).await.unwrap_err();
    assert_eq!(rejected(&error).0, "checking the signature");
    let right = Some(signed(&private, 1));
    assert_eq!(push(&client, &name, 1, right).await.unwrap(), 1);
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_read_are_named_when_the_host_starts() {
    let group = Group::new();
    let config = ServerConfig {
        require_signed: Some(group.data_dir().with_file_name("nowhere")),
        ..group.bare()
    };
    let error = Server::start(config).await.unwrap_err().to_string();
    assert!(
        error.contains("require_signed") && error.contains("nowhere"),
        "{error}"
    );
}

async fn status_of(group: &Group, running: &Running) -> Status {
    let (_connection, mut send, mut reader) = greeted(group, running).await;
    send.write_all(&frame(2, &Request::Status)).await.unwrap();
    match answer(&mut reader).await.1 {
        Response::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

async fn until_unavailable(group: &Group, running: &Running, says: &str) {
    let named = async {
        loop {
            let missing = status_of(group, running).await.unavailable_modules;
            if missing.iter().any(|(_, why)| why.contains(says)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within(named).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_wants_signatures_does_not_run_what_others_recorded_without() {
    let group = Group::new();
    let first = start(group.bare()).await;
    let client = group.client(&first).await;
    let name: ModuleName = "mine".parse().unwrap();
    push(&client, &name, 1, None).await.unwrap();
    within(client.activate_module(&name, 1, None))
        .await
        .unwrap();
    let (keys, private) = key_file(&group);
    let second = start(ServerConfig {
        require_signed: Some(keys),
        ..group.joining("second", &first)
    })
    .await;
    until_unavailable(&group, &second, "it is not signed").await;
    assert_eq!(status_of(&group, &first).await.unavailable_modules, []);
    voters(&client, 2).await;

    // And so it is not ready for a new one, which both must be.
    let error = push(&client, &name, 2, None).await.unwrap_err();
    let (_, reason) = rejected(&error);
    assert!(
        reason.contains("host second (") && reason.contains("it is not signed"),
        "{reason}"
    );
    let signature = Some(signed(&private, 2));
    let version = push(&client, &name, 2, signature).await.unwrap();
    within(client.activate_module(&name, version, None))
        .await
        .unwrap();
    let available = async {
        while !status_of(&group, &second)
            .await
            .unavailable_modules
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
    };
    within(available).await;
    within(second.shutdown()).await.unwrap();
    within(first.shutdown()).await.unwrap();
}

async fn voters(client: &Client, count: usize) {
    let voting = async {
        loop {
            let members = client.members().await.unwrap();
            let voting = |role| role == MemberRole::Voter;
            if members.items.iter().filter(|one| voting(one.role)).count() == count {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    within(voting).await;
}

/// Settings of a host whose compiler comes to be where the path says.
fn without_compiler(group: &Group, config: ServerConfig, path: &str) -> (ServerConfig, PathBuf) {
    let program = group.data_dir().with_file_name(path);
    let compiler = CompilerCommand {
        program: program.clone(),
        args: Vec::new(),
    };
    let config = ServerConfig {
        compiler: Some(compiler),
        ..config
    };
    (config, program)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_recorded_and_activated_only_when_most_hosts_can_run_it() {
    let group = Group::new();
    let first = start(group.bare()).await;
    let joining = ["second", "third"].map(|name| group.joining(name, &first));
    let [second, third] = joining;
    let (second, compiler) = without_compiler(&group, second, "compiler 2");
    let (third, _) = without_compiler(&group, third, "compiler 3");
    let second_config = second.clone();
    let (second, third) = (start(second).await, start(third).await);
    let client = group.client(&first).await;
    voters(&client, 3).await;

    let name: ModuleName = "mine".parse().unwrap();
    let error = push(&client, &name, 1, None).await.unwrap_err();
    let (_, reason) = rejected(&error);
    for part in [
        "1 of the 3 hosts",
        "host second (",
        "host third (",
        "could not be run",
    ] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert_eq!(within(client.modules()).await.unwrap(), []);

    let real = group.config().compiler.unwrap().program;
    std::os::unix::fs::symlink(&real, &compiler).unwrap();
    let stages = std::sync::Mutex::new(Vec::new());
    let bytes = variant(1);
    let push = client.push_module(&name, ModuleKind::Selector, &bytes, |stage| {
        stages.lock().unwrap().push(stage);
    });
    within(push).await.unwrap();
    let stages = stages.into_inner().unwrap();
    assert!(stages.contains(&UploadStage::Spreading(1, 3)), "{stages:?}");
    assert!(stages.contains(&UploadStage::Spreading(2, 3)), "{stages:?}");
    assert_eq!(stages.last(), Some(&UploadStage::Recording));
    within(client.activate_module(&name, 1, None))
        .await
        .unwrap();
    // Who cannot says so, and is asked again.
    until_unavailable(&group, &third, "could not be run").await;

    // What was ready once may not be when it is to decide.
    let pushed = variant(2);
    let push = client.push_module(&name, ModuleKind::Selector, &pushed, |_| ());
    let (_, version) = within(push).await.unwrap();
    within(second.shutdown()).await.unwrap();
    std::fs::remove_file(&compiler).unwrap();
    let compiled = second_config.data_dir.join("compiled");
    std::fs::remove_dir_all(compiled).unwrap();
    let second = start(second_config).await;
    let error = within(client.activate_module(&name, version, None)).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("1 of the 3 hosts") && error.contains("host second ("),
        "{error}"
    );
    let module = within(client.get_module(&name)).await.unwrap();
    assert_eq!(module.active, Some(1));
    for running in [third, second, first] {
        within(running.shutdown()).await.unwrap();
    }
}

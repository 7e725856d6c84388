//! The end of a host: prompt, whoever is connected and whatever is under way; and starts that are
//! refused.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use maitred_client::protocol::{ModuleKind, ModuleName};
use maitred_server::{CompilerCommand, Server, ServerConfig, StartError};
use maitred_transport::{Alpn, Endpoint, IssueKind, LinkError};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::harness::{Group, PATIENCE, within};
use crate::wire::greet;

/// What the hosts here give answers under way, so that a host which waits for it is noticed.
const DRAIN: Duration = Duration::from_secs(50);
/// When they must have ended, on a machine that is busy with other tests.
const PROMPT: Duration = Duration::from_secs(10);

fn patient(group: &Group) -> ServerConfig {
    ServerConfig {
        shutdown_ms: DRAIN.as_millis() as u64,
        ..group.bare()
    }
}

/// A line to a host that can be cut: nothing goes through any more, in either direction.
async fn line(host: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = near.local_addr().unwrap();
    let carrying = tokio::spawn(async move {
        let (mut out, mut back) = (vec![0; 65_536], vec![0; 65_536]);
        let mut caller = None;
        loop {
            tokio::select! {
                Ok((bytes, from)) = near.recv_from(&mut out) => {
                    caller = Some(from);
                    let _ = far.send_to(&out[..bytes], host).await;
                }
                Ok((bytes, _)) = far.recv_from(&mut back) => {
                    if let Some(caller) = caller {
                        let _ = near.send_to(&back[..bytes], caller).await;
                    }
                }
            }
        }
    });
    (address, carrying)
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_idle_nor_dead_connections_hold_up_the_end() {
    let group = Group::new();
    let running = Server::start(patient(&group)).await.unwrap();
    within(running.ready()).await.unwrap();
    let (_idle_endpoint, idle) = group.connect(running.local_addr()).await;
    let _idle_streams = greet(&idle).await;
    let _client = group.client(&running).await;
    let (address, carrying) = line(running.local_addr()).await;
    let (_dead_endpoint, dead) = group.connect(address).await;
    let _dead_streams = greet(&dead).await;
    carrying.abort();
    let began = Instant::now();
    within(running.shutdown()).await.unwrap();
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_under_way_is_broken_off_and_writes_nothing_afterwards() {
    let group = Group::new();
    let began = group.data_dir().with_file_name("began");
    let script = format!("touch {}; exec sleep 600", began.display());
    let config = ServerConfig {
        compiler: Some(CompilerCommand {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
        }),
        ..patient(&group)
    };
    let running = Server::start(config).await.unwrap();
    within(running.ready()).await.unwrap();
    let client = group.client(&running).await;
    let pushing = tokio::spawn(async move {
        let spread = include_bytes!("../../../../selectors/prebuilt/spread.wasm");
        let name: ModuleName = "mine".parse().unwrap();
        let push = client.push_module(&name, ModuleKind::Selector, spread, |_| ());
        push.await.map(drop)
    });
    let compiling = async {
        while !began.exists() {
            tokio::task::yield_now().await;
        }
    };
    within(compiling).await;
    let ending = Instant::now();
    within(running.shutdown()).await.unwrap();
    assert!(ending.elapsed() < PROMPT, "{:?}", ending.elapsed());
    pushing.abort();
    let stored = std::fs::read_dir(group.data_dir().join("modules")).unwrap();
    assert_eq!(stored.count(), 0);
    let running = group.start_bare().await;
    within(running.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_a_hosts_is_refused_at_the_start() {
    let group = Group::new();
    let config = ServerConfig {
        identity: Some(group.identity(IssueKind::Client)),
        ..group.bare()
    };
    let error = Server::start(config).await.unwrap_err();
    assert!(matches!(error, StartError::Certificate(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("issue it as kind host"), "{text}");
    // Nothing was left running, nor made.
    assert!(!group.data_dir().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_version_is_refused_and_left_alone() {
    let group = Group::new();
    within(group.start_bare().await.shutdown()).await.unwrap();
    let file = group.data_dir().join("VERSION");
    let ours = std::fs::read_to_string(&file).unwrap();
    let other = ours.replace("format 3", "format 9");
    assert_ne!(other, ours);
    std::fs::write(&file, other).unwrap();
    let error = Server::start(group.bare()).await.unwrap_err().to_string();
    assert!(
        error.contains("\"9\"") && error.contains("run the version of the program"),
        "{error}"
    );
    std::fs::write(&file, ours).unwrap();
    within(group.start_bare().await.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn those_of_another_group_are_told_so() {
    let group = Group::new();
    let running = group.start_bare().await;
    let stranger = Group::new().client_identity();
    let endpoint = Endpoint::client(&stranger).unwrap();
    let called = endpoint
        .connect(running.local_addr(), Alpn::Client, PATIENCE)
        .await;
    let error = called.unwrap_err();
    assert!(
        error.to_string().contains("not issued by the CA"),
        "{error}"
    );
    // Nor may a client speak as a host.
    let endpoint = Endpoint::client(&group.client_identity()).unwrap();
    let called = endpoint
        .connect(running.local_addr(), Alpn::Peer, PATIENCE)
        .await;
    let closed = within(called.unwrap().closed()).await;
    let error = LinkError::from(closed).to_string();
    assert!(error.contains("only hosts may call here"), "{error}");
    within(running.shutdown()).await.unwrap();
}

//! Hosts within this program, for `dev` and `bench`: one, or a group of several that found, join and
//! elect as hosts on machines of their own do.
//!
//! Holds: each host has a data directory, a port and connections of its own; they share only the
//! certificate authority that is made for the run. A host that is killed is dropped as it is, as a
//! crash would, and comes back on the same directory and port.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use maitred_client::Client;
use maitred_protocol::MemberRole;
use maitred_server::{Failed, Running, Server, ServerConfig};
use maitred_transport::{Authority, Identity, IssueKind, Issued};
use tokio::task::JoinSet;

use super::folder::{keep_ports, ports, temporary};
use super::{broken, not_started};
use crate::cert::of_authority;
use crate::connect::Target;
use crate::failure::{Exit, Failure};
use crate::presence::Presence;

/// How long a host that nobody else relies on waits for others to finish.
const SHUTDOWN_MS: u64 = 500;
/// Days that the certificates of an embedded host are valid.
const DAYS: u32 = 30;
/// How long a killed host stays away.
const AWAY: Duration = Duration::from_secs(5);
/// How long a host that could not come back waits before the next try.
const RETRY: Duration = Duration::from_secs(1);
/// How long the hosts of a new group may take until all of them vote.
const SETTLE: Duration = Duration::from_secs(30);

/// Hosts within this program, with a certificate authority made for them.
pub(crate) struct Embedded {
    /// How to connect to them.
    pub(crate) target: Target,
    /// The authority's certificate, PEM.
    pub(crate) ca: String,
    /// A client's certificate and key.
    pub(crate) client: Issued,
    /// Where their data is.
    pub(crate) data: PathBuf,
    /// Leaders after the first.
    pub(crate) leader_changes: u64,
    /// Hosts killed.
    pub(crate) kills: u64,
    hosts: Vec<GroupHost>,
    identity: Identity,
    leader: Option<u64>,
    /// Removes the data with it, when it is temporary.
    _temporary: Option<tempfile::TempDir>,
}

/// One of them, and whether it is there.
pub(crate) struct GroupHost {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// Its number in the group.
    pub(crate) number: u64,
    data: PathBuf,
    presence: Presence<Box<Running>, Failure>,
}

impl Embedded {
    /// Starts `count` hosts, 1 to 5, on the loopback address. Without `data` on a temporary folder;
    /// without `port` on 7600 and the next ones, or any when those are taken.
    ///
    /// # Errors
    /// When the folder or a port cannot be used; see [`not_started`].
    pub(crate) async fn start(
        data: Option<&Path>,
        port: Option<u16>,
        count: u16,
    ) -> Result<Self, Failure> {
        let (temporary, data) = match data {
            Some(path) => (None, path.to_owned()),
            None => {
                let folder = temporary()?;
                let path = folder.path().to_owned();
                (Some(folder), path)
            }
        };
        let authority = Authority::generate("maitred dev").map_err(of_authority)?;
        let identity = authority.identity("host", IssueKind::Host, DAYS);
        let client = authority.issue("dev", IssueKind::Client, &[], &[], DAYS);
        let (identity, client) = (
            identity.map_err(of_authority)?,
            client.map_err(of_authority)?,
        );
        let ca = authority.cert_pem().to_owned();
        let ports = ports(&data, port, count)?;
        let hosts = start_all(&data, &identity, &ports).await?;
        if count > 1 && temporary.is_none() {
            let ports = hosts.iter().map(|host| host.address.port());
            keep_ports(&data, ports)?;
        }
        let target = Target {
            endpoints: hosts.iter().map(|host| host.address.to_string()).collect(),
            identity: Identity::from_pem(
                ca.as_bytes(),
                client.cert_pem.as_bytes(),
                client.key_pem.as_bytes(),
            )?,
        };
        Ok(Self {
            target,
            ca,
            client,
            data,
            leader_changes: 0,
            kills: 0,
            hosts,
            identity,
            leader: None,
            _temporary: temporary,
        })
    }

    /// Waits until all of them serve.
    pub(crate) async fn ready(&self) -> Result<(), Failure> {
        for host in &self.hosts {
            if let Some(running) = host.presence.up() {
                running.ready().await.map_err(|failed| broken(&failed))?;
            }
        }
        Ok(())
    }

    /// Waits until all of them vote, so that any minority of them may be lost.
    ///
    /// # Errors
    /// When they take longer than 30 s.
    pub(crate) async fn settled(&self, client: &Client) -> Result<(), Failure> {
        if self.hosts.len() == 1 {
            return Ok(());
        }
        let all_vote = async {
            loop {
                let members = client.members().await?;
                let voters = members.items.iter();
                let voters = voters.filter(|member| member.role == MemberRole::Voter);
                if voters.count() == self.hosts.len() && members.items.len() == self.hosts.len() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let late = |_| {
            let message = format!("the hosts do not all vote after {} s", SETTLE.as_secs());
            let help = "run it with --headless --log info, and look at the last lines";
            Failure::new(Exit::Unavailable, "not_settled", message, help).retryable()
        };
        tokio::time::timeout(SETTLE, all_vote).await.map_err(late)?
    }

    /// Waits until one of them had to stop by itself.
    pub(crate) async fn failed(&self) -> Failed {
        let up = self.hosts.iter().filter_map(|host| host.presence.up());
        let mut waits: Vec<_> = up.map(|running| Box::pin(running.failed())).collect();
        poll_fn(|context| {
            let ended = waits
                .iter_mut()
                .find_map(|wait| match wait.as_mut().poll(context) {
                    Poll::Ready(failed) => Some(failed),
                    Poll::Pending => None,
                });
            ended.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The hosts, in the order in which they were first started.
    pub(crate) fn hosts(&self) -> &[GroupHost] {
        &self.hosts
    }

    /// Kills the host that leads as a crash would; says what was done.
    pub(crate) fn kill_leader(&mut self) -> String {
        if self.hosts.len() == 1 {
            return "there is one host only, and nobody to take over: try `maitred dev --hosts 3`"
                .to_owned();
        }
        let away = AWAY.as_secs();
        let Some(host) = self.hosts.iter_mut().find(|host| host.leads()) else {
            return "nobody leads just now".to_owned();
        };
        let name = host.name.clone();
        // Dropped without a word to anybody, as a crash would.
        host.presence = Presence::down(AWAY);
        self.kills += 1;
        let (up, all) = (
            self.hosts.iter().filter(|host| host.is_up()).count(),
            self.hosts.len(),
        );
        if up > all / 2 {
            format!("{name} killed, which led: the others elect a new one; it is back in {away} s")
        } else {
            format!(
                "{name} killed: {up} of {all} hosts are left, so changes wait until one is back"
            )
        }
    }

    /// Brings back those whose time has come, and sees who leads; what went wrong, if something did.
    pub(crate) async fn tick(&mut self) -> Option<String> {
        let mut problem = None;
        let addresses: Vec<SocketAddr> = self.hosts.iter().map(|host| host.address).collect();
        for host in &mut self.hosts {
            if host.presence.is_due() {
                let config = config(&host.data, &host.name, host.address, &self.identity);
                let config = joining(config, host.address, &addresses);
                host.presence = Presence::Coming(tokio::spawn(async move {
                    let started = Server::start(config).await;
                    started.map(Box::new).map_err(not_started)
                }));
            } else if let Some(failure) = host.presence.returned(RETRY).await {
                problem = Some(format!("{} does not come back: {failure}", host.name));
            }
        }
        let leader = self.hosts.iter().find(|host| host.leads());
        if let Some(number) = leader.map(|host| host.number) {
            let changed = self.leader.is_some_and(|before| before != number);
            self.leader_changes += u64::from(changed);
            self.leader = Some(number);
        }
        problem
    }

    /// Shuts them down; a temporary folder is removed.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let mut ending = JoinSet::new();
        for host in self.hosts {
            match host.presence {
                Presence::Up(running) => {
                    ending.spawn(running.shutdown());
                }
                Presence::Coming(task) => task.abort(),
                Presence::Down(_) => {}
            }
        }
        for ended in ending.join_all().await {
            ended.map_err(|failed| broken(&failed))?;
        }
        Ok(())
    }
}

impl GroupHost {
    fn new(running: Running, data: PathBuf) -> Self {
        Self {
            name: running.name().to_owned(),
            address: running.local_addr(),
            number: running.host(),
            data,
            presence: Presence::Up(Box::new(running)),
        }
    }

    /// Whether it runs, and believes that it leads.
    pub(crate) fn leads(&self) -> bool {
        let leader = self.presence.up().and_then(|running| running.leader());
        leader.is_some_and(|(host, _)| host == self.number)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.presence.up().is_some()
    }

    /// Seconds until it comes back; none when it is there.
    pub(crate) fn away(&self) -> Option<u64> {
        self.presence.away()
    }
}

/// The first founds a cluster, if its folder is new; the others join it.
async fn start_all(
    data: &Path,
    identity: &Identity,
    ports: &[u16],
) -> Result<Vec<GroupHost>, Failure> {
    let folder = |at: usize| match ports.len() {
        1 => data.to_owned(),
        _ => data.join(format!("host-{}", at + 1)),
    };
    let on = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let first = config(&folder(0), "a", on(ports[0]), identity);
    let mut hosts = vec![GroupHost::new(begin(first).await?, folder(0))];
    let mut starting = JoinSet::new();
    for (at, name) in (1..ports.len()).zip(["b", "c", "d", "e"]) {
        let address = on(ports[at]);
        let config = joining(
            config(&folder(at), name, address, identity),
            address,
            &[hosts[0].address],
        );
        let folder = folder(at);
        starting.spawn(async move { Ok::<_, Failure>((at, begin(config).await?, folder)) });
    }
    let mut others = starting
        .join_all()
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    others.sort_by_key(|(at, ..)| *at);
    let others = others.into_iter();
    hosts.extend(others.map(|(_, running, folder)| GroupHost::new(running, folder)));
    Ok(hosts)
}

async fn begin(config: ServerConfig) -> Result<Running, Failure> {
    let started = Server::start(config).await;
    started.map_err(|error| {
        let mut failure = not_started(error);
        failure.help = failure.help.replace("--data-dir", "--data");
        failure
    })
}

fn config(data: &Path, name: &str, listen: SocketAddr, identity: &Identity) -> ServerConfig {
    ServerConfig {
        data_dir: data.to_owned(),
        name: name.to_owned(),
        listen,
        identity: Some(identity.clone()),
        // Connections of killed nodes are never closed by the other side.
        shutdown_ms: SHUTDOWN_MS,
        build: concat!("maitred ", env!("CARGO_PKG_VERSION"), " dev").to_owned(),
        // Python makes 18 MB, and this is where policies are tried.
        allow_large_modules: true,
        ..ServerConfig::default()
    }
}

fn joining(mut config: ServerConfig, own: SocketAddr, all: &[SocketAddr]) -> ServerConfig {
    let others = all.iter().filter(|address| **address != own);
    config.join = others.map(ToString::to_string).collect();
    config
}

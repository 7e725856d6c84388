//! Hosts as processes of their own, for what only a process can show: being killed at once, starting
//! again, and what it has in memory.
//!
//! Holds: they run this very program with `serve`, on a temporary folder that goes with them; no host
//! outlives the measurement.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use maitred_client::Client;
use maitred_protocol::{MemberRole, Members};
use maitred_transport::{Authority, Identity, IssueKind};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::cert::of_authority;
use crate::connect::Target;
use crate::context::write_secret;
use crate::failure::{Exit, Failure};
use crate::host::temporary;

/// Days that their certificates are valid.
const DAYS: u32 = 30;
/// How long a host may take until it is ready, with a million records to load.
const READY: Duration = Duration::from_secs(300);
/// How long the group may take until all vote and none is behind.
const SETTLE: Duration = Duration::from_secs(300);
/// A host that the leader has not heard of for longer is not settled, in milliseconds.
const HEARD_MS: u32 = 500;

/// Hosts in processes of their own.
pub(super) struct Group {
    pub(super) target: Target,
    pub(super) hosts: Vec<HostProcess>,
    /// The authority's certificate, and the hosts' own with its key.
    certs: [PathBuf; 3],
    /// The authority's certificate, and a client's with its key.
    pub(super) client: [PathBuf; 3],
    /// Further flags of the hosts.
    serve: Vec<String>,
    /// Removes everything with the group; after the processes, which are dropped first.
    folder: tempfile::TempDir,
}

/// One of them.
pub(super) struct HostProcess {
    pub(super) name: String,
    /// Where it listens, the same after every start.
    address: String,
    data: PathBuf,
    /// Where its metrics are, when it was told to have some.
    http: Option<String>,
    child: Option<Child>,
}

impl Group {
    /// Starts `count` hosts with further flags; the first founds, the others join.
    pub(super) async fn start(count: u16, serve: &[String]) -> Result<Self, Failure> {
        let folder = temporary()?;
        let authority = Authority::generate("maitred bench").map_err(of_authority)?;
        let issue = |name, kind| authority.issue(name, kind, &[], &[], DAYS);
        let host = issue("host", IssueKind::Host).map_err(of_authority)?;
        let client = issue("bench", IssueKind::Client).map_err(of_authority)?;
        let files = |names: [&str; 3]| names.map(|name| folder.path().join(name));
        let certs = files(["ca.pem", "host.pem", "host.key"]);
        let own = files(["ca.pem", "client.pem", "client.key"]);
        let texts = [authority.cert_pem(), &host.cert_pem, &host.key_pem];
        let own_texts = [client.cert_pem.as_str(), &client.key_pem];
        let paths = certs.iter().chain(&own[1..]);
        for (path, text) in paths.zip(texts.into_iter().chain(own_texts)) {
            write_secret(path, text)?;
        }
        let identity = Identity::from_pem(
            authority.cert_pem().as_bytes(),
            client.cert_pem.as_bytes(),
            client.key_pem.as_bytes(),
        )?;
        let endpoints = Vec::new();
        let mut group = Self {
            target: Target {
                endpoints,
                identity,
            },
            hosts: Vec::new(),
            certs,
            client: own,
            serve: serve.to_vec(),
            folder,
        };
        for name in ["a", "b", "c", "d", "e"].into_iter().take(count.into()) {
            group.hosts.push(HostProcess {
                name: name.to_owned(),
                address: "127.0.0.1:0".to_owned(),
                data: group.folder.path().join(name),
                http: None,
                child: None,
            });
            group.run(group.hosts.len() - 1).await?;
            let address = group.hosts.last().map(|host| host.address.clone());
            group.target.endpoints.extend(address);
        }
        Ok(group)
    }

    /// Starts the host at that place, on what its folder has; how long it took until it was ready.
    pub(super) async fn run(&mut self, at: usize) -> Result<Duration, Failure> {
        let seeds: Vec<&str> = self
            .hosts
            .iter()
            .enumerate()
            .filter(|(other, host)| *other != at && host.child.is_some())
            .map(|(_, host)| host.address.as_str())
            .collect();
        let seeds = seeds.join(",");
        let host = &self.hosts[at];
        let log = self.folder.path().join(format!("{}.log", host.name));
        let mut command = self.command(host, &seeds, &log)?;
        let begun = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|error| Failure::file("start", Path::new("a host as a process"), &error))?;
        let pipe = child.stdout.take();
        let line = async {
            let mut line = String::new();
            if let Some(pipe) = pipe {
                // No line at all means that it ended, and then its log says why.
                let _ = BufReader::new(pipe).read_line(&mut line).await;
            }
            serde_json::from_str::<serde_json::Value>(&line).ok()
        };
        let ready = tokio::time::timeout(READY, line).await.ok().flatten();
        let took = begun.elapsed();
        let address = ready.as_ref().and_then(|ready| ready["address"].as_str());
        let Some(address) = address else {
            return Err(not_ready(&host.name, &log));
        };
        let host = &mut self.hosts[at];
        host.address = address.to_owned();
        let http = ready.as_ref().and_then(|ready| ready["http"].as_str());
        host.http = http.map(ToOwned::to_owned);
        host.child = Some(child);
        Ok(took)
    }

    /// This very program, without what was set for this run of it.
    pub(super) fn program(&self) -> Result<Command, Failure> {
        let program = std::env::current_exe();
        let program = program
            .map_err(|error| Failure::file("find", Path::new("this program's own path"), &error))?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            // What is set for this program is not meant for them.
            if name.to_string_lossy().starts_with("MAITRED_") {
                command.env_remove(name);
            }
        }
        Ok(command)
    }

    fn command(&self, host: &HostProcess, seeds: &str, log: &Path) -> Result<Command, Failure> {
        let stderr = fs::File::options().create(true).append(true).open(log);
        let stderr = stderr.map_err(|error| Failure::file("write", log, &error))?;
        let mut command = self.program()?;
        let [ca, cert, key] = &self.certs;
        command.args(["serve", "-o", "json", "--log", "warn", "--name", &host.name]);
        command.args(["--listen", &host.address]);
        command.arg("--data-dir").arg(&host.data);
        command.arg("--ca").arg(ca);
        command.arg("--cert").arg(cert).arg("--key").arg(key);
        if !seeds.is_empty() {
            command.args(["--join", seeds]);
        }
        command.args(&self.serve);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(stderr).kill_on_drop(true);
        Ok(command)
    }

    /// Sends SIGKILL; the process is not waited for, since that would be part of what is measured.
    pub(super) fn kill(&mut self, at: usize) {
        if let Some(child) = &mut self.hosts[at].child {
            // It fails only for one that has ended already.
            let _ = child.start_kill();
        }
    }

    /// Waits for the end of a host that was killed.
    pub(super) async fn buried(&mut self, at: usize) {
        if let Some(mut child) = self.hosts[at].child.take() {
            let _ = child.wait().await;
        }
    }

    /// Forgets what a host has, as when its disk is lost.
    pub(super) fn lose_disk(&self, at: usize) -> Result<(), Failure> {
        let data = &self.hosts[at].data;
        fs::remove_dir_all(data).map_err(|error| Failure::file("remove", data, &error))
    }

    /// The place of the member with that number.
    pub(super) fn place(&self, members: &Members, number: u64) -> Option<usize> {
        let mut items = members.items.iter();
        let member = items.find(|member| member.host == number)?;
        let name = member.name.as_str();
        self.hosts.iter().position(|host| host.name == name)
    }

    /// Waits until all hosts vote, the leader has heard of each, and none is behind.
    pub(super) async fn settled(&self, client: &Client) -> Result<Members, Failure> {
        let wait = async {
            loop {
                // While nobody leads, nobody knows.
                if let Ok(members) = client.members().await
                    && is_settled(&members, self.hosts.len())
                {
                    return members;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SETTLE, wait).await.map_err(|_| {
            let message = format!("the hosts are not level after {} s", SETTLE.as_secs());
            let help = "look at how loaded the machine and its disk are";
            Failure::new(Exit::Unavailable, "not_settled", message, help)
        })
    }

    /// What a host has in memory now and had at most, in bytes.
    pub(super) fn memory(&self, at: usize) -> Memory {
        let pid = self.hosts[at].child.as_ref().and_then(Child::id);
        let status = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let status = status.unwrap_or_default();
        let field = |name: &str| {
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
            Some(kib << 10)
        };
        Memory {
            now: field("VmRSS:").unwrap_or(0),
            peak: field("VmHWM:").unwrap_or(0),
        }
    }
}

impl Group {
    /// CPU time that a host has used, to a hundredth of a second.
    pub(super) fn cpu(&self, at: usize) -> Duration {
        let pid = self.hosts[at].child.as_ref().and_then(Child::id);
        let stat = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        let ticks = stat.as_deref().and_then(cpu_ticks).unwrap_or(0);
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Duration::from_secs_f64(ticks as f64 / per_second as f64)
    }

    /// One of a host's counters, which it was started with `--http` for.
    pub(super) async fn counter(&self, at: usize, name: &str) -> Result<u64, Failure> {
        let address = self.hosts[at].http.as_deref().unwrap_or_default();
        let failed = |error: std::io::Error| {
            let help = "look at the host's log";
            let message = format!("cannot read the metrics at {address}: {error}");
            Failure::new(Exit::Other, "metrics", message, help)
        };
        let mut stream = TcpStream::connect(address).await.map_err(failed)?;
        let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.map_err(failed)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map_err(failed)?;
        let absent = || failed(std::io::Error::other(format!("there is no {name}")));
        counter_of(&text, name).ok_or_else(absent)
    }
}

/// `maitred_NAME_total 12` in a text of metrics.
fn counter_of(text: &str, name: &str) -> Option<u64> {
    let wanted = [format!("maitred_{name}_total"), format!("maitred_{name}")];
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = lines.find(|(name, _)| wanted.iter().any(|one| one == name))?;
    value.trim().parse().ok()
}

/// User and system time of `/proc/PID/stat`. The name in it may hold blanks and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Bytes of resident memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) now: u64,
    pub(super) peak: u64,
}

fn is_settled(members: &Members, hosts: usize) -> bool {
    let level = |member: &maitred_protocol::MemberRecord| {
        let leads = members.leader == Some(member.host);
        let near = member.progress.is_some_and(|progress| {
            progress.matched >= members.commit
                && progress.heard_ms.is_some_and(|millis| millis <= HEARD_MS)
        });
        member.role == MemberRole::Voter && member.replaces.is_none() && (leads || near)
    };
    members.leader.is_some() && members.items.len() == hosts && members.items.iter().all(level)
}

fn not_ready(name: &str, log: &Path) -> Failure {
    let text = fs::read_to_string(log).unwrap_or_default();
    let mut last: Vec<&str> = text.lines().rev().take(8).collect();
    last.reverse();
    let message = format!("host {name} did not become ready:\n{}", last.join("\n"));
    let help = "the lines above are the end of its log";
    Failure::new(Exit::Other, "not_ready", message, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_and_a_host_say_of_a_process_is_read() {
        let stat = "12 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 4 0 1 1 1";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("12 (x) S"), None);
        let text = "# HELP maitred_keep_alives_total x\nmaitred_keep_alives_total 12\n";
        assert_eq!(counter_of(text, "keep_alives"), Some(12));
        assert_eq!(counter_of(text, "keep"), None);
    }
}

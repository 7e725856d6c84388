//! Game nodes as processes of their own, for what only a process can show: being killed at once.
//!
//! Holds: they run this very program with a verb that nobody else needs, and end with what started
//! them, whose end they see at their standard input.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use maitred_client::{Client, Error};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::children::Group;
use super::measure::TYPE;
use crate::args::duration;
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::sample::{SampleNode, Spec};

/// Registrations under way at a time.
const IN_FLIGHT: usize = 16;
/// Tries of each: a machine that runs all of them may be too busy for the first.
const TRIES: u32 = 10;
/// Requests under way in [`many`].
const REQUESTS: u64 = 256;
/// How long the nodes of a process may take until all are registered.
const READY: Duration = Duration::from_secs(120);

/// Run so many empty game nodes until standard input ends; for `bench`
#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// Their names are NAME-0, NAME-1, …
    #[arg(long)]
    name: String,
    #[arg(long, default_value_t = 1)]
    count: u32,
    #[arg(long)]
    capacity: u32,
    #[arg(long, value_parser = duration)]
    ttl: Duration,
}

impl Nodes {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let started = self.start(&client).await?;
        let body = json!({ "count": started.len() });
        shell
            .out
            .show("Nodes", body, || format!("{} nodes", started.len()))?;
        // Whatever comes, or that nothing can come any more: what it was started for has ended.
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0; 1]));
        let _ = ended.await;
        for node in &started {
            node.crash();
        }
        Ok(())
    }

    async fn start(&self, client: &Client) -> Result<Vec<SampleNode>, Failure> {
        let room = Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
        let mut starting = JoinSet::new();
        for number in 0..self.count {
            let (client, room) = (client.clone(), Arc::clone(&room));
            let spec = Spec {
                name: format!("{}-{number}", self.name),
                zone: "bench".to_owned(),
                capacity: self.capacity,
                types: vec![TYPE],
                ttl: self.ttl,
                life: None,
            };
            starting.spawn(async move {
                let _permit = room.acquire().await;
                let mut tries = 1;
                loop {
                    match SampleNode::start(&client, &spec).await {
                        Err(Error::Unavailable { .. } | Error::Unknown { .. }) if tries < TRIES => {
                            tries += 1;
                        }
                        started => return started,
                    }
                }
            });
        }
        let started = starting.join_all().await;
        Ok(started.into_iter().collect::<Result<_, _>>()?)
    }
}

/// One such process.
pub(super) struct NodeProcess {
    /// What its nodes' names begin with.
    pub(super) name: String,
    child: Child,
}

impl NodeProcess {
    /// Starts it, and waits until all its nodes are registered.
    pub(super) async fn start(
        group: &Group,
        name: &str,
        count: u32,
        capacity: u32,
        ttl: Duration,
    ) -> Result<Self, Failure> {
        let mut command = command(group)?;
        command.args(["--name", name, "--count", &count.to_string()]);
        command.args(["--capacity", &capacity.to_string()]);
        command.args(["--ttl", &format!("{}ms", ttl.as_millis())]);
        let spawned = command.spawn();
        let mut child = spawned
            .map_err(|error| Failure::file("start", Path::new("nodes as a process"), &error))?;
        let pipe = child.stdout.take();
        let line = async {
            let mut line = String::new();
            if let Some(pipe) = pipe {
                // No line at all means that it ended.
                let _ = BufReader::new(pipe).read_line(&mut line).await;
            }
            serde_json::from_str::<serde_json::Value>(&line).ok()
        };
        let ready = tokio::time::timeout(READY, line).await.ok().flatten();
        if ready.is_some_and(|ready| ready["count"] == count) {
            let name = name.to_owned();
            return Ok(Self { name, child });
        }
        let help = "look at what it wrote above; raise the limits of threads and open files, or use fewer --nodes";
        let message = format!("the nodes {name} did not become ready");
        Err(Failure::new(Exit::Other, "not_ready", message, help))
    }

    /// Sends SIGKILL; the process is not waited for, since that would be part of what is measured.
    pub(super) fn kill(&mut self) {
        // It fails only for one that has ended already.
        let _ = self.child.start_kill();
    }

    /// Waits for the end of one that was killed.
    pub(super) async fn buried(mut self) {
        let _ = self.child.wait().await;
    }
}

fn command(group: &Group) -> Result<Command, Failure> {
    let mut command = group.program()?;
    let [ca, cert, key] = &group.client;
    command.args(["internal-nodes", "-o", "json", "--timeout", "60s"]);
    command.args(["--endpoint", &group.target.endpoints.join(",")]);
    command.arg("--ca").arg(ca);
    command.arg("--cert").arg(cert).arg("--key").arg(key);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::inherit()).kill_on_drop(true);
    Ok(command)
}

/// Carries `count` requests out, some at a time.
pub(super) async fn many<F, R>(count: u64, one: F) -> Result<(), Failure>
where
    F: Fn(u64) -> R + Clone + Send + 'static,
    R: Future<Output = Result<(), Failure>> + Send,
{
    let mut slots = JoinSet::new();
    let lanes = REQUESTS.min(count.max(1));
    for lane in 0..lanes {
        let one = one.clone();
        slots.spawn(async move {
            for number in (lane..count).step_by(lanes as usize) {
                one(number).await?;
            }
            Ok(())
        });
    }
    slots.join_all().await.into_iter().collect()
}

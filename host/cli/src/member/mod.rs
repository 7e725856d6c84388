//! `member`: the hosts of the cluster: see them, let one in, take one out, replace a lost one, hand
//! leadership over.
//!
//! Every change is recorded first and then carried out by the leader, one at a time; what is followed
//! here only looks on, and may be interrupted without harm.

mod follow;
mod look;

use std::time::Duration;

use clap::{Args, Subcommand};
use maitred_client::Client;
use maitred_protocol::{HostName, MemberRecord, MemberRole, Members};
use serde_json::json;

use crate::args::duration;
use crate::ask;
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::json as shape;

use follow::{Phase, follow};
use look::{find, find_place, refused, rows, serve_line};
pub(crate) use look::{heard, members, role};

/// A host that the leader heard of within this is there, in milliseconds.
const HEARD_MS: u32 = 1_000;

/// See the hosts of the cluster, let one in, take one out, replace a lost one, hand leadership over
#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// List the hosts that belong to the cluster, and how far each is
    ///
    /// A learner gets the log and does not vote yet; it becomes a voter by itself.
    ///
    /// Example: maitred member ls
    Ls,
    Add(Add),
    Remove(Remove),
    Replace(Replace),
    TransferLeader(Transfer),
}

/// Announce a host that is to belong to the cluster, and follow it until it votes
///
/// The host itself is started with `maitred serve --join`, before or after. It begins as a learner,
/// which costs nothing if it never comes, and votes by itself once it has caught up. Saying it
/// again is harmless. A host that joins without having been announced is let in as well.
///
/// Example: maitred member add c 10.0.0.3:7600
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Its name, unique in the cluster: letters, digits, '.', '_' and '-'
    name: HostName,
    /// Where the others and the clients will reach it
    #[arg(value_name = "HOST:PORT")]
    address: String,
    #[command(flatten)]
    wait: Wait,
}

/// Take a host out of the cluster
///
/// Refused when those that are left could not go on without it: bring the hosts back that do not
/// answer first, or replace them. The host stops by itself when it hears of it; its data directory
/// is of no more use.
///
/// Example: maitred member remove c
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Its number or its name
    #[arg(value_name = "HOST|NAME")]
    host: String,
    /// Do not ask whether that is meant; needed where there is no terminal to ask at
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    wait: Wait,
}

/// Let a new host take the place and the name of one whose disk or machine is lost
///
/// One change of the group lets the new one in and the old one out, when the new one has caught up;
/// until then nothing is lost but what was lost already. Start the new host on an empty data
/// directory: one that has lost its log must never vote under its old number.
///
/// Example: maitred member replace c 10.0.0.4:7600
#[derive(Debug, Args)]
pub(crate) struct Replace {
    /// The number or the name of the host that is lost
    #[arg(value_name = "HOST|NAME")]
    host: String,
    /// Where the new one will be reached [default: where the old one was]
    #[arg(value_name = "HOST:PORT")]
    address: Option<String>,
    #[command(flatten)]
    wait: Wait,
}

/// Hand leadership over, for example before a machine is taken down
///
/// A host that is shut down in order does so by itself.
///
/// Example: maitred member transfer-leader b
#[derive(Debug, Args)]
pub(crate) struct Transfer {
    /// To whom, by number or name [default: the host that has most of the log]
    #[arg(value_name = "HOST|NAME")]
    host: Option<String>,
}

/// Whether the end is waited for.
#[derive(Debug, Args)]
struct Wait {
    /// End when the change is recorded; it goes on by itself
    #[arg(long)]
    no_wait: bool,
    /// How long it is followed at most; exit code 6 then
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10m",
        value_parser = duration,
        conflicts_with = "no_wait"
    )]
    wait: Duration,
}

impl Member {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        match self {
            Self::Ls => ls(shell, &client).await,
            Self::Add(verb) => verb.run(shell, &client).await,
            Self::Remove(verb) => verb.run(shell, &client).await,
            Self::Replace(verb) => verb.run(shell, &client).await,
            Self::TransferLeader(verb) => verb.run(shell, &client).await,
        }
    }
}

async fn ls(shell: &Shell, client: &Client) -> Result<(), Failure> {
    let members = members(client).await?;
    let item = |member: &MemberRecord| shape::member(member, members.leader, members.commit);
    let mut body = json!({ "items": members.items.iter().map(item).collect::<Vec<_>>() });
    if let (Some(body), serde_json::Value::Object(cluster)) =
        (body.as_object_mut(), shape::cluster(&members))
    {
        body.extend(cluster);
    }
    shell.out.show("MemberList", body, || rows(&members))
}

/// Shows the member that a change made, after it has been followed if that is wanted.
async fn see_through(
    shell: &Shell,
    client: &Client,
    member: MemberRecord,
    wait: &Wait,
) -> Result<(), Failure> {
    let mut members = members(client).await?;
    let next = serve_line(&members, &member);
    let awaited = Phase::of(&members, member.host) == Phase::Awaited;
    if awaited && !wait.no_wait && !shell.out.is_json() {
        eprintln!(
            "{} is announced as host {}; now start it on its machine, on an empty data directory:\n  {next}",
            member.name, member.host
        );
    }
    if !wait.no_wait {
        members = follow(shell, client, member.host, Phase::Votes, wait.wait).await?;
    }
    let mut records = members.items.iter();
    let record = records
        .find(|one| one.host == member.host)
        .unwrap_or(&member);
    let phase = Phase::of(&members, member.host);
    let body = json!({
        "member": shape::member(record, members.leader, members.commit),
        "next": (phase == Phase::Awaited).then_some(&next),
    });
    shell.out.show("Member", body, || match phase {
        Phase::Votes => format!("{} votes, as host {}", record.name, record.host),
        Phase::Awaited => format!(
            "{} is announced as host {}; it votes by itself once it has come and caught up\nnext: {next}",
            record.name, record.host
        ),
        phase => format!("{} is host {}: {}", record.name, record.host, phase.text()),
    })
}

impl Add {
    async fn run(&self, shell: &Shell, client: &Client) -> Result<(), Failure> {
        crate::connect::check(&self.address)?;
        let made = client.add_member(self.name.clone(), self.address.clone());
        see_through(shell, client, made.await?, &self.wait).await
    }
}

impl Replace {
    async fn run(&self, shell: &Shell, client: &Client) -> Result<(), Failure> {
        if let Some(address) = &self.address {
            crate::connect::check(address)?;
        }
        let members = members(client).await?;
        let old = find_place(&members, &self.host)?;
        if answers(old, &members) && !shell.out.is_json() {
            eprintln!(
                "{} (host {}) is not lost: it answers, and goes when the new one votes",
                old.name, old.host
            );
        }
        let made = client.replace_member(old.host, self.address.clone());
        see_through(shell, client, made.await?, &self.wait).await
    }
}

/// Whether the leader hears of it; the leader itself does so too.
fn answers(member: &MemberRecord, members: &Members) -> bool {
    let heard = member.progress.and_then(|progress| progress.heard_ms);
    members.leader == Some(member.host) || heard.is_some_and(|millis| millis < HEARD_MS)
}

impl Remove {
    async fn run(&self, shell: &Shell, client: &Client) -> Result<(), Failure> {
        let members = members(client).await?;
        let member = find(&members, &self.host)?.clone();
        if !self.yes && !confirmed(&members, &member)? {
            let help = "nothing was changed; --yes answers yes";
            return Err(Failure::new(Exit::Other, "declined", "not removed", help));
        }
        let removed = client.remove_member(member.host).await;
        let help = "bring back those that are not heard of, or replace them \
                    (`maitred member replace --help`), first";
        let revision = removed.map_err(|error| refused(error, help))?;
        if !self.wait.no_wait {
            follow(shell, client, member.host, Phase::Gone, self.wait.wait).await?;
        }
        let body = json!({
            "revision": revision.to_string(),
            "member": shape::member(&member, members.leader, members.commit),
        });
        shell.out.show("Removed", body, || {
            format!(
                "{} (host {}) {} the cluster; its data directory is of no more use",
                member.name,
                member.host,
                if self.wait.no_wait {
                    "leaves"
                } else {
                    "has left"
                },
            )
        })
    }
}

/// Asks; scripts, which nobody can ask, say what they mean with --yes.
fn confirmed(members: &Members, member: &MemberRecord) -> Result<bool, Failure> {
    let votes = |one: &&MemberRecord| one.role == MemberRole::Voter && one.host != member.host;
    let left = members.items.iter().filter(votes).count();
    // A majority has to be left after the loss of that many.
    let spare = left.saturating_sub(1) / 2;
    let left = match left {
        1 => "1 voter is".to_owned(),
        left => format!("{left} voters are"),
    };
    ask::confirmed(
        &format!(
            "removing {} (host {}) is for good",
            member.name, member.host
        ),
        &format!(
            "Remove {} (host {}, {}) for good? {left} left, of which {spare} may fail.",
            member.name, member.host, member.address,
        ),
    )
}

impl Transfer {
    async fn run(&self, shell: &Shell, client: &Client) -> Result<(), Failure> {
        let before = client.members().await?;
        let to = match &self.host {
            Some(named) => Some(find(&before, named)?.host),
            None => None,
        };
        let help = "only a voter that is heard of can lead: see `maitred member ls`; let another host in \
                    with `maitred serve --join`";
        let moved = client.transfer_leader(to).await;
        moved.map_err(|error| refused(error, help))?;
        let after = members(client).await?;
        let leader = after
            .items
            .iter()
            .find(|one| Some(one.host) == after.leader);
        let body = json!({
            "leader": after.leader.map(|host| host.to_string()),
            "name": leader.map(|member| member.name.as_str()),
            "term": after.term.to_string(),
        });
        shell.out.show("Leader", body, || match leader {
            Some(member) => format!(
                "{} (host {}) leads, in term {}",
                member.name, member.host, after.term
            ),
            None => "leadership was handed over".to_owned(),
        })
    }
}

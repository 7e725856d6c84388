//! `status`: how the cluster and each of its hosts is, whichever of them is asked.
//!
//! Holds: a host that does not answer is shown with the reason, and never keeps the others from being
//! shown; a cluster without a leader is shown with the reason too, and ends with exit code 6.

use std::time::{Duration, Instant};

use clap::Args;
use maitred_client::{Cause, Client, Error, HostStatus};
use maitred_protocol::{MemberRecord, MemberRole, Members, Status};
use maitred_transport::LinkError;
use serde_json::{Value, json};

use crate::connect::{Shell, is_silence};
use crate::failure::{Exit, Failure};
use crate::json as shape;
use crate::member::{self, heard, role};
use crate::out::{fields, short, table};

/// How long the hosts may take to be called at all, and how long one that the leader hears of may
/// take to answer here too.
const CALLED: Duration = Duration::from_secs(2);
/// A host that the leader heard of within this is not taken for lost at once, in milliseconds.
const HEARD_MS: u32 = 1_000;

/// Show how the cluster is: who leads, how far each host is, nodes, processes, what is refused and why
///
/// Every member is asked for itself; one that cannot be reached is shown as such. BEHIND is how many
/// entries of the log a host lacks, HEARD when the leader last heard of it. Exit code 6 when nobody
/// leads: then no change can be made, and the first line says why.
///
/// Example: maitred status -o json
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {}

impl StatusArgs {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let members = member::members(&client).await;
        let mut asked = ask(&client, members.as_ref().ok()).await;
        client.close().await;
        let Some(main) = spokesman(&asked).cloned() else {
            let first = asked.drain(..).find_map(|one| one.status.err());
            return Err(first.map_or_else(nobody, Failure::from));
        };
        let members = members.unwrap_or_else(|_| of_status(&main));
        let shown = Shown {
            leader: leader(&asked, &main),
            main,
            members,
            asked,
        };
        shell.out.show("Status", shown.to_json(), || shown.text())?;
        match shown.leader {
            Some(_) => Ok(()),
            None => Err(leaderless(&shown.main)),
        }
    }
}

/// How all hosts are. A client that has just connected learns of most of them first, and calls them.
async fn ask(client: &Client, members: Option<&Members>) -> Vec<HostStatus> {
    let begun = Instant::now();
    loop {
        let asked = client.status_all().await;
        let called = |member: &MemberRecord| {
            let answer = asked.iter().find(|one| is_of(one, member));
            let heard = member.progress.and_then(|progress| progress.heard_ms);
            let alive = heard.is_some_and(|millis| millis < HEARD_MS);
            !member.arrived || answer.is_some_and(|one| one.status.is_ok() || !alive)
        };
        let all = members.is_none_or(|members| members.items.iter().all(called));
        if all || begun.elapsed() > CALLED {
            return asked;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether that is the member's answer; by its address when it never said its number. A host of the
/// same number and another name is of another cluster.
fn is_of(one: &HostStatus, member: &MemberRecord) -> bool {
    let Ok(status) = &one.status else {
        let by_address = || one.endpoint == member.address;
        return one.host.map_or_else(by_address, |host| host == member.host);
    };
    let mut said = status.members.iter();
    let itself = said.find(|said| said.host == status.host);
    status.host == member.host && itself.is_none_or(|itself| itself.name == member.name)
}

/// Everything that is shown.
struct Shown {
    leader: Option<u64>,
    /// What the host says that knows most.
    main: Status,
    members: Members,
    asked: Vec<HostStatus>,
}

/// The leader, or whoever is furthest.
fn spokesman(asked: &[HostStatus]) -> Option<&Status> {
    let answers = asked.iter().filter_map(|one| one.status.as_ref().ok());
    answers.max_by_key(|status| (status.role == "leader", status.term, status.commit))
}

/// Who leads: a host that says so itself is believed first.
fn leader(asked: &[HostStatus], main: &Status) -> Option<u64> {
    let answers = asked.iter().filter_map(|one| one.status.as_ref().ok());
    let leading = answers.filter(|status| status.role == "leader");
    let newest = leading.max_by_key(|status| status.term);
    newest.map(|status| status.host).or(main.leader)
}

fn of_status(status: &Status) -> Members {
    Members {
        items: status.members.clone(),
        leader: status.leader,
        term: status.term,
        commit: status.commit,
        level: status.level,
    }
}

fn nobody() -> Failure {
    let help = "check the address, that the hosts run, and that UDP passes";
    Failure::new(Exit::Unavailable, "no_answer", "no host answers", help).retryable()
}

/// Why a request was not carried out, when that is because nobody leads: as the hosts say that can be
/// asked within `within`.
pub(crate) async fn no_leader(client: &Client, within: Duration) -> Option<Failure> {
    let asked = tokio::time::timeout(within, client.status_all()).await;
    let asked = asked.ok()?;
    let main = spokesman(&asked)?;
    leader(&asked, main).is_none().then(|| leaderless(main))
}

fn leaderless(status: &Status) -> Failure {
    let why = status.no_leader.as_deref();
    let why = why.unwrap_or("an election is under way");
    let help = "start the hosts that do not answer, or mend the network between them; if most of them are \
                lost for good, begin a new cluster from a backup (`maitred snapshot restore --help`)";
    let message = format!("nobody leads the cluster: {why}");
    Failure::new(Exit::Unavailable, "no_leader", message, help).retryable()
}

impl Shown {
    fn answer(&self, member: &MemberRecord) -> Option<&HostStatus> {
        self.asked.iter().find(|one| is_of(one, member))
    }

    /// Addresses that were called and are no member's.
    fn strangers(&self) -> impl Iterator<Item = &HostStatus> {
        let known = |one: &HostStatus| self.members.items.iter().any(|member| is_of(one, member));
        self.asked.iter().filter(move |one| !known(one))
    }

    /// Why an address that was called is no member's, as far as that can be told: a host of another
    /// cluster has other members, and one that the members do not name is not kept connected.
    fn foreign(&self, one: &HostStatus) -> Option<&'static str> {
        let same = |member: &MemberRecord| {
            let mut own = self.members.items.iter();
            own.any(|own| own.host == member.host && own.name == member.name)
        };
        match &one.status {
            Ok(status) if !status.members.iter().any(same) => Some("belongs to another cluster"),
            Err(Error::Unavailable {
                cause: Cause::Link(LinkError::Local),
            }) => Some("belongs to another cluster, or has left this one"),
            _ => None,
        }
    }

    fn to_json(&self) -> Value {
        let mut body = shape::status(&self.main);
        body["leader"] = json!(self.leader.map(|host| host.to_string()));
        let member = |record: &MemberRecord| {
            let mut member = shape::member(record, self.leader, self.members.commit);
            let answer = self.answer(record);
            let (status, problem) = said(answer);
            member["status"] = status;
            member["problem"] = problem;
            member
        };
        body["members"] = self.members.items.iter().map(member).collect();
        body["others"] = self
            .strangers()
            .map(|one| {
                let (status, mut problem) = said(Some(one));
                if let Some(why) = self.foreign(one) {
                    problem = json!(why);
                }
                json!({ "address": one.endpoint, "status": status, "problem": problem })
            })
            .collect();
        body
    }

    fn text(&self) -> String {
        let name = |host: u64| {
            let mut members = self.members.items.iter();
            let member = members.find(|member| member.host == host);
            member.map_or_else(|| format!("host {host}"), |member| member.name.to_string())
        };
        let main = &self.main;
        let leader = match (self.leader, &main.no_leader) {
            (Some(host), _) => format!("led by {} in term {}", name(host), main.term),
            (None, Some(why)) => format!("NOBODY LEADS: {why}"),
            (None, None) => "NOBODY LEADS: an election is under way".to_owned(),
        };
        let voters = self.members.items.iter();
        let voters = voters.filter(|member| member.role == MemberRole::Voter);
        let (mut all, mut up) = (0, 0);
        for voter in voters {
            all += 1;
            up += u32::from(self.answer(voter).is_some_and(|one| one.status.is_ok()));
        }
        let mut rows = vec![
            ("cluster", leader),
            (
                "voters",
                format!(
                    "{up} of {all} answer, {} are needed; level {}",
                    all / 2 + 1,
                    main.level
                ),
            ),
            (
                "log",
                format!(
                    "committed {}, applied {}, {} entries kept, snapshot at {}",
                    main.commit, main.applied, main.log_entries, main.snapshot
                ),
            ),
            ("nodes", main.nodes.to_string()),
            (
                "processes",
                format!(
                    "{} running, {} starting, {} pending",
                    main.running, main.starting, main.pending
                ),
            ),
            ("sessions", main.clients.to_string()),
            ("fallbacks", main.fallbacks.to_string()),
        ];
        rows.extend(failover(main));
        if let Some(reason) = &main.shedding {
            rows.push(("refusing", format!("creates: {reason}")));
        }
        for (module, reason) in &main.unavailable_modules {
            rows.push((
                "module",
                format!("{module} cannot run on {}: {reason}", name(main.host)),
            ));
        }
        for (module, seconds) in &main.bypassed_modules {
            rows.push((
                "bypassed",
                format!(
                    "{module} failed too often on {}; its types use their fallback, and it is tried again in {seconds}s (maitred module history {module})",
                    name(main.host)
                ),
            ));
        }
        format!("{}\n\n{}", fields(&rows), self.hosts())
    }

    fn hosts(&self) -> String {
        let header = [
            "HOST", "NAME", "ROLE", "ADDRESS", "BEHIND", "HEARD", "UP", "BUILD",
        ];
        let members = self.members.items.iter().map(|member| {
            let (up, build) = condition(member, self.answer(member));
            vec![
                member.host.to_string(),
                member.name.to_string(),
                role(member, self.leader),
                member.address.clone(),
                self.behind(member),
                heard(member, self.leader),
                up,
                build,
            ]
        });
        let dash = || "-".to_owned();
        let others = self.strangers().map(|one| {
            let (mut up, mut build) = of_answer(Some(one));
            if let Some(why) = self.foreign(one) {
                (up, build) = ("-".to_owned(), why.to_owned());
            }
            let role = "no member".to_owned();
            let address = one.endpoint.clone();
            vec![dash(), dash(), role, address, dash(), dash(), up, build]
        });
        table(&header, members.chain(others))
    }

    /// Entries that it lacks: as the leader knows it, or else by what the host itself says.
    fn behind(&self, member: &MemberRecord) -> String {
        let own = self.answer(member).and_then(|one| one.status.as_ref().ok());
        let has = member
            .progress
            .and_then(shape::has)
            .filter(|_| self.leader != Some(member.host))
            .or(own.map(|status| status.commit));
        has.map_or("?".to_owned(), |has| {
            self.members.commit.saturating_sub(has).to_string()
        })
    }
}

/// What is said of lost nodes and moves, when there is something to say.
fn failover(main: &Status) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if main.held > 0 || main.lost > 0 {
        let text = format!(
            "{} keys, an earlier life of which may go on; lost sessions: {} (maitred node ls --lost)",
            main.held, main.lost
        );
        rows.push(("held", text));
    }
    if let Some(why) = &main.recreation_paused {
        rows.push(("recreation", format!("PAUSED: {why}")));
    }
    match (main.moves_suspended, main.moves_left) {
        (true, left) => rows.push((
            "moves",
            format!("SUSPENDED, {left} left (maitred rebalance resume)"),
        )),
        (false, 0) => {}
        (false, left) => rows.push(("moves", format!("{left} left"))),
    }
    rows
}

fn said(answer: Option<&HostStatus>) -> (Value, Value) {
    match answer.map(|one| &one.status) {
        Some(Ok(status)) => (shape::status(status), Value::Null),
        Some(Err(error)) => (Value::Null, json!(problem(error))),
        None => (Value::Null, json!("it was not called")),
    }
}

/// Why a host did not answer; that nothing was done goes without saying.
fn problem(error: &Error) -> String {
    match error {
        error if is_silence(error) => "does not answer".to_owned(),
        Error::Unavailable { cause } => cause.to_string(),
        other => other.to_string(),
    }
}

fn condition(member: &MemberRecord, answer: Option<&HostStatus>) -> (String, String) {
    if !member.arrived && answer.is_none_or(|one| one.status.is_err()) {
        return ("-".to_owned(), "has not come yet".to_owned());
    }
    of_answer(answer)
}

fn of_answer(answer: Option<&HostStatus>) -> (String, String) {
    match answer.map(|one| &one.status) {
        Some(Ok(status)) => (
            short(Duration::from_millis(status.uptime_ms)),
            status.build.clone(),
        ),
        Some(Err(error)) => ("NO".to_owned(), problem(error)),
        None => ("?".to_owned(), "it was not called".to_owned()),
    }
}

#[cfg(test)]
mod tests;

//! Following a host until it votes, or until it is gone: what phase it is in, and how that is shown.
//!
//! On a terminal a bar; to a pipe a line for each change; for scripts only the result.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use maitred_client::Client;
use maitred_protocol::{MemberRecord, MemberRole, Members};
use std::io::IsTerminal;

use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::out::{colours, short};

/// How often the leader is asked.
const LOOK: Duration = Duration::from_millis(200);
/// How long nobody may be able to say anything before the following ends.
const SILENCE: Duration = Duration::from_secs(30);

/// How far a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Announced; the host itself has not come.
    Awaited,
    /// It has come, and is being let in.
    Arrived,
    /// It fetches a snapshot of that index.
    Snapshot(u64),
    /// It gets the log.
    CatchingUp,
    /// It votes; when it replaces another, that one is out.
    Votes,
    /// It is to go, and still part of the group.
    Leaving,
    /// It is no member.
    Gone,
}

impl Phase {
    pub(crate) fn of(members: &Members, host: u64) -> Self {
        let Some(member) = members.items.iter().find(|member| member.host == host) else {
            return Self::Gone;
        };
        let snapshot = member.progress.and_then(|progress| progress.snapshot);
        match (member.role, snapshot) {
            (MemberRole::Voter, _) if member.replaces.is_none() => Self::Votes,
            (MemberRole::Leaving, _) => Self::Leaving,
            (MemberRole::Joining | MemberRole::Learner, _) if !member.arrived => Self::Awaited,
            (MemberRole::Joining, _) => Self::Arrived,
            (_, Some(index)) => Self::Snapshot(index),
            (_, None) => Self::CatchingUp,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::Awaited => "waiting for the host to come".to_owned(),
            Self::Arrived => "it has come, and is being let in".to_owned(),
            Self::Snapshot(index) => format!("fetching the snapshot at {index}"),
            Self::CatchingUp => "catching up with the log".to_owned(),
            Self::Votes => "it votes".to_owned(),
            Self::Leaving => "being taken out of the group".to_owned(),
            Self::Gone => "out of the group".to_owned(),
        }
    }
}

/// Follows `host` until it is at `goal`, for at most `patience`; the members as they are then.
///
/// # Errors
/// Exit code 6 when time runs out or nobody answers, 4 when the host was removed meanwhile.
pub(crate) async fn follow(
    shell: &Shell,
    client: &Client,
    host: u64,
    goal: Phase,
    patience: Duration,
) -> Result<Members, Failure> {
    let mut watch = Watch::new(shell);
    if watch.lines {
        eprintln!(
            "following it for up to {}; Ctrl-C ends that and changes nothing",
            short(patience)
        );
    }
    let (begun, mut heard) = (Instant::now(), Instant::now());
    let mut last = None;
    loop {
        match client.members().await {
            Ok(members) => {
                heard = Instant::now();
                let phase = Phase::of(&members, host);
                // One that is to go is not waited for, whatever it was before.
                let phase = match phase {
                    Phase::Gone => Phase::Gone,
                    _ if goal == Phase::Gone => Phase::Leaving,
                    phase => phase,
                };
                watch.show(&members, host, phase, last != Some(phase));
                last = Some(phase);
                if phase == goal {
                    return Ok(members);
                }
                if phase == Phase::Gone {
                    let message = format!("host {host} was removed meanwhile");
                    let help = "see `maitred member ls`";
                    return Err(Failure::new(Exit::Conflict, "removed", message, help));
                }
            }
            // A leader may have been lost; the change itself is made.
            Err(error) if heard.elapsed() > SILENCE => return Err(error.into()),
            Err(_) => {}
        }
        if begun.elapsed() > patience {
            return Err(late(last, patience));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn late(last: Option<Phase>, patience: Duration) -> Failure {
    let phase = last.map_or_else(|| "nothing is known of it".to_owned(), Phase::text);
    let message = format!(
        "not done after {}: {phase}; the change is recorded, and goes on by itself",
        short(patience)
    );
    let help = "see how far it is with `maitred member ls`; wait longer with --wait";
    Failure::new(Exit::Unavailable, "not_yet", message, help).retryable()
}

/// Where the phases are shown: on stderr, so that the result is alone on stdout.
struct Watch {
    bar: ProgressBar,
    /// A line for each change, when there is no terminal to draw a bar on.
    lines: bool,
}

impl Watch {
    fn new(shell: &Shell) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if shell.out.is_json() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(Duration::from_millis(100));
        let lines = !shell.out.is_json() && !terminal;
        Self { bar, lines }
    }

    fn show(&mut self, members: &Members, host: u64, phase: Phase, changed: bool) {
        if self.lines && changed {
            eprintln!("{}", phase.text());
        }
        let member = members.items.iter().find(|member| member.host == host);
        let matched = member.and_then(matched);
        // A bar only while there is something to measure.
        let template = match (phase, matched) {
            (Phase::CatchingUp, Some(_)) => {
                "{spinner} {msg:34} {bar:30} {pos}/{len} entries {elapsed}"
            }
            _ => "{spinner} {msg:34} {elapsed}",
        };
        let template = if colours(&std::io::stderr()) {
            template
                .replace("{spinner}", "{spinner:.cyan}")
                .replace("{bar:30}", "{bar:30.cyan}")
        } else {
            template.to_owned()
        };
        if changed && let Ok(style) = ProgressStyle::with_template(&template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(phase.text());
        if let Some(matched) = matched {
            self.bar.set_length(members.commit);
            self.bar.set_position(matched.min(members.commit));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn matched(member: &MemberRecord) -> Option<u64> {
    member.progress.map(|progress| progress.matched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::{HostName, Progress};

    #[test]
    fn a_host_goes_through_its_phases() {
        let mut member = MemberRecord {
            host: 7,
            name: HostName::new("c").unwrap(),
            address: "10.0.0.3:7600".to_owned(),
            role: MemberRole::Joining,
            replaces: Some(3),
            arrived: false,
            progress: None,
        };
        let phase = |member: &MemberRecord| {
            let members = Members {
                items: vec![member.clone()],
                leader: Some(1),
                term: 2,
                commit: 100,
                level: 2,
            };
            Phase::of(&members, 7)
        };
        assert_eq!(phase(&member), Phase::Awaited);
        // It gets the log before it comes, and nobody takes it from there.
        member.role = MemberRole::Learner;
        assert_eq!(phase(&member), Phase::Awaited);
        member.role = MemberRole::Joining;
        member.arrived = true;
        assert_eq!(phase(&member), Phase::Arrived);
        member.role = MemberRole::Learner;
        let mut progress = Progress {
            matched: 0,
            heard_ms: Some(3),
            snapshot: Some(90),
        };
        member.progress = Some(progress);
        assert_eq!(phase(&member), Phase::Snapshot(90));
        progress.snapshot = None;
        member.progress = Some(progress);
        assert_eq!(phase(&member), Phase::CatchingUp);
        // It votes, and the one that it replaces has not gone yet.
        member.role = MemberRole::Voter;
        assert_eq!(phase(&member), Phase::CatchingUp);
        member.replaces = None;
        assert_eq!(phase(&member), Phase::Votes);
        member.role = MemberRole::Leaving;
        assert_eq!(phase(&member), Phase::Leaving);
        member.host = 8;
        assert_eq!(phase(&member), Phase::Gone);
    }
}

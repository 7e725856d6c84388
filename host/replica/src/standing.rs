//! How the group and this host are, for those who ask: members, progress, status, and why there is no
//! leader when there is none.

use maitred_protocol::{MemberRecord, MemberRole, Members, Progress, Status, Switch};
use maitred_registry::Member;
use raft::{ProgressState, StateRole};

use crate::input::Disk;
use crate::membership::is_in;
use crate::replica::Replica;

/// Microseconds after which a host that said nothing counts as out of reach while nobody leads.
const SILENT_US: u64 = 1_000_000;

impl Replica {
    pub(crate) fn member_record(&self, host: u64, member: &Member) -> MemberRecord {
        let conf = self.consensus.conf_state();
        let wanted = self.registry.members().contains_key(&host);
        let role = if conf.voters.contains(&host) || conf.voters_outgoing.contains(&host) {
            if wanted {
                MemberRole::Voter
            } else {
                MemberRole::Leaving
            }
        } else if conf.learners.contains(&host) {
            MemberRole::Learner
        } else {
            MemberRole::Joining
        };
        MemberRecord {
            host,
            name: member.name.clone(),
            address: member.address.clone(),
            role,
            replaces: member.replaces,
            arrived: member.instance != 0,
            progress: self.progress_of(host),
        }
    }

    fn progress_of(&self, host: u64) -> Option<Progress> {
        let raft = &self.consensus.node.raft;
        if raft.state != StateRole::Leader {
            return None;
        }
        let progress = raft.prs().get(host)?;
        let heard = if host == self.config.id {
            Some(self.now.mono_us)
        } else {
            self.peers.heard.get(&host).copied()
        };
        let ms =
            |at: u64| (self.now.mono_us.saturating_sub(at) / 1_000).min(u32::MAX.into()) as u32;
        let fetches = progress.state == ProgressState::Snapshot;
        Some(Progress {
            matched: progress.matched,
            heard_ms: heard.map(ms),
            snapshot: fetches.then_some(progress.pending_snapshot),
        })
    }

    /// The members, and those that are to go until they have gone.
    pub(crate) fn member_records(&self) -> Vec<MemberRecord> {
        let members = self.registry.members();
        let conf = self.consensus.conf_state();
        let leaving = (self.peers.former.iter())
            .filter(|(host, _)| !members.contains_key(*host) && is_in(conf, **host));
        let mut records: Vec<_> = (members.iter().chain(leaving))
            .map(|(host, member)| self.member_record(*host, member))
            .collect();
        records.sort_unstable_by_key(|record| record.host);
        records
    }

    pub(crate) fn members(&self) -> Members {
        let standing = self.consensus.standing();
        Members {
            items: self.member_records(),
            leader: (standing.leader != 0).then_some(standing.leader),
            term: standing.term,
            commit: standing.commit,
            level: self.registry.level(),
        }
    }

    /// A host, for people: its name and number.
    pub(crate) fn called(&self, host: u64) -> String {
        match self.registry.members().get(&host) {
            Some(member) => format!("{} (host {host})", member.name),
            None => format!("host {host}"),
        }
    }

    /// Why there is no leader, when there is none.
    pub(crate) fn no_leader(&self) -> Option<String> {
        if self.consensus.standing().leader != 0 {
            return None;
        }
        let conf = self.consensus.conf_state();
        let voters = &conf.voters;
        if !is_in(conf, self.config.id) && !self.registry.members().contains_key(&self.config.id) {
            return Some(
                "this host has joined, and has heard of no leader yet; check that the others can reach its address"
                    .to_owned(),
            );
        }
        // Without a leader they only talk when they call elections.
        let lately = |host: &u64| {
            let at = self.peers.heard.get(host);
            *host == self.config.id || at.is_some_and(|at| self.now.mono_us - at <= SILENT_US)
        };
        let silent: Vec<String> = voters
            .iter()
            .filter(|host| !lately(host))
            .map(|host| match self.peers.heard.get(host) {
                Some(at) => {
                    let seconds = self.now.mono_us.saturating_sub(*at) / 1_000_000;
                    format!("{} silent for {seconds} s", self.called(*host))
                }
                None => format!(
                    "{} not heard of since this host started",
                    self.called(*host)
                ),
            })
            .collect();
        let (heard, needed) = (voters.len() - silent.len(), voters.len() / 2 + 1);
        Some(if heard < needed {
            format!(
                "{needed} of {} voters are needed and {heard} can be reached; missing: {}",
                voters.len(),
                silent.join(", ")
            )
        } else {
            "an election is under way".to_owned()
        })
    }

    pub(crate) fn status(&self) -> Status {
        let standing = self.consensus.standing();
        let counts = self.registry.counts();
        let role = match standing.role {
            StateRole::Leader => "leader",
            StateRole::Follower if !self.consensus.node.raft.promotable() => "learner",
            StateRole::Follower => "follower",
            StateRole::Candidate | StateRole::PreCandidate => "candidate",
        };
        let shedding = match self.disk {
            Disk::Ok => None,
            Disk::Low(free) => Some(format!("the disk is nearly full: {} MiB left", free >> 20)),
        };
        Status {
            build: self.config.build.clone(),
            host: self.config.id,
            role: role.to_owned(),
            leader: (standing.leader != 0).then_some(standing.leader),
            no_leader: self.no_leader(),
            members: self.member_records(),
            level: self.registry.level(),
            term: standing.term,
            commit: standing.commit,
            applied: self.registry.applied(),
            log_entries: self.consensus.log().len(),
            snapshot: self.snapshot.index,
            uptime_ms: self.now.mono_us.saturating_sub(self.started_us) / 1_000,
            nodes: self.registry.nodes().len() as u32,
            running: counts.running,
            starting: counts.starting,
            pending: counts.pending,
            clients: self.registry.sessions() as u32,
            unavailable_modules: Vec::new(),
            bypassed_modules: Vec::new(),
            fallbacks: 0,
            shedding,
            held: self.registry.held() as u64,
            lost: self.registry.lost().count() as u32,
            recreation_paused: self.recreation_paused(),
            moves_suspended: self.registry.is_suspended(Switch::Moves),
            moves_left: self.moves_left(),
        }
    }
}

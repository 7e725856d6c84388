//! The group follows what the operators want.
//!
//! The registry says which hosts are to belong to the cluster; Raft's configuration says which do.
//! The leader makes the second follow the first, one change at a time: a new member becomes a
//! learner; a learner that has caught up and is heard of becomes a voter, and when it takes
//! another's place, the same (joint) change takes the other out; a voter that is not wanted any more
//! is taken out. All of it is found again by the next leader, since nothing of it is only remembered.
//!
//! A change that would leave a group which cannot commit is not made: refused when an operator asks,
//! put off when it is the group's own.

use std::collections::BTreeMap;

use maitred_protocol::{
    Join, MemberRecord, MemberRole, Members, Progress, Rejection, RequestId, Response, Unavailable,
};
use maitred_registry::{Command, Member};
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use raft::{ProgressState, StateRole};

use crate::effect::{Effect, Peer};
use crate::input::Ticket;
use crate::mutants;
use crate::replica::{Replica, Waiter};

/// Bytes of a change of the group. Bounds how deeply a hostile one can nest.
const CHANGE_BYTES_MAX: usize = 512;
/// A learner that lacks no more entries than this has caught up.
const CAUGHT_UP_ENTRIES: u64 = 1_000;
/// Microseconds after which a host that said nothing does not count as reachable.
const SILENT_US: u64 = 2_000_000;
/// Microseconds between two looks at what is to change.
const LOOK_US: u64 = 100_000;
/// Microseconds after which a peer that was told to fetch a snapshot is told again.
const SNAPSHOT_AGAIN_US: u64 = 5_000_000;
/// Microseconds after which leadership is not handed over again because of a slow disk.
const SLOW_AGAIN_US: u64 = 30_000_000;

/// Reads a change of the group; none when it is not one.
pub(crate) fn read_change(data: &[u8]) -> Option<ConfChangeV2> {
    if data.len() > CHANGE_BYTES_MAX {
        return None;
    }
    let mut change = ConfChangeV2::default();
    change.merge_from_bytes(data).ok()?;
    Some(change)
}

/// The bytes of a change.
pub(crate) fn write_change(change: &ConfChangeV2) -> Vec<u8> {
    change
        .write_to_bytes()
        .expect("serializing to memory, and all fields have defaults")
}

/// Whether others may vote after the change than before.
pub(crate) fn changes_voters(change: &ConfChangeV2) -> bool {
    let of_learner =
        |one: &ConfChangeSingle| one.get_change_type() == ConfChangeType::AddLearnerNode;
    change.changes.is_empty() || !change.changes.iter().all(of_learner)
}

fn single(kind: ConfChangeType, host: u64) -> ConfChangeSingle {
    let mut single = ConfChangeSingle::default();
    single.set_change_type(kind);
    single.node_id = host;
    single
}

fn change_of(changes: Vec<ConfChangeSingle>) -> ConfChangeV2 {
    let mut change = ConfChangeV2::default();
    change.set_changes(changes.into());
    change
}

/// What a host knows of its peers, beyond what is replicated.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// When each was last heard of.
    heard: BTreeMap<u64, u64>,
    /// The level that each says it can carry out.
    levels: BTreeMap<u64, u16>,
    /// The links that were asked for.
    links: Vec<Peer>,
    looked_us: u64,
    /// Since when each fetches a snapshot.
    fetching: BTreeMap<u64, u64>,
    /// Who asked for a hand-over, and when it is given up.
    pub(crate) transfers: Vec<(Ticket, u64)>,
    slow_us: Option<u64>,
    removed_said: bool,
}

impl Peers {
    pub(crate) fn heard(&mut self, host: u64, now_us: u64) {
        self.heard.insert(host, now_us);
    }

    pub(crate) fn met(&mut self, host: u64, level_max: u16) {
        self.levels.insert(host, level_max);
    }
}

fn is_in(conf: &ConfState, host: u64) -> bool {
    [&conf.voters, &conf.learners, &conf.voters_outgoing]
        .iter()
        .any(|hosts| hosts.contains(&host))
}

impl Replica {
    fn is_heard(&self, host: u64) -> bool {
        let at = self.peers.heard.get(&host);
        host == self.config.id || at.is_some_and(|at| self.now.mono_us - at <= SILENT_US)
    }

    fn can_commit(&self, voters: &[u64]) -> bool {
        let heard = voters.iter().filter(|host| self.is_heard(**host)).count();
        heard > voters.len() / 2
    }

    /// A host wants to join, or says where it is now.
    pub(crate) fn admit_join(&mut self, ticket: Ticket, join: Join) {
        if let Some(why) = self.refusal(false) {
            return self.unavailable(ticket, why);
        }
        let level = self.registry.level();
        if join.level_max < level {
            let known = join.level_max;
            let text = format!(
                "the cluster uses level {level} and the program of {} knows {known}; upgrade it",
                join.name
            );
            return self.reject(ticket, Rejection::Conflict(text));
        }
        if join.host != 0 {
            self.peers.met(join.host, join.level_max);
            match self.registry.members().get(&join.host) {
                Some(member)
                    if member.instance == join.instance
                        && member.address == join.address
                        && member.name == join.name =>
                {
                    let record = self.member_record(join.host, member);
                    return self.reply(ticket, Response::Member(Box::new(record)));
                }
                Some(_) => {}
                None if is_in(self.consensus.conf_state(), join.host) => {}
                None => {
                    let what = format!("host {} in this cluster (it was removed):", join.host);
                    return self.reject(ticket, Rejection::NotFound(what));
                }
            }
        }
        self.queue(None, put(&join), Waiter::Client(ticket));
    }

    pub(crate) fn admit_replace(
        &mut self,
        ticket: Ticket,
        request: RequestId,
        host: u64,
        address: Option<String>,
    ) {
        let members = self.registry.members();
        let Some(member) = members.get(&host) else {
            return self.reject(ticket, Rejection::NotFound(format!("host {host}")));
        };
        let replaced = members.iter().find(|(_, new)| new.replaces == Some(host));
        if let Some((number, new)) = replaced {
            let record = self.member_record(*number, new);
            return self.reply(ticket, Response::Member(Box::new(record)));
        }
        let command = Command::PutMember {
            host: 0,
            name: member.name.clone(),
            address: address.unwrap_or_else(|| member.address.clone()),
            instance: 0,
            replaces: Some(host),
        };
        self.queue(Some(request), command, Waiter::Client(ticket));
    }

    pub(crate) fn admit_remove(&mut self, ticket: Ticket, request: RequestId, host: u64) {
        let conf = self.consensus.conf_state();
        let left: Vec<u64> = (conf.voters.iter().copied())
            .filter(|voter| *voter != host)
            .collect();
        if conf.voters.contains(&host) {
            if left.is_empty() {
                let text = format!("host {host} is the only voter; add another one first");
                return self.reject(ticket, Rejection::Conflict(text));
            }
            if !self.can_commit(&left) {
                let silent: Vec<String> = (left.iter())
                    .filter(|voter| !self.is_heard(**voter))
                    .map(u64::to_string)
                    .collect();
                let text = format!(
                    "without host {host}, {} of {} voters would be needed, and hosts {} are not heard of; bring one of them back, or remove or replace that one first",
                    left.len() / 2 + 1,
                    left.len(),
                    silent.join(", ")
                );
                return self.reject(ticket, Rejection::Conflict(text));
            }
        }
        self.queue(
            Some(request),
            Command::RemoveMember(host),
            Waiter::Client(ticket),
        );
    }

    /// An operator wants another leader.
    pub(crate) fn admit_transfer(&mut self, ticket: Ticket, to: Option<u64>) {
        if let Some(why) = self.refusal(false) {
            return self.unavailable(ticket, why);
        }
        let to = match to {
            Some(to) if to == self.config.id => {
                let now = maitred_protocol::Revision(self.registry.applied());
                return self.reply(ticket, Response::Done(now));
            }
            Some(to) if !self.consensus.conf_state().voters.contains(&to) => {
                let text = format!("host {to} does not vote, and so cannot lead");
                return self.reject(ticket, Rejection::Conflict(text));
            }
            Some(to) if !self.is_heard(to) => {
                let text = format!("host {to} is not heard of");
                return self.reject(ticket, Rejection::Conflict(text));
            }
            Some(to) => Some(to),
            None => self.successor(),
        };
        let Some(to) = to else {
            let text = "there is no other voter that is heard of and has the log".to_owned();
            return self.reject(ticket, Rejection::Conflict(text));
        };
        let patience = 2 * self.config.election_ticks as u64 * self.config.tick_us;
        self.peers
            .transfers
            .push((ticket, self.now.mono_us + patience));
        self.hand_over(to);
    }

    /// The voter that is heard of and has most of the log.
    pub(crate) fn successor(&self) -> Option<u64> {
        let raft = &self.consensus.node.raft;
        let voters = &self.consensus.conf_state().voters;
        let others = voters
            .iter()
            .filter(|host| **host != self.config.id && self.is_heard(**host));
        let matched = |host: &&u64| {
            raft.prs()
                .get(**host)
                .map_or(0, |progress| progress.matched)
        };
        others
            .max_by_key(|host| (matched(host), std::cmp::Reverse(**host)))
            .copied()
    }

    /// Hands leadership over. Nothing is promised to readers from now on.
    pub(crate) fn hand_over(&mut self, to: u64) {
        self.reads.drop_lease();
        self.consensus.transfer(to);
    }

    /// Looks, now and then, at what is to change, and at hand-overs that came to nothing.
    pub(crate) fn look_at_group(&mut self) {
        let now_us = self.now.mono_us;
        if now_us.saturating_sub(self.peers.looked_us) < LOOK_US {
            return;
        }
        self.peers.looked_us = now_us;
        let (late, waiting) = std::mem::take(&mut self.peers.transfers)
            .into_iter()
            .partition(|(_, until)| *until <= now_us);
        self.peers.transfers = waiting;
        let late: Vec<(Ticket, u64)> = late;
        for (ticket, _) in late {
            let text = "the other host did not take over in time; try again".to_owned();
            self.unavailable(ticket, Unavailable::Overloaded(text));
        }
        if self.serving.is_none() || self.consensus.is_moving() {
            return;
        }
        self.tell_again_of_snapshots();
        self.raise_level();
        if self.announce_self() || self.consensus.node.raft.has_pending_conf() {
            return;
        }
        if let Some(change) = self.next_change() {
            // Whatever is refused now is found again at the next look.
            let _ = self.consensus.propose_change(&change);
        }
    }

    /// The leader of a group that began before it had members, or whose address changed.
    pub(crate) fn announce_self(&mut self) -> bool {
        let join = self.config.join();
        let known = self.registry.members().get(&join.host);
        let same = known.is_some_and(|member| {
            member.address == join.address
                && member.name == join.name
                && member.instance == join.instance
        });
        if !same {
            self.queue(None, put(&join), Waiter::Nobody);
        }
        !same
    }

    fn raise_level(&mut self) {
        let known = |host: &u64| {
            if *host == self.config.id {
                self.config.level_max
            } else {
                self.peers.levels.get(host).copied().unwrap_or(0)
            }
        };
        let conf = self.consensus.conf_state();
        let everyone = conf.voters.iter().chain(&conf.learners);
        let level = everyone.map(known).min().unwrap_or(0);
        if level > self.registry.level() {
            self.queue(None, Command::SetLevel(level), Waiter::Nobody);
        }
    }

    fn tell_again_of_snapshots(&mut self) {
        let now_us = self.now.mono_us;
        let progress = self.consensus.node.raft.prs();
        let fetching: Vec<u64> = progress
            .iter()
            .filter(|(_, progress)| progress.state == ProgressState::Snapshot)
            .map(|(host, _)| *host)
            .collect();
        self.peers
            .fetching
            .retain(|host, _| fetching.contains(host));
        for host in fetching {
            let since = self.peers.fetching.entry(host).or_insert(now_us);
            if now_us - *since >= SNAPSHOT_AGAIN_US {
                *since = now_us;
                self.consensus.snapshot_again(host);
            }
        }
    }

    /// The oldest snapshot that a peer is fetching: the log after it is kept for that peer.
    pub(crate) fn oldest_fetched(&self) -> Option<u64> {
        let progress = self.consensus.node.raft.prs();
        progress
            .iter()
            .filter(|(host, one)| one.state == ProgressState::Snapshot && self.is_heard(**host))
            .map(|(_, one)| one.pending_snapshot)
            .min()
    }

    /// What must change next for the group to be what is wanted.
    fn next_change(&mut self) -> Option<ConfChangeV2> {
        let conf = self.consensus.conf_state().clone();
        if !conf.voters_outgoing.is_empty() {
            // A leader that fell in the middle of a joint change.
            return Some(ConfChangeV2::default());
        }
        let members = self.registry.members().clone();
        let replaced = |host: u64| members.values().any(|new| new.replaces == Some(host));
        // Replaced and out: its record goes too.
        let gone = members
            .keys()
            .find(|host| !is_in(&conf, **host) && replaced(**host));
        if let Some(host) = gone.copied() {
            self.queue(None, Command::RemoveMember(host), Waiter::Nobody);
            return None;
        }
        let unwanted = |host: &u64| !members.contains_key(host);
        if let Some(host) = conf.learners.iter().copied().find(unwanted) {
            return Some(change_of(vec![single(ConfChangeType::RemoveNode, host)]));
        }
        if let Some(host) = conf.voters.iter().copied().find(unwanted) {
            return self.removal(&conf, host);
        }
        if let Some(host) = members.keys().find(|host| !is_in(&conf, **host)) {
            let kind = if mutants::on("learner-votes") {
                ConfChangeType::AddNode
            } else {
                ConfChangeType::AddLearnerNode
            };
            return Some(change_of(vec![single(kind, *host)]));
        }
        let mut learners = conf.learners.iter();
        learners.find_map(|host| self.promotion(&conf, *host, members.get(host)?))
    }

    fn removal(&mut self, conf: &ConfState, host: u64) -> Option<ConfChangeV2> {
        let left: Vec<u64> = (conf.voters.iter().copied())
            .filter(|voter| *voter != host)
            .collect();
        if left.is_empty() || !self.can_commit(&left) {
            return None;
        }
        if host == self.config.id {
            // It cannot take itself out and lead on.
            if let Some(to) = self.successor() {
                self.hand_over(to);
            }
            return None;
        }
        Some(change_of(vec![single(ConfChangeType::RemoveNode, host)]))
    }

    fn promotion(&mut self, conf: &ConfState, host: u64, member: &Member) -> Option<ConfChangeV2> {
        let raft = &self.consensus.node.raft;
        let progress = raft.prs().get(host)?;
        let lacks = raft.raft_log.committed.saturating_sub(progress.matched);
        if lacks > CAUGHT_UP_ENTRIES
            || progress.state != ProgressState::Replicate
            || !self.is_heard(host)
        {
            return None;
        }
        let old = member.replaces.filter(|old| conf.voters.contains(old));
        let mut after: Vec<u64> = conf.voters.clone();
        after.retain(|voter| Some(*voter) != old);
        after.push(host);
        if !self.can_commit(&after) {
            return None;
        }
        let mut changes = vec![single(ConfChangeType::AddNode, host)];
        if let Some(old) = old {
            if old == self.config.id {
                if let Some(to) = self.successor() {
                    self.hand_over(to);
                }
                return None;
            }
            changes.push(single(ConfChangeType::RemoveNode, old));
        }
        Some(change_of(changes))
    }

    /// A leader whose disk is slow lets another one lead.
    pub(crate) fn look_at_disk(&mut self) {
        let Some(since) = self.writes.front().map(|(_, at_us)| *at_us) else {
            return;
        };
        let now_us = self.now.mono_us;
        let slow = now_us.saturating_sub(since) >= self.config.disk_slow_us;
        let lately = (self.peers.slow_us).is_some_and(|at_us| now_us - at_us < SLOW_AGAIN_US);
        if !slow || lately || !self.consensus.is_leader() || self.consensus.is_moving() {
            return;
        }
        if let Some(to) = self.successor() {
            self.peers.slow_us = Some(now_us);
            self.hand_over(to);
        }
    }

    /// Tells the caller which links to keep, and when this host is no longer a member.
    pub(crate) fn follow_members(&mut self) {
        let mut links: BTreeMap<u64, Peer> = (self.registry.members().iter())
            .map(|(host, member)| {
                let (host, address) = (*host, member.address.clone());
                let instance = member.instance;
                (
                    host,
                    Peer {
                        host,
                        address,
                        instance,
                    },
                )
            })
            .collect();
        links.remove(&self.config.id);
        let links: Vec<Peer> = links.into_values().collect();
        if links != self.peers.links {
            self.peers.links.clone_from(&links);
            self.effects.push(Effect::Peers(links));
        }
        let gone = !self.registry.members().contains_key(&self.config.id)
            && !is_in(self.consensus.conf_state(), self.config.id)
            // A host that has just been added has not heard of it yet.
            && self.registry.applied() >= self.config.id;
        if gone && !self.peers.removed_said {
            self.peers.removed_said = true;
            self.effects.push(Effect::Removed);
        }
    }

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

    pub(crate) fn member_records(&self) -> Vec<MemberRecord> {
        let members = self.registry.members();
        let record = |(host, member): (&u64, &Member)| self.member_record(*host, member);
        members.iter().map(record).collect()
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
        let silent: Vec<String> = voters
            .iter()
            .filter(|host| !self.is_heard(**host))
            .map(|host| match self.peers.heard.get(host) {
                Some(at) => {
                    let seconds = self.now.mono_us.saturating_sub(*at) / 1_000_000;
                    format!("host {host} (silent for {seconds} s)")
                }
                None => format!("host {host} (never heard of since this host started)"),
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
}

fn put(join: &Join) -> Command {
    Command::PutMember {
        host: join.host,
        name: join.name.clone(),
        address: join.address.clone(),
        instance: join.instance,
        replaces: None,
    }
}

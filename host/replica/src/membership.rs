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

use maitred_protocol::{Join, Unavailable};
use maitred_registry::{Command, Member};
use protobuf::Message as _;
use raft::ProgressState;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};

use crate::effect::{Effect, Peer};
use crate::input::Ticket;
use crate::mutants;
use crate::proposals::Waiter;
use crate::replica::Replica;

/// Bytes of a change of the group. Bounds how deeply a hostile one can nest.
const CHANGE_BYTES_MAX: usize = 512;
/// A learner that lacks no more entries than this has caught up.
const CAUGHT_UP_ENTRIES: u64 = 10_000;
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
    pub(crate) heard: BTreeMap<u64, u64>,
    /// The level that each says it can carry out.
    levels: BTreeMap<u64, u16>,
    /// The links that were asked for.
    links: Vec<Peer>,
    /// They are those of the members and of the group as they are now.
    pub(crate) followed: bool,
    /// Members as they were last known, for those that are to go.
    pub(crate) former: BTreeMap<u64, Member>,
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

pub(crate) fn is_in(conf: &ConfState, host: u64) -> bool {
    [&conf.voters, &conf.learners, &conf.voters_outgoing]
        .iter()
        .any(|hosts| hosts.contains(&host))
}

impl Replica {
    pub(crate) fn is_heard(&self, host: u64) -> bool {
        // A follower answers every heartbeat; one that has not for so long may be dead.
        let silent_us = 2 * self.config.election_ticks as u64 * self.config.tick_us;
        let at = self.peers.heard.get(&host);
        host == self.config.id || at.is_some_and(|at| self.now.mono_us - at <= silent_us)
    }

    pub(crate) fn can_commit(&self, voters: &[u64]) -> bool {
        let heard = voters.iter().filter(|host| self.is_heard(**host)).count();
        heard > voters.len() / 2
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
        self.reads.end_leases(self.consensus.standing().term);
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

    /// A founder that leads for the first time, or a leader whose address changed.
    pub(crate) fn announce_self(&mut self) -> bool {
        let join = self.config.join();
        // One that was taken out must not put itself back.
        let Some(member) = self.registry.members().get(&join.host) else {
            return false;
        };
        let same = member.address == join.address
            && member.name == join.name
            && member.instance == join.instance;
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
        let members = self.registry.members().iter();
        // Also those that have come and are still to be taken in.
        let come = members.filter(|(_, member)| member.instance != 0);
        let hosts = conf.voters.iter().chain(&conf.learners);
        let everyone = hosts.chain(come.map(|(host, _)| host));
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
        // Once the new one votes, the old one is not needed: nor is one that never voted.
        let stands_in = |host: u64| {
            let mut voters = conf.voters.iter().filter_map(|new| members.get(new));
            voters.any(|new| new.replaces == Some(host))
        };
        let unwanted = |host: &u64| !members.contains_key(host) || stands_in(*host);
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
            // However short the log is: it has nothing, and may never have.
            || progress.matched == 0
            // With nothing to send, one that came by a snapshot is still being probed.
            || progress.state == ProgressState::Snapshot
            || !self.is_heard(host)
        {
            return None;
        }
        let mut old = member.replaces.filter(|old| conf.voters.contains(old));
        if conf.voters == [self.config.id] {
            // The only one stays until it can hand over.
            old = None;
        }
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
        if std::mem::replace(&mut self.peers.followed, true) {
            return;
        }
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
        let (members, conf) = (self.registry.members(), self.consensus.conf_state());
        let former = &mut self.peers.former;
        former.retain(|host, _| members.contains_key(host) || is_in(conf, *host));
        for (host, member) in self.registry.members() {
            if self.peers.former.get(host) != Some(member) {
                self.peers.former.insert(*host, member.clone());
            }
        }
        // One that is to go takes part until it has gone: its own acknowledgement may be needed.
        let conf = self.consensus.conf_state();
        for old in &self.peers.links {
            if is_in(conf, old.host) {
                links.entry(old.host).or_insert_with(|| old.clone());
            }
        }
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
}

pub(crate) fn put(join: &Join) -> Command {
    Command::PutMember {
        host: join.host,
        name: join.name.clone(),
        address: join.address.clone(),
        instance: join.instance,
        replaces: None,
    }
}

//! Which addresses are called, which host answers at each, and which one is asked: pure.
//!
//! A way is an address: configured (a seed, never forgotten) or learned from the members. Holds:
//! - of a host at most one connection is used; a further way to it rests until that one is gone;
//! - only a fresh view of the members (its commit is not lower than any seen) changes anything;
//! - a host that is no member is let go, unless it is the only way in;
//! - of what is said of leaders only a term as high as any seen counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound::{Excluded, Unbounded};

use maitred_protocol::limits::MEMBERS_MAX;
use maitred_protocol::{MemberRecord, Members};

use crate::error::Error;

/// Who may answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// The leader, or as long as none is known whoever may know it.
    Leader,
    /// Every host; they take turns.
    Any,
}

/// An address that is called.
#[derive(Debug)]
pub(crate) struct Way<C> {
    pub(crate) endpoint: String,
    /// The member whose address this is; none for a seed.
    member: Option<u64>,
    /// The host that answered there last.
    pub(crate) number: Option<u64>,
    remote: Option<SocketAddr>,
    pub(crate) conn: Option<C>,
    /// Why there is no connection.
    pub(crate) error: Option<Error>,
}

#[derive(Debug, Default)]
struct Leader {
    term: u64,
    host: Option<u64>,
    /// The last one that was known.
    last: Option<u64>,
}

/// What a fresh view of the members asks for.
#[derive(Debug)]
pub(crate) struct Changes<C> {
    /// Ways to begin to call.
    pub(crate) added: Vec<(u64, String)>,
    /// Ways that are gone, for good.
    pub(crate) dropped: Vec<u64>,
    /// Connections to end.
    pub(crate) ended: Vec<C>,
}

/// The ways to the hosts of one cluster.
#[derive(Debug)]
pub(crate) struct Hosts<C> {
    pub(crate) ways: BTreeMap<u64, Way<C>>,
    last_way: u64,
    leader: Leader,
    /// Asked when no leader is known.
    hint: u64,
    /// Whose turn it was.
    turn: u64,
    /// The members and their addresses, once they are known, and the highest commit that came with
    /// them.
    members: BTreeMap<u64, String>,
    commit: u64,
}

impl<C: Clone> Hosts<C> {
    pub(crate) fn new(seeds: &[String]) -> Self {
        let mut hosts = Self {
            ways: BTreeMap::new(),
            last_way: 0,
            leader: Leader::default(),
            hint: 1,
            turn: 0,
            members: BTreeMap::new(),
            commit: 0,
        };
        for seed in seeds {
            if hosts.ways.values().all(|way| way.endpoint != *seed) {
                hosts.add(seed.clone(), None);
            }
        }
        hosts
    }

    fn add(&mut self, endpoint: String, member: Option<u64>) -> u64 {
        self.last_way += 1;
        let way = Way {
            endpoint,
            member,
            number: None,
            remote: None,
            conn: None,
            error: None,
        };
        self.ways.insert(self.last_way, way);
        self.last_way
    }

    /// The way over which `host` is connected.
    fn way_to(&self, host: u64) -> Option<u64> {
        let mut ways = self.ways.iter();
        let found = ways.find(|(_, way)| way.conn.is_some() && way.number == Some(host));
        found.map(|(id, _)| *id)
    }

    /// A connection to exactly this host.
    pub(crate) fn conn_to(&self, host: u64) -> Option<C> {
        self.ways.get(&self.way_to(host)?)?.conn.clone()
    }

    pub(crate) fn seeds(&self) -> impl Iterator<Item = &Way<C>> {
        self.ways.values().filter(|way| way.member.is_none())
    }

    /// Whether a way is better left alone: its host is connected otherwise, or is no member while
    /// another host that is one can be asked.
    pub(crate) fn rests(&self, id: u64) -> bool {
        let Some(way) = self.ways.get(&id) else {
            return true;
        };
        let Some(number) = way.number else {
            return false;
        };
        let others = || self.ways.iter().filter(|(other, _)| **other != id);
        let twin = others().any(|(_, way)| way.conn.is_some() && way.number == Some(number));
        twin || (self.has_left(number) && others().any(|(_, way)| self.leads_in(way)))
    }

    /// Whether a first call to some way has neither come to anything nor failed yet.
    pub(crate) fn calls(&self) -> bool {
        let mut ways = self.ways.iter();
        ways.any(|(id, way)| way.conn.is_none() && way.error.is_none() && !self.rests(*id))
    }

    fn has_left(&self, number: u64) -> bool {
        !self.members.is_empty() && !self.members.contains_key(&number)
    }

    fn leads_in(&self, way: &Way<C>) -> bool {
        let member = way
            .number
            .is_some_and(|host| self.members.contains_key(&host));
        way.conn.is_some() && member
    }

    /// Host `number` (0: it has none) answers at a way; whether that connection is to be used.
    pub(crate) fn connected(&mut self, id: u64, number: u64, remote: SocketAddr, conn: C) -> bool {
        let Some(way) = self.ways.get_mut(&id) else {
            return false;
        };
        way.number = Some(number).filter(|number| *number != 0);
        way.remote = Some(SocketAddr::new(remote.ip().to_canonical(), remote.port()));
        way.error = None;
        if self.rests(id) {
            return false;
        }
        if let Some(way) = self.ways.get_mut(&id) {
            way.conn = Some(conn);
        }
        true
    }

    /// A way has no connection (any more).
    pub(crate) fn lost(&mut self, id: u64, error: Error) {
        if let Some(way) = self.ways.get_mut(&id) {
            way.conn = None;
            way.error = Some(error);
        }
        if self.ways.values().all(|way| way.conn.is_none()) {
            // Whoever answers next may be of a cluster that was founded anew.
            self.commit = 0;
            self.leader.term = 0;
            self.leader.host = None;
        }
    }

    /// Forgets which host is at a way that rests, so that it is looked at again.
    pub(crate) fn look_again(&mut self, id: u64) {
        if let Some(way) = self.ways.get_mut(&id) {
            way.number = None;
        }
    }

    /// Host `from` says that `host` leads in `term`. Whether that is news.
    pub(crate) fn heard(&mut self, from: u64, host: Option<u64>, term: u64) -> bool {
        let newer = term > self.leader.term;
        // One that knows of no leader may have lost sight of it, unless it led itself.
        let counts = host.is_some() || newer || self.leader.host == Some(from);
        if term < self.leader.term || !counts || (!newer && self.leader.host == host) {
            return false;
        }
        self.leader.term = term;
        self.leader.host = host;
        true
    }

    /// The host that led before the one that leads now, once after every change.
    pub(crate) fn deposed(&mut self) -> Option<C> {
        let now = self.leader.host?;
        let before = self.leader.last.replace(now)?;
        (before != now).then(|| self.conn_to(before)).flatten()
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        self.leader.host
    }

    /// Whether the way `id` leads to the leader.
    pub(crate) fn leads(&self, id: u64) -> bool {
        let way = self.ways.get(&id);
        self.leader.host.is_some_and(|host| {
            way.is_some_and(|way| way.number == Some(host) || way.member == Some(host))
        })
    }

    /// Whether a leader is connected that is not at the way `id`.
    pub(crate) fn leader_is_elsewhere(&self, id: u64) -> bool {
        let leader = self.leader.host.and_then(|host| self.way_to(host));
        leader.is_some_and(|way| way != id)
    }

    /// Whether there is a way to the leader, as far as one is known.
    pub(crate) fn knows_leader(&self) -> bool {
        self.leader.host.is_none_or(|host| {
            let leads_to = |way: &Way<C>| way.number == Some(host) || way.member == Some(host);
            self.ways.values().any(leads_to)
        })
    }

    /// The host at `id` does not lead; the one at the address `leader` may. False when nothing is
    /// known of that address.
    pub(crate) fn refused(&mut self, id: u64, leader: Option<&str>) -> bool {
        let is_named = |way: &Way<C>| {
            let remote = way.remote.map(|at| at.to_string());
            let said = way.number.and_then(|host| self.members.get(&host));
            let known = [Some(&way.endpoint), remote.as_ref(), said];
            leader.is_some_and(|leader| known.into_iter().flatten().any(|at| at == leader))
        };
        let mut ways = self.ways.iter();
        let named = ways.find(|(_, way)| way.conn.is_some() && is_named(way));
        let named = named.map(|(named, _)| *named);
        let target = self.leader.host.and_then(|host| self.way_to(host));
        // Unless another caller has moved on already.
        if target.unwrap_or(self.hint) == id {
            self.leader.host = None;
            self.hint = named.or_else(|| self.after(id)).unwrap_or(id);
        }
        named.is_some() || leader.is_none()
    }

    /// The connected way after `id`, in turn; not `id` itself.
    fn after(&self, id: u64) -> Option<u64> {
        let behind = self.ways.range((Excluded(id), Unbounded));
        let mut all = behind.chain(self.ways.range(..id));
        let next = all.find(|(_, way)| way.conn.is_some());
        next.map(|(id, _)| *id)
    }

    /// Whom to ask; `avoid` only when there is nobody else.
    pub(crate) fn choose(&mut self, route: Route, avoid: Option<u64>) -> Option<(u64, C)> {
        let live = |id: &u64| self.ways.get(id).is_some_and(|way| way.conn.is_some());
        let good = |id: &u64| live(id) && Some(*id) != avoid;
        let chosen = match route {
            Route::Leader => {
                let leader = self.leader.host.and_then(|host| self.way_to(host));
                let known = leader.filter(good);
                known.or_else(|| Some(self.hint).filter(good))
            }
            Route::Any => self.after(self.turn).filter(good),
        };
        let chosen = chosen
            .or_else(|| self.after(avoid.unwrap_or(self.hint)))
            .or_else(|| avoid.filter(live))
            .or_else(|| Some(self.hint).filter(live))?;
        if route == Route::Any {
            self.turn = chosen;
        }
        let conn = self.ways.get(&chosen)?.conn.clone()?;
        Some((chosen, conn))
    }

    /// Takes a view of the members in.
    pub(crate) fn learn(&mut self, view: &Members) -> Changes<C> {
        let mut changes = Changes {
            added: Vec::new(),
            dropped: Vec::new(),
            ended: Vec::new(),
        };
        if view.commit < self.commit || view.items.is_empty() {
            return changes;
        }
        self.commit = view.commit;
        let items = view.items.iter().take(MEMBERS_MAX);
        let address = |member: &MemberRecord| (member.host, member.address.clone());
        self.members = items.clone().map(address).collect();
        let called = |member: &&MemberRecord| member.arrived && !member.address.is_empty();
        let addresses: BTreeMap<u64, &str> = items
            .filter(called)
            .map(|member| (member.host, member.address.as_str()))
            .collect();
        let gone = |way: &Way<C>| {
            let address = way.member.map(|host| addresses.get(&host).copied());
            address.is_some_and(|address| address != Some(way.endpoint.as_str()))
        };
        let ways = self.ways.iter();
        changes.dropped = ways
            .filter(|(_, way)| gone(way))
            .map(|(id, _)| *id)
            .collect();
        for id in &changes.dropped {
            let way = self.ways.remove(id);
            changes.ended.extend(way.and_then(|way| way.conn));
        }
        if self.ways.values().any(|way| self.leads_in(way)) {
            let members = &self.members;
            for way in self.ways.values_mut() {
                let left = way.number.is_some_and(|host| !members.contains_key(&host));
                changes.ended.extend(way.conn.take_if(|_| left));
            }
        }
        for (host, address) in addresses {
            let covers = |way: &Way<C>| way.endpoint == address || way.member == Some(host);
            if self.way_to(host).is_none() && !self.ways.values().any(covers) {
                let id = self.add(address.to_owned(), Some(host));
                changes.added.push((id, address.to_owned()));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests;

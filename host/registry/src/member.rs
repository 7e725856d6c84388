//! The hosts that operators want in the group, and the level of commands that it may use.
//!
//! This is what is wanted; what is, is Raft's configuration, which the leader changes one step at a
//! time until the two agree. Nothing here knows roles, progress or votes.
//!
//! **Invariants.** No two members have the same number; none is given out twice, because a new
//! number is the index of its entry. No two members share a name, except one and the one that it
//! replaces. The last member stays. The level only grows.

use std::collections::BTreeMap;

use maitred_protocol::limits::MEMBERS_MAX;
use maitred_protocol::{HostName, Rejection, Revision};

use crate::Registry;
use crate::limits::LEVEL_LIMIT;
use crate::outcome::{Event, Outcome};

/// A host that is to be part of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: HostName,
    /// Where peers and clients reach it: `HOST:PORT`.
    pub address: String,
    /// What its data directory proves itself with; 0 while only its announcement is there.
    pub instance: u64,
    /// The member that it takes the place of, until that one has gone.
    pub replaces: Option<u64>,
}

fn conflict(text: String) -> Outcome {
    Outcome::rejected(Rejection::Conflict(text))
}

impl Registry {
    /// The wanted members, by number.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<u64, Member> {
        &self.members
    }

    /// The state before the first entry, of a cluster whose first voters are these. Every host that
    /// ever belongs to it begins so; their names and addresses come when they say them.
    ///
    /// # Panics
    /// Never: the names are made of letters and digits.
    #[must_use]
    pub fn founded(voters: &[u64]) -> Self {
        let mut registry = Self::new();
        registry.set_founders(voters);
        registry
    }

    pub(crate) fn set_founders(&mut self, voters: &[u64]) {
        let founder = |host: &u64| {
            let name = HostName::new(format!("host-{host}")).expect("letters and digits");
            let member = Member {
                name,
                address: String::new(),
                instance: 0,
                replaces: None,
            };
            (*host, member)
        };
        self.members = voters.iter().map(founder).collect();
    }

    /// The level of commands that the group may use; at least 1.
    #[must_use]
    pub fn level(&self) -> u16 {
        self.level
    }

    pub(crate) fn put_member(
        &mut self,
        index: u64,
        host: u64,
        member: Member,
        events: &mut Vec<Event>,
    ) -> Outcome {
        if host != 0 {
            // One that was taken out meanwhile does not come back by saying where it is.
            return self.update_member(host, member, events);
        }
        match self.same_member(&member) {
            Ok(Some(host)) => return self.come(host, member, events),
            Ok(None) => {}
            Err(no) => return no,
        }
        if let Err(no) = self.admits_member(&member) {
            return no;
        }
        // Only one of the first voters can have a number that is an index still to come.
        if self.members.contains_key(&index) {
            return conflict(format!("host number {index} is taken; try again"));
        }
        self.members.insert(index, member);
        events.push(Event::Members);
        Outcome::Member(index)
    }

    /// The member that a join or an announcement without a number means, if it is there already.
    fn same_member(&self, new: &Member) -> Result<Option<u64>, Outcome> {
        if new.instance != 0
            && let Some((host, have)) = self
                .members
                .iter()
                .find(|(_, have)| have.instance == new.instance)
        {
            return if have.name == new.name {
                Ok(Some(*host))
            } else {
                Err(conflict(format!(
                    "this data directory joined as {} (host {host}) before; start it under that name, or on an empty directory",
                    have.name
                )))
            };
        }
        // Newest first: one that replaces another of its name is the one that is still to come.
        let mut holders = self
            .members
            .iter()
            .rev()
            .filter(|(host, have)| have.name == new.name && new.replaces != Some(**host));
        let means = |have: &Member| {
            if new.instance == 0 {
                // One that was announced to replace nobody is not made to by asking again.
                have.address == new.address
                    && (new.replaces.is_none() || have.replaces == new.replaces)
            } else {
                // A first voter without an address is not an announcement: it has its number.
                have.instance == 0 && !have.address.is_empty()
            }
        };
        if let Some((host, _)) = holders.clone().find(|(_, have)| means(have)) {
            return Ok(Some(*host));
        }
        holders
            .next()
            .map_or(Ok(None), |(host, have)| Err(name_taken(*host, have)))
    }

    /// The host of a known member asks, or it is announced again.
    fn come(&mut self, host: u64, new: Member, events: &mut Vec<Event>) -> Outcome {
        if new.instance != 0
            && let Some(member) = self.members.get_mut(&host)
            && (member.instance != new.instance || member.address != new.address)
        {
            member.instance = new.instance;
            member.address = new.address;
            events.push(Event::Members);
        }
        Outcome::Member(host)
    }

    /// A member says its address, or its name, anew. What it replaces stays as it was.
    fn update_member(&mut self, host: u64, new: Member, events: &mut Vec<Event>) -> Outcome {
        let Some(own) = self.members.get(&host) else {
            return Outcome::not_found(format!("host {host}"));
        };
        let shares = |other: u64, have: &Member| {
            other == host || own.replaces == Some(other) || have.replaces == Some(host)
        };
        if let Some((other, have)) = self
            .members
            .iter()
            .find(|(other, have)| have.name == new.name && !shares(**other, have))
        {
            return name_taken(*other, have);
        }
        let Some(member) = self.members.get_mut(&host) else {
            return Outcome::not_found(format!("host {host}"));
        };
        if member.instance != 0 && member.instance != new.instance {
            return conflict(format!(
                "host {host} ({}) is another data directory's; if its disk was lost, run `maitred member replace {host}` and start it on an empty directory",
                member.name
            ));
        }
        let updated = Member {
            replaces: member.replaces,
            ..new
        };
        if *member != updated {
            *member = updated;
            events.push(Event::Members);
        }
        Outcome::Member(host)
    }

    /// Whether one more member may be put in.
    fn admits_member(&self, new: &Member) -> Result<(), Outcome> {
        if let Some(old) = new.replaces {
            if !self.members.contains_key(&old) {
                return Err(Outcome::not_found(format!("host {old}")));
            }
            if let Some((host, have)) = self
                .members
                .iter()
                .find(|(_, have)| have.replaces == Some(old))
            {
                return Err(conflict(format!(
                    "host {old} is being replaced by host {host} ({}) already; `maitred member remove {host}` takes that back",
                    have.name
                )));
            }
        }
        let holder = self
            .members
            .iter()
            .find(|(host, have)| have.name == new.name && new.replaces != Some(**host));
        if let Some((host, have)) = holder {
            return Err(name_taken(*host, have));
        }
        let there = self
            .members
            .iter()
            .find(|(host, have)| have.address == new.address && new.replaces != Some(**host));
        if let Some((host, have)) = there {
            return Err(conflict(format!(
                "{} is the address of host {host} ({}); give the new host another one, or `maitred member replace {host}` if that host is lost",
                have.address, have.name
            )));
        }
        if self.members.len() >= MEMBERS_MAX {
            return Err(conflict(format!(
                "there are {MEMBERS_MAX} members already, which is the limit; remove one first"
            )));
        }
        Ok(())
    }

    pub(crate) fn remove_member(
        &mut self,
        index: u64,
        host: u64,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(member) = self.members.get(&host) else {
            return Outcome::not_found(format!("host {host}"));
        };
        if self.members.len() == 1 {
            return conflict(format!(
                "host {host} ({}) is the last member; add another one first",
                member.name
            ));
        }
        self.members.remove(&host);
        for member in self.members.values_mut() {
            member.replaces = member.replaces.filter(|old| *old != host);
        }
        events.push(Event::Members);
        Outcome::Done(Revision(index))
    }

    pub(crate) fn set_level(&mut self, index: u64, level: u16, events: &mut Vec<Event>) -> Outcome {
        if level < self.level || level > LEVEL_LIMIT {
            return conflict(format!(
                "the level is {}; it can only be raised, to {LEVEL_LIMIT} at most",
                self.level
            ));
        }
        if level > self.level {
            self.level = level;
            events.push(Event::Members);
        }
        Outcome::Done(Revision(index))
    }
}

fn name_taken(host: u64, have: &Member) -> Outcome {
    let (name, address) = (&have.name, &have.address);
    conflict(if have.instance == 0 {
        format!(
            "{name} is announced as host {host} at {address}, and has not come yet; choose another name, or run `maitred member remove {host}` first"
        )
    } else {
        format!(
            "{name} is host {host} at {address}; choose another name, or, if that host's disk was lost, run `maitred member replace {host}` first"
        )
    })
}

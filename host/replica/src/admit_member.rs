//! What operators and hosts ask of the group: to join, to replace, to leave, to lead.
//!
//! What only the registry can judge is judged there; what would leave a group that cannot commit is
//! refused here, since only the leader knows who is heard of.

use maitred_protocol::{Join, Rejection, RequestId, Response, Revision, Unavailable};
use maitred_registry::{Command, Member};

use crate::input::Ticket;
use crate::membership::{is_in, put};
use crate::proposals::Waiter;
use crate::replica::Replica;

impl Replica {
    /// A host wants to join, or says where it is now.
    pub(crate) fn admit_join(&mut self, ticket: Ticket, join: Join) {
        if let Some(why) = self.refusal(false) {
            return self.unavailable(ticket, why);
        }
        self.reads.push_join(ticket, join);
    }

    /// The same, when it is certain that this host leads and knows what is committed.
    pub(crate) fn admit_certain_join(&mut self, ticket: Ticket, join: Join) {
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
                // It must not put itself back, nor end before it has gone: its own word may be
                // needed for that.
                None if is_in(self.consensus.conf_state(), join.host) => {
                    let text = format!("host {} is being taken out", join.host);
                    return self.unavailable(ticket, Unavailable::Overloaded(text));
                }
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
        if let Some(outcome) = self.outcome_of(request) {
            return self.answer(ticket, outcome);
        }
        let members = self.registry.members();
        let Some(member) = members.get(&host) else {
            return self.reject(ticket, Rejection::NotFound(format!("host {host}")));
        };
        let address = address.unwrap_or_else(|| member.address.clone());
        let replacement = members.iter().find(|(_, new)| new.replaces == Some(host));
        if let Some((number, new)) = replacement {
            if !self.is_lost(*number, new) {
                return self.replaced_already(ticket, (*number, &new.clone()), &address);
            }
            let number = *number;
            return self.put_in_place(ticket, request, (number, Some(host)), address);
        }
        // One that was to take another's place and is lost itself: the next takes that place.
        if let Some(old) = member.replaces
            && self.is_lost(host, member)
        {
            let old = members.contains_key(&old).then_some(old);
            return self.put_in_place(ticket, request, (host, old), address);
        }
        let command = Command::PutMember {
            host: 0,
            name: member.name.clone(),
            address,
            instance: 0,
            replaces: Some(host),
        };
        self.queue(Some(request), command, Waiter::Client(ticket));
    }

    /// Whether a host that came to take another's place has gone before it could.
    fn is_lost(&self, host: u64, member: &Member) -> bool {
        let voters = &self.consensus.conf_state().voters;
        member.instance != 0 && !self.is_heard(host) && !voters.contains(&host)
    }

    fn replaced_already(&mut self, ticket: Ticket, (host, member): (u64, &Member), address: &str) {
        if member.address != address {
            let text = format!(
                "host {host} at {} takes that place already; `maitred member remove {host}` takes that back",
                member.address
            );
            return self.reject(ticket, Rejection::Conflict(text));
        }
        let record = self.member_record(host, member);
        self.reply(ticket, Response::Member(Box::new(record)));
    }

    /// A replacement that was lost before it voted goes, and another one is announced for its place.
    fn put_in_place(
        &mut self,
        ticket: Ticket,
        request: RequestId,
        (lost, place): (u64, Option<u64>),
        address: String,
    ) {
        let Some(member) = self.registry.members().get(&lost) else {
            return;
        };
        let command = Command::PutMember {
            host: 0,
            name: member.name.clone(),
            address,
            instance: 0,
            replaces: place,
        };
        self.queue(None, Command::RemoveMember(lost), Waiter::Nobody);
        self.queue(Some(request), command, Waiter::Client(ticket));
    }

    pub(crate) fn admit_remove(&mut self, ticket: Ticket, request: RequestId, host: u64) {
        if let Some(outcome) = self.outcome_of(request) {
            return self.answer(ticket, outcome);
        }
        let (conf, members) = (self.consensus.conf_state(), self.registry.members());
        // Whoever is to go already is not one that stays.
        let left: Vec<u64> = (conf.voters.iter().copied())
            .filter(|voter| *voter != host && members.contains_key(voter))
            .collect();
        if conf.voters.contains(&host) {
            if left.is_empty() {
                let text = format!("host {host} is the only voter; add another one first");
                return self.reject(ticket, Rejection::Conflict(text));
            }
            if !self.can_commit(&left) {
                let silent: Vec<String> = (left.iter())
                    .filter(|voter| !self.is_heard(**voter))
                    .map(|host| self.called(*host))
                    .collect();
                let text = format!(
                    "without {}, {} of {} voters would be needed, and these are not heard of: {}",
                    self.called(host),
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
                let now = Revision(self.registry.applied());
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
}

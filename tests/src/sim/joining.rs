//! A machine finds its group: it asks for a number, then says where it is, and keeps calling those it
//! knows of, as `server/join.rs` and `server/peers.rs` do.

use std::collections::BTreeSet;

use maitred_protocol::{Rejection, Response, Unavailable};
use maitred_replica::Input;

use super::host::{Asker, HostEvent, State, machine_of};
use super::queue::What;
use super::world::{World, say};

/// How often a machine without a number asks for one.
const JOIN_EVERY_US: u64 = 300_000;
/// How often connections that are gone are made anew.
const DIAL_EVERY_US: u64 = 2_000_000;

impl World {
    /// A machine asks the next one for a number, or says where it is; later it calls its peers.
    pub(super) fn ask_to_join(&mut self, machine: usize) {
        let host = &self.hosts[machine];
        if matches!(host.state, State::Down | State::Removed) {
            return;
        }
        let announced = host.announced;
        let (life, machines) = (self.hosts[machine].life, self.hosts.len());
        let again = self.now
            + if announced {
                DIAL_EVERY_US
            } else {
                JOIN_EVERY_US
            };
        self.queue
            .push(again, What::Host(machine, life, HostEvent::AskToJoin));
        if announced {
            return self.dial_peers(machine);
        }
        let seed = self.hosts[machine].asked % machines;
        self.hosts[machine].asked += 1;
        if !self.hosts[seed].is_up() || !self.is_open(machine, seed) {
            return;
        }
        let join = self.hosts[machine].join();
        let ticket = self.ticket(seed, Asker::Join(machine, life));
        self.give(seed, Input::Join { ticket, join });
    }

    /// A host keeps connections with all it knows of; whoever sees that it is no member says so.
    fn dial_peers(&mut self, machine: usize) {
        let host = &self.hosts[machine];
        let id = host.id;
        let known = host.seeds.keys().copied();
        let known = known.chain(host.peers.iter().map(|peer| peer.host));
        let called: BTreeSet<usize> = known.filter_map(|one| host.peer_machine(one)).collect();
        for other in called {
            let up = other != machine && self.hosts[other].state == State::Up;
            if up && self.is_open(machine, other) && self.refuses(other, id) {
                return self.refused(machine, id);
            }
        }
    }

    /// The answer to that.
    pub(super) fn joined(&mut self, machine: usize, response: Response) {
        let host = &mut self.hosts[machine];
        match response {
            Response::Member(member) if host.state == State::Joining => {
                host.id = member.host;
                host.state = State::Down;
                say!(self, "h{machine} has joined as host {}", member.host);
                self.cover.count("host joined");
                self.start_host(machine);
            }
            Response::Member(_) => host.announced = true,
            Response::Unavailable(Unavailable::NotLeader {
                leader: Some(leader),
            }) => host.asked = machine_of(&leader).unwrap_or(host.asked),
            Response::Rejected(Rejection::NotFound(_)) => self.removed(machine),
            other => say!(self, "h{machine} is not taken in: {other:?}"),
        }
    }
}

//! What a replica asks for is carried out: answers, writes, messages, guests, and whom to connect with.

use maitred_protocol::{NodeCommand, Notice, Response};
use maitred_registry::Event;
use maitred_replica::{Answer, Effect, Ticket};

use super::check::leaders::Leaders;
use super::disk::Job;
use super::host::{Asker, HostEvent, State};
use super::network::delay_us;
use super::queue::What;
use super::wire::{ConnId, Down};
use super::world::{World, say};

impl World {
    /// Carries out one effect.
    pub(super) fn carry_out(&mut self, machine: usize, effect: Effect) {
        match effect {
            Effect::Persist(persist) => self.log(machine, Job::Persist(persist)),
            Effect::Compact(through) => {
                self.cover.count("log cut");
                self.log(machine, Job::Compact(through));
            }
            Effect::Reply(ticket, answer) => self.reply(machine, ticket, answer),
            Effect::Explain(ticket, record, _) => {
                let explanation = maitred_protocol::Explanation {
                    record: *record,
                    evidence: None,
                    why_not: None,
                    fuel: None,
                };
                let response = Response::Explained(Box::new(explanation));
                self.reply(machine, ticket, Answer::Other(Box::new(response)));
            }
            Effect::Select { lane, batch } => self.select(machine, lane, batch),
            Effect::Spawn(job) => self.spawn(machine, *job),
            Effect::Stop {
                node,
                epoch,
                term,
                key,
                incarnation,
            } => {
                say!(self, "h{machine}: stop {key}@{incarnation} on {node}");
                self.hosts[machine]
                    .runner
                    .forget(&(key.clone(), incarnation));
                let stop = NodeCommand::Stop {
                    term,
                    key,
                    incarnation,
                };
                self.cover.count("tombstone");
                self.command(machine, epoch, stop, None);
            }
            Effect::KeepAliveAck { link, ack } => {
                let epoch = ack.epoch;
                let found = self.checks.leases.acknowledged(machine, &ack);
                self.verify("leases", found);
                say!(self, "h{machine}: keep-alive of {epoch} acknowledged");
                let by_stream = link & 1 == 1;
                self.send_down((link >> 1) as ConnId, Down::Ack(ack, by_stream));
            }
            Effect::Examine(examination) => self.examine(machine, &examination),
            Effect::Advise(question) => self.advise(machine, *question),
            Effect::Unasked { callback, .. } => say!(self, "h{machine}: {callback} is not asked"),
            Effect::Compensate(compensation) => self.compensate(machine, &compensation),
            Effect::Snapshot(take) => self.snapshot(machine, take),
            Effect::Send(messages) => self.post(machine, messages),
            Effect::Peers(peers) => {
                say!(self, "h{machine}: peers {peers:?}");
                self.hosts[machine].follow_peers(peers);
            }
            Effect::Leader {
                host,
                address,
                term,
                serving,
            } => self.leader(machine, (host, address, term), serving),
            Effect::Removed => self.removed(machine),
            Effect::Restored(revision) => {
                say!(self, "h{machine}: restored at {revision}");
                self.cover.count("snapshot installed");
                self.checks.restored(machine);
            }
            Effect::Lost { last, commit } => {
                let text = format!("machine {machine} has lost entries after {last}, of {commit}");
                self.fail("start", text);
            }
            Effect::TooOld { index, why } => {
                let text = format!("machine {machine} is too old for entry {index}: {why}");
                self.fail("start", text);
            }
            Effect::Events(revision, events) => {
                let registry = self.hosts[machine].replica.as_ref();
                let found = registry.map_or(Ok(()), |replica| {
                    let registry = replica.registry();
                    self.checks
                        .events(self.now, (machine, revision.0), registry, &events)
                });
                say!(
                    self,
                    "h{machine}: events up to {revision}: {}",
                    events.len()
                );
                if let Err(violation) = found {
                    self.fail(violation.checker, violation.text);
                }
                self.follow(machine, &events);
            }
            Effect::Modules(_) | Effect::Record(..) => {}
        }
    }

    fn reply(&mut self, machine: usize, ticket: Ticket, answer: Answer) {
        let response = answer.into_response();
        let Some(asker) = self.hosts[machine].tickets.remove(&ticket.0) else {
            let text = format!(
                "machine {machine} answers ticket {} again: {response:?}",
                ticket.0
            );
            return self.fail("tickets", text);
        };
        say!(self, "h{machine} answers {asker:?}");
        match asker {
            Asker::Conn(conn, request, node) => {
                let id = request.sequence;
                // An answer that cannot reach its client any more misleads nobody.
                if self.conns[conn].open {
                    let found = self.checks.once.replied(request, &response);
                    self.verify("once", found);
                }
                if let (Response::Registered { epoch, .. }, Some(_)) = (&response, node) {
                    self.hosts[machine].answers += 1;
                    let (epoch, order) = (*epoch, self.hosts[machine].answers);
                    self.send_down(conn, Down::Response(id, Box::new(response)));
                    return self.bind(machine, epoch, order, conn);
                }
                self.send_down(conn, Down::Response(id, Box::new(response)));
            }
            Asker::Join(joiner, life) => {
                if self.is_open(machine, joiner) {
                    let at = self.now + delay_us(&mut self.network);
                    let event = HostEvent::Joined(Box::new(response), self.known_members(machine));
                    self.queue.push(at, What::Host(joiner, life, event));
                }
            }
            Asker::Nobody => {}
        }
    }

    fn leader(
        &mut self,
        machine: usize,
        leader: (Option<u64>, Option<String>, u64),
        serving: bool,
    ) {
        say!(self, "h{machine}: leader {leader:?}, serving {serving}");
        let host = &mut self.hosts[machine];
        if host.serving && !serving {
            host.runner.clear();
            host.sessions.give_up_starts();
        }
        let began = serving && (!host.serving || host.leader.2 != leader.2);
        host.serving = serving;
        host.leader = leader.clone();
        let id = host.id;
        let found = self
            .checks
            .leaders
            .claims(leader.2, leader.0, (id, serving));
        self.verify("leaders", found);
        if began {
            self.cover.count("leader serves");
            let replica = self.hosts[machine].replica.as_ref();
            let applied = replica.map_or(0, |replica| replica.registry().applied());
            let applied = self.checks.agreement.term_at(machine, applied);
            self.verify("leaders", Leaders::serves(leader.2, applied));
            let mono_us = self.hosts[machine].clock.mono_us(self.now);
            self.checks.leases.serving(machine, mono_us);
        }
        let conns: Vec<ConnId> = self.hosts[machine].conns.iter().copied().collect();
        for conn in conns {
            self.welcome(machine, conn);
        }
    }

    /// A client is told who leads.
    pub fn welcome(&mut self, machine: usize, conn: ConnId) {
        let host = &self.hosts[machine];
        let (leader, address, term) = host.leader.clone();
        let notice = Notice::Leader {
            host: leader,
            address,
            term,
        };
        let from = host.id;
        self.send_down(conn, Down::Notice(from, notice));
    }

    pub(super) fn removed(&mut self, machine: usize) {
        say!(self, "h{machine}: is no longer a member");
        self.cover.count("host removed");
        self.end_process(machine);
        self.hosts[machine].state = State::Removed;
    }

    /// Sessions of nodes end with their events.
    fn follow(&mut self, machine: usize, events: &[Event]) {
        for event in events {
            if let Event::NodeDown(_, epoch) = event {
                let found = self.checks.leases.is_over(*epoch);
                self.verify("leases", found);
            }
            match event {
                Event::NodeDown(_, epoch)
                | Event::NodeUp {
                    superseded: Some(epoch),
                    ..
                } => self.end_session(machine, *epoch),
                _ => {}
            }
        }
    }
}

//! The sessions of nodes as one host knows them, and its commands that no node has answered: what
//! `server/nodes.rs` does.
//!
//! A command outlives its connection: it is sent again when the session is bound to another one. Only
//! the connection that a session was last bound to renews its lease and answers its commands.

use std::collections::{BTreeMap, BTreeSet};

use maitred_protocol::{NodeAnswer, NodeCommand, NodeEpoch, Request, RequestId};
use maitred_replica::Input;

use super::game::Life;
use super::host::{Asker, HostEvent};
use super::queue::What;
use super::wire::{ConnId, Down, Up};
use super::world::{World, say};

#[derive(Debug, Default)]
struct Session {
    conn: Option<ConnId>,
    order: u64,
    commands: BTreeSet<u64>,
}

#[derive(Debug)]
struct Pending {
    epoch: NodeEpoch,
    command: NodeCommand,
    /// Whose spawn waits for the answer.
    spawn: Option<Life>,
    /// How long a start may take; a stop is kept for as long as the session.
    until_us: u64,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Sessions {
    all: BTreeMap<NodeEpoch, Session>,
    pending: BTreeMap<u64, Pending>,
    last_number: u64,
}

impl Sessions {
    /// Numbers of an earlier process must not come again.
    pub fn begin(&mut self, life: u32) {
        self.last_number = u64::from(life) << 32;
    }

    /// Whether a keep-alive over this connection counts.
    fn may_renew(&self, conn: ConnId, epoch: NodeEpoch) -> bool {
        let session = self.all.get(&epoch);
        session.is_some_and(|session| session.conn == Some(conn))
    }

    fn forget(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number)?;
        if let Some(session) = self.all.get_mut(&pending.epoch) {
            session.commands.remove(&number);
        }
        Some(pending)
    }

    /// What is to be stopped is asked for once at a time, and with the newest term.
    fn forget_stop(&mut self, epoch: NodeEpoch, stop: &NodeCommand) {
        let NodeCommand::Stop {
            key, incarnation, ..
        } = stop
        else {
            return;
        };
        let session = self.all.get(&epoch);
        let numbers = session.into_iter().flat_map(|session| &session.commands);
        let same = |number: &&u64| match self.pending.get(number).map(|one| &one.command) {
            Some(NodeCommand::Stop {
                key: old,
                incarnation: life,
                ..
            }) => old == key && life == incarnation,
            _ => false,
        };
        let found: Vec<u64> = numbers.filter(same).copied().collect();
        for number in found {
            self.forget(number);
        }
    }

    /// The spawn's command is no longer waited for.
    pub fn forget_spawn(&mut self, life: &Life) {
        let found = self.pending.iter();
        let found = found.filter(|(_, pending)| pending.spawn.as_ref() == Some(life));
        let numbers: Vec<u64> = found.map(|(number, _)| *number).collect();
        for number in numbers {
            self.forget(number);
        }
    }

    /// All starts are given up.
    pub fn give_up_starts(&mut self) {
        let found = self.pending.iter().filter(|(_, one)| one.spawn.is_some());
        let numbers: Vec<u64> = found.map(|(number, _)| *number).collect();
        for number in numbers {
            self.forget(number);
        }
    }
}

impl World {
    /// A client or node asks, answers or renews.
    pub fn asked(&mut self, machine: usize, conn: ConnId, up: Up) {
        match up {
            Up::Request(id, request) => {
                let node = match &*request {
                    Request::RegisterNode(_, register) => Some(register.name.clone()),
                    Request::AttachNode { name, .. } => Some(name.clone()),
                    _ => None,
                };
                say!(
                    self,
                    "h{machine} is asked {id} by a{}",
                    self.conns[conn].actor
                );
                let client = request.client().unwrap_or_default();
                let sequence = id;
                let asked = RequestId { client, sequence };
                let ticket = self.ticket(machine, Asker::Conn(conn, asked, node));
                let input = Input::Request {
                    ticket,
                    sequence: id,
                    request: *request,
                };
                self.give(machine, input);
            }
            Up::Answer(number, answer) => self.command_answered(machine, conn, number, answer),
            Up::KeepAlive(keep_alive, by_stream) => {
                if !self.hosts[machine]
                    .sessions
                    .may_renew(conn, keep_alive.epoch)
                {
                    return self.cover.count("keep-alive over the wrong connection");
                }
                let link = (conn as u64) << 1 | u64::from(by_stream);
                let at_us = self.hosts[machine].clock.mono_us(self.now);
                self.checks.leases.received(machine, &keep_alive, at_us);
                let input = Input::KeepAlive {
                    link,
                    keep_alive,
                    at_us,
                };
                self.give_first(machine, input);
            }
        }
    }

    /// From now on the session is commanded through this connection.
    pub fn bind(&mut self, machine: usize, epoch: NodeEpoch, order: u64, conn: ConnId) {
        if !self.conns[conn].open {
            return;
        }
        let sessions = &mut self.hosts[machine].sessions;
        let session = sessions.all.entry(epoch).or_default();
        if session.order > order {
            return;
        }
        session.order = order;
        session.conn = Some(conn);
        let numbers: Vec<u64> = session.commands.iter().copied().collect();
        for number in numbers {
            let pending = &self.hosts[machine].sessions.pending[&number];
            let command = pending.command.clone();
            if pending.until_us > self.now {
                self.cover.count("command sent again");
                self.send_down(conn, Down::Command(number, command));
            }
        }
    }

    /// The session has ended: nobody answers its commands any more.
    pub fn end_session(&mut self, machine: usize, epoch: NodeEpoch) {
        let Some(session) = self.hosts[machine].sessions.all.remove(&epoch) else {
            return;
        };
        for number in session.commands {
            let pending = self.hosts[machine].sessions.pending.remove(&number);
            if let Some(life) = pending.and_then(|pending| pending.spawn) {
                self.spawn_unanswered(machine, life, "the node's session has ended");
            }
        }
    }

    /// Commands a node; `within_us` says how long a start may take.
    pub fn command(
        &mut self,
        machine: usize,
        epoch: NodeEpoch,
        command: NodeCommand,
        spawn: Option<(Life, u64)>,
    ) {
        let is_start = spawn.is_some();
        let until_us = spawn
            .as_ref()
            .map_or(u64::MAX, |(_, within_us)| self.now + within_us);
        let host = &mut self.hosts[machine];
        host.sessions.forget_stop(epoch, &command);
        host.sessions.last_number += 1;
        let number = host.sessions.last_number;
        let session = host.sessions.all.entry(epoch).or_default();
        session.commands.insert(number);
        let conn = session.conn;
        let pending = Pending {
            epoch,
            command: command.clone(),
            spawn: spawn.map(|(life, _)| life),
            until_us,
        };
        host.sessions.pending.insert(number, pending);
        let late = What::Host(machine, host.life, HostEvent::Late(number));
        if is_start {
            self.queue.push(until_us, late);
        }
        if let Some(conn) = conn {
            self.send_down(conn, Down::Command(number, command));
        }
    }

    /// Nobody has answered in time.
    pub fn command_late(&mut self, machine: usize, number: u64) {
        let pending = self.hosts[machine].sessions.forget(number);
        if let Some(life) = pending.and_then(|pending| pending.spawn) {
            self.cover.count("spawn timed out");
            self.spawn_unanswered(machine, life, "the node did not answer in time");
        }
    }

    fn command_answered(&mut self, machine: usize, conn: ConnId, number: u64, answer: NodeAnswer) {
        let sessions = &mut self.hosts[machine].sessions;
        let epoch = sessions.pending.get(&number).map(|pending| pending.epoch);
        if !epoch.is_some_and(|epoch| sessions.may_renew(conn, epoch)) {
            return self.cover.count("answer that nobody waits for");
        }
        say!(self, "h{machine}: command {number} answered: {answer:?}");
        let sessions = &mut self.hosts[machine].sessions;
        let Some(pending) = sessions.forget(number) else {
            return;
        };
        match (pending.command, pending.spawn) {
            (_, Some(life)) => self.spawn_answered(machine, life, answer),
            (
                NodeCommand::Stop {
                    key, incarnation, ..
                },
                None,
            ) if answer == NodeAnswer::Stopped => {
                self.cover.count("node said that it has stopped");
                self.give(machine, Input::Stopped { key, incarnation });
            }
            _ => self.cover.count("stop not carried out"),
        }
    }
}

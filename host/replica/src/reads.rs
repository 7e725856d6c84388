//! Linearizable reads: one read index for all that wait (Ongaro's thesis, section 6.4).
//!
//! Reads of a turn share a round. A round is granted when Raft has confirmed, after the round was
//! asked for, that this host still leads; it is served once everything up to its index is applied.

use std::collections::VecDeque;

use maitred_protocol::{Request, Response, Revision};
use maitred_registry::Record;

use crate::effect::{Answer, Effect};
use crate::input::Ticket;
use crate::replica::Replica;

/// A round of reads.
#[derive(Debug)]
struct Round {
    context: u64,
    asked_us: u64,
    index: Option<u64>,
    reads: Vec<(Ticket, Request)>,
}

/// Reads that wait.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    next: Vec<(Ticket, Request)>,
    rounds: VecDeque<Round>,
    context: u64,
}

/// Microseconds after which a round is asked for again: Raft drops requests without a word when
/// leadership is unsettled.
const ROUND_US: u64 = 500_000;

impl Reads {
    pub(crate) fn push(&mut self, ticket: Ticket, request: Request) {
        self.next.push((ticket, request));
    }

    pub(crate) fn granted(&mut self, granted: Vec<(u64, u64)>) {
        for (context, index) in granted {
            // A round that is granted grants those before it: they were asked for earlier.
            for round in self
                .rounds
                .iter_mut()
                .take_while(|round| round.context <= context)
            {
                round.index.get_or_insert(index);
            }
        }
    }

    pub(crate) fn clear(&mut self) -> Vec<Ticket> {
        let waiting = self.rounds.drain(..).flat_map(|round| round.reads);
        waiting
            .chain(self.next.drain(..))
            .map(|(ticket, _)| ticket)
            .collect()
    }
}

impl Replica {
    /// Asks for a round for the reads of this turn, and again for one that got no answer.
    pub(crate) fn request_reads(&mut self) {
        let reads = std::mem::take(&mut self.reads.next);
        if !reads.is_empty() {
            self.reads.context += 1;
            let (context, asked_us) = (self.reads.context, self.now.mono_us);
            self.reads.rounds.push_back(Round {
                context,
                asked_us,
                index: None,
                reads,
            });
            self.consensus.read_index(context);
        }
        if let Some(oldest) = self.reads.rounds.front_mut()
            && oldest.index.is_none()
            && oldest.asked_us + ROUND_US <= self.now.mono_us
        {
            oldest.asked_us = self.now.mono_us;
            self.consensus.read_index(oldest.context);
        }
    }

    /// Answers the rounds whose index is applied.
    pub(crate) fn answer_reads(&mut self) {
        while let Some(round) = self.reads.rounds.front()
            && round
                .index
                .is_some_and(|index| index <= self.registry.applied())
        {
            let Some(round) = self.reads.rounds.pop_front() else {
                return;
            };
            for (ticket, request) in round.reads {
                self.answer_read(ticket, request);
            }
        }
    }

    pub(crate) fn node_of(
        &self,
        record: &Record,
    ) -> Option<std::sync::Arc<maitred_registry::candidates::NodeFacts>> {
        let node = self.registry.node(&record.node)?;
        (node.epoch() == record.epoch).then(|| std::sync::Arc::clone(&node.facts))
    }

    /// Answers from the state as it is.
    pub(crate) fn answer_read(&mut self, ticket: Ticket, request: Request) {
        let revision = Revision(self.registry.applied());
        let not_found =
            |what: String| Response::Rejected(maitred_protocol::Rejection::NotFound(what));
        let response = match request {
            Request::GetProcess { key, .. } => match self.registry.process(&key) {
                Some(record) => {
                    let (record, node) = (std::sync::Arc::clone(record), self.node_of(record));
                    let answer = Answer::Process {
                        record,
                        node,
                        revision,
                    };
                    return self.effects.push(Effect::Reply(ticket, answer));
                }
                None => not_found(format!("process {key}")),
            },
            Request::ListProcesses(list) => {
                let page = self.registry.list(&list);
                let items = page.items.into_iter().map(|record| {
                    let node = self.node_of(&record);
                    (record, node)
                });
                let answer = Answer::Page {
                    items: items.collect(),
                    next: page.next,
                    revision,
                };
                return self.effects.push(Effect::Reply(ticket, answer));
            }
            Request::GetNode(name) => match self.registry.node(&name) {
                Some(node) => Response::Node(Box::new(self.node_record(node))),
                None => not_found(format!("node {name}")),
            },
            Request::ListNodes => {
                let nodes = self.registry.nodes().map(|node| self.node_record(node));
                Response::Nodes(nodes.collect())
            }
            Request::GetModule(name) => match self.registry.module(&name) {
                Some(module) => Response::Module(Box::new(module.to_wire(&name))),
                None => not_found(format!("module {name}")),
            },
            Request::ListModules => {
                let modules = self
                    .registry
                    .modules()
                    .map(|(name, module)| module.to_wire(name));
                Response::Modules(modules.collect())
            }
            Request::GetType(name) => match self.registry.described_type(&name) {
                Some(spec) => Response::Type(Box::new((**spec).clone())),
                None => not_found(format!("type {name}")),
            },
            Request::ListTypes => {
                Response::Types(self.registry.types().map(|spec| (**spec).clone()).collect())
            }
            Request::Explain(key) => match self.registry.process(&key) {
                Some(record) => {
                    let record = Box::new(self.registry.to_wire(record));
                    return self.effects.push(Effect::Explain(ticket, record));
                }
                None => not_found(format!("process {key}")),
            },
            Request::AttachNode {
                name,
                epoch,
                inventory,
            } => {
                return self.attach_node(ticket, &name, epoch, &inventory);
            }
            // Everything else changes something, or is answered before it gets here.
            other => {
                debug_assert!(false, "{other:?} is not a read");
                Response::Rejected(maitred_protocol::Rejection::Invalid(
                    "not a read".to_owned(),
                ))
            }
        };
        self.reply(ticket, response);
    }
}

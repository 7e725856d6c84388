//! Changes on their way: queued, proposed, and whoever waits for what becomes of them.
//!
//! **Invariants.** A waiter belongs to an index and a term. Whoever waits for an entry that another
//! leader replaced is told that nothing is known, and never that nothing was done.

use std::sync::Arc;

use bytes::Bytes;
use maitred_protocol::{RequestId, Response, Revision, Unavailable};
use maitred_registry::Command;
use maitred_registry::decide::Trace;

use crate::consensus::{Proposal, Refused};
use crate::input::Ticket;
use crate::mutants;
use crate::replica::Replica;
use crate::saga::{Life, Placed};

/// Who hears of an entry's outcome.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A client.
    Client(Ticket),
    /// A create that gets its node.
    Reserve(Life, Placed),
    /// A party that gets its nodes, and what they were chosen from.
    Party(u64, Vec<Placed>, Vec<Arc<Trace>>),
    /// A saga's next step.
    Saga(Life),
    /// Nobody: it is told by its events.
    Nobody,
}

/// A proposal that is in the log.
#[derive(Debug)]
pub(crate) struct Proposed {
    index: u64,
    term: u64,
    proposal: Proposal<Waiter>,
}

impl Replica {
    /// Queues a proposal; it goes to Raft at the end of the turn.
    pub(crate) fn queue(&mut self, request: Option<RequestId>, command: Command, waiter: Waiter) {
        let request = request.filter(|_| !mutants::on("dedup-forgets"));
        let time_ms = self.now.wall_ms;
        self.proposals
            .push(Proposal::new(time_ms, request, command, waiter));
    }

    pub(crate) fn propose(&mut self) {
        if self.proposals.is_empty() {
            return;
        }
        let mut proposals = std::mem::take(&mut self.proposals);
        let data = proposals
            .iter()
            .map(|proposal| Bytes::from(proposal.entry.encode()))
            .collect();
        match self.consensus.propose(data) {
            Ok(first) => {
                self.disown_from(first);
                let term = self.consensus.standing().term;
                if mutants::on("ack-before-commit") {
                    self.acknowledge_too_soon(first, &mut proposals);
                }
                let proposed = (first..).zip(proposals).map(|(index, proposal)| Proposed {
                    index,
                    term,
                    proposal,
                });
                self.waiters.extend(proposed);
            }
            Err(refused) => {
                for proposal in proposals {
                    self.refused(proposal, refused);
                }
            }
        }
    }

    /// A mutant's.
    fn acknowledge_too_soon(&mut self, first: u64, proposals: &mut [Proposal<Waiter>]) {
        for (index, proposal) in (first..).zip(proposals) {
            let deletes = matches!(proposal.entry.command, Command::DelProcess { .. });
            if let (&Waiter::Client(ticket), true) = (&proposal.waiter, deletes) {
                proposal.waiter = Waiter::Nobody;
                self.reply(ticket, Response::Done(Revision(index)));
            }
        }
    }

    /// What was proposed in an earlier term at these indices has been overwritten.
    pub(crate) fn disown_from(&mut self, first: u64) {
        while let Some(last) = self.waiters.back()
            && last.index >= first
            && let Some(last) = self.waiters.pop_back()
        {
            self.disown(last.proposal.waiter);
        }
    }

    /// Whoever waits for an entry that another leader replaced is told that nothing is known.
    fn disown(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Client(_) if mutants::on("disown-forgotten") => {}
            Waiter::Client(ticket) => {
                let text = "another host took over before the change was committed; ask again with the same request id";
                self.reply(ticket, Response::Unknown(text.to_owned()));
            }
            Waiter::Reserve(_, placed) => self.leases.unplace(placed),
            Waiter::Party(_, placed, _) => {
                for placed in placed {
                    self.leases.unplace(placed);
                }
            }
            Waiter::Saga(_) | Waiter::Nobody => {}
        }
    }

    /// What this host proposed at this index and term, and who waits for it. Those before it have
    /// missed theirs.
    pub(crate) fn proposed(&mut self, index: u64, term: u64) -> Option<Proposal<Waiter>> {
        while let Some(front) = self.waiters.front()
            && front.index <= index
            && let Some(front) = self.waiters.pop_front()
        {
            let same_term = front.term == term || mutants::on("waiter-by-index-only");
            if front.index == index && same_term {
                return Some(front.proposal);
            }
            self.disown(front.proposal.waiter);
        }
        None
    }

    /// A proposal did not reach the log: nothing was done.
    pub(crate) fn refused(&mut self, proposal: Proposal<Waiter>, refused: Refused) {
        let why = match refused {
            Refused::NotLeader => self.not_leader(),
            Refused::TooMuch => {
                Unavailable::Overloaded("too many changes wait for the disk".to_owned())
            }
        };
        match proposal.waiter {
            Waiter::Client(ticket) => self.unavailable(ticket, why),
            Waiter::Reserve(life, placed) => {
                self.leases.unplace(placed);
                self.placement_void(placed);
                self.saga_refused(&life, &why);
            }
            Waiter::Party(number, placed, _) => {
                for placed in placed {
                    self.leases.unplace(placed);
                    self.placement_void(placed);
                }
                self.party_refused(number, &why);
            }
            // The host's own changes (an expiry, a confirmation, an abort) end something: they are
            // few, nobody would ask for them again, and so they wait for room, or for the end of a
            // hand-over that may fail.
            Waiter::Saga(_) | Waiter::Nobody => {
                if refused == Refused::TooMuch || self.consensus.is_leader() {
                    self.proposals.push(proposal);
                }
            }
        }
    }
}

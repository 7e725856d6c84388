//! Verbs about nodes that are lost, drained or too full, and about processes that wait for one.

use maitred_protocol::{
    Drain, Incarnation, LostNode, Move, NodeEpoch, NodeName, PendingProcess, ProcessKey,
    ProcessState, RebalanceAsk, RebalancePlan, Rejection, Request, Response, Revision, Switch,
};

use crate::call::wrong_answer;
use crate::error::Error;
use crate::verbs::{Client, NO_SESSION, answer};

/// A page of pending processes.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingPage {
    /// In the order of type and id.
    pub items: Vec<PendingProcess>,
    /// The `after` of the next page, when there is one.
    pub next: Option<ProcessKey>,
}

impl Client {
    /// Empties a node by its types' [`maitred_protocol::OnDrain`], and cordons it. Asked again it sets
    /// deadline and rate anew. How far it is, its record says.
    pub async fn drain_node(&self, name: &NodeName, drain: Drain) -> Result<Revision, Error> {
        self.set_drain(name, Some(drain)).await
    }

    /// Ends a drain, and leaves the node cordoned.
    pub async fn cancel_drain(&self, name: &NodeName) -> Result<Revision, Error> {
        self.set_drain(name, None).await
    }

    async fn set_drain(&self, name: &NodeName, drain: Option<Drain>) -> Result<Revision, Error> {
        self.done(Request::DrainNode {
            client: NO_SESSION,
            name: name.clone(),
            drain,
        })
        .await
    }

    /// Gives one's word that a node is dead and nothing goes on that it ran: of one session, or of all
    /// until now. A live session of it ends. When it is not so, a key may have two lives.
    pub async fn confirm_dead(
        &self,
        name: &NodeName,
        epoch: Option<NodeEpoch>,
    ) -> Result<Revision, Error> {
        self.done(Request::ConfirmDead {
            client: NO_SESSION,
            name: name.clone(),
            epoch,
        })
        .await
    }

    /// One page of the processes that have no node, and what each waits for: `limit` of them, 1 to
    /// 1,000, or 0 for 1,000. The leader answers.
    pub async fn list_pending(
        &self,
        after: Option<ProcessKey>,
        limit: u32,
    ) -> Result<PendingPage, Error> {
        answer!(self.call(Request::ListPending { after, limit }), "pending processes",
            Response::Pending { items, next } => PendingPage { items, next })
    }

    /// Sessions that were lost and of which something may still go on. The leader answers.
    pub async fn lost_nodes(&self) -> Result<Vec<LostNode>, Error> {
        answer!(self.call(Request::ListLost), "lost sessions", Response::Lost(lost) => lost)
    }

    /// Which moves would make the nodes more even; nothing is changed. The leader answers.
    pub async fn plan_rebalance(&self, ask: RebalanceAsk) -> Result<RebalancePlan, Error> {
        answer!(self.call(Request::PlanRebalance(ask)), "a plan of moves",
            Response::Rebalance(plan) => *plan)
    }

    /// Has moves of a plan made, 1 to 2,000 of them, `per_second` (1 to 10,000) in a second. Ok when
    /// they are taken up; those that are void by their turn are left out.
    pub async fn rebalance(&self, moves: Vec<Move>, per_second: u32) -> Result<Revision, Error> {
        self.done(Request::Rebalance { moves, per_second }).await
    }

    /// Holds something up (true), or lets it go on.
    pub async fn suspend(&self, what: Switch, suspended: bool) -> Result<Revision, Error> {
        self.done(Request::Suspend {
            client: NO_SESSION,
            what,
            suspended,
        })
        .await
    }

    /// Whether this life of a process is the current one, as of a moment between the call and its
    /// answer. It may end right after; a storage that is to be safe from old lives keeps the highest
    /// incarnation it has seen, and refuses lower ones.
    ///
    /// # Errors
    /// [`Rejection::Fenced`] with the current incarnation, 0 when there is none or it has no node.
    pub async fn check(&self, key: &ProcessKey, incarnation: Incarnation) -> Result<(), Error> {
        let current = match self.get(key).await {
            Ok(found) if found.record.state == ProcessState::Pending => 0,
            Ok(found) => found.record.incarnation.0,
            Err(Error::Rejected(Rejection::NotFound(_))) => 0,
            Err(error) => return Err(error),
        };
        if current == incarnation.0 && current != 0 {
            return Ok(());
        }
        Err(Error::Rejected(Rejection::Fenced {
            what: "incarnation".to_owned(),
            current,
        }))
    }
}

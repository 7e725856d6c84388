//! The sessions of nodes: which connection each is commanded through, and commands that no node has
//! answered yet.
//!
//! Holds: only the connection that a session was last bound to may renew its lease or answer its
//! commands, and the last one is the one that the replica answered last. A command outlives its
//! connection: it is sent again when the session is bound to another one. A start is kept until its time
//! is over, a tombstone until the node says that the life does not run: what waits for that must not
//! wait for ever because a tombstone was dropped. The end of a session ends both. A node answers the
//! same command twice alike, so sending one again is harmless; an answer that nobody waits for is
//! counted.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use maitred_protocol::{Incarnation, NodeAnswer, NodeCommand, NodeEpoch, NodeName, ProcessKey};
use maitred_replica::Input;
use tokio::sync::oneshot;

use crate::clock;
use crate::inbox::Inbox;
use crate::link::{Link, Out};
use crate::metrics::Metrics;

/// Unanswered starts of one node. Tombstones are bounded by the processes that the node had.
const STARTS_MAX: usize = 16_384;

/// Runs that may wait for one life to be stopped.
const STOP_WAITERS_MAX: usize = 8;

/// Sessions that are known to have ended. Their numbers only grow, so the oldest are forgotten.
const ENDED_MAX: usize = 4_096;

#[derive(Debug)]
struct Session {
    name: NodeName,
    link: Option<Arc<Link>>,
    /// Of the answer that bound it.
    order: u64,
    /// Numbers of the unanswered commands, oldest first.
    commands: BTreeSet<u64>,
    /// The numbers of those that are tombstones, by the life that they end.
    stops: HashMap<Life, u64>,
}

/// The members of a party share their incarnation.
type Life = (ProcessKey, Incarnation);

/// What an answer is for.
#[derive(Debug)]
enum Purpose {
    /// A run that waits for it, until then.
    Start(oneshot::Sender<NodeAnswer>, Instant),
    /// The replica, once the node says that this life does not run; and runs that wait for that.
    Stop(Life, Vec<oneshot::Sender<NodeAnswer>>),
}

#[derive(Debug)]
struct Pending {
    epoch: NodeEpoch,
    command: Arc<NodeCommand>,
    purpose: Purpose,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<NodeEpoch, Session>,
    pending: HashMap<u64, Pending>,
    /// Sessions that have ended, the newest [`ENDED_MAX`]: that one is not heard of does not say so.
    ended: BTreeSet<NodeEpoch>,
    last_number: u64,
}

impl State {
    fn session(&mut self, name: &NodeName, epoch: NodeEpoch) -> &mut Session {
        self.sessions.entry(epoch).or_insert_with(|| Session {
            name: name.clone(),
            link: None,
            order: 0,
            commands: BTreeSet::new(),
            stops: HashMap::new(),
        })
    }

    fn forget(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number)?;
        if let Some(session) = self.sessions.get_mut(&pending.epoch) {
            session.commands.remove(&number);
            if let Purpose::Stop(life, _) = &pending.purpose {
                session.stops.remove(life);
            }
        }
        Some(pending)
    }
}

/// All sessions that this host has heard of.
#[derive(Debug)]
pub(crate) struct Nodes {
    state: Mutex<State>,
    inbox: Arc<Inbox>,
    metrics: Arc<Metrics>,
}

/// A start under way; dropping it forgets the command.
#[derive(Debug)]
pub(crate) struct Command<'a> {
    nodes: &'a Nodes,
    number: u64,
    /// Ends without an answer when the session does.
    pub(crate) answer: oneshot::Receiver<NodeAnswer>,
}

impl Drop for Command<'_> {
    fn drop(&mut self) {
        self.nodes.lock().forget(self.number);
    }
}

impl Nodes {
    pub(crate) fn new(inbox: Arc<Inbox>, metrics: Arc<Metrics>) -> Self {
        // Numbers of an earlier run of the host must not come again: a node may still answer them.
        let state = State {
            last_number: clock::wall_ms() << 20,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            inbox,
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the session is commanded through `link`; what it has not answered is sent again.
    /// In vain when the connection has ended, or when the replica answered another one after this:
    /// `order` is the answer's.
    pub(crate) fn bind(&self, name: NodeName, epoch: NodeEpoch, order: u64, link: &Arc<Link>) {
        let again = {
            let mut state = self.lock();
            // A connection ends before it is unbound, so one of the two sees the other.
            if link.has_ended() {
                return;
            }
            let session = state.session(&name, epoch);
            if session.order > order {
                return;
            }
            session.order = order;
            session.link = Some(Arc::clone(link));
            let mut bound = link.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            if !bound.contains(&epoch) {
                bound.push(epoch);
            }
            drop(bound);
            let numbers: Vec<u64> = session.commands.iter().copied().collect();
            let commands = numbers.into_iter().filter_map(|number| {
                let command = &state.pending.get(&number)?.command;
                Some(Out::Command(number, Arc::clone(command)))
            });
            commands.collect::<Vec<_>>()
        };
        if !again.is_empty() {
            link.put(again);
        }
    }

    /// The connection is gone: its sessions wait for another one.
    pub(crate) fn unbind(&self, link: &Link) {
        let bound = std::mem::take(&mut *link.nodes.lock().unwrap_or_else(PoisonError::into_inner));
        let mut state = self.lock();
        for epoch in bound {
            let session = state.sessions.get_mut(&epoch);
            let session = session.filter(|session| is_bound(session, link));
            if let Some(session) = session {
                session.link = None;
            }
        }
    }

    /// The session has ended: nobody answers its commands any more.
    pub(crate) fn end(&self, epoch: NodeEpoch) {
        let mut state = self.lock();
        state.ended.insert(epoch);
        if state.ended.len() > ENDED_MAX {
            state.ended.pop_first();
        }
        let Some(session) = state.sessions.remove(&epoch) else {
            return;
        };
        tracing::debug!(node = %session.name, %epoch, "a node's session has ended");
        if let Some(link) = &session.link {
            let mut bound = link.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            bound.retain(|have| *have != epoch);
        }
        for number in session.commands {
            state.pending.remove(&number);
        }
    }

    /// This host does not lead any more: whoever does commands the nodes now, and nothing that is
    /// left here may reach them.
    pub(crate) fn forget_all(&self) {
        let mut state = self.lock();
        for (_, session) in state.sessions.drain() {
            if let Some(link) = session.link {
                let mut bound = link.nodes.lock().unwrap_or_else(PoisonError::into_inner);
                bound.clear();
            }
        }
        state.pending = HashMap::new();
    }

    /// Whether a keep-alive that came over `link` counts for the session.
    pub(crate) fn may_renew(&self, link: &Link, epoch: NodeEpoch) -> bool {
        let state = self.lock();
        let session = state.sessions.get(&epoch);
        session.is_some_and(|session| is_bound(session, link))
    }

    /// Commands a node to start something. None when too many of its starts are unanswered.
    pub(crate) fn start(
        &self,
        (name, epoch): (&NodeName, NodeEpoch),
        command: NodeCommand,
        within: Duration,
    ) -> Option<Command<'_>> {
        let (waiter, answer) = oneshot::channel();
        let mut state = self.lock();
        let session = state.session(name, epoch);
        if session.commands.len() - session.stops.len() >= STARTS_MAX {
            return None;
        }
        let purpose = Purpose::Start(waiter, Instant::now() + within);
        let number = self.send(state, (name, epoch), command, purpose);
        Some(Command {
            nodes: self,
            number,
            answer,
        })
    }

    /// Tells a live session that a life must not run; the replica hears of it when the node says that
    /// it does not. Nothing is sent when that has been asked and not been answered yet.
    pub(crate) fn stop(&self, (name, epoch): (&NodeName, NodeEpoch), term: u64, life: Life) {
        self.send_stop((name, epoch), term, life, None);
    }

    /// The same for a run that waits for it; its answer ends without one when the session does, and at
    /// once when that is known to have ended: nobody ever would answer. None when too many wait already. The
    /// tombstone outlives the wait.
    pub(crate) fn stop_and_tell(
        &self,
        node: (&NodeName, NodeEpoch),
        term: u64,
        life: Life,
    ) -> Option<oneshot::Receiver<NodeAnswer>> {
        let (waiter, answer) = oneshot::channel();
        self.send_stop(node, term, life, Some(waiter))
            .then_some(answer)
    }

    /// Says whether whoever waits will be told.
    fn send_stop(
        &self,
        (name, epoch): (&NodeName, NodeEpoch),
        term: u64,
        life: Life,
        waiter: Option<oneshot::Sender<NodeAnswer>>,
    ) -> bool {
        let mut state = self.lock();
        if waiter.is_some() && state.ended.contains(&epoch) {
            return true;
        }
        let asked = state.session(name, epoch).stops.get(&life).copied();
        if let Some(number) = asked {
            let pending = state.pending.get_mut(&number);
            let purpose = pending.map(|pending| &mut pending.purpose);
            let Some((Purpose::Stop(_, waiters), waiter)) = purpose.zip(waiter) else {
                return false;
            };
            waiters.retain(|waiter| !waiter.is_closed());
            if waiters.len() >= STOP_WAITERS_MAX {
                return false;
            }
            waiters.push(waiter);
            return true;
        }
        let stop = NodeCommand::Stop {
            term,
            key: life.0.clone(),
            incarnation: life.1,
        };
        let purpose = Purpose::Stop(life, waiter.into_iter().collect());
        self.send(state, (name, epoch), stop, purpose);
        true
    }

    fn send(
        &self,
        mut state: MutexGuard<'_, State>,
        (name, epoch): (&NodeName, NodeEpoch),
        command: NodeCommand,
        purpose: Purpose,
    ) -> u64 {
        state.last_number += 1;
        let number = state.last_number;
        let session = state.session(name, epoch);
        session.commands.insert(number);
        if let Purpose::Stop(life, _) = &purpose {
            session.stops.insert(life.clone(), number);
        }
        let link = session.link.clone();
        let command = Arc::new(command);
        let pending = Pending {
            epoch,
            command: Arc::clone(&command),
            purpose,
        };
        state.pending.insert(number, pending);
        drop(state);
        self.metrics.node_commands.fetch_add(1, Ordering::Relaxed);
        if let Some(link) = link {
            link.put(vec![Out::Command(number, command)]);
        }
        number
    }

    /// A node has answered.
    pub(crate) fn answer(&self, link: &Link, number: u64, answer: NodeAnswer) {
        let mut state = self.lock();
        let epoch = state.pending.get(&number).map(|pending| pending.epoch);
        let session = epoch.and_then(|epoch| state.sessions.get(&epoch));
        if !session.is_some_and(|session| is_bound(session, link)) {
            drop(state);
            self.metrics
                .node_answers_unknown
                .fetch_add(1, Ordering::Relaxed);
            return;
        }
        let is_stop = |pending: &Pending| matches!(pending.purpose, Purpose::Stop(..));
        let stop = state.pending.get(&number).is_some_and(is_stop);
        if stop && answer != NodeAnswer::Stopped {
            // It proves nothing, and the node is asked again when it comes back.
            tracing::debug!(?answer, "a node does not say that it stopped a process");
            return;
        }
        let purpose = state.forget(number).map(|pending| pending.purpose);
        drop(state);
        match purpose {
            // Whoever waited may have given up just now.
            Some(Purpose::Start(waiter, _)) => drop(waiter.send(answer)),
            Some(Purpose::Stop((key, incarnation), waiters)) => {
                for waiter in waiters {
                    drop(waiter.send(NodeAnswer::Stopped));
                }
                self.inbox.push(Input::Stopped { key, incarnation });
            }
            None => {}
        }
    }

    /// Forgets starts whose time is over, and sessions of which nothing is left.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let late = |(number, pending): (&u64, &Pending)| match pending.purpose {
            Purpose::Start(_, until) => (until <= now).then_some(*number),
            Purpose::Stop(..) => None,
        };
        let late: Vec<u64> = state.pending.iter().filter_map(late).collect();
        for number in late {
            state.forget(number);
        }
        let left = |session: &mut Session| session.link.is_some() || !session.commands.is_empty();
        state.sessions.retain(|_, session| left(session));
    }

    /// Commands that wait for their nodes.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().pending.len()
    }
}

fn is_bound(session: &Session, link: &Link) -> bool {
    session
        .link
        .as_ref()
        .is_some_and(|bound| bound.id == link.id)
}

#[cfg(test)]
mod tests;

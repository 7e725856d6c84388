//! The other hosts of the cluster: who they are, the ways to them, and who may talk to this one.
//!
//! Holds: there is one link for each peer that the replica named, and none for anybody else; whoever
//! sends never waits. A caller is judged by what this host has applied: its number proves whether
//! it can be a member that this host has not heard of yet, because numbers are indices of the log.

pub(crate) mod link;
pub(crate) mod queue;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use maitred_protocol::limits::MEMBERS_MAX;
use maitred_protocol::{ClusterId, MemberRecord, PeerGreeting, PeerHello, PeerRefusal, Purpose};
use maitred_replica::{Input, Peer};
use maitred_transport::{CloseCode, Connection, Endpoint, Identity, close};
use raft::eraftpb::Message;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use self::link::Way;
use self::queue::{Put, Queue};
use crate::inbox::Inbox;
use crate::metrics::Metrics;

/// How long the same refusal of the same host is not said again.
const REFUSAL_AGAIN: Duration = Duration::from_secs(60);

/// Who this host is, as its peers know it.
#[derive(Debug, Clone)]
pub(crate) struct Myself {
    pub(crate) cluster: ClusterId,
    pub(crate) host: u64,
    pub(crate) instance: u64,
    pub(crate) build: String,
    pub(crate) level_max: u16,
}

/// The members as this host has applied them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    /// The other hosts.
    pub(crate) others: Vec<Peer>,
    /// Whether this host finds itself among the members: before that it has too little of the log to
    /// judge anybody.
    pub(crate) caught_up: bool,
    /// The last entry that this is known to be true at.
    pub(crate) applied: u64,
    /// The level that the cluster uses.
    pub(crate) level: u16,
}

struct Link {
    queue: Arc<Queue>,
    address: watch::Sender<String>,
    /// Where the peer last called from.
    seen: watch::Sender<String>,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All of it.
pub(crate) struct Peers {
    pub(crate) me: Myself,
    pub(crate) endpoint: Endpoint,
    /// What callers' certificates are checked with.
    pub(crate) identity: Identity,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) metrics: Arc<Metrics>,
    /// This host's term, or an earlier one.
    pub(crate) term: AtomicU64,
    /// Links that are greeted.
    pub(crate) links_up: AtomicUsize,
    /// Told when a peer says that this host is not a member.
    pub(crate) doubted: Notify,
    runtime: Handle,
    roster: Mutex<Arc<Roster>>,
    /// Where others are, as somebody else said, for as long as the roster does not.
    hints: Mutex<Vec<Peer>>,
    /// Hosts that called and may be members that this host has not heard of: it must be able to
    /// answer them, or it will never hear of them.
    strangers: Mutex<BTreeMap<u64, String>>,
    /// None once the host ends: none is made any more then.
    links: Mutex<Option<BTreeMap<u64, Link>>>,
    /// Who was refused last, why, and when that was said.
    refused: Mutex<Option<(u64, PeerRefusal, Instant)>>,
    /// The connection that each peer's messages come over.
    incoming: Mutex<HashMap<u64, Connection>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can leave what they guard half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peers {
    /// Knows nobody yet. Must be called within the runtime that carries the links.
    pub(crate) fn new(
        me: Myself,
        endpoint: Endpoint,
        identity: Identity,
        inbox: &Arc<Inbox>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            me,
            endpoint,
            identity,
            inbox: Arc::clone(inbox),
            metrics: Arc::clone(metrics),
            term: AtomicU64::new(0),
            links_up: AtomicUsize::new(0),
            doubted: Notify::new(),
            runtime: Handle::current(),
            roster: Mutex::default(),
            hints: Mutex::default(),
            strangers: Mutex::default(),
            links: Mutex::new(Some(BTreeMap::new())),
            refused: Mutex::default(),
            incoming: Mutex::default(),
        }
    }

    /// Whether a refusal is worth a warning: whoever is refused calls again and again.
    pub(crate) fn is_news(&self, host: u64, why: &PeerRefusal) -> bool {
        let mut refused = lock(&self.refused);
        let told = refused.as_ref().is_some_and(|(other, last, at)| {
            *other == host && last == why && at.elapsed() < REFUSAL_AGAIN
        });
        if !told {
            *refused = Some((host, why.clone(), Instant::now()));
        }
        !told
    }

    /// What this host says when it calls another, 0 for any.
    pub(crate) fn hello(&self, to: u64, purpose: Purpose) -> PeerHello {
        let me = &self.me;
        PeerHello {
            cluster: Some(me.cluster),
            host: me.host,
            instance: me.instance,
            to,
            build: me.build.clone(),
            level_max: me.level_max,
            purpose,
        }
    }

    /// What this host says when it is called.
    pub(crate) fn welcome(&self) -> PeerGreeting {
        let me = &self.me;
        PeerGreeting::Welcome {
            cluster: me.cluster,
            host: me.host,
            build: me.build.clone(),
            level_max: me.level_max,
        }
    }

    /// The members as they were last told.
    pub(crate) fn roster(&self) -> Arc<Roster> {
        Arc::clone(&lock(&self.roster))
    }

    /// The members have changed: links are made and given up as that demands.
    pub(crate) fn follow(self: &Arc<Self>, roster: Roster) {
        let roster = Arc::new(roster);
        *lock(&self.roster) = Arc::clone(&roster);
        self.connect(&roster);
        let mut incoming = lock(&self.incoming);
        incoming.retain(|&host, connection| {
            let stays = roster.knows(host);
            if !stays {
                let why = PeerRefusal::NotAMember(host).to_string();
                close(connection, CloseCode::Refused, &why);
            }
            stays
        });
    }

    /// Others have said who the members are, which this host may not know of its own yet.
    pub(crate) fn hint(self: &Arc<Self>, members: &[MemberRecord]) {
        let others = members.iter().filter(|member| member.host != self.me.host);
        let others = others.map(|member| Peer {
            host: member.host,
            address: member.address.clone(),
            instance: 0,
        });
        *lock(&self.hints) = others.collect();
        self.connect(&self.roster());
    }

    fn connect(self: &Arc<Self>, roster: &Roster) {
        let mut wanted: BTreeMap<u64, String> = BTreeMap::new();
        if !roster.caught_up {
            let hints = lock(&self.hints);
            wanted.extend(hints.iter().map(|peer| (peer.host, peer.address.clone())));
        }
        let mut strangers = lock(&self.strangers);
        let is_known = |host: u64| roster.others.iter().any(|peer| peer.host == host);
        strangers.retain(|host, _| *host > roster.applied && !is_known(*host));
        for (host, address) in strangers.iter() {
            wanted.entry(*host).or_insert_with(|| address.clone());
        }
        drop(strangers);
        for peer in &roster.others {
            let known = wanted.entry(peer.host).or_default();
            if !peer.address.is_empty() {
                known.clone_from(&peer.address);
            }
        }
        let mut links = lock(&self.links);
        let Some(links) = links.as_mut() else { return };
        links.retain(|host, _| wanted.contains_key(host));
        for (host, address) in wanted {
            match links.get(&host) {
                Some(link) => {
                    link.address.send_if_modified(|known| {
                        let changed = *known != address;
                        *known = address;
                        changed
                    });
                }
                None => drop(links.insert(host, self.link(host, address))),
            }
        }
    }

    fn link(self: &Arc<Self>, host: u64, address: String) -> Link {
        let queue = Arc::new(Queue::default());
        let (address, agreed) = watch::channel(address);
        let (called, seen) = watch::channel(String::new());
        let way = Way {
            host,
            queue: Arc::clone(&queue),
            address: agreed,
            seen,
        };
        let task = self.runtime.spawn(link::run(Arc::clone(self), way));
        Link {
            queue,
            address,
            seen: called,
            task: task.abort_handle(),
        }
    }

    /// Sends messages to whom they are for, perhaps in vain.
    pub(crate) fn send(&self, messages: Vec<Message>) {
        let mut dropped = 0;
        let links = lock(&self.links);
        for message in messages {
            let host = message.to;
            let link = links.as_ref().and_then(|links| links.get(&host));
            match link.map(|link| link.queue.put(message)) {
                Some(Put::Queued) => {}
                Some(Put::Overflowed) => {
                    dropped += 1;
                    self.inbox.push(Input::Unreachable(host));
                }
                Some(Put::Dropped) | None => dropped += 1,
            }
        }
        drop(links);
        Metrics::add(&self.metrics.peer_messages_dropped, dropped);
    }

    /// Whether this host talks to a caller.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn judge(&self, hello: &PeerHello) -> Result<(), PeerRefusal> {
        let me = &self.me;
        let roster = self.roster();
        match hello.cluster {
            // It wants to join, and may ask for nothing else.
            None if hello.host == 0 && hello.purpose == Purpose::Bulk => {}
            Some(cluster) if cluster == me.cluster => {}
            _ => return Err(PeerRefusal::OtherCluster),
        }
        if hello.to != 0 && hello.to != me.host {
            return Err(PeerRefusal::OtherHost(me.host));
        }
        if hello.level_max < roster.level {
            return Err(PeerRefusal::TooOld {
                cluster: roster.level,
                program: hello.level_max,
            });
        }
        if hello.cluster.is_none() {
            return Ok(());
        }
        let host = hello.host;
        if host == me.host {
            // It may call itself: a host that took another's place has its address too.
            return Err(if hello.instance == me.instance {
                PeerRefusal::OtherHost(host)
            } else {
                PeerRefusal::OtherInstance(host)
            });
        }
        let known = roster.others.iter().find(|peer| peer.host == host);
        match known {
            // An announced host has no instance until its join is applied.
            Some(peer) if peer.instance != 0 && peer.instance != hello.instance => {
                Err(PeerRefusal::OtherInstance(host))
            }
            _ if host != 0 && roster.knows(host) => Ok(()),
            _ => Err(PeerRefusal::NotAMember(host)),
        }
    }

    /// From now on a peer's messages come over this connection, and over no older one.
    pub(crate) fn take_over(&self, host: u64, connection: &Connection) {
        let older = lock(&self.incoming).insert(host, connection.clone());
        if let Some(older) = older {
            let why = "a newer connection of the same host took its place";
            close(&older, CloseCode::Done, why);
        }
    }

    /// A peer has called from there, and so can be called there.
    pub(crate) fn has_called(self: &Arc<Self>, host: u64, from: SocketAddr) {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port()).to_string();
        if let Some(links) = lock(&self.links).as_ref()
            && let Some(link) = links.get(&host)
        {
            link.seen.send_replace(from);
            return;
        }
        if host == 0 {
            return;
        }
        let mut strangers = lock(&self.strangers);
        if strangers.len() < MEMBERS_MAX || strangers.contains_key(&host) {
            strangers.insert(host, from);
        }
        drop(strangers);
        self.connect(&self.roster());
    }

    /// A connection has ended.
    pub(crate) fn ended(&self, host: u64, connection: &Connection) {
        let mut incoming = lock(&self.incoming);
        let same = |newest: &Connection| newest.stable_id() == connection.stable_id();
        if incoming.get(&host).is_some_and(same) {
            incoming.remove(&host);
        }
    }

    /// Where other hosts may be asked, as far as is known.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let roster = self.roster();
        let hints = lock(&self.hints).clone();
        let all = roster.others.iter().chain(&hints);
        let all = all.map(|peer| peer.address.clone());
        all.filter(|address| !address.is_empty()).collect()
    }

    /// Gives up all links, for good.
    pub(crate) fn end(&self) {
        *lock(&self.links) = None;
        lock(&self.incoming).clear();
    }

    /// Links that are greeted.
    pub(crate) fn links_up(&self) -> usize {
        self.links_up.load(Ordering::Relaxed)
    }
}

impl Roster {
    /// Whether this host is a member, or may be one that was added after what is applied here.
    pub(crate) fn knows(&self, host: u64) -> bool {
        !self.caught_up || host > self.applied || self.others.iter().any(|peer| peer.host == host)
    }
}

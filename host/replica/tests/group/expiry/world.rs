//! A node with a short lease and one process, in a group whose leader is about to be in trouble.
//!
//! It does what nodes do: it counts on its session until its own deadline, which runs from when it
//! sent the last keep-alive that was acknowledged, and it goes to whoever leads.

use std::sync::Arc;

use maitred_protocol::{
    ClientId, CreateOptions, CreateProcess, KeepAlive, NodeEpoch, NodeName, RegisterNode, Request,
    Response, Verdict, limits,
};
use maitred_registry::{Node, Record};
use maitred_replica::Input;

use crate::group::Group;
use crate::{key, others, register};

/// The node's lease.
pub(super) const TTL_MS: u64 = limits::TTL_MS_MIN as u64;

/// How long a leader waits for the node.
pub(super) const LEASE_US: u64 = TTL_MS * 1_020;

/// How long the node relies on an acknowledged keep-alive, from when it was sent.
const RELIANCE_US: u64 = TTL_MS * 980 - 50_000;

fn node() -> NodeName {
    NodeName::new("a").unwrap()
}

pub(super) fn registration(client: ClientId, change: impl FnOnce(&mut RegisterNode)) -> Request {
    let Request::RegisterNode(_, mut node) = register(client) else {
        panic!("not a registration");
    };
    node.ttl_ms = limits::TTL_MS_MIN;
    change(&mut node);
    Request::RegisterNode(client, node)
}

/// A node with a process, in a group with a leader.
pub(super) struct World {
    pub(super) group: Group,
    pub(super) leader: u64,
    pub(super) client: ClientId,
    pub(super) epoch: NodeEpoch,
    /// The process as it was created.
    pub(super) record: Arc<Record>,
    pub(super) sequence: u64,
    /// When the node sent the last keep-alive that was acknowledged.
    pub(super) acked_us: u64,
}

impl World {
    pub(super) fn new(election_ticks: usize) -> Self {
        let mut group = Group::new(&[1, 2, 3], |config| config.election_ticks = election_ticks);
        let leader = group.elect();
        let client = group.session(leader);
        let answer = group.answer(leader, 2, registration(client, |_| {}));
        let Response::Registered { epoch, .. } = answer else {
            panic!("{answer:?}");
        };
        let create = CreateProcess {
            key: key("1"),
            args: Vec::new(),
            selector: None,
            callback: None,
            options: CreateOptions::default(),
        };
        let create = Request::CreateProcess(client, Box::new(create));
        let answer = group.answer(leader, 3, create);
        assert!(matches!(answer, Response::Created { .. }), "{answer:?}");
        group.pass(100);
        let record = group.replica(leader).registry().process(&key("1"));
        let record = Arc::clone(record.unwrap());
        let mut world = Self {
            group,
            leader,
            client,
            epoch,
            record,
            sequence: 3,
            acked_us: 0,
        };
        assert!(world.renew(leader));
        world
    }

    pub(super) fn now_us(&self) -> u64 {
        self.group.now.mono_us
    }

    /// Time passes until a moment, at most a tick later.
    pub(super) fn pass_until(&mut self, us: u64) {
        let ms = us.saturating_sub(self.now_us()).div_ceil(1_000);
        self.group.pass(ms);
    }

    /// A keep-alive that is sent now.
    pub(super) fn keep_alive(&mut self) -> Input {
        self.sequence += 1;
        let keep_alive = KeepAlive {
            epoch: self.epoch,
            sequence: self.sequence,
            load: None,
            stop_ms: 0,
        };
        Input::KeepAlive {
            link: 1,
            keep_alive,
            at_us: self.now_us(),
        }
    }

    /// The node renews at a host; whether that acknowledges it.
    pub(super) fn renew(&mut self, at: u64) -> bool {
        let keep_alive = self.keep_alive();
        self.group.step(at, keep_alive);
        self.group.settle();
        let sequence = self.sequence;
        let mut acks = self.group.acks.iter().rev();
        let acked = acks.any(|(_, ack)| ack.sequence == sequence && ack.alive);
        if acked {
            self.acked_us = self.now_us();
        }
        acked
    }

    /// Time passes, and the node renews at a host four times a lease.
    pub(super) fn live(&mut self, at: u64, ms: u64) {
        for _ in 0..ms.div_ceil(TTL_MS / 4) {
            self.group.pass(TTL_MS / 4);
            assert!(self.renew(at), "host {at} acknowledges");
        }
    }

    /// When the node gives up its session, as far as it knows.
    pub(super) fn deadline_us(&self) -> u64 {
        self.acked_us + RELIANCE_US
    }

    /// The old leader sees and hears nothing, and no time passes for it.
    pub(super) fn stop_leader(&mut self) {
        self.group.isolate(self.leader);
        self.group.paused.insert(self.leader);
    }

    /// The hosts beside the old leader elect one of them.
    pub(super) fn elect_another(&mut self) -> u64 {
        let rest = others(self.leader);
        for _ in 0..500 {
            self.group.pass(20);
            let mut rest = rest.into_iter();
            if let Some(next) = rest.find(|at| self.group.leader_of(*at) == Some(*at)) {
                return next;
            }
        }
        panic!("nobody is elected");
    }

    pub(super) fn attach(&mut self, at: u64) -> Response {
        let attach = Request::AttachNode {
            name: node(),
            epoch: self.epoch,
            inventory: vec![(key("1"), self.record.incarnation)],
        };
        self.group.answer(at, 0, attach)
    }

    /// The node comes to the next leader, with all that it runs.
    pub(super) fn move_to(&mut self, next: u64) {
        let Response::Registered { epoch, verdicts } = self.attach(next) else {
            panic!("host {next} does not know the session");
        };
        assert_eq!((epoch, verdicts), (self.epoch, vec![Verdict::Keep]));
        assert!(self.renew(next));
    }

    pub(super) fn session(&self, host: u64) -> Option<NodeEpoch> {
        let registry = self.group.replica(host).registry();
        registry.node(&node()).map(Node::epoch)
    }

    /// The cut heals: the node has its session, its process is what it was, and the old leader's
    /// decision is nowhere.
    pub(super) fn assert_unhurt(mut self, next: u64) {
        self.group.cut.clear();
        self.group.paused.clear();
        self.live(next, 2 * TTL_MS);
        for host in 1..=3 {
            assert_eq!(self.group.expiries(host), [], "host {host}");
            assert_eq!(self.session(host), Some(self.epoch), "host {host}");
            let registry = self.group.replica(host).registry();
            assert_eq!(registry.process(&key("1")), Some(&self.record));
            assert_eq!((registry.lost().count(), registry.held()), (0, 0));
        }
        self.group.assert_equal();
    }
}

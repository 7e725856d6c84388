//! What a world is asked for, and what it is like.

use std::sync::Arc;

use maitred_protocol::{
    CreateOptions, Drain, Move, NodeEpoch, ProcessKey, ProcessRecord, ProcessState, RebalanceAsk,
    RebalancePlan, RegisterNode, Request, Response, SetProcess, Status, Switch, TypeSpec,
};
use maitred_registry::Record;

use super::{Game, World, key, name};
use crate::support::comer;

impl World {
    pub(crate) fn ask(&mut self, request: Request) -> Response {
        let ticket = self.send(request);
        self.run();
        for _ in 0..100 {
            if let Some(answer) = self.answered(ticket) {
                return answer;
            }
            self.pass(20);
        }
        panic!("no answer");
    }

    pub(crate) fn join(&mut self, node: &str, capacity: u32) {
        self.join_with(node, capacity, |_| {});
    }

    pub(crate) fn join_with(
        &mut self,
        node: &str,
        capacity: u32,
        change: impl FnOnce(&mut RegisterNode),
    ) {
        let mut register = comer(node, capacity, 3_000);
        change(&mut register);
        // It may be given something in the very turn in which it registers.
        self.games.insert(node.to_owned(), Game::default());
        let request = Request::RegisterNode(self.client, Box::new(register));
        match self.ask(request) {
            Response::Registered { epoch, .. } => {
                self.games.get_mut(node).unwrap().epoch = epoch.0;
                self.keep_alive(node);
            }
            other => panic!("{other:?}"),
        }
    }

    /// A node of its own registers a process.
    pub(crate) fn set(&mut self, node: &str, key: &ProcessKey) {
        let epoch = NodeEpoch(self.games[node].epoch);
        let set = SetProcess {
            key: key.clone(),
            node: name(node),
            epoch,
            pid: "own".to_owned(),
            share: Vec::new(),
            incarnation: None,
        };
        match self.ask(Request::SetProcess(self.client, Box::new(set))) {
            Response::Process { record, .. } => {
                let game = self.games.get_mut(node).unwrap();
                game.running.insert(key.clone(), record.incarnation);
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn put_type(&mut self, spec: TypeSpec) {
        let answer = self.ask(Request::PutType(self.client, Box::new(spec)));
        assert!(matches!(answer, Response::Type(_)), "{answer:?}");
    }

    /// Creates a process; the node that it came to.
    pub(crate) fn create(
        &mut self,
        key: &ProcessKey,
        change: impl FnOnce(&mut CreateOptions),
    ) -> Box<ProcessRecord> {
        let create = self.create_of(key, change);
        match self.ask(create) {
            Response::Created { record, .. } => record,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn fill(&mut self, ids: std::ops::Range<u32>) {
        for id in ids {
            self.create(&key(id), |_| {});
        }
    }

    fn done(&mut self, request: Request) {
        let answer = self.ask(request);
        assert!(matches!(answer, Response::Done(_)), "{answer:?}");
    }

    pub(crate) fn drain(&mut self, node: &str, per_second: u32, deadline_ms: u32) {
        self.done(Request::DrainNode {
            client: self.client,
            name: name(node),
            drain: Some(Drain {
                deadline_ms,
                per_second,
            }),
        });
    }

    pub(crate) fn end_drain(&mut self, node: &str) {
        self.done(Request::DrainNode {
            client: self.client,
            name: name(node),
            drain: None,
        });
    }

    pub(crate) fn cordon(&mut self, node: &str, cordoned: bool) {
        self.done(Request::CordonNode {
            client: self.client,
            name: name(node),
            cordoned,
        });
    }

    pub(crate) fn suspend(&mut self, suspended: bool) {
        self.hold_up(Switch::Moves, suspended);
    }

    pub(crate) fn hold_up(&mut self, what: Switch, suspended: bool) {
        self.done(Request::Suspend {
            client: self.client,
            what,
            suspended,
        });
    }

    pub(crate) fn plan(&mut self) -> Box<RebalancePlan> {
        match self.ask(Request::PlanRebalance(RebalanceAsk::default())) {
            Response::Rebalance(plan) => plan,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn rebalance(&mut self, moves: Vec<Move>, per_second: u32) -> Response {
        self.ask(Request::Rebalance { moves, per_second })
    }

    pub(crate) fn status(&mut self) -> Box<Status> {
        match self.ask(Request::Status) {
            Response::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn record(&self, key: &ProcessKey) -> Option<&Arc<Record>> {
        self.replica().registry().process(key)
    }

    /// How many processes the registry has on a node.
    pub(crate) fn on(&self, node: &str) -> u32 {
        let node = self.replica().registry().node(&name(node));
        node.map_or(0, |node| node.processes())
    }

    pub(crate) fn pending(&self) -> u64 {
        self.replica().registry().counts().pending
    }

    /// Whether so many processes run, each where the registry has it and nowhere else.
    pub(crate) fn assert_running(&self, ids: std::ops::Range<u32>) {
        for id in ids {
            let record = self.record(&key(id)).unwrap();
            assert_eq!(record.state, ProcessState::Running, "{id}: {record:?}");
            let game = &self.games[record.node.as_str()];
            assert_eq!(game.running.get(&key(id)), Some(&record.incarnation));
        }
    }

    /// Asks for a process that does not start yet.
    pub(crate) fn ask_later(&mut self, key: &ProcessKey) {
        let create = self.create_of(key, |options| options.deadline_ms = 60_000);
        self.send(create);
        self.run();
    }

    pub(crate) fn delete(&mut self, key: &ProcessKey) {
        self.done(Request::DelProcess {
            client: self.client,
            key: key.clone(),
            incarnation: None,
            ended: false,
        });
    }
}

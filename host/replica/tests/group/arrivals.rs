//! Nodes that come to a new leader a moment later, or never: what creates do meanwhile.

use maitred_protocol::{
    ClientId, CreateOptions, CreateProcess, KeepAlive, NodeEpoch, NodeName, NodeRecord, Refusal,
    RefusalReason, RegisterNode, Rejection, Request, Response, limits,
};
use maitred_replica::Input;

use crate::group::Group;
use crate::{key, register, three};

/// Milliseconds after which a node that has not come to a new leader is given nothing, and after
/// which creates no longer wait for it.
const SILENT_MS: u64 = 2_000;
const WAIT_MS: u64 = 4_000;

/// The longest pause between two looks, and what the election itself took to be noticed.
const SLACK_MS: u64 = 400;

/// A group with a new leader, to which no node has come yet.
struct Arrivals {
    group: Group,
    leader: u64,
    client: ClientId,
    nodes: Vec<(NodeName, NodeEpoch)>,
    sequence: u64,
    /// Milliseconds of the wall clock, when the leader was found to serve.
    began_ms: u64,
}

fn node(client: ClientId, name: &str) -> Request {
    let Request::RegisterNode(_, base) = register(client) else {
        panic!("not a registration");
    };
    let node = RegisterNode {
        name: NodeName::new(name).unwrap(),
        ttl_ms: limits::TTL_MS_MAX,
        ..*base
    };
    Request::RegisterNode(client, Box::new(node))
}

impl Arrivals {
    fn new(names: &[&str]) -> Self {
        let mut group = three();
        let first = group.elect();
        let client = group.session(first);
        let mut sequence = 1;
        let mut nodes = Vec::new();
        for name in names {
            sequence += 1;
            let answer = group.answer(first, sequence, node(client, name));
            let Response::Registered { epoch, .. } = answer else {
                panic!("{answer:?}");
            };
            nodes.push((NodeName::new(*name).unwrap(), epoch));
        }
        group.pass(100);
        group.kill(first);
        let leader = group.elect();
        let began_ms = group.now.wall_ms;
        Self {
            group,
            leader,
            client,
            nodes,
            sequence,
            began_ms,
        }
    }

    /// Time passes until so many milliseconds after the leader began.
    fn pass_until(&mut self, after_ms: u64) {
        let ms = (self.began_ms + after_ms).saturating_sub(self.group.now.wall_ms);
        self.group.pass(ms);
    }

    fn come(&mut self, at: usize) {
        self.sequence += 1;
        let keep_alive = KeepAlive {
            epoch: self.nodes[at].1,
            sequence: self.sequence,
            load: None,
            stop_ms: 0,
        };
        let come = Input::KeepAlive {
            link: 1,
            keep_alive,
            at_us: self.group.now.mono_us,
        };
        self.group.step(self.leader, come);
        self.group.settle();
    }

    fn create(&mut self, id: &str, deadline_ms: u32) -> u64 {
        self.sequence += 1;
        let create = CreateProcess {
            key: key(id),
            args: Vec::new(),
            selector: None,
            callback: None,
            options: CreateOptions {
                deadline_ms,
                ..CreateOptions::default()
            },
        };
        let request = Request::CreateProcess(self.client, Box::new(create));
        self.group.ask(self.leader, self.sequence, request)
    }

    fn answer(&self, ticket: u64) -> Option<&Response> {
        self.group.answers.get(&ticket)
    }

    fn assert_created(&self, ticket: u64, at: usize) {
        match self.answer(ticket) {
            Some(Response::Created { record, .. }) => assert_eq!(record.node, self.nodes[at].0),
            other => panic!("{other:?}"),
        }
    }

    fn assert_no_placement(&self, ticket: u64) {
        let Some(Response::Rejected(Rejection::NoPlacement { refusals, .. })) = self.answer(ticket)
        else {
            panic!("{:?}", self.answer(ticket));
        };
        let silent = |refusal: &Refusal| matches!(refusal.reason, RefusalReason::Suspect);
        assert!(refusals.iter().any(silent), "{refusals:?}");
    }

    fn node(&mut self, at: usize) -> Box<NodeRecord> {
        let name = self.nodes[at].0.clone();
        match self.group.answer(self.leader, 0, Request::GetNode(name)) {
            Response::Node(node) => node,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_create_waits_for_nodes_that_are_on_their_way_to_a_new_leader() {
    let mut world = Arrivals::new(&["a"]);
    // At first nodes are taken at their predecessor's word.
    let first = world.create("1", 10_000);
    world.assert_created(first, 0);
    world.pass_until(SILENT_MS + 100);
    assert!(world.node(0).suspect);
    let waits = world.create("2", 10_000);
    world.pass_until(SILENT_MS + 1_100);
    assert_eq!(world.answer(waits), None);
    world.come(0);
    world.group.pass(SLACK_MS);
    world.assert_created(waits, 0);
}

#[test]
fn creates_wait_for_a_silent_node_whatever_the_others_lack() {
    let mut world = Arrivals::new(&["a", "b"]);
    world.sequence += 1;
    let cordon = Request::CordonNode {
        client: world.client,
        name: world.nodes[1].0.clone(),
        cordoned: true,
    };
    let done = world.group.answer(world.leader, world.sequence, cordon);
    assert!(matches!(done, Response::Done(_)), "{done:?}");
    world.come(1);
    world.pass_until(SILENT_MS + 100);
    let waits = world.create("1", 10_000);
    world.pass_until(SILENT_MS + 1_100);
    assert_eq!(world.answer(waits), None);
    world.come(0);
    world.group.pass(SLACK_MS);
    world.assert_created(waits, 0);
}

#[test]
fn a_create_does_not_wait_for_nodes_that_never_come() {
    let mut world = Arrivals::new(&["a"]);
    world.pass_until(SILENT_MS + 100);
    let waits = world.create("1", 10_000);
    world.pass_until(WAIT_MS - 100);
    assert_eq!(world.answer(waits), None);
    world.pass_until(WAIT_MS + SLACK_MS);
    world.assert_no_placement(waits);
    let next = world.create("2", 10_000);
    world.assert_no_placement(next);
}

#[test]
fn a_create_that_waits_for_nodes_ends_at_its_deadline() {
    let mut world = Arrivals::new(&["a"]);
    world.pass_until(SILENT_MS + 100);
    let waits = world.create("1", 700);
    world.group.pass(680);
    assert_eq!(world.answer(waits), None);
    world.group.pass(40);
    let expected = Response::Rejected(Rejection::Deadline(Vec::new()));
    assert_eq!(world.answer(waits), Some(&expected));
    world.come(0);
    world.group.pass(2_000);
    let again = world.create("1", 700);
    world.assert_created(again, 0);
}

#[test]
fn a_node_is_a_candidate_again_with_its_first_keep_alive_to_a_new_leader() {
    let mut world = Arrivals::new(&["a"]);
    world.pass_until(WAIT_MS + 1_000);
    assert!(world.node(0).suspect);
    let refused = world.create("1", 10_000);
    world.assert_no_placement(refused);
    world.come(0);
    assert!(!world.node(0).suspect);
    let placed = world.create("2", 10_000);
    world.assert_created(placed, 0);
    // One that has come, and is silent then, proves itself anew.
    world.pass_until(WAIT_MS + 1_000 + u64::from(limits::TTL_MS_MAX) * 3 / 4 + 100);
    world.come(0);
    assert!(world.node(0).suspect);
}

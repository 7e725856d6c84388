//! What the benchmarks are run on: one node, and processes of one size on it.

use maitred_protocol::{NodeEpoch, NodeName, ProcessKey, RegisterNode, RequestId, SetProcess};
use maitred_registry::{Command, Entry, Registry};

/// The index of the last entry in [`begun`], which is also the node's epoch.
pub(crate) const BEGUN: u64 = 2;

/// A registry with one node, and one client's session: the first.
pub(crate) fn begun() -> Registry {
    let register = RegisterNode {
        name: NodeName::new("eu-1").unwrap(),
        types: Vec::new(),
        address: "10.0.0.1:7000".to_owned(),
        labels: Vec::new(),
        capacity: 1_000_000,
        share: Vec::new(),
        ttl_ms: 3_000,
        inventory: Vec::new(),
        kill_bound_ms: 1_000,
        instance: 1,
        last_epoch: None,
    };
    let register = Command::RegisterNode(Box::new(register));
    let (mut registry, mut events) = (Registry::new(), Vec::new());
    registry.apply(1, entry(None, Command::OpenSession), &mut events);
    registry.apply(BEGUN, entry(None, register), &mut events);
    registry
}

/// Registers the process with that number, with a share of 64 bytes.
pub(crate) fn set_process(id: u64, request: Option<RequestId>) -> Entry {
    let set = SetProcess {
        key: ProcessKey::new("player", &id.to_string()).unwrap(),
        node: NodeName::new("eu-1").unwrap(),
        epoch: NodeEpoch(BEGUN),
        pid: format!("pid-{id}"),
        share: vec![7; 64],
        incarnation: None,
    };
    entry(request, Command::SetProcess(Box::new(set)))
}

fn entry(request: Option<RequestId>, command: Command) -> Entry {
    Entry {
        time_ms: 1_700_000_000_000,
        request,
        command,
    }
}

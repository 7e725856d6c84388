//! Nodes, and a module that decides among them.

use std::sync::Arc;

use maitred_protocol::{Digest, ModuleName, NodeEpoch, NodeName};
use maitred_registry::candidates::{Fleet, NodeFacts, NodeLive};
use maitred_registry::decide::ModuleRef;

/// Nodes with these names, a capacity, and so many processes each.
pub(crate) fn fleet(capacity: u32, nodes: impl IntoIterator<Item = (String, u32)>) -> Fleet {
    let nodes = nodes.into_iter().zip(1..);
    let (facts, live): (Vec<_>, Vec<_>) = nodes
        .map(|((name, processes), epoch)| {
            let facts = NodeFacts {
                name: NodeName::new(name).unwrap(),
                epoch: NodeEpoch(epoch),
                types: Vec::new(),
                address: String::new(),
                labels: Vec::new(),
                capacity,
                registered_ms: 0,
            };
            let live = NodeLive {
                processes,
                used: processes,
                ..NodeLive::BLANK
            };
            (Arc::new(facts), live)
        })
        .unzip();
    Fleet::new(facts.into(), live)
}

/// A version of the module `spread`.
pub(crate) fn module(version: u32) -> ModuleRef {
    let name = ModuleName::new("spread").unwrap();
    ModuleRef::new(name, version, Digest([version as u8; 32]), "{}".into(), 1)
}

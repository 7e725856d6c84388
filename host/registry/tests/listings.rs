//! Nodes and types are listed in pages that fit a frame, however many there are and however large.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

use maitred_protocol::codec::encode;
use maitred_protocol::{
    Load, ModuleName, NodeName, RegisterNode, Response, TypeName, TypeSpec, limits,
};
use maitred_registry::limits::{NODES_MAX, TYPES_MAX};
use maitred_registry::{Command, Entry, Outcome, Registry};

fn apply(registry: &mut Registry, command: Command) -> Outcome {
    let entry = Entry {
        time_ms: 1_000,
        request: None,
        command,
    };
    let index = registry.applied() + 1;
    registry.apply(index, entry, &mut Vec::new())
}

/// As long as a name may be.
fn long(number: usize) -> String {
    format!("{number:0>width$}", width = limits::NAME_BYTES_MAX)
}

fn node(number: usize, is_large: bool) -> RegisterNode {
    let many = |most: usize| 0..if is_large { most } else { 0 };
    let text = |number: usize| format!("{number:0>width$}", width = limits::TEXT_BYTES_MAX);
    RegisterNode {
        name: NodeName::new(long(number)).unwrap(),
        types: many(limits::NODE_TYPES_MAX)
            .map(|at| TypeName::new(long(at)).unwrap())
            .collect(),
        address: text(number),
        labels: many(limits::LABELS_MAX)
            .map(|at| (text(at), text(at)))
            .collect(),
        capacity: limits::CAPACITY_MAX,
        share: many(limits::SHARE_BYTES_MAX).map(|_| 1).collect(),
        ttl_ms: 3_000,
        inventory: Vec::new(),
        kill_bound_ms: 1_000,
        instance: 1,
        last_epoch: None,
    }
}

#[test]
fn nodes_at_the_bounds_and_ten_thousand_small_ones() {
    let load = |counters| Load {
        cpu: 0.5,
        memory_free_mib: 1,
        counters: (0..counters).map(|at| (long(at), 1.0)).collect(),
    };
    for (count, is_large, counters, pages_max) in [
        (200, true, limits::COUNTERS_MAX, 12),
        (NODES_MAX, false, 0, 12),
    ] {
        let mut registry = Registry::new();
        for number in 0..count {
            let register = Command::RegisterNode(Box::new(node(number, is_large)));
            let outcome = apply(&mut registry, register);
            assert!(matches!(outcome, Outcome::Registered { .. }), "{outcome:?}");
        }
        let (mut after, mut names, mut pages) = (None, Vec::new(), 0);
        loop {
            let (items, next) = registry.list_nodes(after.as_ref(), |node| {
                let mut record = registry.node_to_wire(node);
                record.load = Some((load(counters), 1));
                record
            });
            names.extend(items.iter().map(|node| node.name.clone()));
            pages += 1;
            let page = Response::Nodes {
                items,
                next: next.clone(),
            };
            encode(1, &page, &mut Vec::new()).unwrap();
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(names.len(), count);
        assert!(names.is_sorted_by(|one, two| one < two));
        assert!((2..=pages_max).contains(&pages), "{pages} pages");
    }
}

#[test]
fn as_many_types_as_there_may_be() {
    let mut registry = Registry::new();
    for number in 0..TYPES_MAX {
        let module = || ModuleName::new(long(number)).unwrap();
        let spec = TypeSpec {
            selector: module(),
            callback: module(),
            fence: Some(module()),
            ..TypeSpec::new(TypeName::new(long(number)).unwrap())
        };
        apply(&mut registry, Command::PutType(Box::new(spec)));
    }
    let (mut after, mut names, mut pages) = (None, Vec::new(), 0);
    loop {
        let (items, next) = registry.list_types(after.as_ref());
        names.extend(items.iter().map(|spec| spec.name.clone()));
        pages += 1;
        let page = Response::Types {
            items,
            next: next.clone(),
        };
        encode(1, &page, &mut Vec::new()).unwrap();
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert!(names.iter().eq(registry.types().map(|spec| &spec.name)));
    assert_eq!(names.len(), TYPES_MAX);
    assert!((2..=4).contains(&pages), "{pages} pages");
}

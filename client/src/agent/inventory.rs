//! How many processes a node may have: as many as it can name in one frame when it reconnects.
//!
//! A node that runs more could never attach or register again, and would lose all of them.

use maitred_protocol::ProcessKey;
use maitred_protocol::limits::{FRAME_BYTES_MAX, INVENTORY_MAX};

/// Bytes that a frame keeps for what else a registration says: types, labels and share at most.
const REST_BYTES: usize = 64 << 10;
/// Bytes that all entries together may take.
const BYTES_MAX: usize = FRAME_BYTES_MAX - REST_BYTES;
/// Bytes of an entry with two short texts.
const ENTRY_BYTES: usize = 24;
/// Bytes of a text that fits its entry.
const INLINE_BYTES: usize = 8;

/// What a node without room answers.
pub(super) const FULL: &str =
    "the node has all the processes that it could name when it reconnects";

/// The size of the inventory, kept up to date.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    entries: usize,
    bytes: usize,
}

/// Bytes of an entry in a frame.
fn bytes(key: &ProcessKey) -> usize {
    let text = |length: usize| if length > INLINE_BYTES { length } else { 0 };
    ENTRY_BYTES + text(key.type_name.as_str().len()) + text(key.id.as_str().len())
}

impl Inventory {
    pub(super) fn has_room_for(&self, key: &ProcessKey) -> bool {
        self.entries < INVENTORY_MAX && self.bytes + bytes(key) <= BYTES_MAX
    }

    pub(super) fn add(&mut self, key: &ProcessKey) {
        self.entries += 1;
        self.bytes += bytes(key);
    }

    pub(super) fn remove(&mut self, key: &ProcessKey) {
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::limits::{LABELS_MAX, NODE_TYPES_MAX, SHARE_BYTES_MAX, TEXT_BYTES_MAX};
    use maitred_protocol::{
        ClientId, Incarnation, NodeEpoch, NodeName, RegisterNode, Request, TypeName, codec,
    };

    /// A full inventory of ids of `length` bytes, with everything else at its largest too.
    fn registration(length: usize) -> (usize, Request) {
        let mut inventory = Inventory::default();
        let mut named = Vec::new();
        loop {
            let id = format!("{:0length$}", named.len());
            let key = ProcessKey::new("dungeon-instance", &id).unwrap();
            if !inventory.has_room_for(&key) {
                break;
            }
            inventory.add(&key);
            named.push((key, Incarnation(u64::MAX)));
        }
        let text = |n: usize| format!("{n:0TEXT_BYTES_MAX$}");
        let node = RegisterNode {
            name: NodeName::new("n".repeat(64)).unwrap(),
            types: (0..NODE_TYPES_MAX)
                .map(|n| TypeName::new(format!("{n:064}")).unwrap())
                .collect(),
            address: text(0),
            labels: (0..LABELS_MAX).map(|n| (text(n), text(n))).collect(),
            capacity: 1,
            share: vec![1; SHARE_BYTES_MAX],
            ttl_ms: 10_000,
            inventory: named,
            kill_bound_ms: 60_000,
            instance: u64::MAX,
            last_epoch: Some(NodeEpoch(u64::MAX)),
        };
        let count = node.inventory.len();
        (count, Request::RegisterNode(ClientId(1), Box::new(node)))
    }

    #[test]
    fn a_full_inventory_fits_a_frame_whatever_the_ids_are() {
        for (length, expected) in [(8, 20_000), (36, 12_000), (256, 3_000)] {
            let (count, request) = registration(length);
            assert!(count >= expected, "{count} of {length} bytes");
            request.check().unwrap();
            codec::encode(1, &request, &mut Vec::new()).unwrap();
        }
    }

    #[test]
    fn what_ends_makes_room() {
        let mut inventory = Inventory::default();
        let key = ProcessKey::new("dungeon-instance", "0123456789").unwrap();
        inventory.add(&key);
        inventory.remove(&key);
        assert_eq!((inventory.entries, inventory.bytes), (0, 0));
    }
}

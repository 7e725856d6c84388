//! One number for the whole state: equal for equal states, whatever the order of the table.
//!
//! It hashes the chunks' own mirrors, so that what a snapshot holds and what a digest sees cannot
//! drift apart. Two things differ: choosers are numbered by the order in which a snapshot meets
//! them, so a record is hashed with its chooser itself; and records are hashed one by one and
//! added up, so that their order does not matter. The sum guards against mistakes, not against
//! somebody who makes records to match. Counts of nodes, which a loader makes anew, go in as well.

use blake3::Hasher;

use super::encode_chunk;
use super::failover::{FailoverMirror, HoldMirror, LostMirror};
use super::mirror::{
    ChooserTable, Chunk, MemberMirror, ModuleMirror, NodeMirror, OutcomeMirror, PartyMirror,
    RecordMirror, SessionMirror,
};
use crate::Registry;

impl Registry {
    /// The blake3 hash of all that hosts must agree on. Walks everything: about a second for a million
    /// records.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Hasher::new();
        self.hash_tables(&mut hasher);
        self.hash_sessions(&mut hasher);
        for lane in self.sum_of_records() {
            hasher.update(&lane.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    fn hash_tables(&self, hasher: &mut Hasher) {
        let head = Chunk::Head {
            index: self.applied,
            time_ms: self.time_ms,
            fleet_revision: self.fleet_revision,
            swept: self.sessions.swept,
        };
        let types = self.types.values().map(|spec| (**spec).clone());
        let chunks = [
            head,
            Chunk::Nodes(self.nodes.values().map(NodeMirror::from).collect()),
            Chunk::Cordoned(self.cordoned.iter().cloned().collect()),
            Chunk::Modules(self.modules.iter().map(ModuleMirror::from).collect()),
            Chunk::Types(types.collect()),
            Chunk::Members(self.members.iter().map(MemberMirror::from).collect()),
            Chunk::Level(self.level),
            Chunk::Drains(
                self.drains
                    .iter()
                    .map(|(name, state)| (name.clone(), *state))
                    .collect(),
            ),
            Chunk::Failover(FailoverMirror::from(&self.failover)),
            Chunk::Holds(HoldMirror::all(&self.holds.by_session).collect()),
            Chunk::Lost(LostMirror::all(&self.holds.lost).collect()),
            Chunk::Parties(self.parties.iter().map(PartyMirror::from).collect()),
        ];
        for chunk in &chunks {
            put(hasher, chunk);
        }
        for node in self.nodes.values() {
            hasher.update(&node.used.to_le_bytes());
            hasher.update(&node.processes().to_le_bytes());
        }
    }

    fn hash_sessions(&self, hasher: &mut Hasher) {
        for (client, session) in &self.sessions.all {
            // A table for each: numbers that depend on this session alone.
            let mut choosers = ChooserTable::default();
            let outcomes = OutcomeMirror::all(&session.outcomes, &mut choosers);
            let mirror = SessionMirror::new(*client, session, outcomes);
            put(hasher, &Chunk::Sessions(vec![mirror]));
            put(hasher, &Chunk::Choosers(choosers.list));
        }
    }

    /// The sum of the records' hashes, in four lanes.
    fn sum_of_records(&self) -> [u64; 4] {
        let mut choosers = ChooserTable::default();
        let mut hashes: Vec<[u8; 32]> = Vec::new();
        let mut sum = [0_u64; 4];
        let shards = self.processes.shards();
        for record in shards.iter().flat_map(|shard| shard.iter()) {
            let mut mirror = RecordMirror::new(record, &mut choosers);
            let number = std::mem::take(&mut mirror.chooser) as usize;
            while hashes.len() < choosers.list.len() {
                let chooser = choosers.list[hashes.len()].clone();
                hashes.push(blake3::hash(&encode_chunk(&Chunk::Choosers(vec![chooser]))).into());
            }
            let bytes = encode_chunk(&Chunk::Records(vec![mirror]));
            let hash = blake3::keyed_hash(&hashes[number], &bytes);
            for (lane, bytes) in sum.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
                let word = bytes
                    .iter()
                    .rev()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte));
                *lane = lane.wrapping_add(word);
            }
        }
        sum
    }
}

fn put(hasher: &mut Hasher, chunk: &Chunk) {
    let bytes = encode_chunk(chunk);
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(&bytes);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use maitred_protocol::{NodeEpoch, NodeName, ProcessKey, RegisterNode, SetProcess};

    use crate::index::Processes;
    use crate::{Command, Entry, Registry};

    fn apply(registry: &mut Registry, command: Command) {
        let entry = Entry {
            time_ms: 1,
            request: None,
            command,
        };
        registry.apply(registry.applied() + 1, entry, &mut Vec::new());
    }

    fn filled() -> Registry {
        let mut registry = Registry::new();
        let name = NodeName::new("eu-1").unwrap();
        let register = RegisterNode {
            name: name.clone(),
            types: Vec::new(),
            address: String::new(),
            labels: Vec::new(),
            capacity: 1_000_000,
            share: Vec::new(),
            ttl_ms: 3_000,
            inventory: Vec::new(),
            kill_bound_ms: 1_000,
            instance: 1,
            last_epoch: None,
        };
        apply(&mut registry, Command::RegisterNode(Box::new(register)));
        for id in 0..2_000 {
            let set = SetProcess {
                key: ProcessKey::new("player", &id.to_string()).unwrap(),
                node: name.clone(),
                epoch: NodeEpoch(1),
                pid: format!("pid-{id}"),
                share: Vec::new(),
                incarnation: None,
            };
            apply(&mut registry, Command::SetProcess(Box::new(set)));
        }
        registry
    }

    #[test]
    fn the_order_of_the_table_does_not_matter_and_each_record_does() {
        let mut registry = filled();
        let digest = registry.digest();
        let walk = |registry: &Registry| -> Vec<_> {
            let shards = registry.processes.shards();
            shards
                .iter()
                .flat_map(|shard| shard.iter())
                .cloned()
                .collect()
        };
        let records = walk(&registry);
        registry.processes = Processes::new();
        for record in records.iter().rev() {
            registry.processes.put(Arc::clone(record));
        }
        let order = walk(&registry);
        assert_eq!(order.len(), 2_000);
        assert!(order != records, "or this test shows nothing");
        assert_eq!(registry.digest(), digest);

        let mut changed = (*records[7]).clone();
        changed.demand += 1;
        registry.processes.put(Arc::new(changed));
        assert_ne!(registry.digest(), digest);
        registry.processes.put(Arc::clone(&records[7]));
        assert_eq!(registry.digest(), digest);

        let mut why = (*records[7]).clone();
        let mut chooser = (*why.why.chooser).clone();
        if let maitred_protocol::Chooser::Node = chooser {
            chooser = maitred_protocol::Chooser::Fallback {
                fallback: maitred_protocol::Fallback::LeastLoaded,
                selector: None,
                cause: String::new(),
            };
        }
        why.why.chooser = Arc::new(chooser);
        registry.processes.put(Arc::new(why));
        assert_ne!(registry.digest(), digest, "a chooser is hashed too");

        registry.processes.remove(&records[7]);
        assert_ne!(registry.digest(), digest);
    }
}

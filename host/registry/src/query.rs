//! Reading the state: lookups, pages, and copies for answers.

use std::ops::Bound;
use std::sync::Arc;

use maitred_protocol::{
    Chooser, ListProcesses, ModuleName, ModuleRecord, NodeEpoch, NodeName, NodeRecord, ProcessKey,
    ProcessRecord, RequestId, TypeName, TypeSpec, limits as wire,
};

use crate::Registry;
use crate::index::Counts;
use crate::module::Module;
use crate::node::Node;
use crate::process::Record;
use crate::session::Known;
use crate::snapshot::weight;

/// Bytes of records in one page; pages of large shares are cut here rather than at the frame.
const PAGE_BYTES_MAX: usize = wire::FRAME_BYTES_MAX / 2;

/// Bytes of modules, nodes or types in one page, as they are weighed: a module may have 800 KiB.
const LIST_BYTES_MAX: usize = wire::FRAME_BYTES_MAX - (128 << 10);

/// Records looked at for one page. A filter that few records pass gives short pages with a `next`,
/// so that no list holds the replica up for long.
const PAGE_SCAN_MAX: usize = 20_000;

/// A page of processes.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// In the order of type and id.
    pub items: Vec<Arc<Record>>,
    /// Where the next page begins.
    pub next: Option<ProcessKey>,
}

impl Registry {
    /// The index of the last entry applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The latest proposer's time that was applied, in milliseconds since 1970.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// When what selectors see of the nodes (not their counts) last changed.
    #[must_use]
    pub fn fleet_revision(&self) -> u64 {
        self.fleet_revision
    }

    /// One process.
    #[must_use]
    pub fn process(&self, key: &ProcessKey) -> Option<&Arc<Record>> {
        self.processes.get(key.type_name.as_str(), key.id.as_str())
    }

    /// How many processes are in each state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.processes.counts()
    }

    /// Processes that are starting or pending, in order.
    pub fn unsettled(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.processes.unsettled()
    }

    /// The same after this key, which need not be one of them.
    pub fn unsettled_after(&self, key: &ProcessKey) -> impl Iterator<Item = &Arc<Record>> {
        self.processes
            .unsettled_after((&key.type_name, key.id.as_str()))
    }

    /// What is known of a request.
    #[must_use]
    pub fn known(&self, request: RequestId) -> Known {
        self.sessions.lookup(request)
    }

    /// Client sessions that are remembered.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// A record as others see it.
    #[must_use]
    pub fn to_wire(&self, record: &Record) -> ProcessRecord {
        record.to_wire(self.address_of(record))
    }

    /// Where a process's node can be reached; empty when its session has ended.
    #[must_use]
    pub fn address_of(&self, record: &Record) -> &str {
        let node = self
            .nodes
            .get(&*record.node)
            .filter(|node| node.epoch() == record.epoch);
        node.map_or("", |node| &node.facts.address)
    }

    /// A page of processes.
    #[must_use]
    pub fn list(&self, list: &ListProcesses) -> Page {
        let limit = if list.limit == 0 {
            wire::PAGE_ITEMS_MAX
        } else {
            list.limit
        } as usize;
        let after = list
            .after
            .as_ref()
            .map(|key| (&key.type_name, key.id.as_str()));
        let prefix = list.id_prefix.as_deref().unwrap_or_default();
        let mut page = Page {
            items: Vec::new(),
            next: None,
        };
        let mut bytes = 0;
        for (looked, record) in self
            .processes
            .range(list.type_name.as_ref(), after, prefix)
            .enumerate()
        {
            let passes = list.node.as_ref().is_none_or(|node| *record.node == *node)
                && list.state.is_none_or(|state| record.state == state);
            if passes {
                bytes += self.wire_bytes(record);
                page.items.push(Arc::clone(record));
            }
            if page.items.len() >= limit || bytes > PAGE_BYTES_MAX || looked >= PAGE_SCAN_MAX {
                page.next = Some(record.key());
                break;
            }
        }
        page
    }

    /// About how many bytes a record takes in an answer, never less than it does.
    fn wire_bytes(&self, record: &Record) -> usize {
        let chooser = match &*record.why.chooser {
            Chooser::Fallback { cause, .. } => cause.len(),
            Chooser::Node | Chooser::Selector { .. } | Chooser::Rebalance | Chooser::Advice => 0,
        };
        let text = record.id.len() + record.pid.len() + record.group().map_or(0, str::len);
        512 + text + chooser + record.share.len() + self.address_of(record).len()
    }

    /// The processes of a node's session, in order.
    pub fn processes_of(
        &self,
        name: &NodeName,
        epoch: NodeEpoch,
    ) -> impl Iterator<Item = &Arc<Record>> {
        let node = self.nodes.get(name).filter(|node| node.epoch() == epoch);
        node.into_iter()
            .flat_map(|node| &node.keys)
            .filter_map(|(type_name, id)| self.processes.get(type_name.as_str(), id))
    }

    /// The processes of a node's session after this one of it, in order.
    pub fn processes_after(
        &self,
        name: &NodeName,
        epoch: NodeEpoch,
        after: Option<(Arc<TypeName>, Arc<str>)>,
    ) -> impl Iterator<Item = &Arc<Record>> {
        let node = self.nodes.get(name).filter(|node| node.epoch() == epoch);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = node
            .into_iter()
            .flat_map(move |node| node.keys.range((from.clone(), Bound::Unbounded)));
        keys.filter_map(|(type_name, id)| self.processes.get(type_name.as_str(), id))
    }

    /// One node.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.values()
    }

    /// Whether a node takes no new processes.
    #[must_use]
    pub fn is_cordoned(&self, name: &NodeName) -> bool {
        self.cordoned.contains(name)
    }

    /// A node as others see it; what only the leader knows (lease, load) is left blank.
    #[must_use]
    pub fn node_to_wire(&self, node: &Node) -> NodeRecord {
        NodeRecord {
            name: node.facts.name.clone(),
            epoch: node.epoch(),
            types: node.facts.types.clone(),
            address: node.facts.address.clone(),
            labels: node.facts.labels.clone(),
            capacity: node.facts.capacity,
            share: node.share.to_vec(),
            ttl_ms: node.ttl_ms,
            cordoned: self.is_cordoned(&node.facts.name),
            processes: node.processes(),
            used: node.used,
            suspect: false,
            lease_left_ms: 0,
            load: None,
            revision: node.revision,
            kill_bound_ms: node.kill_bound_ms,
            damped_ms: 0,
            drain: self.drains.get(&node.facts.name).copied(),
            stopping: self.held_by_count(node.epoch()),
        }
    }

    /// One module.
    #[must_use]
    pub fn module(&self, name: &ModuleName) -> Option<&Module> {
        self.modules.get(name)
    }

    /// All modules, by name.
    pub fn modules(&self) -> impl Iterator<Item = (&ModuleName, &Module)> {
        self.modules.iter()
    }

    /// A page of modules after one, as many as fit a frame, and after which one the next page begins.
    #[must_use]
    pub fn list_modules(
        &self,
        after: Option<&ModuleName>,
    ) -> (Vec<ModuleRecord>, Option<ModuleName>) {
        let modules = self.modules.range((from(after), Bound::Unbounded));
        let records = modules.map(|(name, module)| (name, module.to_wire(name)));
        page(records, weight::of_module_record)
    }

    /// A page of nodes after one, as many as fit a frame, each as `spelled_out`, and after which one the
    /// next page begins.
    #[must_use]
    pub fn list_nodes(
        &self,
        after: Option<&NodeName>,
        spelled_out: impl Fn(&Node) -> NodeRecord,
    ) -> (Vec<NodeRecord>, Option<NodeName>) {
        let nodes = self.nodes.range((from(after), Bound::Unbounded));
        let records = nodes.map(|(name, node)| (name, spelled_out(node)));
        page(records, weight::of_node_record)
    }

    /// A page of the types that were described after one, as many as fit a frame, and after which one the
    /// next page begins.
    #[must_use]
    pub fn list_types(&self, after: Option<&TypeName>) -> (Vec<TypeSpec>, Option<TypeName>) {
        let types = self.types.range((from(after), Bound::Unbounded));
        let specs = types.map(|(name, spec)| (name, (**spec).clone()));
        page(specs, weight::of_type)
    }

    /// A type's defaults; those of [`TypeSpec::new`] when nobody described it.
    #[must_use]
    pub fn type_spec(&self, name: &TypeName) -> Arc<TypeSpec> {
        self.described_type(name)
            .map_or_else(|| Arc::new(TypeSpec::new(name.clone())), Arc::clone)
    }

    /// A type's defaults, when somebody described it.
    #[must_use]
    pub fn described_type(&self, name: &TypeName) -> Option<&Arc<TypeSpec>> {
        self.types.get(name)
    }

    /// All types that were described, by name.
    pub fn types(&self) -> impl Iterator<Item = &Arc<TypeSpec>> {
        self.types.values()
    }
}

fn from<K>(after: Option<&K>) -> Bound<&K> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

/// The first of these, as many as fit a frame, and the last one's name when there are more.
fn page<'a, K: Clone + 'a, T>(
    records: impl Iterator<Item = (&'a K, T)>,
    weigh: impl Fn(&T) -> usize,
) -> (Vec<T>, Option<K>) {
    let (mut items, mut last, mut room) = (Vec::new(), None, LIST_BYTES_MAX);
    for (name, record) in records {
        match (room.checked_sub(weigh(&record)), last) {
            (None, Some(last)) => return (items, Some(K::clone(last))),
            // One alone fits a frame, whatever it is.
            (left, _) => room = left.unwrap_or(0),
        }
        items.push(record);
        last = Some(name);
    }
    (items, None)
}

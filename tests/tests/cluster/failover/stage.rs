//! A group, game nodes in processes of their own, and the looks that all tests of failover take at them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use maitred_client::Client;
use maitred_protocol::{
    Incarnation, ListProcesses, NodeName, NodeRecord, OnNodeLost, ProcessKey, ProcessState,
    Restart, TypeName, TypeSpec,
};
use maitred_tests::relay::{Faults, Lane, Who};

use super::ledger::{self, Entry, Event, Lives};
use super::node::{GameNode, Spec};
use crate::group::{Group, LOOK, Options, PATIENCE, seed};

/// The type of the processes.
pub(super) const ROOM: &str = "room";
/// Creates side by side.
const LANES: usize = 32;

pub(super) struct Stage {
    pub(super) group: Group,
    pub(super) client: Client,
    pub(super) nodes: Vec<GameNode>,
}

/// A node's name.
pub(super) fn name(of: &str) -> NodeName {
    NodeName::new(of).unwrap()
}

/// Flags of all three hosts.
pub(super) fn flags(words: &[&str]) -> Options {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    Options {
        flags: vec![words; 3],
        config: None,
    }
}

impl Stage {
    /// A group that creates processes of lost nodes again, at this level.
    pub(super) async fn start(restart: Restart, options: Options) -> Self {
        let group = Group::start(seed(), options).await;
        let client = group.client().await;
        let spec = TypeSpec {
            on_node_lost: OnNodeLost::Recreate,
            restart,
            ..TypeSpec::new(TypeName::new(ROOM).unwrap())
        };
        client.put_type(spec).await.unwrap();
        std::fs::write(group.folder().join("ledger"), "").unwrap();
        Self {
            group,
            client,
            nodes: Vec::new(),
        }
    }

    fn ledger(&self) -> PathBuf {
        self.group.folder().join("ledger")
    }

    fn sources(&self) -> BTreeSet<SocketAddr> {
        let machines = self.group.machines.iter();
        machines
            .flat_map(|machine| machine.relay.sources())
            .collect()
    }

    /// Starts a process; its nodes serve when this returns.
    pub(super) async fn run(&mut self, spec: Spec) -> usize {
        let before = self.sources();
        let at = self.spawn(spec);
        self.ready(at).await;
        // Nobody else has come meanwhile.
        let sources = self.sources();
        self.nodes[at].sources = sources.difference(&before).copied().collect();
        at
    }

    /// Starts a process, which need not be ready when this returns.
    pub(super) fn spawn(&mut self, spec: Spec) -> usize {
        let node = GameNode::spawn(self.group.folder(), &self.group.addresses(), spec);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub(super) async fn ready(&self, at: usize) {
        let node = &self.nodes[at];
        let what = format!("{:?} serve", node.spec.names);
        self.until(&what, |stage| {
            assert_eq!(node.died_us(), None, "it has ended\n{}", node.log());
            let entries = stage.entries();
            let ready = entries
                .iter()
                .filter(|entry| entry.pid == node.pid && matches!(entry.event, Event::Ready(_)));
            (ready.count() == node.spec.names.len()).then_some(())
        })
        .await;
    }

    /// Waits until there is what is looked for.
    pub(super) async fn until<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let late = begun.elapsed() > PATIENCE;
            assert!(!late, "not after {PATIENCE:?}: {what}; {}", self.summary());
            tokio::time::sleep(LOOK).await;
        }
    }

    fn summary(&self) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (_, node, _) in self.lives().running() {
            *counts.entry(node).or_default() += 1;
        }
        format!("what runs: {counts:?}")
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        ledger::read(&self.ledger()).unwrap()
    }

    /// What one process has written.
    pub(super) fn entries_of(&self, at: usize) -> Vec<Entry> {
        let mut entries = self.entries();
        entries.retain(|entry| entry.pid == self.nodes[at].pid);
        entries
    }

    pub(super) fn lives(&self) -> Lives {
        let deaths = self.nodes.iter();
        let deaths = deaths.filter_map(|node| Some((node.pid, node.died_us()?)));
        Lives::of(&self.entries(), &deaths.collect())
    }

    /// Waits until so many processes run.
    pub(super) async fn running(&self, what: &str, count: usize) -> Lives {
        self.until(what, |stage| {
            let lives = stage.lives();
            (lives.running().len() == count).then_some(lives)
        })
        .await
    }

    /// Creates that many processes, many at a time; their keys.
    pub(super) async fn create(&self, prefix: &str, count: usize) -> Vec<ProcessKey> {
        let key = |number| ProcessKey::new(ROOM, &format!("{prefix}-{number:05}")).unwrap();
        let keys: Vec<ProcessKey> = (0..count).map(key).collect();
        let lanes = (0..LANES.min(count)).map(|lane| {
            let client = self.client.clone();
            let keys: Vec<_> = keys.iter().skip(lane).step_by(LANES).cloned().collect();
            tokio::spawn(async move {
                for key in keys {
                    let made = client.create(key).deadline(PATIENCE).send().await;
                    assert!(made.unwrap().created);
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.unwrap();
        }
        keys
    }

    pub(super) async fn node(&self, of: &str) -> NodeRecord {
        self.client.get_node(&name(of)).await.unwrap()
    }

    /// Waits until the registry's record of a node is as wished.
    pub(super) async fn node_is(
        &self,
        of: &str,
        what: &str,
        wished: impl Fn(&NodeRecord) -> bool,
    ) -> NodeRecord {
        let begun = Instant::now();
        loop {
            let node = self.client.get_node(&name(of)).await;
            if let Ok(node) = &node
                && wished(node)
            {
                return node.clone();
            }
            let late = begun.elapsed() > PATIENCE;
            assert!(!late, "not after {PATIENCE:?}: {of} {what}: {node:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) async fn cordon(&self, nodes: &[&str], cordoned: bool) {
        for of in nodes {
            self.client.cordon(&name(of), cordoned).await.unwrap();
        }
    }

    /// Waits until nothing is on its way any more; then the nodes run what the registry says, so many,
    /// and no more. Nothing may have been done that no node may ever do.
    pub(super) async fn settled(&self, count: usize) -> Lives {
        self.settled_within(PATIENCE, count).await
    }

    /// The same in a time that is promised.
    pub(super) async fn settled_within(&self, bound: Duration, count: usize) -> Lives {
        let begun = Instant::now();
        loop {
            let status = self.client.status().await.unwrap();
            let under_way = status.starting + status.pending + status.held;
            let rests = status.role == "leader" && under_way == 0;
            let recorded = if rests {
                self.recorded().await
            } else {
                BTreeSet::new()
            };
            let lives = self.lives();
            if rests && recorded.len() == count && recorded == lives.running() {
                assert_eq!(lives.breaches, Vec::<String>::new());
                return lives;
            }
            if begun.elapsed() > bound {
                let running = lives.running();
                let pending = self.client.list_pending(None, 3).await;
                panic!(
                    "not after {bound:?}; {}; only in the registry: {:?}; only on nodes: {:?}; \
                     waiting, among others: {pending:#?}; {:#?}; {status:#?}",
                    self.summary(),
                    recorded.difference(&running).take(9).collect::<Vec<_>>(),
                    running.difference(&recorded).take(9).collect::<Vec<_>>(),
                    self.client.nodes().await,
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What runs, as the registry says.
    async fn recorded(&self) -> BTreeSet<(ProcessKey, String, Incarnation)> {
        let records = self.client.list_all(ListProcesses::default()).await;
        let records = records.unwrap().into_iter();
        let running = records.filter(|one| one.state == ProcessState::Running);
        running
            .map(|one| (one.key, one.node.to_string(), one.incarnation))
            .collect()
    }

    /// Cuts a process off from all hosts, or lets it back.
    pub(super) fn cut(&self, at: usize, dead: bool) {
        let lane = if dead { Lane::dead() } else { Lane::default() };
        let sources = &self.nodes[at].sources;
        assert_ne!(sources.len(), 0, "it calls from somewhere");
        for machine in &self.group.machines {
            for source in sources {
                machine
                    .relay
                    .faults(Who::Source(*source), Faults::both(lane));
            }
        }
    }

    /// Waits until so many processes have no node, and none of them may still go on anywhere unless that
    /// takes proof.
    pub(super) async fn pending(&self, count: usize) {
        let begun = Instant::now();
        loop {
            let status = self.client.status().await.unwrap();
            let lost = self.client.lost_nodes().await.unwrap();
            let bounds = lost.iter().map(|node| node.safe).sum::<u32>();
            if status.pending == count as u64 && status.starting == 0 && bounds == 0 {
                return;
            }
            let late = begun.elapsed() > PATIENCE;
            assert!(!late, "{count} are to wait: {status:#?}, {lost:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Packets of a process that met a cut.
    pub(super) fn dropped(&self, at: usize) -> u64 {
        let mut dropped = 0;
        for machine in &self.group.machines {
            for source in &self.nodes[at].sources {
                dropped += machine.relay.counts(Who::Source(*source)).to_target.cut;
            }
        }
        dropped
    }

    /// Waits until so many sessions are lost of which something may still go on.
    pub(super) async fn lost(&self, count: usize) {
        let begun = Instant::now();
        loop {
            let lost = self.client.lost_nodes().await.unwrap();
            if lost.len() == count {
                return;
            }
            let late = begun.elapsed() > PATIENCE;
            assert!(!late, "{lost:?}; {}", self.summary());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Kills the leader; its machine.
    pub(super) async fn kill_leader(&mut self) -> usize {
        let (leader, _) = self.group.whole(&self.client).await;
        self.group.machines[leader].kill();
        leader
    }
}

/// No two lives of one key at a time.
pub(super) fn assert_apart(lives: &Lives) {
    let overlaps: Vec<_> = lives.overlaps().collect();
    assert!(
        overlaps.is_empty(),
        "{} times two lives at a time, such as {:#?}",
        overlaps.len(),
        overlaps.first()
    );
}

/// Each of these has had so many lives.
pub(super) fn assert_lives(lives: &Lives, keys: &[ProcessKey], count: usize) {
    for key in keys {
        let all: Vec<_> = lives.of_key(key).collect();
        assert_eq!(all.len(), count, "{key} has had other lives: {all:#?}");
    }
}

/// A wait that is itself what is done to the nodes.
pub(super) async fn fault_lasts(span: Duration) {
    tokio::time::sleep(span).await;
}

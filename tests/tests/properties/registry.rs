//! The registry under random entries, beside a twin that reads every entry back and is replaced by
//! a loaded snapshot now and then.
//!
//! After every entry: both came to the same outcome and the same events; a node's counts are those
//! of its records; a key has one record, on a node that has that session; incarnations only grow.

use std::collections::BTreeMap;

use maitred_protocol::{
    Chooser, ClientId, CreateOptions, Digest, Drain, Fallback, Incarnation, ListProcesses,
    ModuleKind, ModuleName, NodeEpoch, NodeName, OnNodeLost, ProcessKey, ProcessState,
    RegisterNode, RequestId, Restart, SetProcess, TypeName, TypeSpec, Why,
};
use maitred_registry::random::Random;
use maitred_registry::{
    AbortCause, Change, Command, Counts, Entry, Event, Loader, Outcome, Place, PushModule,
    Registry, Reserve,
};

struct Run {
    random: Random,
    registry: Registry,
    twin: Registry,
    index: u64,
    clients: Vec<ClientId>,
    incarnations: BTreeMap<ProcessKey, Incarnation>,
}

fn name(number: u32) -> NodeName {
    NodeName::new(format!("n{number}")).unwrap()
}

fn module(number: u32) -> ModuleName {
    ModuleName::new(format!("m{number}")).unwrap()
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            registry: Registry::new(),
            twin: Registry::new(),
            index: 0,
            clients: vec![ClientId(1)],
            incarnations: BTreeMap::new(),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.below(100) < percent
    }

    fn key(&mut self) -> ProcessKey {
        let type_name = ["player", "room"][self.random.below(2) as usize];
        ProcessKey::new(type_name, &self.random.below(5).to_string()).unwrap()
    }

    /// The present life of a key, or now and then another.
    fn life(&mut self, key: &ProcessKey) -> Incarnation {
        let other = Incarnation(u64::from(self.random.below(self.index as u32 + 2)));
        let record = self.registry.process(key);
        let life = record.map_or(other, |record| record.incarnation);
        if self.chance(90) { life } else { other }
    }

    /// A node and its present session, or now and then another.
    fn node(&mut self) -> (NodeName, NodeEpoch) {
        let name = name(self.random.below(4));
        let epoch = self.registry.node(&name).map(maitred_registry::Node::epoch);
        let other = NodeEpoch(u64::from(self.random.below(self.index as u32 + 2)));
        let epoch = epoch.filter(|_| self.random.below(10) > 0).unwrap_or(other);
        (name, epoch)
    }

    fn place(&mut self) -> Place {
        let (node, epoch) = self.node();
        let selector = module(self.random.below(2));
        let canary = self.registry.canary_module(&selector);
        let active = match canary.filter(|_| self.chance(50)) {
            Some(canary) => Ok(canary),
            None => self.registry.active_module(&selector, ModuleKind::Selector),
        };
        let chooser = match &active {
            Ok(active) => Chooser::Selector {
                name: selector,
                version: active.version,
                digest: active.digest,
                config: active.config_hash,
                canary: active.canary,
            },
            Err(cause) => Chooser::Fallback {
                fallback: Fallback::LeastLoaded,
                selector: Some(selector),
                cause: cause.clone(),
            },
        };
        let why = Why {
            chooser,
            seed: self.random.next_u32(),
            micros: 1,
            candidates: 1,
        };
        Place {
            node,
            epoch,
            activated: active.ok().map(|active| active.activated),
            why,
        }
    }

    fn reserve(&mut self) -> Reserve {
        let group = self.chance(50).then(|| "g".to_owned());
        let options = CreateOptions {
            group,
            demand: self.random.below(3),
            attempts: 3,
            ..CreateOptions::default()
        };
        Reserve {
            key: self.key(),
            args: vec![1; self.random.below(4) as usize],
            selector: module(0),
            callback: module(1),
            options,
            deadline_at_ms: 1_000,
            place: self.place(),
        }
    }

    fn register(&mut self) -> RegisterNode {
        let (name, _) = self.node();
        let node = self.registry.node(&name);
        let records = node.map(|node| self.registry.processes_of(&name, node.epoch()));
        let held: Vec<_> = records
            .into_iter()
            .flatten()
            .map(|record| (record.key(), record.incarnation))
            .collect();
        let mut inventory: Vec<_> = held.into_iter().filter(|_| self.chance(70)).collect();
        if self.chance(30) {
            // A life that is over, and one that is named twice.
            let key = self.key();
            inventory.push((key, Incarnation(1)));
            inventory.extend(inventory.first().cloned());
        }
        RegisterNode {
            name,
            types: Vec::new(),
            address: "there".to_owned(),
            labels: Vec::new(),
            capacity: 1 + self.random.below(12),
            share: Vec::new(),
            ttl_ms: 1_000,
            inventory,
            kill_bound_ms: 1_000,
            instance: 1 + u64::from(self.random.below(2)),
            last_epoch: self.chance(30).then_some(NodeEpoch(1 + self.index / 2)),
        }
    }

    fn command(&mut self) -> Command {
        let key = self.key();
        let incarnation = self.life(&key);
        let (name, epoch) = self.node();
        match self.random.below(26) {
            0..4 => Command::Reserve(Box::new(self.reserve())),
            4..7 => Command::Confirm {
                key,
                incarnation,
                pid: "p".to_owned(),
                share: vec![2],
            },
            7..9 => Command::Reassign {
                key,
                incarnation,
                cause: self.chance(50).then(|| "busy".to_owned()),
                place: self.place(),
            },
            9 => Command::Abort {
                key,
                incarnation,
                failure: Some("busy".to_owned()),
                cause: AbortCause::SpawnFailed,
                over: self.chance(50),
            },
            10 => Command::Unplace {
                key,
                incarnation,
                cause: "lost".to_owned(),
                over: self.chance(50),
            },
            11..13 => Command::SetProcess(Box::new(SetProcess {
                key,
                node: name,
                epoch,
                pid: "own".to_owned(),
                share: Vec::new(),
                incarnation: self.chance(50).then_some(incarnation),
            })),
            13 => Command::DelProcess {
                key,
                incarnation: self.chance(50).then_some(incarnation),
                ended: self.chance(50),
            },
            14 => Command::Missing {
                node: name,
                epoch,
                processes: vec![(key, incarnation)],
            },
            15..17 => Command::RegisterNode(Box::new(self.register())),
            17 => Command::Expire { name, epoch },
            18 => Command::UpdateNode {
                name,
                epoch,
                labels: None,
                capacity: Some(1 + self.random.below(12)),
                share: None,
            },
            19 => Command::CordonNode {
                name,
                cordoned: self.chance(50),
            },
            20..24 => self.failover_command(key, incarnation, (name, epoch)),
            _ => self.other_command(),
        }
    }

    /// Lives that may still go on, nodes that are lost, and what operators do about it.
    fn failover_command(
        &mut self,
        key: ProcessKey,
        incarnation: Incarnation,
        (name, epoch): (NodeName, NodeEpoch),
    ) -> Command {
        let holds = self.registry.holds(&key);
        let held = holds.first().map(|hold| hold.incarnation);
        let lost = self.registry.lost().next().map(|(epoch, _)| epoch);
        match self.random.below(9) {
            0..3 => Command::Released(vec![(key, held.unwrap_or(incarnation))]),
            3 | 4 => Command::KillBoundPassed(lost.unwrap_or(epoch)),
            5 => Command::ConfirmDead {
                name,
                epoch: self.chance(50).then_some(epoch),
                types: Vec::new(),
                proof: String::new(),
            },
            6 => Command::DrainNode {
                name,
                drain: self.chance(70).then_some(Drain {
                    deadline_ms: 1_000,
                    per_second: 1,
                }),
            },
            7 => Command::GiveUp { key, incarnation },
            _ => Command::RaiseKillBound {
                name,
                epoch,
                kill_bound_ms: 1_000 * self.random.below(4),
            },
        }
    }

    fn other_command(&mut self) -> Command {
        let name = module(self.random.below(2));
        match self.random.below(10) {
            0 => Command::OpenSession,
            1 => {
                let type_name = TypeName::new("player").unwrap();
                let mut spec = TypeSpec::new(type_name);
                spec.on_node_lost = match self.chance(50) {
                    true => OnNodeLost::Recreate,
                    false => OnNodeLost::Forget,
                };
                spec.restart = match self.random.below(3) {
                    0 => Restart::Fast,
                    1 => Restart::Strict,
                    _ => Restart::Safe,
                };
                Command::PutType(Box::new(spec))
            }
            2 | 3 => Command::PushModule(Box::new(PushModule {
                name,
                kind: ModuleKind::Selector,
                digest: Digest::of(&[self.random.below(6) as u8]),
                bytes: 1,
                title: "t".to_owned(),
                features: Vec::new(),
                world: "selector".to_owned(),
                abi: "0.2.0".to_owned(),
                hooks: Vec::new(),
                signature: None,
                is_trusted: false,
            })),
            4 | 5 => Command::ActivateModule {
                name,
                version: self.random.below(4),
                config: self.chance(50).then(|| "{}".to_owned()),
                percent: if self.chance(50) { 100 } else { 30 },
                types: Vec::new(),
                guard: if self.chance(80) { "" } else { "traps>0" }.to_owned(),
            },
            6 => Command::RollbackModule {
                name,
                activated: None,
                cause: None,
            },
            7 => {
                let canary = self.registry.canary_module(&name);
                let active = self.registry.active_module(&name, ModuleKind::Selector);
                let watched = canary.filter(|_| self.chance(50)).or(active.ok());
                Command::RollbackModule {
                    name,
                    activated: watched.map(|watched| watched.activated),
                    cause: Some("traps>0: 1".to_owned()),
                }
            }
            8 => Command::ShadowModule {
                name,
                shadow: self.chance(70).then(|| (self.random.below(3), None)),
            },
            _ => Command::RemoveModule(name, self.random.below(4)),
        }
    }

    fn step(&mut self) {
        self.index += 1 + u64::from(self.random.below(3));
        let command = self.command();
        let request = self.chance(80).then(|| RequestId {
            client: self.clients[self.random.below(self.clients.len() as u32) as usize],
            sequence: u64::from(self.random.below(400)),
        });
        let entry = Entry {
            time_ms: self.index,
            request,
            command,
        };
        let bytes = entry.encode();
        let (mut events, mut twin_events) = (Vec::new(), Vec::new());
        let twin_entry = Entry::decode(&bytes, maitred_replica::LEVEL_MAX).unwrap();
        assert_eq!(entry, twin_entry);
        let outcome = self.registry.apply(self.index, entry, &mut events);
        let twin = self.twin.apply(self.index, twin_entry, &mut twin_events);
        assert_eq!(outcome, twin, "at {}", self.index);
        assert_eq!(events, twin_events, "at {}", self.index);
        if let Outcome::Session(client) = outcome {
            self.clients.push(client);
        }
        if let Outcome::Reserved(record) = &outcome {
            assert!(
                !self.registry.is_held(&record.key()),
                "a held key was given away"
            );
            let node = self.registry.node(&record.node).unwrap();
            assert!(node.used <= node.facts.capacity, "over capacity");
        }
        self.check_events(&events);
        self.check_state();
        if self.chance(3) {
            self.twin = reload(&self.registry);
        }
    }

    fn check_events(&mut self, events: &[Event]) {
        for event in events {
            let Event::Process(change, record) = event else {
                continue;
            };
            let last = self.incarnations.entry(record.key()).or_default();
            let is_new = record.incarnation.0 == self.index;
            assert!(record.incarnation >= *last, "an incarnation went back");
            if *change == Change::Reserved && record.incarnation != *last {
                assert!(is_new, "a reservation's incarnation is its index");
            }
            *last = record.incarnation;
        }
    }

    fn check_state(&self) {
        let registry = &self.registry;
        let records = registry.list(&ListProcesses::default()).items;
        let mut counts = Counts::default();
        for record in &records {
            match record.state {
                ProcessState::Running => counts.running += 1,
                ProcessState::Starting => counts.starting += 1,
                ProcessState::Pending => counts.pending += 1,
            }
            let node = registry.node(&record.node);
            let lives = node.is_some_and(|node| node.epoch() == record.epoch);
            assert!(lives || !record.is_placed(), "{record:?} has no node");
        }
        for epoch in registry.holding() {
            let lives = registry.held_by(epoch);
            for (key, life) in lives {
                let mut holds = registry.holds(&key).iter();
                let same = holds.any(|hold| hold.incarnation == life && hold.epoch == epoch);
                assert!(same, "{key}@{life} is held by {epoch} alone");
                let current = registry.process(&key);
                let runs =
                    current.is_some_and(|record| record.is_placed() && record.incarnation == life);
                assert!(!runs, "{key}@{life} runs, and is held");
            }
        }
        for (epoch, lost) in registry.lost() {
            let live = registry
                .node(&lost.name)
                .is_some_and(|node| node.epoch() == epoch);
            assert!(!live, "{} is lost and lives", lost.name);
            assert!(
                registry.held_by(epoch).next().is_some(),
                "{epoch} holds nothing"
            );
        }
        assert_eq!(counts, registry.counts());
        let unsettled = records
            .iter()
            .filter(|record| record.state != ProcessState::Running);
        assert!(unsettled.eq(registry.unsettled()));
        for node in registry.nodes() {
            let mine = |record: &&std::sync::Arc<maitred_registry::Record>| {
                record.is_placed() && record.epoch == node.epoch()
            };
            let here: Vec<_> = records.iter().filter(mine).collect();
            let (mut of_type, mut of_group) = (BTreeMap::new(), BTreeMap::new());
            for record in &here {
                *of_type.entry(record.type_name.clone()).or_insert(0) += 1;
                if let Some(group) = record.group() {
                    *of_group.entry(group.to_owned()).or_insert(0) += 1;
                }
            }
            let used: u32 = here.iter().map(|record| record.demand).sum();
            assert_eq!(node.used, used, "units of {}", node.name);
            assert_eq!(node.processes() as usize, here.len(), "on {}", node.name);
            assert_eq!(node.of_type, of_type, "types of {}", node.name);
            assert_eq!(node.of_group, of_group, "groups of {}", node.name);
            let listed = registry.processes_of(&node.name, node.epoch());
            assert!(listed.eq(here.iter().copied()), "keys of {}", node.name);
        }
    }
}

/// The same state, through the bytes of a snapshot.
fn reload(registry: &Registry) -> Registry {
    let mut loader = Loader::new();
    let snapshot = registry.snapshot();
    let loaded = snapshot.encode(|chunk| loader.chunk(&chunk));
    loaded.unwrap();
    let loaded = loader.finish().unwrap();
    assert_eq!(loaded.applied(), registry.applied());
    assert_eq!(loaded.fleet_revision(), registry.fleet_revision());
    assert_eq!(loaded.counts(), registry.counts());
    loaded
}

#[test]
fn random_entries_keep_the_registry_consistent() {
    super::seeds(150, |seed| {
        let mut run = Run::new(seed);
        run.index = 1;
        for registry in [&mut run.registry, &mut run.twin] {
            let command = Command::OpenSession;
            let (time_ms, request) = (1, None);
            let entry = Entry {
                time_ms,
                request,
                command,
            };
            registry.apply(1, entry, &mut Vec::new());
        }
        for _ in 0..600 {
            run.step();
        }
    });
}

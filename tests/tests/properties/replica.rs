//! A replica under random inputs: requests and retries, spawns that end anyhow, nodes that come, go
//! and fall silent, time, and crashes that lose what was not written.
//!
//! All along: a ticket is answered once; no life of a key is started while an older one was not
//! stopped; what runs survives a crash. In the end, when all is quiet: every ticket has its answer,
//! every create has ended, every process that is wanted runs, and nothing is left behind: no timer,
//! no placement in flight.

use std::collections::BTreeSet;

use maitred_protocol::{
    CreateOptions, CreateProcess, Incarnation, ListProcesses, ModuleName, NodeName, OnConflict,
    OnNodeLost, ProcessKey, ProcessState, RegisterNode, Request, Response, SetProcess, TypeName,
    TypeSpec,
};
use maitred_registry::random::Random;
use maitred_replica::{Config, Disk, Input, Spawned};
use maitred_tests::driver::{Driver, Seen};

use super::world::{Asked, World};

struct Run {
    random: Random,
    driver: Option<Driver>,
    world: World,
    alive: BTreeSet<NodeName>,
    beat: u64,
    ticket: u64,
    /// Creates that were asked for, to be asked for again.
    creates: Vec<(u64, Request)>,
}

fn name(number: u32) -> NodeName {
    NodeName::new(format!("n{number}")).unwrap()
}

impl Run {
    fn new(seed: u64) -> Self {
        let config = Config {
            snapshot_entries: 40,
            seed,
            ..Driver::config()
        };
        let mut run = Self {
            random: Random::new(seed),
            driver: Some(Driver::ready(config)),
            world: World::default(),
            alive: BTreeSet::new(),
            beat: 0,
            ticket: 0,
            creates: Vec::new(),
        };
        let mut spec = TypeSpec::new(TypeName::new("player").unwrap());
        spec.on_node_lost = OnNodeLost::Recreate;
        let client = run.driver().client;
        run.ask(Request::PutType(client, Box::new(spec)), Asked::Other);
        run
    }

    fn driver(&mut self) -> &mut Driver {
        self.driver.as_mut().unwrap()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.below(100) < percent
    }

    fn key(&mut self) -> ProcessKey {
        let type_name = ["player", "room"][self.random.below(2) as usize];
        ProcessKey::new(type_name, &self.random.below(3).to_string()).unwrap()
    }

    /// Takes in what left the replica.
    fn look(&mut self) {
        for seen in std::mem::take(&mut self.driver().seen) {
            self.world.see(seen);
        }
    }

    fn ask_as(&mut self, sequence: u64, request: Request, asked: Asked) {
        self.ticket += 1;
        let ticket = self.ticket;
        self.world.asked.insert(ticket, asked);
        self.driver().request(ticket, sequence, request);
        self.look();
    }

    fn ask(&mut self, request: Request, asked: Asked) {
        let sequence = self.ticket + 1_001;
        self.ask_as(sequence, request, asked);
    }

    fn register(&mut self, name: NodeName, capacity: u32) {
        let inventory = self.world.inventory(&name);
        let register = RegisterNode {
            address: name.to_string(),
            name: name.clone(),
            types: Vec::new(),
            labels: Vec::new(),
            capacity,
            share: Vec::new(),
            ttl_ms: 1_000,
            inventory: inventory.clone(),
            kill_bound_ms: 500,
            instance: 1,
            last_epoch: None,
        };
        self.alive.insert(name.clone());
        let client = self.driver().client;
        let asked = Asked::Session(name, inventory);
        self.ask(Request::RegisterNode(client, Box::new(register)), asked);
    }

    fn attach(&mut self, name: NodeName) {
        let node = self.driver().replica.registry().node(&name);
        let Some(epoch) = node.map(maitred_registry::Node::epoch) else {
            return;
        };
        let inventory = self.world.inventory(&name);
        let asked = Asked::Session(name.clone(), inventory.clone());
        let request = Request::AttachNode {
            name,
            epoch,
            inventory,
        };
        self.ask(request, asked);
    }

    fn pass(&mut self, ms: u64) {
        self.driver().pass(ms);
        self.look();
        self.beat += 1;
        for name in self.alive.clone() {
            let node = self.driver().replica.registry().node(&name);
            if let Some(epoch) = node.map(maitred_registry::Node::epoch) {
                let beat = self.beat;
                self.driver().keep_alive(epoch, beat);
            }
        }
        self.look();
    }

    fn create(&mut self) -> Request {
        let on_conflict =
            [OnConflict::Return, OnConflict::Fail, OnConflict::Wait][self.random.below(3) as usize];
        let options = CreateOptions {
            on_conflict,
            deadline_ms: 100 + self.random.below(3_000),
            attempts: self.random.below(4) as u8,
            back_off_ms: self.random.below(300),
            demand: self.random.below(3),
            ..CreateOptions::default()
        };
        let create = CreateProcess {
            key: self.key(),
            args: Vec::new(),
            selector: None,
            callback: None,
            options,
        };
        Request::CreateProcess(self.driver().client, Box::new(create))
    }

    fn end_spawn(&mut self) {
        let spawns = self.driver().spawns.len() as u32;
        if spawns == 0 {
            return;
        }
        let at = self.random.below(spawns) as usize;
        let job = self.driver().spawns[at].clone();
        let result = match self.random.below(10) {
            0..7 => Spawned::Started {
                pid: "p".to_owned(),
                share: Vec::new(),
            },
            7..9 => Spawned::Elsewhere("busy".to_owned()),
            _ => Spawned::GiveUp("no".to_owned()),
        };
        let over = !matches!(result, Spawned::Started { .. }) && self.random.below(2) == 0;
        self.driver().spawned(&job.key, result, over);
        self.look();
    }

    fn change(&mut self) {
        let client = self.driver().client;
        let key = self.key();
        let name = name(self.random.below(3));
        let node = self.driver().replica.registry().node(&name);
        let epoch = node.map(maitred_registry::Node::epoch).unwrap_or_default();
        let module = ModuleName::new("least-loaded").unwrap();
        let request = match self.random.below(8) {
            0..3 => Request::DelProcess {
                client,
                key,
                incarnation: None,
                ended: false,
            },
            3 => Request::SetProcess(
                client,
                Box::new(SetProcess {
                    key,
                    node: name,
                    epoch,
                    pid: "own".to_owned(),
                    share: Vec::new(),
                    incarnation: None,
                }),
            ),
            4 => Request::CordonNode {
                client,
                name,
                cordoned: self.chance(40),
            },
            5 => Request::ActivateModule {
                client,
                name: module,
                version: 1,
                config: None,
                percent: 100,
                types: Vec::new(),
                guard: String::new(),
            },
            6 => Request::DeregisterNode {
                client,
                name,
                epoch,
            },
            _ => Request::GetProcess { key, stale: false },
        };
        self.ask(request, Asked::Other);
    }

    fn running(&mut self) -> BTreeSet<(ProcessKey, Incarnation)> {
        let registry = self.driver().replica.registry();
        let records = registry.list(&ListProcesses::default()).items;
        records
            .iter()
            .filter(|record| record.state == ProcessState::Running)
            .map(|record| (record.key(), record.incarnation))
            .collect()
    }

    fn crash(&mut self) {
        let before = self.running();
        let driver = self.driver.take().unwrap();
        let written = self.chance(50);
        let restarted = match written {
            true => driver.crash_after_write(),
            false => driver.crash(),
        };
        self.driver = Some(restarted.unwrap());
        self.world.host_died();
        self.look();
        let after = self.running();
        if !written {
            assert!(before.is_subset(&after), "{before:?} became {after:?}");
        }
        for number in 0..3 {
            let name = name(number);
            match self.alive.contains(&name) {
                true => self.attach(name),
                // What was to be told to a node that nobody can reach is told when it attaches.
                false => self.world.node_died(&name),
            }
        }
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0..10 => {
                let create = self.create();
                self.creates.push((self.ticket + 1_001, create.clone()));
                self.ask(create, Asked::Other);
            }
            10..12 if !self.creates.is_empty() => {
                let at = self.random.below(self.creates.len() as u32) as usize;
                let (sequence, create) = self.creates[at].clone();
                self.ask_as(sequence, create, Asked::Other);
            }
            12..20 => self.end_spawn(),
            20..26 => self.change(),
            26..32 => {
                let ms = u64::from(10 + self.random.below(300));
                self.pass(ms);
            }
            32 => {
                let (name, capacity) = (name(self.random.below(3)), 1 + self.random.below(5));
                if self.chance(50) {
                    self.world.node_died(&name);
                }
                self.register(name, capacity);
            }
            33 => {
                let name = name(self.random.below(3));
                self.alive.remove(&name);
            }
            34 => {
                let name = name(self.random.below(3));
                if self.alive.contains(&name) {
                    self.attach(name);
                }
            }
            35 => self.driver().hold_select = true,
            36 => self.driver().hold_persist = true,
            37 => {
                self.driver().release_selects();
                self.driver().release_persists();
            }
            38 => {
                let disk = if self.chance(30) {
                    Disk::Low(1)
                } else {
                    Disk::Ok
                };
                self.driver().step(Input::Disk(disk));
            }
            _ if self.chance(40) => self.crash(),
            _ => {}
        }
        self.look();
    }

    /// Everything heals, and time passes.
    fn quiet(&mut self) {
        self.driver().release_selects();
        self.driver().release_persists();
        self.driver().step(Input::Disk(Disk::Ok));
        self.look();
        for number in 0..3 {
            self.register(name(number), 100);
            let cordoned = false;
            let client = self.driver().client;
            let name = name(number);
            let uncordon = Request::CordonNode {
                client,
                name,
                cordoned,
            };
            self.ask(uncordon, Asked::Other);
        }
        // Longer than the longest deadline and the longest pause between two attempts.
        for _ in 0..180 {
            while let Some(job) = self.driver().spawns.first().cloned() {
                let (pid, share) = ("p".to_owned(), Vec::new());
                let started = Spawned::Started { pid, share };
                self.driver().spawned(&job.key, started, false);
                self.look();
            }
            self.pass(250);
        }
        assert_eq!(self.world.unanswered(), [0_u64; 0], "never answered");
        let counts = self.driver().replica.registry().counts();
        assert_eq!((counts.starting, counts.pending), (0, 0), "unsettled");
        let wake = self.driver().replica.next_wake_us();
        assert_eq!(wake, None, "a timer is left");
        self.check_in_flight();
    }

    /// A dry run shows what the host thinks is in flight.
    fn check_in_flight(&mut self) {
        let Request::CreateProcess(_, mut plan) = self.create() else {
            unreachable!("that is what it makes")
        };
        plan.options.demand = 1;
        self.ticket += 1;
        let ticket = self.ticket;
        self.driver().request(ticket, 0, Request::Plan(plan));
        let Some(Seen::Reply(_, response)) = self.driver().seen.pop() else {
            panic!("no plan")
        };
        let Response::Planned(plan) = *response else {
            panic!("{response:?}")
        };
        assert_eq!(plan.evidence.features, ["processes", "in-flight"]);
        assert_eq!(plan.evidence.candidates.len(), 3);
        for candidate in &plan.evidence.candidates {
            let in_flight = candidate.values[1];
            assert!(
                in_flight < 0.5,
                "{in_flight} in flight on {}",
                candidate.node
            );
        }
    }
}

#[test]
fn random_inputs_leave_nobody_waiting_and_no_key_with_two_owners() {
    super::seeds(200, |seed| {
        let mut run = Run::new(seed);
        for number in 0..3 {
            run.register(name(number), 4);
        }
        for _ in 0..400 {
            run.step();
        }
        run.quiet();
    });
}

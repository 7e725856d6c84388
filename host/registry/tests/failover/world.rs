//! A registry, and commands in few words.

use std::convert::Infallible;

use maitred_protocol::{
    Chooser, CreateOptions, Incarnation, ModuleName, NodeEpoch, NodeName, OnNodeLost, ProcessKey,
    RegisterNode, Rejection, Restart, SetProcess, TypeName, TypeSpec, Verdict, Why,
};
use maitred_registry::{
    AbortCause, Command, Entry, Event, Loader, Outcome, Place, Record, Registry, Reserve,
};

pub(crate) type Life = (ProcessKey, Incarnation);

/// A key of the type `room`, which is `safe` and is created again.
pub(crate) fn room(id: &str) -> ProcessKey {
    ProcessKey::new("room", id).unwrap()
}

/// A key of the type `vault`, which is `strict` and is created again.
pub(crate) fn vault(id: &str) -> ProcessKey {
    ProcessKey::new("vault", id).unwrap()
}

/// A key of the type `dust`, which is `fast` and is created again.
pub(crate) fn dust(id: &str) -> ProcessKey {
    ProcessKey::new("dust", id).unwrap()
}

/// A key of a type that nobody has described: `safe`, and forgotten with its node.
pub(crate) fn player(id: &str) -> ProcessKey {
    ProcessKey::new("player", id).unwrap()
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn spec(name: &str, restart: Restart) -> TypeSpec {
    TypeSpec {
        restart,
        on_node_lost: OnNodeLost::Recreate,
        ..TypeSpec::new(TypeName::new(name).unwrap())
    }
}

/// The process `instance` of a node, as it registers for the first time with nothing running.
pub(crate) fn comer(name: &str, instance: u64) -> RegisterNode {
    RegisterNode {
        name: node(name),
        types: Vec::new(),
        address: format!("{name}:7000"),
        labels: vec![("zone".to_owned(), name.to_owned())],
        capacity: 1_000,
        share: Vec::new(),
        ttl_ms: 3_000,
        inventory: Vec::new(),
        kill_bound_ms: 1_000,
        instance,
        last_epoch: None,
    }
}

pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) time_ms: u64,
    /// What the last command made happen.
    pub(crate) events: Vec<Event>,
}

impl World {
    /// With the types, and without nodes.
    pub(crate) fn new() -> Self {
        let mut world = Self {
            registry: Registry::new(),
            time_ms: 1_000,
            events: Vec::new(),
        };
        world.put_type(spec("room", Restart::Safe));
        world.put_type(spec("vault", Restart::Strict));
        world.put_type(spec("dust", Restart::Fast));
        world
    }

    pub(crate) fn apply(&mut self, command: Command) -> Outcome {
        self.events.clear();
        let entry = Entry {
            time_ms: self.time_ms,
            request: None,
            command,
        };
        let index = self.registry.applied() + 1;
        self.registry.apply(index, entry, &mut self.events)
    }

    /// Applies what must be done.
    pub(crate) fn done(&mut self, command: Command) {
        let outcome = self.apply(command);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    pub(crate) fn put_type(&mut self, spec: TypeSpec) {
        self.apply(Command::PutType(Box::new(spec)));
    }

    pub(crate) fn register(&mut self, register: RegisterNode) -> (NodeEpoch, Vec<Verdict>) {
        match self.apply(Command::RegisterNode(Box::new(register))) {
            Outcome::Registered { epoch, verdicts } => (epoch, verdicts.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn up(&mut self, name: &str) -> NodeEpoch {
        self.register(comer(name, 1)).0
    }

    pub(crate) fn epoch(&self, name: &str) -> NodeEpoch {
        self.registry.node(&node(name)).unwrap().epoch()
    }

    pub(crate) fn place(&self, name: &str) -> Place {
        Place {
            node: node(name),
            epoch: self.epoch(name),
            activated: None,
            why: Why {
                chooser: Chooser::Node,
                seed: 0,
                micros: 0,
                candidates: 1,
            },
        }
    }

    pub(crate) fn reserve(&mut self, key: &ProcessKey, name: &str) -> Outcome {
        let module = |name: &str| ModuleName::new(name).unwrap();
        let reserve = Reserve {
            key: key.clone(),
            args: Vec::new(),
            selector: module("least-loaded"),
            callback: module("start"),
            options: CreateOptions::default(),
            deadline_at_ms: self.time_ms + 10_000,
            place: self.place(name),
        };
        self.apply(Command::Reserve(Box::new(reserve)))
    }

    pub(crate) fn starting(&mut self, key: &ProcessKey, name: &str) -> Life {
        match self.reserve(key, name) {
            Outcome::Reserved(record) => (key.clone(), record.incarnation),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn confirm(&mut self, (key, incarnation): &Life) -> Outcome {
        self.apply(Command::Confirm {
            key: key.clone(),
            incarnation: *incarnation,
            pid: "pid".to_owned(),
            share: Vec::new(),
        })
    }

    /// Created on a node, by a create.
    pub(crate) fn running(&mut self, key: &ProcessKey, name: &str) -> Life {
        let life = self.starting(key, name);
        let outcome = self.confirm(&life);
        assert!(matches!(outcome, Outcome::Created { .. }), "{outcome:?}");
        life
    }

    pub(crate) fn reassign(&mut self, (key, incarnation): &Life, name: &str) -> Outcome {
        self.apply(Command::Reassign {
            key: key.clone(),
            incarnation: *incarnation,
            cause: None,
            place: self.place(name),
        })
    }

    pub(crate) fn set(&mut self, key: &ProcessKey, name: &str) -> Outcome {
        self.apply(Command::SetProcess(Box::new(SetProcess {
            key: key.clone(),
            node: node(name),
            epoch: self.epoch(name),
            pid: "own".to_owned(),
            share: Vec::new(),
            incarnation: None,
        })))
    }

    /// Registered by its node.
    pub(crate) fn own(&mut self, key: &ProcessKey, name: &str) -> Life {
        match self.set(key, name) {
            Outcome::Process(record) => (key.clone(), record.incarnation),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn del(
        &mut self,
        key: &ProcessKey,
        life: Option<Incarnation>,
        ended: bool,
    ) -> Outcome {
        self.apply(Command::DelProcess {
            key: key.clone(),
            incarnation: life,
            ended,
        })
    }

    pub(crate) fn unplace(&mut self, (key, incarnation): &Life, over: bool) -> Outcome {
        self.apply(Command::Unplace {
            key: key.clone(),
            incarnation: *incarnation,
            cause: "moved: for a test".to_owned(),
            over,
        })
    }

    pub(crate) fn abort(&mut self, (key, incarnation): &Life, over: bool) -> Outcome {
        self.apply(Command::Abort {
            key: key.clone(),
            incarnation: *incarnation,
            failure: None,
            cause: AbortCause::Deadline,
            over,
        })
    }

    pub(crate) fn expire(&mut self, name: &str) -> NodeEpoch {
        let epoch = self.epoch(name);
        let name = node(name);
        self.done(Command::Expire { name, epoch });
        epoch
    }

    pub(crate) fn released(&mut self, lives: &[&Life]) {
        let lives = lives.iter().map(|life| (*life).clone()).collect();
        self.done(Command::Released(lives));
    }

    pub(crate) fn kill_bound_passed(&mut self, epoch: NodeEpoch) {
        self.done(Command::KillBoundPassed(epoch));
    }

    pub(crate) fn confirm_dead(&mut self, name: &str, epoch: Option<NodeEpoch>) -> Outcome {
        self.confirm_dead_of(name, epoch, &[])
    }

    pub(crate) fn confirm_dead_of(
        &mut self,
        name: &str,
        epoch: Option<NodeEpoch>,
        types: &[&str],
    ) -> Outcome {
        let types = types.iter().map(|name| TypeName::new(*name).unwrap());
        self.apply(Command::ConfirmDead {
            name: node(name),
            epoch,
            types: types.collect(),
            proof: "a test".to_owned(),
        })
    }

    /// The keys that the last command has freed.
    pub(crate) fn freed(&self) -> Vec<ProcessKey> {
        let freed = self.events.iter().filter_map(|event| match event {
            Event::Released(key) => Some(key.clone()),
            _ => None,
        });
        freed.collect()
    }

    /// The lives that the last command has had told to stop, on a node that has registered anew.
    pub(crate) fn lingering(&self) -> Vec<(NodeEpoch, Life)> {
        let lingering = self.events.iter().filter_map(|event| match event {
            Event::Linger {
                epoch,
                key,
                incarnation,
                ..
            } => Some((*epoch, (key.clone(), *incarnation))),
            _ => None,
        });
        lingering.collect()
    }

    /// The lives whose nodes the last command has had told to stop them.
    pub(crate) fn ended(&self) -> Vec<Life> {
        let ended = self.events.iter().filter_map(|event| match event {
            Event::Ended(record) => Some((record.key(), record.incarnation)),
            _ => None,
        });
        ended.collect()
    }

    pub(crate) fn record(&self, key: &ProcessKey) -> &Record {
        self.registry.process(key).unwrap()
    }

    pub(crate) fn is_held(&self, key: &ProcessKey) -> bool {
        self.registry.is_held(key)
    }

    /// Which lives of a key are held, and by which sessions.
    pub(crate) fn holds(&self, key: &ProcessKey) -> Vec<(Incarnation, NodeEpoch)> {
        let holds = self.registry.holds(key).iter();
        holds.map(|hold| (hold.incarnation, hold.epoch)).collect()
    }

    /// The same state, by way of a snapshot.
    pub(crate) fn reloaded(&self) -> Registry {
        let mut loader = Loader::new();
        let encoded = self.registry.snapshot().encode(|chunk| {
            loader.chunk(&chunk).unwrap();
            Ok::<(), Infallible>(())
        });
        encoded.unwrap();
        loader.finish().unwrap()
    }
}

pub(crate) fn rejection(outcome: &Outcome) -> &Rejection {
    match outcome {
        Outcome::Rejected(rejection) => rejection,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn inventory(lives: &[&Life]) -> Vec<Life> {
    lives.iter().map(|life| (*life).clone()).collect()
}

//! The bytes of every format, pinned: a change that old peers, logs or snapshots could not read
//! fails here before it reaches them.
//!
//! `tests/golden/formats.txt` holds a name and the bytes, in hexadecimal, a line. `UPDATE=1` writes
//! it anew. Do that only together with a new version number, or before a first release.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop here"
)]

#[path = "golden/group.rs"]
mod group;

use std::fmt::{Debug, Write as _};
use std::path::Path;

use maitred_protocol::codec::{Wire, decode, encode, split};
use maitred_protocol::{
    Answered, Candidate, Chooser, ClientId, CreateOptions, CreateProcess, Digest, Drain, Evidence,
    Findings, Hello, Incarnation, KeepAlive, KeepAliveAck, Load, ModuleKind, ModuleName,
    NodeAnswer, NodeCommand, NodeEpoch, NodeName, OnConflict, Plan, ProcessKey, ProcessRecord,
    ProcessState, RegisterNode, Request, RequestId, Response, Revision, SetProcess, Switch,
    TypeName, TypeSpec, Upload, UploadStage, Welcome, Why,
};
use maitred_registry::{Command, Entry, Loader, Place, PushModule, Registry, Reserve};

fn key() -> ProcessKey {
    ProcessKey::new("player", "1001").unwrap()
}

fn node() -> NodeName {
    NodeName::new("eu-1").unwrap()
}

fn module(name: &str) -> ModuleName {
    ModuleName::new(name).unwrap()
}

fn why(version: u32) -> Why {
    let chooser = Chooser::Selector {
        name: module("spread"),
        version,
        digest: Digest([7; 32]),
        config: 3,
        canary: false,
    };
    Why {
        chooser,
        seed: 11,
        micros: 12,
        candidates: 13,
    }
}

fn evidence() -> Evidence {
    Evidence {
        why: why(2),
        features: vec!["processes".to_owned()],
        candidates: vec![Candidate {
            node: node(),
            values: vec![3.0],
            chosen: true,
            load_age_ms: 40.0,
            scores: vec![0.5],
        }],
        refusals: Vec::new(),
        refusals_more: 0,
        decided_ms: 1_000,
        filtered: vec![("cordoned".to_owned(), 1)],
        terms: vec!["few".to_owned()],
        answered: Answered::Ranked(2),
    }
}

fn options() -> CreateOptions {
    CreateOptions {
        on_conflict: OnConflict::Wait,
        deadline_ms: 1_000,
        attempts: 3,
        back_off_ms: 50,
        group: Some("party".to_owned()),
        require: vec![("zone".to_owned(), "west".to_owned())],
        demand: 2,
        priority: -5,
        requester: Some(node()),
        latencies: vec![("west".to_owned(), 12)],
    }
}

fn create() -> CreateProcess {
    CreateProcess {
        key: key(),
        args: vec![1, 2, 3],
        selector: Some(module("spread")),
        callback: None,
        options: options(),
    }
}

fn record() -> ProcessRecord {
    ProcessRecord {
        key: key(),
        state: ProcessState::Running,
        node: node(),
        node_epoch: NodeEpoch(5),
        address: "10.0.0.1:7000".to_owned(),
        incarnation: Incarnation(9),
        pid: "77".to_owned(),
        share: vec![4],
        revision: Revision(10),
        created_ms: 1_000,
        attempt: 1,
        args_bytes: 3,
        demand: 2,
        group: Some("party".to_owned()),
        why: why(2),
    }
}

fn register() -> RegisterNode {
    RegisterNode {
        name: node(),
        types: vec![TypeName::new("player").unwrap()],
        address: "10.0.0.1:7000".to_owned(),
        labels: vec![("zone".to_owned(), "west".to_owned())],
        capacity: 10,
        share: vec![6],
        ttl_ms: 3_000,
        inventory: vec![(key(), Incarnation(4))],
        kill_bound_ms: 1_000,
        instance: 77,
        last_epoch: Some(NodeEpoch(2)),
    }
}

fn entry(command: Command, sequence: u64) -> Entry {
    let client = ClientId(1);
    Entry {
        time_ms: 1_700_000_000_000,
        request: Some(RequestId { client, sequence }),
        command,
    }
}

fn reserve() -> Command {
    Command::Reserve(Box::new(Reserve {
        key: key(),
        args: vec![1, 2, 3],
        selector: module("spread"),
        callback: module("start"),
        options: options(),
        deadline_at_ms: 1_700_000_001_000,
        place: Place {
            node: node(),
            epoch: NodeEpoch(2),
            activated: None,
            why: why(2),
        },
    }))
}

/// A state with one of everything that a snapshot holds.
fn registry() -> Registry {
    let mut registry = Registry::new();
    let open = Entry {
        time_ms: 1,
        request: None,
        command: Command::OpenSession,
    };
    registry.apply(1, open, &mut Vec::new());
    let push = Command::PushModule(Box::new(PushModule {
        name: module("spread"),
        kind: ModuleKind::Selector,
        digest: Digest([7; 32]),
        bytes: 100,
        title: "spread 1".to_owned(),
        features: vec!["processes".to_owned()],
        world: "selector".to_owned(),
        abi: "0.2.0".to_owned(),
        hooks: Vec::new(),
        signature: None,
        is_trusted: false,
    }));
    let activate = Command::ActivateModule {
        name: module("spread"),
        version: 1,
        config: Some("{\"a\":1}".to_owned()),
        percent: 100,
        types: Vec::new(),
        guard: String::new(),
    };
    let commands = [
        Command::RegisterNode(Box::new(register())),
        push,
        activate,
        Command::PutType(Box::new(TypeSpec::new(TypeName::new("player").unwrap()))),
        reserve(),
        Command::CordonNode {
            name: node(),
            cordoned: true,
        },
    ];
    for (index, command) in (2..).zip(commands) {
        registry.apply(index, entry(command, index), &mut Vec::new());
    }
    assert_eq!(registry.counts().starting, 1, "the reservation holds");
    registry
}

/// The same, and its node is drained and then lost, a life of another key with it.
fn failed_over() -> Registry {
    let mut registry = registry();
    let epoch = registry.node(&node()).unwrap().epoch();
    let own = SetProcess {
        key: ProcessKey::new("room", "7").unwrap(),
        node: node(),
        epoch,
        pid: "5".to_owned(),
        share: Vec::new(),
        incarnation: None,
    };
    for (index, command) in
        (20..).zip(std::iter::once(Command::SetProcess(Box::new(own))).chain(failover(epoch)))
    {
        registry.apply(index, entry(command, index), &mut Vec::new());
    }
    assert_eq!(registry.held(), 2, "both are held");
    assert_eq!(registry.lost().count(), 1);
    assert_eq!(registry.drains().count(), 1);
    registry
}

/// What failing over brings into the log.
fn failover(epoch: NodeEpoch) -> [Command; 4] {
    let drain = Drain {
        deadline_ms: 60_000,
        per_second: 10,
    };
    [
        Command::RaiseKillBound {
            name: node(),
            epoch,
            kill_bound_ms: 2_000,
        },
        Command::DrainNode {
            name: node(),
            drain: Some(drain),
        },
        Command::Suspend {
            what: Switch::Moves,
            suspended: true,
        },
        Command::Expire {
            name: node(),
            epoch,
        },
    ]
}

/// What ends holds, and what is held.
fn endings() -> [Command; 6] {
    let incarnation = Incarnation(8);
    [
        Command::Released(vec![(key(), incarnation)]),
        Command::KillBoundPassed(NodeEpoch(2)),
        Command::ConfirmDead {
            name: node(),
            epoch: Some(NodeEpoch(2)),
            types: vec![TypeName::new("room").unwrap()],
            proof: "its power is off".to_owned(),
        },
        Command::GiveUp {
            key: key(),
            incarnation,
        },
        Command::Unplace {
            key: key(),
            incarnation,
            cause: "moved".to_owned(),
            over: false,
        },
        Command::DelProcess {
            key: key(),
            incarnation: Some(incarnation),
            ended: true,
        },
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

/// The formats of now, and the pinned ones to compare them with.
struct Formats {
    pinned: Vec<(String, Vec<u8>)>,
    now: Vec<(String, Vec<u8>)>,
}

impl Formats {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = |line: &str| {
            let (name, bytes) = line.split_once(' ').unwrap();
            (name.to_owned(), unhex(bytes))
        };
        Self {
            pinned: text.lines().map(line).collect(),
            now: Vec::new(),
        }
    }

    fn pinned(&self, name: &str) -> Option<&[u8]> {
        let found = self.pinned.iter().find(|(have, _)| have == name);
        found.map(|(_, bytes)| &**bytes)
    }

    /// A frame: the pinned bytes must also read back as the same message.
    fn frame<T: Wire + PartialEq + Debug>(&mut self, name: &str, message: &T) {
        let mut bytes = Vec::new();
        encode(42, message, &mut bytes).unwrap();
        if let Some(pinned) = self.pinned(name) {
            let frame = split(pinned).unwrap().unwrap();
            assert_eq!(frame.header.request_id, 42);
            assert_eq!(decode::<T>(&frame).unwrap(), *message, "{name}");
        }
        self.now.push((name.to_owned(), bytes));
    }

    fn entry(&mut self, name: &str, entry: &Entry) {
        if let Some(pinned) = self.pinned(name) {
            assert_eq!(
                Entry::decode(pinned, maitred_replica::LEVEL_MAX).unwrap(),
                *entry,
                "{name}"
            );
        }
        self.now.push((name.to_owned(), entry.encode()));
    }

    /// A snapshot, chunk by chunk; the pinned chunks must also load to the same state.
    fn snapshot(&mut self, prefix: &str, registry: &Registry) {
        let mut chunks = Vec::new();
        let encoded = registry.snapshot().encode(|chunk| {
            chunks.push(chunk);
            Ok::<(), std::convert::Infallible>(())
        });
        encoded.unwrap();
        let name = |at: usize| format!("{prefix}-{at}");
        let mut loader = Loader::new();
        for (at, chunk) in chunks.iter().enumerate() {
            let pinned = self.pinned(&name(at)).unwrap_or(chunk);
            loader.chunk(pinned).unwrap();
        }
        let loaded = loader.finish().unwrap();
        assert_eq!(loaded.process(&key()), registry.process(&key()));
        assert_eq!(loaded.applied(), registry.applied());
        assert_eq!(loaded.members(), registry.members());
        assert_eq!(loaded.level(), registry.level());
        assert_eq!(loaded.digest(), registry.digest());
        let chunks = chunks.into_iter().enumerate();
        self.now.extend(chunks.map(|(at, chunk)| (name(at), chunk)));
    }

    fn wire(&mut self) {
        let build = "maitred 0.1.0".to_owned();
        self.frame(
            "hello",
            &Hello {
                build: build.clone(),
            },
        );
        let welcome = Welcome {
            build,
            group: 0,
            host: 1,
            in_flight_max: 4_096,
        };
        self.frame("welcome", &welcome);
        let create = Request::CreateProcess(ClientId(1), Box::new(create()));
        self.frame("request-create", &create);
        let register = Request::RegisterNode(ClientId(1), Box::new(register()));
        self.frame("request-register", &register);
        let created = Response::Created {
            record: Box::new(record()),
            created: true,
        };
        self.frame("response-created", &created);
        let start = NodeCommand::Start {
            term: 3,
            key: key(),
            incarnation: Incarnation(9),
            payload: vec![1, 2],
            deadline_ms: 1_000,
            try_number: 1,
        };
        self.frame("command-start", &start);
        let started = NodeAnswer::Started {
            pid: "77".to_owned(),
            share: vec![4],
        };
        self.frame("answer-started", &started);
        let load = Load {
            cpu: 0.5,
            memory_free_mib: 512,
            counters: vec![("seats".to_owned(), 3.0)],
        };
        let keep_alive = KeepAlive {
            epoch: NodeEpoch(5),
            sequence: 6,
            load: Some(load),
            stop_ms: 12,
        };
        self.frame("keep-alive", &keep_alive);
        let ack = KeepAliveAck {
            epoch: NodeEpoch(5),
            sequence: 6,
            alive: true,
        };
        self.frame("keep-alive-ack", &ack);
        let upload = Upload {
            client: ClientId(1),
            name: module("spread"),
            kind: ModuleKind::Selector,
            bytes: 100,
            digest: Digest([7; 32]),
            signature: None,
        };
        self.frame("upload", &upload);
        self.frame("upload-stage", &UploadStage::Received(50));
        let mut findings = Findings {
            compile_ms: 30,
            memory_bytes: 131_072,
            decision_nanos: 900,
            nodes: 8,
            ..Findings::default()
        };
        findings.note("odd".to_owned());
        let record = registry()
            .module(&module("spread"))
            .unwrap()
            .to_wire(&module("spread"));
        let pushed = Response::Pushed(Box::new(record), 1, Box::new(findings));
        self.frame("response-pushed", &pushed);
        let plan = Plan {
            node: Some(node()),
            then: vec![NodeName::new("eu-2").unwrap()],
            evidence: evidence(),
            revision: Revision(11),
        };
        self.frame("response-planned", &Response::Planned(Box::new(plan)));
    }
}

#[test]
fn no_format_has_changed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/formats.txt");
    let update = std::env::var_os("UPDATE").is_some();
    let mut formats = Formats::read(&path);
    if update {
        formats.pinned.clear();
    }
    formats.wire();
    formats.entry("entry-reserve", &entry(reserve(), 8));
    let register = Command::RegisterNode(Box::new(register()));
    formats.entry("entry-register", &entry(register, 9));
    formats.snapshot("snapshot", &registry());
    formats.snapshot("snapshot-failover", &failed_over());
    for (at, command) in (0..).zip(failover(NodeEpoch(2)).into_iter().chain(endings())) {
        formats.entry(&format!("entry-failover-{at}"), &entry(command, 20 + at));
    }
    formats.group();
    if update {
        let lines = formats
            .now
            .iter()
            .map(|(name, bytes)| format!("{name} {}\n", hex(bytes)));
        return std::fs::write(path, lines.collect::<String>()).unwrap();
    }
    let names = |list: &[(String, Vec<u8>)]| -> Vec<String> {
        list.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&formats.now), names(&formats.pinned));
    for ((name, now), (_, pinned)) in formats.now.iter().zip(&formats.pinned) {
        assert_eq!(hex(now), hex(pinned), "the bytes of {name} have changed");
    }
}

//! What the tests share: a sandbox in a folder of its own, fleets, and guests written in core
//! WebAssembly text, wrapped into components of the worlds of `wit/policy.wit`.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

pub mod guests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use maitred_protocol::{
    Chooser, Digest, Fallback, ModuleKind, ModuleName, NodeEpoch, NodeName, ProcessKey,
};
use maitred_registry::candidates::{Fleet, NEVER, NodeFacts, NodeLive, SelectRequest};
use maitred_registry::decide::{Decision, ModuleRef, SelectBatch, SelectJob};
use maitred_registry::random::Random;
use maitred_sandbox::{CompilerCommand, Lanes, Limits, Sandbox, SandboxConfig};

/// A sandbox and the folder of its machine code.
pub struct Bench {
    pub sandbox: Arc<Sandbox>,
    pub dir: tempfile::TempDir,
}

pub fn compiler() -> CompilerCommand {
    // The conformance tests share this file, and have a compiler of their own.
    let program = option_env!("CARGO_BIN_EXE_maitred-compile");
    let program = program.or(option_env!("CARGO_BIN_EXE_maitred-tests-compile"));
    CompilerCommand {
        program: PathBuf::from(program.expect("cargo builds it")),
        args: Vec::new(),
    }
}

pub fn sandbox_in(dir: &Path, limits: Limits, compiler: CompilerCommand) -> Arc<Sandbox> {
    Sandbox::new(SandboxConfig {
        limits,
        cache_dir: dir.to_owned(),
        compiler,
    })
    .unwrap()
}

/// Limits of a host that is slowed down by other tests: a healthy guest must not run into a
/// deadline, which the tests of the deadlines set for themselves.
pub fn patient() -> Limits {
    Limits {
        select_ms: 50,
        describe_ms: 1_000,
        spawn_ms: 500,
        examine_ms: 500,
        rehearsal_ms: 10_000,
        ..Limits::default()
    }
}

pub fn bench(limits: Limits) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    Bench {
        sandbox: sandbox_in(dir.path(), limits, compiler()),
        dir,
    }
}

pub fn module(name: &str, bytes: &[u8], config: &str) -> ModuleRef {
    let name = ModuleName::new(name).unwrap();
    ModuleRef::new(name, 3, Digest::of(bytes), config.into(), 1)
}

impl Bench {
    /// Loads a module and names it.
    pub fn load(&self, name: &str, kind: ModuleKind, bytes: &[u8], config: &str) -> ModuleRef {
        self.sandbox.load(Digest::of(bytes), kind, bytes).unwrap();
        module(name, bytes, config)
    }
}

/// The workspace's folder.
pub fn root() -> &'static Path {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root = folders.find(|folder| folder.join("wit/policy.wit").exists());
    root.expect("the workspace is around this package")
}

/// A standard module, as it is committed, or as it has just been rebuilt when `MAITRED_MODULES`
/// names the folder (relative to the workspace): CI compares the behaviour of both.
pub fn prebuilt(name: &str) -> Vec<u8> {
    let folder = std::env::var("MAITRED_MODULES");
    let folder = folder.unwrap_or_else(|_| "selectors/prebuilt".to_owned());
    std::fs::read(root().join(folder).join(format!("{name}.wasm"))).unwrap()
}

/// The moment of every fleet.
pub const NOW_US: u64 = 60_000_000;

/// A component of the WIT 0.1.0, as it was built then.
pub fn old(name: &str) -> Vec<u8> {
    std::fs::read(root().join(format!("tests/guests/0.1.0/{name}.wasm"))).unwrap()
}

/// Nodes with random loads, some of them not reporting, some cordoned.
pub fn fleet(nodes: u32, seed: u64) -> Fleet {
    let mut random = Random::new(seed);
    let facts: Vec<Arc<NodeFacts>> = (0..nodes)
        .map(|n| {
            let zone = ["north", "south", "west"][random.below(3) as usize];
            Arc::new(NodeFacts {
                name: NodeName::new(format!("node-{n}")).unwrap(),
                epoch: NodeEpoch(u64::from(n) + 1),
                types: Vec::new(),
                address: format!("10.0.0.{n}:7000"),
                labels: vec![("zone".to_owned(), zone.to_owned())],
                capacity: 100 + random.below(100),
                registered_ms: 1_600_000_000_000,
            })
        })
        .collect();
    let live = facts
        .iter()
        .map(|facts| {
            let processes = random.below(50);
            let reports = random.below(10) != 0;
            NodeLive {
                cordoned: nodes > 3 && random.below(20) == 0,
                processes,
                in_flight: random.below(5),
                used: processes,
                placed: [random.below(3), random.below(9), random.below(30)],
                cpu: if reports {
                    random.below(100) as f32 / 100.0
                } else {
                    f32::NAN
                },
                memory_free_mib: if reports {
                    random.below(16_384) as f32
                } else {
                    f32::NAN
                },
                load_at_us: if reports {
                    NOW_US - u64::from(random.below(2_000)) * 1_000
                } else {
                    NEVER
                },
                name_hash: facts.name_hash(),
                ..NodeLive::BLANK
            }
        })
        .collect();
    Fleet {
        now_us: NOW_US,
        now_ms: 1_700_000_000_000,
        ..Fleet::new(facts.into(), live)
    }
}

pub fn request(id: &str) -> SelectRequest {
    SelectRequest {
        group: Some("party-7".to_owned()),
        ..SelectRequest::new(ProcessKey::new("player", id).unwrap())
    }
}

pub fn jobs(count: u64, seed: u32) -> Vec<SelectJob> {
    (0..count)
        .map(|id| SelectJob {
            id,
            request: Arc::new(request(&format!("p{id}"))),
            fallback: Fallback::LeastLoaded,
            seed: seed.wrapping_add(id as u32),
        })
        .collect()
}

pub fn batch(module: &ModuleRef, fleet: Fleet, jobs: Vec<SelectJob>) -> SelectBatch {
    SelectBatch {
        selector: Ok(module.clone()),
        shadow: None,
        fleet: Arc::new(fleet),
        time_s: 1_700_000_000,
        jobs,
        dry: false,
    }
}

/// Submits a batch and waits for its decisions.
pub fn decided(lanes: &Lanes, batch: SelectBatch) -> Vec<Decision> {
    let (sender, decisions) = mpsc::channel();
    lanes.submit(batch, move |decisions| sender.send(decisions).unwrap());
    decisions.recv().unwrap()
}

/// One decision over eight nodes.
pub fn decide_one(lanes: &Lanes, module: &ModuleRef) -> Decision {
    decided(lanes, batch(module, fleet(8, 1), jobs(1, 1))).remove(0)
}

/// Why the fallback decided; none when the selector did. The fallback must have found a node.
pub fn cause(decision: &Decision) -> Option<&str> {
    match &decision.trace.why.chooser {
        Chooser::Fallback { cause, .. } => {
            assert!(
                decision.node.is_some(),
                "the fallback found no node: {cause}"
            );
            Some(cause)
        }
        _ => None,
    }
}

//! Guests in the sandbox: accepted as an upload is, and compared with a native twin.

use std::path::PathBuf;
use std::sync::Arc;

use maitred_protocol::{Chooser, Digest, ModuleKind, ModuleName};
use maitred_registry::candidates::Slot;
use maitred_registry::decide::{Choose, Decision, ModuleRef, consider};
use maitred_registry::random::Random;
use maitred_sandbox::{CompileLimits, CompilerCommand, Limits, Rehearsal, Sandbox, SandboxConfig};

use crate::fleets::{fleet, job};

/// Bytes: CPython is in it.
const LARGE_BYTES: u64 = 24 << 20;

/// A sandbox and the folder of its machine code.
pub(crate) struct Bench {
    pub(crate) sandbox: Arc<Sandbox>,
    _code: tempfile::TempDir,
}

/// As on a host that allows large modules, but patient: other tests run beside this one.
pub(crate) fn bench() -> Bench {
    let code = tempfile::tempdir().unwrap();
    let defaults = Limits::default();
    let limits = Limits {
        upload_bytes: LARGE_BYTES,
        select_ms: 50,
        describe_ms: 1_000,
        spawn_ms: 500,
        examine_ms: 500,
        rehearsal_ms: 10_000,
        compile: CompileLimits {
            cpu_s: 300,
            wall_s: 600,
            ..defaults.compile
        },
        ..defaults
    };
    let config = SandboxConfig {
        limits,
        cache_dir: code.path().to_owned(),
        compiler: CompilerCommand {
            program: PathBuf::from(env!("CARGO_BIN_EXE_maitred")),
            args: vec!["internal-compile".into()],
        },
    };
    Bench {
        sandbox: Sandbox::new(config).unwrap(),
        _code: code,
    }
}

pub(crate) fn module(bytes: &[u8]) -> ModuleRef {
    let name = ModuleName::new("guest").unwrap();
    ModuleRef::new(name, 1, Digest::of(bytes), "{}".into(), 1)
}

/// Goes through all that an upload goes through.
pub(crate) fn is_accepted(bytes: &[u8], kind: &str) {
    let kind_of = match kind {
        "callback" => ModuleKind::Callback,
        "fence" => ModuleKind::Fence,
        _ => ModuleKind::Selector,
    };
    let bench = bench();
    let inspected = bench.sandbox.inspect(kind_of, bytes, &mut |_| ()).unwrap();
    assert_eq!((&*inspected.world, &*inspected.abi), (kind, "0.2.0"));
    let digest = Digest::of(bytes);
    bench.sandbox.load(digest, kind_of, bytes).unwrap();
    bench.sandbox.validate(&digest, "{}").unwrap();
    let error = bench.sandbox.validate(&digest, "{\"unheard-of\": 1}");
    assert!(error.is_err());
}

/// Compares ten decisions on each of 30 fleets of 1 to 60 nodes, one of 1,500 among them.
pub(crate) fn selector_equals(bytes: &[u8], twin: &mut dyn Choose) {
    is_accepted(bytes, "selector");
    let bench = bench();
    let module = module(bytes);
    let guest = Rehearsal::new(&bench.sandbox, module.clone(), bytes).unwrap();
    assert_eq!(guest.manifest(), twin.manifest());
    let mut random = Random::new(5);
    let mut chosen = 0;
    for number in 0..30 {
        let nodes = if number == 7 {
            1_500
        } else {
            1 + random.below(60)
        };
        let mut fleet = Arc::new(fleet(nodes, u64::from(number)));
        for one in 0..10 {
            let job = job(number * 100 + one);
            let selector = Ok(module.clone());
            let want = consider(&fleet, &job, &selector, Ok(twin), 1_700_000_000, || 0);
            let got = guest.decide(&mut fleet, &job, 1_700_000_000);
            assert!(got.failed.is_none(), "fleet {number}: {:?}", got.failed);
            assert!(got.steady, "fleet {number}: another answer the second time");
            assert_eq!(by_the_module(&want), Some(()), "fleet {number}");
            assert_eq!(
                told(&got.decision),
                told(&want),
                "fleet {number}, job {one}"
            );
            chosen += u32::from(got.decision.trace.chosen.is_some());
        }
    }
    assert_eq!(chosen, 300);
}

fn by_the_module(decision: &Decision) -> Option<()> {
    match decision.trace.why.chooser {
        Chooser::Fallback { .. } => None,
        _ => Some(()),
    }
}

/// What was offered, chosen and scored. A NaN is equal to itself in bits.
type Told = (Vec<Slot>, Option<Slot>, Vec<Slot>, Vec<u32>);

fn told(decision: &Decision) -> Told {
    let trace = &decision.trace;
    let scores = trace.scores.iter().map(|value| value.to_bits());
    (
        trace.slots.clone(),
        trace.chosen,
        trace.scored.clone(),
        scores.collect(),
    )
}

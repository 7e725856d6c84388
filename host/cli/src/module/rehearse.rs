//! A component on this machine, in the sandbox of hosts: accepted or not, and what it would decide.
//!
//! Holds: what is refused, cut off or counted here is what a host refuses, cuts off and counts; nothing
//! is asked of any host. Everything blocks.

mod fleet;

use std::collections::HashMap;
use std::sync::Arc;

use maitred_protocol::{Answered, Digest, ModuleKind, ModuleName};
use maitred_registry::decide::ModuleRef;
use maitred_registry::inputs::Outcome as Fingerprint;
use maitred_sandbox::{
    CompilerCommand, Limits, ModuleError, Rehearsal, Rehearsed, Sandbox, SandboxConfig,
};
use maitred_scenario::{Case, Made, Outcome, Run};
use tempfile::TempDir;

use crate::failure::{Exit, Failure};
use fleet::Stage;

/// Bytes of a module on hosts that allow large ones.
pub(super) const LARGE_BYTES: u64 = 24 << 20;

/// The sandbox of this program.
pub(super) struct Tools {
    pub(super) sandbox: Arc<Sandbox>,
    /// Machine code, for as long as this lives.
    _code: TempDir,
}

impl Tools {
    /// With the limits of a host that allows large modules.
    pub(super) fn new() -> Result<Self, Failure> {
        let help = "start the program by its own path";
        let own = std::env::current_exe().map_err(|error| {
            let message = format!("this program's own path is not known: {error}");
            Failure::new(Exit::Other, "program", message, help)
        })?;
        let code = tempfile::tempdir()
            .map_err(|error| Failure::file("make a folder in", &std::env::temp_dir(), &error))?;
        let limits = Limits {
            upload_bytes: LARGE_BYTES,
            callback_instances: 4,
            fence_instances: 4,
            modules: 16,
            ..Limits::default()
        };
        let made = Sandbox::new(SandboxConfig {
            limits,
            cache_dir: code.path().to_owned(),
            compiler: CompilerCommand {
                program: own,
                args: vec!["internal-compile".into()],
            },
        });
        let sandbox = made.map_err(|error| {
            let help = "check the limits of memory and threads (ulimit -a)";
            Failure::advised(Exit::Other, "sandbox", &error.to_string(), help)
        })?;
        Ok(Self {
            sandbox,
            _code: code,
        })
    }
}

impl From<ModuleError> for Failure {
    fn from(error: ModuleError) -> Self {
        let (stage, reason) = (error.stage.to_string(), error.reason);
        maitred_client::Error::Rejected(maitred_protocol::Rejection::Module { stage, reason })
            .into()
    }
}

/// A selector or a scanner that is tried, with every configuration that its cases have.
pub(super) struct Tried {
    tools: Tools,
    bytes: Vec<u8>,
    digest: Digest,
    name: ModuleName,
    /// By configuration; or why there is none, which every decision then answers.
    ready: HashMap<String, Result<Arc<Rehearsal>, String>>,
}

/// A case that was run.
pub(super) struct Ran {
    pub(super) run: Run,
    /// What every decision came to, to the bit.
    pub(super) came: Vec<Fingerprint>,
    /// Decisions that came out otherwise when the same instance was asked again.
    pub(super) unsteady: usize,
}

impl Tried {
    /// Makes it ready.
    ///
    /// # Errors
    /// Exit code 8 when a host would not take it.
    pub(super) fn new(tools: Tools, name: ModuleName, bytes: Vec<u8>) -> Result<Self, Failure> {
        let digest = Digest::of(&bytes);
        tools.sandbox.load(digest, ModuleKind::Selector, &bytes)?;
        Ok(Self {
            tools,
            bytes,
            digest,
            name,
            ready: HashMap::new(),
        })
    }

    /// With a configuration.
    pub(super) fn rehearsal(&mut self, config: &str) -> Result<Arc<Rehearsal>, String> {
        if let Some(known) = self.ready.get(config) {
            return known.clone();
        }
        let module = ModuleRef::new(self.name.clone(), 0, self.digest, config.into(), 0);
        let sandbox = &self.tools.sandbox;
        let made = sandbox.validate(&self.digest, config);
        let made = made.and_then(|()| Rehearsal::new(sandbox, module, &self.bytes));
        let made = made.map(Arc::new).map_err(|error| error.reason);
        self.ready.insert(config.to_owned(), made.clone());
        made
    }

    /// Makes every decision of a case.
    ///
    /// # Errors
    /// When the case has a name that no node, type or process can have.
    pub(super) fn case(&mut self, case: &Case) -> Result<Ran, Failure> {
        let rehearsal = self.rehearsal(&case.config);
        let mut came = Vec::new();
        let mut unsteady = 0;
        let mut pass = |without: Option<usize>| -> Result<Vec<Made>, Failure> {
            let mut stage = Stage::new(case, without)?;
            let mut made = Vec::with_capacity(case.count());
            for decision in case.decisions() {
                let rehearsal = match &rehearsal {
                    Ok(rehearsal) => rehearsal,
                    Err(reason) => {
                        made.push(unmade(reason));
                        continue;
                    }
                };
                let job = stage.job(case, &decision)?;
                let rehearsed = rehearsal.consider(stage.fleet(), &job, case.time);
                came.push(Fingerprint::of(&rehearsed.decision));
                unsteady += usize::from(!rehearsed.steady);
                stage.after(case, &job, &rehearsed);
                made.push(of(&stage, &rehearsed));
            }
            Ok(made)
        };
        let first = pass(None)?;
        let again = match case.removed() {
            Some(removed) => pass(Some(removed))?,
            None => Vec::new(),
        };
        Ok(Ran {
            run: Run { first, again },
            came,
            unsteady,
        })
    }
}

fn unmade(reason: &str) -> Made {
    Made {
        outcome: Outcome::Error(reason.to_owned()),
        fuel: None,
        micros: None,
    }
}

fn of(stage: &Stage, rehearsed: &Rehearsed) -> Made {
    // Nothing was asked where nothing was to be chosen from.
    let asked = rehearsed.fuel > 0;
    Made {
        outcome: outcome(stage, rehearsed),
        fuel: asked.then_some(rehearsed.fuel),
        micros: asked.then_some(rehearsed.nanos as f64 / 1_000.0),
    }
}

fn outcome(stage: &Stage, rehearsed: &Rehearsed) -> Outcome {
    if let Some((_, cause)) = &rehearsed.failed {
        return Outcome::Error(cause.clone());
    }
    let decision = &rehearsed.decision;
    let chosen = decision.trace.chosen.map(|slot| stage.number(slot));
    match (&decision.trace.answered, chosen) {
        (Answered::Chose, Some(node)) => Outcome::Node(node),
        (Answered::Ranked(_), Some(node)) => {
            let then = decision.then.iter();
            let then = then.filter_map(|(name, _)| stage.named(name));
            Outcome::Ranked(std::iter::once(node).chain(then).collect())
        }
        (Answered::Rejected { code, reason }, _) => Outcome::Reject {
            code: *code,
            reason: reason.clone(),
        },
        (Answered::Wait(ms), _) => Outcome::Wait(*ms),
        _ => Outcome::None,
    }
}

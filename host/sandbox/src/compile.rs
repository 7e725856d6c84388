//! Compilation, in a process of its own with limits on its memory and time: a module of 30 KB can
//! keep the compiler busy for minutes, and wasmtime counts that outside its security promise.
//!
//! The parent ([`Compiler`]) writes a header and the component to the child's standard input and
//! reads machine code from its standard output. The child ([`compile_child`]) takes the limits from
//! the header before it looks at the component. One compilation runs at a time of what decides, and one
//! of what counts fuel: a replay that gives way to everything must not hold up those who do not.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal};

use crate::engine;
use crate::error::{ModuleError, Stage};
use crate::limits::CompileLimits;

/// Begins the child's input, then address space in bytes, computing time in seconds, and 1 for code
/// that counts fuel (u64, little-endian). A version of it: parent and child may come from different
/// builds.
const HEADER: &[u8; 16] = b"maitred compile2";

/// Bytes of the child's complaints that are read.
const COMPLAINT_BYTES_MAX: u64 = 16 << 10;

/// How often a compilation under way looks whether the host ends.
const LOOK: Duration = Duration::from_millis(20);

const STOPPED: &str = "the host is shutting down: upload it again when it is back";

/// How to start a process that calls [`compile_child`]: mostly the host's own executable with a
/// hidden subcommand.
#[derive(Debug, Clone)]
pub struct CompilerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// Runs compilations, one of each kind at a time.
#[derive(Debug)]
pub(crate) struct Compiler {
    command: CompilerCommand,
    limits: CompileLimits,
    /// Of code that decides, and of code that counts fuel: that one is for whoever rehearses, whose
    /// compiler may get hardly any time beside busy lanes.
    turns: [Mutex<()>; 2],
    /// Set when the host ends.
    stopped: AtomicBool,
}

/// How the child ended.
struct Outcome {
    status: Option<ExitStatus>,
    code: Vec<u8>,
    complaint: String,
}

impl Compiler {
    pub(crate) fn new(command: CompilerCommand, limits: CompileLimits) -> Self {
        Self {
            command,
            limits,
            turns: Default::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Kills what is being compiled, and refuses what is to be.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Machine code for a component. Blocks, for `wall_s` at most once it is its turn.
    pub(crate) fn compile(&self, component: &[u8], metered: bool) -> Result<Vec<u8>, ModuleError> {
        let turn = &self.turns[usize::from(metered)];
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stopped.load(Relaxed) {
            return Err(ModuleError::new(Stage::Compiling, STOPPED));
        }
        let outcome = self.run(component, metered).map_err(|error| {
            let program = self.command.program.display();
            ModuleError::new(
                Stage::Compiling,
                format!("the compiler's process ({program}) could not be run: {error}"),
            )
        })?;
        match outcome.status {
            Some(status)
                if status.success() && outcome.code.len() as u64 <= self.limits.code_bytes =>
            {
                Ok(outcome.code)
            }
            _ => Err(ModuleError::new(Stage::Compiling, self.reason(&outcome))),
        }
    }

    fn run(&self, component: &[u8], metered: bool) -> io::Result<Outcome> {
        let mut child = Command::new(&self.command.program)
            .args(&self.command.args)
            // What a mistake in the compiler could give away is not there.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let piped = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = piped else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let limits = &self.limits;
        thread::scope(|scope| {
            // A child that ends before it has read everything is judged by how it ended.
            scope.spawn(move || {
                let header = [
                    &HEADER[..],
                    &limits.memory_bytes.to_le_bytes(),
                    &limits.cpu_s.to_le_bytes(),
                    &u64::from(metered).to_le_bytes(),
                ]
                .concat();
                stdin
                    .write_all(&header)
                    .and_then(|()| stdin.write_all(component))
            });
            let complaint = scope.spawn(move || {
                let mut text = Vec::new();
                stderr
                    .take(COMPLAINT_BYTES_MAX)
                    .read_to_end(&mut text)
                    .map(|_| text)
            });
            let (finished, finish) = mpsc::channel();
            let code = scope.spawn(move || {
                let mut code = Vec::new();
                let read = stdout.take(limits.code_bytes + 1).read_to_end(&mut code);
                // The parent may have given up waiting.
                let _ = finished.send(());
                read.map(|_| code)
            });
            let in_time = self.wait(&finish);
            let status = end(&mut child, in_time)?;
            let gone = || io::Error::other("a thread that read from it panicked");
            Ok(Outcome {
                status: in_time.then_some(status),
                code: code.join().map_err(|_| gone())??,
                complaint: String::from_utf8_lossy(&complaint.join().map_err(|_| gone())??)
                    .trim()
                    .to_owned(),
            })
        })
    }

    /// Waits for the child's output to end; false when it is to be killed instead.
    fn wait(&self, finish: &Receiver<()>) -> bool {
        let deadline = Instant::now() + Duration::from_secs(self.limits.wall_s);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match finish.recv_timeout(left.min(LOOK)) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) if left.is_zero() || self.stopped.load(Relaxed) => {
                    return false;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn reason(&self, outcome: &Outcome) -> String {
        let CompileLimits {
            memory_bytes,
            cpu_s,
            wall_s,
            code_bytes,
            ..
        } = self.limits;
        let advice = "simplify its largest functions, or build it with less inlining";
        let Some(status) = outcome.status else {
            if self.stopped.load(Relaxed) {
                return STOPPED.to_owned();
            }
            return format!(
                "the compiler was stopped after {wall_s} s (limit compile.wall_s), of which it had computed less than {cpu_s}: the machine is busy, try it again"
            );
        };
        let killed_by = |signal: Signal| status.signal() == Some(signal.as_raw());
        if killed_by(Signal::XCPU) || killed_by(Signal::KILL) {
            return format!(
                "the compiler needed more than {cpu_s} s of computing (limit compile.cpu_s); {advice}"
            );
        }
        let out_of_memory = outcome.complaint.contains("memory allocation of")
            || outcome.complaint.contains("Cannot allocate memory");
        if out_of_memory {
            return format!(
                "the compiler needed more than {memory_bytes} bytes of memory (limit compile.memory_bytes); {advice}"
            );
        }
        if outcome.code.len() as u64 > code_bytes {
            return format!(
                "it compiles to more than {code_bytes} bytes (limit compile.code_bytes)"
            );
        }
        if outcome.complaint.is_empty() {
            return format!("the compiler ended with {status}");
        }
        if outcome.complaint.contains("component model async") {
            return format!(
                "{}; guests are synchronous: build it without async (componentize-qjs: --sync)",
                outcome.complaint
            );
        }
        outcome.complaint.clone()
    }
}

/// Waits for a child that has closed its output, and kills one that has not.
fn end(child: &mut Child, in_time: bool) -> io::Result<ExitStatus> {
    if !in_time {
        child.kill()?;
    }
    child.wait()
}

/// What the compiler's process does: the hidden subcommand calls this before anything else, so that
/// nothing else counts towards the limits. Reads a component from standard input, writes machine
/// code to standard output, and says on standard error what was wrong.
#[must_use]
pub fn compile_child() -> ExitCode {
    match compile_input() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compile_input() -> wasmtime::Result<()> {
    let mut input = io::stdin().lock();
    let (mut magic, mut memory) = ([0; HEADER.len()], [0; 8]);
    let (mut cpu, mut metered) = ([0; 8], [0; 8]);
    input.read_exact(&mut magic)?;
    wasmtime::ensure!(
        magic == *HEADER,
        "the host that asked is of another version"
    );
    input.read_exact(&mut memory)?;
    input.read_exact(&mut cpu)?;
    input.read_exact(&mut metered)?;
    limit(u64::from_le_bytes(memory), u64::from_le_bytes(cpu))?;
    let mut component = Vec::new();
    input.read_to_end(&mut component)?;
    let code = engine::compiling(metered != [0; 8])?.precompile_component(&component)?;
    io::stdout().lock().write_all(&code)?;
    Ok(())
}

/// Limits this process, for good.
fn limit(memory_bytes: u64, cpu_s: u64) -> io::Result<()> {
    let set = |resource, soft, hard| {
        let limit = Rlimit {
            current: Some(soft),
            maximum: Some(hard),
        };
        rustix::process::setrlimit(resource, limit)
    };
    set(Resource::As, memory_bytes, memory_bytes)?;
    // SIGXCPU at the limit, SIGKILL a second later.
    set(Resource::Cpu, cpu_s, cpu_s + 1)?;
    set(Resource::Core, 0, 0)?;
    // The host's own threads go first. A process may always lower its own priority.
    rustix::process::nice(10)?;
    Ok(())
}

//! Runs the built program with surroundings of its own: no contexts and no settings of the machine
//! that runs the tests.

#![allow(dead_code, reason = "every test file uses another part")]
#![allow(clippy::unwrap_used, reason = "only tests use this")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

/// A place without contexts, gone afterwards.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_maitred"), args)
    }

    /// Another program in the same surroundings.
    pub(crate) fn command_of(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MAITRED_") {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .current_dir(self.path())
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .env("XDG_CONFIG_HOME", self.path().join("config"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        Ended::from(self.command(args).output().unwrap())
    }

    /// Runs it, and expects one JSON document and success.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "{args:?}: {}", ended.err);
        let document: Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!(document["v"], 1, "{args:?}");
        document
    }

    /// Runs it, and expects a JSON error with this exit code.
    pub(crate) fn error(&self, args: &[&str], code: i32) -> Value {
        let ended = self.run(args);
        assert_eq!(ended.code, code, "{args:?}: {}{}", ended.out, ended.err);
        let line = ended.err.lines().last().unwrap();
        let document: Value = serde_json::from_str(line).unwrap();
        assert_eq!(document["kind"], "Error", "{args:?}");
        assert_eq!(document["exit"], code, "{args:?}");
        for field in ["code", "message", "help"] {
            assert!(!document[field].as_str().unwrap().is_empty(), "{document}");
        }
        assert!(document["retryable"].is_boolean());
        document
    }

    /// Starts one that runs until it is told to end.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        self.start_command(self.command(args))
    }

    pub(crate) fn start_command(&self, mut command: Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Running { child, out }
    }
}

pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A program that goes on; ended with the test.
pub(crate) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    /// The next line on stdout; empty when there will be none.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let mut out = String::new();
        self.out.read_to_string(&mut out).unwrap();
        let mut err = String::new();
        let mut pipe = self.child.stderr.take().unwrap();
        pipe.read_to_string(&mut err).unwrap();
        let code = self.child.wait().unwrap().code();
        Ended {
            code: code.unwrap_or(-1),
            out,
            err,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

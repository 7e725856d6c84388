//! One host of a group: its process, its folder, its certificate and the relay in front of it.
//!
//! Others reach the host only through its relay. Its own port is the same after every restart, and is
//! not one that the system would give to anybody else meanwhile. The process is ended with the
//! machine, whatever becomes of the test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use maitred_tests::relay::Relay;
use maitred_transport::{Authority, IssueKind};

use super::{LOOK, PATIENCE};
use crate::host::{free_address, program};

pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) relay: Relay,
    folder: PathBuf,
    listen: SocketAddr,
    /// Of `serve`, beyond those that every host has.
    pub(crate) flags: Vec<String>,
    child: Option<Child>,
}

impl Machine {
    pub(crate) async fn new(parent: &Path, name: &str, authority: &Authority, seed: u64) -> Self {
        let folder = parent.join(name);
        std::fs::create_dir(&folder).unwrap();
        let listen = free_address();
        let relay = Relay::start(listen, seed).await.unwrap();
        let this = Self {
            name: name.to_owned(),
            relay,
            folder,
            listen,
            flags: Vec::new(),
            child: None,
        };
        this.certify(authority);
        this
    }

    /// Gives the host a certificate of that authority.
    pub(crate) fn certify(&self, authority: &Authority) {
        let issued = authority
            .issue(&self.name, IssueKind::Host, &[], &[], 2)
            .unwrap();
        std::fs::write(self.folder.join("ca.pem"), authority.cert_pem()).unwrap();
        std::fs::write(self.folder.join("cert.pem"), issued.cert_pem).unwrap();
        std::fs::write(self.folder.join("key.pem"), issued.key_pem).unwrap();
    }

    /// Where peers, clients and nodes reach it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.relay.address()
    }

    /// Where it sends from, and so which source it is at the others' relays.
    pub(crate) fn source(&self) -> SocketAddr {
        self.listen
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Starts the process; it need not serve yet.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let path = |name: &str| self.folder.join(name);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path("host.log"))
            .unwrap();
        let mut command = Command::new(program());
        command.arg("serve").args(&self.flags);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MAITRED_") {
                command.env_remove(name);
            }
        }
        for (flag, value) in [
            ("--name", self.name.clone().into()),
            ("--data-dir", self.data().into_os_string()),
            ("--listen", self.listen.to_string().into()),
            ("--advertise", self.address().to_string().into()),
            ("--ca", path("ca.pem").into_os_string()),
            ("--cert", path("cert.pem").into_os_string()),
            ("--key", path("key.pem").into_os_string()),
        ] {
            command.arg(flag).arg(value);
        }
        let child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Kills it as nothing can be prepared for: SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the host runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal, named as for kill(1): `STOP`, `CONT`, `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let child = self.child.as_ref().expect("the host runs");
        let status = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(child.id().to_string())
            .status();
        assert!(status.unwrap().success(), "kill -{signal}");
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            let child = self.child.as_mut().expect("the host runs");
            if let Some(status) = child.try_wait().unwrap() {
                self.child = None;
                return status;
            }
            let late = begun.elapsed() > PATIENCE;
            assert!(!late, "{} does not end\n{}", self.name, self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Everything that it has logged, over all of its starts.
    pub(crate) fn whole_log(&self) -> String {
        std::fs::read_to_string(self.folder.join("host.log")).unwrap_or_default()
    }

    /// The end of its log, for a failure's message.
    pub(crate) fn log(&self) -> String {
        let text = self.whole_log();
        let tail: Vec<&str> = text.lines().rev().take(60).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("--- {} ---\n{}", self.name, tail.join("\n"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

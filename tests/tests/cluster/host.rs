//! A host as a process of its own: started, killed, started again on the same data.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use maitred_client::{Client, Identity};
use maitred_transport::{Authority, IssueKind};

/// How long a host may take to come up; generous, because machines that run tests are busy.
const START: Duration = Duration::from_secs(60);

/// The program under test. `cargo test --workspace` has built it; when only this package was built,
/// it is built here.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("maitred");
    if !program.exists() {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut build = Command::new(cargo);
        build.args(["build", "--locked", "-p", "maitred-cli"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.status().unwrap().success(),
            "building the program under test"
        );
    }
    program
}

/// A free UDP address, of a port below those that the system hands out by itself, so that nobody takes it
/// while its host is down.
pub(crate) fn free_address() -> SocketAddr {
    const FIRST: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.unwrap_or_default();
    let low = range.split_whitespace().next();
    let low: u16 = low.and_then(|low| low.parse().ok()).unwrap_or(32_768);
    let span = low.saturating_sub(FIRST).max(1);
    // Where to begin differs from one run to the next, for runs side by side.
    let begin = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(span)).unwrap();
    let free = (0..span).find_map(|_| {
        let offset = NEXT.fetch_add(1, Relaxed);
        let port = (u32::from(begin) + u32::from(offset)) % u32::from(span);
        let port = FIRST + u16::try_from(port).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        UdpSocket::bind(address).ok().map(|_| address)
    });
    free.expect("a free port")
}

/// A host and everything it needs, in a folder that goes away with it.
pub(crate) struct Host {
    folder: tempfile::TempDir,
    authority: Authority,
    address: SocketAddr,
    child: Option<Child>,
}

impl Host {
    /// Starts a host on a new data directory, and waits until it serves.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::generate("test group").unwrap();
        let issued = authority
            .issue("host", IssueKind::Host, &[], &[], 2)
            .unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.cert_pem()).unwrap();
        std::fs::write(folder.path().join("cert.pem"), issued.cert_pem).unwrap();
        std::fs::write(folder.path().join("key.pem"), issued.key_pem).unwrap();
        let mut host = Self {
            folder,
            authority,
            // The same one after every restart.
            address: free_address(),
            child: None,
        };
        host.spawn();
        host.serves().await;
        host
    }

    /// Starts the process; it need not serve yet.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "the host runs already");
        let path = |name: &str| self.folder.path().join(name);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path("host.log"))
            .unwrap();
        let child = Command::new(program())
            .arg("serve")
            .arg("--data-dir")
            .arg(path("data"))
            .arg("--listen")
            .arg(self.address.to_string())
            .arg("--ca")
            .arg(path("ca.pem"))
            .arg("--cert")
            .arg(path("cert.pem"))
            .arg("--key")
            .arg(path("key.pem"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Kills it as nothing can be prepared for: SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the host runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What it has logged, for a failure's message.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("host.log")).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(40).collect();
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn identity(&self) -> Identity {
        self.authority
            .identity("test", IssueKind::Client, 2)
            .unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::builder()
            .endpoint(self.address.to_string())
            .identity(self.identity())
            .connect_timeout(START)
            .request_timeout(START)
            .create_timeout(START)
            .connect()
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Waits until it leads and its standard modules are active.
    pub(crate) async fn serves(&mut self) {
        let client = self.client().await;
        let ready = async {
            loop {
                let modules = client.modules().await.unwrap_or_default();
                let active = modules
                    .iter()
                    .filter(|module| module.active.is_some())
                    .count();
                if active >= 6 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(START, ready)
            .await
            .unwrap_or_else(|_| panic!("the host did not become ready\n{}", self.log()));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

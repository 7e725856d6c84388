//! A host within this program, for `dev` and `bench --embedded`; signals; and why a host does not
//! start or has stopped, for people.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use maitred_server::{ConfigError, Failed, Running, Server, ServerConfig, StartError};
use maitred_transport::{Authority, Identity, IssueKind, Issued};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cert::of_authority;
use crate::connect::Target;
use crate::context::runs;
use crate::failure::{Exit, Failure};

/// The port of `dev`, when it is free.
const PORT: u16 = 7600;
/// How the names of temporary folders begin; the process id follows.
const TEMPORARY: &str = "maitred-data-";
/// How long a host that nobody else relies on waits for others to finish.
const SHUTDOWN_MS: u64 = 500;
/// Days that the certificates of an embedded host are valid.
const DAYS: u32 = 30;

/// A host within this program, with a certificate authority made for it.
pub(crate) struct Embedded {
    pub(crate) running: Running,
    /// How to connect to it.
    pub(crate) target: Target,
    /// The authority's certificate, PEM.
    pub(crate) ca: String,
    /// A client's certificate and key.
    pub(crate) client: Issued,
    /// Where its data is.
    pub(crate) data: PathBuf,
    /// Removes the data with it, when it is temporary.
    _temporary: Option<tempfile::TempDir>,
}

impl Embedded {
    /// Starts one on the loopback address. Without `data` on a temporary folder; without `port` on
    /// 7600, or any when that is taken.
    ///
    /// # Errors
    /// When the folder or the port cannot be used; see [`not_started`].
    pub(crate) async fn start(data: Option<&Path>, port: Option<u16>) -> Result<Self, Failure> {
        let (temporary, data) = match data {
            Some(path) => (None, path.to_owned()),
            None => {
                remove_abandoned(&std::env::temp_dir());
                let prefix = format!("{TEMPORARY}{}-", std::process::id());
                let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
                let folder = folder.map_err(|error| {
                    Failure::file("make a folder in", &std::env::temp_dir(), &error)
                })?;
                let path = folder.path().to_owned();
                (Some(folder), path)
            }
        };
        let authority = Authority::generate("maitred dev").map_err(of_authority)?;
        let host = authority
            .identity("host", IssueKind::Host, DAYS)
            .map_err(of_authority)?;
        let client = authority
            .issue("dev", IssueKind::Client, &[], &[], DAYS)
            .map_err(of_authority)?;
        let ca = authority.cert_pem().to_owned();
        let running = Server::start(ServerConfig {
            data_dir: data.clone(),
            listen: address(port),
            identity: Some(host),
            // Connections of killed nodes are never closed by the other side.
            shutdown_ms: SHUTDOWN_MS,
            build: concat!("maitred ", env!("CARGO_PKG_VERSION"), " dev").to_owned(),
            ..ServerConfig::default()
        })
        .await
        .map_err(|error| {
            let mut failure = not_started(error);
            failure.help = failure.help.replace("--data-dir", "--data");
            failure
        })?;
        let target = Target {
            endpoints: vec![running.local_addr().to_string()],
            identity: Identity::from_pem(
                ca.as_bytes(),
                client.cert_pem.as_bytes(),
                client.key_pem.as_bytes(),
            )?,
        };
        Ok(Self {
            running,
            target,
            ca,
            client,
            data,
            _temporary: temporary,
        })
    }

    /// Waits until it serves.
    pub(crate) async fn ready(&self) -> Result<(), Failure> {
        self.running.ready().await.map_err(|failed| broken(&failed))
    }

    /// Shuts it down; a temporary folder is removed.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let stopped = self.running.shutdown().await;
        stopped.map_err(|failed| broken(&failed))
    }
}

/// Removes the folders of runs that were killed before they could: this user's own, whose process
/// is gone and whose lock nobody holds. What cannot be removed does no harm.
fn remove_abandoned(folder: &Path) {
    let user = rustix::process::getuid().as_raw();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY));
        let pid = rest.and_then(|rest| rest.split_once('-')?.0.parse().ok());
        // Not that of a link.
        let own = entry
            .metadata()
            .is_ok_and(|found| found.is_dir() && found.uid() == user);
        if !own || pid.is_none_or(runs) {
            continue;
        }
        // One without a lock was killed before it held anything, or is another machine's.
        let lock = fs::File::open(entry.path().join("lock"));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The port that was asked for; or 7600 if nobody has it, and any otherwise.
fn address(port: Option<u16>) -> SocketAddr {
    let on = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match port {
        Some(port) => on(port),
        None if UdpSocket::bind(on(PORT)).is_ok() => on(PORT),
        None => on(0),
    }
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                let help = "raise the limit of open files (ulimit -n)";
                let message = format!("cannot listen for signals: {error}");
                Failure::new(Exit::Other, "signals", message, help)
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Returns when one comes.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Why a host did not start, for people.
pub(crate) fn not_started(error: StartError) -> Failure {
    let text = error.to_string();
    match error {
        StartError::Config(error) => unusable(error),
        StartError::Tls(error) => error.into(),
        StartError::Bind(error) => error.into(),
        StartError::Storage(_) => {
            stated("data_dir", &text, "choose another folder with --data-dir")
        }
        _ => stated(
            "start",
            &text,
            "run it again with --log debug, and look at the last lines",
        ),
    }
}

/// A text that says what is wrong and, after its last semicolon, what to do.
fn stated(code: &'static str, text: &str, help: &str) -> Failure {
    let (message, help) = text.rsplit_once("; ").unwrap_or((text, help));
    Failure::new(Exit::Other, code, message, help)
}

/// Which setting cannot be used, for people.
pub(crate) fn unusable(error: ConfigError) -> Failure {
    let help = match &error {
        ConfigError::File { .. } => {
            let help = "name another file with --config";
            return Failure::advised(Exit::Usage, "usage", &error.to_string(), help);
        }
        ConfigError::Syntax { .. } => "see `maitred serve --help` for what can be set",
        ConfigError::Field { field, .. } => match *field {
            "data_dir" => "give --data-dir DIR, MAITRED_DATA_DIR, or data_dir in the configuration",
            "tls.ca" | "tls.cert" | "tls.key" => {
                "give --ca, --cert and --key; `maitred cert init` makes them"
            }
            _ => "see `maitred serve --help`",
        },
    };
    Failure::usage(error.to_string(), help)
}

/// Why a host stopped by itself, for people.
pub(crate) fn broken(failed: &Failed) -> Failure {
    let help = "start it again: nothing acknowledged is lost; if it stops again, look at the disk and the log";
    Failure::new(Exit::Other, "host_stopped", failed.to_string(), help)
}

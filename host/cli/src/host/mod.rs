//! Signals, and why a host does not start or has stopped, for people. Hosts within this program are
//! in [`embedded`].

mod embedded;
mod folder;

use maitred_server::{ConfigError, Failed, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Exit, Failure};

pub(crate) use embedded::{Embedded, GroupHost};
pub(crate) use folder::temporary;

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
        StartError::Strangers(_) | StartError::Certificate(_) => {
            let mut failure = stated("tls", &text, "see `maitred cert --help`");
            failure.exit = Exit::Auth;
            failure
        }
        StartError::Join(_) => {
            let mut failure = stated("join", &text, "see `maitred member --help`");
            failure.exit = Exit::Conflict;
            failure
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
            "raft" => {
                "--election-ticks is at least 5 times --heartbeat-ticks, and at most 1000; see `maitred serve --help`"
            }
            "failover" => {
                "--mass-loss-window is 1s to 10m, --mass-loss-pause at most 1h; see `maitred serve --help`"
            }
            "data_dir" => "give --data-dir DIR, MAITRED_DATA_DIR, or data_dir in the configuration",
            "tls.ca" | "tls.cert" | "tls.key" => {
                "give --ca, --cert and --key; `maitred cert init` makes them"
            }
            _ => "see `maitred serve --help`",
        },
    };
    Failure::usage(error.to_string(), help)
}

/// Why a host stopped by itself, for people; exit code 4 when starting it again cannot help.
pub(crate) fn broken(failed: &Failed) -> Failure {
    let text = failed.to_string();
    if failed.restart {
        let help = "start it again: nothing acknowledged is lost; if it stops again, look at the disk and the log";
        return Failure::new(Exit::Other, "host_stopped", text, help);
    }
    let help = "starting it again cannot help; to join as a new host, start it on an empty data directory with --join";
    let mut failure = stated("host_refused", &text, help);
    failure.exit = Exit::Conflict;
    failure
}

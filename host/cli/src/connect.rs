//! Finding the host to talk to: flags, then environment, then a context, then a running `dev`.
//!
//! Flags and environment are read together by the command line (flags win); each of the four parts
//! that they leave open is taken from the context.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use maitred_client::{Cause, Client, Error, Identity};
use maitred_transport::LinkError;

use crate::args::Global;
use crate::context::{self, Context};
use crate::failure::{Exit, Failure};
use crate::out::{Out, short};

/// Longest that the hosts are asked why a verb failed.
const EXPLAINED: Duration = Duration::from_millis(500);

/// What a verb needs of its surroundings.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) out: Out,
    pub(crate) global: Global,
    /// What was connected, to be closed whatever becomes of the verb.
    clients: Mutex<Vec<Client>>,
}

/// Which host, and who this program is to it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) endpoints: Vec<String>,
    pub(crate) identity: Identity,
}

impl Shell {
    pub(crate) fn new(out: Out, global: Global) -> Self {
        let clients = Mutex::default();
        Self {
            out,
            global,
            clients,
        }
    }

    /// Closes every connection, and waits until the hosts know: one that is not told keeps them for
    /// as long as it hears nothing, and waits for them when it shuts down.
    pub(crate) async fn close(&self) {
        let clients = std::mem::take(&mut *self.clients());
        for client in clients {
            client.close().await;
        }
    }

    /// The failure of a verb; where nobody leads, that is what is said, and why.
    pub(crate) async fn explained(&self, failure: Failure) -> Failure {
        let client = self.clients().last().cloned();
        let Some(client) = client.filter(|_| ["timeout", "not_leader"].contains(&failure.code))
        else {
            return failure;
        };
        let why = crate::status::no_leader(&client, EXPLAINED).await;
        why.unwrap_or(failure)
    }

    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to the host that the flags, the environment or a context name.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        self.connect(&self.target()?).await
    }

    /// Connects to `target`.
    pub(crate) async fn connect(&self, target: &Target) -> Result<Client, Failure> {
        find(&target.endpoints, self.global.timeout).await?;
        let client = Client::builder()
            .endpoints(target.endpoints.clone())
            .identity(target.identity.clone())
            .build_name(concat!("maitred-cli ", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.global.timeout)
            .request_timeout(self.global.timeout)
            .connect()
            .await;
        let client = client.map_err(|error| unreachable(error, target, self.global.timeout))?;
        self.clients().push(client.clone());
        Ok(client)
    }

    /// Which host is meant.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        let global = &self.global;
        let complete = !global.endpoint.is_empty()
            && global.ca.is_some()
            && global.cert.is_some()
            && global.key.is_some();
        let context = if complete { None } else { self.context()? };
        let endpoints = match &context {
            _ if !global.endpoint.is_empty() => global.endpoint.clone(),
            Some(context) => context.endpoints.clone(),
            None => return Err(no_host()),
        };
        endpoints.iter().try_for_each(|endpoint| check(endpoint))?;
        let part = |given: &Option<PathBuf>, pick: fn(&Context) -> &PathBuf, flag: &str| {
            let found = given
                .clone()
                .or_else(|| context.as_ref().map(pick).cloned());
            found.ok_or_else(|| {
                let help = "give --ca, --cert and --key (see `maitred cert --help` for how to make them), or --context";
                let message = format!("there is no {flag} to connect with");
                Failure::new(Exit::Auth, "no_certificate", message, help)
            })
        };
        let ca = part(&global.ca, |context| &context.ca, "CA certificate (--ca)")?;
        let cert = part(
            &global.cert,
            |context| &context.cert,
            "certificate (--cert)",
        )?;
        let key = part(&global.key, |context| &context.key, "private key (--key)")?;
        let identity = Identity::from_files(&ca, &cert, &key)?;
        Ok(Target {
            endpoints,
            identity,
        })
    }

    fn context(&self) -> Result<Option<Context>, Failure> {
        if let Some(name) = &self.global.context {
            return match context::find(name)? {
                Some(found) => Ok(Some(found)),
                None => Err(Failure::new(
                    Exit::Usage,
                    "no_context",
                    format!("there is no context {name:?}"),
                    format!(
                        "write $XDG_CONFIG_HOME/maitred/contexts/{name}.toml with endpoints, ca, cert and key; `dev` is there while `maitred dev` runs"
                    ),
                )),
            };
        }
        match context::find("default")? {
            Some(found) => Ok(Some(found)),
            None => context::find("dev"),
        }
    }
}

/// Whether any of these leads somewhere: a name that is misspelt is not worth waiting for.
async fn find(endpoints: &[String], within: Duration) -> Result<(), Failure> {
    let mut problem = None;
    for endpoint in endpoints {
        match tokio::time::timeout(within, tokio::net::lookup_host(endpoint)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => problem = Some(error.to_string()),
            Err(_) => {}
        }
    }
    let problem = problem.map_or(String::new(), |problem| format!(": {problem}"));
    let message = format!("cannot find {}{problem}", endpoints.join(", "));
    let help = "check that it is HOST:PORT, its spelling, and the name service";
    Err(Failure::new(Exit::Unavailable, "no_address", message, help).retryable())
}

/// Why no host could be connected to, and which were called.
fn unreachable(error: Error, target: &Target, within: Duration) -> Failure {
    let silent = is_silence(&error);
    let mut failure = Failure::from(error);
    let endpoints = target.endpoints.join(", ");
    if silent {
        let message = format!("no answer from {endpoints} within {}", short(within));
        let help = "check the address, that the host runs, and that UDP passes";
        return Failure::new(Exit::Unavailable, "no_answer", message, help).retryable();
    }
    if failure.code == "no_connection" {
        let why = failure.message;
        failure.message = format!("cannot reach a host at {endpoints}: {why}");
    }
    failure
}

/// Whether nothing came from the other side, whatever was waited for.
pub(crate) fn is_silence(error: &Error) -> bool {
    let Error::Unavailable { cause } = error else {
        return false;
    };
    matches!(
        cause,
        Cause::Deadline { .. } | Cause::Link(LinkError::NoAnswer { .. } | LinkError::Lost)
    )
}

/// Whether it can be an address at all; whether it leads anywhere shows when it is called.
pub(crate) fn check(endpoint: &str) -> Result<(), Failure> {
    let parts = endpoint.rsplit_once(':');
    if parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Ok(());
    }
    let message = format!("{endpoint:?} is not an address");
    let help = "an endpoint is HOST:PORT, such as 127.0.0.1:7600";
    Err(Failure::usage(message, help))
}

fn no_host() -> Failure {
    Failure::new(
        Exit::Unavailable,
        "no_host",
        "no host is known: no --endpoint, no context, and no `maitred dev` runs",
        "start one with `maitred dev`, or name one with --endpoint HOST:PORT --ca FILE --cert FILE --key FILE",
    )
}

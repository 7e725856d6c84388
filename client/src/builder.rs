//! The settings of a client, and how it is made.

use std::sync::Arc;
use std::time::Duration;

use maitred_transport::{Endpoint, Identity};
use tokio::time::Instant;

use crate::call::Caller;
use crate::conn::NodeEvents;
use crate::error::{Error, Fatal};
use crate::pool::{Pool, Tasks};
use crate::verbs::Client;

/// Hosts of a group that a client may know.
const ENDPOINTS_MAX: usize = 64;

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) endpoints: Vec<String>,
    pub(crate) identity: Option<Identity>,
    pub(crate) build: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) create_timeout: Duration,
    pub(crate) push_timeout: Duration,
    pub(crate) replay_timeout: Duration,
}

impl Settings {
    /// Opens a port of its own and connects to every host; Ok once one of them answers.
    pub(crate) async fn dial(&self, node: Option<&NodeEvents>) -> Result<(Caller, Tasks), Error> {
        let what = "the identity (CA, certificate and key)";
        let identity = self.identity.as_ref().ok_or(Fatal::Missing { what })?;
        if self.endpoints.is_empty() || self.endpoints.len() > ENDPOINTS_MAX {
            let what = "an endpoint (host:port, 1 to 64 of them)";
            return Err(Fatal::Missing { what }.into());
        }
        let port = Endpoint::client(identity)?;
        let (pool, tasks) = Pool::start(port, &self.endpoints, &self.build, node);
        pool.first(Instant::now() + self.connect_timeout).await?;
        Ok((Caller::new(pool, self.request_timeout), tasks))
    }
}

/// Makes a [`Client`]. At least one endpoint and an identity are needed.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder(Settings);

impl Default for Builder {
    fn default() -> Self {
        Self(Settings {
            endpoints: Vec::new(),
            identity: None,
            build: concat!("maitred-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            create_timeout: Duration::from_secs(30),
            push_timeout: Duration::from_secs(120),
            replay_timeout: Duration::from_secs(600),
        })
    }
}

impl Builder {
    /// Adds a host: `name-or-address:port`. May be repeated. One that answers is enough: it tells of the
    /// others; several are several ways in.
    pub fn endpoint(mut self, host_port: impl Into<String>) -> Self {
        self.0.endpoints.push(host_port.into());
        self
    }

    /// Adds hosts.
    pub fn endpoints(self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        hosts.into_iter().fold(self, Self::endpoint)
    }

    /// Who this program is.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.0.identity = Some(identity);
        self
    }

    /// Program and version, for the host's log; at most 256 bytes.
    pub fn build_name(mut self, name: impl Into<String>) -> Self {
        let mut name: String = name.into();
        while name.len() > 256 {
            name.pop();
        }
        self.0.build = name;
        self
    }

    /// Longest that [`Builder::connect`] may take; 10 s unless said.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.0.connect_timeout = timeout;
        self
    }

    /// Longest that a request may take, retries included; 10 s unless said. Those that may take longer
    /// (creates, pushes) end after this too when no host takes them, for example because none leads.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.0.request_timeout = timeout;
        self
    }

    /// Longest that a create may take that names no deadline; 30 s unless said.
    pub fn create_timeout(mut self, timeout: Duration) -> Self {
        self.0.create_timeout = timeout;
        self
    }

    /// Longest that the push of a module may take; 120 s unless said.
    pub fn push_timeout(mut self, timeout: Duration) -> Self {
        self.0.push_timeout = timeout;
        self
    }

    /// Longest that the replay of recorded decisions may take; 10 minutes unless said.
    pub fn replay_timeout(mut self, timeout: Duration) -> Self {
        self.0.replay_timeout = timeout;
        self
    }

    /// Connects to every endpoint, within the current tokio runtime; Ok once one of them answers.
    /// The other members of the cluster are learned of and connected to in the background.
    ///
    /// # Errors
    /// [`Error::Fatal`] when no host will ever accept this client, with what to change;
    /// [`Error::Unavailable`] when none answered in time.
    pub async fn connect(self) -> Result<Client, Error> {
        let (caller, tasks) = self.0.dial(None).await?;
        Ok(Client::new(Arc::new(self.0), caller, tasks))
    }
}

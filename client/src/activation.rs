//! How a version of a module is made to decide: for all, or for a share of the ids as a canary.

use maitred_protocol::{ModuleName, ModuleRecord, Request, TypeName};

use crate::error::Error;
use crate::verbs::{Client, NO_SESSION};

/// An activation that is being put together: [`Activation::send`] carries it out. What is not said
/// is the newest version, the active configuration, all ids of all types, and no rule.
#[derive(Debug, Clone)]
#[must_use]
pub struct Activation {
    client: Client,
    name: ModuleName,
    version: u32,
    config: Option<String>,
    percent: u8,
    types: Vec<TypeName>,
    guard: String,
}

impl Activation {
    pub(crate) fn new(client: Client, name: ModuleName) -> Self {
        Self {
            client,
            name,
            version: 0,
            config: None,
            percent: 100,
            types: Vec::new(),
            guard: String::new(),
        }
    }

    /// Which version; 0 for the newest.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Its configuration, JSON of at most 64 KiB. The module's own `validate` has the last word.
    pub fn config(mut self, config: impl Into<String>) -> Self {
        self.config = Some(config.into());
        self
    }

    /// The share of the ids that it decides for, 1 to 100. Below 100 it is a canary beside the
    /// active version: an id that is in stays in when the share grows.
    pub fn percent(mut self, percent: u8) -> Self {
        self.percent = percent;
        self
    }

    /// Decides, as a canary, only for these types; at most 64.
    pub fn types(mut self, types: impl IntoIterator<Item = TypeName>) -> Self {
        self.types.extend(types);
        self
    }

    /// What takes it back by itself, at most 256 bytes: `traps>0 || reject_rate>1% || p99>200us`.
    pub fn auto_rollback(mut self, rule: impl Into<String>) -> Self {
        self.guard = rule.into();
        self
    }

    /// Carries it out: one entry of the log, and only when the module's `validate` takes the
    /// configuration and a majority of the hosts is ready to run the version.
    ///
    /// # Errors
    /// [`maitred_protocol::Rejection::Module`] when the configuration is refused or the version
    /// cannot be run; [`Error::Unavailable`] while too few hosts are ready.
    pub async fn send(self) -> Result<ModuleRecord, Error> {
        let request = Request::ActivateModule {
            client: NO_SESSION,
            name: self.name,
            version: self.version,
            config: self.config,
            percent: self.percent,
            types: self.types,
            guard: self.guard,
        };
        self.client.module(request).await
    }
}

//! `module activate`: which version decides, and with which configuration.

use clap::Args;
use maitred_protocol::ModuleName;

use super::{config, decides, show};
use crate::connect::Shell;
use crate::failure::Failure;

/// Make a version decide
///
/// Example: maitred module activate spread --config '{"label": "rack"}'
#[derive(Debug, Args)]
pub(crate) struct Activate {
    /// Which module
    module: ModuleName,
    /// Which version [default: the newest]
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// Its configuration, JSON of at most 64 KiB, or @FILE [default: the active version's]
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
}

impl Activate {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let config = config(self.config.as_deref())?;
        let client = shell.client().await?;
        let record = client
            .activate_module(&self.module, self.version.unwrap_or(0), config)
            .await?;
        show(shell, &record, &decides(&record))?;
        client.close().await;
        Ok(())
    }
}

//! `module rm`: forget a version, or all of them.

use clap::Args;
use maitred_protocol::ModuleName;
use serde_json::json;

use crate::connect::Shell;
use crate::failure::Failure;

/// Forget a version that is not active, or a whole module when no version is
///
/// Example: maitred module rm my-rule --version 1
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Which module
    module: ModuleName,
    /// Which version
    #[arg(long, value_name = "N", required_unless_present = "all", conflicts_with = "all",
          value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// Every version
    #[arg(long)]
    all: bool,
}

impl Remove {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let version = self.version.unwrap_or(0);
        let revision = client.remove_module(&self.module, version).await?;
        let body = json!({ "revision": revision.to_string() });
        shell.out.show("Done", body, || match self.version {
            Some(version) => format!("{}@{version} removed", self.module),
            None => format!("{} removed", self.module),
        })?;
        client.close().await;
        Ok(())
    }
}

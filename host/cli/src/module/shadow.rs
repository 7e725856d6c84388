//! `module shadow`: a version that runs beside the active one and decides nothing.

use clap::{Args, Subcommand};
use maitred_protocol::ModuleName;

use super::version::Versioned;
use super::{config, show};
use crate::connect::Shell;
use crate::failure::Failure;

/// Run a version beside the active one, on the same inputs, without letting it decide
#[derive(Debug, Subcommand)]
pub(crate) enum Shadow {
    Start(Start),
    /// End the shadow of a module
    ///
    /// Example: maitred module shadow stop spread
    Stop(Stop),
}

/// Run a version in shadow of the active one
///
/// Creates do not wait for it: what it cannot keep up with is left out, and counted. See how it does
/// with `maitred module compare`. Another start takes the place of the one before.
///
/// Example: maitred module shadow start spread@4
///
/// Example: maitred module shadow start spread --config '{"label": "rack"}'
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Which module; the newest version unless one is named
    #[arg(value_name = "NAME[@VERSION]")]
    module: Versioned,
    /// Its configuration, JSON of at most 64 KiB, or @FILE [default: the active version's]
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Which module
    module: ModuleName,
}

impl Shadow {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        match self {
            Self::Start(Start {
                module,
                config: given,
            }) => {
                let config = config(given.as_deref())?;
                let name = &module.name;
                let record = client.start_shadow(name, module.number(), config).await?;
                let version = record.shadow.as_ref().map_or(0, |shadow| shadow.version);
                let text = format!(
                    "{name}@{version} runs in shadow now\nnext: maitred module compare {name}"
                );
                show(shell, &record, &text)?;
            }
            Self::Stop(Stop { module }) => {
                let record = client.stop_shadow(module).await?;
                show(
                    shell,
                    &record,
                    &format!("nothing runs in shadow of {module}"),
                )?;
            }
        }
        client.close().await;
        Ok(())
    }
}

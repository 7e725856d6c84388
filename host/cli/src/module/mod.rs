//! `module`: upload selectors, callbacks and fences, and say which version decides.
//!
//! One verb, one file; here are the verbs that need none, and what several of them share.

mod activate;
mod ls;
mod push;
mod rm;

use clap::{Args, Subcommand};
use maitred_protocol::limits::CONFIG_BYTES_MAX;
use maitred_protocol::{ModuleName, ModuleRecord};
use serde_json::json;

use crate::connect::Shell;
use crate::failure::Failure;
use crate::files;
use crate::json as shape;
use activate::Activate;
use push::Push;
use rm::Remove;

/// Upload selectors, callbacks and fences, and say which version decides
#[derive(Debug, Subcommand)]
pub(crate) enum Module {
    Push(Push),
    /// List the modules
    ///
    /// Example: maitred module ls
    Ls,
    /// Show one module with all its versions
    ///
    /// Example: maitred module get spread
    Get(Name),
    Activate(Activate),
    /// Make the version before decide again, with the configuration that it had
    ///
    /// Example: maitred module rollback my-rule
    Rollback(Name),
    Rm(Remove),
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Which module
    module: ModuleName,
}

impl Module {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        match self {
            Self::Push(verb) => verb.run(shell).await,
            Self::Ls => ls::ls(shell).await,
            Self::Activate(verb) => verb.run(shell).await,
            Self::Rm(verb) => verb.run(shell).await,
            Self::Get(name) => {
                let client = shell.client().await?;
                let record = client.get_module(&name.module).await?;
                show(shell, &record, &ls::versions(&record))?;
                client.close().await;
                Ok(())
            }
            Self::Rollback(name) => {
                let client = shell.client().await?;
                let record = client.rollback_module(&name.module).await?;
                show(shell, &record, &decides(&record))?;
                client.close().await;
                Ok(())
            }
        }
    }
}

fn show(shell: &Shell, record: &ModuleRecord, text: &str) -> Result<(), Failure> {
    let body = json!({ "module": shape::module(record) });
    shell.out.show("Module", body, || text.to_owned())
}

fn decides(record: &ModuleRecord) -> String {
    match record.active {
        Some(version) => format!("{}@{version} decides now", record.name),
        None => format!("no version of {} decides", record.name),
    }
}

/// The text itself, or the content of the file behind an `@`.
fn config(given: Option<&str>) -> Result<Option<String>, Failure> {
    match given.map(|text| (text, text.strip_prefix('@'))) {
        Some((_, Some(path))) => {
            let path = std::path::Path::new(path);
            let text = files::read_text("read the configuration", path, CONFIG_BYTES_MAX as u64);
            text.map(Some)
        }
        Some((text, None)) => Ok(Some(text.to_owned())),
        None => Ok(None),
    }
}

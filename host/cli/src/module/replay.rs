//! `module replay`: recorded decisions, made again with another version.

mod local;

use std::path::{Path, PathBuf};

use clap::Args;
use maitred_client::Client;
use maitred_protocol::comparison::Comparison;
use maitred_protocol::limits::{MODULE_BYTES_MAX, REPLAY_MAX};
use serde_json::json;

use local::Local;

use super::comparison::text;
use super::config;
use super::test::blocking;
use super::version::Versioned;
use crate::connect::Shell;
use crate::failure::Failure;
use crate::files::{self, NewFile};
use crate::json as shape;
use crate::out::grouped;

/// Bytes of a file of inputs: some hundred for each decision, of a million at most.
const INPUTS_BYTES_MAX: u64 = 2 << 30;

/// Make recorded decisions again with a version of their module, and compare
///
/// A host records what its decisions were made from while it leads: nodes, request, seed, configuration.
/// Decided again by the version that made them they come out to the bit as they were; by another one you
/// see what it would have done. Without --config each is made with the configuration that it had then.
/// --export writes the inputs to a file, and with --from and --component they are decided on this
/// machine: no host is needed.
///
/// Example: maitred module replay spread@4 --last 10000
///
/// Example: maitred module replay spread --export inputs.bin --last 100000
///
/// Example: maitred module replay spread --from inputs.bin --component spread.wasm
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// Which module; the newest version unless one is named
    #[arg(value_name = "NAME[@VERSION]", required_unless_present = "export")]
    module: Option<Versioned>,
    /// How many of the newest decisions, 1 to 1000000; whole batches, so it may be a few more
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(REPLAY_MAX)))]
    last: u32,
    /// Its configuration, JSON of at most 64 KiB, or @FILE [default: each decision's own]
    #[arg(long, value_name = "JSON", conflicts_with = "export")]
    config: Option<String>,
    /// Write the inputs to this file instead; of all modules when none is named
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "component"])]
    export: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long, requires = "export")]
    force: bool,
    /// Take the inputs from a file that --export wrote
    #[arg(long, value_name = "FILE", requires = "component")]
    from: Option<PathBuf>,
    /// Decide with this component, on this machine
    #[arg(long, value_name = "FILE.wasm", requires = "from")]
    component: Option<PathBuf>,
}

impl Replay {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        if let Some(file) = &self.export {
            if let Some(Versioned {
                version: Some(_), ..
            }) = &self.module
            {
                let message = "inputs are of a module, whichever of its versions decided";
                return Err(Failure::usage(message, "leave out @VERSION"));
            }
            let client = shell.client().await?;
            self.save(shell, &client, file).await?;
            client.close().await;
            return Ok(());
        }
        let Some(module) = &self.module else {
            return Err(Failure::usage(
                "no module is named",
                "name it: NAME[@VERSION]",
            ));
        };
        let config = config(self.config.as_deref())?;
        let replayed = match (&self.from, &self.component) {
            (Some(inputs), Some(component)) => {
                if module.version.is_some() {
                    let message = "the component decides, whatever version it will be";
                    return Err(Failure::usage(message, "leave out @VERSION"));
                }
                let local = Local {
                    inputs: files::read("read the inputs", inputs, INPUTS_BYTES_MAX)?,
                    component: files::read("read the module", component, MODULE_BYTES_MAX)?,
                    module: module.name.clone(),
                    last: self.last,
                    config,
                };
                blocking(move || local.run()).await?
            }
            _ => {
                let client = shell.client().await?;
                let (name, version) = (&module.name, module.number());
                let replayed = client.replay_module(name, version, config, self.last);
                let replayed: Comparison = replayed.await?;
                client.close().await;
                replayed
            }
        };
        let body = shape::comparison(&replayed);
        shell.out.show("Comparison", body, || text(&replayed))
    }

    async fn save(&self, shell: &Shell, client: &Client, file: &Path) -> Result<(), Failure> {
        let name = self.module.as_ref().map(|module| module.name.clone());
        let mut fresh = NewFile::begin(file, self.force)?;
        let saved = client
            .save_inputs(name, self.last, fresh.file(), |_, _| {})
            .await?;
        fresh.keep()?;
        let body = json!({
            "file": file.display().to_string(),
            "host": saved.host.to_string(),
            "decisions": saved.decisions.to_string(),
            "bytes": saved.bytes.to_string(),
            "digest": saved.digest.to_string(),
        });
        shell.out.show("InputsSaved", body, || {
            let (decisions, bytes) = (grouped(saved.decisions), grouped(saved.bytes));
            let (shown, host) = (file.display(), saved.host);
            format!(
                "saved {shown}: {decisions} decisions of host {host}, {bytes} bytes\nnext: maitred module replay NAME --from {shown} --component FILE.wasm"
            )
        })
    }
}

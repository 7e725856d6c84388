//! `module activate` and `module configure`: which version decides, for whom, with which configuration,
//! and what takes it back by itself.

use clap::Args;
use maitred_client::{Activation, Client};
use maitred_protocol::{CanaryRecord, ModuleName, ModuleRecord, TypeName};
use maitred_registry::guard::Guard;

use super::version::Versioned;
use super::{config, decides, show};
use crate::connect::Shell;
use crate::failure::{Exit, Failure};

const RULE: &str = "\
Rules of --auto-rollback: tests joined by && (all must hold) and || (one is enough), of what the version
has done since it was activated, looked at four times a second:
  traps timeouts bad_answers errors decisions              counts: traps>0
  failures                                                 all four kinds together: failures>0
  failure_rate reject_rate none_rate wait_rate             parts of the decisions: reject_rate>1%
  p50 p99                                                  time of its calls: p99>200us, p50>=1ms
Comparisons: > >= < <= ==. Rates count from 50 decisions on, p50 and p99 from 100. Examples:
  failures>0
  failure_rate>0.5% || p99>200us
  decisions>=1000 && reject_rate>1%
What it did is in `maitred module history`.";

/// How a version is to decide; the same for `activate` and for `push --activate`.
#[derive(Debug, Args)]
pub(super) struct How {
    /// Its configuration, JSON of at most 64 KiB, or @FILE [default: the active version's]
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// Only for this share of the ids, 1 to 100, as a canary beside the active version
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u8).range(1..=100))]
    percent: Option<u8>,
    /// Only for these types, as a canary beside the active version; separated by commas
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    types: Vec<TypeName>,
    /// Take it back by itself when this rule holds, such as 'failures>0 || p99>200us'; see --help
    #[arg(long, value_name = "RULE", value_parser = Guard::parse)]
    auto_rollback: Option<Guard>,
}

impl How {
    /// The first flag that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        [
            (self.config.is_some(), "--config"),
            (self.percent.is_some(), "--percent"),
            (!self.types.is_empty(), "--types"),
            (self.auto_rollback.is_some(), "--auto-rollback"),
        ]
        .into_iter()
        .find_map(|(given, flag)| given.then_some(flag))
    }

    /// The activation of that version; 0 for the newest.
    pub(super) fn of(
        &self,
        client: &Client,
        name: &ModuleName,
        version: u32,
    ) -> Result<Activation, Failure> {
        let mut activation = client
            .activate(name)
            .version(version)
            .percent(self.percent.unwrap_or(100))
            .types(self.types.iter().cloned());
        if let Some(config) = config(self.config.as_deref())? {
            activation = activation.config(config);
        }
        Ok(match &self.auto_rollback {
            Some(rule) => activation.auto_rollback(rule.to_string()),
            None => activation,
        })
    }
}

/// Make a version decide, for all ids or for a share of them
///
/// It is one entry of the log, when the module's `validate` takes the configuration (exit code 8 when
/// not) and a majority of the hosts is ready to run it. With --percent or --types it becomes a canary:
/// the active version decides for everybody else, and an id that is in stays in when the share grows.
/// Activating it for all, or `rollback`, ends the canary.
///
/// Example: maitred module activate spread@3 --percent 10 --auto-rollback 'failures>0 || p99>200us'
///
/// Example: maitred module activate spread@3
///
/// Example: maitred module activate spread --config '{"label": "rack"}' --types player,room
#[derive(Debug, Args)]
#[command(after_long_help = RULE)]
pub(crate) struct Activate {
    /// Which module; the newest version unless one is named
    #[arg(value_name = "NAME[@VERSION]")]
    module: Versioned,
    /// Which version, instead of @VERSION
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    #[command(flatten)]
    how: How,
}

impl Activate {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let name = &self.module.name;
        let version = match (self.module.version, self.version) {
            (Some(one), Some(other)) if one != other => {
                let message = format!("both version {one} and version {other} are named");
                return Err(Failure::usage(message, "name one: NAME@VERSION"));
            }
            (one, other) => one.or(other).unwrap_or(0),
        };
        let client = shell.client().await?;
        let record = self.how.of(&client, name, version)?.send().await?;
        show(shell, &record, &decides(&record))?;
        client.close().await;
        Ok(())
    }
}

/// Give the version that decides another configuration
///
/// The same version goes on with it, as one entry of the log; `rollback` brings the one before back. The
/// module's own `validate` may refuse it: exit code 8.
///
/// Example: maitred module configure spread --config '{"label": "rack"}'
///
/// Example: maitred module configure spread --config @spread.json --canary
#[derive(Debug, Args)]
pub(crate) struct Configure {
    /// Which module
    module: ModuleName,
    /// The configuration, JSON of at most 64 KiB, or @FILE
    #[arg(long, value_name = "JSON")]
    config: String,
    /// The configuration of its canary, instead of the active version's
    #[arg(long)]
    canary: bool,
}

impl Configure {
    pub(super) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let config = config(Some(&self.config))?.unwrap_or_default();
        let client = shell.client().await?;
        let record = client.get_module(&self.module).await?;
        let activation = client.activate(&self.module).config(config);
        let activation = self.same(&record, activation)?;
        let record = activation.send().await?;
        show(shell, &record, &decides(&record))?;
        client.close().await;
        Ok(())
    }

    /// What decides now, for the same share and under the same rule.
    fn same(&self, record: &ModuleRecord, activation: Activation) -> Result<Activation, Failure> {
        let name = &self.module;
        match (&record.canary, record.active) {
            (Some(canary), _) if self.canary => {
                let CanaryRecord {
                    version,
                    percent,
                    types,
                    guard,
                    ..
                } = canary.clone();
                let activation = activation.version(version).percent(percent);
                Ok(activation.types(types).auto_rollback(guard))
            }
            (None, _) if self.canary => Err(Failure::new(
                Exit::Conflict,
                "no_canary",
                format!("{name} has no canary"),
                format!("start one with `maitred module activate {name} --percent 10`"),
            )),
            // To activate for all is to end the canary.
            (Some(canary), _) => Err(Failure::new(
                Exit::Conflict,
                "canary",
                format!("{name}@{} is being tried as a canary", canary.version),
                format!(
                    "give it the configuration with --canary, or end it first: `maitred module rollback {name}`"
                ),
            )),
            (None, Some(version)) => {
                let guard = record.guard.clone();
                Ok(activation.version(version).auto_rollback(guard))
            }
            (None, None) => Err(Failure::new(
                Exit::Conflict,
                "not_active",
                format!("no version of {name} is active"),
                format!("make one decide with `maitred module activate {name} --config …`"),
            )),
        }
    }
}

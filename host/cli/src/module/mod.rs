//! `module`: write selectors, callbacks and fences, upload them, and say which version decides.
//!
//! One verb, one file; here are the verbs that need none, and what several of them share.

mod activate;
mod bench;
mod build;
mod check;
mod compare;
mod comparison;
mod dev;
mod findings;
mod history;
mod keys;
mod kind;
mod ls;
mod new;
mod push;
mod rehearse;
mod replay;
mod rm;
mod sdk;
mod shadow;
mod template;
mod test;
mod version;

use clap::{Args, Subcommand};
use maitred_client::Error;
use maitred_protocol::limits::CONFIG_BYTES_MAX;
use maitred_protocol::{ModuleName, ModuleRecord, TypeName};
use serde_json::json;

use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::json as shape;
use activate::{Activate, Configure};
use bench::Bench;
use build::Build;
use check::Check;
use compare::Compare;
use dev::Dev;
use history::History;
use keys::{Keygen, Sign};
use new::New;
use push::Push;
use replay::Replay;
use rm::Remove;
use shadow::Shadow;
use test::Test;

/// Write selectors, callbacks and fences, upload them, and say which version decides
#[derive(Debug, Subcommand)]
pub(crate) enum Module {
    New(New),
    Build(Build),
    Check(Check),
    Test(Test),
    Bench(Bench),
    Dev(Dev),
    Push(Push),
    /// List the modules
    ///
    /// Example: maitred module ls
    Ls,
    /// Show one module: its versions, which of them decide, with what configuration and rule
    ///
    /// Example: maitred module get spread
    Get(Name),
    Activate(Activate),
    Configure(Configure),
    /// Take the last activation back: end the canary, or make the version before decide again
    ///
    /// The version before has the configuration that it had. It is one entry of the log.
    ///
    /// Example: maitred module rollback my-rule
    Rollback(Name),
    History(History),
    #[command(subcommand)]
    Shadow(Shadow),
    Compare(Compare),
    Replay(Replay),
    Rm(Remove),
    Keygen(Keygen),
    Sign(Sign),
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Which module
    module: ModuleName,
}

impl Module {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        match self {
            Self::New(verb) => verb.run(shell),
            Self::Build(verb) => verb.run(shell).await,
            Self::Check(verb) => verb.run(shell).await,
            Self::Test(verb) => verb.run(shell).await,
            Self::Bench(verb) => verb.run(shell).await,
            Self::Dev(verb) => verb.run(shell).await,
            Self::Keygen(verb) => verb.run(shell),
            Self::Sign(verb) => verb.run(shell),
            Self::Push(verb) => verb.run(shell).await,
            Self::Ls => ls::ls(shell).await,
            Self::Activate(verb) => verb.run(shell).await,
            Self::Configure(verb) => verb.run(shell).await,
            Self::History(verb) => verb.run(shell).await,
            Self::Shadow(verb) => verb.run(shell).await,
            Self::Compare(verb) => verb.run(shell).await,
            Self::Replay(verb) => verb.run(shell).await,
            Self::Rm(verb) => verb.run(shell).await,
            Self::Get(name) => {
                let client = shell.client().await?;
                let record = client.get_module(&name.module).await?;
                show(shell, &record, &ls::one(&record))?;
                client.close().await;
                Ok(())
            }
            Self::Rollback(name) => {
                let client = shell.client().await?;
                let back = client.rollback_module(&name.module).await;
                let record = back.map_err(|error| nothing_before(&name.module, error))?;
                show(shell, &record, &decides(&record))?;
                client.close().await;
                Ok(())
            }
        }
    }
}

/// What to do instead of going back.
fn nothing_before(name: &ModuleName, error: Error) -> Failure {
    let failure = Failure::from(error);
    if failure.exit != Exit::Conflict {
        return failure;
    }
    let help = format!(
        "see what was done with `maitred module history {name}`; any version can be made to decide: \
         `maitred module activate {name}@VERSION`"
    );
    Failure { help, ..failure }
}

fn show(shell: &Shell, record: &ModuleRecord, text: &str) -> Result<(), Failure> {
    let body = json!({ "module": shape::module(record) });
    shell.out.show("Module", body, || text.to_owned())
}

fn decides(record: &ModuleRecord) -> String {
    let name = &record.name;
    let mut text = match record.active {
        Some(version) => format!("{name}@{version} decides now"),
        None => format!("no version of {name} decides"),
    };
    if let Some(canary) = &record.canary {
        let whom = share(canary.percent, &canary.types);
        text += &format!("\n{name}@{} decides for {whom}", canary.version);
        if !canary.guard.is_empty() {
            text += &format!(", and is taken back when {}", canary.guard);
        }
    } else if record.active.is_some() && !record.guard.is_empty() {
        text += &format!(", and is taken back when {}", record.guard);
    }
    text
}

/// Which ids a version decides for: `all ids`, `10 % of the ids of player, room`.
fn share(percent: u8, types: &[TypeName]) -> String {
    let ids = match percent {
        100 => "all ids".to_owned(),
        percent => format!("{percent} % of the ids"),
    };
    match types {
        [] => ids,
        types => {
            let types: Vec<&str> = types.iter().map(TypeName::as_str).collect();
            format!("{ids} of {}", types.join(", "))
        }
    }
}

/// The text itself, or the content of the file behind an `@`; JSON, or it is refused here.
fn config(given: Option<&str>) -> Result<Option<String>, Failure> {
    let Some(given) = given else {
        return Ok(None);
    };
    let text = match given.strip_prefix('@') {
        Some(path) => {
            let path = std::path::Path::new(path);
            files::read_text("read the configuration", path, CONFIG_BYTES_MAX as u64)?
        }
        None => given.to_owned(),
    };
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        let help = "--config takes JSON, such as '{\"label\": \"rack\"}', or @FILE";
        let message = format!("the configuration is not JSON: {error}");
        return Err(Failure::usage(message, help));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_json_or_refused_before_anything_is_sent() {
        let good = "{\"a\": 1}";
        assert_eq!(config(None).unwrap(), None);
        assert_eq!(config(Some(good)).unwrap().as_deref(), Some(good));
        for bad in ["", "{bad", "[1", "{} {}"] {
            let failure = config(Some(bad)).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{bad}");
            assert!(failure.help.contains("@FILE"), "{bad}");
        }
        let missing = config(Some("@/nonexistent/config.json")).unwrap_err();
        assert!(missing.message.contains("/nonexistent/config.json"));
    }

    #[test]
    fn who_cannot_go_back_is_told_where_to_go() {
        let name = ModuleName::new("spread").unwrap();
        let conflict =
            |text: &str| Error::Rejected(maitred_protocol::Rejection::Conflict(text.to_owned()));
        let failure = nothing_before(&name, conflict("no earlier version"));
        assert!(failure.help.contains("maitred module history spread"));
        assert_eq!(failure.message, "no earlier version");
        let none = Error::Rejected(maitred_protocol::Rejection::NotFound(
            "module spread".into(),
        ));
        assert!(nothing_before(&name, none).help.contains("module ls"));
    }
}

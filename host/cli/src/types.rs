//! `type`: the defaults of process types.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use maitred_client::Error;
use maitred_protocol::{
    Fallback, ModuleKind, ModuleName, ModuleRecord, OnNodeLost, Rejection, TypeName, TypeSpec,
};
use serde_json::json;

use crate::args::{back_off, deadline, millis};
use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::table;

/// The defaults of process types: selector, callback, what happens when a node is lost
#[derive(Debug, Subcommand)]
pub(crate) enum Type {
    Put(Put),
    /// Show one type
    ///
    /// Example: maitred type get player
    Get(Name),
    /// List the types that have been described
    ///
    /// Example: maitred type ls
    Ls,
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Which type
    name: TypeName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FallbackArg {
    /// The node with the fewest processes
    LeastLoaded,
    /// The better of two random nodes
    TwoChoices,
    /// Highest random weight of id and node name
    Rendezvous,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LostArg {
    /// Remove its processes
    Forget,
    /// Start them again elsewhere, with new incarnations
    Recreate,
}

/// Set a type's defaults; what is not given stays as it is
///
/// This is how the placement rule of a type is changed while everything runs. A new type has
/// selector least-loaded, callback start, fallback least-loaded, forget, 3 attempts, 50ms back-off
/// and a deadline of 10s.
///
/// Example: maitred type put player --selector spread --on-node-lost recreate
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// Which type: a-z, 0-9, _ and -
    name: TypeName,
    /// The selector of creates that name none
    #[arg(long, value_name = "MODULE")]
    selector: Option<ModuleName>,
    /// The callback of creates that name none
    #[arg(long, value_name = "MODULE")]
    callback: Option<ModuleName>,
    /// The native rule that chooses when the selector fails
    #[arg(long, value_enum)]
    fallback: Option<FallbackArg>,
    /// What becomes of its processes when their node is lost
    #[arg(long, value_enum)]
    on_node_lost: Option<LostArg>,
    /// Nodes to try for one create, 1 to 16
    #[arg(long, value_name = "N")]
    attempts: Option<u8>,
    /// Pause before the second attempt, doubled for each further one, at most 60s
    #[arg(long, value_name = "TIME", value_parser = back_off)]
    back_off: Option<Duration>,
    /// Time that a create may take, at most 10m
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    deadline: Option<Duration>,
}

impl Type {
    pub(crate) async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        match self {
            Self::Put(verb) => verb.run(shell).await,
            Self::Get(name) => {
                let client = shell.client().await?;
                let spec = client.get_type(&name.name).await?;
                show(shell, &spec, &[])?;
                client.close().await;
                Ok(())
            }
            Self::Ls => {
                let client = shell.client().await?;
                let types = client.types().await?;
                let items = types.iter().map(shape::type_spec).collect();
                shell.out.list("TypeList", items, || rows(&types))?;
                client.close().await;
                Ok(())
            }
        }
    }
}

/// What is allowed, and probably not meant.
fn doubts(spec: &TypeSpec, modules: &[ModuleRecord]) -> Vec<String> {
    let fallback = shape::fallback(spec.fallback);
    let parts = [
        (
            &spec.selector,
            ModuleKind::Selector,
            format!("{fallback} chooses"),
        ),
        (
            &spec.callback,
            ModuleKind::Callback,
            "creates fail".to_owned(),
        ),
    ];
    let doubt = |(name, kind, until): &(&ModuleName, ModuleKind, String)| {
        let known = modules.iter().find(|module| module.name == **name);
        let wanted = shape::module_kind(*kind);
        let problem = match known {
            None => "there is no such module".to_owned(),
            Some(module) if module.kind != *kind => {
                format!("it is a {}", shape::module_kind(module.kind))
            }
            Some(module) if module.active.is_none() => "no version of it is active".to_owned(),
            Some(_) => return None,
        };
        Some(format!(
            "{wanted} {name}: {problem}; until there is one, {until}"
        ))
    };
    parts.iter().filter_map(doubt).collect()
}

fn show(shell: &Shell, spec: &TypeSpec, warnings: &[String]) -> Result<(), Failure> {
    let mut body = json!({ "type": shape::type_spec(spec) });
    if !warnings.is_empty() {
        body["warnings"] = json!(warnings);
    }
    let text = || rows(std::slice::from_ref(spec));
    shell.out.show("Type", body, text)
}

/// Exact: `50ms`, `10s`, `1500ms`.
fn time(millis: u32) -> String {
    if millis >= 1_000 && millis.is_multiple_of(1_000) {
        format!("{}s", millis / 1_000)
    } else {
        format!("{millis}ms")
    }
}

fn rows(types: &[TypeSpec]) -> String {
    let header = [
        "TYPE",
        "SELECTOR",
        "CALLBACK",
        "FALLBACK",
        "ON NODE LOST",
        "ATTEMPTS",
        "BACK-OFF",
        "DEADLINE",
    ];
    let row = |spec: &TypeSpec| {
        vec![
            spec.name.to_string(),
            spec.selector.to_string(),
            spec.callback.to_string(),
            shape::fallback(spec.fallback).to_owned(),
            shape::on_node_lost(spec.on_node_lost).to_owned(),
            spec.attempts.to_string(),
            time(spec.back_off_ms),
            time(spec.deadline_ms),
        ]
    };
    table(&header, types.iter().map(row))
}

impl Put {
    async fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let client = shell.client().await?;
        let mut spec = match client.get_type(&self.name).await {
            Ok(spec) => spec,
            Err(Error::Rejected(Rejection::NotFound(_))) => TypeSpec::new(self.name.clone()),
            Err(error) => return Err(error.into()),
        };
        self.apply(&mut spec);
        let modules = client.modules().await?;
        self.check(&modules)?;
        let spec = client.put_type(spec).await?;
        let warnings = doubts(&spec, &modules);
        for warning in warnings.iter().filter(|_| !shell.out.is_json()) {
            eprintln!("warning: {warning}");
        }
        show(shell, &spec, &warnings)?;
        client.close().await;
        Ok(())
    }

    /// Whether the modules that are given are of the kinds that are meant. One that is not there
    /// yet may come.
    fn check(&self, modules: &[ModuleRecord]) -> Result<(), Failure> {
        for (given, wanted) in [
            (&self.selector, ModuleKind::Selector),
            (&self.callback, ModuleKind::Callback),
        ] {
            let known = modules.iter().find(|one| given.as_ref() == Some(&one.name));
            if let Some(module) = known.filter(|one| one.kind != wanted) {
                let (is, wanted) = (shape::module_kind(module.kind), shape::module_kind(wanted));
                let message = format!("{} is a {is}, not a {wanted}", module.name);
                let help = "see which are there with `maitred module ls`";
                return Err(Failure::usage(message, help));
            }
        }
        Ok(())
    }

    fn apply(&self, spec: &mut TypeSpec) {
        if let Some(selector) = &self.selector {
            spec.selector = selector.clone();
        }
        if let Some(callback) = &self.callback {
            spec.callback = callback.clone();
        }
        if let Some(fallback) = self.fallback {
            spec.fallback = match fallback {
                FallbackArg::LeastLoaded => Fallback::LeastLoaded,
                FallbackArg::TwoChoices => Fallback::TwoChoices,
                FallbackArg::Rendezvous => Fallback::Rendezvous,
            };
        }
        if let Some(lost) = self.on_node_lost {
            spec.on_node_lost = match lost {
                LostArg::Forget => OnNodeLost::Forget,
                LostArg::Recreate => OnNodeLost::Recreate,
            };
        }
        spec.attempts = self.attempts.unwrap_or(spec.attempts);
        if self.back_off.is_some() {
            spec.back_off_ms = millis(self.back_off);
        }
        if self.deadline.is_some() {
            spec.deadline_ms = millis(self.deadline);
        }
    }
}

//! `type`: the defaults of process types, and how they are shown. Setting them is in [`put`].

mod put;

use clap::{Args, Subcommand};
use maitred_protocol::{TypeName, TypeSpec};
use serde_json::json;

use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::{fields, table};

/// The defaults of process types: selector, callback, what happens when a node is lost
#[derive(Debug, Subcommand)]
pub(crate) enum Type {
    Put(put::Put),
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

fn show(shell: &Shell, spec: &TypeSpec, warnings: &[String]) -> Result<(), Failure> {
    let mut body = json!({ "type": shape::type_spec(spec) });
    if !warnings.is_empty() {
        body["warnings"] = json!(warnings);
    }
    shell.out.show("Type", body, || one(spec))
}

/// All of one type.
fn one(spec: &TypeSpec) -> String {
    let fence = spec.fence.as_ref();
    fields(&[
        ("type", spec.name.to_string()),
        ("selector", spec.selector.to_string()),
        ("callback", spec.callback.to_string()),
        ("fallback", shape::fallback(spec.fallback).to_owned()),
        (
            "create",
            format!(
                "{} attempts, {} back-off, deadline {}",
                spec.attempts,
                time(spec.back_off_ms),
                time(spec.deadline_ms)
            ),
        ),
        (
            "on node lost",
            shape::on_node_lost(spec.on_node_lost).to_owned(),
        ),
        ("restart", shape::restart(spec.restart).to_owned()),
        (
            "fence",
            fence.map_or("none".to_owned(), ToString::to_string),
        ),
        ("on drain", shape::on_drain(spec.on_drain).to_owned()),
        ("given up", given_up(spec)),
    ])
}

/// When a process that has lost its node is given up.
fn given_up(spec: &TypeSpec) -> String {
    let attempts = format!("after {} attempts", spec.recreate_attempts);
    let patience = format!("after {}", time(spec.pending_deadline_ms));
    match (spec.recreate_attempts, spec.pending_deadline_ms) {
        (0, 0) => "never".to_owned(),
        (_, 0) => attempts,
        (0, _) => patience,
        (_, _) => format!("{attempts}, or {patience}"),
    }
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
        "RESTART",
        "FENCE",
        "ON DRAIN",
        "GIVEN UP",
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
            shape::restart(spec.restart).to_owned(),
            spec.fence
                .as_ref()
                .map_or("-".to_owned(), ToString::to_string),
            shape::on_drain(spec.on_drain).to_owned(),
            given_up(spec),
            spec.attempts.to_string(),
            time(spec.back_off_ms),
            time(spec.deadline_ms),
        ]
    };
    table(&header, types.iter().map(row))
}

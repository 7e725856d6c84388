//! `module ls` and `module get`: what is there, as tables.

use maitred_protocol::ModuleRecord;

use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::{ago, table};

pub(super) async fn ls(shell: &Shell) -> Result<(), Failure> {
    let client = shell.client().await?;
    let modules = client.modules().await?;
    let items = modules.iter().map(shape::module).collect();
    shell.out.list("ModuleList", items, || {
        let header = ["MODULE", "KIND", "ACTIVE", "NEWEST", "PREVIOUS", "DIGEST"];
        let row = |module: &ModuleRecord| {
            let dash = |version: Option<u32>| version.map_or("-".to_owned(), |v| v.to_string());
            let active = module
                .versions
                .iter()
                .find(|one| Some(one.version) == module.active);
            vec![
                module.name.to_string(),
                shape::module_kind(module.kind).to_owned(),
                dash(module.active),
                dash(module.versions.last().map(|one| one.version)),
                dash(module.previous),
                active.map_or("-".to_owned(), |one| one.digest.short()),
            ]
        };
        table(&header, modules.iter().map(row))
    })?;
    client.close().await;
    Ok(())
}

pub(super) fn versions(record: &ModuleRecord) -> String {
    let header = [
        "VERSION", "ACTIVE", "DIGEST", "BYTES", "TITLE", "FEATURES", "PUSHED",
    ];
    let rows = record.versions.iter().map(|one| {
        let mark = match Some(one.version) {
            version if version == record.active => "active",
            version if version == record.previous => "previous",
            _ => "",
        };
        vec![
            one.version.to_string(),
            mark.to_owned(),
            one.digest.short(),
            one.bytes.to_string(),
            one.title.clone(),
            one.features.join(","),
            format!("{} ago", ago(one.pushed_ms)),
        ]
    });
    let mut text = format!(
        "{} ({})\n\n{}",
        record.name,
        shape::module_kind(record.kind),
        table(&header, rows)
    );
    if !record.config.is_empty() {
        text += &format!("\n\nconfiguration: {}", record.config);
    }
    text
}

//! `module ls` and `module get`: what is there, as tables.

use maitred_protocol::{CanaryRecord, ModuleKind, ModuleRecord, ModuleVersion};

use super::share;
use crate::connect::Shell;
use crate::failure::Failure;
use crate::json as shape;
use crate::out::{ago, fields, table};

pub(super) async fn ls(shell: &Shell) -> Result<(), Failure> {
    let client = shell.client().await?;
    let modules = client.modules().await?;
    let items = modules.iter().map(shape::module).collect();
    shell.out.list("ModuleList", items, || {
        let header = [
            "MODULE", "KIND", "ACTIVE", "CANARY", "SHADOW", "NEWEST", "PREVIOUS", "DIGEST",
        ];
        let row = |module: &ModuleRecord| {
            let dash = |version: Option<u32>| version.map_or("-".to_owned(), |v| v.to_string());
            let active = module
                .versions
                .iter()
                .find(|one| Some(one.version) == module.active);
            let canary = module.canary.as_ref();
            vec![
                module.name.to_string(),
                shape::module_kind(module.kind).to_owned(),
                dash(module.active),
                canary.map_or("-".to_owned(), |one| {
                    format!("{} ({} %)", one.version, one.percent)
                }),
                dash(module.shadow.as_ref().map(|one| one.version)),
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

pub(super) fn one(record: &ModuleRecord) -> String {
    let mut rows = vec![
        ("module", format!("{} ({})", record.name, kind(record))),
        ("active", active(record)),
    ];
    if record.active.is_some() {
        let (number, text) = (record.config_version, &record.config);
        rows.push(("configuration", format!("{number}: {text}")));
    }
    if !record.guard.is_empty() {
        rows.push(("auto-rollback", record.guard.clone()));
    }
    if let Some(version) = record.previous {
        rows.push(("rollback goes to", format!("version {version}")));
    }
    if let Some(canary) = &record.canary {
        rows.extend(of_canary(canary));
    }
    if let Some(shadow) = &record.shadow {
        let (version, since) = (shadow.version, shadow.since);
        rows.push((
            "shadow",
            format!("version {version}, since revision {since}"),
        ));
        rows.push(("  configuration", shadow.config.clone()));
    }
    format!("{}\n\n{}", fields(&rows), versions(record))
}

/// What it is for, and how it looks at nodes.
fn kind(record: &ModuleRecord) -> &str {
    let newest = record.versions.last();
    match newest {
        Some(newest) if newest.world == "scanner" => "selector that scans",
        _ => shape::module_kind(record.kind),
    }
}

fn active(record: &ModuleRecord) -> String {
    match record.active {
        Some(version) => format!("version {version}, since revision {}", record.activated),
        None => "no version".to_owned(),
    }
}

fn of_canary(canary: &CanaryRecord) -> Vec<(&'static str, String)> {
    let whom = share(canary.percent, &canary.types);
    let (version, since) = (canary.version, canary.activated);
    let mut rows = vec![
        (
            "canary",
            format!("version {version}, for {whom}, since revision {since}"),
        ),
        (
            "  configuration",
            format!("{}: {}", canary.config_version, canary.config),
        ),
    ];
    if !canary.guard.is_empty() {
        rows.push(("  auto-rollback", canary.guard.clone()));
    }
    rows
}

fn versions(record: &ModuleRecord) -> String {
    let wants = match record.kind {
        ModuleKind::Callback => "HOOKS",
        ModuleKind::Selector | ModuleKind::Fence => "FEATURES",
    };
    let header = [
        "VERSION", "ROLE", "DIGEST", "BYTES", "TITLE", "WORLD", wants, "SIGNER", "PUSHED",
    ];
    let rows = record.versions.iter().map(|one| {
        let signer = one.signature.as_ref().map(shape::signer);
        let signer = signer.map_or("-".to_owned(), |key| key.chars().take(16).collect());
        vec![
            one.version.to_string(),
            role(record, one.version),
            one.digest.short(),
            one.bytes.to_string(),
            one.title.clone(),
            format!("{} {}", one.world, one.abi),
            wanted(record.kind, one),
            signer,
            format!("{} ago", ago(one.pushed_ms)),
        ]
    });
    table(&header, rows)
}

fn wanted(kind: ModuleKind, version: &ModuleVersion) -> String {
    let hooks = version.hooks.iter().map(|one| shape::hook(*one));
    match kind {
        ModuleKind::Callback => hooks.collect::<Vec<_>>().join(","),
        ModuleKind::Selector | ModuleKind::Fence => version.features.join(","),
    }
}

fn role(record: &ModuleRecord, version: u32) -> String {
    let canary = record.canary.as_ref().map(|one| one.version);
    let shadow = record.shadow.as_ref().map(|one| one.version);
    let roles = [
        (record.active, "active"),
        (canary, "canary"),
        (shadow, "shadow"),
        (record.previous, "previous"),
    ];
    let roles = roles.into_iter().filter(|(of, _)| *of == Some(version));
    roles.map(|(_, role)| role).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::{Digest, Hook, ModuleName, Revision, ShadowRecord, Signature, TypeName};

    fn version(version: u32) -> ModuleVersion {
        ModuleVersion {
            version,
            digest: Digest([version as u8; 32]),
            bytes: 1_000,
            title: "spread 1".to_owned(),
            features: vec!["cpu".to_owned()],
            pushed_ms: 0,
            world: "selector".to_owned(),
            abi: "0.2.0".to_owned(),
            hooks: vec![Hook::NodeLost],
            signature: None,
        }
    }

    pub(in super::super) fn record() -> ModuleRecord {
        let mut signed = version(3);
        signed.signature = Some(Signature {
            key: [0xab; 32],
            bytes: [0; 64],
        });
        ModuleRecord {
            name: ModuleName::new("spread").unwrap(),
            kind: ModuleKind::Selector,
            versions: vec![version(1), version(2), signed],
            active: Some(2),
            previous: Some(1),
            config: "{\"label\":\"zone\"}".to_owned(),
            config_version: 4,
            guard: "traps>0".to_owned(),
            canary: Some(CanaryRecord {
                version: 3,
                config: "{}".to_owned(),
                config_version: 5,
                percent: 10,
                types: vec![TypeName::new("room").unwrap()],
                guard: "p99>200us".to_owned(),
                activated: Revision(77),
            }),
            shadow: Some(ShadowRecord {
                version: 1,
                config: "{}".to_owned(),
                since: Revision(80),
            }),
            declined: Vec::new(),
            activated: Revision(50),
            revision: Revision(80),
        }
    }

    #[test]
    fn a_module_says_who_decides_for_whom_and_under_which_rule() {
        let shown = one(&record());
        for part in [
            "version 2, since revision 50",
            "4: {\"label\":\"zone\"}",
            "traps>0",
            "version 3, for 10 % of the ids of room",
            "p99>200us",
            "version 1, since revision 80",
            "shadow,previous",
            "selector 0.2.0",
            "abababababababab",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }
}

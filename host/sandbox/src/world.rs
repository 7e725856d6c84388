//! Whether a component fits its world by the names of what it imports and exports, and what to tell
//! its author when it does not.
//!
//! Extra exports are fine (interpreters carry some); an import that is not offered never is. An
//! interface fits when its version agrees in major and minor: within 0.1.x only functions are added.

use maitred_protocol::ModuleKind;

use crate::error::{ModuleError, Stage};

/// The package that everything belongs to, and the version that this host offers.
const PACKAGE: &str = "maitred:policy";
const MINOR: &str = "0.1.";
const OFFERED: &str = "0.1.0";

fn imports_of(kind: ModuleKind) -> &'static [&'static str] {
    match kind {
        ModuleKind::Selector => &["types", "host"],
        ModuleKind::Callback => &["types", "host", "node", "records"],
        ModuleKind::Fence => &["host", "records"],
    }
}

fn name(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Selector => "selector",
        ModuleKind::Callback => "callback",
        ModuleKind::Fence => "fence",
    }
}

/// Compares names with those of the world.
pub(crate) fn check(
    kind: ModuleKind,
    imports: &[&str],
    exports: &[&str],
) -> Result<(), ModuleError> {
    let wanted = name(kind);
    if !exports.iter().any(|export| fits(export, wanted)) {
        return Err(refuse(missing_export(kind, exports)));
    }
    let offered = imports_of(kind);
    match imports
        .iter()
        .find(|import| !offered.iter().any(|interface| fits(import, interface)))
    {
        None => Ok(()),
        Some(import) => Err(refuse(foreign_import(kind, import, imports))),
    }
}

/// Whether a name is `maitred:policy/<interface>` of a version that this host offers.
fn fits(name: &str, interface: &str) -> bool {
    split(name).is_some_and(|(have, version)| have == interface && version.starts_with(MINOR))
}

/// Interface and version of a name of our package.
fn split(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix(PACKAGE)?.strip_prefix('/')?;
    Some(rest.split_once('@').unwrap_or((rest, "")))
}

fn missing_export(kind: ModuleKind, exports: &[&str]) -> String {
    let wanted = name(kind);
    let want = format!("a {wanted} exports the interface {PACKAGE}/{wanted}@{OFFERED}");
    let ours = exports.iter().find_map(|export| split(export));
    match ours {
        Some((interface, version)) if interface == wanted => {
            format!(
                "{want}; this one exports version {version}: build it against the WIT package of this host"
            )
        }
        Some((interface, _)) => {
            format!("{want}; this one exports {interface}: push it as a {interface}")
        }
        None if exports.is_empty() => format!("{want}; this one exports nothing"),
        None => {
            let have: Vec<&str> = exports.iter().take(4).copied().collect();
            format!(
                "{want}; this one exports {}: export the interface, not bare functions",
                have.join(", ")
            )
        }
    }
}

fn foreign_import(kind: ModuleKind, import: &str, imports: &[&str]) -> String {
    let world = name(kind);
    if let Some((interface, version)) = split(import) {
        return if imports_of(kind).contains(&interface) {
            format!(
                "it imports {import}, which is version {version}; this host offers {OFFERED}: build it against the WIT package of this host"
            )
        } else {
            format!("it imports {import}, which a {world} is not offered")
        };
    }
    let foreign = imports
        .iter()
        .filter(|import| split(import).is_none())
        .count();
    let more = match foreign {
        0 | 1 => String::new(),
        _ => format!(" and {} more", foreign - 1),
    };
    let hint = if import.starts_with("wasi:") {
        "; guests have no system interface. Build without it: Rust for wasm32-unknown-unknown, \
         componentize-qjs with --sync --stub-wasi, componentize-py with -s, others with a WASI \
         adapter that needs nothing from the host"
    } else {
        ""
    };
    let offered = imports_of(kind).join(", ");
    format!(
        "it imports {import}{more}; a {world} may import only {offered} of {PACKAGE}@{OFFERED}{hint}"
    )
}

fn refuse(reason: String) -> ModuleError {
    ModuleError::new(Stage::CheckingTheWorld, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_same_minor_version_fit() {
        assert!(fits("maitred:policy/host@0.1.7", "host"));
        for name in [
            "maitred:policy/host@0.2.0",
            "maitred:policy/host",
            "maitred:policy/node@0.1.0",
            "wasi:policy/host@0.1.0",
        ] {
            assert!(!fits(name, "host"), "{name}");
        }
    }

    #[test]
    fn the_difference_is_named() {
        let selector = "maitred:policy/selector@0.1.0";
        let reason = |imports: &[&str], exports: &[&str]| {
            check(ModuleKind::Selector, imports, exports)
                .unwrap_err()
                .reason
        };
        assert!(reason(&[], &["maitred:policy/selector@0.2.0"]).contains("exports version 0.2.0"));
        assert!(reason(&[], &["select"]).contains("exports select: export the interface"));
        assert!(
            reason(&["maitred:policy/host@0.3.0"], &[selector])
                .contains("version 0.3.0; this host offers 0.1.0")
        );
        let wasi = reason(
            &["wasi:cli/environment@0.2.3", "wasi:io/poll@0.2.3"],
            &[selector],
        );
        assert!(
            wasi.contains("wasi:cli/environment@0.2.3 and 1 more") && wasi.contains("--stub-wasi")
        );
    }

    #[test]
    fn each_kind_has_its_imports() {
        let host = ["maitred:policy/host@0.1.0"];
        let records = ["maitred:policy/records@0.1.0"];
        let node = ["maitred:policy/node@0.1.0"];
        for (kind, offered) in [
            (ModuleKind::Selector, [true, false, false]),
            (ModuleKind::Callback, [true, true, true]),
            (ModuleKind::Fence, [true, true, false]),
        ] {
            let exports = format!("{PACKAGE}/{}@{OFFERED}", name(kind));
            let fit = [host, records, node].map(|import| check(kind, &import, &[&exports]).is_ok());
            assert_eq!(fit, offered, "{kind:?}");
        }
        let fence = ["maitred:policy/fence@0.1.0"];
        let reason = |imports: &[&str]| {
            check(ModuleKind::Fence, imports, &fence)
                .unwrap_err()
                .reason
        };
        assert_eq!(
            reason(&node),
            "it imports maitred:policy/node@0.1.0, which a fence is not offered"
        );
        assert!(reason(&["wasi:sockets/tcp@0.2.3"]).contains("may import only host, records of"));
    }
}

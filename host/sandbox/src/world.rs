//! Which world a component is of, by the names of what it imports and exports, whether it fits, and
//! what to tell its author when it does not. The names are the protocol's (`maitred_protocol::world`),
//! as are the words about imports from elsewhere, because the tools that build modules use both.
//!
//! The one interface of ours that it exports decides, and so does its version: this host offers the
//! minor version 0.2 and the one before. An interface fits when its version agrees in major and
//! minor, because within these only functions are added. Extra exports are fine (interpreters carry
//! some); an import that is not offered never is.

use maitred_protocol::ModuleKind;
pub(crate) use maitred_protocol::World as Interface;
use maitred_protocol::world::{PACKAGE, foreign_imports, listed, split};

use crate::error::{ModuleError, Stage};

/// The newest version of the package that this host offers.
const OFFERED: &str = "0.2.0";

/// What a component is built against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abi {
    /// See `v0_1`.
    V0_1,
    V0_2,
}

/// What a component turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) interface: Interface,
    pub(crate) abi: Abi,
    /// The version of the package that it names.
    pub(crate) version: String,
}

impl Abi {
    /// The one of a version of the package.
    fn of(version: &str) -> Option<Self> {
        let (minor, patch) = version.rsplit_once('.')?;
        patch.parse::<u32>().ok()?;
        match minor {
            "0.1" => Some(Self::V0_1),
            "0.2" => Some(Self::V0_2),
            _ => None,
        }
    }
}

/// Compares names with those of the worlds of a kind.
pub(crate) fn check(
    kind: ModuleKind,
    imports: &[&str],
    exports: &[&str],
) -> Result<Fit, ModuleError> {
    let fit = exported(kind, exports).ok_or_else(|| refuse(missing_export(kind, exports)))?;
    let offered = |import: &&str| {
        split(import).is_some_and(|(interface, version)| {
            fit.interface.imports().contains(&interface) && Abi::of(version) == Some(fit.abi)
        })
    };
    let refused: Vec<&str> = imports
        .iter()
        .copied()
        .filter(|import| !offered(import))
        .collect();
    match refused.iter().find(|import| split(import).is_some()) {
        Some(ours) => Err(refuse(not_offered(&fit, ours))),
        None if refused.is_empty() => Ok(fit),
        None => Err(refuse(foreign_imports(&refused))),
    }
}

/// The interface of this kind that a component exports, of a version that is offered; the newest.
fn exported(kind: ModuleKind, exports: &[&str]) -> Option<Fit> {
    let fits = exports.iter().filter_map(|export| {
        let (name, version) = split(export)?;
        let interface = Interface::named(name).filter(|one| one.kind() == kind)?;
        let abi = Abi::of(version)?;
        // There were no scanners then.
        let known = abi == Abi::V0_2 || interface != Interface::Scanner;
        known.then(|| Fit {
            interface,
            abi,
            version: version.to_owned(),
        })
    });
    fits.max_by_key(|fit| fit.abi == Abi::V0_2)
}

fn kind_name(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Selector => "selector",
        ModuleKind::Callback => "callback",
        ModuleKind::Fence => "fence",
    }
}

fn missing_export(kind: ModuleKind, exports: &[&str]) -> String {
    let wanted = kind_name(kind);
    let or = match kind {
        ModuleKind::Selector => format!(" (a scanner {PACKAGE}/scanner@{OFFERED})"),
        ModuleKind::Callback | ModuleKind::Fence => String::new(),
    };
    let want = format!("a {wanted} exports the interface {PACKAGE}/{wanted}@{OFFERED}{or}");
    let ours = exports.iter().find_map(|export| split(export));
    match ours.map(|(name, version)| (name, version, Interface::named(name))) {
        Some((_, version, Some(interface))) if interface.kind() == kind => {
            format!(
                "{want}; this one exports version {version}: build it against the WIT package of this host"
            )
        }
        Some((name, _, Some(interface))) => {
            let kind = kind_name(interface.kind());
            format!("{want}; this one exports {name}: push it as a {kind}")
        }
        Some((name, ..)) => format!("{want}; this one exports {name}"),
        None if exports.is_empty() => format!("{want}; this one exports nothing"),
        None => format!(
            "{want}; this one exports {}: export the interface, not bare functions",
            listed(exports)
        ),
    }
}

/// An import of our package that is not offered.
fn not_offered(fit: &Fit, import: &str) -> String {
    let world = fit.interface.name();
    match split(import) {
        Some((name, version)) if fit.interface.imports().contains(&name) => format!(
            "it imports {import}, which is version {version}, and exports {world} of version {}: build all of it against one WIT package, that of this host is {OFFERED}",
            fit.version
        ),
        _ => format!("it imports {import}, which a {world} is not offered"),
    }
}

fn refuse(reason: String) -> ModuleError {
    ModuleError::new(Stage::CheckingTheWorld, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELECTOR: &str = "maitred:policy/selector@0.2.0";

    fn fit(kind: ModuleKind, imports: &[&str], exports: &[&str]) -> Result<Fit, String> {
        check(kind, imports, exports).map_err(|error| error.reason)
    }

    #[test]
    fn the_export_decides_what_it_is() {
        let selector = ModuleKind::Selector;
        for (export, interface, abi) in [
            (SELECTOR, Interface::Selector, Abi::V0_2),
            (
                "maitred:policy/selector@0.2.9",
                Interface::Selector,
                Abi::V0_2,
            ),
            (
                "maitred:policy/scanner@0.2.0",
                Interface::Scanner,
                Abi::V0_2,
            ),
            (
                "maitred:policy/selector@0.1.3",
                Interface::Selector,
                Abi::V0_1,
            ),
        ] {
            let fit = fit(selector, &[], &["init", export]).unwrap();
            assert_eq!((fit.interface, fit.abi), (interface, abi), "{export}");
            assert!(export.ends_with(&fit.version));
        }
        for export in [
            "maitred:policy/selector",
            "maitred:policy/selector@0.3.0",
            "maitred:policy/selector@0.2",
            "maitred:policy/scanner@0.1.0",
            "maitred:policy/fence@0.2.0",
            "wasi:policy/selector@0.2.0",
        ] {
            assert!(fit(selector, &[], &[export]).is_err(), "{export}");
        }
        let both = ["maitred:policy/selector@0.1.0", SELECTOR];
        assert_eq!(fit(selector, &[], &both).unwrap().abi, Abi::V0_2);
    }

    #[test]
    fn the_difference_is_named() {
        let reason = |imports: &[&str], exports: &[&str]| {
            fit(ModuleKind::Selector, imports, exports).unwrap_err()
        };
        assert!(reason(&[], &["maitred:policy/selector@0.3.0"]).contains("exports version 0.3.0"));
        assert!(reason(&[], &["select"]).contains("exports select: export the interface"));
        assert!(
            reason(&["maitred:policy/host@0.1.0"], &[SELECTOR])
                .contains("is version 0.1.0, and exports selector of version 0.2.0")
        );
        let wasi = reason(
            &[
                "wasi:cli/environment@0.2.3",
                "maitred:policy/host@0.2.0",
                "wasi:io/poll@0.2.3",
            ],
            &[SELECTOR],
        );
        assert!(
            wasi.starts_with("it imports wasi:cli/environment@0.2.3, wasi:io/poll@0.2.3; a module")
        );
        for flag in [
            "--stub-wasi",
            "componentize -s",
            "-mexec-model=reactor",
            "--adapt",
        ] {
            assert!(wasi.contains(flag), "{flag}");
        }
    }

    #[test]
    fn each_world_has_its_imports() {
        for (interface, abi, offered) in [
            (
                Interface::Selector,
                "0.2.0",
                [true, true, false, false, false],
            ),
            (
                Interface::Scanner,
                "0.2.1",
                [true, true, true, false, false],
            ),
            (
                Interface::Callback,
                "0.2.0",
                [true, false, false, true, true],
            ),
            (Interface::Fence, "0.2.0", [true, false, false, false, true]),
            (
                Interface::Callback,
                "0.1.0",
                [true, false, false, true, true],
            ),
        ] {
            let export = format!("{PACKAGE}/{}@{abi}", interface.name());
            let fits = ["host", "answers", "nodes", "node", "records"].map(|import| {
                let import = format!("{PACKAGE}/{import}@{abi}");
                fit(interface.kind(), &[&import], &[&export]).is_ok()
            });
            assert_eq!(fits, offered, "{interface:?}");
        }
        let fence = ["maitred:policy/fence@0.2.0"];
        assert_eq!(
            fit(ModuleKind::Fence, &["maitred:policy/node@0.2.0"], &fence).unwrap_err(),
            "it imports maitred:policy/node@0.2.0, which a fence is not offered"
        );
    }
}

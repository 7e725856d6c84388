//! Which world a component is of, by the names of what it imports and exports, whether it fits, and
//! what to tell its author when it does not.
//!
//! The one interface of ours that it exports decides, and so does its version: this host offers the
//! minor version 0.2 and the one before. An interface fits when its version agrees in major and
//! minor, because within these only functions are added. Extra exports are fine (interpreters carry
//! some); an import that is not offered never is.

use maitred_protocol::ModuleKind;
use wasmparser::{Encoding, Parser, Payload};

use crate::error::{ModuleError, Stage};
use crate::limits::{LISTED_CHARS_MAX, LISTED_MAX};

/// The package that everything belongs to, and the newest version that this host offers.
const PACKAGE: &str = "maitred:policy";
const OFFERED: &str = "0.2.0";

/// What a component is built against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abi {
    /// See `v0_1`.
    V0_1,
    V0_2,
}

/// What a component exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    Selector,
    Scanner,
    Callback,
    Fence,
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

impl Interface {
    const ALL: [Self; 4] = [Self::Selector, Self::Scanner, Self::Callback, Self::Fence];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Selector => "selector",
            Self::Scanner => "scanner",
            Self::Callback => "callback",
            Self::Fence => "fence",
        }
    }

    fn kind(self) -> ModuleKind {
        match self {
            Self::Selector | Self::Scanner => ModuleKind::Selector,
            Self::Callback => ModuleKind::Callback,
            Self::Fence => ModuleKind::Fence,
        }
    }

    fn imports(self) -> &'static [&'static str] {
        match self {
            Self::Selector => &["types", "host", "answers"],
            Self::Scanner => &["types", "host", "answers", "nodes"],
            Self::Callback => &["types", "host", "node", "records"],
            Self::Fence => &["host", "records"],
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
        None => foreign_imports_advice(&refused).map_or(Ok(fit), |advice| Err(refuse(advice))),
    }
}

/// The interface of this kind that a component exports, of a version that is offered; the newest.
fn exported(kind: ModuleKind, exports: &[&str]) -> Option<Fit> {
    let fits = exports.iter().filter_map(|export| {
        let (name, version) = split(export)?;
        let mut interfaces = Interface::ALL.into_iter();
        let interface = interfaces.find(|one| one.name() == name && one.kind() == kind)?;
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

/// Interface and version of a name of our package.
fn split(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix(PACKAGE)?.strip_prefix('/')?;
    Some(rest.split_once('@').unwrap_or((rest, "")))
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
    let of = |name: &str| Interface::ALL.into_iter().find(|one| one.name() == name);
    let ours = exports.iter().find_map(|export| split(export));
    match ours.map(|(name, version)| (name, version, of(name))) {
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

/// What to tell the author of a component that imports what no host offers: all of it, and what
/// takes it out, by language. None when there is nothing to tell.
#[must_use]
pub fn foreign_imports_advice<S: AsRef<str>>(imports: &[S]) -> Option<String> {
    if imports.is_empty() {
        return None;
    }
    Some(format!(
        "it imports {}; a module may import nothing but {PACKAGE}: no system interface, no clock, no \
         network. What leaves them out: Rust: build for wasm32-unknown-unknown, not for a WASI target. \
         JavaScript: componentize-qjs --sync --stub-wasi. Python: componentize-py componentize -s. C and \
         Zig: -mexec-model=reactor, and no stdio (printf, std.debug.print). Go: wasm-tools component new \
         --adapt with an adapter that needs nothing from the host. Others: wasm-tools component embed and \
         new on a core module without WASI imports",
        listed(imports)
    ))
}

/// Some of these names, which are as many and as long as their author likes.
fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let short = |name: &S| name.as_ref().chars().take(LISTED_CHARS_MAX).collect();
    let some: Vec<String> = names.iter().take(LISTED_MAX).map(short).collect();
    let some = some.join(", ");
    match names.len().saturating_sub(LISTED_MAX) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

/// What a component imports that no host offers, by name. For `module build` and `module check`,
/// which say so before anything is uploaded.
///
/// # Errors
/// It is not a component.
pub fn foreign_imports(bytes: &[u8]) -> Result<Vec<String>, ModuleError> {
    let malformed =
        |error: wasmparser::BinaryReaderError| ModuleError::new(Stage::Scanning, error.to_string());
    let mut foreign = Vec::new();
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding, .. } if depth == 0 && encoding == Encoding::Module => {
                let reason = "it is a core module, not a component";
                return Err(ModuleError::new(Stage::Scanning, reason));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let name = import.map_err(malformed)?.name.name;
                    if split(name).is_none() {
                        foreign.push(name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(foreign)
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

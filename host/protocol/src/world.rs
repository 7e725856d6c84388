//! The worlds of `maitred:policy` by name: what a module of each kind exports, what it is offered to
//! import, and what an author does who finds anything else among the imports.
//!
//! Both sides read it here: hosts, which refuse an upload, and the tools that build modules, which say so
//! before one is made. What the names mean is in `wit/policy.wit`; which versions of it are offered is
//! for the host to say.

use std::fmt;

use crate::module::ModuleKind;

/// The package that everything belongs to.
pub const PACKAGE: &str = "maitred:policy";

/// Names that a listing for people shows, and characters of each. A component that was built for WASI
/// imports some 25, and its author wants to see them all.
const LISTED_MAX: usize = 32;
/// See [`LISTED_MAX`].
const LISTED_CHARS_MAX: usize = 80;

/// What a component is, by the one interface of ours that it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// Chooses among candidates.
    Selector,
    /// Chooses from the whole fleet.
    Scanner,
    /// Starts processes.
    Callback,
    /// Says whether a lost node is dead.
    Fence,
}

impl World {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Selector, Self::Scanner, Self::Callback, Self::Fence];

    /// The interface that it exports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Selector => "selector",
            Self::Scanner => "scanner",
            Self::Callback => "callback",
            Self::Fence => "fence",
        }
    }

    /// Its name in the WIT.
    #[must_use]
    pub fn world(self) -> &'static str {
        match self {
            Self::Selector => "selector-module",
            Self::Scanner => "scanner-module",
            Self::Callback => "callback-module",
            Self::Fence => "fence-module",
        }
    }

    /// The one that exports an interface of this name.
    #[must_use]
    pub fn named(interface: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == interface)
    }

    /// What it is pushed as: a scanner is a selector to those who use it.
    #[must_use]
    pub fn kind(self) -> ModuleKind {
        match self {
            Self::Selector | Self::Scanner => ModuleKind::Selector,
            Self::Callback => ModuleKind::Callback,
            Self::Fence => ModuleKind::Fence,
        }
    }

    /// The interfaces that it is offered.
    #[must_use]
    pub fn imports(self) -> &'static [&'static str] {
        match self {
            Self::Selector => &["types", "host", "answers"],
            Self::Scanner => &["types", "host", "answers", "nodes"],
            Self::Callback => &["types", "host", "node", "records"],
            Self::Fence => &["host", "records"],
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Interface and version of a name of our package: `maitred:policy/host@0.2.0`. The version is empty
/// where none is written.
#[must_use]
pub fn split(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix(PACKAGE)?.strip_prefix('/')?;
    Some(rest.split_once('@').unwrap_or((rest, "")))
}

/// What keeps the imports of a system out of a component, by language.
pub const KEEP_OUT: [(&str, &str); 6] = [
    (
        "Rust",
        "build for wasm32-unknown-unknown, not for a WASI target, and without crates that bring imports of \
         their own (wasm-bindgen, getrandom with `wasm_js`)",
    ),
    ("JavaScript", "componentize-qjs --sync --stub-wasi"),
    ("Python", "componentize-py componentize -s (--stub-wasi)"),
    (
        "C and Zig",
        "link as a reactor (-mexec-model=reactor), and call nothing that needs a system: no stdio (printf, \
         std.debug.print), no files, no time; `host.log` writes a line",
    ),
    (
        "Go",
        "wasm-tools component new --adapt with an adapter that needs nothing from the host",
    ),
    (
        "Others",
        "wasm-tools component embed and new on a core module without WASI imports",
    ),
];

/// What to tell the author of a component that imports what no host offers: all of it, and what keeps
/// it out.
#[must_use]
pub fn foreign_imports<S: AsRef<str>>(imports: &[S]) -> String {
    format!(
        "it imports {}; a module may import nothing but {PACKAGE}: no system interface, no clock, no network. \
         What leaves them out: {}",
        listed(imports),
        keep_out(None)
    )
}

/// [`KEEP_OUT`] in one language, or in all of them.
#[must_use]
pub fn keep_out(language: Option<&str>) -> String {
    let known = |&(of, _): &(&str, &str)| language == Some(of);
    if let Some((_, advice)) = KEEP_OUT.into_iter().find(known) {
        return advice.to_owned();
    }
    KEEP_OUT
        .map(|(of, advice)| format!("{of}: {advice}"))
        .join(". ")
}

/// Some of these names, which are as many and as long as their author likes.
#[must_use]
pub fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let short = |name: &S| name.as_ref().chars().take(LISTED_CHARS_MAX).collect();
    let some: Vec<String> = names.iter().take(LISTED_MAX).map(short).collect();
    let some = some.join(", ");
    match names.len().saturating_sub(LISTED_MAX) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(split("maitred:policy/host@0.2.0"), Some(("host", "0.2.0")));
        assert_eq!(split("maitred:policy/host"), Some(("host", "")));
        assert_eq!(split("maitred:policy"), None);
        assert_eq!(split("maitred:policyx/host@0.2.0"), None);
        assert_eq!(split("wasi:cli/environment@0.2.3"), None);
    }

    #[test]
    fn the_worlds_are_those_of_the_wit() {
        let wit = include_str!("../../../wit/policy.wit");
        for world in World::ALL {
            let head = format!("world {} {{", world.world());
            let (_, body) = wit.split_once(&head).unwrap();
            let (body, _) = body.split_once('}').unwrap();
            assert!(
                body.contains(&format!("export {};", world.name())),
                "{body}"
            );
            let imports: Vec<&str> = body
                .lines()
                .filter_map(|line| line.trim().strip_prefix("import ")?.strip_suffix(';'))
                .collect();
            assert!(!imports.is_empty());
            for import in imports {
                assert!(world.imports().contains(&import), "{import} of {world:?}");
            }
        }
    }

    #[test]
    fn the_way_out_is_named_in_one_language_or_in_each() {
        let wasi = ["wasi:cli/environment@0.2.3", "wasi:io/poll@0.2.3"];
        let all = foreign_imports(&wasi);
        assert!(
            all.starts_with("it imports wasi:cli/environment@0.2.3, wasi:io/poll@0.2.3; a module")
        );
        for (language, advice) in KEEP_OUT {
            assert!(all.contains(language) && all.contains(advice), "{all}");
            assert_eq!(keep_out(Some(language)), advice);
        }
        let many: Vec<String> = (0..40).map(|at| format!("wasi:a/{at}")).collect();
        assert!(foreign_imports(&many).contains("wasi:a/31 and 8 more;"));
    }
}

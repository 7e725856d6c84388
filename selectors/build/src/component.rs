//! From a core module to a component, and what a component exports and imports.
//!
//! A guest may import the interfaces of `maitred:policy` that its world names and nothing else: no
//! WASI, no clock, no network. The host refuses the rest; here it is refused before it is written,
//! with the way to get rid of it in the language at hand.

use maitred_protocol::world::{PACKAGE, split};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, DecodedWasm};

use crate::project::{Kind, Lang};

/// Why there is no component, or none that a host takes.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// The compiler's output is not what the language's recipe makes.
    #[error("not a core module with component types: {0}")]
    Encode(String),
    /// The bytes are something else, or damaged.
    #[error("not a component: {0}")]
    Decode(String),
    /// It needs something that no host gives a guest.
    #[error("it imports {}, which a {of} is not offered", .imports.join(", "))]
    Foreign {
        /// What it is, or was to be.
        of: &'static str,
        /// All that are not offered.
        imports: Vec<String>,
        /// How to get rid of them.
        advice: String,
    },
    /// It is a component of something else.
    #[error("it exports {}; {wanted}", listed(.exports))]
    Exports {
        /// What it exports.
        exports: Vec<String>,
        /// What is asked for.
        wanted: String,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.join(", ")
}

/// What a component says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// What it is by its exports; none when they are not ours.
    pub kind: Option<Kind>,
    /// The version of our package that it was built for, when it exports something of it.
    pub version: Option<String>,
    /// Names with versions, as written.
    pub imports: Vec<String>,
    /// The same. Interpreters export more than their world says.
    pub exports: Vec<String>,
}

impl Inspection {
    /// The imports that a component of `kind` is not offered.
    #[must_use]
    pub fn foreign(&self, kind: Kind) -> Vec<String> {
        let is_offered = |name: &String| {
            let ours = split(name).map(|(interface, _)| interface);
            ours.is_some_and(|interface| kind.imports().contains(&interface))
        };
        let foreign = self.imports.iter().filter(|name| !is_offered(name));
        foreign.cloned().collect()
    }

    /// The imports that are not of our package: no host offers them to anybody.
    #[must_use]
    pub fn of_others(&self) -> Vec<String> {
        let imports = self.imports.iter();
        imports
            .filter(|name| split(name).is_none())
            .cloned()
            .collect()
    }

    /// Whether it is a `kind`, written in `lang`.
    ///
    /// # Errors
    /// Other exports; imports that are not offered, with how to get rid of them in `lang`.
    pub fn check(&self, kind: Kind, lang: Lang) -> Result<(), ComponentError> {
        if self.kind != Some(kind) {
            return Err(ComponentError::Exports {
                exports: self.exports.clone(),
                wanted: format!("a {kind} exports {PACKAGE}/{kind}"),
            });
        }
        refuse(self.foreign(kind), kind.name(), lang)
    }
}

fn refuse(imports: Vec<String>, of: &'static str, lang: Lang) -> Result<(), ComponentError> {
    if imports.is_empty() {
        return Ok(());
    }
    Err(ComponentError::Foreign {
        of,
        imports,
        advice: lang.keep_out(),
    })
}

/// Makes a component of a core module that carries wit-bindgen's sections.
///
/// # Errors
/// When it is no such module.
pub fn encode(core: &[u8]) -> Result<Vec<u8>, ComponentError> {
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(core)
        .and_then(|encoder| encoder.encode());
    encoded.map_err(|error| ComponentError::Encode(format!("{error:#}")))
}

/// As [`encode`], with a better word when the compiler has brought a system's interface along.
pub(crate) fn of_core(core: &[u8], lang: Lang) -> Result<Vec<u8>, ComponentError> {
    refuse(system_calls(core)?, "guest", lang)?;
    encode(core)
}

/// The imports of a core module that are of a system, such as `wasi_snapshot_preview1.fd_write`.
fn system_calls(core: &[u8]) -> Result<Vec<String>, ComponentError> {
    let bad = |error: wasmparser::BinaryReaderError| ComponentError::Encode(error.to_string());
    let mut found = Vec::new();
    for payload in Parser::new(0).parse_all(core) {
        let Payload::ImportSection(section) = payload.map_err(bad)? else {
            continue;
        };
        for import in section.into_imports() {
            let import = import.map_err(bad)?;
            if import.module.starts_with("wasi_") || import.module == "env" {
                found.push(format!("{}.{}", import.module, import.name));
            }
        }
    }
    Ok(found)
}

/// Looks at a component without running it.
///
/// # Errors
/// When the bytes are no component.
pub fn inspect(component: &[u8]) -> Result<Inspection, ComponentError> {
    if !component.starts_with(b"\0asm") {
        let what = "it is not WebAssembly: it does not begin with the bytes 00 61 73 6d";
        return Err(ComponentError::Decode(what.to_owned()));
    }
    if component.get(4..8) == Some(&[1, 0, 0, 0]) {
        let what = "it is a core module; `wasm-tools component new` wraps one";
        return Err(ComponentError::Decode(what.to_owned()));
    }
    let (resolve, world) = match wit_component::decode(component) {
        Ok(DecodedWasm::Component(resolve, world)) => (resolve, world),
        Ok(DecodedWasm::WitPackage(..)) => {
            return Err(ComponentError::Decode("it is a WIT package".to_owned()));
        }
        Err(error) => return Err(ComponentError::Decode(format!("{error:#}"))),
    };
    let world = &resolve.worlds[world];
    let names = |keys: &mut dyn Iterator<Item = _>| -> Vec<String> {
        keys.map(|key| resolve.name_world_key(key)).collect()
    };
    let exports = names(&mut world.exports.keys());
    let ours = Kind::ALL.iter().find_map(|kind| {
        let mut names = exports.iter().filter_map(|name| split(name));
        let (_, version) = names.find(|(interface, _)| *interface == kind.name())?;
        Some((*kind, version.to_owned()))
    });
    let (kind, version) = ours.unzip();
    Ok(Inspection {
        kind,
        version,
        imports: names(&mut world.imports.keys()),
        exports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A committed component whose import `from` is called `to` instead, a name of the same length.
    fn renamed(component: &[u8], from: &str, to: &str) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let mut bytes = component.to_vec();
        let places: Vec<usize> = (0..=bytes.len() - from.len())
            .filter(|&at| bytes[at..].starts_with(from.as_bytes()))
            .collect();
        assert!(!places.is_empty());
        for at in places {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        bytes
    }

    #[test]
    fn other_imports_are_refused_with_the_way_out() {
        let selector = include_bytes!("../../prebuilt/least-loaded.wasm");
        let callback = include_bytes!("../../prebuilt/start.wasm");
        let fence = include_bytes!("../../prebuilt/witness.wasm");
        let version = inspect(selector).unwrap().version.unwrap();
        for (component, kind, from, to) in [
            (
                &selector[..],
                Kind::Selector,
                "maitred:policy/host",
                "wasi:clocks/current",
            ),
            (
                &selector[..],
                Kind::Selector,
                "maitred:policy/host",
                "maitred:policy/node",
            ),
            (
                &callback[..],
                Kind::Callback,
                "maitred:policy/node",
                "maitred:policy/disk",
            ),
            (
                &fence[..],
                Kind::Fence,
                "maitred:policy/host",
                "maitred:policy/node",
            ),
        ] {
            let check = |bytes: &[u8]| inspect(bytes).unwrap().check(kind, Lang::Js);
            check(component).unwrap();
            let (from, to) = (format!("{from}@{version}"), format!("{to}@{version}"));
            let foreign = renamed(component, &from, &to);
            wasmparser::Validator::new().validate_all(&foreign).unwrap();
            match check(&foreign) {
                Err(ComponentError::Foreign {
                    imports, advice, ..
                }) => {
                    assert_eq!(imports, [to]);
                    assert!(advice.contains("--stub-wasi"));
                }
                other => panic!("{other:?}"),
            }
        }
        let wrong = inspect(selector)
            .unwrap()
            .check(Kind::Fence, Lang::C)
            .unwrap_err();
        assert!(
            wrong
                .to_string()
                .contains("a fence exports maitred:policy/fence"),
            "{wrong}"
        );
    }

    #[test]
    fn calls_of_a_system_are_named_before_a_component_is_made() {
        // (module (import "wasi_snapshot_preview1" "fd_write" (func)))
        let mut core = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x23\x01".to_vec();
        core.extend(b"\x16wasi_snapshot_preview1\x08fd_write\0\0");
        match of_core(&core, Lang::C) {
            Err(ComponentError::Foreign {
                imports, advice, ..
            }) => {
                assert_eq!(imports, ["wasi_snapshot_preview1.fd_write"]);
                assert!(advice.contains("no stdio"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_component_is_refused() {
        for (bytes, what) in [
            (&b""[..], "not WebAssembly"),
            (b"int main", "not WebAssembly"),
            (b"\0asm\x01\0\0\0", "a core module"),
        ] {
            let error = inspect(bytes).unwrap_err();
            assert!(matches!(error, ComponentError::Decode(_)));
            assert!(error.to_string().contains(what), "{error}");
        }
        let empty = inspect(b"\0asm\x0d\0\x01\0").unwrap();
        assert_eq!(empty.kind, None);
        let wrong = empty.check(Kind::Selector, Lang::Rust).unwrap_err();
        assert!(wrong.to_string().starts_with("it exports nothing"));
        assert!(encode(b"\0asm\x0d\0\x01\0").is_err());
    }
}

//! From a core module to a component, and what a component may import.
//!
//! A guest may import the interfaces of `maitred:policy` that its world names and nothing else: no
//! WASI, no clock, no network. The host refuses the rest; here it is refused before it is committed.

use wit_component::{ComponentEncoder, DecodedWasm};

/// What a component exports, and what it may import then: the worlds of `wit/policy.wit`.
const WORLDS: [(&str, &[&str]); 3] = [
    (
        "maitred:policy/selector",
        &["maitred:policy/types", "maitred:policy/host"],
    ),
    (
        "maitred:policy/callback",
        &[
            "maitred:policy/types",
            "maitred:policy/host",
            "maitred:policy/node",
            "maitred:policy/records",
        ],
    ),
    (
        "maitred:policy/fence",
        &["maitred:policy/host", "maitred:policy/records"],
    ),
];

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ComponentError {
    #[error("not a core module with component types: {0}")]
    Encode(String),
    #[error("not a component: {0}")]
    Decode(String),
    #[error("it imports `{0}`, which its world does not")]
    Import(String),
    #[error("it exports {0:?}; a module exports a selector, a callback or a fence")]
    Exports(Vec<String>),
}

/// Makes a component of a core module that carries wit-bindgen's sections, and checks it.
pub(crate) fn encode(core: &[u8]) -> Result<Vec<u8>, ComponentError> {
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true);
    encoder
        .module(core)
        .map_err(|error| ComponentError::Encode(format!("{error:#}")))?;
    let component = encoder
        .encode()
        .map_err(|error| ComponentError::Encode(format!("{error:#}")))?;
    check(&component)?;
    Ok(component)
}

/// Checks imports and exports.
pub(crate) fn check(component: &[u8]) -> Result<(), ComponentError> {
    let (resolve, world) = match wit_component::decode(component) {
        Ok(DecodedWasm::Component(resolve, world)) => (resolve, world),
        Ok(DecodedWasm::WitPackage(..)) => {
            return Err(ComponentError::Decode("it is a WIT package".to_owned()));
        }
        Err(error) => return Err(ComponentError::Decode(format!("{error:#}"))),
    };
    let world = &resolve.worlds[world];
    let exports: Vec<_> = world
        .exports
        .keys()
        .map(|key| resolve.name_world_key(key))
        .collect();
    let imports: Vec<_> = world
        .imports
        .keys()
        .map(|key| resolve.name_world_key(key))
        .collect();
    let unversioned = |name: &str| name.split('@').next().unwrap_or_default().to_owned();
    let allowed = match exports.as_slice() {
        [one] => WORLDS
            .iter()
            .find(|(export, _)| unversioned(one) == *export),
        _ => None,
    };
    let Some((_, allowed)) = allowed else {
        return Err(ComponentError::Exports(exports));
    };
    let foreign = imports
        .into_iter()
        .find(|name| !allowed.contains(&unversioned(name).as_str()));
    foreign.map_or(Ok(()), |name| Err(ComponentError::Import(name)))
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
    fn other_imports_are_refused() {
        let selector = include_bytes!("../../prebuilt/least-loaded.wasm");
        let callback = include_bytes!("../../prebuilt/start.wasm");
        check(selector).unwrap();
        check(callback).unwrap();
        let fence = include_bytes!("../../prebuilt/witness.wasm");
        check(fence).unwrap();
        for (component, from, to) in [
            (
                &selector[..],
                "maitred:policy/host@0.1.0",
                "wasi:clocks/current@0.1.0",
            ),
            (
                &selector[..],
                "maitred:policy/host@0.1.0",
                "maitred:policy/node@0.1.0",
            ),
            (
                &callback[..],
                "maitred:policy/node@0.1.0",
                "maitred:policy/disk@0.1.0",
            ),
            (
                &fence[..],
                "maitred:policy/host@0.1.0",
                "maitred:policy/node@0.1.0",
            ),
        ] {
            let foreign = renamed(component, from, to);
            wasmparser::Validator::new().validate_all(&foreign).unwrap();
            assert!(matches!(check(&foreign), Err(ComponentError::Import(name)) if name == to));
        }
    }

    #[test]
    fn what_is_no_component_is_refused() {
        assert!(matches!(check(b""), Err(ComponentError::Decode(_))));
        assert!(matches!(
            check(b"\0asm\x0d\0\x01\0"),
            Err(ComponentError::Exports(_))
        ));
        assert!(encode(b"\0asm\x01\0\0\0").is_err());
    }
}

//! The folder of finished modules: components, `SHA256SUMS` in the format of `sha256sum`, `TOOLCHAIN`.
//!
//! It decides what the folder holds and when two are equal, and knows nothing of compilers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};

/// The folder's contents.
pub(crate) struct Prebuilt {
    /// What the modules were built with; see the library's `Toolchain`.
    pub(crate) toolchain: String,
    sums: String,
    components: BTreeMap<String, Vec<u8>>,
}

impl Prebuilt {
    /// No module yet.
    pub(crate) fn new(toolchain: String) -> Self {
        Self {
            toolchain,
            sums: String::new(),
            components: BTreeMap::new(),
        }
    }

    /// Adds the module `name`.
    pub(crate) fn add(&mut self, name: &str, component: Vec<u8>) {
        self.components.insert(format!("{name}.wasm"), component);
        self.sums = sums(&self.components);
    }

    /// Reads a folder as it is, every `.wasm` file in it included.
    pub(crate) fn read(folder: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let at = |path: &Path, error| (path.to_owned(), error);
        let text = |name| {
            fs::read_to_string(folder.join(name)).map_err(|error| at(&folder.join(name), error))
        };
        let mut components = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(|error| at(folder, error))? {
            let path = entry.map_err(|error| at(folder, error))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "wasm")
            {
                let bytes = fs::read(&path).map_err(|error| at(&path, error))?;
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                components.insert(name, bytes);
            }
        }
        Ok(Self {
            toolchain: text("TOOLCHAIN")?,
            sums: text("SHA256SUMS")?,
            components,
        })
    }

    /// Writes the folder; files of other names are left alone.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (name, component) in &self.components {
            fs::write(folder.join(name), component)?;
        }
        fs::write(folder.join("SHA256SUMS"), &self.sums)?;
        fs::write(folder.join("TOOLCHAIN"), &self.toolchain)
    }

    /// The components, by file name.
    #[cfg(test)]
    pub(crate) fn components(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.components
    }

    /// The lines of `SHA256SUMS` that do not fit the files, in either direction.
    pub(crate) fn sums_that_differ(&self) -> Vec<String> {
        let actual = sums(&self.components);
        let missing = |of: &str, from: &str| {
            of.lines()
                .filter(|line| !from.lines().any(|other| other == *line))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        [missing(&self.sums, &actual), missing(&actual, &self.sums)].concat()
    }

    /// The files that are not the same in `other`.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut names: Vec<String> = self
            .components
            .keys()
            .chain(other.components.keys())
            .cloned()
            .collect();
        names.sort();
        names.dedup();
        names.retain(|name| self.components.get(name) != other.components.get(name));
        if self.toolchain != other.toolchain {
            names.push("TOOLCHAIN".to_owned());
        }
        names
    }
}

fn sums(components: &BTreeMap<String, Vec<u8>>) -> String {
    components
        .iter()
        .fold(String::new(), |mut text, (name, component)| {
            for byte in Sha256::digest(component) {
                let _ = write!(text, "{byte:02x}");
            }
            let _ = writeln!(text, "  {name}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MODULES, check};

    fn committed() -> Prebuilt {
        Prebuilt::read(Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../prebuilt"
        )))
        .unwrap()
    }

    #[test]
    fn the_committed_files_are_the_ones_that_were_summed() {
        let committed = committed();
        assert_eq!(committed.sums_that_differ(), Vec::<String>::new());
        let mut names: Vec<_> = MODULES
            .iter()
            .map(|(name, _)| format!("{name}.wasm"))
            .collect();
        names.sort();
        assert_eq!(
            committed.components().keys().cloned().collect::<Vec<_>>(),
            names
        );
    }

    #[test]
    fn the_committed_components_import_nothing_but_the_policy_package() {
        for (name, bytes) in committed().components() {
            check(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            wasmparser::Validator::new()
                .validate_all(bytes)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(bytes.len() < 64 * 1024, "{name} has {} bytes", bytes.len());
        }
    }

    #[test]
    fn differences_are_named() {
        let mut one = Prebuilt::new("x".to_owned());
        one.add("a", vec![1]);
        assert_eq!(
            one.sums,
            "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a  a.wasm\n"
        );
        let mut other = Prebuilt::new("y".to_owned());
        other.add("a", vec![2]);
        other.add("b", vec![3]);
        assert_eq!(one.differences(&other), ["a.wasm", "b.wasm", "TOOLCHAIN"]);
        other.sums = one.sums.clone();
        assert_eq!(other.sums_that_differ().len(), 3);
    }
}

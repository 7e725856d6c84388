//! What a module's folder says about itself: `maitred.toml`.
//!
//! Holds: a name is one that a module can be pushed under, so it is also safe as a file's name.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use maitred_protocol::World;
use maitred_protocol::world::keep_out;
use serde::Deserialize;

/// The file that makes a folder a project.
pub const MANIFEST: &str = "maitred.toml";
/// Bytes of `maitred.toml`; it has three lines.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a name, as of a module's name.
const NAME_BYTES_MAX: usize = 64;

/// A language that policies can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// A crate with the guest SDK.
    Rust,
    /// `policy.js`, run by QuickJS.
    Js,
    /// `policy.py`, run by CPython.
    Python,
    /// `policy.c`.
    C,
}

/// What a policy does; as in `maitred.toml` by its name.
pub type Kind = World;

/// How `maitred.toml` writes it.
#[derive(Deserialize)]
#[serde(remote = "World", rename_all = "lowercase")]
enum Written {
    Selector,
    Scanner,
    Callback,
    Fence,
}

impl Lang {
    /// As in `maitred.toml`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Python => "python",
            Self::C => "c",
        }
    }

    /// What keeps imports out of its components that no host offers.
    pub(crate) fn keep_out(self) -> String {
        keep_out(Some(match self {
            Self::Rust => "Rust",
            Self::Js => "JavaScript",
            Self::Python => "Python",
            Self::C => "C and Zig",
        }))
    }
}

impl fmt::Display for Lang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a folder is no project.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// Make one with `maitred module new`, or name another folder.
    #[error("{} has no {MANIFEST}", .0.display())]
    None(PathBuf),
    /// The file is there and cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// A key is missing, wrong or unknown.
    #[error("{}: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what, over several lines.
        reason: String,
    },
}

/// The text of `maitred.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: String,
    lang: Lang,
    #[serde(with = "Written")]
    kind: Kind,
}

/// A folder with a policy's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Absolute.
    pub folder: PathBuf,
    /// What it is pushed under, and the name of its component: `[a-z0-9_-]{1,64}`.
    pub name: String,
    /// What it is written in.
    pub lang: Lang,
    /// What it does.
    pub kind: Kind,
}

impl Project {
    /// Reads the manifest of `folder`.
    ///
    /// # Errors
    /// When there is none, or when it is not three keys with values that are known.
    pub fn read(folder: &Path) -> Result<Self, ProjectError> {
        let path = folder.join(MANIFEST);
        let read = |error| ProjectError::Read {
            path: path.clone(),
            error,
        };
        let bytes = match fs::metadata(&path) {
            Ok(file) if file.len() > MANIFEST_BYTES_MAX => {
                let reason = format!("it has more than {MANIFEST_BYTES_MAX} bytes");
                return Err(read(io::Error::new(io::ErrorKind::InvalidData, reason)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ProjectError::None(folder.to_owned()));
            }
            Err(error) => return Err(read(error)),
            Ok(_) => fs::read_to_string(&path).map_err(read)?,
        };
        let parse = |reason| ProjectError::Parse {
            path: path.clone(),
            reason,
        };
        let manifest: Manifest =
            toml::from_str(&bytes).map_err(|error| parse(error.to_string()))?;
        if !is_name(&manifest.name) {
            let reason = format!(
                "`name` is {:?}; it is 1 to {NAME_BYTES_MAX} of a-z, 0-9, _ and -",
                manifest.name
            );
            return Err(parse(reason));
        }
        Ok(Self {
            folder: std::path::absolute(folder).map_err(read)?,
            name: manifest.name,
            lang: manifest.lang,
            kind: manifest.kind,
        })
    }

    /// The file that a build writes.
    #[must_use]
    pub fn component(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.name))
    }
}

fn is_name(name: &str) -> bool {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Project, ProjectError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MANIFEST), text).unwrap();
        Project::read(folder.path())
    }

    #[test]
    fn three_lines_make_a_project() {
        let project = read("name = \"quiet\"\nlang = \"js\"\nkind = \"callback\"\n").unwrap();
        assert_eq!((project.lang, project.kind), (Lang::Js, Kind::Callback));
        assert_eq!(project.component().file_name().unwrap(), "quiet.wasm");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = "name = \"quiet\"\nlang = \"js\"\nkind = \"callback\"\n";
        for (from, to, word) in [
            ("quiet", "../../etc", "a-z, 0-9"),
            ("quiet", "", "a-z, 0-9"),
            ("js", "cobol", "cobol"),
            ("callback", "clock", "clock"),
            ("kind", "sort", "sort"),
        ] {
            let error = read(&good.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let nowhere = Project::read(Path::new("/nonexistent"));
        assert!(matches!(nowhere, Err(ProjectError::None(_))));
    }
}

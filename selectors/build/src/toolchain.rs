//! Finds a compiler for `wasm32-unknown-unknown`, runs it, and writes down what it was.
//!
//! Two are looked for, in this order: the Rust on the path, when its standard library for the
//! target is installed; and Debian's `/usr/bin/rustc`, which builds the standard library from source.
//! Nothing of this machine reaches the bytes: no paths (`-Zlocation-detail=none`), no flags of the
//! caller's environment.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

const TARGET: &str = "wasm32-unknown-unknown";
/// No source locations in panics: they hold paths. A stack of 64 KiB: rustc's default of 1 MiB
/// makes an instance 17 pages large.
const FLAGS: &str = "-Zlocation-detail=none -Clink-arg=-zstack-size=65536";
const BUILD_STD: &str = "-Zbuild-std=std,panic_abort";
/// What would change the result, or confuse a second toolchain, when it came from the caller.
const NOT_INHERITED: [&str; 6] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "LD_LIBRARY_PATH",
];

/// Why nothing was compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolchainError {
    #[error(
        "no compiler for {TARGET}. With rustup:\n  rustup target add {TARGET}\n\
         On Debian or Ubuntu without rustup's network:\n  \
         apt-get install rustc-web cargo-web rust-web-src lld"
    )]
    None,
    #[error(
        "/usr/bin/rustc has no linker for {TARGET}: neither `rust-lld` in the sysroot of the rustc on \
         the path nor `wasm-ld`. On Debian or Ubuntu:\n  apt-get install lld"
    )]
    Linker,
    #[error("`{0}`: {1}")]
    Run(String, io::Error),
    #[error("`{0}` failed")]
    Failed(String),
    #[error("{0}: {1}")]
    Lock(PathBuf, io::Error),
    #[error("Cargo.lock does not say which {0} this program uses")]
    NotLocked(&'static str),
}

/// A compiler for the target.
pub(crate) struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    /// The linker, when the compiler has none of its own; the standard library is built then, too.
    linker: Option<PathBuf>,
    /// What of the record identifies the compiler.
    identity: String,
}

impl Toolchain {
    /// Finds one.
    pub(crate) fn find() -> Result<Self, ToolchainError> {
        let own = Path::new("rustc");
        let installed = ask(own, &["--print", "target-libdir", "--target", TARGET])
            .is_ok_and(|folder| Path::new(&folder).is_dir());
        if installed {
            let cargo = env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
            return Self::new(cargo, own.to_owned(), None);
        }
        let debian = Path::new("/usr/bin/rustc");
        let source = ask(debian, &["--print", "sysroot"]).is_ok_and(|folder| {
            Path::new(&folder)
                .join("lib/rustlib/src/rust/library/std")
                .is_dir()
        });
        if !source || !Path::new("/usr/bin/cargo").exists() {
            return Err(ToolchainError::None);
        }
        let linker = linker(own).ok_or(ToolchainError::Linker)?;
        Self::new("/usr/bin/cargo".into(), debian.to_owned(), Some(linker))
    }

    fn new(
        cargo: PathBuf,
        rustc: PathBuf,
        linker: Option<PathBuf>,
    ) -> Result<Self, ToolchainError> {
        let compiler = ask(&rustc, &["-vV"])?;
        let (std, linker_version) = match &linker {
            None => ("as installed".to_owned(), "the compiler's own".to_owned()),
            Some(path) if path.ends_with("wasm-ld") => {
                (BUILD_STD.to_owned(), ask(path, &["--version"])?)
            }
            Some(path) => (
                BUILD_STD.to_owned(),
                ask(path, &["-flavor", "wasm", "--version"])?,
            ),
        };
        let identity = format!("{compiler}\nstandard library: {std}\nlinker: {linker_version}\n");
        Ok(Self {
            cargo,
            rustc,
            linker,
            identity,
        })
    }

    /// The text of `TOOLCHAIN`: first the compiler, then what else decides about the bytes.
    pub(crate) fn record(&self, root: &Path) -> Result<String, ToolchainError> {
        let path = root.join("Cargo.lock");
        let lock = fs::read_to_string(&path).map_err(|error| ToolchainError::Lock(path, error))?;
        let bindgen = locked(&lock, "maitred-guest", "wit-bindgen")
            .ok_or(ToolchainError::NotLocked("wit-bindgen"))?;
        let component = locked(&lock, env!("CARGO_PKG_NAME"), "wit-component")
            .ok_or(ToolchainError::NotLocked("wit-component"))?;
        Ok(format!(
            "{}target: {TARGET}\nprofile: guest\nflags: {FLAGS}\nwit-bindgen: {bindgen}\nwit-component: {component}\n",
            self.identity,
        ))
    }

    /// Whether `record` was written by this compiler, standard library and linker.
    pub(crate) fn is_recorded_in(&self, record: &str) -> bool {
        record.starts_with(&self.identity)
    }

    /// Compiles `packages` of the workspace at `root`; answers with a core module for each.
    pub(crate) fn compile(
        &self,
        root: &Path,
        target: &Path,
        packages: &[&str],
    ) -> Result<Vec<PathBuf>, ToolchainError> {
        let mut command = Command::new(&self.cargo);
        command.args([
            "build",
            "--lib",
            "--locked",
            "--profile",
            "guest",
            "--target",
            TARGET,
        ]);
        command
            .arg("--manifest-path")
            .arg(root.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(target);
        packages.iter().for_each(|package| {
            command.args(["-p", package]);
        });
        NOT_INHERITED.iter().for_each(|name| {
            command.env_remove(name);
        });
        // The two flags with -Z are not for stable compilers, in name only.
        command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS);
        if let Some(linker) = &self.linker {
            command
                .arg(BUILD_STD)
                .env_remove("RUSTUP_TOOLCHAIN")
                .env_remove("CARGO");
            command
                .env("RUSTC", &self.rustc)
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        let shown = format!("{} build", self.cargo.display());
        let status = command
            .status()
            .map_err(|error| ToolchainError::Run(shown.clone(), error))?;
        if !status.success() {
            return Err(ToolchainError::Failed(shown));
        }
        let folder = target.join(TARGET).join("guest");
        Ok(packages
            .iter()
            .map(|package| {
                folder
                    .join(package.replace('-', "_"))
                    .with_extension("wasm")
            })
            .collect())
    }
}

/// The `rust-lld` of another Rust, or LLVM's own. It is part of the record: old versions (LLVM 14)
/// link the same objects to other bytes.
fn linker(rustc: &Path) -> Option<PathBuf> {
    let beside = ask(rustc, &["--print", "target-libdir"])
        .ok()
        .and_then(|folder| Some(Path::new(&folder).parent()?.join("bin/rust-lld")))
        .filter(|path| path.exists());
    beside.or_else(|| {
        env::split_paths(&env::var_os("PATH")?)
            .map(|folder| folder.join("wasm-ld"))
            .find(|path| path.exists())
    })
}

/// What a program prints, without the last line's end.
fn ask(program: &Path, arguments: &[&str]) -> Result<String, ToolchainError> {
    let shown = format!("{} {}", program.display(), arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .map_err(|error| ToolchainError::Run(shown.clone(), error))?;
    if !output.status.success() {
        return Err(ToolchainError::Failed(shown));
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

/// The version of `dependency` that `package` uses, by the lock file.
fn locked<'a>(lock: &'a str, package: &str, dependency: &str) -> Option<&'a str> {
    let block = |name: &str| {
        let first = format!("name = \"{name}\"\n");
        lock.split("[[package]]\n")
            .find_map(|block| block.strip_prefix(first.as_str()))
    };
    let line = block(package)?.lines().find_map(|line| {
        let line = line.strip_prefix(" \"")?.strip_suffix("\",")?;
        let rest = line.strip_prefix(dependency)?;
        (rest.is_empty() || rest.starts_with(' ')).then_some(rest.trim_start())
    })?;
    if !line.is_empty() {
        return Some(line); // Several versions are locked, so the line names its own.
    }
    block(dependency)?
        .lines()
        .find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\ndependencies = [\n \"b\",\n \
                    \"c 2.1.0\",\n]\n\n[[package]]\nname = \"b\"\nversion = \"0.3.0\"\n\n[[package]]\nname = \"c\"\n\
                    version = \"1.0.0\"\n\n[[package]]\nname = \"c\"\nversion = \"2.1.0\"\n";
        assert_eq!(locked(lock, "a", "b"), Some("0.3.0"));
        assert_eq!(locked(lock, "a", "c"), Some("2.1.0"));
        assert_eq!(locked(lock, "a", "d"), None);
        assert_eq!(locked(lock, "b", "c"), None);
    }

    #[test]
    fn a_record_belongs_to_its_compiler() {
        let toolchain = |identity: &str| Toolchain {
            cargo: "cargo".into(),
            rustc: "rustc".into(),
            linker: None,
            identity: identity.to_owned(),
        };
        let record = "rustc 1\nlinker: x\ntarget: y\n";
        assert!(toolchain("rustc 1\nlinker: x\n").is_recorded_in(record));
        assert!(!toolchain("rustc 2\nlinker: x\n").is_recorded_in(record));
    }
}

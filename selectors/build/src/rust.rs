//! Rust: finds a compiler for `wasm32-unknown-unknown`, runs it, and writes down what it was.
//!
//! Two are looked for, in this order: the Rust on the path, when its standard library for the
//! target is installed; and Debian's `/usr/bin/rustc`, which builds the standard library from source:
//! that takes minutes, so that all projects of a user share what is made on the way to their modules.
//! Nothing of this machine reaches the bytes: paths are replaced or left out, no flags of the
//! caller's environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sha2::{Digest as _, Sha256};

use crate::error::{BuildError, MissingTool};
use crate::project::Project;
use crate::tool::{self, Show, ask};

const TARGET: &str = "wasm32-unknown-unknown";
/// A stack of 64 KiB: rustc's default of 1 MiB makes an instance 17 pages large.
const STACK: &str = "-Clink-arg=-zstack-size=65536";
/// No source locations in panics: they hold paths. For the standard modules only, which are the same
/// bytes on every machine; authors want to know where theirs panicked.
const NO_LOCATIONS: &str = "-Zlocation-detail=none";
const BUILD_STD: &str = "-Zbuild-std=std,panic_abort";
/// What would change the result, or confuse a second toolchain, when it came from the caller.
const NOT_INHERITED: [&str; 8] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_BUILD_DIR",
    "RUSTC",
    "LD_LIBRARY_PATH",
];

/// A compiler for the target.
#[derive(Debug)]
pub struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    /// The linker, when the compiler has none of its own; the standard library is built then, too.
    linker: Option<PathBuf>,
    /// What of the record identifies the compiler.
    identity: String,
}

impl Toolchain {
    /// Finds one.
    ///
    /// # Errors
    /// When there is none, with what to install; when one is there and does not run.
    pub fn find() -> Result<Self, BuildError> {
        Self::find_for(Path::new("."))
    }

    /// Finds one for the sources in `folder`, where a `rust-toolchain.toml` may choose it.
    pub(crate) fn find_for(folder: &Path) -> Result<Self, BuildError> {
        let own = Path::new("rustc");
        let libraries = ask(
            folder,
            own,
            &["--print", "target-libdir", "--target", TARGET],
        );
        if libraries.is_ok_and(|libraries| Path::new(&libraries).is_dir()) {
            let cargo = env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
            return Self::new(folder, cargo, own.to_owned(), None);
        }
        let debian = Path::new("/usr/bin/rustc");
        let source = ask(folder, debian, &["--print", "sysroot"]).is_ok_and(|sysroot| {
            Path::new(&sysroot)
                .join("lib/rustlib/src/rust/library/std")
                .is_dir()
        });
        if !source || !Path::new("/usr/bin/cargo").exists() {
            return Err(missing(
                "Rust for wasm32-unknown-unknown",
                "rustup target add wasm32-unknown-unknown\n\
                 or, on Debian or Ubuntu: apt-get install rustc-web cargo-web rust-web-src lld",
            ));
        }
        let Some(linker) = linker(folder, own) else {
            return Err(missing(
                "a linker for Debian's rustc (`rust-lld` or `wasm-ld`)",
                "apt-get install lld",
            ));
        };
        Self::new(
            folder,
            "/usr/bin/cargo".into(),
            debian.to_owned(),
            Some(linker),
        )
    }

    fn new(
        folder: &Path,
        cargo: PathBuf,
        rustc: PathBuf,
        linker: Option<PathBuf>,
    ) -> Result<Self, BuildError> {
        let ask = |program: &Path, arguments: &[&str]| ask(folder, program, arguments);
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
    ///
    /// # Errors
    /// When the lock file of the workspace at `root` cannot be read or lacks what is recorded.
    pub fn record(&self, root: &Path) -> Result<String, BuildError> {
        let path = root.join("Cargo.lock");
        let lock = fs::read_to_string(&path).map_err(|error| BuildError::file(&path, error))?;
        let version = |package: &str, dependency: &str| {
            locked(&lock, package, dependency).ok_or_else(|| {
                let reason = format!("it does not say which {dependency} {package} uses");
                BuildError::file(&path, std::io::Error::other(reason))
            })
        };
        let bindgen = version("maitred-guest", "wit-bindgen")?;
        let component = version(env!("CARGO_PKG_NAME"), "wit-component")?;
        Ok(format!(
            "{}target: {TARGET}\nprofile: guest\nflags: {NO_LOCATIONS} {STACK}\nwit-bindgen: {bindgen}\nwit-component: {component}\n",
            self.identity,
        ))
    }

    /// Whether `record` was written by this compiler, standard library and linker.
    #[must_use]
    pub fn is_recorded_in(&self, record: &str) -> bool {
        record.starts_with(&self.identity)
    }

    /// Compiles `packages` of the workspace at `root` with its profile `guest`, into `target`, the same
    /// bytes on every machine with this toolchain; answers with a core module for each.
    ///
    /// # Errors
    /// When cargo fails.
    pub fn compile(
        &self,
        root: &Path,
        target: &Path,
        packages: &[&str],
    ) -> Result<Vec<PathBuf>, BuildError> {
        let mut command = self.cargo(root, &[NO_LOCATIONS.into(), STACK.into()]);
        command.args(["--locked", "--profile", "guest"]);
        command.arg("--target-dir").arg(target);
        packages.iter().for_each(|package| {
            command.args(["-p", package]);
        });
        tool::run(&mut command, Show::Always)?;
        let folder = target.join(TARGET).join("guest");
        let core = |package: &&str| folder.join(file(package));
        Ok(packages.iter().map(core).collect())
    }

    /// The folder in the user's cache where projects share what this toolchain makes on the way; none
    /// when it has the standard library already, or when there can be no such folder.
    fn shared(&self, cache: Option<PathBuf>) -> Option<PathBuf> {
        self.linker.as_ref()?;
        let identity = format!("{:x}", Sha256::digest(&self.identity));
        let folder = cache?
            .join("maitred")
            .join(format!("rust-{}", &identity[..16]));
        fs::create_dir_all(&folder).ok()?;
        Some(folder)
    }

    /// `cargo build` of what is in `folder`, for the target.
    fn cargo(&self, folder: &Path, flags: &[OsString]) -> Command {
        let mut command = Command::new(&self.cargo);
        command.args(["build", "--lib", "--target", TARGET]);
        command
            .arg("--manifest-path")
            .arg(folder.join("Cargo.toml"));
        command.current_dir(folder);
        NOT_INHERITED.iter().for_each(|name| {
            command.env_remove(name);
        });
        // Flags with -Z are not for stable compilers, in name only.
        if self.linker.is_some() || flags.contains(&NO_LOCATIONS.into()) {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f".as_ref()));
        if let Some(linker) = &self.linker {
            command
                .arg(BUILD_STD)
                .env_remove("RUSTUP_TOOLCHAIN")
                .env_remove("CARGO");
            command
                .env("RUSTC", &self.rustc)
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        command
    }
}

/// The core module of a project: a crate of the project's name, with a profile of its own.
pub(crate) fn core(
    project: &Project,
    show: Show,
    step: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, BuildError> {
    let toolchain = Toolchain::find_for(&project.folder)?;
    step(match toolchain.linker {
        None => "compiling",
        Some(_) => "compiling (the standard library, too, the first time)",
    });
    let target = project.folder.join("target");
    let mut flags = vec![STACK.into()];
    // So that a panic says where without saying whose home it is. What is in the project's folder is
    // named relative to it anyway.
    if let Some(home) = cargo_home() {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(home);
        flag.push("=/cargo");
        flags.push(flag);
    }
    let mut command = toolchain.cargo(&project.folder, &flags);
    command.arg("--release").arg("--target-dir").arg(&target);
    if let Some(shared) = toolchain.shared(cache_home()) {
        // Cargo locks it, and the module itself comes to `target` all the same. One that is older than
        // this setting (1.91) knows nothing of it.
        command.env("CARGO_BUILD_BUILD_DIR", shared);
    }
    tool::run(&mut command, show)?;
    let core = target
        .join(TARGET)
        .join("release")
        .join(file(&project.name));
    fs::read(&core).map_err(|error| BuildError::file(&core, error))
}

/// What cargo calls the library of a package.
fn file(package: &str) -> PathBuf {
    Path::new(&package.replace('-', "_")).with_extension("wasm")
}

fn cargo_home() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}

/// Where the user's programs keep what they can make again.
fn cache_home() -> Option<PathBuf> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))
}

fn missing(what: &str, install: &str) -> BuildError {
    BuildError::Missing(MissingTool {
        what: what.to_owned(),
        install: install.to_owned(),
    })
}

/// The `rust-lld` of another Rust, or LLVM's own. It is part of the record: old versions (LLVM 14)
/// link the same objects to other bytes.
fn linker(folder: &Path, rustc: &Path) -> Option<PathBuf> {
    let beside = ask(folder, rustc, &["--print", "target-libdir"])
        .ok()
        .and_then(|folder| Some(Path::new(&folder).parent()?.join("bin/rust-lld")))
        .filter(|path| path.exists());
    beside.or_else(|| tool::on_path("wasm-ld"))
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
    fn projects_share_a_folder_for_each_toolchain_that_builds_the_standard_library() {
        let cache = tempfile::tempdir().unwrap();
        let shared = |identity: &str, linker: Option<&str>| {
            let toolchain = Toolchain {
                cargo: "cargo".into(),
                rustc: "rustc".into(),
                linker: linker.map(PathBuf::from),
                identity: identity.to_owned(),
            };
            toolchain.shared(Some(cache.path().to_owned()))
        };
        assert_eq!(shared("rustc 1", None), None);
        let one = shared("rustc 1", Some("lld")).unwrap();
        assert!(one.is_dir() && one.starts_with(cache.path()));
        assert_eq!(shared("rustc 1", Some("lld")).as_ref(), Some(&one));
        assert_ne!(shared("rustc 2", Some("lld")), Some(one));
        // A folder that cannot be made is done without.
        let file = cache.path().join("file");
        fs::write(&file, "").unwrap();
        let toolchain = Toolchain {
            cargo: "cargo".into(),
            rustc: "rustc".into(),
            linker: Some("lld".into()),
            identity: String::new(),
        };
        assert_eq!(toolchain.shared(Some(file)), None);
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

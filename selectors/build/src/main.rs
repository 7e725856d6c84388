//! Builds the standard modules into `selectors/prebuilt`, or checks what is there.
//!
//! `cargo run -p maitred-guest-build` compiles the crates for `wasm32-unknown-unknown`, makes
//! components of them, and writes them with `SHA256SUMS` and `TOOLCHAIN`. With `--check` it builds
//! into another folder (`--out DIR`) and compares: the same toolchain has to give the same bytes;
//! with another one only behaviour can be compared, which is the conformance tests' work.
//!
//! It decides what is compared; the library finds the compiler and makes components.

mod prebuilt;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use maitred_guest_build::{BuildError, ComponentError, Lang, Toolchain, encode, inspect};
use prebuilt::Prebuilt;

/// The modules, by the name of their file, and the crates that they are made of.
const MODULES: [(&str, &str); 17] = [
    ("least-loaded", "maitred-selector-least-loaded"),
    ("two-choices", "maitred-selector-two-choices"),
    ("random", "maitred-selector-random"),
    ("round-robin", "maitred-selector-round-robin"),
    ("weighted", "maitred-selector-weighted"),
    ("prefer-local", "maitred-selector-prefer-local"),
    ("sticky", "maitred-selector-sticky"),
    ("rendezvous", "maitred-selector-rendezvous"),
    ("bounded-load", "maitred-selector-bounded-load"),
    ("bin-pack", "maitred-selector-bin-pack"),
    ("spread", "maitred-selector-spread"),
    ("affinity", "maitred-selector-affinity"),
    ("labels", "maitred-selector-labels"),
    ("latency", "maitred-selector-latency"),
    ("ordered", "maitred-selector-ordered"),
    ("start", "maitred-callback-start"),
    ("witness", "maitred-fence-witness"),
];

const USAGE: &str = "usage: maitred-selectors-build [--check] [--out DIR]";

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{USAGE}")]
    Usage,
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("{0}: {1}")]
    Component(&'static str, ComponentError),
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error("{} does not agree with its SHA256SUMS: {}", .0.display(), .1.join(", "))]
    Sums(PathBuf, Vec<String>),
    #[error("the toolchain is the recorded one, but these differ: {}\nrun `cargo run -p maitred-guest-build` and commit the result", .0.join(", "))]
    Differs(Vec<String>),
}

/// What the command line asks for.
struct Options {
    check: bool,
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match options(env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("maitred-selectors-build: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, Error> {
    let mut options = Options {
        check: false,
        out: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--check" => options.check = true,
            "--out" => options.out = Some(words.next().ok_or(Error::Usage)?.into()),
            _ => return Err(Error::Usage),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate is in selectors/build");
    let committed = root.join("selectors/prebuilt");
    let target = target_folder()?.join("guest");

    let toolchain = Toolchain::find()?;
    let cores = toolchain.compile(root, &target, &MODULES.map(|(_, package)| package))?;
    let mut built = Prebuilt::new(toolchain.record(root)?);
    for ((name, package), core) in MODULES.into_iter().zip(cores) {
        let bytes = fs::read(&core).map_err(|error| Error::File(core, error))?;
        let component = component(&bytes).map_err(|error| Error::Component(package, error))?;
        println!("{name}.wasm: {} bytes", component.len());
        built.add(name, component);
    }

    if !options.check {
        return write(&built, options.out.as_deref().unwrap_or(&committed));
    }
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| target.join("rebuilt"));
    write(&built, &out)?;
    let recorded = Prebuilt::read(&committed).map_err(|(path, error)| Error::File(path, error))?;
    let wrong = recorded.sums_that_differ();
    if !wrong.is_empty() {
        return Err(Error::Sums(committed, wrong));
    }
    if toolchain.is_recorded_in(&recorded.toolchain) {
        let differing = built.differences(&recorded);
        if !differing.is_empty() {
            return Err(Error::Differs(differing));
        }
        println!("identical to selectors/prebuilt, byte for byte");
    } else {
        println!(
            "built with another toolchain than the recorded one, so bytes may differ; compare the \
             behaviour of {} with that of selectors/prebuilt by the conformance tests",
            out.display(),
        );
    }
    Ok(())
}

/// A component of any kind, with nothing foreign in it.
fn component(core: &[u8]) -> Result<Vec<u8>, ComponentError> {
    let component = encode(core)?;
    check(&component)?;
    Ok(component)
}

fn check(component: &[u8]) -> Result<(), ComponentError> {
    let inspection = inspect(component)?;
    inspection.kind.map_or_else(
        || {
            Err(ComponentError::Exports {
                exports: inspection.exports.clone(),
                wanted: "a module exports a policy".to_owned(),
            })
        },
        |kind| inspection.check(kind, Lang::Rust),
    )
}

fn write(built: &Prebuilt, folder: &Path) -> Result<(), Error> {
    built
        .write(folder)
        .map_err(|error| Error::File(folder.to_owned(), error))?;
    println!("written to {}", folder.display());
    Ok(())
}

/// The workspace's target folder: this program lies in `<target>/<profile>`.
fn target_folder() -> Result<PathBuf, Error> {
    let program = env::current_exe().map_err(|error| Error::File("this program".into(), error))?;
    let folder = program.ancestors().nth(2).map(Path::to_owned);
    folder.ok_or_else(|| Error::File(program, io::ErrorKind::NotFound.into()))
}

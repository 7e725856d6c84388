//! Embeds the sources of the guest SDK, which `module new --lang rust` writes beside a project:
//! nothing of it is on a registry.
//!
//! It writes a table of path and text, `SDK`, for `src/module/sdk.rs`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const KEPT: [&str; 3] = ["rs", "toml", "md"];

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let sdk = here.join("../../guest-sdk").canonicalize()?;
    let mut table = String::from("&[\n");
    embed(&sdk, &sdk, &mut table)?;
    table += "]\n";
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("sdk.rs"), table)
}

/// Adds the files of `folder`, in the order of their names.
fn embed(root: &Path, folder: &Path, table: &mut String) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                embed(root, &path, table)?;
            }
        } else if let Some(ending) = path.extension()
            && KEPT.iter().any(|kept| *kept == ending)
        {
            let inside = path.strip_prefix(root).unwrap_or(&path);
            let inside = inside.to_string_lossy().replace('\\', "/");
            let _ = writeln!(
                table,
                "    ({inside:?}, include_str!({:?})),",
                path.display().to_string()
            );
        }
    }
    Ok(())
}

//! `module keygen` and `module sign`: who vouches for a module.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use maitred_protocol::Digest;
use maitred_protocol::limits::MODULE_BYTES_MAX;
use maitred_sandbox::signature::{self, SignatureError};
use serde_json::json;

use super::kind::{KindArg, kind_of};
use crate::connect::Shell;
use crate::failure::{Exit, Failure};
use crate::files;

/// Bytes of a private key's file; one has 200.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// Make a key to sign modules with: NAME.key, which is to be kept secret, and NAME.pub
///
/// A host trusts the lines of the file behind `serve --require-signed`: put the line of NAME.pub
/// there. The private key is PEM of PKCS#8, readable by its owner alone.
///
/// Example: maitred module keygen keys/alice
#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// Where to write, without the ending
    name: PathBuf,
}

/// Sign a component: writes FILE.sig
///
/// A signature is for these bytes as this kind of module.
///
/// Example: maitred module sign quiet.wasm --key keys/alice.key
#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The component
    file: PathBuf,
    /// The private key, as `module keygen` or `openssl genpkey -algorithm ed25519` writes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// What it is to be pushed as [default: what it exports]
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
}

impl Keygen {
    pub(super) fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let name = self.name.file_name().and_then(|name| name.to_str());
        let name = name.filter(|name| {
            (1..=signature::KEY_NAME_BYTES_MAX).contains(&name.len())
                && name.chars().all(|c| c.is_ascii_graphic())
        });
        let Some(name) = name else {
            return Err(Failure::usage(
                format!("{} is no name for a key", self.name.display()),
                "use 1 to 64 letters, digits and signs, without blanks",
            ));
        };
        let (secret, public) = signature::generate()?;
        let [key, shared] = ["key", "pub"].map(|ending| with_ending(&self.name, ending));
        create(&key, 0o600, &secret)?;
        create(&shared, 0o644, &format!("{public} {name}\n"))?;
        let body = json!({
            "key": key.display().to_string(), "public_key_file": shared.display().to_string(),
            "public_key": public.to_string(), "name": name,
        });
        shell.out.show("ModuleKey", body, || {
            format!(
                "{} signs: keep it secret\n{} is for the file behind `serve --require-signed`:\n{public} {name}",
                key.display(),
                shared.display()
            )
        })
    }
}

impl Sign {
    pub(super) fn run(&self, shell: &Shell) -> Result<(), Failure> {
        let bytes = files::read("read the module", &self.file, MODULE_BYTES_MAX)?;
        let kind = kind_of(self.kind, &bytes)?;
        let key = files::read_text("read the key", &self.key, KEY_BYTES_MAX)?;
        let digest = Digest::of(&bytes);
        let signed = signature::sign(&key, &digest, kind)?;
        let path = with_ending(&self.file, "sig");
        std::fs::write(&path, signature::format_signature(&signed))
            .map_err(|error| Failure::file("write", &path, &error))?;
        let kind = crate::json::module_kind(kind);
        let public = signature::PublicKey(signed.key);
        let body = json!({
            "file": path.display().to_string(), "public_key": public.to_string(),
            "module": { "kind": kind, "digest": digest.to_string() },
        });
        shell.out.show("ModuleSigned", body, || {
            format!(
                "{}: {} as a {kind}, by {public}",
                path.display(),
                digest.short()
            )
        })
    }
}

/// `quiet.wasm` and `sig` make `quiet.wasm.sig`.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    path.into()
}

/// Writes a file that must not exist yet.
fn create(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::file("make the folder", folder, &error))?;
    }
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    match opened.and_then(|mut file| file.write_all(text.as_bytes())) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::new(
            Exit::Conflict,
            "exists",
            format!("{} exists already", path.display()),
            "choose another name; a key is never overwritten",
        )),
        Err(error) => Err(Failure::file("write", path, &error)),
        Ok(()) => Ok(()),
    }
}

impl From<SignatureError> for Failure {
    fn from(error: SignatureError) -> Self {
        let text = error.to_string();
        match error {
            SignatureError::PrivateKey => Self::new(
                Exit::Usage,
                "key",
                text,
                "make one with `maitred module keygen`",
            ),
            SignatureError::Random => {
                Self::new(Exit::Other, "random", text, "try again").retryable()
            }
            _ => Self::new(
                Exit::Auth,
                "signature",
                text,
                "sign it with `maitred module sign`, with a key that the hosts trust",
            ),
        }
    }
}

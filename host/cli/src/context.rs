//! Contexts: named connections in files, so that commands need no flags.
//!
//! Holds: an operator's contexts are in `$XDG_CONFIG_HOME/maitred/contexts`; a running `dev` leaves
//! its own in `$XDG_RUNTIME_DIR/maitred` (or a folder of the user's own among the temporary files),
//! which only its user may read, and takes it away when it ends. One whose `dev` no longer runs does
//! not count.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};

/// What a context file says. Paths are relative to the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// HOST:PORT of each host.
    pub(crate) endpoints: Vec<String>,
    /// The group's CA certificate, PEM.
    pub(crate) ca: PathBuf,
    /// The certificate to show, PEM.
    pub(crate) cert: PathBuf,
    /// Its private key, PEM.
    pub(crate) key: PathBuf,
    /// The process that it lives and dies with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<i32>,
}

/// The context of that name, the operator's before a `dev`'s; none when there is none.
pub(crate) fn find(name: &str) -> Result<Option<Context>, Failure> {
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        let help = "a context is the name of a file without its `.toml`";
        return Err(Failure::usage(
            format!("{name:?} cannot be the name of a context"),
            help,
        ));
    }
    for folder in [config_folder(), Some(runtime_folder())]
        .into_iter()
        .flatten()
    {
        if let Some(found) = read(&folder.join(format!("{name}.toml")))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Option<Context>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file("read the context file", path, &error)),
    };
    let mut context: Context = toml::from_str(&text).map_err(|error| {
        let help = "it needs endpoints = [\"HOST:PORT\"], ca, cert and key";
        let message = format!("the context file {} is not valid: {error}", path.display());
        Failure::new(Exit::Other, "context", message, help)
    })?;
    if context.pid.is_some_and(|pid| !runs(pid)) {
        return Ok(None);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    for file in [&mut context.ca, &mut context.cert, &mut context.key] {
        *file = folder.join(&*file);
    }
    Ok(Some(context))
}

/// Whether a process of that id is there.
pub(crate) fn runs(pid: i32) -> bool {
    rustix::process::Pid::from_raw(pid).is_some_and(|pid| {
        match rustix::process::test_kill_process(pid) {
            Ok(()) => true,
            // It is there, and somebody else's.
            Err(error) => error == rustix::io::Errno::PERM,
        }
    })
}

fn config_folder() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config"));
    let base = absolute("XDG_CONFIG_HOME").or_else(home)?;
    Some(base.join("maitred").join("contexts"))
}

fn runtime_folder() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    absolute("XDG_RUNTIME_DIR").map_or_else(
        || std::env::temp_dir().join(format!("maitred-{user}")),
        |base| base.join("maitred"),
    )
}

fn absolute(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(variable)?);
    path.is_absolute().then_some(path)
}

/// The context of a running `dev`; taken away when dropped.
#[derive(Debug)]
pub(crate) struct Published {
    /// `dev`, or `dev-PID` when another one has that name.
    pub(crate) name: String,
    /// The folder that it is in.
    pub(crate) folder: PathBuf,
}

impl Published {
    /// Lets the user's other terminals find a host.
    ///
    /// # Errors
    /// When the folder is not the user's own, or cannot be written.
    pub(crate) fn new(
        endpoints: &[String],
        ca: &str,
        cert: &str,
        private_key: &str,
    ) -> Result<Self, Failure> {
        let folder = runtime_folder();
        own_folder(&folder)?;
        remove_abandoned(&folder);
        let pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        let taken = read(&folder.join("dev.toml"))?.is_some();
        let name = if taken {
            format!("dev-{pid}")
        } else {
            "dev".to_owned()
        };
        let this = Self { name, folder };
        let [ca_file, cert_file, key_file] = this.parts();
        write_secret(&ca_file, ca)?;
        write_secret(&cert_file, cert)?;
        write_secret(&key_file, private_key)?;
        let context = Context {
            endpoints: endpoints.to_vec(),
            ca: ca_file,
            cert: cert_file,
            key: key_file,
            pid: Some(pid),
        };
        let text = toml::to_string(&context).map_err(|error| {
            let message = format!("cannot describe the connection: {error}");
            Failure::new(
                Exit::Other,
                "context",
                message,
                "use a temporary folder with a UTF-8 name",
            )
        })?;
        write_secret(&this.file(), &text)?;
        Ok(this)
    }

    fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.toml", self.name))
    }

    fn parts(&self) -> [PathBuf; 3] {
        ["ca.pem", "cert.pem", "key.pem"]
            .map(|part| self.folder.join(format!("{}.{part}", self.name)))
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // What cannot be removed does no harm: its process no longer runs, so it does not count.
        let _ = fs::remove_file(self.file());
        for part in self.parts() {
            let _ = fs::remove_file(part);
        }
    }
}

/// Removes what a `dev` left that was killed: its private key is of no use, and is not kept.
fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let context = fs::read_to_string(&path).ok();
        let context = context.and_then(|text| toml::from_str::<Context>(&text).ok());
        if let (Some(Context { pid: Some(pid), .. }), Some(name)) = (context, path.file_stem())
            && !runs(pid)
        {
            let name = name.to_string_lossy().into_owned();
            let folder = folder.to_owned();
            drop(Published { name, folder });
        }
    }
}

/// Makes sure that `folder` is there and nobody else's: names among the temporary files can be
/// taken by anyone.
fn own_folder(folder: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|error| Failure::file("make the folder", folder, &error))?;
    let found = fs::symlink_metadata(folder)
        .map_err(|error| Failure::file("look at the folder", folder, &error))?;
    let user = rustix::process::getuid().as_raw();
    if found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let message = format!(
        "the folder {} is not this user's own with mode 0700",
        folder.display()
    );
    let help = "remove it, or set XDG_RUNTIME_DIR to a folder of your own";
    Err(Failure::new(Exit::Other, "context", message, help))
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    let fresh = path.with_extension("new");
    let write = || {
        // One left behind would keep its mode.
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|error| Failure::file("write", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_reads_back_with_paths_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.toml");
        let text =
            "endpoints = [\"h:1\"]\nca = \"ca.pem\"\ncert = \"/abs/c.pem\"\nkey = \"k.pem\"\n";
        fs::write(&file, text).unwrap();
        let context = read(&file).unwrap().unwrap();
        assert_eq!(context.ca, folder.path().join("ca.pem"));
        assert_eq!(context.cert, Path::new("/abs/c.pem"));
        assert!(read(&folder.path().join("none.toml")).unwrap().is_none());
        fs::write(&file, "endpoint = 1").unwrap();
        assert_eq!(read(&file).unwrap_err().code, "context");
    }

    #[test]
    fn a_context_does_not_outlive_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dev.toml");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let text = format!("endpoints = []\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\npid = {pid}\n");
        fs::write(&file, text).unwrap();
        assert!(read(&file).unwrap().is_none());
    }

    #[test]
    fn what_a_killed_dev_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = child.id();
        child.wait().unwrap();
        for (name, pid) in [("dev", gone), ("dev-1", std::process::id())] {
            let text =
                format!("endpoints = []\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\npid = {pid}\n");
            fs::write(folder.path().join(format!("{name}.toml")), text).unwrap();
            fs::write(folder.path().join(format!("{name}.key.pem")), "k").unwrap();
        }
        remove_abandoned(folder.path());
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["dev-1.key.pem", "dev-1.toml"]);
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        for bad in ["", "../x", "a/b", ".hidden"] {
            assert_eq!(find(bad).unwrap_err().exit, Exit::Usage);
        }
    }

    #[test]
    fn a_folder_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(own_folder(folder.path()).is_err());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        own_folder(folder.path()).unwrap();
    }
}

//! The data directory: whose it is, of which format, and that one host at a time uses it.
//!
//! ```text
//! VERSION     "maitred data directory", format version, host id; written last, so a directory
//!             that has it is complete
//! lock        held with flock while the host runs; the holder's process id is in it
//! raft/ snap/ modules/ compiled/ decisions/ tls/
//! ```
//! It must not know what is in the folders.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::space::{SpaceLimits, SpaceMonitor, SpaceProbe, free_and_total};
use crate::{StorageError, files};

/// The format of the directory that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

const TITLE: &str = "maitred data directory";
const FOLDERS: [&str; 6] = ["raft", "snap", "modules", "compiled", "decisions", "tls"];

/// A data directory, locked for this process as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    host: u64,
    is_new: bool,
    probe: SpaceProbe,
    /// Closing it releases the lock.
    _lock: File,
}

impl DataDir {
    /// Opens a directory that exists.
    ///
    /// # Errors
    /// [`StorageError::Missing`], [`StorageError::NotOurs`], [`StorageError::InUse`],
    /// [`StorageError::FormatVersion`], [`StorageError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        let dir = path.as_ref();
        if !version_file(dir).exists() {
            check_ours_or_empty(dir)?;
            return Err(StorageError::Missing {
                dir: dir.to_owned(),
            });
        }
        Self::open_existing(dir)
    }

    /// Creates a directory for the host with the given id, where nothing or an empty directory is.
    ///
    /// # Errors
    /// [`StorageError::NotOurs`] when something is there, be it a data directory.
    pub fn create(path: impl AsRef<Path>, host: u64) -> Result<Self, StorageError> {
        let dir = path.as_ref();
        check_ours_or_empty(dir)?;
        make_folder(dir)?;
        let lock = lock(dir)?;
        // Again, now that nobody else can be creating it.
        check_ours_or_empty(dir)?;
        for folder in FOLDERS {
            make_folder(&dir.join(folder))?;
        }
        let text = format!("{TITLE}\nformat {FORMAT_VERSION}\nhost {host}\n");
        files::write_whole(&version_file(dir), text.as_bytes())?;
        // The directory's own name must survive too.
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            files::sync_dir(parent)?;
        }
        Ok(Self {
            path: dir.to_owned(),
            host,
            is_new: true,
            probe: SpaceProbe::default(),
            _lock: lock,
        })
    }

    /// Opens the directory, or creates it when there is none.
    ///
    /// # Errors
    /// As [`DataDir::open`] and [`DataDir::create`]; [`StorageError::HostMismatch`] when the
    /// directory was created for another host.
    pub fn open_or_create(path: impl AsRef<Path>, host: u64) -> Result<Self, StorageError> {
        let dir = path.as_ref();
        if !version_file(dir).exists() {
            return Self::create(dir, host);
        }
        let opened = Self::open_existing(dir)?;
        if opened.host != host {
            return Err(StorageError::HostMismatch {
                dir: dir.to_owned(),
                recorded: opened.host,
                given: host,
            });
        }
        Ok(opened)
    }

    fn open_existing(dir: &Path) -> Result<Self, StorageError> {
        let file = version_file(dir);
        let bytes = fs::read(&file).map_err(StorageError::io("read", &file))?;
        let text = String::from_utf8_lossy(&bytes);
        let host = parse_version(&text).map_err(|found| StorageError::FormatVersion {
            file: file.clone(),
            found,
        })?;
        let lock = lock(dir)?;
        // A folder that somebody removed is made again: `compiled` and `decisions` may be.
        for folder in FOLDERS {
            make_folder(&dir.join(folder))?;
        }
        files::remove_temporary(dir)?;
        Ok(Self {
            path: dir.to_owned(),
            host,
            is_new: false,
            probe: SpaceProbe::default(),
            _lock: lock,
        })
    }

    /// The host that the directory was created for.
    #[must_use]
    pub fn host(&self) -> u64 {
        self.host
    }

    /// Whether this call created it.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log is.
    #[must_use]
    pub fn raft(&self) -> PathBuf {
        self.path.join("raft")
    }

    /// Where snapshots are.
    #[must_use]
    pub fn snap(&self) -> PathBuf {
        self.path.join("snap")
    }

    /// Where modules' bytes are.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.path.join("modules")
    }

    /// Where machine code is cached. May be emptied at any time.
    #[must_use]
    pub fn compiled(&self) -> PathBuf {
        self.path.join("compiled")
    }

    /// Where evidence of decisions is.
    #[must_use]
    pub fn decisions(&self) -> PathBuf {
        self.path.join("decisions")
    }

    /// Where this host's certificates and keys are.
    #[must_use]
    pub fn tls(&self) -> PathBuf {
        self.path.join("tls")
    }

    /// Bytes that this process may still use on the directory's file system.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    pub fn free_bytes(&self) -> Result<u64, StorageError> {
        Ok(free_and_total(&self.path)?.0)
    }

    /// From now on room is measured with `probe`.
    pub fn set_space_probe(&mut self, probe: SpaceProbe) {
        self.probe = probe;
    }

    /// Watches the room on the directory's file system.
    #[must_use]
    pub fn space_monitor(&self, limits: SpaceLimits) -> SpaceMonitor {
        SpaceMonitor::new(&self.path, self.probe.clone(), limits)
    }
}

fn version_file(dir: &Path) -> PathBuf {
    dir.join("VERSION")
}

/// The host id, or what stands where format 1 should.
fn parse_version(text: &str) -> Result<u64, String> {
    let unreadable = || text.chars().take(80).collect::<String>();
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(unreadable());
    }
    let format = lines.next().and_then(|line| line.strip_prefix("format "));
    if format != Some(FORMAT_VERSION.to_string().as_str()) {
        return Err(format.map_or_else(unreadable, str::to_owned));
    }
    let host = lines.next().and_then(|line| line.strip_prefix("host "));
    host.and_then(|id| id.parse().ok()).ok_or_else(unreadable)
}

/// Passes for an absent directory, an empty one, and one whose creation was cut short.
fn check_ours_or_empty(dir: &Path) -> Result<(), StorageError> {
    if !dir.exists() {
        return Ok(());
    }
    // VERSION, too, has no place in a directory that is to become one.
    for name in files::names(dir)? {
        let path = dir.join(&name);
        let unfinished = name == "lock"
            || name == "VERSION.tmp"
            || name == "lost+found"
            || (FOLDERS.contains(&name.as_str())
                && path.is_dir()
                && files::names(&path)?.is_empty());
        if !unfinished {
            return Err(StorageError::NotOurs {
                dir: dir.to_owned(),
                entry: name,
            });
        }
    }
    Ok(())
}

/// Makes a folder that only this user may read (keys and game data are in it).
fn make_folder(dir: &Path) -> Result<(), StorageError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(StorageError::io("create", dir))
}

fn lock(dir: &Path) -> Result<File, StorageError> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(StorageError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&file).take(20).read_to_string(&mut pid);
            let pid = pid.trim();
            return Err(StorageError::InUse {
                dir: dir.to_owned(),
                pid: if pid.is_empty() { "unknown" } else { pid }.to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(StorageError::io("lock", &path)(error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(StorageError::io("write", &path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_once_and_opened_again_as_the_same_host() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let missing = DataDir::open(&path).unwrap_err();
        assert!(matches!(missing, StorageError::Missing { .. }));
        let made = DataDir::open_or_create(&path, 7).unwrap();
        assert!(made.is_new() && made.tls().is_dir() && made.free_bytes().unwrap() > 0);
        drop(made);
        let opened = DataDir::open(&path).unwrap();
        assert_eq!((opened.host(), opened.is_new()), (7, false));
        drop(opened);
        let other = DataDir::open_or_create(&path, 8).unwrap_err();
        assert!(matches!(
            other,
            StorageError::HostMismatch {
                recorded: 7,
                given: 8,
                ..
            }
        ));
        let again = DataDir::create(&path, 7).unwrap_err();
        assert!(matches!(again, StorageError::NotOurs { .. }));
    }

    #[test]
    fn a_second_host_is_told_who_holds_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::create(root.path(), 1).unwrap();
        let text = DataDir::open(root.path()).unwrap_err().to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        assert!(text.contains(root.path().to_str().unwrap()), "{text}");
        drop(first);
        DataDir::open(root.path()).unwrap();
    }

    #[test]
    fn another_format_is_refused_with_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        drop(DataDir::create(root.path(), 1).unwrap());
        for (text, shown) in [
            ("maitred data directory\nformat 2\nhost 1\n", "\"2\""),
            ("something else", "something else"),
            ("maitred data directory\nformat 1\nhost x\n", "host x"),
        ] {
            fs::write(version_file(root.path()), text).unwrap();
            let error = DataDir::open(root.path()).unwrap_err();
            assert!(matches!(error, StorageError::FormatVersion { .. }));
            let said = error.to_string();
            assert!(said.contains(shown) && said.contains("rejoin"), "{said}");
        }
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.txt"), "mine").unwrap();
        let error = DataDir::open_or_create(root.path(), 1).unwrap_err();
        assert!(error.to_string().contains("thesis.txt"));
        assert_eq!(files::names(root.path()).unwrap(), ["thesis.txt"]);
    }

    #[test]
    fn a_log_without_its_version_file_is_not_taken_for_an_empty_directory() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::create(root.path(), 1).unwrap();
        fs::write(dir.raft().join("0000000000000001.raftlog"), "x").unwrap();
        drop(dir);
        fs::remove_file(version_file(root.path())).unwrap();
        let error = DataDir::open_or_create(root.path(), 1).unwrap_err();
        assert!(matches!(error, StorageError::NotOurs { .. }));
    }

    #[test]
    fn a_creation_that_was_cut_short_is_finished() {
        let root = tempfile::tempdir().unwrap();
        drop(DataDir::create(root.path(), 1).unwrap());
        fs::rename(version_file(root.path()), root.path().join("VERSION.tmp")).unwrap();
        assert!(DataDir::open_or_create(root.path(), 2).unwrap().is_new());
        assert!(!root.path().join("VERSION.tmp").exists());
    }
}

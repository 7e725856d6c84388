//! The data directory: whose it is, and that one host at a time uses it.
//!
//! ```text
//! VERSION     format and the host's identity (`identity`); written last, so a directory that has it
//!             is complete
//! lock        held with flock while the host runs; the holder's process id is in it
//! raft/ snap/ modules/ compiled/ decisions/ inputs/ tls/
//! ```
//! It must not know what is in the folders.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::space::{SpaceLimits, SpaceMonitor, SpaceProbe, free_and_total};
use crate::{HostIdentity, StorageError, files};

const FOLDERS: [&str; 7] = [
    "raft",
    "snap",
    "modules",
    "compiled",
    "decisions",
    "inputs",
    "tls",
];
/// More than the longest identity takes.
const VERSION_BYTES_MAX: u64 = 1 << 10;

/// A data directory, locked for this process as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: HostIdentity,
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
            check_empty(dir)?;
            return Err(StorageError::Missing {
                dir: dir.to_owned(),
            });
        }
        Self::open_existing(dir)
    }

    /// Creates a directory for a host, where nothing or an empty directory is.
    ///
    /// # Errors
    /// [`StorageError::Exists`] when a data directory is there, [`StorageError::NotOurs`] when
    /// something else is, [`StorageError::InUse`] when somebody else is creating one.
    pub fn create(path: impl AsRef<Path>, identity: &HostIdentity) -> Result<Self, StorageError> {
        Self::create_with(path.as_ref(), identity, |_| Ok(()))
    }

    /// [`DataDir::create`] with content: `fill` writes it before the directory counts as one. What
    /// it wrote is removed when it fails.
    pub(crate) fn create_with<E: From<StorageError>>(
        dir: &Path,
        identity: &HostIdentity,
        fill: impl FnOnce(&Self) -> Result<(), E>,
    ) -> Result<Self, E> {
        identity.check()?;
        check_empty(dir)?;
        make_folder(dir)?;
        let lock = lock(dir)?;
        // Again, now that nobody else can be creating it.
        check_empty(dir)?;
        let made = Self {
            path: dir.to_owned(),
            identity: identity.clone(),
            is_new: true,
            probe: SpaceProbe::default(),
            _lock: lock,
        };
        for folder in FOLDERS {
            make_folder(&dir.join(folder))?;
        }
        if let Err(error) = fill(&made) {
            for folder in FOLDERS {
                // Its failure is the lesser one: the directory is then refused as not empty.
                let _ = fs::remove_dir_all(dir.join(folder));
            }
            return Err(error);
        }
        files::write_whole(&version_file(dir), identity.to_text().as_bytes())?;
        // The directory's own name must survive too.
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            files::sync_dir(parent)?;
        }
        Ok(made)
    }

    /// Opens the directory, whoever's it is, or creates it for `identity` when there is none.
    ///
    /// # Errors
    /// As [`DataDir::open`] and [`DataDir::create`].
    pub fn open_or_create(
        path: impl AsRef<Path>,
        identity: &HostIdentity,
    ) -> Result<Self, StorageError> {
        let dir = path.as_ref();
        if version_file(dir).exists() {
            Self::open_existing(dir)
        } else {
            Self::create(dir, identity)
        }
    }

    /// Whose directory is there, without taking it; none when [`DataDir::create`] would make one.
    ///
    /// # Errors
    /// As [`DataDir::open`], but for [`StorageError::Missing`] and [`StorageError::InUse`].
    pub fn peek(path: impl AsRef<Path>) -> Result<Option<HostIdentity>, StorageError> {
        let dir = path.as_ref();
        if version_file(dir).exists() {
            return read_identity(dir).map(Some);
        }
        check_empty(dir).map(|()| None)
    }

    fn open_existing(dir: &Path) -> Result<Self, StorageError> {
        // Before the lock, too: nothing is written into a directory of another format.
        read_identity(dir)?;
        let lock = lock(dir)?;
        let identity = read_identity(dir)?;
        // A folder that somebody removed is made again: `compiled`, `decisions` and `inputs` may be;
        // and so is one that an older program did not have.
        for folder in FOLDERS {
            make_folder(&dir.join(folder))?;
        }
        files::remove_temporary(dir)?;
        Ok(Self {
            path: dir.to_owned(),
            identity,
            is_new: false,
            probe: SpaceProbe::default(),
            _lock: lock,
        })
    }

    /// Removes the directory with all that this program made in it. A crash in between leaves the
    /// directory, or one that [`DataDir::create`] takes; nobody else can have it before the end.
    ///
    /// # Errors
    /// [`StorageError::Io`]. That the directory itself stays, as it has other things in it or is a
    /// mount point, is none.
    pub fn remove(self) -> Result<(), StorageError> {
        for folder in FOLDERS {
            let folder = self.path.join(folder);
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(StorageError::io("remove", &folder))?,
            }
        }
        files::remove(&version_file(&self.path))?;
        files::remove(&self.path.join("lock"))?;
        // See above.
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &HostIdentity {
        &self.identity
    }

    /// Makes a joining host a joined one, durably: after a crash it is the one or the other. Doing
    /// it again does nothing.
    ///
    /// # Errors
    /// [`StorageError::OutOfOrder`] when the directory's host has a number already, or is another
    /// instance or name; [`StorageError::DiskFull`], [`StorageError::Io`].
    pub fn set_identity(&mut self, identity: &HostIdentity) -> Result<(), StorageError> {
        let known = &self.identity;
        if known == identity {
            return Ok(());
        }
        identity.check()?;
        let same = known.instance == identity.instance && known.name == identity.name;
        if known.is_joined() || !identity.is_joined() || !same {
            let what = format!("the identity {identity:?} given to {known:?}");
            return Err(StorageError::OutOfOrder(what));
        }
        let text = identity.to_text();
        files::write_whole(&version_file(&self.path), text.as_bytes())?;
        self.identity = identity.clone();
        Ok(())
    }

    /// The number of the host whose it is; 0 while it is joining.
    #[must_use]
    pub fn host(&self) -> u64 {
        self.identity.host
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

    /// Where recorded inputs of decisions are.
    #[must_use]
    pub fn inputs(&self) -> PathBuf {
        self.path.join("inputs")
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

fn read_identity(dir: &Path) -> Result<HostIdentity, StorageError> {
    let file = version_file(dir);
    let mut bytes = Vec::new();
    File::open(&file)
        .and_then(|open| open.take(VERSION_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(StorageError::io("read", &file))?;
    HostIdentity::from_text(&bytes, &file)
}

/// Passes for an absent directory, an empty one, and one whose creation was cut short.
fn check_empty(dir: &Path) -> Result<(), StorageError> {
    if !dir.exists() {
        return Ok(());
    }
    if version_file(dir).exists() {
        return Err(StorageError::Exists {
            dir: dir.to_owned(),
        });
    }
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

//! Files that a person names. They are read up to a limit: a device or a wrong file must not fill memory.
//!
//! Holds: a new file has its name only when it is whole and on the disk, and none is written over
//! unless that was asked for.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure};

/// The whole of `path`, which may have at most `bytes_max` bytes; `doing` is for the error, such as
/// `read the module`.
///
/// # Errors
/// When it cannot be read, and exit code 2 when it is longer.
pub(crate) fn read(doing: &str, path: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::file(doing, path, &error))?;
    if bytes.len() as u64 > bytes_max {
        let message = format!(
            "cannot {doing} {}: it has more than {bytes_max} bytes",
            path.display()
        );
        return Err(Failure::new(
            Exit::Usage,
            "file_size",
            message,
            "see the verb's --help for the limits",
        ));
    }
    Ok(bytes)
}

/// As [`read`], for UTF-8.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_text(doing: &str, path: &Path, bytes_max: u64) -> Result<String, Failure> {
    String::from_utf8(read(doing, path, bytes_max)?).map_err(|_| {
        let error = io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
        Failure::file(doing, path, &error)
    })
}

/// A file that is being written beside the one that it will be; gone when it does not come to that.
pub(crate) struct NewFile {
    path: PathBuf,
    folder: PathBuf,
    fresh: tempfile::NamedTempFile,
    force: bool,
}

impl NewFile {
    /// Begins one; `force` writes over what is there.
    ///
    /// # Errors
    /// Exit code 4 when there is such a file already.
    pub(crate) fn begin(path: &Path, force: bool) -> Result<Self, Failure> {
        if path.exists() && !force {
            let message = format!("{} is there already", path.display());
            let help = "choose another name, or write over it with --force";
            return Err(Failure::new(Exit::Conflict, "exists", message, help));
        }
        let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let fresh = std::fs::read_dir(&folder).and_then(|_| {
            tempfile::Builder::new()
                .prefix(&format!(".{name}."))
                .suffix(".part")
                .tempfile_in(&folder)
        });
        let fresh = fresh.map_err(|error| Failure::file("write to", &folder, &error))?;
        Ok(Self {
            path: path.to_owned(),
            folder,
            fresh,
            force,
        })
    }

    /// Where to write.
    pub(crate) fn file(&mut self) -> &mut File {
        self.fresh.as_file_mut()
    }

    /// Gives the file its name, when all of it is on the disk.
    ///
    /// # Errors
    /// When it cannot be written, or somebody else has taken the name meanwhile.
    pub(crate) fn keep(self) -> Result<(), Failure> {
        let path = self.path.clone();
        self.named()
            .map_err(|error| Failure::file("write", &path, &error))
    }

    fn named(self) -> io::Result<()> {
        self.fresh.as_file().sync_all()?;
        if self.force {
            self.fresh.persist(&self.path)?;
        } else {
            self.fresh.persist_noclobber(&self.path)?;
        }
        File::open(&self.folder)?.sync_all()
    }
}

//! Modules' bytes, by digest.
//!
//! A blob that is there is whole and was synced; its bytes are hashed again whenever they are read,
//! so what is given out is what was put in. It must not know what a module is.

use std::fs;
use std::io;
use std::path::PathBuf;

use maitred_protocol::Digest;

use crate::{DataDir, StorageError, files};

/// The blobs of a data directory. Clones are the same blobs; all may be used at once.
#[derive(Debug, Clone)]
pub struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    /// Opens the store, and removes what a crash left unfinished.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn open(dir: &DataDir) -> Result<Self, StorageError> {
        let dir = dir.modules();
        files::remove_temporary(&dir)?;
        Ok(Self { dir })
    }

    /// Stores `bytes`, durable when it returns. One that is there already is left as it is, unless
    /// it is damaged. Two puts of one blob at once must not happen.
    ///
    /// # Errors
    /// [`StorageError::DigestMismatch`], [`StorageError::DiskFull`], [`StorageError::Io`].
    pub fn put(&self, digest: Digest, bytes: &[u8]) -> Result<(), StorageError> {
        let got = Digest::of(bytes);
        if got != digest {
            return Err(StorageError::DigestMismatch {
                expected: digest,
                got,
            });
        }
        match self.get(digest) {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(StorageError::BlobDamaged { .. }) => {
                files::write_whole(&self.path(digest), bytes)
            }
            Err(error) => Err(error),
        }
    }

    /// The bytes; none when there is no such blob.
    ///
    /// # Errors
    /// [`StorageError::BlobDamaged`] when they are not what was stored, [`StorageError::Io`].
    pub fn get(&self, digest: Digest) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.path(digest);
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == digest => Ok(Some(bytes)),
            Ok(_) => Err(StorageError::BlobDamaged { file: path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::io("read", &path)(error)),
        }
    }

    /// Whether the blob is there; its bytes are not looked at.
    #[must_use]
    pub fn contains(&self, digest: Digest) -> bool {
        self.path(digest).exists()
    }

    /// Removes a blob. False when there is no such one.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn remove(&self, digest: Digest) -> Result<bool, StorageError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => files::sync_dir(&self.dir).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StorageError::io("remove", &path)(error)),
        }
    }

    /// All blobs and their sizes in bytes, in order of digest. Files of other names are passed over.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn list(&self) -> Result<Vec<(Digest, u64)>, StorageError> {
        let mut blobs = Vec::new();
        for name in files::names(&self.dir)? {
            let Some(digest) = parse(&name) else { continue };
            let path = self.dir.join(&name);
            match path.metadata() {
                Ok(meta) => blobs.push((digest, meta.len())),
                // Removed since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StorageError::io("measure", &path)(error)),
            }
        }
        Ok(blobs)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }
}

fn parse(name: &str) -> Option<Digest> {
    let hex = blake3::Hash::from_hex(name).ok()?;
    let digest = Digest(*hex.as_bytes());
    // Lower case only: the name is the digest's text.
    (digest.to_string() == name).then_some(digest)
}

#[cfg(test)]
mod tests {
    use maitred_protocol::HostName;

    use super::*;
    use crate::HostIdentity;

    fn identity() -> HostIdentity {
        HostIdentity::joining(1, HostName::new("a").unwrap())
    }

    #[test]
    fn bytes_come_back_and_are_listed_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::create(root.path(), &identity()).unwrap();
        let blobs = Blobs::open(&dir).unwrap();
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two2"));
        blobs.put(one, b"one").unwrap();
        blobs.put(two, b"two2").unwrap();
        fs::write(dir.modules().join("abc.tmp"), b"half").unwrap();

        let blobs = Blobs::open(&dir).unwrap();
        assert!(!dir.modules().join("abc.tmp").exists());
        assert_eq!(blobs.get(one).unwrap().as_deref(), Some(&b"one"[..]));
        let mut expected = [(one, 3), (two, 4)];
        expected.sort_unstable();
        assert_eq!(blobs.list().unwrap(), expected);
        assert!(blobs.remove(one).unwrap() && !blobs.remove(one).unwrap());
        assert!(!blobs.contains(one) && blobs.contains(two));
        assert_eq!(blobs.get(one).unwrap(), None);
    }

    #[test]
    fn wrong_bytes_neither_come_in_nor_go_out() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::create(root.path(), &identity()).unwrap();
        let blobs = Blobs::open(&dir).unwrap();
        let digest = Digest::of(b"right");
        let error = blobs.put(digest, b"wrong").unwrap_err();
        assert!(matches!(error, StorageError::DigestMismatch { .. }));
        assert!(!blobs.contains(digest));

        blobs.put(digest, b"right").unwrap();
        fs::write(dir.modules().join(digest.to_string()), b"right?").unwrap();
        let error = blobs.get(digest).unwrap_err();
        assert!(error.to_string().contains(&digest.to_string()), "{error}");
        blobs.put(digest, b"right").unwrap();
        assert_eq!(blobs.get(digest).unwrap().as_deref(), Some(&b"right"[..]));
    }
}

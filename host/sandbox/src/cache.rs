//! Machine code on disk. It is code that this process will run, so a file is used only when this
//! host wrote it: the directory belongs to this user alone, and each file carries a keyed blake3
//! hash over its name and its contents. A file that does not agree is compiled again.
//!
//! The name is the module's digest with the engine's fingerprint, so a host that was updated, moved
//! to another processor or configured otherwise never meets code made under other settings.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use maitred_protocol::Digest;
use rustix::rand::GetRandomFlags;

use crate::error::SandboxError;

const HASH_BYTES: usize = 32;

/// The directory and its key.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    fingerprint: [u8; 32],
    bytes_max: u64,
}

impl Cache {
    pub(crate) fn open(
        dir: &Path,
        fingerprint: [u8; 32],
        bytes_max: u64,
    ) -> Result<Self, SandboxError> {
        let failed = |source| SandboxError::Cache {
            path: dir.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
        let meta = fs::metadata(dir).map_err(failed)?;
        if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return Err(SandboxError::CacheNotPrivate(dir.to_owned()));
        }
        let key = read_key(&dir.join("key")).map_err(failed)?;
        Ok(Self {
            dir: dir.to_owned(),
            key,
            fingerprint,
            bytes_max,
        })
    }

    /// The machine code of a module; none when there is none that this host wrote.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        let name = self.name(digest);
        let path = self.dir.join(&name);
        let mut file = File::open(&path).ok()?;
        let mut hash = [0; HASH_BYTES];
        let mut code = Vec::new();
        let read = file
            .read_exact(&mut hash)
            .and_then(|()| file.read_to_end(&mut code));
        if read.is_err() || self.hash(&name, &code) != hash {
            tracing::warn!(file = %path.display(), "compiled module was altered or is incomplete; it is compiled again");
            // What cannot be removed is overwritten by the next put.
            let _ = fs::remove_file(&path);
            return None;
        }
        Some(code)
    }

    /// Keeps machine code. Nothing is synced: an incomplete file does not agree with its hash.
    pub(crate) fn put(&self, digest: &Digest, code: &[u8]) -> io::Result<()> {
        let name = self.name(digest);
        let temporary = self.dir.join(format!("{name}.new"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(self.hash(&name, code).as_bytes())?;
        file.write_all(code)?;
        drop(file);
        fs::rename(&temporary, self.dir.join(&name))?;
        self.evict()
    }

    /// Removes the oldest files until the rest is within the limit.
    fn evict(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let (path, meta) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            if path
                .extension()
                .is_some_and(|extension| extension == "cwasm" || extension == "new")
            {
                files.push((
                    meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    meta.len(),
                    path,
                ));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if total <= self.bytes_max {
                break;
            }
            fs::remove_file(path)?;
            total -= bytes;
        }
        Ok(())
    }

    fn name(&self, digest: &Digest) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(&digest.0);
        hash.update(&self.fingerprint);
        format!("{}.cwasm", hash.finalize().to_hex())
    }

    fn hash(&self, name: &str, code: &[u8]) -> blake3::Hash {
        let mut hash = blake3::Hasher::new_keyed(&self.key);
        hash.update(name.as_bytes());
        hash.update(code);
        hash.finalize()
    }
}

/// The key, made at the first start. A key that is not whole is made anew; what was kept under it
/// is compiled again.
fn read_key(path: &Path) -> io::Result<[u8; 32]> {
    if let Ok(kept) = fs::read(path)
        && let Ok(key) = <[u8; 32]>::try_from(kept.as_slice())
    {
        return Ok(key);
    }
    let mut key = [0; 32];
    let got = rustix::rand::getrandom(&mut key[..], GetRandomFlags::empty())?;
    if got != key.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(dir: &Path) -> Cache {
        Cache::open(dir, [7; 32], 100).unwrap()
    }

    fn only_file(dir: &Path) -> PathBuf {
        let files = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        files
            .into_iter()
            .find(|path| path.extension().is_some())
            .unwrap()
    }

    #[test]
    fn what_was_put_is_read_by_the_same_host_only() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest([1; 32]);
        cache(dir.path()).put(&digest, b"code").unwrap();
        assert_eq!(cache(dir.path()).get(&digest).unwrap(), b"code");
        assert!(cache(dir.path()).get(&Digest([2; 32])).is_none());
        assert!(
            Cache::open(dir.path(), [8; 32], 100)
                .unwrap()
                .get(&digest)
                .is_none()
        );
        fs::remove_file(dir.path().join("key")).unwrap();
        assert!(cache(dir.path()).get(&digest).is_none());
    }

    #[test]
    fn altered_and_truncated_files_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest([1; 32]);
        let spoilers: [fn(&mut Vec<u8>); 4] = [
            |bytes| bytes[33] ^= 1,
            |bytes| bytes[0] ^= 1,
            |bytes| bytes.truncate(35),
            |bytes| bytes.truncate(3),
        ];
        for spoil in spoilers {
            cache(dir.path()).put(&digest, b"code").unwrap();
            let file = only_file(dir.path());
            let mut bytes = fs::read(&file).unwrap();
            spoil(&mut bytes);
            fs::write(&file, bytes).unwrap();
            assert!(cache(dir.path()).get(&digest).is_none());
        }
    }

    #[test]
    fn a_file_does_not_pass_for_another_module() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Digest([1; 32]), Digest([2; 32]));
        cache(dir.path()).put(&one, b"code").unwrap();
        fs::rename(
            only_file(dir.path()),
            dir.path().join(cache(dir.path()).name(&two)),
        )
        .unwrap();
        assert!(cache(dir.path()).get(&two).is_none());
    }

    #[test]
    fn the_oldest_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let (one, two) = (Digest([1; 32]), Digest([2; 32]));
        cache.put(&one, &[1; 60]).unwrap();
        let old = File::options()
            .write(true)
            .open(only_file(dir.path()))
            .unwrap();
        old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        cache.put(&two, &[2; 60]).unwrap();
        assert!(cache.get(&one).is_none() && cache.get(&two).is_some());
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            Cache::open(dir.path(), [7; 32], 100),
            Err(SandboxError::CacheNotPrivate(_))
        ));
    }
}

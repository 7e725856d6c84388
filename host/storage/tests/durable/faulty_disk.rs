//! A file system under the log's engine that runs out of room, counts syncs, fails them or makes
//! them wait, and lets a test look at the disk between any two of its operations.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

type Real = <DefaultFileSystem as FileSystem>::Handle;

/// What the disk does, and did. Shared with the test.
#[derive(Default)]
pub(crate) struct Knobs {
    /// Bytes that may still be written; then it says that it is full, in the middle of a write.
    pub(crate) room: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) fail_syncs: AtomicBool,
    /// Called before every sync, which waits for its return: a slow disk.
    pub(crate) before_sync: Hook,
    /// Called before every operation that changes the disk; a write is then many small ones.
    pub(crate) before_change: Hook,
}

/// Something that a test wants done.
pub(crate) type Hook = Mutex<Option<Box<dyn FnMut() + Send>>>;

/// What a write is cut into while each operation is looked at.
const PIECE_BYTES: usize = 16;

/// Whether there was something to be called.
fn call(hook: &Hook) -> bool {
    let mut hook = hook.lock().unwrap();
    hook.as_mut().map(|hook| hook()).is_some()
}

/// The real file system, with knobs.
pub(crate) struct FaultyDisk(pub(crate) Arc<Knobs>);

pub(crate) struct FaultyFile {
    real: Arc<Real>,
    knobs: Arc<Knobs>,
}

impl Handle for FaultyFile {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        call(&self.knobs.before_change);
        self.real.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.real.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        self.knobs.syncs.fetch_add(1, Ordering::Relaxed);
        call(&self.knobs.before_sync);
        call(&self.knobs.before_change);
        if self.knobs.fail_syncs.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.real.sync()
    }
}

pub(crate) struct FaultyWriter {
    real: <DefaultFileSystem as FileSystem>::Writer,
    knobs: Arc<Knobs>,
}

impl Seek for FaultyWriter {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.real.seek(to)
    }
}

impl Write for FaultyWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = self.knobs.room.load(Ordering::Relaxed) as usize;
        if room == 0 {
            // The text by which the engine knows it.
            return Err(io::Error::new(io::ErrorKind::StorageFull, "nospace"));
        }
        let piece = if call(&self.knobs.before_change) {
            PIECE_BYTES
        } else {
            usize::MAX
        };
        let length = buffer.len().min(room).min(piece);
        let written = self.real.write(&buffer[..length])?;
        self.knobs.room.fetch_sub(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.real.flush()
    }
}

impl WriteExt for FaultyWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        call(&self.knobs.before_change);
        self.real.truncate(offset)
    }

    fn allocate(&mut self, _: usize, _: usize) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl FaultyDisk {
    fn wrap(&self, real: Real) -> FaultyFile {
        FaultyFile {
            real: Arc::new(real),
            knobs: self.0.clone(),
        }
    }
}

impl FileSystem for FaultyDisk {
    type Handle = FaultyFile;
    type Reader = <DefaultFileSystem as FileSystem>::Reader;
    type Writer = FaultyWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<FaultyFile> {
        call(&self.0.before_change);
        DefaultFileSystem.create(path).map(|real| self.wrap(real))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<FaultyFile> {
        let real = DefaultFileSystem.open(path, permission)?;
        Ok(self.wrap(real))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        call(&self.0.before_change);
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        call(&self.0.before_change);
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<FaultyFile>) -> io::Result<Self::Reader> {
        DefaultFileSystem.new_reader(handle.real.clone())
    }

    fn new_writer(&self, handle: Arc<FaultyFile>) -> io::Result<FaultyWriter> {
        Ok(FaultyWriter {
            real: DefaultFileSystem.new_writer(handle.real.clone())?,
            knobs: self.0.clone(),
        })
    }
}

//! A file system under the log's engine that runs out of room, counts syncs, or fails them.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

type Real = <DefaultFileSystem as FileSystem>::Handle;

/// What the disk does, and did. Shared with the test.
#[derive(Default)]
pub(crate) struct Knobs {
    /// Bytes that may still be written; then it says that it is full, in the middle of a write.
    pub(crate) room: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) fail_syncs: AtomicBool,
}

/// The real file system, with knobs.
pub(crate) struct FaultyDisk(pub(crate) Arc<Knobs>);

pub(crate) struct FaultyFile {
    real: Arc<Real>,
    knobs: Arc<Knobs>,
}

impl Handle for FaultyFile {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.real.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.real.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        self.knobs.syncs.fetch_add(1, Ordering::Relaxed);
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
        let written = self.real.write(&buffer[..buffer.len().min(room)])?;
        self.knobs.room.fetch_sub(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.real.flush()
    }
}

impl WriteExt for FaultyWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
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
        DefaultFileSystem.create(path).map(|real| self.wrap(real))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<FaultyFile> {
        let real = DefaultFileSystem.open(path, permission)?;
        Ok(self.wrap(real))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
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

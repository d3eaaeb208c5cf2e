//! The few things we ask of a file system: whole writes at a place, whole reads, atomic replacement.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Parts that one system call may take.
const PARTS_MAX: usize = 1024;

/// Writes all parts one after another, starting at `position`.
pub(crate) fn write_all_at(
    file: &File,
    mut parts: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0); // drops empty parts
    #[cfg(test)]
    crate::sim::write(file, parts, position)?;
    while !parts.is_empty() {
        let some = &parts[..parts.len().min(PARTS_MAX)];
        match rustix::io::pwritev(file, some, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut parts, written);
                position += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Appends to `buffer` up to `len` bytes from `position`; less only at the end of the file.
pub(crate) fn read_at(
    file: &File,
    buffer: &mut Vec<u8>,
    position: u64,
    len: usize,
) -> io::Result<()> {
    let start = buffer.len();
    buffer.reserve_exact(len);
    while buffer.len() - start < len {
        let done = buffer.len() - start;
        // The vector may have more room than was asked for; what is read too much is dropped below.
        let spare = rustix::buffer::spare_capacity(buffer);
        match rustix::io::pread(file, spare, position + done as u64) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    buffer.truncate(start + len);
    Ok(())
}

/// Waits until a range of a file is in memory, as far as the kernel says, so that who sends it does not wait for the disk.
pub(crate) fn fill_cache(file: &File, position: u64, len: usize) -> io::Result<()> {
    let Some(last) = (position + len as u64).checked_sub(1) else {
        return Ok(());
    };
    let mut byte = [0];
    let mut buffer = [IoSliceMut::new(&mut byte)];
    let flags = rustix::io::ReadWriteFlags::NOWAIT;
    match rustix::io::preadv2(file, &mut buffer, last, flags) {
        Err(rustix::io::Errno::AGAIN) => {}
        // It is there, or nobody can tell.
        _ => return Ok(()),
    }
    let all = NonZeroU64::new(len as u64);
    rustix::fs::fadvise(file, position, all, rustix::fs::Advice::WillNeed)?;
    read_at(file, &mut Vec::new(), last, 1)
}

/// Replaces the file at `path` so that it holds either the old bytes or the new, whatever happens.
///
/// The name is only durable once the directory is synced as well.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".tmp");
    let file = File::create(&fresh)?;
    #[cfg(test)]
    crate::sim::create(Path::new(&fresh), &file)?;
    write_all_at(&file, &mut [IoSlice::new(bytes)], 0)?;
    sync_data(&file)?;
    rename(Path::new(&fresh), path)
}

/// Puts a file's bytes on disk.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    #[cfg(test)]
    crate::sim::sync(file)?;
    file.sync_data()
}

/// Gives a file another name, in place of the file that may have it.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    crate::sim::rename(from, to)?;
    std::fs::rename(from, to)
}

/// Makes created, renamed and removed names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    // The parent of a relative path may be the empty one.
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    #[cfg(test)]
    crate::sim::sync_dir()?;
    File::open(dir)?.sync_all()
}

/// Makes a file so long, with zeros at the end where it was shorter.
pub(crate) fn set_len(file: &File, len: u64) -> io::Result<()> {
    #[cfg(test)]
    crate::sim::set_len(file, len)?;
    file.set_len(len)
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    crate::sim::remove(path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// A file that is opened when it is first needed: most segments are never read again.
#[derive(Debug)]
pub(crate) struct LazyFile {
    path: PathBuf,
    file: Mutex<Option<Arc<File>>>,
}

impl LazyFile {
    pub(crate) fn new(path: PathBuf) -> LazyFile {
        LazyFile {
            path,
            file: Mutex::new(None),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the open file.
    pub(crate) fn get(&self) -> io::Result<Arc<File>> {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        Ok(Arc::clone(slot.insert(Arc::new(file))))
    }

    /// Creates the file where there is none.
    pub(crate) fn create(&self) -> io::Result<Arc<File>> {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)?;
        #[cfg(test)]
        crate::sim::create(&self.path, &file)?;
        Ok(Arc::clone(slot.insert(Arc::new(file))))
    }

    /// Closes the file until it is needed again; those who hold it go on.
    pub(crate) fn release(&self) {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

//! Makes sure that only one process uses a data folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// Holds a lock on `<data folder>/lock` until dropped; the kernel releases it if the process dies.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock of `dir`.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process holds it.
    pub fn take(dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|error| StoreError::of_io(dir, &error))?;
        let path = dir.join("lock");
        let failed = |error: std::io::Error| StoreError::of_io(&path, &error);
        // Do not truncate: until the lock is ours, the file names its holder.
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = match opened {
            // A lock needs no write permission.
            Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => File::open(&path),
            opened => opened,
        }
        .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only to name the holder: if the file cannot be read, it is locked all the same.
                let _ = (&mut file).take(20).read_to_string(&mut holder);
                let holder: String = holder.chars().filter(char::is_ascii_digit).collect();
                return Err(StoreError::Locked(format!(
                    "{} (process {}); stop it or choose another data folder",
                    dir.display(),
                    if holder.is_empty() { "unknown" } else { &holder }
                )));
            }
            Err(error) => return Err(failed(error.into())),
        }
        // Only to name the holder: the lock works without it, even on a full or read-only disk.
        let named = file
            .rewind()
            .and_then(|()| write!(file, "{}", std::process::id()))
            .and_then(|()| file.stream_position())
            .and_then(|end| file.set_len(end));
        if let Err(error) = named {
            tracing::debug!(%error, path = %path.display(), "the lock does not name its owner");
        }
        Ok(Self { _file: file })
    }
}

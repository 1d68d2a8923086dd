//! One process per data folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// Holds `<data folder>/lock` until dropped; the kernel lets go of it when the process dies.
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
        std::fs::create_dir_all(dir)
            .map_err(|error| StoreError::Database(format!("{}: {error}", dir.display())))?;
        let path = dir.join("lock");
        let failed =
            |error: &dyn std::fmt::Display| StoreError::Database(format!("{}: {error}", path.display()));
        // Not truncated: until the lock is ours, the file tells who holds it.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| failed(&e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only to name the holder: a lock file that cannot be read is still a lock.
                let _ = (&mut file).take(20).read_to_string(&mut holder);
                let holder: String = holder.chars().filter(char::is_ascii_digit).collect();
                return Err(StoreError::Locked(format!(
                    "{} (process {}); stop it or choose another data folder",
                    dir.display(),
                    if holder.is_empty() { "unknown" } else { &holder }
                )));
            }
            Err(error) => return Err(failed(&error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(|e| failed(&e))?;
        write!(file, "{}", std::process::id()).map_err(|e| failed(&e))?;
        Ok(Self { _file: file })
    }
}

//! Makes sure that only one process uses a data folder.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StoreError;
use crate::own_files;

const LOCK: &str = "lock";
/// Longest number of a process, in digits.
const HOLDER_BYTES: u64 = 20;

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
        let path = dir.join(LOCK);
        let failed = |error: std::io::Error| StoreError::of_io(&path, &error);
        // Do not truncate: until the lock is ours, the file names its holder.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let opened = own_files::open_with(dir, LOCK, &mut options);
        let mut file = match opened {
            // A lock needs no write permission.
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => own_files::open(dir, LOCK),
            opened => opened,
        }
        .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only to name the holder: if the file cannot be read, it is locked all the same.
                let _ = (&mut file).take(HOLDER_BYTES).read_to_string(&mut holder);
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
        if let Err(error) = name_holder(&mut file) {
            tracing::debug!(%error, path = %path.display(), "the lock does not name its owner");
        }
        Ok(Self { _file: file })
    }
}

/// Writes the number of this process, unless the file has content that no server wrote: it may be somebody's
/// file of this name, or a link to one.
fn name_holder(file: &mut File) -> std::io::Result<()> {
    let mut holder = Vec::new();
    (&mut *file).take(HOLDER_BYTES + 1).read_to_end(&mut holder)?;
    if holder.len() as u64 > HOLDER_BYTES || !holder.iter().all(u8::is_ascii_digit) {
        return Err(ErrorKind::InvalidData.into());
    }
    file.rewind()?;
    write!(file, "{}", std::process::id())?;
    let end = file.stream_position()?;
    file.set_len(end)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_lock_overwrites_nothing_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let (data, victim) = (dir.path().join("data"), dir.path().join("victim"));
        fs::write(&victim, "another's").unwrap();
        let lock = data.join(LOCK);
        drop(FolderLock::take(&data).unwrap());
        assert_eq!(fs::read_to_string(&lock).unwrap(), std::process::id().to_string());
        fs::write(&lock, "12345678901234567890").unwrap();
        let held = FolderLock::take(&data).unwrap();
        assert_eq!(fs::read_to_string(&lock).unwrap(), std::process::id().to_string());
        assert_eq!(FolderLock::take(&data).unwrap_err().code(), "data_folder_locked");
        drop(held);

        fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink(&victim, &lock).unwrap();
        let error = FolderLock::take(&data).unwrap_err().to_string();
        assert!(error.contains("`lock`") && error.contains("link"), "{error}");
        fs::remove_file(&lock).unwrap();
        fs::hard_link(&victim, &lock).unwrap();
        drop(FolderLock::take(&data).unwrap());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "another's");
    }
}

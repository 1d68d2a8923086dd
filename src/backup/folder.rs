//! Snapshots in a folder.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use super::BackupError;
use super::destination::{Destination, Meter, Turn};
use crate::fail_points::crash_point;
use crate::files::Content;
use crate::own_files;

const CHUNK_BYTES: usize = 1 << 18;
/// Folder of half-written files.
const TEMPORARY: &str = "tmp";

/// A folder of snapshots, readable by its owner only.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    root: PathBuf,
    /// Half-written files, on the same file system so that a rename completes them.
    temporary: PathBuf,
}

impl Folder {
    /// Opens a folder, creating it if absent.
    pub(super) fn make(root: &Path) -> Result<Self, BackupError> {
        let failed = |error: io::Error| BackupError::Destination(format!("{}: {error}", root.display()));
        make_folder(root).map_err(failed)?;
        Self::at(&root.canonicalize().map_err(failed)?)
    }

    /// Opens an existing folder.
    pub(super) fn at(root: &Path) -> Result<Self, BackupError> {
        if !root.is_dir() {
            return Err(BackupError::Destination(format!("{}: no such folder", root.display())));
        }
        Ok(Self { root: root.to_owned(), temporary: root.join(TEMPORARY) })
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Moves a synced file to its final name and makes the name durable.
    fn place(&self, from: &Path, key: &str) -> io::Result<()> {
        let to = self.path(key);
        let folder = to.parent().unwrap_or(&self.root);
        make_folder(folder)?;
        crash_point!("snapshot-rename");
        fs::rename(from, &to)?;
        crash_point!("snapshot-renamed");
        // The parent folders may be new too.
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.root)) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn temporary_file(&self) -> io::Result<tempfile::NamedTempFile> {
        make_folder(&self.temporary)?;
        tempfile::NamedTempFile::new_in(&self.temporary)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Self, &str) -> Result<T, BackupError> + Send + 'static,
    ) -> Result<T, BackupError> {
        let (folder, key) = (self.clone(), key.to_owned());
        let joined = tokio::task::spawn_blocking(move || {
            work(&folder, &key).map_err(|error| match error {
                BackupError::Io(error) => {
                    BackupError::Destination(format!("{}: {error}", folder.path(&key).display()))
                }
                other => other,
            })
        });
        joined.await.unwrap_or_else(|error| Err(BackupError::Destination(error.to_string())))
    }
}

/// Whether this is the name of a half-written file, or of a copy of the store. Nothing else is removed.
fn is_temporary(name: &str) -> bool {
    name.starts_with(".tmp") || (name.starts_with("snp_") && name.contains(".db"))
}

/// A file with its lock. A process started at this moment inherits the open file, and with it the lock, until
/// it runs its own program: closing the file here would not release the lock before that.
struct Locked(File);

impl Locked {
    fn of(file: File) -> Result<Self, BackupError> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(BackupError::Locked),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Err(error) = flock(&self.0, FlockOperation::Unlock) {
            tracing::debug!(%error, "the lock of the snapshots is released when its file is closed");
        }
    }
}

/// Creates a folder and its parents, readable by their owner only.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Copies to the end; returns the size and hash of what passed.
pub(super) fn pump(from: &mut impl Read, to: &mut impl Write, meter: &Meter) -> Result<Content, BackupError> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut size_bytes = 0;
    loop {
        meter.check()?;
        let read = from.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            return Ok(Content { sha256: hex::encode(hasher.finalize()), size_bytes });
        };
        hasher.update(part);
        to.write_all(part)?;
        size_bytes += read as u64;
        meter.add(read as u64);
    }
}

fn opened(root: &Path, key: &str) -> Result<Option<File>, BackupError> {
    match own_files::open(root, key) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Creates a file, readable by its owner only.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn keys_beneath(root: &Path, folder: &Path, keys: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            keys_beneath(root, &entry.path(), keys)?;
        } else if let Some(key) = entry.path().strip_prefix(root).ok().and_then(Path::to_str) {
            keys.push(key.to_owned());
        }
    }
    Ok(())
}

#[async_trait]
impl Destination for Folder {
    fn folder(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn scratch(&self) -> Option<&Path> {
        Some(&self.temporary)
    }

    async fn lock(&self) -> Result<Turn, BackupError> {
        self.blocking("lock", |folder, key| {
            own_files::check_folder(&folder.root, TEMPORARY)?;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let lock = Locked::of(own_files::open_with(&folder.root, key, &mut options)?)?;
            make_folder(&folder.temporary)?;
            for left in fs::read_dir(&folder.temporary)? {
                let left = left?;
                if left.file_type()?.is_file() && is_temporary(&left.file_name().to_string_lossy()) {
                    fs::remove_file(left.path())?;
                }
            }
            Ok(Box::new(lock) as Turn)
        })
        .await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, BackupError> {
        self.blocking(key, |folder, key| match fs::metadata(folder.path(key)) {
            Ok(found) => Ok(found.is_file().then_some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        })
        .await
    }

    async fn read(&self, key: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, BackupError> {
        self.blocking(key, move |folder, key| {
            let Some(file) = opened(&folder.root, key)? else { return Ok(None) };
            let mut bytes = Vec::new();
            file.take(most_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
            Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= most_bytes))
        })
        .await
    }

    async fn write(&self, key: &str, bytes: Vec<u8>) -> Result<(), BackupError> {
        self.blocking(key, move |folder, key| {
            let mut file = folder.temporary_file()?;
            file.write_all(&bytes)?;
            file.as_file().sync_all()?;
            Ok(folder.place(&file.into_temp_path(), key)?)
        })
        .await
    }

    async fn upload(
        &self,
        from: &Path,
        key: &str,
        expected: Option<&str>,
        meter: &Arc<Meter>,
    ) -> Result<Content, BackupError> {
        let (from, meter) = (from.to_owned(), Arc::clone(meter));
        let expected = expected.map(str::to_owned);
        self.blocking(key, move |folder, key| {
            let mut source = own_files::open_path(&from)?;
            let mut file = folder.temporary_file()?;
            let content = pump(&mut source, &mut file, &meter)?;
            if expected.is_none_or(|expected| expected == content.sha256) {
                file.as_file().sync_all()?;
                folder.place(&file.into_temp_path(), key)?;
            }
            Ok(content)
        })
        .await
    }

    async fn adopt(&self, from: &Path, key: &str, meter: &Arc<Meter>) -> Result<Content, BackupError> {
        let (from, meter) = (from.to_owned(), Arc::clone(meter));
        self.blocking(key, move |folder, key| {
            let mut file = own_files::open_path(&from)?;
            let content = pump(&mut file, &mut io::sink(), &meter)?;
            file.sync_all()?;
            folder.place(&from, key)?;
            Ok(content)
        })
        .await
    }

    async fn download(
        &self,
        key: &str,
        to: &Path,
        meter: &Arc<Meter>,
    ) -> Result<Option<Content>, BackupError> {
        let (to, meter) = (to.to_owned(), Arc::clone(meter));
        self.blocking(key, move |folder, key| {
            let Some(mut source) = opened(&folder.root, key)? else { return Ok(None) };
            let mut file = new_file(&to)?;
            let content = pump(&mut source, &mut file, &meter)?;
            file.sync_all()?;
            Ok(Some(content))
        })
        .await
    }

    async fn digest(&self, key: &str, meter: &Arc<Meter>) -> Result<Option<Content>, BackupError> {
        let meter = Arc::clone(meter);
        self.blocking(key, move |folder, key| {
            let Some(mut source) = opened(&folder.root, key)? else { return Ok(None) };
            pump(&mut source, &mut io::sink(), &meter).map(Some)
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, BackupError> {
        self.blocking(prefix, |folder, prefix| {
            let mut keys = Vec::new();
            keys_beneath(&folder.root, &folder.path(prefix), &mut keys)?;
            keys.sort_unstable();
            Ok(keys)
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), BackupError> {
        self.blocking(key, |folder, key| {
            let path = folder.path(key);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            // Remove the folders that are now empty too, up to the root.
            let above = path.ancestors().skip(1).take_while(|above| *above != folder.root);
            for folder in above {
                if fs::remove_dir(folder).is_err() {
                    break;
                }
            }
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_released_although_a_new_process_still_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let opened = || File::create(dir.path().join("lock")).unwrap();
        let held = Locked::of(opened()).unwrap();
        assert!(matches!(Locked::of(opened()), Err(BackupError::Locked)));
        let _inherited = held.0.try_clone().unwrap();
        drop(held);
        assert!(Locked::of(opened()).is_ok());
    }
}

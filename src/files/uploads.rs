//! Uploaded bytes: streamed to a temporary file, synced, then stored under their hash.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;

use super::error::FileError;
use super::paths::open_resolved;
use super::quarantine::{Quarantine, move_away};
use crate::fail_points::crash_point;
use crate::store::changed_ns;

/// The identity of bytes: SHA-256 and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// SHA-256 in lower-case hex.
    pub sha256: String,
    /// Number of bytes received.
    pub size_bytes: u64,
}

/// Hashes a user's file; also returns when it last changed. Blocking.
pub fn hash_file(path: &Path) -> Result<(Content, i64), FileError> {
    let mut file = open_resolved(path)?;
    let before = let_settle(&file)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut size_bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            let after = file.metadata()?;
            if changed_ns(&after) != before || after.len() != size_bytes {
                return Err(FileError::Changed);
            }
            return Ok((Content { sha256: hex::encode(hasher.finalize()), size_bytes }, before));
        }
        hasher.update(&buffer[..read]);
        size_bytes += read as u64;
    }
}

/// Two changes within one tick of the kernel's clock have the same time stamp.
const TICK: Duration = Duration::from_millis(20);

/// When a file last changed, in nanoseconds; waits until a later change would get another time stamp.
/// Blocking.
pub fn let_settle(file: &File) -> io::Result<i64> {
    let changed = changed_ns(&file.metadata()?);
    let now = chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX);
    if now.saturating_sub(changed) < TICK.as_nanos() as i64 {
        std::thread::sleep(TICK);
    }
    Ok(changed)
}

/// The folders of uploads within the data folder.
#[derive(Debug, Clone)]
pub struct Uploads {
    kept: PathBuf,
    temporary: PathBuf,
}

impl Uploads {
    /// Names the folders; changes nothing.
    pub fn of(data_dir: &Path) -> io::Result<Self> {
        let data_dir = data_dir.canonicalize()?;
        Ok(Self { kept: data_dir.join("uploads"), temporary: data_dir.join("tmp") })
    }

    /// Creates the folders, readable by their owner only, and removes half-written files of a crash. Unknown
    /// files go to quarantine.
    pub fn prepare(&self, quarantine: &Quarantine) -> io::Result<()> {
        let private = |path: &Path| {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        private(&self.kept)?;
        private(&self.temporary)?;
        for entry in fs::read_dir(&self.temporary)? {
            let entry = entry?;
            if entry.file_type()?.is_file() && is_temporary(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path())?;
            } else if entry.file_name() != LOST_AND_FOUND {
                move_away(quarantine, &entry.path(), "it is not an unfinished upload");
            }
        }
        Ok(())
    }

    /// Path of the stored file of this name; `None` if the name is not one of a stored file.
    pub fn kept_file(&self, name: &str) -> Option<PathBuf> {
        is_kept_name(name).then(|| self.kept.join(name))
    }

    /// Names of all stored files.
    pub fn kept_names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let folders = match fs::read_dir(&self.kept) {
            Ok(folders) => folders,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            Err(error) => return Err(error),
        };
        for folder in folders {
            let folder = folder?;
            if folder.file_type()?.is_dir() {
                for file in fs::read_dir(folder.path())? {
                    names.extend(kept_name(&file?.path()));
                }
            }
        }
        Ok(names)
    }

    /// The folder of stored files.
    pub fn kept_folder(&self) -> &Path {
        &self.kept
    }

    /// The folder of files being received; emptied at startup.
    pub fn temporary_folder(&self) -> &Path {
        &self.temporary
    }

    /// Path for the bytes of this hash. It depends on the segmentation, as an asset's identity does: every
    /// asset has its own file to delete.
    pub fn path_of(&self, sha256: &str, segmentation: &str) -> PathBuf {
        let tail = hex::encode(&Sha256::digest(segmentation)[..4]);
        self.kept.join(&sha256[..2]).join(format!("{sha256}-{tail}"))
    }

    /// Moves a synced temporary file to its place, durably. Blocking.
    pub fn keep(&self, temporary: &Path, kept: &Path) -> io::Result<()> {
        let folder = kept.parent().unwrap_or(&self.kept);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        crash_point!("upload-rename");
        fs::rename(temporary, kept)?;
        crash_point!("upload-renamed");
        File::open(folder)?.sync_all()?;
        File::open(&self.kept)?.sync_all()
    }

    /// Clears out files that no asset owns. A file whose asset is known to be deleted is removed; all others
    /// go to quarantine: a crash between the rename and the store's commit leaves a file that was never
    /// acknowledged, but a file may also be there because something was lost. Blocking.
    pub fn clear_unowned(
        &self,
        owned: &HashSet<String>,
        deleted: &BTreeSet<String>,
        quarantine: &Quarantine,
    ) -> io::Result<()> {
        for folder in fs::read_dir(&self.kept)? {
            let entry = folder?;
            let folder = entry.path();
            if !entry.file_type()?.is_dir() {
                move_away(quarantine, &folder, "only folders are expected here");
                continue;
            }
            if !is_kept_folder(&entry.file_name().to_string_lossy()) {
                if entry.file_name() != LOST_AND_FOUND {
                    move_away(quarantine, &folder, "it is not a folder of uploads");
                }
                continue;
            }
            for file in fs::read_dir(&folder)? {
                let file = file?;
                let path = file.path();
                let name = kept_name(&path).filter(|_| file.file_type().is_ok_and(|kind| kind.is_file()));
                match name {
                    Some(name) if owned.contains(&name) => {}
                    Some(name) if deleted.contains(&name) => fs::remove_file(&path)?,
                    _ => move_away(quarantine, &path, "no asset refers to it"),
                }
            }
        }
        Ok(())
    }
}

/// Creates a temporary file, removed when its guard is dropped.
fn temporary_file(folder: &Path) -> io::Result<(File, TempPath)> {
    tempfile::Builder::new().prefix("upload-").tempfile_in(folder).map(|file| file.into_parts())
}

/// A folder that some file systems create at their root.
pub const LOST_AND_FOUND: &str = "lost+found";

/// Whether this is the name of a file being received, or of a copy of the store being made.
fn is_temporary(name: &str) -> bool {
    name.starts_with("upload-") || (name.starts_with("snp_") && name.contains(".db"))
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_kept_folder(name: &str) -> bool {
    is_hex(name, 2)
}

/// Whether a name has the form `ab/<64 hex digits>-<8 hex digits>`.
fn is_kept_name(name: &str) -> bool {
    let Some((folder, file)) = name.split_once('/') else { return false };
    let Some((sha256, tail)) = file.split_once('-') else { return false };
    is_kept_folder(folder) && is_hex(sha256, 64) && is_hex(tail, 8) && sha256.starts_with(folder)
}

/// The name of a stored file, from the end of its path, wherever the data folder was at the time.
pub fn kept_name(path: &Path) -> Option<String> {
    let (file, folder) = (path.file_name()?.to_str()?, path.parent()?.file_name()?.to_str()?);
    let name = format!("{folder}/{file}");
    is_kept_name(&name).then_some(name)
}

/// Bytes of an upload kept in memory before a file is created for it, so that clients that send almost
/// nothing cost no file.
const HEAD_BYTES: usize = 16 << 10;

/// An upload being received.
#[derive(Debug)]
pub struct UploadWriter {
    /// Folder of its temporary file; `None`: the system's folder for temporary files.
    folder: Option<PathBuf>,
    file: Option<(tokio::fs::File, TempPath)>,
    /// Bytes received before there was a file.
    head: Vec<u8>,
    hasher: Sha256,
    size_bytes: u64,
    max_bytes: u64,
}

/// Received and synced bytes, in a temporary file until they are accepted.
#[derive(Debug)]
pub struct Upload {
    /// The file; removed on drop unless accepted.
    pub path: TempPath,
    /// Hash and size of the file.
    pub content: Content,
}

impl UploadWriter {
    /// An upload of at most `max_bytes` into the data folder.
    pub fn new(uploads: &Uploads, max_bytes: u64) -> Self {
        Self::inside(Some(uploads.temporary.clone()), max_bytes)
    }

    /// An upload outside the data folder, for bytes that live for one request.
    pub fn elsewhere(max_bytes: u64) -> Self {
        Self::inside(None, max_bytes)
    }

    fn inside(folder: Option<PathBuf>, max_bytes: u64) -> Self {
        Self { folder, file: None, head: Vec::new(), hasher: Sha256::new(), size_bytes: 0, max_bytes }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`FileError::TooLarge`], [`FileError::Io`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.size_bytes += bytes.len() as u64;
        if self.size_bytes > self.max_bytes {
            return Err(FileError::TooLarge { max_bytes: self.max_bytes });
        }
        self.hasher.update(bytes);
        if self.file.is_none() && self.head.len() + bytes.len() <= HEAD_BYTES {
            self.head.extend_from_slice(bytes);
            return Ok(());
        }
        let (mut file, path) = self.take_file().await?;
        file.write_all(bytes).await?;
        self.file = Some((file, path));
        Ok(())
    }

    /// The file with all bytes so far; created now if there is none.
    async fn take_file(&mut self) -> Result<(tokio::fs::File, TempPath), FileError> {
        if let Some(made) = self.file.take() {
            return Ok(made);
        }
        let folder = self.folder.clone();
        let made = tokio::task::spawn_blocking(move || {
            io::Result::Ok(match folder {
                Some(folder) => temporary_file(&folder)?,
                None => tempfile::Builder::new().prefix("triptych-").tempfile()?.into_parts(),
            })
        });
        let (file, path) = made.await.map_err(io::Error::other)??;
        let mut file = tokio::fs::File::from_std(file);
        file.write_all(&std::mem::take(&mut self.head)).await?;
        Ok((file, path))
    }

    /// Finishes the upload; its bytes are on disk when this returns.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub async fn finish(mut self) -> Result<Upload, FileError> {
        let (mut file, path) = self.take_file().await?;
        file.flush().await?;
        crash_point!("upload-received");
        file.sync_all().await?;
        Ok(self.hashed(path))
    }

    /// Finishes an upload that lives only for one request: it need not survive a crash.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub async fn finish_scratch(mut self) -> Result<Upload, FileError> {
        let (mut file, path) = self.take_file().await?;
        file.flush().await?;
        Ok(self.hashed(path))
    }

    fn hashed(self, path: TempPath) -> Upload {
        let content = Content { sha256: hex::encode(self.hasher.finalize()), size_bytes: self.size_bytes };
        Upload { path, content }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn uploads_are_capped_hashed_and_kept_and_what_nobody_owns_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().canonicalize().unwrap();
        let quarantine = Quarantine::of(&data);
        let uploads = Uploads::of(&data).unwrap();
        assert!(uploads.kept_names().unwrap().is_empty());
        uploads.prepare(&quarantine).unwrap();
        let mut writer = UploadWriter::new(&uploads, 5);
        writer.write(b"abc").await.unwrap();
        let upload = writer.finish().await.unwrap();
        assert_eq!(upload.content.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash_file(&upload.path.canonicalize().unwrap()).unwrap().0, upload.content);
        let kept = uploads.path_of(&upload.content.sha256, "w3.2/s3.2");
        assert_ne!(kept, uploads.path_of(&upload.content.sha256, "w3.2/s1.6"));
        uploads.keep(&upload.path, &kept).unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"abc");

        let name = kept_name(&kept).unwrap();
        assert_eq!((uploads.kept_file(&name), uploads.kept_file("../x")), (Some(kept.clone()), None));
        assert_eq!(uploads.kept_names().unwrap(), std::slice::from_ref(&name));
        let in_quarantine = || crate::files::quarantined(&data).unwrap().len();
        let (nobody, none) = (HashSet::new(), BTreeSet::new());
        uploads.clear_unowned(&HashSet::from([name.clone()]), &none, &quarantine).unwrap();
        assert!(kept.exists());
        uploads.clear_unowned(&nobody, &none, &quarantine).unwrap();
        assert_eq!((kept.exists(), in_quarantine()), (false, 1));
        fs::write(&kept, b"abc").unwrap();
        uploads.clear_unowned(&nobody, &BTreeSet::from([name]), &quarantine).unwrap();
        assert_eq!((kept.exists(), in_quarantine()), (false, 1));
        fs::create_dir_all(kept.join("folder")).unwrap();
        fs::write(data.join("uploads/note.txt"), b"x").unwrap();
        fs::create_dir(data.join("uploads/lost+found")).unwrap();
        fs::create_dir(data.join("uploads/other")).unwrap();
        uploads.clear_unowned(&nobody, &none, &quarantine).unwrap();
        assert!(
            !kept.exists() && !data.join("uploads/note.txt").exists() && !data.join("uploads/other").exists()
        );
        assert!(data.join("uploads/lost+found").is_dir());

        let most = HEAD_BYTES as u64 + 9;
        let mut writer = UploadWriter::new(&uploads, most);
        let halves = (vec![1; HEAD_BYTES], vec![2; 9]);
        writer.write(&halves.0).await.unwrap();
        assert_eq!(fs::read_dir(data.join("tmp")).unwrap().count(), 0, "a little is held in memory");
        writer.write(&halves.1).await.unwrap();
        assert_eq!(writer.write(b"a").await.unwrap_err().code(), "payload_too_large");
        let upload = writer.finish_scratch().await.unwrap();
        assert_eq!(fs::read(&upload.path).unwrap(), [halves.0, halves.1].concat());
        std::mem::forget(upload);
        assert_eq!(fs::read_dir(data.join("tmp")).unwrap().count(), 1);
        fs::create_dir_all(data.join("tmp/folder")).unwrap();
        fs::write(data.join("tmp/notes"), b"mine").unwrap();
        let before = in_quarantine();
        uploads.prepare(&quarantine).unwrap();
        assert_eq!(fs::read_dir(data.join("tmp")).unwrap().count(), 0);
        assert_eq!(in_quarantine(), before + 1);
    }
}

//! Uploaded bytes: streamed to a temporary file, synced, then kept under their own hash.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;

use super::{LibraryError, open_resolved};

/// What bytes are: their SHA-256 and their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size_bytes: u64,
}

/// Hashes a file of a user. Blocking.
pub(super) fn hash_file(path: &Path) -> Result<Content, LibraryError> {
    let mut file = open_resolved(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut size_bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Content { sha256: hex::encode(hasher.finalize()), size_bytes });
        }
        hasher.update(&buffer[..read]);
        size_bytes += read as u64;
    }
}

/// The folders of uploaded bytes inside the data folder.
#[derive(Debug)]
pub(super) struct Uploads {
    kept: PathBuf,
    temporary: PathBuf,
}

impl Uploads {
    /// Makes the folders, readable by their owner only, and drops what a crash left half-written.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let data_dir = data_dir.canonicalize()?;
        let uploads = Self { kept: data_dir.join("uploads"), temporary: data_dir.join("tmp") };
        let private = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        private(&uploads.kept)?;
        private(&uploads.temporary)?;
        for entry in fs::read_dir(&uploads.temporary)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(uploads)
    }

    /// Where kept bytes lie.
    pub(super) fn kept_folder(&self) -> &Path {
        &self.kept
    }

    /// Where files lie that are being received; emptied at start.
    pub(super) fn temporary_folder(&self) -> &Path {
        &self.temporary
    }

    /// A temporary file that goes when its guard does.
    pub(super) fn temporary_file(&self) -> io::Result<(File, TempPath)> {
        tempfile::Builder::new().prefix("upload-").tempfile_in(&self.temporary).map(|file| file.into_parts())
    }

    /// Where bytes of this hash are kept. The segmentation is part of it as it is part of an
    /// asset's identity: every asset has a file of its own to delete.
    pub(super) fn path_of(&self, sha256: &str, segmentation: &str) -> PathBuf {
        let tail = hex::encode(&Sha256::digest(segmentation)[..4]);
        self.kept.join(&sha256[..2]).join(format!("{sha256}-{tail}"))
    }

    /// Moves a synced temporary file to where it is kept, durably. Blocking.
    pub(super) fn keep(&self, temporary: &Path, kept: &Path) -> io::Result<()> {
        let folder = kept.parent().unwrap_or(&self.kept);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::rename(temporary, kept)?;
        File::open(folder)?.sync_all()?;
        File::open(&self.kept)?.sync_all()
    }

    /// Removes kept files that no asset owns: a crash between the rename and the store's commit.
    /// Nobody was told that they were accepted. Returns how many. Blocking.
    pub(super) fn remove_orphans(&self, owned: &HashSet<PathBuf>) -> io::Result<usize> {
        let mut removed = 0;
        for folder in fs::read_dir(&self.kept)? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(&folder)? {
                let file = file?.path();
                if !owned.contains(&file) {
                    fs::remove_file(&file)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

/// An upload that is being received.
#[derive(Debug)]
pub struct UploadWriter {
    file: tokio::fs::File,
    path: TempPath,
    hasher: Sha256,
    size_bytes: u64,
    max_bytes: u64,
}

/// Received and synced bytes, in a temporary file until they are accepted.
#[derive(Debug)]
pub struct Upload {
    /// The file; removed with this unless accepted.
    pub path: TempPath,
    /// What it holds.
    pub content: Content,
}

impl UploadWriter {
    pub(super) fn new(uploads: &Uploads, max_bytes: u64) -> io::Result<Self> {
        Ok(Self::into_file(uploads.temporary_file()?, max_bytes))
    }

    /// Outside the data folder, for bytes that live for one request.
    pub(super) fn elsewhere(max_bytes: u64) -> io::Result<Self> {
        let file = tempfile::Builder::new().prefix("triptych-").tempfile()?;
        Ok(Self::into_file(file.into_parts(), max_bytes))
    }

    fn into_file((file, path): (File, TempPath), max_bytes: u64) -> Self {
        Self { file: tokio::fs::File::from_std(file), path, hasher: Sha256::new(), size_bytes: 0, max_bytes }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`LibraryError::UploadTooLarge`], [`LibraryError::Io`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), LibraryError> {
        self.size_bytes += bytes.len() as u64;
        if self.size_bytes > self.max_bytes {
            return Err(LibraryError::UploadTooLarge { max_bytes: self.max_bytes });
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes).await?;
        Ok(())
    }

    /// Ends the upload; its bytes are on disk when this returns.
    ///
    /// # Errors
    /// [`LibraryError::Io`].
    pub async fn finish(mut self) -> Result<Upload, LibraryError> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        self.hashed()
    }

    /// Ends an upload that only lives for one request: nothing need survive a crash.
    ///
    /// # Errors
    /// [`LibraryError::Io`].
    pub async fn finish_scratch(mut self) -> Result<Upload, LibraryError> {
        self.file.flush().await?;
        self.hashed()
    }

    fn hashed(self) -> Result<Upload, LibraryError> {
        let content = Content { sha256: hex::encode(self.hasher.finalize()), size_bytes: self.size_bytes };
        Ok(Upload { path: self.path, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn uploads_are_capped_hashed_kept_and_orphans_go() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(dir.path()).unwrap();
        let mut writer = UploadWriter::new(&uploads, 5).unwrap();
        writer.write(b"abc").await.unwrap();
        let upload = writer.finish().await.unwrap();
        assert_eq!(upload.content.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash_file(&upload.path.canonicalize().unwrap()).unwrap(), upload.content);
        let kept = uploads.path_of(&upload.content.sha256, "w3.2/s3.2");
        assert_ne!(kept, uploads.path_of(&upload.content.sha256, "w3.2/s1.6"));
        uploads.keep(&upload.path, &kept).unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"abc");

        assert_eq!(uploads.remove_orphans(&HashSet::from([kept.clone()])).unwrap(), 0);
        assert_eq!(uploads.remove_orphans(&HashSet::new()).unwrap(), 1);
        assert!(!kept.exists());

        let mut writer = UploadWriter::new(&uploads, 5).unwrap();
        assert_eq!(writer.write(b"abcdef").await.unwrap_err().code(), "payload_too_large");
        std::mem::forget(writer);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 1);
        Uploads::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }
}

//! Where snapshots are stored: a folder, or any other storage of whole files by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use std::path::Path;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::BackupError;
use crate::files::Content;

/// Counts the bytes copied, and stops the copying on request.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) bytes_done: AtomicU64,
    pub(super) cancel: CancellationToken,
}

impl Meter {
    pub(super) fn stopped_by(cancel: CancellationToken) -> Self {
        Self { bytes_done: AtomicU64::new(0), cancel }
    }

    pub(super) fn add(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn check(&self) -> Result<(), BackupError> {
        if self.cancel.is_cancelled() { Err(BackupError::Cancelled) } else { Ok(()) }
    }
}

/// A lock held while snapshots change.
pub(super) type Turn = Box<dyn Send + Sync>;

/// Stores whole files by name. A name consists of plain parts joined by `/`. When a write returns, the file
/// is there, complete and durable; after a failed write it is not there at all.
#[async_trait]
pub(super) trait Destination: Send + Sync {
    /// The folder, if the destination is one.
    fn folder(&self) -> Option<&Path> {
        None
    }
    /// A folder for the store's copy, if the destination has a better one than the data folder.
    fn scratch(&self) -> Option<&Path>;
    /// Locks out other processes, and removes half-written files of dead ones.
    async fn lock(&self) -> Result<Turn, BackupError>;
    /// Size of a file in bytes; `None` if it does not exist.
    async fn size(&self, key: &str) -> Result<Option<u64>, BackupError>;
    /// Reads a small file; `None` if it does not exist or is larger than `most_bytes`.
    async fn read(&self, key: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, BackupError>;
    /// Writes a small file.
    async fn write(&self, key: &str, bytes: Vec<u8>) -> Result<(), BackupError>;
    /// Copies a file in and returns the size and hash of its content. If they are not `expected`, nothing is
    /// stored.
    async fn upload(
        &self,
        from: &Path,
        key: &str,
        expected: Option<&str>,
        meter: &Arc<Meter>,
    ) -> Result<Content, BackupError>;
    /// Like `upload`, but moves a file out of the scratch folder.
    async fn adopt(&self, from: &Path, key: &str, meter: &Arc<Meter>) -> Result<Content, BackupError>;
    /// Copies a file out, synced, and returns the size and hash of its content; `None` if it does not exist.
    async fn download(
        &self,
        key: &str,
        to: &Path,
        meter: &Arc<Meter>,
    ) -> Result<Option<Content>, BackupError>;
    /// Reads a file to its end and returns the size and hash of its content; `None` if it does not exist.
    async fn digest(&self, key: &str, meter: &Arc<Meter>) -> Result<Option<Content>, BackupError>;
    /// Names of all files that begin with `prefix`, which ends with `/`.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, BackupError>;
    /// Removes a file; a missing one is not an error.
    async fn delete(&self, key: &str) -> Result<(), BackupError>;
}

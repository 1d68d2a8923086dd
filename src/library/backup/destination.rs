//! Where snapshots are kept: a folder, or anything else that holds whole files by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use std::path::Path;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::BackupError;
use crate::library::Content;

/// Counts bytes as they are copied, and stops the copying on request.
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

/// Held while snapshots are changed.
pub(super) type Turn = Box<dyn Send>;

/// Whole files by name. A name is of plain parts joined by `/`. What is written is there whole and
/// durable when the call returns, or not at all.
#[async_trait]
pub(super) trait Destination: Send + Sync {
    /// The folder it is, where it is one.
    fn folder(&self) -> Option<&Path> {
        None
    }
    /// A folder in which the store's copy may be made, if there is one that is better than ours.
    fn scratch(&self) -> Option<&Path>;
    /// Keeps other processes from changing anything, and removes what a dead one left half-written.
    async fn lock(&self) -> Result<Turn, BackupError>;
    /// Bytes of a file; `None` where there is none.
    async fn size(&self, key: &str) -> Result<Option<u64>, BackupError>;
    /// A small file; `None` where there is none, or where it is larger than `most_bytes`.
    async fn read(&self, key: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, BackupError>;
    /// Writes a small file.
    async fn write(&self, key: &str, bytes: Vec<u8>) -> Result<(), BackupError>;
    /// Copies a file in; what it held. Where that is not `expected`, nothing is kept.
    async fn upload(
        &self,
        from: &Path,
        key: &str,
        expected: Option<&str>,
        meter: &Arc<Meter>,
    ) -> Result<Content, BackupError>;
    /// As `upload`, of a file in the scratch folder, which goes.
    async fn adopt(&self, from: &Path, key: &str, meter: &Arc<Meter>) -> Result<Content, BackupError>;
    /// Copies a file out, synced; what it held. `None` where there is none.
    async fn download(
        &self,
        key: &str,
        to: &Path,
        meter: &Arc<Meter>,
    ) -> Result<Option<Content>, BackupError>;
    /// Reads a file to its end; what it holds. `None` where there is none.
    async fn digest(&self, key: &str, meter: &Arc<Meter>) -> Result<Option<Content>, BackupError>;
    /// Names of all files whose name begins with `prefix`, which ends with `/`.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, BackupError>;
    /// Removes a file; one that is not there is no error.
    async fn delete(&self, key: &str) -> Result<(), BackupError>;
}

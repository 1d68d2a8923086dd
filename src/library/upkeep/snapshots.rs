//! Snapshots of an open library.

use std::sync::Arc;
use std::time::Duration;

use crate::backup::{SnapshotOptions, SnapshotView, Source};
use crate::library::{Library, LibraryError};
use crate::types::SnapshotId;

/// Upkeep of an open library.
#[derive(Debug, Clone, Default)]
pub struct KeepConfig {
    /// Where snapshots are stored, a folder or `s3://bucket/folder`; `None`: snapshots are off.
    pub snapshot_root: Option<String>,
    /// How often to take a scheduled snapshot; `None`: never.
    pub snapshot_every: Option<Duration>,
    /// Number of scheduled snapshots to keep.
    pub snapshots_kept: usize,
    /// How often to apply the retention rules; `None`: only on request.
    pub retention_every: Option<Duration>,
    /// How often to check whether there is space to reclaim; `None`: only on request.
    pub compact_every: Option<Duration>,
    /// How fast to reread the bytes of uploads in the background; 0: not at all.
    pub check_bytes_per_sec: u64,
}

impl Library {
    /// Starts taking a snapshot in the background.
    ///
    /// # Errors
    /// [`BackupError::Off`](crate::backup::BackupError::Off),
    /// [`BackupError::Running`](crate::backup::BackupError::Running) and others.
    pub async fn start_snapshot(
        self: &Arc<Self>,
        options: SnapshotOptions,
    ) -> Result<SnapshotView, LibraryError> {
        if self.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        let taking = self.keeper.begin(options, self.stop.child_token()).await?;
        let view = taking.view();
        let library = Arc::clone(self);
        self.tasks.spawn(async move {
            let pin = library.keeper.pins.pin();
            library.save_index_if_idle().await;
            let source = Source {
                store: Arc::clone(&library.store),
                index_dir: library.index_dir.clone(),
                scratch: library.uploads.temporary_folder().to_owned(),
            };
            let outcome = library.keeper.take(&taking, &source).await;
            drop(pin);
            library.remove_put_off().await;
            library.keeper.end(taking, outcome).await;
        });
        Ok(view)
    }

    /// While nothing is being indexed, the indexes on disk can match the store's copy, so a restored library
    /// need not rebuild them.
    async fn save_index_if_idle(&self) {
        if self.active.len() > 0 {
            return;
        }
        let _gate = self.commit_gate.write().await;
        if let Err(error) = self.index.snapshot(self.store.as_ref()).await {
            tracing::warn!(%error, "the snapshot lacks the indexes; they are rebuilt after a restore");
        }
    }

    /// Removes the files whose removal was put off for a snapshot.
    async fn remove_put_off(&self) {
        let _serial = self.accept_lock.lock().await;
        for path in self.keeper.pins.due() {
            match tokio::fs::remove_file(&path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::error!(%error, path = %path.display(), "could not remove a deleted upload");
                }
                _ => {}
            }
        }
    }

    /// Snapshots, newest first, including the one being taken, or the last one if it failed.
    ///
    /// # Errors
    /// [`BackupError::Off`](crate::backup::BackupError::Off) and others.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotView>, LibraryError> {
        Ok(self.keeper.list().await?)
    }

    /// Looks up one snapshot.
    ///
    /// # Errors
    /// [`BackupError::Off`](crate::backup::BackupError::Off),
    /// [`BackupError::NotFound`](crate::backup::BackupError::NotFound) and others.
    pub async fn snapshot(&self, id: SnapshotId) -> Result<SnapshotView, LibraryError> {
        Ok(self.keeper.find(id).await?)
    }

    /// Deletes a snapshot and the media that no other snapshot needs; stops one that is being taken.
    ///
    /// # Errors
    /// [`BackupError::Off`](crate::backup::BackupError::Off),
    /// [`BackupError::NotFound`](crate::backup::BackupError::NotFound),
    /// [`BackupError::Running`](crate::backup::BackupError::Running) and others.
    pub async fn delete_snapshot(&self, id: SnapshotId) -> Result<(), LibraryError> {
        Ok(self.keeper.delete(id).await?)
    }
}

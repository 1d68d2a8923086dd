//! Snapshots of an open upkeep.

use std::sync::Arc;

use super::Upkeep;
use crate::backup::{SnapshotOptions, SnapshotView, Source};
use crate::collection::LibraryError;
use crate::types::SnapshotId;

impl Upkeep {
    /// Starts taking a snapshot in the background.
    ///
    /// # Errors
    /// [`BackupError::Off`](crate::backup::BackupError::Off),
    /// [`BackupError::Running`](crate::backup::BackupError::Running) and others.
    pub async fn start_snapshot(
        self: &Arc<Self>,
        options: SnapshotOptions,
    ) -> Result<SnapshotView, LibraryError> {
        if self.collection.life.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        let taking =
            self.collection.data.keeper.begin(options, self.collection.life.stop.child_token()).await?;
        let view = taking.view();
        let upkeep = Arc::clone(self);
        self.collection.life.tasks.spawn(async move {
            let pin = upkeep.collection.data.keeper.pins.pin();
            upkeep.save_index_if_idle().await;
            let source = Source {
                store: Arc::clone(&upkeep.collection.store),
                index_dir: upkeep.collection.index_dir().clone(),
                scratch: upkeep.collection.data.uploads.temporary_folder().to_owned(),
            };
            let outcome = upkeep.collection.data.keeper.take(&taking, &source).await;
            drop(pin);
            upkeep.ingest.remove_put_off().await;
            upkeep.collection.data.keeper.end(taking, outcome).await;
        });
        Ok(view)
    }

    /// Snapshots, newest first, including the one being taken, or the last one if it failed.
    ///
    /// # Errors
    /// [`BackupError::Off`](crate::backup::BackupError::Off) and others.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotView>, LibraryError> {
        Ok(self.collection.data.keeper.list().await?)
    }

    /// Looks up one snapshot.
    ///
    /// # Errors
    /// [`BackupError::Off`](crate::backup::BackupError::Off),
    /// [`BackupError::NotFound`](crate::backup::BackupError::NotFound) and others.
    pub async fn snapshot(&self, id: SnapshotId) -> Result<SnapshotView, LibraryError> {
        Ok(self.collection.data.keeper.find(id).await?)
    }

    /// Deletes a snapshot and the media that no other snapshot needs; stops one that is being taken.
    ///
    /// # Errors
    /// [`BackupError::Off`](crate::backup::BackupError::Off),
    /// [`BackupError::NotFound`](crate::backup::BackupError::NotFound),
    /// [`BackupError::Running`](crate::backup::BackupError::Running) and others.
    pub async fn delete_snapshot(&self, id: SnapshotId) -> Result<(), LibraryError> {
        Ok(self.collection.data.keeper.delete(id).await?)
    }

    /// While nothing is being indexed, the indexes on disk can match the store's copy, so a restored library
    /// need not rebuild them.
    async fn save_index_if_idle(&self) {
        if !self.ingest.is_idle() {
            return;
        }
        if let Err(error) = self.collection.save_indexes().await {
            tracing::warn!(%error, "the snapshot lacks the indexes; they are rebuilt after a restore");
        }
    }
}

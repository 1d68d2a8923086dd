//! Scheduled snapshots.

use std::sync::Arc;
use std::time::Duration;

use super::destination::Destination;
use super::{BackupError, SnapshotOptions, create, read_manifests};
use crate::jobs::now_unix_ms;
use crate::library::{Library, LibraryError};

/// Takes scheduled snapshots. The interval counts from the last scheduled one, also across restarts.
pub(in crate::library) async fn take_by_the_clock(library: Arc<Library>) {
    let Some(every) = library.keeper.config.snapshot_every else { return };
    let every_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
    let mut last_unix_ms = library.last_scheduled_unix_ms().await.unwrap_or(0);
    loop {
        let due_ms = last_unix_ms.saturating_add(every_ms).saturating_sub(now_unix_ms());
        let wait = Duration::from_millis(u64::try_from(due_ms).unwrap_or(0)).max(Duration::from_secs(1));
        tokio::select! {
            () = library.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        if !library.disk.writable(&library.stop).await {
            return;
        }
        let options = SnapshotOptions { scheduled: true, recheck: false };
        match library.start_snapshot(options).await {
            Ok(_) => last_unix_ms = now_unix_ms(),
            // A requested snapshot is running; try again in a moment.
            Err(LibraryError::Backup(BackupError::Running)) | Err(LibraryError::Stopping) => {}
            Err(error) => {
                tracing::error!(code = error.code(), %error, "could not start a scheduled snapshot");
                last_unix_ms = now_unix_ms();
            }
        }
    }
}

impl Library {
    pub(super) async fn drop_old_snapshots(&self, destination: &dyn Destination) {
        let dropped = async {
            let mut scheduled: Vec<_> = read_manifests(destination).await?;
            scheduled.retain(|(_, manifest)| manifest.as_ref().is_ok_and(|manifest| manifest.scheduled));
            let surplus = scheduled.len().saturating_sub(self.keeper.config.snapshots_kept.max(1));
            for (id, _) in scheduled.into_iter().take(surplus) {
                create::delete(destination, &id).await?;
                tracing::info!(id, "deleted an old snapshot");
            }
            Ok::<_, BackupError>(())
        };
        if let Err(error) = dropped.await {
            tracing::error!(code = error.code(), %error, "could not delete old snapshots");
        }
    }

    async fn last_scheduled_unix_ms(&self) -> Option<i64> {
        let manifests = read_manifests(self.keeper.destination().ok()?.as_ref()).await.ok()?;
        let scheduled =
            manifests.into_iter().filter_map(|(_, manifest)| manifest.ok()).filter(|m| m.scheduled);
        scheduled.map(|manifest| manifest.created_unix_ms).max()
    }
}

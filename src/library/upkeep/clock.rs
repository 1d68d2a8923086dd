//! Scheduled snapshots.

use std::sync::Arc;
use std::time::Duration;

use super::Upkeep;
use crate::backup::{BackupError, SnapshotOptions};
use crate::collection::LibraryError;
use crate::types::now_unix_ms;

/// Takes scheduled snapshots. The interval counts from the last scheduled one, also across restarts.
pub(super) async fn take_by_the_clock(upkeep: Arc<Upkeep>) {
    let Some(every) = upkeep.collection.data.config.keep.snapshot_every else { return };
    let every_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
    let mut last_unix_ms = upkeep.collection.data.keeper.last_scheduled_unix_ms().await.unwrap_or(0);
    loop {
        let due_ms = last_unix_ms.saturating_add(every_ms).saturating_sub(now_unix_ms());
        let wait = Duration::from_millis(u64::try_from(due_ms).unwrap_or(0)).max(Duration::from_secs(1));
        tokio::select! {
            () = upkeep.collection.life.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        if !upkeep.collection.data.disk.writable(&upkeep.collection.life.stop).await {
            return;
        }
        let options = SnapshotOptions { scheduled: true, recheck: false };
        match upkeep.start_snapshot(options).await {
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

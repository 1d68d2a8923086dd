//! Automatic compaction.

use std::sync::Arc;
use std::time::Duration;

use super::Upkeep;

/// Compacts automatically while nothing is being indexed and enough space is free.
pub(super) async fn keep_up(upkeep: Arc<Upkeep>) {
    let Some(every) = upkeep.collection.data.config.keep.compact_every else { return };
    loop {
        tokio::select! {
            () = upkeep.collection.life.stop.cancelled() => return,
            () = tokio::time::sleep(every.max(Duration::from_millis(100))) => {}
        }
        if !upkeep.collection.data.disk.writable(&upkeep.collection.life.stop).await {
            return;
        }
        if let Err(error) =
            upkeep.collection.compact_if_quiet(|| !upkeep.ingest.is_idle()).await.or_else(|error| {
                if upkeep.collection.data.disk.refuses(&error) { Ok(()) } else { Err(error) }
            })
        {
            tracing::error!(code = error.code(), %error, "could not reclaim free space");
        }
    }
}

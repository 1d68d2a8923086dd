//! Saves the indexes now and then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Upkeep;

/// How often to check for changes to save.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(30);

/// Under steady load, the indexes are saved nevertheless after this long.
const SNAPSHOT_AT_LATEST: Duration = Duration::from_secs(900);

/// Saves the indexes when nothing is being indexed, so that the next startup need not rebuild them.
pub(super) async fn save_when_idle(upkeep: Arc<Upkeep>) {
    let mut written = upkeep.collection.store.sequence().await.ok();
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = upkeep.collection.life.stop.cancelled() => return,
            () = tokio::time::sleep(SNAPSHOT_EVERY) => {}
        }
        if !upkeep.collection.data.disk.writable(&upkeep.collection.life.stop).await {
            return;
        }
        let idle = upkeep.ingest.is_idle();
        let sequence = upkeep.collection.store.sequence().await.ok();
        if sequence == written || !(idle || last.elapsed() > SNAPSHOT_AT_LATEST) {
            continue;
        }
        match upkeep.collection.save_indexes().await {
            Ok(saved) => {
                written = saved;
                last = Instant::now();
            }
            Err(error) => {
                if !upkeep.collection.data.disk.refuses(&error) {
                    tracing::error!(%error, "could not save an index");
                }
            }
        }
    }
}

//! Calibrates confidence whenever the collection has changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Upkeep;

/// How often to check whether the library has changed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// After a smaller change, how long the library must be unchanged first.
const SETTLED: Duration = Duration::from_secs(5);

/// After a smaller change, the time since the last calibration must be at least this multiple of its
/// duration: files that arrive one by one must not keep a core busy.
const REST: u32 = 20;

/// Calibrates while the library is open, whenever it has changed and nothing is being indexed.
pub(super) async fn keep_up(upkeep: Arc<Upkeep>) {
    let mut seen = (upkeep.collection.searched.catalog.len().1, Instant::now());
    let mut rested_at = Instant::now();
    loop {
        tokio::select! {
            () = upkeep.collection.life.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let clips = upkeep.collection.searched.catalog.len().1;
        if clips != seen.0 {
            seen = (clips, Instant::now());
        }
        let changed = clips != upkeep.collection.calibrated_clips();
        let settled = changed && seen.1.elapsed() >= SETTLED && Instant::now() >= rested_at;
        if !upkeep.ingest.is_idle() || !(settled || upkeep.collection.is_background_due()) {
            continue;
        }
        let begun = Instant::now();
        let made = tokio::select! {
            () = upkeep.collection.life.stop.cancelled() => return,
            made = upkeep.collection.calibrate() => made,
        };
        rested_at = Instant::now() + begun.elapsed() * REST;
        if let Err(error) = made {
            if upkeep.collection.data.disk.refuses(&error) {
                // The new values are in memory all the same.
                continue;
            }
            tracing::error!(%error, "could not update the calibration of confidence");
            tokio::time::sleep(LOOK_EVERY * REST).await;
        }
    }
}

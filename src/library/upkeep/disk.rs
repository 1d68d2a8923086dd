//! Watches the disk of the data folder. While it refuses writes, background work waits instead of failing, and resumes
//! by itself once there is room.

use std::sync::Arc;
use std::time::Duration;

use super::Upkeep;
use crate::store::StorageFull;

/// Write failures within a moment of each other lead to one check.
const TOGETHER: Duration = Duration::from_millis(100);

/// Watches the disk while the library is open.
pub(super) async fn keep_watch(upkeep: Arc<Upkeep>) {
    let mut met = StorageFull::watch();
    loop {
        let failed = tokio::select! {
            () = upkeep.collection.life.stop.cancelled() => return,
            () = tokio::time::sleep(upkeep.collection.data.disk.wait()) => false,
            // A write failed, here or elsewhere.
            changed = met.changed(), if upkeep.collection.data.disk.refusal().is_none() => {
                tokio::time::sleep(TOGETHER).await;
                changed.is_ok()
            }
        };
        if let Err(error) = upkeep
            .collection
            .data
            .disk
            .look(failed, upkeep.ingest.try_store(), upkeep.ingest.pay_debts())
            .await
        {
            tracing::error!(code = error.code(), %error, "could not resume the work that the full disk had stopped");
        }
        met.borrow_and_update();
    }
}

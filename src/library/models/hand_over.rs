//! Hands over from one model to another: accepted work and users' settings go along, and at no moment do both
//! models take work.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::collection::LibraryError;
use crate::library::Library;
use crate::store::AssetState;

/// Time limit for running files to stop at their next clip.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stops taking work and seals the store; searches continue. Running work stays in the store as unfinished.
async fn stop_and_seal(library: &Library) {
    library.stop_work();
    let ended = tokio::time::timeout(PATIENCE, async {
        library.collection.life.tasks.wait().await;
        library.ingest.until_idle().await;
    });
    if ended.await.is_err() {
        tracing::warn!("some files did not stop in time; the promoted model starts them again");
    }
    library.collection.store.seal(true).await;
}

/// Hands everything over from one library to another, which has followed it. `commit` durably records that it now
/// serves. After a failure, the first library is still sealed and stopped: see [`revive`].
pub(super) async fn hand_over(
    from: &Library,
    to: &Arc<Library>,
    commit: impl FnOnce() -> Result<(), LibraryError>,
) -> Result<(), LibraryError> {
    stop_and_seal(from).await;
    let never = CancellationToken::new();
    for id in to.ingest.differing(&from.ingest).await? {
        match from.collection.store.asset(id).await {
            // Accepted and promised: the promoted library indexes it.
            Ok(theirs) if theirs.state == AssetState::Indexing => {
                if let Some((claim, record)) = to.ingest.accept_from(&theirs).await? {
                    to.ingest.work.push(claim, record);
                }
            }
            _ => to.ingest.mirror_all(&from.ingest, vec![id], &never).await?,
        }
    }
    let store = to.collection.store.as_ref();
    store.adopt_work(&from.collection.folder).await?;
    store.requeue_running().await?;
    to.ingest.baselines.refresh(store).await?;
    to.standing.refresh().await?;
    // Before any matching: a query without vectors of this model would miss new assets.
    to.standing.renew_all().await?;
    commit()?;
    to.collection.life.take_over();
    to.start_serving();
    to.ingest.work.wake.notify_waiters();
    Ok(())
}

/// Returns a library working again, after a failed handover.
pub(super) async fn revive(library: &Library) -> Arc<Library> {
    library.collection.store.seal(false).await;
    let revived = library.revived();
    if let Err(error) = revived.collection.store.requeue_running().await {
        tracing::error!(%error, "running items wait until the next startup");
    }
    revived
}

/// Saves the indexes of a library that no longer serves, so that it can be loaded quickly again.
pub(super) async fn leave_snapshots(library: &Library) {
    if let Err(error) = library.collection.save_indexes().await {
        tracing::warn!(%error, "could not save the index of the previous model");
    }
}

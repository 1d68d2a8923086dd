//! Hands over from one model to another: accepted work and users' settings go along, and at no moment do both
//! models take work.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Library, LibraryError};
use crate::store::AssetState;

/// Time limit for running files to stop at their next clip.
const PATIENCE: Duration = Duration::from_secs(20);

impl Library {
    /// Stops taking work and seals the store; searches continue. Running work stays in the store as
    /// unfinished.
    async fn stop_and_seal(&self) {
        self.stop.cancel();
        self.work.clear();
        self.tasks.close();
        let ended = tokio::time::timeout(PATIENCE, async {
            self.tasks.wait().await;
            while self.active.len() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        if ended.await.is_err() {
            tracing::warn!("some files did not stop in time; the model that takes over starts them again");
        }
        self.store.seal(true).await;
    }

    /// Hands everything over to `to`, which has followed this library. `commit` durably records that `to` now
    /// serves. After a failure this library is still sealed and stopped: see [`Self::revive`].
    pub(super) async fn hand_over(
        self: &Arc<Self>,
        to: &Arc<Self>,
        commit: impl FnOnce() -> Result<(), LibraryError>,
    ) -> Result<(), LibraryError> {
        self.stop_and_seal().await;
        let never = CancellationToken::new();
        for id in to.differing(self).await? {
            match self.store.asset(id).await {
                // Accepted and promised: the library that takes over indexes it.
                Ok(theirs) if theirs.state == AssetState::Indexing => {
                    if let Some((claim, record)) = to.accept_from(&theirs).await? {
                        to.work.push(claim, record);
                    }
                }
                _ => to.mirror_all(self, vec![id], &never).await?,
            }
        }
        to.store.adopt_work(&self.folder).await?;
        to.store.requeue_running().await?;
        to.baselines.refresh(to.store.as_ref()).await?;
        to.standing.refresh(to.store.as_ref(), to.embedder.bundle(), &to.comparable).await?;
        // Before any matching: a query without vectors of this model would miss new assets.
        to.renew_standing_queries().await?;
        commit()?;
        to.beside.store(false, Ordering::Release);
        to.start_serving();
        to.work.wake.notify_waiters();
        Ok(())
    }

    /// Returns this library working again, after a failed handover.
    pub(super) async fn revive(&self) -> Arc<Self> {
        self.store.seal(false).await;
        let revived = self.revived();
        if let Err(error) = revived.store.requeue_running().await {
            tracing::error!(%error, "items that were running wait until the next start");
        }
        revived
    }

    /// Saves the indexes of a library that no longer serves, so that it can be loaded quickly again.
    pub(super) async fn leave_snapshots(&self) {
        if let Err(error) = self.index.snapshot(self.store.as_ref()).await {
            tracing::warn!(%error, "could not keep the index of the previous model");
        }
    }
}

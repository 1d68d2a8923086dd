//! One model takes over from another: what was accepted and what people set up goes along, and at no
//! moment do both take work.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Library, LibraryError};
use crate::store::AssetState;

/// How long running files may take to stop at their next clip.
const PATIENCE: Duration = Duration::from_secs(20);

impl Library {
    /// Stops taking work and seals the store; searches go on. What ran waits in the store.
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

    /// Hands everything over to `to`, which has followed this library. `commit` makes it durable that
    /// `to` serves from now on. On failure this library is still sealed and stopped: see [`Self::revive`].
    pub(super) async fn hand_over(
        self: &Arc<Self>,
        to: &Arc<Self>,
        commit: impl FnOnce() -> Result<(), LibraryError>,
    ) -> Result<(), LibraryError> {
        self.stop_and_seal().await;
        let never = CancellationToken::new();
        for id in to.differing(self).await? {
            match self.store.asset(id).await {
                // Accepted, and promised: it is indexed by the one that takes over.
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
        // Before anything is matched: a query without vectors of this model would miss it.
        to.renew_standing_queries().await?;
        commit()?;
        to.beside.store(false, Ordering::Release);
        to.start_serving();
        to.work.wake.notify_waiters();
        Ok(())
    }

    /// This library once more, taking work, after it could not be handed over.
    pub(super) async fn revive(&self) -> Arc<Self> {
        self.store.seal(false).await;
        let revived = self.revived();
        if let Err(error) = revived.store.requeue_running().await {
            tracing::error!(%error, "items that were running wait until the next start");
        }
        revived
    }

    /// Leaves index snapshots of a library that serves no longer, so that it can be loaded again soon.
    pub(super) async fn leave_snapshots(&self) {
        if let Err(error) = self.index.snapshot(self.store.as_ref()).await {
            tracing::warn!(%error, "could not keep the index of the previous model");
        }
    }
}

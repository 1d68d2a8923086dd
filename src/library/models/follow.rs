//! A model beside the serving one: it embeds the same assets from the same bytes, under the same ids, and
//! follows every change.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::collection::LibraryError;
use crate::ingest::Ingest;
use crate::library::Library;
use crate::types::AssetId;

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Progress of an additional model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Progress {
    /// Whether it has embedded all assets of the serving model.
    pub caught_up: bool,
    /// Number of assets it has embedded.
    pub assets: usize,
    /// Number of assets of the serving model.
    pub assets_total: usize,
}

/// How far a follower has got.
#[derive(Debug, Default)]
pub(super) struct Follower {
    caught_up: AtomicBool,
    error: Mutex<Option<String>>,
}

impl Follower {
    pub(super) fn caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    /// Why the follower is stuck, if it is.
    pub(super) fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, outcome: &Result<(), LibraryError>) {
        let text = outcome.as_ref().err().map(ToString::to_string);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Follows whichever library serves, until stopped.
    pub(super) async fn run(
        &self,
        side: Arc<Ingest>,
        mut serving: watch::Receiver<Arc<Library>>,
        stop: CancellationToken,
    ) {
        while side.collection.data.disk.writable(&stop).await {
            let primary = Arc::clone(serving.borrow_and_update().ingest());
            // Subscribe before comparing, so that no change is missed in between.
            let changes = primary.collection.life.changes.subscribe();
            let outcome = self.keep_up(&side, &primary, changes, &mut serving, &stop).await;
            self.caught_up.store(false, Ordering::Release);
            self.note(&outcome);
            if let Err(error) = outcome.or_else(|error| {
                if primary.collection.data.disk.refuses(&error) { Ok(()) } else { Err(error) }
            }) {
                tracing::warn!(model = side.collection.embedder.bundle().name(), %error, "an additional model cannot keep up");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }

    /// Follows one library until stopped, until another library serves, or until too many changes were
    /// missed.
    async fn keep_up(
        &self,
        side: &Arc<Ingest>,
        primary: &Arc<Ingest>,
        mut changes: broadcast::Receiver<AssetId>,
        serving: &mut watch::Receiver<Arc<Library>>,
        stop: &CancellationToken,
    ) -> Result<(), LibraryError> {
        let differing = side.differing(primary).await?;
        side.mirror_all(primary, differing, stop).await?;
        loop {
            self.note(&Ok(()));
            self.caught_up.store(true, Ordering::Release);
            let first = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = serving.changed() => { let _ = changed; return Ok(()) },
                change = changes.recv() => match change {
                    Ok(id) => id,
                    // Too far behind, or the library has gone: compare everything again.
                    Err(_) => return Ok(()),
                },
            };
            self.caught_up.store(false, Ordering::Release);
            let mut ids = HashSet::from([first]);
            while let Ok(id) = changes.try_recv() {
                ids.insert(id);
            }
            side.mirror_all(primary, ids.into_iter().collect(), stop).await?;
        }
    }
}

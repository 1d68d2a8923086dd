//! A model beside the serving one.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::follow::Follower;
use crate::files::Known;
use crate::library::Library;

pub(super) struct Beside {
    pub(super) library: Arc<Library>,
    pub(super) known: Known,
    pub(super) follower: Arc<Follower>,
    pub(super) stop: CancellationToken,
    pub(super) task: Mutex<Option<JoinHandle<()>>>,
}

impl Beside {
    pub(super) fn caught_up(&self) -> bool {
        self.follower.caught_up() && self.library.ingest.is_idle()
    }

    pub(super) async fn stop_following(&self) {
        self.stop.cancel();
        if let Some(task) = self.task.lock().await.take() {
            // It ends at the next clip; the hook has already printed a panic in it.
            let _ = task.await;
        }
    }

    pub(super) fn is(&self, model: &str) -> bool {
        is(&self.library, model)
    }
}

/// Whether a name or digest names the model of a library.
pub(super) fn is(library: &Library, model: &str) -> bool {
    let bundle = library.embedder().bundle();
    bundle.name() == model || *bundle.id().0 == *model
}

/// Stops following, then the library.
pub(super) async fn stop_beside(beside: Arc<Beside>) {
    beside.stop_following().await;
    if let Err(error) = beside.library.shutdown().await {
        tracing::warn!(%error, "could not save the index of an additional model");
    }
}

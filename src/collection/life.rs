//! The lifetime of a collection: its tasks, its stop signal, and the followers of its changes.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::types::AssetId;

/// How many changes of assets a model beside may lag behind; beyond it, it compares everything.
const CHANGES: usize = 1024;

/// The work on a collection, from its start to its stop.
pub(crate) struct Life {
    /// Cancelled to stop all work on the collection.
    pub(crate) stop: CancellationToken,
    /// Background tasks, awaited on shutdown.
    pub(crate) tasks: TaskTracker,
    /// Whether this collection follows another one, whose files it must not remove.
    beside: AtomicBool,
    /// Announces assets that have become searchable, failed or been removed.
    pub(crate) changes: broadcast::Sender<AssetId>,
    /// Fires when there may be assets to match against standing queries.
    pub(crate) searchable: Notify,
    /// Whether the workers were started.
    pub(crate) started: Once,
    /// Whether the work that only the serving model does was started.
    pub(crate) serving: Once,
}

impl Life {
    pub(super) fn new(beside: bool) -> Self {
        Self::with(beside, broadcast::Sender::new(CHANGES))
    }

    /// A new life for the same followers, after this one was stopped.
    pub(super) fn revived(&self) -> Self {
        Self::with(false, self.changes.clone())
    }

    fn with(beside: bool, changes: broadcast::Sender<AssetId>) -> Self {
        Self {
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            beside: AtomicBool::new(beside),
            changes,
            searchable: Notify::new(),
            started: Once::new(),
            serving: Once::new(),
        }
    }

    /// Whether this is the serving model; a model beside repeats all work, which metrics must not count
    /// twice.
    pub(crate) fn serves(&self) -> bool {
        !self.beside.load(Ordering::Acquire)
    }

    /// From now on, this is the serving model.
    pub(crate) fn take_over(&self) {
        self.beside.store(false, Ordering::Release);
    }

    /// Tells followers that an asset has changed.
    pub(crate) fn tell(&self, id: AssetId) {
        // There may be no followers.
        let _ = self.changes.send(id);
    }
}

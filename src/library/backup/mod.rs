//! Snapshots: takes the whole library at one moment, stores it elsewhere, and restores it.
//!
//! ```text
//! snapshots/<id>/store.db       the store at one moment
//! snapshots/<id>/index/…        indexes of the same moment, calibration of confidence
//! snapshots/<id>/media.jsonl    the uploads it needs
//! snapshots/<id>/manifest.json  its contents, every file with size and SHA-256; written last
//! media/ab/<SHA-256>            uploads, shared by all snapshots
//! ```
//!
//! A folder without a manifest is not a snapshot: an interrupted snapshot is never mistaken for a whole one,
//! and the next snapshot removes it. `pins` explains why uploads deleted during a snapshot are not missed.

mod bucket;
mod clock;
mod create;
mod destination;
mod error;
mod folder;
mod manifest;
mod pins;
mod place;
mod restore;
mod view;

#[cfg(test)]
pub(crate) use manifest::fuzzed;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

pub use create::SnapshotOptions;
pub use error::BackupError;
pub use place::SnapshotPlace;
pub use restore::Restored;
pub use view::{SnapshotContents, SnapshotProblem, SnapshotProgress, SnapshotState, SnapshotView};

use super::{Library, LibraryError, SourcesConfig};
use crate::types::SnapshotId;
pub(super) use clock::take_by_the_clock;
use destination::Destination;
use manifest::{MANIFEST, Manifest};
pub(super) use pins::Pins;
use view::Running;

/// How long a caller waits for the lock if no snapshot is being taken.
const TURN_PATIENCE: Duration = Duration::from_secs(2);

/// Upkeep of an open library.
#[derive(Debug, Clone, Default)]
pub struct KeepConfig {
    /// Where snapshots are stored, a folder or `s3://bucket/folder`; `None`: snapshots are off.
    pub snapshot_root: Option<String>,
    /// How often to take a scheduled snapshot; `None`: never.
    pub snapshot_every: Option<Duration>,
    /// Number of scheduled snapshots to keep.
    pub snapshots_kept: usize,
    /// How often to apply the retention rules; `None`: only on request.
    pub retention_every: Option<Duration>,
    /// How often to check whether there is space to reclaim; `None`: only on request.
    pub compact_every: Option<Duration>,
    /// How fast to reread the bytes of uploads in the background; 0: not at all.
    pub check_bytes_per_sec: u64,
}

/// The state of a library's snapshots.
pub(super) struct Keeper {
    pub(super) config: KeepConfig,
    pub(super) pins: Arc<Pins>,
    /// Lets only one snapshot or compaction run at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
    waiting: AtomicUsize,
    destination: Option<Arc<dyn Destination>>,
    /// The snapshot being taken, or the last one if it failed.
    current: Mutex<Option<Arc<Running>>>,
}

impl Keeper {
    pub(super) fn open(
        config: KeepConfig,
        sources: &SourcesConfig,
        data_dir: &Path,
    ) -> Result<Self, BackupError> {
        let root = config.snapshot_root.as_deref();
        if let Some(root) = root {
            place::refuse_within(root, data_dir)?;
        }
        let destination = root.map(|root| place::destination_at(root, sources)).transpose()?;
        Ok(Self {
            config,
            pins: Arc::default(),
            turn: Arc::default(),
            waiting: AtomicUsize::new(0),
            destination,
            current: Mutex::new(None),
        })
    }

    fn destination(&self) -> Result<&Arc<dyn Destination>, BackupError> {
        self.destination.as_ref().ok_or(BackupError::Off)
    }

    fn current(&self) -> Option<Arc<Running>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_current(&self, running: Option<Arc<Running>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }

    fn forget(&self, id: SnapshotId) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|running| running.id == id) {
            *current = None;
        }
    }

    /// Takes the lock that excludes other snapshots and compactions. Waits for one that is about to end; an
    /// automatic one makes room.
    pub(super) async fn take_turn(&self) -> Result<OwnedMutexGuard<()>, BackupError> {
        if self.current().is_some_and(|running| running.is_running()) {
            return Err(BackupError::Running);
        }
        let _waiting = Waiting::of(&self.waiting);
        let turn = tokio::time::timeout(TURN_PATIENCE, Arc::clone(&self.turn).lock_owned()).await;
        turn.map_err(|_| BackupError::Running)
    }

    /// Takes the lock only if it is free, for work that nobody requested.
    pub(super) fn take_idle_turn(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }

    /// Whether a caller is waiting for the lock.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Counts a waiting caller while it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Every snapshot of a destination with its id and manifest, oldest first.
async fn read_manifests(
    destination: &dyn Destination,
) -> Result<Vec<(String, Result<Manifest, BackupError>)>, BackupError> {
    let mut found = Vec::new();
    for key in destination.list("snapshots/").await? {
        let id =
            key.strip_prefix("snapshots/").and_then(|rest| rest.strip_suffix(MANIFEST)?.strip_suffix('/'));
        let Some(id) = id.filter(|id| id.parse::<SnapshotId>().is_ok()) else { continue };
        match restore::manifest_of(destination, id).await {
            // Deleted in the meantime.
            Err(BackupError::NotFound(_)) => {}
            Err(error @ (BackupError::Damaged { .. } | BackupError::Format(_))) => {
                found.push((id.to_owned(), Err(error)));
            }
            Err(error) => return Err(error),
            Ok(manifest) => found.push((id.to_owned(), Ok(manifest))),
        }
    }
    Ok(found)
}

/// Every snapshot of a destination, newest first.
async fn list(destination: &dyn Destination) -> Result<Vec<SnapshotView>, BackupError> {
    let mut views = Vec::new();
    for (id, manifest) in read_manifests(destination).await? {
        match (manifest, id.parse()) {
            (Ok(manifest), _) => views.push(SnapshotView::ready(&manifest)),
            (Err(error), Ok(id)) => views.push(SnapshotView::damaged(id, &error)),
            (Err(_), Err(_)) => {}
        }
    }
    views.sort_unstable_by_key(|view| std::cmp::Reverse(view.id));
    Ok(views)
}

impl Library {
    /// Starts taking a snapshot in the background.
    ///
    /// # Errors
    /// [`BackupError::Off`], [`BackupError::Running`] and others.
    pub async fn start_snapshot(
        self: &Arc<Self>,
        options: SnapshotOptions,
    ) -> Result<SnapshotView, LibraryError> {
        if self.stop.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        let destination = Arc::clone(self.keeper.destination()?);
        let turn = self.keeper.take_turn().await?;
        let lock = destination.lock().await?;
        let running = Arc::new(Running::begin(options.scheduled, self.stop.child_token()));
        self.keeper.set_current(Some(Arc::clone(&running)));
        let view = running.view();
        let library = Arc::clone(self);
        self.tasks.spawn(async move {
            // Fires also on a panic.
            let _done = running.done.clone().drop_guard();
            let taken = library.take_snapshot(destination.as_ref(), &running, options).await;
            drop(lock);
            drop(turn);
            // Only now: a client that sees this snapshot ready may start the next one.
            if taken {
                library.keeper.forget(running.id);
            }
        });
        Ok(view)
    }

    async fn take_snapshot(
        &self,
        destination: &dyn Destination,
        running: &Running,
        options: SnapshotOptions,
    ) -> bool {
        let began = std::time::Instant::now();
        let outcome = self.snapshot_to(destination, running, options).await;
        match outcome {
            Ok(manifest) => {
                super::metrics::snapshot_ended("ready");
                let (assets, clips) = (manifest.assets, manifest.clips);
                let copied_bytes = manifest.copied_bytes + manifest.file_bytes();
                let secs = began.elapsed().as_secs_f64();
                tracing::info!(id = %manifest.id, assets, clips, copied_bytes, secs, "took a snapshot");
                if options.scheduled {
                    self.drop_old_snapshots(destination).await;
                }
                true
            }
            Err(error) => {
                super::metrics::snapshot_ended("failed");
                running.fail(&error);
                tracing::error!(id = %running.id, code = error.code(), %error, "could not take a snapshot");
                false
            }
        }
    }

    async fn snapshot_to(
        &self,
        destination: &dyn Destination,
        running: &Running,
        options: SnapshotOptions,
    ) -> Result<Manifest, BackupError> {
        let pin = self.keeper.pins.pin();
        self.save_index_if_idle().await;
        let source = create::Source {
            store: Arc::clone(&self.store),
            index_dir: self.index_dir.clone(),
            scratch: self.uploads.temporary_folder().to_owned(),
        };
        let outcome = create::create(&source, destination, running, options).await;
        drop(pin);
        self.remove_put_off().await;
        if outcome.is_err() {
            create::remove_files(destination, running.id).await?;
        }
        outcome
    }

    /// While nothing is being indexed, the indexes on disk can match the store's copy, so a restored library
    /// need not rebuild them.
    async fn save_index_if_idle(&self) {
        if self.active.len() > 0 {
            return;
        }
        let _gate = self.commit_gate.write().await;
        if let Err(error) = self.index.snapshot(self.store.as_ref()).await {
            tracing::warn!(%error, "the snapshot lacks the indexes; they are rebuilt after a restore");
        }
    }

    /// Removes the files whose removal was put off for a snapshot.
    async fn remove_put_off(&self) {
        let _serial = self.accept_lock.lock().await;
        for path in self.keeper.pins.due() {
            match tokio::fs::remove_file(&path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::error!(%error, path = %path.display(), "could not remove a deleted upload");
                }
                _ => {}
            }
        }
    }

    /// Snapshots, newest first, including the one being taken, or the last one if it failed.
    ///
    /// # Errors
    /// [`BackupError::Off`] and others.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotView>, LibraryError> {
        let destination = self.keeper.destination()?;
        // Read this before the list: a snapshot that ends in between is reported as running once more.
        let current = self.keeper.current();
        let mut views = list(destination.as_ref()).await?;
        if let Some(running) = current {
            views.retain(|view| view.id != running.id);
            views.push(running.view());
            views.sort_unstable_by_key(|view| std::cmp::Reverse(view.id));
        }
        Ok(views)
    }

    /// Looks up one snapshot.
    ///
    /// # Errors
    /// [`BackupError::Off`], [`BackupError::NotFound`] and others.
    pub async fn snapshot(&self, id: SnapshotId) -> Result<SnapshotView, LibraryError> {
        let destination = self.keeper.destination()?;
        if let Some(running) = self.keeper.current().filter(|running| running.id == id) {
            return Ok(running.view());
        }
        match restore::manifest_of(destination.as_ref(), &id.to_string()).await {
            Ok(manifest) => Ok(SnapshotView::ready(&manifest)),
            Err(error @ (BackupError::Damaged { .. } | BackupError::Format(_))) => {
                Ok(SnapshotView::damaged(id, &error))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a snapshot and the media that no other snapshot needs; stops one that is being taken.
    ///
    /// # Errors
    /// [`BackupError::Off`], [`BackupError::NotFound`], [`BackupError::Running`] and others.
    pub async fn delete_snapshot(&self, id: SnapshotId) -> Result<(), LibraryError> {
        let destination = Arc::clone(self.keeper.destination()?);
        if let Some(running) = self.keeper.current().filter(|running| running.id == id) {
            running.meter.cancel.cancel();
            running.done.cancelled().await;
            if self.keeper.current().is_some_and(|running| running.id == id) {
                self.keeper.forget(id);
                return Ok(());
            }
        }
        let _turn = self.keeper.take_turn().await?;
        let lock = destination.lock().await?;
        let deleted = create::delete(destination.as_ref(), &id.to_string()).await;
        drop(lock);
        Ok(deleted?)
    }
}
